"""Classification of digits read pixel by pixel: MNIST, and scikit-learn's small digits."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from gradflow.cell import Key
from gradflow.checks import check_flag
from gradflow.data.files import check_split
from gradflow.data.idx import read_mnist
from gradflow.tasks.task import Batch, Stored, Task, at_end, classified

_NUM_TEST = 360  # a fifth of the 1797 images of digits


class Sequences(NamedTuple):
    """Images as sequences, with their classes.

    Attributes:
      pixels: Brightness, from 0 to full, in the order in which the pixels are read.
      labels: The class of each image.
      full: The largest brightness, which is scaled to 1.
    """

    pixels: UInt8[np.ndarray, "images steps"]
    labels: Int[np.ndarray, " images"]
    full: int

    def at(self, indices: Any) -> Batch:
        """Makes a batch of the images with these indices, with the loss at the last step."""
        pixels = jnp.asarray(self.pixels)[indices].astype(jnp.result_type(float)) / self.full
        return at_end(pixels.T[..., None], jnp.asarray(self.labels)[indices])

    def sample(self, key: Key, batch_size: int) -> Batch:
        """Samples a batch of images with replacement."""
        return self.at(jax.random.randint(key, (batch_size,), 0, len(self.labels)))


def digits(*, split: str = "train", permuted: Any = False) -> Task:
    """Classification of digits 0 to 9 from 8×8 pixels, read row by row: T = 64.

    Grey levels are in [0, 1]; the class is the target at the last step. Batches are sampled with
    replacement from the images of one split. The test split is a fixed fifth of all images and is
    held out for evaluations. The best prediction without memory is the class frequencies of the
    split; its loss is their entropy, 2.30 nats. The task is solved if 90 % of images are classified
    correctly, a criterion of our own, as no paper gives one.

    Args:
      split: ``"train"``, 1437 images, or ``"test"``, the other 360.
      permuted: Whether the pixels are read in one fixed random order, which removes locality.

    Raises:
      TypeError: If permuted is not a bool.
      ValueError: If there is no such split.

    Source: Alpaydin & Kaynak 1998, doi:10.24432/C50P49, as `sklearn.datasets.load_digits`;
    read by pixels as in Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    return _task(functools.partial(digit_sequences, permuted=permuted), split)


def mnist(*, data_dir: Any = None, split: str = "train", permuted: Any = False) -> Task:
    """Classification of MNIST's digits from 28×28 pixels, read row by row: T = 784.

    As `digits`, with the 60,000 images of the official training set. Evaluations use the 10,000
    images of its test set.

    Args:
      data_dir: Folder of the four official files. Nothing is downloaded.
      split: ``"train"`` or ``"test"``.
      permuted: Whether the pixels are read in one fixed random order. Papers do not publish theirs.

    Raises:
      TypeError: If permuted is not a bool, or data_dir is not a string.
      ValueError: If there is no such split, or a file is missing or damaged.

    Source: LeCun, Bottou, Bengio, Haffner 1998, doi:10.1109/5.726791; read by pixels and permuted
    as in Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    if not isinstance(data_dir, str | None):
        raise TypeError(f"Expected data_dir to be a string, got {data_dir!r}. Put it in quotes.")
    return _task(functools.partial(mnist_sequences, data_dir, permuted=permuted), split)


def digit_sequences(split: str, *, permuted: Any = False) -> Sequences:
    """Loads all images of a split of `digits`, in a fixed random order.

    Raises:
      TypeError: If permuted is not a bool.
      ValueError: If there is no such split.
    """
    check_split(split)
    pixels, labels = _load_digits()
    part = slice(_NUM_TEST, None) if split == "train" else slice(_NUM_TEST)
    return Sequences(_ordered(pixels[part], permuted), labels[part], 16)


def mnist_sequences(data_dir: str | None, split: str, *, permuted: Any = False) -> Sequences:
    """Loads all images of a split of `mnist`, in the order of the files.

    Raises:
      TypeError: If permuted is not a bool.
      ValueError: If there is no such split, or a file is missing or damaged.
    """
    pixels, labels = _load_mnist(data_dir, split)
    return Sequences(_ordered(pixels, permuted), labels, 255)


def _task(sequences: Any, split: str) -> Task:
    """Makes the task of a split; `sequences` loads all images of a split."""
    images = sequences(split)
    num_steps = images.pixels.shape[1]
    frequencies = np.bincount(images.labels) / len(images.labels)
    frequencies = frequencies[frequencies > 0]
    entropy = float(-np.sum(frequencies * np.log(frequencies)))
    sample = Stored(images, Sequences.sample)
    held_out = Stored(sequences("test"), Sequences.sample) if split == "train" else None
    return Task(sample, 1, 10, num_steps, "cross_entropy", entropy, classified, 0.9, held_out)


def _ordered(
    pixels: UInt8[np.ndarray, "images steps"], permuted: Any
) -> UInt8[np.ndarray, "images steps"]:
    check_flag("permuted", permuted)
    if not permuted:
        return pixels
    return pixels[:, np.random.default_rng(0).permutation(pixels.shape[1])]


@functools.cache
def _load_digits() -> tuple[UInt8[np.ndarray, "images pixels"], Int[np.ndarray, " images"]]:
    from sklearn.datasets import load_digits  # here, because the import takes about a second

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.asarray(images, np.uint8)[order], np.asarray(labels)[order]


@functools.lru_cache(maxsize=2)
def _load_mnist(
    data_dir: str | None, split: str
) -> tuple[UInt8[np.ndarray, "images pixels"], Int[np.ndarray, " images"]]:
    pixels, labels = read_mnist(data_dir, split)
    return pixels.reshape(len(pixels), -1), labels.astype(int)
