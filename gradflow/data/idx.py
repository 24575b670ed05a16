"""Arrays of the idx format, in which MNIST is published, compressed by gzip or not.

::

    0  0  kind  n        kind: 8 for unsigned bytes; n: the number of axes
    size_1 ... size_n    each an unsigned integer of four bytes
    the numbers          in C order; all of this big-endian
"""

import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from gradflow.data.files import official_file, read_gzip

KINDS = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

SOURCE = (
    "http://yann.lecun.com/exdb/mnist/ (mirror: https://ossci-datasets.s3.amazonaws.com/mnist/)"
)

PREFIXES = {"train": "train", "test": "t10k"}


class Images(NamedTuple):
    """Grey images and their classes.

    Attributes:
      pixels: Brightness from 0 to 255.
      labels: The class of each image.
    """

    pixels: UInt8[np.ndarray, "images height width"]
    labels: UInt8[np.ndarray, " images"]


def read_mnist(data_dir: str | Path | None, split: str) -> Images:
    """Reads the images and labels of one split of MNIST from its official files.

    Either of ``train-images-idx3-ubyte.gz`` and the same without ``.gz`` will do, and so for the
    other three. (Fashion-MNIST and KMNIST are published under these names as well.)

    Args:
      data_dir: Where the files are.
      split: ``train`` or ``test``.

    Raises:
      ValueError: If the split is another, a file is missing, damaged or not what its name
        says, or the two do not fit each other.

    Source: LeCun, Bottou, Bengio, Haffner 1998, doi:10.1109/5.726791.
    """
    if split not in PREFIXES:
        raise ValueError(f"split is expected to be 'train' or 'test', got {split!r}")
    prefix = PREFIXES[split]
    images = _find(data_dir, f"{prefix}-images-idx3-ubyte")
    labels = _find(data_dir, f"{prefix}-labels-idx1-ubyte")
    found = Images(read_idx(images, num_axes=3), read_idx(labels, num_axes=1))
    if len(found.pixels) != len(found.labels):
        raise ValueError(
            f"a label for each image is expected, got {len(found.pixels)} images in "
            f"{images.name!r} and {len(found.labels)} labels in {labels.name!r}: the two are of "
            "different sets; take both from one source"
        )
    if not found.pixels.size or found.labels.max() > 9:
        raise ValueError(
            f"images of the classes 0 to 9 are expected in {images.name!r}, got shape "
            f"{found.pixels.shape} and the label {max(found.labels, default=None)}; take the "
            f"files from {SOURCE}"
        )
    return found


def read_idx(path: Path, *, num_axes: int) -> Shaped[np.ndarray, "..."]:
    """Reads the one array that is in an idx file, whose name ends in .gz if it is compressed.

    Args:
      path: The file.
      num_axes: How many axes the array is to have.

    Raises:
      ValueError: If the file is damaged, is none of this format, has another number of axes, or
        holds fewer or more numbers than it says.
    """
    data = read_gzip(path, source=SOURCE) if path.suffix == ".gz" else path.read_bytes()
    kind, axes = (data[2], data[3]) if data[:2] == b"\0\0" and len(data) > 3 else (None, None)
    if kind not in KINDS or axes != num_axes:
        raise ValueError(
            f"an idx file of {num_axes} axes is expected, which begins with the bytes 0, 0, 8, "
            f"{num_axes}, got {', '.join(map(str, data[:4])) or 'nothing'} in {str(path)!r}: it "
            "is another file, or was renamed"
        )
    start, dtype = 4 + 4 * num_axes, np.dtype(KINDS[kind])
    shape = struct.unpack(f">{num_axes}I", data[4:start].ljust(4 * num_axes, b"\0"))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(
            f"{expected} bytes are expected in {str(path)!r} for an array of shape {shape}, got "
            f"{len(data)}: the file is cut short or has something behind it; fetch it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _find(data_dir: str | Path | None, stem: str) -> Path:
    plain = None if data_dir is None else Path(data_dir).expanduser() / stem
    if plain is not None and plain.is_file():
        return plain
    return official_file(data_dir, f"{stem}.gz", source=SOURCE)
