"""Weights in half precision: rounding and range, and the order in which lanes load them, written out from the PTX ISA again."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.errors import InputError
from fusec.targets.packing import LARGEST, by_columns, channel_fragments, half_bits, starting_sums

HALVES = ("float16", "bfloat16")
LANES, DEPTH, COLUMNS = 32, 16, 8  # of a warp; of matrix B of mma.m16n8k16


def bits_of(value: float, dtype: str) -> int:
    """Of a value that the type holds exactly."""
    if dtype == "float16":
        return int(np.float16(value).view(np.uint16))
    return int(np.float32(value).view(np.uint32)) >> 16


def small_integers(*shape: int) -> np.ndarray:
    """Not zero, so that no value can be taken for a filler, and exact in both types."""
    drawn = np.random.default_rng(sum(shape)).integers(1, 200, size=shape)
    return np.where(drawn % 2, drawn, -drawn).astype(np.float32)


def held(lane: int, register: int, half: int) -> tuple[int, int]:
    """(row, column) of matrix B, 16 x 8: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".

    Element b_i, of the four b_0 to b_3 in two registers, is in row threadID_in_group * 2 + (i & 1), from b_2 on 8 below, and
    in column groupID.
    """
    i = 2 * register + half
    return lane % 4 * 2 + (i & 1) + (8 if i >= 2 else 0), lane >> 2


def fragment(matrix: np.ndarray, dtype: str) -> list[int]:
    """The words that 32 lanes load of a matrix of up to 16 x 8, two for each; zeros where it is smaller."""
    def element(lane: int, register: int, half: int) -> int:
        row, column = held(lane, register, half)
        inside = row < matrix.shape[0] and column < matrix.shape[1]
        return bits_of(float(matrix[row, column]), dtype) if inside else 0

    return [element(lane, r, 0) | element(lane, r, 1) << 16 for lane in range(LANES) for r in range(2)]


def blocks(count: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, count, size)]


def test_every_element_of_a_matrix_is_in_one_place() -> None:
    places = [held(lane, r, h) for lane in range(LANES) for r in range(2) for h in range(2)]
    assert sorted(places) == list(product(range(DEPTH), range(COLUMNS)))


SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=25)
@given(SHAPES, st.sampled_from(HALVES))
def test_fragments_of_channels(shape: tuple[int, int, int, int], dtype: str) -> None:
    """Filter columns, 16 input channels, filter rows, 8 output channels."""
    weight = small_integers(*shape)
    out, channels, height, width = shape
    wanted = [word for x in range(width) for inputs in blocks(channels, DEPTH) for y in range(height)
              for outputs in blocks(out, COLUMNS) for word in fragment(weight[outputs, inputs, y, x].T, dtype)]
    packed = channel_fragments(weight, dtype, "conv")
    assert packed.dtype == np.float32
    assert packed.view(np.uint32).tolist() == wanted


@given(SHAPES)
def test_filter_columns_become_channels(shape: tuple[int, int, int, int]) -> None:
    weight = small_integers(*shape)
    out, channels, height, width = shape
    packed = by_columns(weight)
    assert packed.shape == (out, width * channels, height, 1)
    for x, c in product(range(width), range(channels)):
        np.testing.assert_array_equal(packed[:, x * channels + c, :, 0], weight[:, c, :, x])


def test_sums_start_from_each_lanes_pair() -> None:
    """Lane l % 4 has channels 2 (l % 4) and the next, in both of its rows; zeros behind the last channel."""
    assert starting_sums(np.arange(1, 6)).tolist() == [1, 2, 1, 2, 3, 4, 3, 4, 5, 0, 5, 0, 0, 0, 0, 0]


# ---- rounding, and the range of a type

FLOATS = st.floats(-60000, 60000, width=32)


@given(FLOATS)
def test_bfloat16_is_the_nearest_of_two_and_even_between(value: float) -> None:
    [bits] = half_bits([value], "bfloat16").astype(np.uint32)
    below = np.float32(value).view(np.uint32) >> 16  # towards zero
    lower, upper = (float((np.uint32(b) << 16).view(np.float32)) for b in (below, below + 1))
    to_lower, to_upper = abs(value - lower), abs(upper - value)
    nearest = below + (to_upper < to_lower or (to_upper == to_lower and below % 2 == 1))
    assert bits == nearest


@given(FLOATS)
def test_float16_is_numpys(value: float) -> None:
    assert half_bits([value], "float16").view(np.float16)[0] == np.float32(value).astype(np.float16)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("dtype", "limit", "way"), [
    ("float16", 65520.0, "compile in bfloat16 or float32"),  # half way from the largest value to the next power of two
    ("bfloat16", (2 - 2.0**-8) * 2.0**127, "compile in float32"),
])
def test_what_rounds_beyond_the_range_names_its_layer(dtype: str, limit: float, way: str, sign: int) -> None:
    """Below the limit a value becomes the largest of the type; from there on no weight is packed."""
    inside = np.nextafter(np.float32(limit), np.float32(0))
    kept = half_bits([sign * inside], dtype)
    assert kept[0] & 0x7FFF == bits_of(LARGEST[dtype], dtype)
    weight = np.ones((2, 3, 1, 1), np.float32)
    weight[1, 2] = sign * limit
    with pytest.raises(InputError, match=rf"conv7: a weight of -?[\d.e+]+ is beyond the range of {dtype}, ") as caught:
        channel_fragments(weight, dtype, "conv7")
    assert way in str(caught.value)
