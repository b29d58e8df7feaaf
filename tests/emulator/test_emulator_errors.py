"""Incorrect kernels, launches and arguments: the emulator says what is wrong, and is in order again afterwards."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from . import BuildError, EmulatedKernel, EmulatorError, RaceError, SanitizerError, Value, can_sanitize, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
sanitized = pytest.mark.skipif(not can_sanitize(), reason="the compiler's sanitizer libraries are missing")

ONE = (1, 1, 1)
RNG = np.random.default_rng(7)
MEMORY = np.zeros(6, np.float32)

ADD = r"""
extern "C" __global__ void __launch_bounds__(128) add(const float* __restrict__ a, const float* __restrict__ b,
                                                      float* __restrict__ out, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = __fadd_rn(__ldg(a + i), b[i]);
}
"""

ROTATE = r"""
extern "C" __global__ void rotate(const float* in, float* out) {
    __shared__ float line[128];
    line[threadIdx.x] = in[threadIdx.x];
    BARRIER;
    out[threadIdx.x] = line[127 - threadIdx.x];
}
"""

DIVERGENT = r"""
extern "C" __global__ void divergent(int kind) {
    __syncthreads();
    if (kind == 0 && threadIdx.x < 40) __syncthreads();
    if (kind == 1) {
        if (blockIdx.x == 1 && threadIdx.x % 2) __syncthreads();
        else __syncthreads();
    }
    if (kind == 2 && threadIdx.x != 9) __syncwarp(0x0000FFFF << (threadIdx.x % 32 < 16 ? 0 : 16));
    if (kind == 2 && threadIdx.x == 9) __syncthreads();
    if (kind == 3 && threadIdx.x == 5) __shfl_sync(1u, threadIdx.x, 0);
    if (kind == 4) __builtin_assume(threadIdx.x < 7);
}
"""

FAULTS = r"""
extern "C" __global__ void faults(const float* in, float* out, int* shape, int kind, int zero) {
    extern __shared__ float scratch[];
    __shared__ float fixed[8];
    float* pointer = fixed;
    const int t = threadIdx.x;
    scratch[t] = in[t];
    __syncthreads();
    if (kind == 1) scratch[t + 1] = 1.0f;
    if (kind == 2) out[t] = in[t + 1];
    if (kind == 3) out[t + 1] = 1.0f;
    if (kind == 4) pointer[t] = 1.0f;
    if (kind == 5) reinterpret_cast<float4*>(out)[0] = *reinterpret_cast<const float4*>(in + 1);
    if (kind == 6) const_cast<float*>(in)[t] = 2.0f;
    if (kind == 7) *reinterpret_cast<volatile int*>(16) = zero;
    if (kind == 8) shape[0] = shape[0] / zero;
    if (kind == 9) out[-1] = 1.0f;
}
"""


@cache
def kernel(source: str, entry: str, sanitize: bool = False) -> EmulatedKernel:
    return EmulatedKernel(source, entry, sanitize=sanitize)


def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RNG.standard_normal(shape, dtype=np.float32)


def test_a_missing_barrier_is_a_race() -> None:
    line, out = floats(128), np.zeros(128, np.float32)
    right = EmulatedKernel(ROTATE, "rotate", flags=["-DBARRIER=__syncthreads()"])
    right.check_races(ONE, (128, 1, 1), [line, out])
    np.testing.assert_array_equal(out, line[::-1])
    racy = EmulatedKernel(ROTATE, "rotate", flags=["-DBARRIER="])
    with pytest.raises(RaceError, match=r"argument 1, order reverse: \d+ of 128 elements differ"):
        racy.check_races(ONE, (128, 1, 1), [line, out])


def test_blocks_that_depend_on_each_other_are_a_race() -> None:
    source = 'extern "C" __global__ void k(int* v) { v[blockIdx.x + 1] = v[blockIdx.x] + 1; }'
    with pytest.raises(RaceError):
        EmulatedKernel(source, "k").check_races((5, 1, 1), ONE, [np.zeros(6, np.int32)])


@pytest.mark.parametrize(("kind", "message"), [
    (0, r"block \(0, 0, 0\), after 1 barriers: divergent barrier\n  40 of 64 threads wait at __syncthreads\(\) on line 4.*\n"
        r"  24 of 64 threads have left"),
    (1, r"block \(1, 0, 0\), after 1 barriers: divergent barrier\n  32 .* line 7.*\n  32 .* line 6"),
    (2, r"warp operation that not all lanes of its mask reach\n  15 of 64 threads wait in __syncwarp\(0x0000ffff\)"),
    (3, r"thread \(5, 0, 0\), line 11: a lane takes part .* without being in its mask"),
    (4, r"thread \(7, 0, 0\), line 12: false assumption: threadIdx.x < 7"),
])
def test_threads_that_do_not_meet(kind: int, message: str) -> None:
    divergent = kernel(DIVERGENT, "divergent")
    with pytest.raises(EmulatorError, match=message):
        divergent.launch((2, 1, 1), (64, 1, 1), [kind], 0)
    divergent.launch((2, 1, 1), (64, 1, 1), [99], 0)  # the emulator is in order again afterwards


def launch_faulty(kind: int, sanitize: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    out = np.zeros(16, np.float32)
    kernel(FAULTS, "faults", sanitize).launch(ONE, (16, 1, 1), [floats(16), out, np.ones(1, np.int32), kind, 0], 64)
    return out


@sanitized
@pytest.mark.parametrize(("kind", "message"), [
    (1, "use-after-poison"),
    (2, "heap-buffer-overflow"),
    (3, "heap-buffer-overflow"),
    (4, "global-buffer-overflow|insufficient space"),
    (5, "misaligned address"),
    (7, "null pointer|SEGV|misaligned"),
    (8, "division by zero"),
    (9, "heap-buffer-overflow"),
])
def test_sanitizers_report(kind: int, message: str) -> None:
    if kind == 5 and "clang" in (find_compiler() or ""):
        pytest.skip("clang does not check the alignment of whole-vector copies")
    with pytest.raises(SanitizerError, match=message) as caught:
        launch_faulty(kind, sanitize=True)
    assert "kernel.cu:" in str(caught.value)


@pytest.mark.parametrize(("kind", "message"), [
    (1, "offset 0 behind the 64 bytes of dynamic shared memory"),
    (3, "argument 1: the byte at offset 0 behind its end was written"),
    (6, "argument 0 is a pointer to const, but its array was written"),
    (7, r"thread \(0, 0, 0\): memory fault"),
    (8, "arithmetic fault"),
    (9, "argument 1: the byte at offset -4 from its start was written"),
])
def test_built_in_checks_report(kind: int, message: str) -> None:
    with pytest.raises(EmulatorError, match=message):
        launch_faulty(kind, sanitize=False)
    assert launch_faulty(0, sanitize=False).sum() == 0


@sanitized
def test_the_sanitized_kernel_passes_when_correct() -> None:
    assert launch_faulty(0, sanitize=True).sum() == 0
    with pytest.raises(EmulatorError, match="is a pointer to const"):
        launch_faulty(6, sanitize=True)


def test_unwritten_shared_memory_and_reads_past_an_array_are_nan() -> None:
    source = r"""
    extern "C" __global__ void peek(const float* in, float* out) {
        extern __shared__ float scratch[];
        out[0] = scratch[3];
        out[1] = in[4];
        scratch[3] = 1.0f;
    }
    """
    out = np.zeros(2, np.float32)
    EmulatedKernel(source, "peek").launch((2, 1, 1), ONE, [floats(4), out], 16)
    assert np.isnan(out).all()


def test_stack_overflow_is_reported() -> None:
    source = r"""
    __device__ __noinline__ int deep(volatile int* n) {
        volatile int here[64];
        here[*n % 64] = *n;
        return *n < 0 ? 0 : deep(n) + here[3];
    }
    extern "C" __global__ void overflow(int* n) { *n = deep(n); }
    """
    with pytest.raises(EmulatorError, match="memory fault"):
        EmulatedKernel(source, "overflow").launch(ONE, (4, 1, 1), [np.ones(1, np.int32)])


@pytest.mark.parametrize(("args", "error", "message"), [
    ([np.zeros(4), np.zeros(4, "f4"), np.zeros(4, "f4"), 4], TypeError, r"argument 0 \(pointer to const float32\): .* float64"),
    ([np.zeros(8, "f4")[::2], np.zeros(4, "f4"), np.zeros(4, "f4"), 4], ValueError, "argument 0 .* not C-contiguous"),
    ([np.zeros(4, "f4"), 1.5, np.zeros(4, "f4"), 4], TypeError, "argument 1 .* needs an array"),
    ([*[np.zeros(4, "f4")] * 3, 2**31], ValueError, r"argument 3 \(int32\): 2147483648 does not fit"),
    ([*[np.zeros(4, "f4")] * 3, np.int64(4)], TypeError, "argument 3 .* int64"),
    ([*[np.zeros(4, "f4")] * 3, 4.0], TypeError, "argument 3 .* needs an integer"),
    ([*[np.zeros(4, "f4")] * 3], TypeError, "takes 4 arguments, 3"),
    ([MEMORY[:4], MEMORY[1:5], MEMORY[2:], 4], ValueError, "argument 1 .* overlaps"),
])
def test_arguments_that_do_not_fit(args: list[Value], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kernel(ADD, "add").launch(ONE, (4, 1, 1), args)


def test_configurations_no_device_takes() -> None:
    args: list[Value] = [*[np.zeros(4, np.float32)] * 3, 4]
    for grid, block, shared, message in [((0, 1, 1), ONE, 0, "grid.x is 0"), (ONE, (1025, 1, 1), 0, "1025 threads"),
                                         (ONE, (1, 1, 65), 0, "block.z is 65"), (ONE, ONE, 232449, "232449 bytes of shared")]:
        with pytest.raises(EmulatorError, match=message):
            kernel(ADD, "add").launch(grid, block, args, shared)


def test_a_kernel_that_does_not_compile_names_its_line() -> None:
    with pytest.raises(BuildError, match=r"kernel\.cu:2:.*error"):
        EmulatedKernel('\nextern "C" __global__ void k(int* n) { *n = missing; }', "k")
