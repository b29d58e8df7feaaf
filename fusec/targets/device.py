"""Devices as data: what the planner and the mappings may use of a machine.

Rates and sizes are the vendors' published figures (data sheets, CUDA C++ Programming Guide, table of technical specifications)
unless a comment says "measured". Nothing here runs code on a device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from fusec.errors import InputError, nearest
from fusec.schedule.ir import Layout

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True)
class Device:
    """One machine a kernel may be planned for.

    Sizes in bytes, rates per second, times in seconds. A core is a streaming multiprocessor or a CPU core; `lanes` is the
    number of fp32 multiply-adds a core can start per cycle on the CUDA cores or vector units.
    """

    name: str
    target: str  # "cuda" or "cpu"
    arch: str
    cores: int
    lanes: int
    clock: float
    scratch_per_block: int
    scratch_per_core: int
    registers_per_core: int
    max_threads_per_core: int
    bandwidth: float  # of device memory
    cache: int  # the largest cache all cores share
    cache_bandwidth: float
    launch: float  # seconds from one kernel to the next
    layout: Layout  # of scratch and of tensors between kernels
    vector: int = 1  # fp32 elements a CPU register holds


def _cuda(name: str, arch: str, cores: int, lanes: int, clock: float, block_kib: int, core_kib: int, threads: int,
          bandwidth: float, cache: int, cache_bandwidth: float) -> Device:
    return Device(name, "cuda", arch, cores, lanes, clock * 1e9, block_kib * KIB, core_kib * KIB, 65536, threads,
                  bandwidth * 1e9, cache * MIB, cache_bandwidth * 1e9, 2.5e-6, Layout.NCHW)


DEVICES: dict[str, Device] = {d.name: d for d in (
    # bandwidth of the H200: 4.3 TB/s measured by a large copy (data sheet: 4.8)
    _cuda("h200", "sm_90", 132, 128, 1.98, 227, 228, 2048, 4300, 60, 7000),
    _cuda("h100", "sm_90", 132, 128, 1.98, 227, 228, 2048, 3000, 50, 7000),
    _cuda("a100", "sm_80", 108, 64, 1.41, 163, 164, 2048, 1400, 40, 5000),
    _cuda("rtx4090", "sm_89", 128, 128, 2.52, 99, 100, 1536, 900, 72, 4500),
    _cuda("rtx5090", "sm_120", 170, 128, 2.41, 99, 100, 1536, 1600, 96, 6000),
    _cuda("rtx3090", "sm_86", 82, 128, 1.70, 99, 100, 1536, 850, 6, 2500),
    _cuda("rtx2080", "sm_75", 46, 64, 1.71, 64, 64, 1024, 400, 4, 1500),
    _cuda("t4", "sm_75", 40, 64, 1.59, 64, 64, 1024, 280, 4, 1200),
    _cuda("orin", "sm_87", 16, 128, 1.30, 163, 164, 1536, 180, 4, 600),
)}

_ARCH_DEVICE = {"sm_75": "t4", "sm_80": "a100", "sm_86": "rtx3090", "sm_87": "orin", "sm_89": "rtx4090", "sm_90": "h200",
                "sm_120": "rtx5090"}


def device_for_arch(arch: str) -> Device:
    """The device planned for when only an architecture ("sm_90") is known."""
    if arch not in _ARCH_DEVICE:
        raise InputError(f"unknown architecture '{arch}'", hint=_meant(arch) or f"one of {', '.join(_ARCH_DEVICE)}")
    return DEVICES[_ARCH_DEVICE[arch]]


def _meant(arch: str) -> str:
    """A hint for another spelling of a known architecture, or a GPU's name. Numbers merely alike are other machines."""
    digits = "".join(c for c in arch if c.isdigit())
    by_name = DEVICES.get(arch.lower())
    found = by_name.arch if by_name else f"sm_{digits}"
    return f"did you mean '{found}'?" if found in _ARCH_DEVICE else ""


def find_device(name: str) -> Device:
    """A device by name ("h200", "t4", "cpu")."""
    if name == "cpu":
        return host()
    if name.lower().startswith("sm"):
        return device_for_arch(name)
    known = [*DEVICES, "cpu"]
    if name.lower() not in DEVICES:
        raise InputError(f"unknown device '{name}'", hint=nearest(name, known) or f"one of {', '.join(known)}")
    return DEVICES[name.lower()]


@cache
def host() -> Device:
    """This machine's CPU, as far as the operating system tells."""
    flags = _cpu_flags()
    vector = 16 if "avx512f" in flags else 8 if "avx2" in flags else 4
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    level2 = _cache_size(2) or 512 * KIB
    level3 = _cache_size(3) or 4 * level2
    fused = 2 if "fma" in flags or vector == 4 else 1
    # clock and bandwidths are common values of server CPUs, not read from the machine: only their ratios steer the planner
    return Device("cpu", "cpu", "host", cores, fused * vector, 2.8e9, level2, level2, 1 << 30, 1, 12e9 * cores, level3,
                  40e9 * cores, 2e-6, Layout.NHWC, vector)


def generic_host(vector: int = 8, cores: int = 2) -> Device:
    """A CPU that does not depend on this machine, for reproducible plans and golden files."""
    return replace(host(), cores=cores, vector=vector, lanes=2 * vector, scratch_per_block=MIB, scratch_per_core=MIB,
                   cache=32 * MIB, bandwidth=12e9 * cores, cache_bandwidth=40e9 * cores)


def _cpu_flags() -> frozenset[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def _cache_size(level: int) -> int | None:
    """Bytes of the data cache of a level, from sysfs (Linux) or None."""
    for index in range(6):
        folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}")
        try:
            if int((folder / "level").read_text()) == level and (folder / "type").read_text().strip() != "Instruction":
                return int((folder / "size").read_text().strip().removesuffix("K")) * KIB
        except (OSError, ValueError):
            continue
    return None
