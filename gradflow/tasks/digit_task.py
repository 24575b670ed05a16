"""Handwritten digits read pixel by pixel: the small stand-in for sequential MNIST."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gradflow.cell import Key
from gradflow.tasks.parts import at_end, classified
from gradflow.tasks.task import Batch, Task

_NUM_TEST = 360  # a fifth of the 1797 images


def digits(*, split: str = "train", permuted: Any = False) -> Task:
    """Digits 0 to 9 from their 8×8 pixels, one pixel a step, row after row: T = 64.

    Grey is from 0 to 1, and the class is to be said at the last step. A batch is drawn from the
    images of one split, each image as often as it falls; a fifth of all, the same ones in
    every run, is the test split, which ``digits`` holds out for evaluations. What remembers
    nothing says the classes' shares in the split, and its loss is their entropy, 2.30 nats. No
    paper sets a criterion; the task counts as solved when 90 % of images are classified correctly.

    Args:
      split: ``"train"``, 1437 images, or ``"test"``, the other 360.
      permuted: Puts the pixels in one fixed random order, which breaks up what lies near.

    Raises:
      TypeError: If permuted is not a bool.
      ValueError: If split is another one.

    Source: Alpaydin & Kaynak 1998, doi:10.24432/C50P49, as `sklearn.datasets.load_digits`;
    read by pixels as in Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is expected to be 'train' or 'test', got {split!r}")
    if not isinstance(permuted, bool):
        raise TypeError(f"permuted is expected to be True or False, got {permuted!r}")
    pixels, labels = _load()
    if permuted:
        pixels = pixels[:, np.random.default_rng(0).permutation(pixels.shape[1])]
    test = _sampler(pixels[:_NUM_TEST], labels[:_NUM_TEST])
    train = _sampler(pixels[_NUM_TEST:], labels[_NUM_TEST:])
    labels = labels[_NUM_TEST:] if split == "train" else labels[:_NUM_TEST]
    shares = np.bincount(labels) / len(labels)
    entropy = float(-np.sum(shares * np.log(shares)))
    sizes = 1, 10, pixels.shape[1]
    sample, held_out = (train, test) if split == "train" else (test, None)
    return Task(sample, *sizes, "cross_entropy", entropy, classified, 0.9, held_out)


def _sampler(
    pixels: Float[np.ndarray, "images pixels"], labels: Int[np.ndarray, " images"]
) -> Callable[[Key, int], Batch]:
    def sample(key: Key, batch_size: int) -> Batch:
        drawn = jax.random.randint(key, (batch_size,), 0, len(labels))
        images = jnp.asarray(pixels, dtype=jnp.result_type(float))[drawn]
        return at_end(images.T[..., None], jnp.asarray(labels)[drawn])

    return sample


@functools.cache
def _load() -> tuple[Float[np.ndarray, "images pixels"], Int[np.ndarray, " images"]]:
    """All images in a fixed random order, so that a run of them is a sample."""
    from sklearn.datasets import load_digits  # a second of import that others need not wait for

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.asarray(images)[order] / 16, np.asarray(labels)[order]
