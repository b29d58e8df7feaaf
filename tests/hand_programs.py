"""Small programs with kernels written by hand, so that the runtime can be tested without the steps before it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

import fusec.runtime.cpu as cpu
from fusec.runtime.build import assemble, build
from fusec.runtime.model import Model
from fusec.runtime.program import Launch, Port, Program, Source, TensorRule, Variant
from fusec.runtime.store import Store

POOL = Source("fusec_pool", (Path(__file__).parent.parent / "templates/cpu/threads.cpp").read_text(), "cpp")
Tile = tuple[int, int, int, int]
Parts = tuple[Program, list[Source], dict[str, np.ndarray]]

SAME = ((1, 0, 1),)
HALF = ((1, 0, 2),)

# Element (n, c, y, x) of the output is EXPRESSION of `at(i)`, element (n, c, STRIDE y, STRIDE x) of input i. It takes the way
# over scratch, which must be aligned, or the result is wrong.
CPP = """
extern "C" __attribute__((visibility("default"))) void ENTRY(const float* const* inputs, float* output, const float* params,
                                                             const int* sizes, long long tile, float* scratch) {
  const int batch = sizes[0], tiles_y = sizes[1], tiles_x = sizes[2];
  const int ih = sizes[3], iw = sizes[4], oh = sizes[5], ow = sizes[6];
  const int tx = int(tile % tiles_x), ty = int(tile / tiles_x % tiles_y), groups = (CHANNELS + TC - 1) / TC;
  const int tc = int(tile / tiles_x / tiles_y % groups), tn = int(tile / tiles_x / tiles_y / groups);
  const float bad = reinterpret_cast<unsigned long>(scratch) % 64 ? 1e9f : 0.0f;
  for (int n = tn * TN; n < tn * TN + TN && n < batch; ++n)
    for (int c = tc * TC; c < tc * TC + TC && c < CHANNELS; ++c)
      for (int y = ty * TH; y < ty * TH + TH && y < oh; ++y) {
        for (int x = tx * TW; x < tx * TW + TW && x < ow; ++x) {
          auto at = [&](int i) { return inputs[i][((long long)(n * CHANNELS + c) * ih + y * STRIDE) * iw + x * STRIDE]; };
          scratch[x - tx * TW] = EXPRESSION;
        }
        for (int x = tx * TW; x < tx * TW + TW && x < ow; ++x)
          output[((long long)(n * CHANNELS + c) * oh + y) * ow + x] = scratch[x - tx * TW] + bad;
      }
}
"""

CUDA = """
extern "C" __global__ void ENTRY(SIGNATURE float* output, const float* params, int batch, int tiles_y, int tiles_x,
                                 int ih, int iw, int oh, int ow) {
  extern __shared__ float scratch[];
  const int tile = blockIdx.x;
  const int tx = tile % tiles_x, ty = tile / tiles_x % tiles_y, groups = (CHANNELS + TC - 1) / TC;
  const int tc = tile / tiles_x / tiles_y % groups, tn = tile / tiles_x / tiles_y / groups;
  for (int n = tn * TN; n < tn * TN + TN && n < batch; ++n)
    for (int c = tc * TC; c < tc * TC + TC && c < CHANNELS; ++c)
      for (int y = ty * TH; y < ty * TH + TH && y < oh; ++y)
        for (int x = tx * TW + threadIdx.x; x < tx * TW + TW && x < ow; x += blockDim.x) {
          auto at = [&](int i) {
            const float* inputs[] = {INPUTS};
            return inputs[i][((long long)(n * CHANNELS + c) * ih + y * STRIDE) * iw + x * STRIDE];
          };
          scratch[x - tx * TW] = EXPRESSION;
          output[((long long)(n * CHANNELS + c) * oh + y) * ow + x] = scratch[x - tx * TW];
        }
}
"""

# Words of 16 bits, exclusive or the lower word of the first parameter: with 0x8000, numbers of a half type with their signs
# turned. FROM and TO say whether the tensors lie in planes of eight channels; channels that fill up the last one get zeros.
WORDS = """
#define PLACE(planes, channels, n, c, y, x, h, w) \\
  (planes ? (((n * ((channels + 7) / 8) + c / 8) * h + y) * w + x) * 8 + c % 8 : ((n * channels + c) * h + y) * w + x)
