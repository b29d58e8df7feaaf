"""Fashion-MNIST for the examples: the 64 pictures kept in this folder, and the full set where Debian's package has put it.

In: `data/fashion64.npz`, or the four idx files of the package `dataset-fashion-mnist`. Out: pictures as uint8 arrays, their
classes, and `network_input`, the one place that says how a picture becomes what the network reads.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASSES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
"""The class names in the order of the labels 0 to 9."""

SAMPLE = Path(__file__).parent / "data" / "fashion64.npz"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

Pictures = NDArray[np.uint8]
Labels = NDArray[np.uint8]


def network_input(pictures: Pictures) -> NDArray[np.float32]:
    """(N, 28, 28) uint8 to (N, 1, 28, 28) float32: value / 255, no mean taken off and no other scaling."""
    return (pictures.astype(np.float32) / np.float32(255))[:, None]


def sample() -> tuple[Pictures, Labels]:
    """The first 64 test pictures (64, 28, 28) and their labels (64,)."""
    with np.load(SAMPLE, allow_pickle=False) as file:
        return file["images"], file["labels"]


def full_set(part: str, folder: Path = DEBIAN_FOLDER) -> tuple[Pictures, Labels]:
    """All pictures and labels of one part: 'train' (60,000) or 't10k' (the 10,000 test pictures).

    Raises
    ------
    FileNotFoundError
        The folder does not hold the set; the message says where to get it.
    ValueError
        A file is not what its name says.
    """
    return read_idx(folder / f"{part}-images-idx3-ubyte.gz"), read_idx(folder / f"{part}-labels-idx1-ubyte.gz")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """A gzipped idx file of bytes: two zero bytes, type 8, the number of axes, their lengths (big-endian), then the values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: on Debian, `apt-get install dataset-fashion-mnist`; "
                                "elsewhere, give the folder that holds the four idx files") from None
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of bytes")
    head = 4 + 4 * data[3]
    if len(data) < head:
        raise ValueError(f"{path} ends inside its header")
    shape = struct.unpack(f">{data[3]}I", data[4:head])
    values = np.frombuffer(data, np.uint8, offset=head)
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} promises {shape} values but holds {values.size}")
    return values.reshape(shape)
