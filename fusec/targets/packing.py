"""Weights in the orders kernels read them.

In: weights in PyTorch's order, as a graph holds them. Out: float32 arrays for a kernel's block of parameters, zeros where rows
are rounded up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusec.graph.layers import Pair

FloatArray = NDArray[np.float32]


def round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def by_taps(weight: ArrayLike, pitch: int) -> FloatArray:
    """(out, in, y, x) to (in, y, x, pitch): the output channels of one product lie side by side."""
    given = np.transpose(np.asarray(weight, np.float32), (1, 2, 3, 0))
    packed = np.zeros((*given.shape[:3], pitch), np.float32)
    packed[..., :given.shape[3]] = given
    return packed


def transposed_by_taps(weight: ArrayLike, groups: int) -> FloatArray:
    """(groups * in, out, y, x) of a transposed convolution to (in, y, x, groups * out)."""
    w = np.asarray(weight, np.float32)
    inputs, outputs, *kernel = w.shape
    ordered = np.transpose(w.reshape(groups, inputs // groups, outputs, *kernel), (1, 3, 4, 0, 2))
    return np.ascontiguousarray(ordered.reshape(inputs // groups, *kernel, groups * outputs))


def by_rows(weight: ArrayLike, pitch: int) -> FloatArray:
    """(out, in, y, x) to (out, pitch): all products of one output lie side by side."""
    w = np.asarray(weight, np.float32)
    rows = w.reshape(w.shape[0], -1)
    return np.pad(rows, ((0, 0), (0, pitch - rows.shape[1])))


def by_groups(weight: ArrayLike, groups: int, transposed: bool, pitch: int, room: int) -> FloatArray:
    """To (group, y, x, in, pitch) with `room` zeros behind: the lanes of a vector are output channels."""
    w = np.asarray(weight, np.float32)
    first, second, *kernel = w.shape
    split = w.reshape(groups, first // groups, second, *kernel)  # (group, out, in, y, x), or in before out when transposed
    ordered = np.transpose(split, (0, 3, 4, 1, 2) if transposed else (0, 3, 4, 2, 1))
    packed = np.zeros((*ordered.shape[:4], pitch), np.float32)
    packed[..., :ordered.shape[4]] = ordered
    return np.pad(packed.ravel(), (0, room))


def depthwise(weight: ArrayLike, kernel: Pair, pitch: int, room: int) -> FloatArray:
    """(channels, 1, y, x) to (y, x, pitch) with `room` zeros behind."""
    w = np.asarray(weight, np.float32)
    packed = np.zeros((*kernel, pitch), np.float32)
    packed[..., :w.shape[0]] = np.transpose(w[:, 0], (1, 2, 0))
    return np.pad(packed.ravel(), (0, room))
