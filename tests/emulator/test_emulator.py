"""Correct kernels run right on the emulator, in any order of threads, sanitized or not."""

from __future__ import annotations

import math
import shutil
import time
from functools import cache

import numpy as np
import pytest

from . import EmulatedKernel, can_sanitize, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
SANITIZED = pytest.param(
    True, marks=pytest.mark.skipif(not can_sanitize(), reason="the compiler's sanitizer libraries are missing"))

ONE = (1, 1, 1)
RNG = np.random.default_rng(7)

ADD = r"""
extern "C" __global__ void __launch_bounds__(128) add(const float* __restrict__ a, const float* __restrict__ b,
                                                      float* __restrict__ out, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = __fadd_rn(__ldg(a + i), b[i]);
}
"""

REDUCE = r"""
template <int THREADS>
struct Reduction {
    static constexpr int threads = THREADS;
    __device__ __forceinline__ static float run(float* scratch, float value) {
        scratch[threadIdx.x] = value;
        __syncthreads();
        #pragma unroll
        for (int step = threads / 2; step > 0; step /= 2) {
            if (threadIdx.x < step) scratch[threadIdx.x] += scratch[threadIdx.x + step];
            __syncthreads();
        }
        return scratch[0];
    }
};
extern "C" __global__ void reduce(const float* in, float* out) {
    extern __shared__ __align__(16) float scratch[];
    const float sum = Reduction<256>::run(scratch, in[blockIdx.x * 256 + threadIdx.x]);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
"""

TRANSPOSE = r"""
extern "C" __global__ void transpose(const float* in, float* out, int height, int width) {
    __shared__ float tile[16][17];
    int x = blockIdx.x * 16 + threadIdx.x, y = blockIdx.y * 16 + threadIdx.y;
    if (y < height && x < width) tile[threadIdx.y][threadIdx.x] = in[y * width + x];
    __syncthreads();
    x = blockIdx.y * 16 + threadIdx.x;
    y = blockIdx.x * 16 + threadIdx.y;
    if (y < width && x < height) out[y * height + x] = tile[threadIdx.x][threadIdx.y];
}
"""

SHUFFLES = r"""
extern "C" __global__ void shuffles(const int* in, int* out, unsigned* votes) {
    const int n = blockDim.x, t = threadIdx.x, v = in[t];
    int sum = v;
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
    out[t] = sum;
    out[n + t] = __shfl_down_sync(0xFFFFFFFFu, v, 3, 8);
    out[2 * n + t] = __shfl_up_sync(0xFFFFFFFFu, v, 2u);
    out[3 * n + t] = __shfl_sync(0xFFFFFFFFu, v, t + 1, 4);
    const unsigned half = t % 32 < 16 ? 0x0000FFFFu : 0xFFFF0000u;
    out[4 * n + t] = static_cast<int>(__shfl_sync(half, static_cast<long long>(v) << 20, 31) >> 20);
    out[5 * n + t] = __any_sync(half, v == 5) * 2 + __all_sync(half, v > 5);
    __syncwarp();
    votes[t] = __ballot_sync(half, v & 1);
}
"""


@cache
def kernel(source: str, entry: str, sanitize: bool = False) -> EmulatedKernel:
    return EmulatedKernel(source, entry, sanitize=sanitize)


def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("sanitize", [False, SANITIZED])
def test_vector_add_with_a_tail(sanitize: bool) -> None:
    a, b, out = floats(1000), floats(1000), np.full(1003, -1, np.float32)
    kernel(ADD, "add", sanitize).launch((8, 1, 1), (128, 1, 1), [a, b, out, 1000], 0)
    np.testing.assert_array_equal(out[:1000], a + b)
    assert (out[1000:] == -1).all()


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_reduction_in_dynamic_shared_memory(order: str) -> None:
    values = RNG.integers(-50, 50, (3, 256)).astype(np.float32)
    out = np.zeros(3, np.float32)
    kernel(REDUCE, "reduce").launch((3, 1, 1), (256, 1, 1), [values, out], 1024, order, seed=5)
    np.testing.assert_array_equal(out, values.sum(axis=1))


@pytest.mark.parametrize("flags", [("-DFUSEC_EMULATOR_UCONTEXT",), ("-O2",)])
def test_either_context_switch(flags: tuple[str, ...]) -> None:
    values = RNG.integers(-50, 50, (2, 256)).astype(np.float32)
    out = np.zeros(2, np.float32)
    EmulatedKernel(REDUCE, "reduce", flags=flags).launch((2, 1, 1), (256, 1, 1), [values, out], 1024)
    np.testing.assert_array_equal(out, values.sum(axis=1))


@pytest.mark.parametrize("sanitize", [False, SANITIZED])
def test_transpose_over_a_2d_grid(sanitize: bool) -> None:
    image = floats(37, 50)
    out = np.zeros((50, 37), np.float32)
    kernel(TRANSPOSE, "transpose", sanitize).launch((4, 3, 1), (16, 16, 1), [image, out, 37, 50], 0)
    np.testing.assert_array_equal(out, image.T)


def test_indices_of_grid_and_block() -> None:
    source = r"""
    extern "C" __global__ void indices(int* out) {
        const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        const int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
        out[i] = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z
               + 1000 * threadIdx.x + 10000 * threadIdx.y + 100000 * threadIdx.z;
    }
    """
    out = np.zeros((2, 3, 4, 4, 3, 2), np.int32)
    EmulatedKernel(source, "indices").check_races((4, 3, 2), (2, 3, 4), [out])
    bz, by, bx, tz, ty, tx = np.indices(out.shape)
    np.testing.assert_array_equal(out, bx + 10 * by + 100 * bz + 1000 * tx + 10000 * ty + 100000 * tz)


