"""Images of digits read pixel by pixel: MNIST, and scikit-learn's small stand-in for it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from gradflow.cell import Key
from gradflow.data.idx import read_mnist
from gradflow.tasks.parts import at_end, classified
from gradflow.tasks.task import Batch, Stored, Task

_NUM_TEST = 360  # a fifth of the 1797 images of digits

SPLITS = ("train", "test")


class Sequences(NamedTuple):
    """Images as sequences, with their classes.

    Attributes:
      pixels: Brightness, 0 for none, in the order in which the pixels are read.
      labels: The class of each image.
      full: The full brightness, which is read as 1.
    """

    pixels: UInt8[np.ndarray, "images steps"]
    labels: Int[np.ndarray, " images"]
    full: int

    def at(self, chosen: Any) -> Batch:
        """The images of these numbers as a batch whose loss sits at the last step."""
        pixels = jnp.asarray(self.pixels)[chosen].astype(jnp.result_type(float)) / self.full
        return at_end(pixels.T[..., None], jnp.asarray(self.labels)[chosen])

    def sample(self, key: Key, batch_size: int) -> Batch:
        """Draws a batch, each image as often as it falls."""
        return self.at(jax.random.randint(key, (batch_size,), 0, len(self.labels)))


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
    return _task(functools.partial(digit_sequences, permuted=permuted), split)


def mnist(*, data_dir: Any = None, split: str = "train", permuted: Any = False) -> Task:
    """MNIST's digits from their 28×28 pixels, one pixel a step, row after row: T = 784.

    As `digits`, with the 60,000 images of the official training set and the 10,000 of its test
    set, which evaluations draw from.

    Args:
      data_dir: Where the four official files are; nothing is fetched.
      split: ``"train"`` or ``"test"``.
      permuted: Puts the pixels in one fixed random order; papers do not share theirs.

    Raises:
      TypeError: If permuted is not a bool, or data_dir is not text.
      ValueError: If split is another one, or a file is missing or damaged.

    Source: LeCun, Bottou, Bengio, Haffner 1998, doi:10.1109/5.726791; read by pixels and permuted
    as in Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    if not isinstance(data_dir, str | None):
        raise TypeError(f"data_dir is expected to be text, got {data_dir!r}: put it in quotes")
    return _task(functools.partial(mnist_sequences, data_dir, permuted=permuted), split)


def digit_sequences(split: str, *, permuted: Any = False) -> Sequences:
    """All images of a split of `digits`, in a random order: a run of them is a sample.

    Raises:
      TypeError: If permuted is not a bool.
      ValueError: If split is another one.
    """
    _check_split(split)
    pixels, labels = _load_digits()
    part = slice(_NUM_TEST, None) if split == "train" else slice(_NUM_TEST)
    return Sequences(_ordered(pixels[part], permuted), labels[part], 16)


def mnist_sequences(data_dir: str | None, split: str, *, permuted: Any = False) -> Sequences:
    """All images of a split of `mnist`, in the order of the files.

    Raises:
      TypeError: If permuted is not a bool.
      ValueError: If split is another one, or a file is missing or damaged.
    """
    _check_split(split)
    pixels, labels = _load_mnist(data_dir, split)
    return Sequences(_ordered(pixels, permuted), labels, 255)


def _task(sequences: Any, split: str) -> Task:
    """The task of a split; `sequences` gives all the images of one."""
    trained_on = sequences(split)
    num_steps = trained_on.pixels.shape[1]
    shares = np.bincount(trained_on.labels) / len(trained_on.labels)
    shares = shares[shares > 0]
    entropy = float(-np.sum(shares * np.log(shares)))
    sample = Stored(trained_on, Sequences.sample)
    held_out = Stored(sequences("test"), Sequences.sample) if split == "train" else None
    return Task(sample, 1, 10, num_steps, "cross_entropy", entropy, classified, 0.9, held_out)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split is expected to be 'train' or 'test', got {split!r}")


def _ordered(
    pixels: UInt8[np.ndarray, "images steps"], permuted: Any
) -> UInt8[np.ndarray, "images steps"]:
    if not isinstance(permuted, bool):
        raise TypeError(f"permuted is expected to be True or False, got {permuted!r}")
    if not permuted:
        return pixels
    return pixels[:, np.random.default_rng(0).permutation(pixels.shape[1])]


@functools.cache
def _load_digits() -> tuple[UInt8[np.ndarray, "images pixels"], Int[np.ndarray, " images"]]:
    from sklearn.datasets import load_digits  # a second of import that others need not wait for

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.asarray(images, np.uint8)[order], np.asarray(labels)[order]


@functools.lru_cache(maxsize=2)
def _load_mnist(
    data_dir: str | None, split: str
) -> tuple[UInt8[np.ndarray, "images pixels"], Int[np.ndarray, " images"]]:
    pixels, labels = read_mnist(data_dir, split)
    return pixels.reshape(len(pixels), -1), labels.astype(int)
