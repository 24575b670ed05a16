"""Arrays in the idx format of MNIST, with or without gzip compression.

::

    0  0  kind  n        kind: 8 for unsigned bytes; n: number of axes
    size_1 ... size_n    unsigned integers of four bytes
    the numbers          in C order; everything is big-endian
"""

import math
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from gradflow.data.files import MAX_BYTES, check_split, official_file, opened
from gradflow.paths import user_path

KINDS = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

SOURCE = (
    "http://yann.lecun.com/exdb/mnist/ (mirror: https://ossci-datasets.s3.amazonaws.com/mnist/)"
)

PREFIXES = {"train": "train", "test": "t10k"}


class Images(NamedTuple):
    """Grey-scale images and their classes.

    Attributes:
      pixels: Brightness from 0 to 255.
      labels: The class of each image.
    """

    pixels: UInt8[np.ndarray, "images height width"]
    labels: UInt8[np.ndarray, " images"]


def read_mnist(data_dir: str | Path | None, split: str) -> Images:
    """Reads the images and labels of one split of MNIST from its official files.

    Each file may be compressed, such as ``train-images-idx3-ubyte.gz``, or decompressed, without
    ``.gz``. (Fashion-MNIST and KMNIST are published under the same names.)

    Args:
      data_dir: Folder of the files.
      split: ``train`` or ``test``.

    Raises:
      ValueError: If there is no such split, a file is missing, damaged or of another kind, or
        images and labels do not match.

    Source: LeCun, Bottou, Bengio, Haffner 1998, doi:10.1109/5.726791.
    """
    check_split(split)
    prefix = PREFIXES[split]
    images = _find(data_dir, f"{prefix}-images-idx3-ubyte")
    labels = _find(data_dir, f"{prefix}-labels-idx1-ubyte")
    found = Images(read_idx(images, num_axes=3), read_idx(labels, num_axes=1))
    for path, array in zip((images, labels), found, strict=True):
        if array.dtype != np.uint8:
            raise ValueError(
                f"Expected unsigned bytes in {str(path)!r}, got {array.dtype}. Download it from "
                f"{SOURCE}."
            )
    if len(found.pixels) != len(found.labels):
        raise ValueError(
            f"Expected a label for each image, got {len(found.pixels)} images in {images.name!r} "
            f"and {len(found.labels)} labels in {labels.name!r}. Download both from one source."
        )
    if not found.pixels.size or found.labels.max() > 9:
        raise ValueError(
            f"Expected images of the classes 0 to 9 in {images.name!r}, got shape "
            f"{found.pixels.shape} and the label {max(found.labels, default=None)}. Download the "
            f"files from {SOURCE}."
        )
    return found


def read_idx(path: Path, *, num_axes: int) -> Shaped[np.ndarray, "..."]:
    """Reads the array in an idx file; a name that ends in .gz means gzip compression.

    Args:
      path: Path of the file.
      num_axes: The expected number of axes.

    Raises:
      ValueError: If the file is damaged, has another format or number of axes, or does not have
        the size that its header gives.
    """
    with opened(path, source=SOURCE) as file:
        start = file.read(4)
        kind, axes = start[2:] if start[:2] == b"\0\0" and len(start) == 4 else (None, None)
        if kind not in KINDS or axes != num_axes:
            raise ValueError(
                f"Expected an idx file of {num_axes} axes, which begins with the bytes 0, 0, 8, "
                f"{num_axes}, got {', '.join(map(str, start)) or 'nothing'} in {str(path)!r}. "
                f"Download it from {SOURCE}."
            )
        sizes, dtype = file.read(4 * num_axes), np.dtype(KINDS[kind])
        shape = struct.unpack(f">{num_axes}I", sizes.ljust(4 * num_axes, b"\0"))
        expected = math.prod(shape) * dtype.itemsize
        if expected > MAX_BYTES:
            raise ValueError(
                f"Expected an array of at most {MAX_BYTES} bytes in {str(path)!r}, got the shape "
                f"{shape} of {expected} bytes. Download it again from {SOURCE}."
            )
        data = file.read(expected + 1)  # one more byte than expected, which should not exist
    if len(sizes) < 4 * num_axes or len(data) != expected:
        found = f"more than {expected}" if len(data) > expected else len(data)
        raise ValueError(
            f"Expected {expected} bytes after the header of {str(path)!r} for an array of shape "
            f"{shape}, got {found}. Download it again from {SOURCE}."
        )
    return np.frombuffer(data, dtype).reshape(shape)


def mnist_files(data_dir: str | Path | None) -> list[str]:
    """Lists the paths that the official files of MNIST can have in a folder."""
    stems = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = [f"{prefix}-{stem}" for prefix in PREFIXES.values() for stem in stems]
    folder = "" if data_dir is None else str(data_dir)
    return [os.path.join(folder, name + end) for name in names for end in ("", ".gz") if folder]


def _find(data_dir: str | Path | None, stem: str) -> Path:
    is_plain = data_dir is not None and (user_path(data_dir) / stem).is_file()
    return official_file(data_dir, stem if is_plain else f"{stem}.gz", source=SOURCE)
