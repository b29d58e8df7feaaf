"""16-bit floats, matrix words and asynchronous copies: every word against NumPy, and what kernels can do wrong with them.

The words run on the emulator and, where there is one, on a GPU; wrong uses are the emulator's to find.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from . import EmulatedKernel, EmulatorError, RaceError, SanitizerError, can_sanitize, find_compiler
from .matrix_kernels import (
    CONVERT,
    GEMM,
    GEMM_THREADS,
    LOAD,
    MULTIPLY,
    STORE,
    TRANSPOSE,
    WORDS,
    WORDS_LINES,
    Array,
    bits_of,
    gemm_scratch,
    left_registers,
    nearest_bfloat,
    right_registers,
    sum_places,
    values_of,
    written,
)

Extent = tuple[int, int, int]
Run = Callable[[str, str, Extent, Extent, Sequence[Array | int], int], None]

ONE = (1, 1, 1)
WARP = (32, 1, 1)
FORMATS = [(form, depth) for form in ("f16", "bf16") for depth in (16, 8)]

emulated = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
sanitized = pytest.mark.skipif(not can_sanitize(), reason="the compiler's sanitizer libraries are missing")


@cache
def kernel(source: str, entry: str, sanitize: bool = False) -> EmulatedKernel:
    return EmulatedKernel(source, entry, sanitize=sanitize)


def run_emulated(source: str, entry: str, grid: Extent, block: Extent, args: Sequence[Array | int], scratch: int) -> None:
    kernel(source, entry).check_races(grid, block, args, scratch)


def run_sanitized(source: str, entry: str, grid: Extent, block: Extent, args: Sequence[Array | int], scratch: int) -> None:
    kernel(source, entry, True).launch(grid, block, args, scratch)


def run_on_gpu(source: str, entry: str, grid: Extent, block: Extent, args: Sequence[Array | int], scratch: int) -> None:
    import cupy

    from fusec.runtime.cuda.gpu import device_arch
    from fusec.runtime.cuda.nvrtc import compile_cubin
    from fusec.runtime.program import Source
    module = cupy.cuda.function.Module()
    module.load(compile_cubin(Source(entry, source, "cuda"), device_arch())[0])
    there = [cupy.asarray(a) if isinstance(a, np.ndarray) else np.int32(a) for a in args]
    module.get_function(entry)(grid, block, there, shared_mem=scratch)
    for a, b in zip(args, there, strict=True):
        if isinstance(a, np.ndarray):
            a[...] = cupy.asnumpy(b)


@pytest.fixture(params=[pytest.param(run_emulated, marks=emulated, id="emulated"),
                        pytest.param(run_sanitized, marks=sanitized, id="sanitized"),
                        pytest.param(run_on_gpu, marks=pytest.mark.gpu, id="gpu")])
def run(request: pytest.FixtureRequest) -> Run:
    runner: Run = request.param
    return runner


# --- conversions ----------------------------------------------------------------------------------------------------------


def hard_floats() -> Array:
    """Every value of both formats, the midpoints between neighbours, the floats next to those, and random patterns."""
    patterns = np.arange(65536, dtype=np.uint16)
    halves = patterns.view(np.float16).astype(np.float32)
    largest, infinite = np.uint32(0x477FE000), np.uint32(0x47800000)  # 65504, and 65536 in infinity's place
    steps = np.append(halves[:0x7C00].view(np.uint32), infinite)
    half_middles = ((steps[:-1].view(np.float32).astype(np.float64) + steps[1:].view(np.float32)) / 2).astype(np.float32)
    middles = np.concatenate([half_middles.view(np.uint32), patterns.astype(np.uint32) << 16 | 0x8000])
    random = np.random.default_rng(3).integers(0, 2 ** 32, 100_000, dtype=np.uint32)
    positive = np.concatenate([halves.view(np.uint32), patterns.astype(np.uint32) << 16, middles, middles - 1, middles + 1,
                               np.array([largest, infinite], np.uint32), random])
    return np.concatenate([positive, positive ^ np.uint32(0x80000000)]).view(np.float32)


def assert_same_values(bits: Array, wanted: Array, form: str) -> None:
    """The same bits, or NaN in both."""
    nan = np.isnan(values_of(wanted, form))
    np.testing.assert_array_equal(np.isnan(values_of(bits, form)), nan)
    np.testing.assert_array_equal(bits[~nan], wanted[~nan])


def test_every_16_bit_pattern_widens_exactly(run: Run) -> None:
    patterns = np.arange(65536, dtype=np.uint16)
    from_half, from_bfloat = np.zeros(65536, np.float32), np.zeros(65536, np.float32)
    run(CONVERT, "widen", (256, 1, 1), (256, 1, 1), [patterns, from_half, from_bfloat], 0)
    for got, form in ((from_half, "f16"), (from_bfloat, "bf16")):
        with np.errstate(invalid="ignore"):
            wanted = values_of(patterns, form).astype(np.float32)
        nan = np.isnan(wanted)
        np.testing.assert_array_equal(np.isnan(got), nan)
        np.testing.assert_array_equal(got.view(np.uint32)[~nan], wanted.view(np.uint32)[~nan])


def test_floats_narrow_to_the_nearest(run: Run) -> None:
    values = hard_floats()
    half, bfloat = (np.zeros(values.size, np.uint16) for _ in range(2))
    halves, bfloats, *relus = (np.zeros(values.size, np.uint32) for _ in range(4))
    arrays = [values, half, bfloat, halves, bfloats, *relus]
    run(CONVERT, "narrow", (-(-values.size // 256), 1, 1), (256, 1, 1), [*arrays, values.size], 0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        wanted_half = values.astype(np.float16).view(np.uint16)
    wanted_bfloat = nearest_bfloat(values)
    results = zip((half, bfloat), (halves, bfloats), relus, (wanted_half, wanted_bfloat), ("f16", "bf16"), strict=True)
    for got, pairs, relu, wanted, form in results:
        with np.errstate(invalid="ignore"):
            positive = np.maximum(values_of(wanted, form), 0)
        np.testing.assert_array_equal(values_of((relu & 0xFFFF).astype(np.uint16), form), positive)
        np.testing.assert_array_equal(values_of((relu >> 16).astype(np.uint16), form), positive[::-1])
        assert_same_values(got, wanted, form)
        assert_same_values((pairs & 0xFFFF).astype(np.uint16), wanted, form)
        assert_same_values((pairs >> 16).astype(np.uint16), wanted[::-1], form)


def test_the_reference_for_bfloat16_agrees_with_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = hard_floats()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        assert_same_values(values.astype(ml_dtypes.bfloat16).view(np.uint16), nearest_bfloat(values), "bf16")


# --- matrices of a warp ---------------------------------------------------------------------------------------------------


def test_load_matrix_gives_each_lane_its_pairs(run: Run) -> None:
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 2 ** 32, (32, 4), dtype=np.uint32)
    places = rng.permutation(32).astype(np.int32)
    threads = 64
    results = [np.zeros((threads, count), np.uint32) for count in (4, 2, 1)]
    run(LOAD, "load", ONE, (threads, 1, 1), [rows, places, *results], rows.nbytes)
    lane = np.arange(threads)[:, None] % 32
    for got in results:
        matrix = np.arange(got.shape[1])[None, :]
        np.testing.assert_array_equal(got, rows[places[8 * matrix + lane // 4], lane % 4])


def test_store_matrix_takes_each_lanes_pairs(run: Run) -> None:
    rng = np.random.default_rng(6)
    values, places = rng.integers(1, 2 ** 32, (32, 4), dtype=np.uint32), rng.permutation(32).astype(np.int32)
    after_four, after_two = np.zeros((32, 4), np.uint32), np.zeros((32, 4), np.uint32)
    run(STORE, "store", ONE, WARP, [values, places, after_four, after_two], after_four.nbytes)
    wanted = np.zeros((32, 4), np.uint32)
    for stored, got in ((values, after_four), (values[:, [3, 2]], after_two)):
        for matrix in range(stored.shape[1]):
            wanted[places[8 * matrix:8 * matrix + 8]] = stored[:, matrix].reshape(8, 4)
        np.testing.assert_array_equal(got, wanted)


def test_transpose_matrix_turns_each_warps_own(run: Run) -> None:
    matrices = np.random.default_rng(7).integers(0, 2 ** 16, (3, 8, 8), dtype=np.uint16)
    turned = np.zeros((3, 32), np.uint32)
    run(TRANSPOSE, "transpose", (3, 1, 1), WARP, [matrices.view(np.uint32).reshape(3, 32), turned], 0)
    np.testing.assert_array_equal(turned.view(np.uint16).reshape(3, 8, 8), matrices.transpose(0, 2, 1))


def multiplied(run: Run, form: str, depth: int, a: Array, b: Array, c: Array) -> Array:
    """a b + c by one instruction per warp; a[warps, 16, K], b[warps, K, 8], c[warps, 16, 8] as float64."""
    left = np.stack([left_registers(bits_of(m, form)) for m in a])
    right = np.stack([right_registers(bits_of(m, form)) for m in b])
    row, column = sum_places()
    sums = np.ascontiguousarray(c[:, row, column]).astype(np.float32)
    run(written(MULTIPLY, form, depth), "multiply", (len(a), 1, 1), WARP, [left, right, sums], 0)
    result = np.zeros(c.shape, np.float32)
    result[:, row, column] = sums
    return result


@pytest.mark.parametrize(("form", "depth"), FORMATS)
def test_products_of_integers_are_exact(run: Run, form: str, depth: int) -> None:
    rng = np.random.default_rng(depth)
    a, b, c = (rng.integers(-limit, limit + 1, shape).astype(np.float64)
               for limit, shape in ((255, (3, 16, depth)), (200, (3, depth, 8)), (100_000, (3, 16, 8))))
    np.testing.assert_array_equal(multiplied(run, form, depth, a, b, c), a @ b + c)


@pytest.mark.parametrize("depth", [16, 8])
def test_subnormal_elements_count(run: Run, depth: int) -> None:
    rng = np.random.default_rng(depth)
    a, b = rng.integers(-1000, 1000, (2, 16, depth)) * 2.0 ** -24, rng.integers(-30, 30, (2, depth, 8)) * 1.0
    np.testing.assert_array_equal(multiplied(run, "f16", depth, a, b, np.zeros((2, 16, 8))), a @ b)


@pytest.mark.parametrize(("form", "depth"), FORMATS)
def test_products_of_fractions_are_near(run: Run, form: str, depth: int) -> None:
    rng = np.random.default_rng(depth)
    a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 16, depth), (4, depth, 8), (4, 16, 8)))
    narrow = nearest_bfloat if form == "bf16" else lambda values: values.astype(np.float16).view(np.uint16)
    a, b, c = values_of(narrow(a), form), values_of(narrow(b), form), c.astype(np.float64)
    off = np.abs(multiplied(run, form, depth, a, b, c) - (a @ b + c))
    assert (off <= 2.0 ** -20 * (np.abs(a) @ np.abs(b) + np.abs(c))).all()


@pytest.mark.parametrize(("form", "depth"), FORMATS)
def test_infinity_and_nan_go_where_they_belong(run: Run, form: str, depth: int) -> None:
    a, b, c = np.ones((1, 16, depth)), np.ones((1, depth, 8)), np.zeros((1, 16, 8))
    a[0, 3, depth - 1], a[0, 9, 2], b[0, 4, 5], b[0, 2, 6] = np.inf, np.inf, np.inf, 0
    c[0, 0, 0], c[0, 3, 1] = np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(multiplied(run, form, depth, a, b, c), a @ b + c)


def gemm_operands(form: str, m: int, n: int, k: int) -> tuple[Array, Array, Array]:
    """a[m, k], b[n, k] as bits and a b^T as float32, of integers whose sums are exact."""
    rng = np.random.default_rng(m + n + k)
    a, b = rng.integers(-30, 30, (m, k)), rng.integers(-30, 30, (n, k))
    return bits_of(a.astype(np.float32), form), bits_of(b.astype(np.float32), form), (a @ b.T).astype(np.float32)


@pytest.mark.parametrize(("m", "n", "k"), [(64, 32, 48), (100, 41, 40), (7, 3, 8)])
@pytest.mark.parametrize(("form", "depth"), FORMATS)
def test_a_gemm_from_copies_to_sums(run: Run, form: str, depth: int, m: int, n: int, k: int) -> None:
    a, b, wanted = gemm_operands(form, m, n, k)
    c = np.full((m, n), np.nan, np.float32)
    grid = (-(-n // 32), -(-m // 64), 1)
    run(written(GEMM, form, depth), "gemm", grid, (GEMM_THREADS, 1, 1), [a, b, c, m, n, k], gemm_scratch(depth))
    np.testing.assert_array_equal(c, wanted)


def test_a_pipeline_of_copies_of_every_size(run: Run) -> None:
    """Three groups under way; what lies outside becomes zero."""
    source = WORDS + r"""
    template <class T>
    __device__ void copy(T* to, const T* from, bool inside) {
      if (sizeof(T) == 16) copy_async_16(to, from, inside);
      if (sizeof(T) == 8) copy_async_8(to, from, inside);
      if (sizeof(T) == 4) copy_async_4(to, from, inside);
    }
    template <class T>
    __device__ void pipeline(T* scratch, const T* in, T* out, int count) {
      const int t = threadIdx.x, n = blockDim.x, steps = 7;
      for (int i = 0; i < steps + 2; ++i) {
        if (i < steps) copy(scratch + i % 3 * n + t, in + i * n + t, i * n + t < count);
        copy_async_commit();
        if (i < 2) continue;
        copy_async_wait<2>();
        out[(i - 2) * n + t] = scratch[(i - 2) % 3 * n + t];
      }
    }
    extern "C" __global__ void copies(const uint4* in, uint4* out16, uint2* out8, unsigned* out4, int count) {
      extern __shared__ __align__(16) uint4 scratch[];
      pipeline(scratch, in, out16, count);
      __syncthreads();
      pipeline(reinterpret_cast<uint2*>(scratch), reinterpret_cast<const uint2*>(in), out8, count);
      __syncthreads();
      pipeline(reinterpret_cast<unsigned*>(scratch), reinterpret_cast<const unsigned*>(in), out4, count);
    }
    """
    threads, count = 48, 300
    values = np.random.default_rng(1).integers(1, 2 ** 32, (count, 4), dtype=np.uint32)
    results = [np.ones((7 * threads, words), np.uint32) for words in (4, 2, 1)]
    run(source, "copies", ONE, (threads, 1, 1), [values, *results, count], 3 * threads * 16)
    for got in results:
        np.testing.assert_array_equal(got[:count].reshape(-1), values.reshape(-1)[:got[:count].size])
        assert not got[count:].any()


# --- the library's file and the emulator's ----------------------------------------------------------------------------------


def signatures(text: str, before: str) -> dict[str, str]:
    """Parameters of every function of a text whose definitions begin with `before`."""
    found = re.findall(rf"^{before} (?:void|float|unsigned|half_bits) (\w+)\(([^;{{]*)\) \{{", text, re.MULTILINE)
    return {name: " ".join(parameters.split()).removesuffix(", int line = __builtin_LINE()") for name, parameters in found}


def test_the_emulator_has_the_words_of_the_library_and_no_others() -> None:
    library = signatures(WORDS, "__device__ __forceinline__")
    emulator = signatures((Path(__file__).parent / "cuda_matrix.hpp").read_text(), "inline")
    assert len(library) == 25
    assert emulator == library


# --- what kernels can do wrong ----------------------------------------------------------------------------------------------

WRONG = WORDS + r"""
extern "C" __global__ void wrong(const float* in, float* out, int kind) {
  extern __shared__ __align__(16) unsigned char scratch[];
  __shared__ __align__(16) unsigned char fixed[512];
  const int t = threadIdx.x;
  unsigned r[4] = {}, pair[2] = {};
  float d[4] = {};
  if (kind == 1) load_matrix_x4(r, scratch + 16 * t + 8);
  if (kind == 2) load_matrix_x2(pair, fixed + 16 * (t % 16));
  if (kind == 3) load_matrix_x1(pair[0], scratch + 16 * t + 16);
  if (kind == 4 && t == 9) return;
  if (kind == 4) multiply_f16_k16(d, r, pair, d);
  if (kind == 5 && t < 12) multiply_f16_k8(d, pair, 0, d);
  if (kind == 5 && t >= 12)
    multiply_f16_k8(d, pair, 0, d);
  if (kind == 6 && t >= 4) load_matrix_x4(r, scratch);
  if (kind == 6) __syncthreads();
  if (kind == 7) copy_async_16(scratch + 16 * t, in, true);
  if (kind == 8) {
    copy_async_4(scratch + 4 * t, in + t, true);
    copy_async_commit();
  }
  if (kind == 9) {
    copy_async_16(scratch + 16 * t, in, true);
    copy_async_wait<0>();
  }
  if (kind == 10) copy_async_8(scratch + 8 * t + 4, in, true);
  if (kind == 11) copy_async_8(scratch + 8 * t, in + 1, true);
  if (kind == 12) copy_async_4(out + t, in + t, true);
  if (kind == 13) copy_async_4(scratch + 4 * t, scratch, true);
  if (kind == 14) copy_async_4(scratch + 4 * t + 512, in + t, false);
  if (kind == 15) {
    copy_async_4(scratch + 4 * t, in + t + 1, true);
    copy_async_commit();
    copy_async_wait<0>();
  }
}
"""


def line_of(text: str) -> int:
    """The line of WRONG that has this text, counted as a compiler does."""
    [number] = [i for i, line in enumerate(WRONG.splitlines(), 1) if i > WORDS_LINES and text in line]
    return number


def launch_wrong(kind: int, sanitize: bool = False, threads: int = 32) -> None:
    arrays = [np.zeros(32, np.float32), np.zeros(32, np.float32)]
    kernel(WRONG, "wrong", sanitize).launch(ONE, (threads, 1, 1), [*arrays, kind], 512)


@emulated
@pytest.mark.parametrize(("kind", "place", "message"), [
    (1, "16 * t + 8);", r"thread \(0, 0, 0\), line {line}: load_matrix_x4: the row's address is not aligned to 16 bytes"),
    (2, "fixed + 16", r"line {line}: load_matrix_x2: the row is not in the block's dynamic shared memory"),
    (3, "load_matrix_x1", r"thread \(31, 0, 0\), line {line}: load_matrix_x1: the row is not in the block's dynamic shared"),
    (4, "kind == 4) multiply", r"not all lanes of its mask reach\n  31 of 32 threads wait in multiply_f16_k16.* on line {line}"
                               r".*\n  1 of 32 threads have left the kernel, first: thread \(9, 0, 0\)"),
    (5, "t < 12", r"not all .*\n  12 of 32 threads wait in multiply_f16_k8.* line {line}.*\n  20 of 32 .*multiply_f16_k8"),
    (6, "t >= 4) load", r"not all .*\n  4 of 32 threads wait at __syncthreads.*\n  28 .* in load_matrix_x4.* line {line}"),
    (7, "kind == 7", r"line {line}: copy_async_16 is never waited for: its group is not committed"),
    (8, "scratch + 4 * t, in + t, true", r"thread \(0, 0, 0\), line {line}: copy_async_4 is never waited for$"),
    (9, "    copy_async_16(scratch + 16 * t, in, true);", r"line {line}: copy_async_16 is never waited for: its group is not"),
    (10, "kind == 10", r"line {line}: copy_async_8: the target's address is not aligned"),
    (11, "kind == 11", r"line {line}: copy_async_8: the source's address is not aligned"),
    (12, "kind == 12", r"line {line}: copy_async_4: the target is not in the block's dynamic shared memory"),
    (13, "kind == 13", r"line {line}: copy_async_4: the source is not in device memory"),
    (14, "kind == 14", r"line {line}: copy_async_4: the target is not in the block's dynamic shared memory"),
])
@pytest.mark.parametrize("sanitize", [False, pytest.param(True, marks=sanitized)])
def test_a_wrong_use_names_its_line(kind: int, place: str, message: str, sanitize: bool) -> None:
    with pytest.raises(EmulatorError, match=message.format(line=line_of(place))):
        launch_wrong(kind, sanitize)
    launch_wrong(0, sanitize)  # in order again afterwards


@emulated
def test_a_warp_that_is_not_whole_has_no_matrix_words() -> None:
    with pytest.raises(EmulatorError, match=r"load_matrix_x4 needs 32 lanes, the last warp of the block has fewer"):
        launch_wrong(6, threads=40)


@sanitized
def test_a_copy_from_outside_an_array_is_reported_where_it_starts() -> None:
    with pytest.raises(SanitizerError, match="heap-buffer-overflow") as caught:
        launch_wrong(15, sanitize=True)
    assert f"kernel.cu:{line_of('in + t + 1, true')}" in str(caught.value)


@emulated
def test_a_copy_is_as_late_as_its_wait_allows() -> None:
    """Poison up to the wait, whatever was there before; the source is read at the wait; groups under way stay so."""
    source = WORDS + r"""
    extern "C" __global__ void late(float* in, float* out) {
      extern __shared__ __align__(16) float scratch[];
      scratch[0] = scratch[1] = scratch[2] = 1.0f;
      copy_async_4(scratch, in, true);
      copy_async_commit();
      copy_async_4(scratch + 1, in + 1, true);
      copy_async_4(scratch + 2, in, false);
      copy_async_commit();
      out[0] = scratch[0];
      in[0] = 7.0f;
      copy_async_wait<1>();
      for (int i = 0; i < 3; ++i) out[1 + i] = scratch[i];
      copy_async_wait<0>();
      for (int i = 0; i < 3; ++i) out[4 + i] = scratch[i];
    }
    """
    out = np.zeros(7, np.float32)
    kernel(source, "late").launch(ONE, ONE, [np.array([2, 3], np.float32), out], 12)
    np.testing.assert_array_equal(out, [np.nan, 7, np.nan, np.nan, 7, 3, 0])


@emulated
def test_too_lax_a_wait_shows_in_the_sums() -> None:
    a, b, wanted = gemm_operands("f16", 64, 32, 48)
    c = np.zeros((64, 32), np.float32)
    lax = kernel(written(GEMM, "f16", 16, UNDER_WAY="2"), "gemm")
    lax.launch(ONE, (GEMM_THREADS, 1, 1), [a, b, c, 64, 32, 48], gemm_scratch(16))
    assert np.isnan(c).all()
    assert np.isfinite(wanted).all()


@emulated
def test_a_missing_barrier_behind_the_wait_is_a_race() -> None:
    a, b, c = gemm_operands("f16", 64, 32, 48)
    racy = kernel(written(GEMM, "f16", 16, BARRIER=""), "gemm")
    with pytest.raises(RaceError):
        racy.check_races(ONE, (GEMM_THREADS, 1, 1), [a, b, c, 64, 32, 48], gemm_scratch(16))


@emulated
def test_rows_stored_and_loaded_without_a_barrier_are_a_race() -> None:
    source = WORDS + r"""
    extern "C" __global__ void racy(const uint4* in, unsigned* out) {
      extern __shared__ __align__(16) uint4 scratch[];
      scratch[31 - threadIdx.x] = in[threadIdx.x];
      BARRIER;
      unsigned r[4];
      load_matrix_x4(r, scratch + threadIdx.x);
      for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = r[i];
    }
    """
    arrays = [np.arange(128, dtype=np.uint32), np.zeros(128, np.uint32)]
    kernel(source.replace("BARRIER", "__syncwarp()"), "racy").check_races(ONE, WARP, arrays, 512)
    with pytest.raises(RaceError):
        kernel(source.replace("BARRIER", ""), "racy").check_races(ONE, WARP, arrays, 512)
