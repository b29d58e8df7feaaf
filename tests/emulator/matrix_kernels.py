"""Kernels of 16-bit floats and matrix words, and what they should give: for the emulator, NVRTC and a GPU alike.

In: nothing. Out: kernel texts that begin with the library's words, and NumPy's view of layouts and formats. Stands beside
`test_matrix.py` and `tests/targets/test_ptx.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = (Path(__file__).parents[2] / "templates/cuda/lib/ptx.cuh").read_text()
WORDS_LINES = WORDS.count("\n")

Array = NDArray[Any]

CONVERT = WORDS + r"""
extern "C" __global__ void widen(const half_bits* in, float* from_half, float* from_bfloat) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  from_half[i] = half_to_float(in[i]);
  from_bfloat[i] = bfloat_to_float(in[i]);
}
extern "C" __global__ void narrow(const float* in, half_bits* half, half_bits* bfloat, unsigned* halves, unsigned* bfloats,
                                  unsigned* halves_relu, unsigned* bfloats_relu, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  half[i] = float_to_half(in[i]);
  bfloat[i] = float_to_bfloat(in[i]);
  halves[i] = floats_to_half2(in[i], in[count - 1 - i]);
  bfloats[i] = floats_to_bfloat2(in[i], in[count - 1 - i]);
  halves_relu[i] = floats_to_half2_relu(in[i], in[count - 1 - i]);
  bfloats_relu[i] = floats_to_bfloat2_relu(in[i], in[count - 1 - i]);
}
"""

# Rows of scratch in any order; every warp of the block loads all of them.
LOAD = WORDS + r"""
extern "C" __global__ void load(const uint4* rows, const int* places, unsigned* x4, unsigned* x2, unsigned* x1) {
  extern __shared__ __align__(16) uint4 scratch[];
  const int t = threadIdx.x;
  if (t < 32) scratch[t] = rows[t];
  __syncthreads();
  unsigned four[4], two[2], one;
  const uint4* row = scratch + places[t % 32];
  load_matrix_x4(four, row);
  load_matrix_x2(two, row);
  load_matrix_x1(one, row);
  for (int i = 0; i < 4; ++i) x4[4 * t + i] = four[i];
  for (int i = 0; i < 2; ++i) x2[2 * t + i] = two[i];
  x1[t] = one;
}
"""

# Matrices stored at rows of scratch in any order by one warp, and all of scratch as it is then: behind four, behind two.
STORE = WORDS + r"""
extern "C" __global__ void store(const unsigned* values, const int* places, uint4* after_four, uint4* after_two) {
  extern __shared__ __align__(16) uint4 scratch[];
  const int t = threadIdx.x;
  scratch[t] = uint4{};
  __syncthreads();
  const unsigned four[4] = {values[4 * t], values[4 * t + 1], values[4 * t + 2], values[4 * t + 3]};
  store_matrix_x4(scratch + places[t], four);
  __syncthreads();
  after_four[t] = scratch[t];
  __syncthreads();
  const unsigned two[2] = {four[3], four[2]};
  store_matrix_x2(scratch + places[t], two);
  __syncthreads();
  after_two[t] = scratch[t];
}
"""

TRANSPOSE = WORDS + r"""
extern "C" __global__ void transpose(const unsigned* in, unsigned* out) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  out[t] = transpose_matrix(in[t]);
}
"""

# One instruction per warp, its registers as they come: a[lane][], b[lane][], d[lane][].
MULTIPLY = WORDS + r"""
extern "C" __global__ void multiply(const unsigned* a, const unsigned* b, float* d) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = d[4 * t + i];
#if DEPTH == 16
  const unsigned left[4] = {a[4 * t], a[4 * t + 1], a[4 * t + 2], a[4 * t + 3]}, right[2] = {b[2 * t], b[2 * t + 1]};
  multiply_FORMAT_k16(sum, left, right, sum);
#else
  const unsigned left[2] = {a[2 * t], a[2 * t + 1]};
  multiply_FORMAT_k8(sum, left, b[t], sum);
