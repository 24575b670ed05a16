"""The generated inputs, the digits, and errors that need no data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from gradflow.tasks import make_inputs

SIZES = {"num_sequences": 3, "num_steps": 5, "input_size": 2}


def test_gaussian_has_the_moments_of_its_distribution(key):
    x = np.asarray(make_inputs("gaussian", key, num_sequences=20, num_steps=100, input_size=10))
    n = x.size
    assert x.shape == (20, 100, 10)
    assert abs(x.mean()) < 5 / n**0.5
    assert abs((x**2).mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 5 * (96 / n) ** 0.5
    neighbours = [x[1:] * x[:-1], x[:, 1:] * x[:, :-1], x[..., 1:] * x[..., :-1]]
    for product in neighbours:  # independent along every axis
        assert abs(product.mean()) < 5 / product.size**0.5


def test_gaussian_scales_with_std_and_depends_only_on_the_key(key):
    one = make_inputs("gaussian", key, **SIZES)
    np.testing.assert_array_equal(one, make_inputs(" gaussian ( std = 1 )", key, **SIZES))
    np.testing.assert_array_equal(2.5 * one, make_inputs("gaussian(std=2.5)", key, **SIZES))
    assert not np.any(one == make_inputs("gaussian", jax.random.key(1), **SIZES))


def test_constant_and_impulse_values(key):
    np.testing.assert_array_equal(make_inputs("constant", key, **SIZES), np.ones((3, 5, 2)))
    three = make_inputs("constant(value=-3)", key, **SIZES)
    np.testing.assert_array_equal(three, np.full((3, 5, 2), -3.0))
    expected = np.zeros((3, 5, 2))
    expected[:, 0] = 4
    np.testing.assert_array_equal(make_inputs("impulse(size=4)", key, **SIZES), expected)
    expected[:, 0] = 1
    np.testing.assert_array_equal(make_inputs("impulse", key, **SIZES), expected)


def test_an_autonomous_run_has_no_channels(key):
    x = make_inputs("gaussian", key, num_sequences=2, num_steps=4, input_size=0)
    assert x.shape == (2, 4, 0)


@pytest.mark.parametrize("num_steps", [2, 7, 10])
def test_adding_marks_one_step_in_each_half(key, num_steps):
    x = make_inputs("adding", key, num_sequences=400, num_steps=num_steps, input_size=9)
    assert x.shape == (400, num_steps, 2)
    values, markers = np.moveaxis(np.asarray(x), -1, 0)
    half = num_steps // 2
    assert set(np.unique(markers)) <= {0.0, 1.0}
    np.testing.assert_array_equal(markers[:, :half].sum(axis=1), 1)
    np.testing.assert_array_equal(markers[:, half:].sum(axis=1), 1)
    assert (markers.sum(axis=0) > 0).all()  # every step is marked in some sequence
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 1 / 2) < 5 / (12 * values.size) ** 0.5
    assert abs(values.var() - 1 / 12) < 5 / (180 * values.size) ** 0.5


def test_constant_prediction_has_the_published_error_on_adding(key):
    # The variance of the target is 2/12: what a net that always answers 1 cannot go below.
    x = np.asarray(make_inputs("adding", key, num_sequences=20_000, num_steps=6, input_size=2))
    target = (x[..., 0] * x[..., 1]).sum(axis=1)
    assert abs(((target - 1) ** 2).mean() - 1 / 6) < 0.01


def test_digits_contain_every_image_once(key):
    images = load_digits().data / 16
    x = make_inputs("digits", key, num_sequences=len(images), num_steps=64, input_size=5)
    assert x.shape == (1797, 64, 1)
    rows = np.asarray(x[..., 0])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], images[np.lexsort(images.T)])
    assert not np.array_equal(rows, images)  # sampled in a random order
    assert rows.min() == 0 and rows.max() == 1


def test_digits_with_fewer_steps_take_the_first_pixels(key):
    sizes = {"num_sequences": 2000, "input_size": 1}  # more than there are: some come twice
    short = make_inputs("digits", key, num_steps=10, **sizes)
    np.testing.assert_array_equal(short, make_inputs("digits", key, num_steps=64, **sizes)[:, :10])


@pytest.mark.parametrize("spec", ["gaussian", "constant(value=2)", "impulse", "adding", "digits"])
def test_inputs_have_the_default_float_type(key, spec):
    assert make_inputs(spec, key, **SIZES).dtype == jnp.float64
    with jax.enable_x64(False):
        assert make_inputs(spec, key, **SIZES).dtype == jnp.float32


@pytest.mark.parametrize(
    "spec, message",
    [
        ("gausian", r"Unknown kind of inputs 'gausian'. Did you mean 'gaussian'\?"),
        ("txt:some/file.txt", r"Unknown kind of inputs 'txt'. Did you mean 'text'\?"),
        ("gaussian:3", r"Unknown kind of inputs 'gaussian:3'.*Known: adding, constant"),
        ("gaussian(mean=1)", "Unknown option 'mean' of inputs 'gaussian'. Known: std"),
        ("adding(length=3)", "Unknown option 'length' of inputs 'adding'. Known: none"),
        ("gaussian(3)", r"Expected options by keyword, got 'gaussian\(3\)'"),
        ("gaussian(std=0)", "Expected std to be positive, got 0. Set std"),
        ("gaussian(std=-1)", "Expected std to be positive, got -1"),
        ("gaussian(std='a')", "Expected std to be a number, got 'a'"),
        ("constant(value=None)", "Expected value to be a number, got None"),
        ("constant(value=1e999)", "Expected value to be finite, got inf"),
        ("impulse(size=True)", "Expected size to be a number, got True"),
        ("text", "Expected the path of a file, got none. Write text:PATH"),
        ("text(a=1)", "Expected the path of a file, got none. Write text:PATH"),
        ("series:lonely.csv", "Expected the path of a file, got none. Write series:PATH:COLUMN"),
        ("npy:", "Expected the path of a file, got none. Write npy:PATH"),
    ],
)
def test_bad_spec_raises(key, spec, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make_inputs(spec, key, **SIZES)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"num_sequences": 0}, "Expected num_sequences to be at least 1, got 0"),
        ({"num_steps": -2}, "Expected num_steps to be at least 1, got -2"),
        ({"input_size": -1}, "Expected input_size to be at least 0, got -1"),
    ],
)
@pytest.mark.parametrize("spec", ["gaussian", "text:nowhere.txt"])
def test_bad_size_raises(key, spec, sizes, message):
    with pytest.raises(ValueError, match=message):
        make_inputs(spec, key, **(SIZES | sizes))


def test_more_steps_than_pixels_raise(key):
    with pytest.raises(
        ValueError, match="Expected num_steps of digits to be between 1 and 64, got 65"
    ):
        make_inputs("digits", key, num_sequences=1, num_steps=65, input_size=1)


def test_adding_with_too_few_steps_for_two_markers_raises(key):
    with pytest.raises(ValueError, match="Expected num_steps to be at least 2, got 1"):
        make_inputs("adding", key, num_sequences=1, num_steps=1, input_size=2)
