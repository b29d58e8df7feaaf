"""Devices as data: what the planner and the mappings may use of a machine.

Rates and sizes of GPUs are the vendors' published figures unless a comment says otherwise; those of this CPU are read from the
system as far as it tells. Nothing here runs code on a device.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from fusec.errors import InputError, nearest
from fusec.schedule.ir import Layout

KIB, MIB = 1024, 1024 * 1024
ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
DTYPES = tuple(ELEMENT_BYTES)
HALF_SINCE = {"float16": 75, "bfloat16": 80}  # compute capability with matrix instructions of the type (PTX ISA, mma.sync)
FEW_CHANNELS = 4  # up to which a tensor of half precision has no planes of eight, and a filter's taps and channels are one axis
MOST_HELD = 72  # registers of weights that a lane holds for all of its warp's tasks, of a convolution by matrix instructions
RESIDENT_WEIGHTS = 64 * KIB  # that a block with matrix instructions may keep in scratch beside its buffers
CPU0 = Path("/sys/devices/system/cpu/cpu0")  # Linux describes the first core here


@dataclass(frozen=True)
class Device:
    """One machine a kernel may be planned for.

    Sizes in bytes, rates per second, times in seconds. A core is a streaming multiprocessor or a CPU core; `lanes` is the
    number of fp32 multiply-adds a core can start per cycle on the CUDA cores or vector units. `board` is the driver's name of a
    GPU that is present, "" where one is only named.
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
    board: str = ""
    dtype: str = "float32"  # of the tensors: what the machine is used with, see `in_precision`

    @property
    def element(self) -> int:
        """Bytes of one element of a tensor."""
        return ELEMENT_BYTES[self.dtype]

    @property
    def matrix(self) -> bool:
        """Whether convolutions go through matrix instructions."""
        return self.target == "cuda" and self.dtype in HALF_SINCE

    @property
    def stores_matrices(self) -> bool:
        """Whether a warp stores 8 x 8 matrices of 16-bit elements into scratch (PTX ISA, stmatrix)."""
        return self.matrix and int(self.arch.removeprefix("sm_")) >= 90

    @property
    def machine(self) -> str:
        """What tells this machine from others of its name and cores: a GPU's own name ("" as in `board`), a CPU's caches."""
        if self.target == "cuda":
            return self.board
        return f"{self.scratch_per_core // KIB} KiB of cache per core, {self.cache // KIB} KiB shared"


COPY_SHARE = 4.3 / 4.8  # of the published bandwidth that a large copy reaches: 4.3 of 4.8 TB/s measured on an H200
LAUNCH = 2.5e-6  # an estimate, the same for all GPUs


def _cuda(name: str, arch: str, cores: int, lanes: int, clock: float, block_kib: int, core_kib: int, threads: int,
          bandwidth: float, cache: int, cache_bandwidth: float) -> Device:
    """A GPU: boost clock in GHz, scratch of a block and of a core in KiB, published bandwidth and the L2's in GB/s, L2 in MiB.

    Per core (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"): 64 K registers, the most resident
    threads, and the most shared memory, of which a block can have all but the KiB that the driver keeps from sm_80 on.
    """
    return Device(name, "cuda", arch, cores, lanes, clock * 1e9, block_kib * KIB, core_kib * KIB, 65536, threads,
                  bandwidth * COPY_SHARE * 1e9, cache * MIB, cache_bandwidth * 1e9, LAUNCH, Layout.NCHW)


# Cores, lanes, boost clock, bandwidth and size of the L2 are NVIDIA's figures for the boards named; the bandwidth of the L2 is
# published for none of them and estimated.
DEVICES: dict[str, Device] = {d.name: d for d in (
    # H200 SXM (data sheet); the L2 is not in it: 60 MB is that of the whole GH100 (H100 whitepaper)
    _cuda("h200", "sm_90", 132, 128, 1.98, 227, 228, 2048, 4800, 60, 7000),
    _cuda("h100", "sm_90", 132, 128, 1.98, 227, 228, 2048, 3350, 50, 7000),  # H100 SXM5 80 GB (data sheet, H100 whitepaper)
    _cuda("a100", "sm_80", 108, 64, 1.41, 163, 164, 2048, 1555, 40, 5000),  # A100 SXM 40 GB (A100 whitepaper)
    _cuda("rtx4090", "sm_89", 128, 128, 2.52, 99, 100, 1536, 1008, 72, 4500),  # Ada whitepaper
    _cuda("rtx5090", "sm_120", 170, 128, 2.41, 99, 100, 1536, 1792, 96, 6000),  # RTX Blackwell whitepaper
    _cuda("rtx3090", "sm_86", 82, 128, 1.70, 99, 100, 1536, 936, 6, 2500),  # GA102 whitepaper
    _cuda("rtx2080", "sm_75", 46, 64, 1.71, 64, 64, 1024, 448, 4, 1500),  # Turing whitepaper, reference board
    _cuda("t4", "sm_75", 40, 64, 1.59, 64, 64, 1024, 320, 4, 1200),  # Turing whitepaper
    _cuda("orin", "sm_87", 16, 128, 1.30, 163, 164, 1536, 204.8, 4, 600),  # Jetson AGX Orin 64 GB (data sheet), MAXN
)}

_ARCH_DEVICE = {"sm_75": "t4", "sm_80": "a100", "sm_86": "rtx3090", "sm_87": "orin", "sm_89": "rtx4090", "sm_90": "h200",
                "sm_120": "rtx5090"}


