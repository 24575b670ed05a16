"""Digits and MNIST: images with their labels, in disjoint training and test sets."""

import functools
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from gradflow.cells import rnn
from gradflow.tasks import resolve_task
from gradflow.tasks.image_tasks import digit_sequences, digits, mnist_sequences
from gradflow.train import resolve_optimiser
from gradflow.train.runs import advance, begin, evaluate
from gradflow.train.training import Training


@functools.cache
def sampled(spec, size):
    task = resolve_task(spec)
    batch = jax.jit(task.sample, static_argnums=1)(jax.random.key(1), size)
    assert (batch.weights.sum(axis=0) == 1).all() and (batch.weights[-1] == 1).all()
    return np.asarray(batch.inputs[..., 0]).T, np.asarray(batch.targets[-1])


def test_images_keep_their_labels_and_the_splits_are_disjoint():
    images, labels = load_digits(return_X_y=True)
    rows = {tuple(image / 16): label for image, label in zip(images, labels, strict=True)}
    found = {}
    for split, spec in (("train", "digits"), ("test", "digits(split='test')")):
        pixels, targets = sampled(spec, 20000)
        found[split] = {tuple(image): label for image, label in zip(pixels, targets, strict=True)}
        assert all(rows[image] == label for image, label in found[split].items())
        whole = digit_sequences(split)
        assert {tuple(image / 16) for image in whole.pixels} == set(found[split])
    assert len(found["train"]) == 1437 and len(found["test"]) == 360
    assert len(set(found["train"]) & set(found["test"])) == len(images) - len(rows)


def test_evaluations_use_the_held_out_images():
    for permuted in (False, True):
        task = resolve_task(f"digits(permuted={permuted})")
        test = resolve_task(f"digits(split='test', permuted={permuted})")
        for draw in (task.fresh, test.fresh):
            found, expected = draw(jax.random.key(2), 50), test.sample(jax.random.key(2), 50)
            np.testing.assert_array_equal(found.inputs, expected.inputs)


def test_permuted_pixels_are_in_one_fixed_order():
    pixels, labels = sampled("digits", 20000)
    permuted, same_labels = sampled("digits(permuted=True)", 20000)
    np.testing.assert_array_equal(labels, same_labels)
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(permuted, pixels[:, order])
    assert not np.array_equal(permuted, pixels)


@pytest.fixture(scope="module")
def mnist_folder(tmp_path_factory):
    """Files of the official names: six training images of 2×3 pixels and four test images."""
    folder = tmp_path_factory.mktemp("mnist")
    pixels = np.random.default_rng(0).integers(0, 256, (10, 2, 3), dtype=np.uint8)
    labels = np.arange(10, dtype=np.uint8) // 2
    for split, part in (("train", slice(6)), ("t10k", slice(6, None))):
        for name, array in (("images-idx3", pixels[part]), ("labels-idx1", labels[part])):
            header = struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(header + array.tobytes())
    return folder, pixels.reshape(10, 6), labels


def test_mnist_is_read_by_pixels_in_row_order(mnist_folder):
    folder, pixels, labels = mnist_folder
    task = resolve_task(f"mnist(data_dir={str(folder)!r})")
    assert (task.input_size, task.output_size, task.num_steps) == (1, 10, 6)
    assert task.baseline == pytest.approx(np.log(3))  # three classes of two images each
    for draw, part in ((task.sample, slice(6)), (task.fresh, slice(6, None))):
        batch = draw(jax.random.key(0), 100)
        images, targets = np.asarray(batch.inputs[..., 0]).T, np.asarray(batch.targets[-1])
        found = {(*image, y) for image, y in zip(images.round(12), targets, strict=True)}
        rows = zip((pixels[part] / 255).round(12), labels[part], strict=True)
        assert found == {(*image, label) for image, label in rows}
    permuted = mnist_sequences(str(folder), "train", permuted=True).pixels
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_array_equal(permuted, pixels[:6, order])


def test_images_are_arguments_and_not_constants_of_the_compiled_program():
    task = digits()
    assert set(task.arrays) == {"sample", "held_out"} and not resolve_task("adding").arrays
    training = Training(rnn(1, 2), task, resolve_optimiser("sgd"), batch_size=4, eval_size=8)
    runs = begin(training, jax.random.split(jax.random.key(0), 2), jnp.ones(2))
    for function in (functools.partial(advance, num_updates=1), evaluate):
        (program,) = jax.make_jaxpr(lambda r, f=function: f(training, r))(runs).eqns
        assert {(1437, 64), (360, 64)} <= {v.aval.shape for v in program.invars}
        inner = program.params["jaxpr"]
        assert all(np.size(constant) < 64 for constant in inner.consts)


def test_bad_options_raise(mnist_folder):
    with pytest.raises(ValueError, match="Expected split to be 'train' or 'test', got 'all'"):
        jax.eval_shape(lambda: resolve_task("digits(split='all')"))
    with pytest.raises(TypeError, match="Expected permuted to be True or False, got 1"):
        resolve_task("digits(permuted=1)")
    with pytest.raises(ValueError, match="Expected split to be 'train' or 'test', got 'all'"):
        mnist_sequences(str(mnist_folder[0]), "all")
    with pytest.raises(TypeError, match="Expected permuted to be True or False, got 1"):
        resolve_task(f"mnist(data_dir={str(mnist_folder[0])!r}, permuted=1)")
    with pytest.raises(
        TypeError, match="Expected data_dir to be a string, got 3. Put it in quotes"
    ):
        resolve_task("mnist(data_dir=3)")
    with pytest.raises(ValueError, match="Expected a folder with the file .*, got none"):
        resolve_task("mnist")