#endif
  for (int i = 0; i < 4; ++i) d[4 * t + i] = sum[i];
}
"""

# c[m][n] = sum over k of a[m][k] b[n][k]: 64 x 32 outputs a block of four warps, two stages of copies.
GEMM = WORDS + r"""
constexpr int ROWS = 96, PITCH = DEPTH + 8, STAGE = ROWS * PITCH;
extern "C" __global__ void __launch_bounds__(128) gemm(const half_bits* a, const half_bits* b, float* c, int m, int n, int k) {
  extern __shared__ __align__(16) half_bits scratch[];
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, first_row = blockIdx.y * 64, first_column = blockIdx.x * 32;
  auto fetch = [&](int stage, int start) {
    for (int i = t; i < ROWS * DEPTH / 8; i += blockDim.x) {
      const int row = i / (DEPTH / 8), at = i % (DEPTH / 8) * 8;
      const bool left = row < 64;
      const int y = left ? first_row + row : first_column + row - 64;
      const bool inside = y < (left ? m : n) && start + at < k;
      copy_async_16(scratch + stage * STAGE + row * PITCH + at, (left ? a : b) + (inside ? y * k + start + at : 0), inside);
    }
    copy_async_commit();
  };
  float d[4][4] = {};
  fetch(0, 0);
  for (int start = 0, stage = 0; start < k; start += DEPTH, stage = 1 - stage) {
    if (start + DEPTH < k) {
      fetch(1 - stage, start + DEPTH);
      copy_async_wait<UNDER_WAY>();
    } else {
      copy_async_wait<0>();
    }
    BARRIER;
    const half_bits* rows = scratch + stage * STAGE;
    const half_bits* left = rows + (warp * 16 + lane % 16) * PITCH;
    const half_bits* right = rows + (64 + lane % 8) * PITCH;
#if DEPTH == 16
    unsigned of_a[4], of_b[2];
    load_matrix_x4(of_a, left + lane / 16 * 8);
    for (int j = 0; j < 4; ++j) {
      load_matrix_x2(of_b, right + j * 8 * PITCH + lane / 8 % 2 * 8);
      multiply_FORMAT_k16(d[j], of_a, of_b, d[j]);
    }
#else
    unsigned of_a[2], of_b;
    load_matrix_x2(of_a, left);
    for (int j = 0; j < 4; ++j) {
      load_matrix_x1(of_b, right + j * 8 * PITCH);
      multiply_FORMAT_k8(d[j], of_a, of_b, d[j]);
    }
#endif
    __syncthreads();
  }
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 4; ++i) {
      const int y = first_row + warp * 16 + lane / 4 + i / 2 * 8, x = first_column + j * 8 + lane % 4 * 2 + i % 2;
      if (y < m && x < n) c[y * n + x] = d[j][i];
    }
}
"""
GEMM_THREADS = 128


def written(text: str, form: str, depth: int, **words: str) -> str:
    """A kernel for one format, f16 or bf16, and one depth; further words are replaced likewise."""
    for name, value in {"FORMAT": form, "DEPTH": str(depth), "UNDER_WAY": "1", "BARRIER": "__syncthreads()", **words}.items():
        text = text.replace(name, value)
    return text


def gemm_scratch(depth: int) -> int:
    """Bytes of scratch the GEMM kernel takes: two stages of 96 rows, each padded by 8 elements."""
    return 2 * 96 * (depth + 8) * 2


def bits_of(values: Array, form: str) -> Array:
    """Values that the format has, as its bits; asserts that it has them."""
    if form == "f16":
        half = values.astype(np.float16)
        assert np.array_equal(half.astype(values.dtype), values)
        return half.view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def values_of(bits: Array, form: str) -> Array:
    """float64 values of 16-bit patterns."""
    narrow = bits.view(np.float16) if form == "f16" else (bits.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return narrow.astype(np.float64)


def nearest_bfloat(values: Array) -> Array:
    """Bits of the bfloat16 nearest to each float32, found among all of them in float64; ties to even bits, NaN as 0x7FFF."""
    grid = values_of(np.arange(0x7F80, dtype=np.uint16), "bf16")
    grid = np.append(grid, 2.0 ** 128)  # what infinity would be, were there one more exponent
    with np.errstate(invalid="ignore"):  # signalling NaN
        size = np.minimum(np.abs(values.astype(np.float64)), 2.0 ** 128)
    above = np.clip(np.searchsorted(grid, size), 1, 0x7F80)
    up, down = grid[above] - size, size - grid[above - 1]
    bits = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, above - 1)
    signed = bits | np.where(np.signbit(values), 0x8000, 0)
    return np.where(np.isnan(values), 0x7FFF, signed).astype(np.uint16)


# --- registers of m16n8k8 and m16n8k16, by the PTX ISA's tables: groupID is lane / 4, threadID_in_group is lane % 4 -----------

LANE = np.arange(32)[:, None]
GROUP, IN_GROUP = LANE // 4, LANE % 4


def left_registers(a: Array) -> Array:
    """16-bit elements a0, a1, ... of every lane for a matrix of 16 x K, packed: uint32[32, K / 4]."""
    i = np.arange(a.shape[1] // 2)[None, :]
    row = np.where(i // 2 % 2 == 0, GROUP, GROUP + 8)
    return np.ascontiguousarray(a[row, IN_GROUP * 2 + i % 2 + i // 4 * 8]).view(np.uint32)


def right_registers(b: Array) -> Array:
    """The same for a matrix of K x 8: uint32[32, K / 8]."""
    i = np.arange(b.shape[0] // 4)[None, :]
    return np.ascontiguousarray(b[IN_GROUP * 2 + i % 2 + i // 2 * 8, GROUP + 0 * i]).view(np.uint32)


def sum_places() -> tuple[Array, Array]:
    """Row and column of the four sums of every lane."""
    i = np.arange(4)[None, :]
    return np.where(i < 2, GROUP, GROUP + 8), IN_GROUP * 2 + i % 2