def device_for_arch(arch: str) -> Device:
    """The device planned for when only an architecture ("sm_90") is known."""
    if arch not in _ARCH_DEVICE:
        raise InputError(f"unknown architecture '{arch}'", hint=_meant(arch) or f"one of {', '.join(_ARCH_DEVICE)}")
    return DEVICES[_ARCH_DEVICE[arch]]


def in_precision(device: Device, dtype: str) -> Device:
    """The device computing on tensors of `dtype`; half precision lies in planes of eight channels.

    Raises
    ------
    InputError
        A type unknown, or one that the device has no instructions for: says which ones it has.
    """
    if dtype not in ELEMENT_BYTES:
        raise InputError(f"dtype '{dtype}' is not supported", hint=nearest(dtype, DTYPES) or f"one of {', '.join(DTYPES)}")
    if dtype == "float32":
        return device
    if device.target != "cuda":
        raise InputError(f"the {device.target} computes in float32, not in {dtype}", hint="leave the dtype out, or use a GPU")
    generation = int(device.arch.removeprefix("sm_"))
    if generation < HALF_SINCE[dtype]:
        able = ["float32", *(name for name, since in HALF_SINCE.items() if generation >= since)]
        raise InputError(f"{device.arch} has no matrix instructions for {dtype}", hint=f"it has {' and '.join(able)}")
    return replace(device, dtype=dtype, layout=Layout.NC8HW8)


def _meant(arch: str) -> str:
    """A hint for another spelling of a known architecture, or a GPU's name. Numbers merely alike are other machines."""
    digits = "".join(c for c in arch if c.isdigit())
    by_name = DEVICES.get(arch.lower())
    found = by_name.arch if by_name else f"sm_{digits}"
    return f"did you mean '{found}'?" if found in _ARCH_DEVICE else ""


def device_for_gpu(name: str, arch: str, cores: int) -> Device:
    """The device that a GPU present is planned as, with its own name and multiprocessors.

    Rates and sizes are those of the device with its name, architecture and multiprocessors, else of its architecture's.

    Parameters
    ----------
    name
        As the driver says it: "NVIDIA H100 80GB HBM3".
    """
    words = name.lower().replace(" ", "")
    same = (d for d in DEVICES.values() if d.name in words and (d.arch, d.cores) == (arch, cores))
    return replace(next(same, None) or device_for_arch(arch), cores=cores, board=name)


def find_device(name: str) -> Device:
    """A GPU by its name or architecture ("h200", "t4", "sm_90"); it need not be here."""
    if name.lower().startswith("sm"):
        return device_for_arch(name)
    known = [*DEVICES, "cpu"]
    if name.lower() not in DEVICES:
        raise InputError(f"unknown device '{name}'", hint=nearest(name, known) or f"one of {', '.join(known)}")
    return DEVICES[name.lower()]


@cache
def host(cores: int | None = None) -> Device:
    """This machine's CPU, as far as the operating system tells.

    Parameters
    ----------
    cores
        How many of them kernels will run on; None is all that this process may be scheduled on.
    """
    flags = _cpu_flags()
    vector = 16 if "avx512f" in flags else 8 if "avx2" in flags else 4
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    level2 = cache_of_one_core(2) or 512 * KIB
    shared = cache_size(3) or 4 * level2
    fused = 2 if "fma" in flags or vector == 4 else 1
    # clock and bandwidths are common values of server CPUs, not read from the machine: only their ratios steer the planner
    return Device("cpu", "cpu", "host", cores, fused * vector, 4e9, level2, level2, 1 << 30, 1, 16e9 * cores, shared,
                  48e9 * cores, 2e-6, Layout.NHWC, vector)


def generic_host(vector: int = 8, cores: int = 2) -> Device:
    """A CPU that does not depend on this machine, for reproducible plans and golden files."""
    return replace(host(), cores=cores, vector=vector, lanes=2 * vector, scratch_per_block=MIB, scratch_per_core=MIB,
                   cache=32 * MIB, bandwidth=16e9 * cores, cache_bandwidth=48e9 * cores)


def _cpu_flags() -> frozenset[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def cache_size(level: int, folder: Path = CPU0) -> int | None:
    """Bytes of the first core's data cache of a level: from sysfs, else from the C library, else None."""
    index = _cache_index(level, folder)
    if index is not None and (size := _number(index / "size")):
        return size
    name = f"SC_LEVEL{level}_CACHE_SIZE"
    known = hasattr(os, "sysconf_names") and name in os.sysconf_names and folder == CPU0
    return (os.sysconf(name) if known else 0) or None


def cache_of_one_core(level: int, folder: Path = CPU0) -> int | None:
    """Its share of that cache where several cores have one in common; the threads of one core take turns with it."""
    size, index = cache_size(level, folder), _cache_index(level, folder)
    if size is None or index is None:
        return size
    threads = max(1, _listed(folder / "topology" / "thread_siblings_list"))
    return size // max(1, _listed(index / "shared_cpu_list") // threads)


def _cache_index(level: int, folder: Path) -> Path | None:
    """The folder of sysfs that describes the data cache of a level."""
    for index in sorted(folder.glob("cache/index*")):
        if _number(index / "level") == level and _text(index / "type") != "Instruction":
            return index
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(file: Path) -> int:
    """`2`, `1024K` or `32M`; 0 where the file says neither."""
    match = re.fullmatch(r"(\d{1,12})([KM]?)", _text(file))
    return int(match[1]) * {"": 1, "K": KIB, "M": MIB}[match[2]] if match else 0


def _listed(file: Path) -> int:
    """How many numbers a list such as `0-3,8` names; 0 where there is none."""
    parts = [part.split("-") for part in _text(file).split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in parts if all(word.isdigit() for word in part))
