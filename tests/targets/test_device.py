"""The figures of devices, against others of the same data sheets, and what is read of this machine's CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.errors import InputError
from fusec.schedule.ir import Layout
from fusec.targets import device
from fusec.targets.device import (
    DEVICES,
    DTYPES,
    HALF_SINCE,
    KIB,
    MIB,
    Device,
    cache_of_one_core,
    cache_size,
    device_for_gpu,
    generic_host,
    host,
    in_precision,
)

# fp32 TFLOP/s without tensor cores, GB/s and MB of L2 as the data sheets and whitepapers have them
PUBLISHED = {"h200": (67, 4800, None), "h100": (67, 3350, 50), "a100": (19.5, 1555, 40), "rtx4090": (82.6, 1008, 72),
             "rtx5090": (104.8, 1792, 96), "rtx3090": (35.6, 936, 6), "rtx2080": (10.1, 448, 4), "t4": (8.1, 320, 4),
             "orin": (5.3, 204.8, 4)}
SCRATCH = {"sm_75": (64, 64, 1024), "sm_80": (163, 164, 2048), "sm_86": (99, 100, 1536), "sm_87": (163, 164, 1536),
           "sm_89": (99, 100, 1536), "sm_90": (227, 228, 2048), "sm_120": (99, 100, 1536)}  # KiB per block and SM, threads


@pytest.mark.parametrize("name", DEVICES)
def test_figures_make_up_the_published_rates(name: str) -> None:
    gpu, (teraflops, bandwidth, cache) = DEVICES[name], PUBLISHED[name]
    assert 2e-12 * gpu.cores * gpu.lanes * gpu.clock == pytest.approx(teraflops, rel=0.01)
    assert 0.85 < gpu.bandwidth / (bandwidth * 1e9) < 0.95  # what a copy reaches, never more than there is
    assert cache is None or gpu.cache == cache * MIB
    assert gpu.bandwidth < gpu.cache_bandwidth
    assert (gpu.scratch_per_block // KIB, gpu.scratch_per_core // KIB, gpu.max_threads_per_core) == SCRATCH[gpu.arch]


@pytest.mark.parametrize(("name", "arch", "cores", "planned"), [
    ("NVIDIA H200", "sm_90", 132, "h200"), ("NVIDIA H100 80GB HBM3", "sm_90", 132, "h100"),
    ("NVIDIA H100 PCIe", "sm_90", 114, "h200"), ("NVIDIA A100-SXM4-40GB", "sm_80", 108, "a100"),
    ("NVIDIA GeForce RTX 4090", "sm_89", 128, "rtx4090"), ("NVIDIA GeForce RTX 2080", "sm_75", 46, "rtx2080"),
    ("NVIDIA GeForce RTX 2080 Ti", "sm_75", 68, "t4"), ("Tesla T4", "sm_75", 40, "t4"), ("Orin", "sm_87", 16, "orin")])
def test_a_gpu_is_planned_as_itself_where_it_is_known(name: str, arch: str, cores: int, planned: str) -> None:
    assert device_for_gpu(name, arch, cores).name == planned


def core(folder: Path, shared: str, threads: str, **caches: tuple[int, str, str]) -> Path:
    """A folder as Linux describes a core: caches as (level, type, size)."""
    (folder / "topology").mkdir()
    (folder / "topology" / "thread_siblings_list").write_text(threads + "\n")
    for name, (level, kind, size) in caches.items():
        place = folder / "cache" / name
        place.mkdir(parents=True)
        for file, text in (("level", str(level)), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            (place / file).write_text(text + "\n")
    return folder


def test_caches_as_the_system_describes_them(tmp_path: Path) -> None:
    made = core(tmp_path, "0-3,8", "0", index0=(1, "Data", "48K"), index1=(1, "Instruction", "64K"),
                index2=(2, "Unified", "5M"))
    assert cache_size(1, made) == 48 * KIB
    assert cache_size(2, made) == 5 * MIB
    assert cache_size(3, made) is None
    assert cache_of_one_core(2, made) == MIB


def test_the_threads_of_one_core_do_not_divide_its_cache(tmp_path: Path) -> None:
    made = core(tmp_path, "0,64", "0,64", index2=(2, "Unified", "2048K"))
    assert cache_of_one_core(2, made) == 2 * MIB


@pytest.mark.parametrize("size", ["", "many", "-3K", "4G", "9" * 40])
def test_what_makes_no_sense_is_not_known(tmp_path: Path, size: str) -> None:
    assert cache_size(2, core(tmp_path, "x-y", "", index2=(2, "Unified", size))) is None


def test_no_description_at_all(tmp_path: Path) -> None:
    assert cache_size(2, tmp_path / "none") is None
    assert cache_of_one_core(2, tmp_path / "none") is None


def test_the_host_has_what_the_system_says() -> None:
    assert host().scratch_per_block == (cache_of_one_core(2) or 512 * KIB)
    assert host().cache == (cache_size(3) or 4 * host().scratch_per_block)
    assert host().cores >= 1
    assert host().layout is device.Layout.NHWC


# ---- types


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gpu", DEVICES.values(), ids=lambda d: d.name)
def test_types_of_every_gpu(gpu: Device, dtype: str) -> None:
    """float16 has matrix instructions from Turing on, bfloat16 from Ampere on."""
    if dtype == "bfloat16" and gpu.arch == "sm_75":
        with pytest.raises(InputError, match=r"sm_75 has no matrix instructions for bfloat16 .*it has float32 and float16"):
            in_precision(gpu, dtype)
        return
    made = in_precision(gpu, dtype)
    assert (made.dtype, made.element, made.matrix) == (dtype, 4 if dtype == "float32" else 2, dtype != "float32")
    assert made.layout is (Layout.NCHW if dtype == "float32" else Layout.NC8HW8)
    assert in_precision(made, dtype) == made
    assert (made.name, made.arch, made.scratch_per_block) == (gpu.name, gpu.arch, gpu.scratch_per_block)


@pytest.mark.parametrize("dtype", HALF_SINCE)
def test_a_cpu_computes_in_float32_alone(dtype: str) -> None:
    assert in_precision(generic_host(), "float32") == generic_host()
    with pytest.raises(InputError, match=f"the cpu computes in float32, not in {dtype} .*use a GPU"):
        in_precision(generic_host(), dtype)


@pytest.mark.parametrize(("dtype", "hint"), [("float61", "did you mean 'float16'"), ("fp16", "float16"), ("", "one of float32"),
                                             ("bfloat", "did you mean 'bfloat16'")])
def test_unknown_types(dtype: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"dtype '{dtype}' is not supported .*{hint}"):
        in_precision(DEVICES["h200"], dtype)
