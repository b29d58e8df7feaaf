"""The words of templates/cuda/lib/ptx.cuh compile for every architecture, to the machine instructions they stand for."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from fusec.errors import InternalError
from fusec.runtime.cuda.nvrtc import compile_cubin
from fusec.runtime.program import Source
from tests.emulator.matrix_kernels import CONVERT, GEMM, LOAD, MULTIPLY, WORDS, written

pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC and CuPy are not installed")

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
# Bits 0 to 11 of a machine instruction, as nvdisasm names them; the same on all these architectures.
OPCODES = {0x23C: "HMMA", 0x83B: "LDSM", 0xFAE: "LDGSTS", 0x844: "STSM", 0x23A: "MOVM"}
INSTRUCTION_BYTES = 16

ALL = WORDS + r"""
extern "C" __global__ void all_words(const unsigned char* in, float* out, int n) {
  extern __shared__ __align__(16) unsigned char scratch[];
  const int t = threadIdx.x;
  copy_async_16(scratch + 16 * t, in + 16 * t, t < n);
  copy_async_8(scratch + 1024 + 8 * t, in + 8 * t, t < n);
  copy_async_4(scratch + 2048 + 4 * t, in + 4 * t, t < n);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  unsigned a[4], b[2], c;
  load_matrix_x4(a, scratch + 16 * t);
  load_matrix_x2(b, scratch + 1024 + 16 * (t % 16));
  load_matrix_x1(c, scratch + 2048 + 16 * (t % 8));
  a[0] = transpose_matrix(a[0]);
  unsigned half[2] = {a[0], floats_to_half2(out[t], half_to_float(float_to_half(out[t + 1])))};
  float d[4] = {bfloat_to_float(half_bits(c))};
  multiply_f16_k16(d, a, b, d);
  multiply_f16_k8(d, half, c, d);
#if __CUDA_ARCH__ >= 800
  half[0] = floats_to_bfloat2(out[t], bfloat_to_float(float_to_bfloat(out[t + 1])));
  multiply_bf16_k16(d, a, b, d);
  multiply_bf16_k8(d, half, c, d);
#endif
#if __CUDA_ARCH__ >= 900
  store_matrix_x4(scratch + 16 * t, a);
  store_matrix_x2(scratch + 1024 + 16 * t, b);
#endif
  if (t < n) for (int i = 0; i < 4; ++i) out[4 * t + i] = d[i];
}
"""


def machine_instructions(cubin: bytes, entry: str) -> Counter[str]:
    """How many of each instruction in OPCODES the entry's code has, read from the cubin's ELF sections."""
    (table,), (count, names) = struct.unpack_from("<Q", cubin, 0x28), struct.unpack_from("<HH", cubin, 0x3C)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + 64 * i) for i in range(count)]
    found: Counter[str] = Counter()
    for name, _, _, _, offset, size in sections:
        start = sections[names][4] + name
        if cubin[start:cubin.index(b"\0", start)] != f".text.{entry}".encode():
            continue
        words = (struct.unpack_from("<Q", cubin, at)[0] & 0xFFF for at in range(offset, offset + size, INSTRUCTION_BYTES))
        found.update(OPCODES[w] for w in words if w in OPCODES)
    return found


@pytest.mark.parametrize("arch", ARCHS)
def test_every_word_is_its_instruction(arch: str) -> None:
    cubin, usage = compile_cubin(Source("all_words", ALL, "cuda"), arch)
    wanted = {"HMMA": 3, "LDSM": 3, "MOVM": 1} if arch == "sm_75" else {"HMMA": 4, "LDSM": 3, "LDGSTS": 3, "MOVM": 1}
    if arch in ("sm_90", "sm_120"):
        wanted["STSM"] = 2
    assert machine_instructions(cubin, "all_words") == wanted
    assert usage.spill_stores == usage.spill_loads == usage.stack == 0


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("form", "depth"), [(form, depth) for form in ("f16", "bf16") for depth in (16, 8)])
def test_the_emulators_kernels_compile(arch: str, form: str, depth: int) -> None:
    if arch == "sm_75" and form == "bf16":
        with pytest.raises(InternalError, match="multiply_bf16_k"):
            compile_cubin(Source("multiply", written(MULTIPLY, form, depth), "cuda"), arch)
        return
    for entry, text in (("multiply", MULTIPLY), ("gemm", GEMM)):
        _, usage = compile_cubin(Source(entry, written(text, form, depth), "cuda"), arch)
        assert usage.spill_stores == usage.spill_loads == 0


@pytest.mark.parametrize("arch", ARCHS)
def test_loads_and_conversions_compile(arch: str) -> None:
    compile_cubin(Source("load", LOAD, "cuda"), arch)
    if arch != "sm_75":
        compile_cubin(Source("narrow", CONVERT, "cuda"), arch)
