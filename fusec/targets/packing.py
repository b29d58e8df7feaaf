"""Weights in the orders kernels read them.

In: weights in PyTorch's order, as a graph holds them. Out: float32 arrays for a kernel's block of parameters, zeros where rows
are rounded up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusec.errors import InputError
from fusec.graph.graph import Array
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


def by_groups(weight: ArrayLike, groups: int, transposed: bool, lanes: int, room: int) -> FloatArray:
    """To (group, vector, y, x, in, lanes) with `room` zeros behind: the lanes of a vector are output channels, and all products
    of a vector lie side by side, so that a kernel reads them as one stream."""
    w = np.asarray(weight, np.float32)
    first, second, *kernel = w.shape
    split = w.reshape(groups, first // groups, second, *kernel)  # (group, out, in, y, x), or in before out when transposed
    ordered = np.transpose(split, (0, 3, 4, 1, 2) if transposed else (0, 3, 4, 2, 1))
    filled = np.pad(ordered, ((0, 0),) * 4 + ((0, -ordered.shape[4] % lanes),))
    vectors = filled.reshape(*filled.shape[:4], -1, lanes)
    return np.pad(np.transpose(vectors, (0, 4, 1, 2, 3, 5)).ravel(), (0, room))


def depthwise(weight: ArrayLike, kernel: Pair, pitch: int, room: int) -> FloatArray:
    """(channels, 1, y, x) to (y, x, pitch) with `room` zeros behind."""
    w = np.asarray(weight, np.float32)
    packed = np.zeros((*kernel, pitch), np.float32)
    packed[..., :w.shape[0]] = np.transpose(w[:, 0], (1, 2, 0))
    return np.pad(packed.ravel(), (0, room))


LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
Words = NDArray[np.uint16]


def half_bits(weight: ArrayLike, dtype: str, name: str = "") -> Words:
    """Values rounded to float16 or bfloat16 (to nearest even), as their bits.

    Parameters
    ----------
    name
        Of the layer, for errors.

    Raises
    ------
    InputError
        A value that the type cannot hold; names the layer.
    """
    w = np.asarray(weight, np.float32)
    with np.errstate(over="ignore"):
        bits = w.astype(np.float16).view(np.uint16) if dtype == "float16" else _bfloat16(w)
    infinite = np.uint16(0x7C00 if dtype == "float16" else 0x7F80)
    if (bits & infinite == infinite).any():
        peak = float(w.ravel()[np.argmax(np.abs(w))])
        raise InputError(f"a weight of {peak:g} is beyond the range of {dtype}, {LARGEST[dtype]:g}", name,
                         "compile in bfloat16 or float32" if dtype == "float16" else "compile in float32")
    return bits


def _bfloat16(w: FloatArray) -> Words:
    """The upper halves of float32 values, rounded to nearest even."""
    bits = np.ascontiguousarray(w).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def channel_fragments(weight: ArrayLike, dtype: str, name: str) -> FloatArray:
    """(out, in, y, x) to the words lanes load: (x, 16 channels in, y, 8 channels out, lane, 2), two values in each.

    Of the 16 x 8 matrix of a product, lane l holds column l / 4, rows 2 (l % 4) and the next, and those eight rows on: the
    layout of the PTX ISA's mma.sync, matrix B. Channels are filled up with zeros.
    """
    bits = half_bits(weight, dtype, name)
    out, channels, height, width = bits.shape
    full = np.zeros((round_up(out, 8), round_up(channels, 16), height, width), np.uint16)
    full[:out, :channels] = bits
    # groups of outputs, lane / 4, groups of inputs, word, lane % 4, half of the word, y, x
    split = full.reshape(full.shape[0] // 8, 8, full.shape[1] // 16, 2, 4, 2, height, width)
    return _words(np.transpose(split, (7, 2, 6, 0, 1, 4, 3, 5)))


def by_columns(weight: ArrayLike) -> FloatArray:
    """(out, in, y, x) to (out, x * in, y, 1): filter columns count as channels, as in a row of taps."""
    w = np.asarray(weight, np.float32)
    return np.ascontiguousarray(np.transpose(w, (0, 3, 1, 2))).reshape(w.shape[0], -1, w.shape[2], 1)


def by_phases(weight: ArrayLike, stride: Pair, channels: int, together: int = 1) -> FloatArray:
    """(in, out, y, x) of a transposed convolution to (phases * channels, in, y, x) of the one that makes all its phases.

    Phase r has the taps r, r + stride, ..., the last one first; taps that it lacks are zeros. Outputs are counted by phases
    along y, along x, and `channels`, zeros behind the last; where those are fewer than eight, by channels, then phases, of
    `together` neighbours along x, whose taps lie one column further on from one to the next.
    """
    w = np.asarray(weight, np.float32)
    (inputs, outputs, height, width), (up, across) = w.shape, stride
    full = np.zeros((inputs, channels, round_up(height, up), round_up(width, across)), np.float32)
    full[:, :outputs, :height, :width] = w
    split = full.reshape(inputs, channels, -1, up, full.shape[3] // across, across)[:, :, ::-1, :, ::-1]
    ordered = np.transpose(split, (3, 5, 1, 0, 2, 4) if channels >= 8 else (1, 3, 5, 0, 2, 4))
    if together > 1:
        ordered = np.stack([np.pad(ordered, ((0, 0),) * 5 + ((i, together - 1 - i),)) for i in range(together)], axis=2)
    return np.ascontiguousarray(ordered).reshape(-1, inputs, full.shape[2] // up, full.shape[3] // across + together - 1)


def _words(bits: NDArray[np.uint16]) -> FloatArray:
    """Pairs of values as 32-bit words; no arithmetic may touch them."""
    return np.ascontiguousarray(bits).reshape(-1).view(np.float32)


def starting_sums(bias: Array) -> NDArray[np.float32]:
    """A bias as accumulators of m16n8 products: of each pair of channels in turn, the pair for both rows that a lane has."""
    pairs = np.pad(np.asarray(bias, np.float32), (0, -bias.size % 8)).reshape(-1, 2)
    return np.tile(pairs, (1, 2)).ravel()
