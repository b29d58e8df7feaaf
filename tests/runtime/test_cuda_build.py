"""CUDA without a GPU: NVRTC builds for every architecture, and errors name the way out."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from fusec.errors import InputError, InternalError, MissingError
from fusec.runtime.build import build
from fusec.runtime.cuda import gpu, nvrtc
from fusec.runtime.program import Source
from fusec.runtime.store import Store
from tests.conftest import gpu_obstacle
from tests.hand_programs import kernel, linked, scale

pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC and CuPy are not installed")

SCALE = kernel("k_0", "at(0) * params[0]", 2, (1, 1, 4, 8), target="cuda")
SPILLING = Source("k_1", """
extern "C" __global__ void __launch_bounds__(1024, 2) k_1(const float* x, float* y) {
  __shared__ float scratch[256];
  float v[64];
  #pragma unroll
  for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x];
  scratch[threadIdx.x & 255] = v[0];
  __syncthreads();
  #pragma unroll
  for (int i = 0; i < 64; ++i) y[i * 1024 + threadIdx.x] = v[63 - i] * scratch[(threadIdx.x + i) & 255];
}
""", "cuda")


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_120"])
def test_builds_for_every_architecture(arch: str) -> None:
    cubin, usage = nvrtc.compile_cubin(SCALE, arch)
    assert cubin[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", cubin, 18)[0] == 190  # EM_CUDA
    assert b"k_0" in cubin
    assert 8 <= usage.registers <= 64
    assert (usage.spill_stores, usage.spill_loads, usage.scratch) == (0, 0, 0)


def test_resource_usage_is_read_from_the_log() -> None:
    usage = nvrtc.compile_cubin(SPILLING, "sm_90")[1]
    assert usage.registers == 32
    assert usage.scratch == 1024
    assert usage.spill_stores > 0 and usage.spill_loads > 0 and usage.stack > 0
    assert "ptxas" in usage.log


def test_rejected_source_is_shown_with_file_and_line() -> None:
    with pytest.raises(InternalError, match=r"generated k_3\.cu for sm_90:\n  k_3\.cu\(2\): error: .*nonsense") as caught:
        nvrtc.compile_cubin(Source("k_3", "// first\nnonsense here;\n", "cuda"), "sm_90")
    assert "line 2: nonsense here;" in str(caught.value)


@pytest.mark.parametrize("arch", ["sm_12", "90", "sm_90; rm", "", "compute_90", "sm_9000"])
def test_unknown_architectures(arch: str) -> None:
    with pytest.raises(InputError, match=r"unknown to NVRTC .*sm_75.*sm_90"):
        nvrtc.compile_cubin(SCALE, arch)


def test_no_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", None)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs.nvrtc", None)
    with pytest.raises(MissingError, match=r"fusec\[cuda13\].*target 'cpu'"):
        nvrtc.compile_cubin(SCALE, "sm_90")


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingError, match=r"CuPy is not installed.*fusec\[cuda13\]"):
        gpu.device_arch()


@pytest.mark.skipif(not gpu_obstacle(), reason="there is a GPU")
def test_no_gpu_is_an_error_and_never_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no NVIDIA GPU can be used \(.*\): install NVIDIA's driver, or .* target 'cpu'"):
        gpu.device_arch()
    model = linked(scale("cuda"), tmp_path)  # building for sm_90 needs none
    with pytest.raises(MissingError, match="no NVIDIA GPU"):
        model(np.zeros((1, 2, 3, 3), np.float32))


def test_cubins_are_kept_by_architecture(tmp_path: Path) -> None:
    store = Store(tmp_path)
    paths = {arch: build("cuda", arch, [SCALE], store)["k_0"] for arch in ("sm_80", "sm_90", "sm_80")}
    assert len(set(paths.values())) == 2
    assert all(p.suffix == ".cubin" for p in paths.values())


def test_the_log_of_a_build_is_what_ptxas_says(tmp_path: Path) -> None:
    said: list[tuple[str, str | None]] = []
    for _ in range(2):
        build("cuda", "sm_90", [SPILLING], Store(tmp_path), log=lambda *words: said.append(words))
    (entry, text), kept = said
    assert entry == "k_1" and text is not None
    assert "Used 32 registers" in text and "spill stores" in text
    assert kept == ("k_1", None)