HEAD {
  const unsigned int turned = *reinterpret_cast<const unsigned int*>(params) & 0xffffu;
  const int tx = int(tile % tiles_x), ty = int(tile / tiles_x % tiles_y), groups = (CHANNELS + TC - 1) / TC;
  const int tc = int(tile / tiles_x / tiles_y % groups), tn = int(tile / tiles_x / tiles_y / groups);
  const int end = !TO || tc + 1 < groups ? tc * TC + TC : (CHANNELS + 7) / 8 * 8;
  for (long long n = tn * TN; n < tn * TN + TN && n < batch; ++n)
    for (int c = tc * TC; c < end && (TO || c < CHANNELS); ++c)
      for (int y = ty * TH; y < ty * TH + TH && y < h; ++y)
        for (int x = tx * TW + FIRST; x < tx * TW + TW && x < w; x += STEP) {
          scratch[x - tx * TW] = c < CHANNELS ? input[PLACE(FROM, CHANNELS, n, c, y, x, h, w)] ^ turned : 0;
          output[PLACE(TO, CHANNELS, n, c, y, x, h, w)] = scratch[x - tx * TW];
        }
}
"""
WORDS_CPP = """
extern "C" __attribute__((visibility("default"))) void ENTRY(
    const unsigned short* const* inputs, unsigned short* output, const float* params, const int* sizes, long long tile,
    unsigned short* scratch) {
  const unsigned short* input = inputs[0];
  const int batch = sizes[0], tiles_y = sizes[1], tiles_x = sizes[2], h = sizes[3], w = sizes[4];"""
WORDS_CUDA = """
extern "C" __global__ void ENTRY(const unsigned short* input, unsigned short* output, const float* params, int batch,
                                 int tiles_y, int tiles_x, int h, int w, int, int) {
  extern __shared__ unsigned short scratch[];
  const int tile = blockIdx.x;"""


def kernel(entry: str, expression: str, channels: int, tile: Tile, inputs: int = 1, stride: int = 1,
           target: str = "cpu") -> Source:
    """An elementwise kernel; `expression` is C++ of `at(i)` and `params`."""
    names = [f"input{i}" for i in range(inputs)]
    words = {"EXPRESSION": expression, "ENTRY": entry, "CHANNELS": channels, "STRIDE": stride,
             "TN": tile[0], "TC": tile[1], "TH": tile[2], "TW": tile[3],
             "SIGNATURE": "".join(f"const float* {n}, " for n in names), "INPUTS": ", ".join(names)}
    return filled(CPP if target == "cpu" else CUDA, words, target)


def filled(text: str, words: dict[str, str | int], target: str) -> Source:
    for word, value in words.items():
        text = text.replace(word, str(value))
    return Source(str(words["ENTRY"]), text, "cpp" if target == "cpu" else "cuda")


def words_kernel(entry: str, channels: int, tile: Tile, planes: tuple[bool, bool], target: str) -> Source:
    head, first, step = (WORDS_CPP, "0", "1") if target == "cpu" else (WORDS_CUDA, "threadIdx.x", "blockDim.x")
    words = {"HEAD {": head, "ENTRY": entry, "CHANNELS": channels, "FIRST": first, "STEP": step, "FROM": int(planes[0]),
             "TO": int(planes[1]), "TN": tile[0], "TC": tile[1], "TH": tile[2], "TW": tile[3]}
    return filled(WORDS, words, target)


def arch(target: str) -> str:
    return cpu.signature() if target == "cpu" else "sm_90"


def launch(label: str, entry: str, inputs: tuple[str, ...], output: str, params: str, tile: Tile) -> Launch:
    return Launch(label, inputs, output, params, (inputs[0], output), (Variant(entry, tile, 32, tile[3]),))


def make_program(name: str, target: str, inputs: tuple[Port, ...], outputs: tuple[Port, ...],
                 tensors: tuple[TensorRule, ...], launches: tuple[Launch, ...]) -> Program:
    return Program(name, target, "float32", arch(target), "0.0.test", inputs, outputs, tensors, {}, launches)


def scale(target: str = "cpu", factor: float = 3.0) -> Parts:
    """y = factor * x, two channels, open sizes."""
    tile = (1, 1, 4, 8)
    program = make_program("scale", target, (Port("x", "x"),), (Port("y", "y"),),
                           (TensorRule("x", 2, None, (), ()), TensorRule("y", 2, "x", SAME, SAME)),
                           (launch("scale", "k_0", ("x",), "y", "w", tile),))
    return program, [kernel("k_0", "at(0) * params[0]", 2, tile, target=target), *pool(target)], {"w": np.float32([factor])}


def chain(target: str = "cpu") -> Parts:
    """Two inputs; m = a + b, then s = every second pixel of 2 m, and t = m - a; outputs s, t."""
    tile = (2, 3, 4, 8)
    program = make_program(
        "chain", target, (Port("left", "a"), Port("right", "b")), (Port("small", "s"), Port("difference", "t")),
        (TensorRule("a", 3, None, (), ()), TensorRule("b", 3, None, (), ()), TensorRule("m", 3, "a", SAME, SAME, ("b",)),
         TensorRule("s", 3, "m", HALF, HALF), TensorRule("t", 3, "m", SAME, SAME, ("a",))),
        (launch("sum", "k_0", ("a", "b"), "m", "", tile), launch("half", "k_1", ("m",), "s", "w", tile),
         launch("difference", "k_2", ("m", "a"), "t", "", tile)))
    sources = [kernel("k_0", "at(0) + at(1)", 3, tile, 2, target=target),
               kernel("k_1", "at(0) * params[1]", 3, tile, stride=2, target=target),
               kernel("k_2", "at(0) - at(1)", 3, tile, 2, target=target)]
    return program, [*sources, *pool(target)], {"w": np.float32([0, 2])}


def negations(dtype: str, target: str = "cpu", channels: int = 11) -> Parts:
    """y = -x of a half type, by three kernels: x and y are NCHW, the tensors between them lie in planes of eight channels."""
    tile = (2, 5, 4, 8)
    names = ("x", "m", "n", "y")
    program = make_program("negations", target, (Port("x", "x"),), (Port("y", "y"),),
                           tuple(TensorRule(n, channels, before, *((SAME, SAME) if before else ((), ())))
                                 for before, n in zip((None, *names), names, strict=False)),
                           tuple(launch(b, f"k_{i}", (a,), b, "w", tile) for i, (a, b) in enumerate(pairwise(names))))
    program = replace(program, dtype=dtype, layouts=dict.fromkeys(("m", "n"), "NC8HW8"))
    sources = [words_kernel(f"k_{i}", channels, tile, (i > 0, i < 2), target) for i in range(3)]
    return program, [*sources, *pool(target)], {"w": np.uint32([0x7f818000]).view(np.float32)}  # a signalling NaN to float32


def chain_reference(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m = a + b
    return 2 * m[:, :, :m.shape[2] // 2 * 2:2, :m.shape[3] // 2 * 2:2], m - a


def pool(target: str) -> list[Source]:
    return [POOL] if target == "cpu" else []


@cache
def compiler() -> cpu.Compiler:
    return cpu.find_compiler()


def linked(parts: Parts, folder: Path, threads: int | None = None) -> Model:
    program, sources, weights = parts
    store = Store(folder)
    binaries = build(program.target, program.arch, sources, store, compiler() if program.target == "cpu" else None)
    return assemble(program, sources, binaries, weights, store=store, threads=threads)
