"""The digits task: real images with their labels, in two parts that share none."""

import functools

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from gradflow.tasks import resolve_task


@functools.cache
def drawn(spec, size):
    task = resolve_task(spec)
    batch = jax.jit(task.sample, static_argnums=1)(jax.random.key(1), size)
    assert (batch.weights.sum(axis=0) == 1).all() and (batch.weights[-1] == 1).all()
    return np.asarray(batch.inputs[..., 0]).T, np.asarray(batch.targets[-1])


def test_images_keep_their_labels_and_the_splits_share_none():
    images, labels = load_digits(return_X_y=True)
    rows = {tuple(image / 16): label for image, label in zip(images, labels, strict=True)}
    found = {}
    for split, spec in (("train", "digits"), ("test", "digits(split='test')")):
        pixels, targets = drawn(spec, 20000)
        found[split] = {tuple(image): label for image, label in zip(pixels, targets, strict=True)}
        assert all(rows[image] == label for image, label in found[split].items())
    assert len(found["train"]) == 1437 and len(found["test"]) == 360
    assert len(set(found["train"]) & set(found["test"])) == len(images) - len(rows)


def test_evaluations_are_on_the_images_that_are_held_out():
    for permuted in (False, True):
        task = resolve_task(f"digits(permuted={permuted})")
        test = resolve_task(f"digits(split='test', permuted={permuted})")
        for draw in (task.fresh, test.fresh):
            found, expected = draw(jax.random.key(2), 50), test.sample(jax.random.key(2), 50)
            np.testing.assert_array_equal(found.inputs, expected.inputs)


def test_permuted_pixels_are_the_same_ones_in_one_other_order():
    pixels, labels = drawn("digits", 20000)
    permuted, same_labels = drawn("digits(permuted=True)", 20000)
    np.testing.assert_array_equal(labels, same_labels)
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(permuted, pixels[:, order])
    assert not np.array_equal(permuted, pixels)


def test_options_are_checked():
    with pytest.raises(ValueError, match="split is expected to be 'train' or 'test', got 'all'"):
        jax.eval_shape(lambda: resolve_task("digits(split='all')"))
    with pytest.raises(TypeError, match="permuted is expected to be True or False, got 1"):
        resolve_task("digits(permuted=1)")