def test_warp_operations() -> None:
    n = 64
    values = RNG.integers(0, 1000, n).astype(np.int32)
    out, votes = np.zeros((6, n), np.int32), np.zeros(n, np.uint32)
    kernel(SHUFFLES, "shuffles").check_races(ONE, (n, 1, 1), [values, out, votes])
    lane = np.arange(n) % 32
    first = np.arange(n) - lane
    half = [values[s:s + 16] for s in np.arange(n) // 16 * 16]
    np.testing.assert_array_equal(out[0], np.repeat(values.reshape(-1, 32).sum(axis=1), 32))
    np.testing.assert_array_equal(out[1], values[first + np.where(lane % 8 + 3 < 8, lane + 3, lane)])
    np.testing.assert_array_equal(out[2], values[first + np.where(lane >= 2, lane - 2, lane)])
    np.testing.assert_array_equal(out[3], values[first + lane // 4 * 4 + (lane + 1) % 4])
    np.testing.assert_array_equal(out[4][lane >= 16], values[first + 31][lane >= 16])  # lower halves read outside their mask
    np.testing.assert_array_equal(out[5], [2 * (h == 5).any() + (h > 5).all() for h in half])
    bits = [sum(int(v & 1) << i for i, v in enumerate(h)) for h in half]
    np.testing.assert_array_equal(votes, np.array(bits, np.uint32) << np.where(lane >= 16, 16, 0).astype(np.uint32))


def test_a_shuffle_of_lanes_that_leave_early() -> None:
    source = r"""
    extern "C" __global__ void leave(float* out) {
        if (threadIdx.x >= 20) return;
        out[threadIdx.x] = __shfl_down_sync(0xFFFFFFFFu, 1.0f * threadIdx.x, 1);
    }
    """
    out = np.zeros(20, np.float32)
    EmulatedKernel(source, "leave").check_races(ONE, (32, 1, 1), [out])
    np.testing.assert_array_equal(out[:19], np.arange(1, 20))
    assert math.isnan(out[19])


def test_a_block_of_1024_threads() -> None:
    source = REDUCE.replace("256", "1024")
    values = RNG.integers(-50, 50, (2, 1024)).astype(np.float32)
    out = np.zeros(2, np.float32)
    EmulatedKernel(source, "reduce").check_races((2, 1, 1), (1024, 1, 1), [values, out], 4096)
    np.testing.assert_array_equal(out, values.sum(axis=1))


def test_words_of_the_language() -> None:
    source = r"""
    struct Params { float scale; int shift; };
    __constant__ float table[2] = {0.5f, 2.0f};
    __device__ __host__ __noinline__ float twice(float x) { return 2.0f * x; }
    extern "C" __global__ void __launch_bounds__(32, 2) words(float4* out, int* bits, const __grid_constant__ Params p,
                                                            long long big, double d, unsigned char small) {
        const float4 v = make_float4(fmaf(p.scale, 2.0f, 1.0f), fmaxf(-1.0f, 0.0f), rsqrtf(4.0f), __expf(0.0f));
        out[0] = v;
        out[1] = make_float4(twice(table[1]), __powf(2.0f, 3.0f), __fdividef(1.0f, 4.0f), tanhf(0.0f) + sqrtf(9.0f));
        bits[0] = __float_as_int(__int_as_float(0x40490FDB));
        bits[1] = min(3, max(p.shift, 1)) + warpSize;
        bits[2] = static_cast<int>(big >> 32);
        bits[3] = static_cast<int>(d * 4.0) + small;
        bits[4] = 0;
        __threadfence();
        if (clock64() > 0) atomicAdd(bits + 4, 7);
        float2 pair = {1.0f, 2.0f};
        int4 whole = make_int4(1, 2, 3, 4);
        bits[5] = atomicAdd(&whole.w, 1) + whole.w + static_cast<int>(pair.y);
        assert(bits[5] == 11);
    }
    """
    out, bits = np.zeros((2, 4), np.float32), np.zeros(6, np.int32)
    params = np.array([(1.5, 9)], np.dtype([("scale", "f4"), ("shift", "i4")])).tobytes()
    EmulatedKernel(source, "words").launch(ONE, ONE, [out, bits, params, np.int64(5 << 32), 0.75, 200], 0)
    np.testing.assert_array_equal(out, [[4, 0, 0.5, 1], [4, 8, 0.25, 3]])
    np.testing.assert_array_equal(bits, [0x40490FDB, 35, 5, 203, 7, 11])


@pytest.mark.parametrize("sanitize", [False, SANITIZED])
def test_one_array_passed_twice(sanitize: bool) -> None:
    values = np.arange(5, dtype=np.float32)
    kernel(ADD, "add", sanitize).launch(ONE, (5, 1, 1), [values, values, values, 5], 0)
    np.testing.assert_array_equal(values, 2 * np.arange(5))


@pytest.mark.skipif(shutil.which("clang++") is None, reason="clang++ is not installed")
def test_clang_builds_kernels_too() -> None:
    values = RNG.integers(-50, 50, (2, 256)).astype(np.float32)
    out = np.zeros(2, np.float32)
    EmulatedKernel(REDUCE, "reduce", compiler="clang++").check_races((2, 1, 1), (256, 1, 1), [values, out], 1024)
    np.testing.assert_array_equal(out, values.sum(axis=1))


def test_timing_of_barriers_is_printed() -> None:
    values, out = np.ones((2000, 256), np.float32), np.zeros(2000, np.float32)
    reduction = kernel(REDUCE, "reduce")
    start = time.perf_counter()
    reduction.launch((2000, 1, 1), (256, 1, 1), [values, out], 1024)
    seconds = time.perf_counter() - start
    print(f"\na block of 256 threads with 9 barriers: {seconds / 2000 * 1e6:.0f} us")
    assert (out == 256).all()
