"""The GPUs of this machine through CuPy: whether there are any, what they are, arrays and clocks on them.

In: nothing but the machine. Out: CuPy itself, or a MissingError that names the way out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import MissingError
from ..weights import Floats
from . import nvrtc


def library() -> Any:
    """CuPy; MissingError where it is not installed."""
    try:
        import cupy
    except ImportError as error:
        raise MissingError(f"CuPy is not installed ({error}): {nvrtc.WAYS_OUT}") from None
    return cupy


def usable() -> Any:
    """CuPy, once it is certain that there is a GPU."""
    cupy = library()
    try:
        if cupy.cuda.runtime.getDeviceCount():
            return cupy
        reason = "the driver shows none"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        reason = str(error)
    raise MissingError(f"no NVIDIA GPU can be used ({reason}): install NVIDIA's driver, or compile for target 'cpu'")


def available() -> bool:
    """Whether there is a GPU that CuPy can use."""
    try:
        usable()
    except MissingError:
        return False
    return True


def device_arch() -> str:
    """The architecture of the current GPU, e.g. `sm_90`; MissingError when there is none."""
    return f"sm_{usable().cuda.Device().compute_capability}"


def identity() -> tuple[str, str, int]:
    """Name, architecture and multiprocessors of the current GPU; MissingError when there is none."""
    device = usable().cuda.Device()
    properties = library().cuda.runtime.getDeviceProperties(device.id)
    return properties["name"].decode(), f"sm_{device.compute_capability}", int(properties["multiProcessorCount"])


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Running out of memory inside, the GPU's or the host's, is a MissingError."""
    try:
        yield
    except library().cuda.memory.OutOfMemoryError as error:
        raise MissingError(f"not enough GPU memory: {error}") from None
    except MemoryError as error:
        raise MissingError(f"not enough memory: {error}") from None


@dataclass(frozen=True)
class Inventory:
    """What of CUDA is here: versions, "" for what is missing, the GPUs in words, and why something cannot be used."""

    cupy: str
    nvrtc: str
    driver: str
    gpus: tuple[str, ...]
    obstacles: tuple[str, ...]


def inventory() -> Inventory:
    """Look for NVRTC, CuPy and GPUs; never fails."""
    compiler, cupy, driver, obstacles = "", "", "", []
    gpus: tuple[str, ...] = ()
    try:
        compiler = ".".join(map(str, nvrtc.library().getVersion()))
    except MissingError as error:
        obstacles.append(str(error))
    try:
        cupy = str(library().__version__)
        runtime = usable().cuda.runtime
        version = runtime.driverGetVersion()
        driver = f"{version // 1000}.{version % 1000 // 10}"
        gpus = tuple(_gpu(runtime.getDeviceProperties(i)) for i in range(runtime.getDeviceCount()))
    except MissingError as error:
        obstacles.append(str(error))
    return Inventory(cupy, compiler, driver, gpus, tuple(dict.fromkeys(obstacles)))


def _gpu(properties: Mapping[str, Any]) -> str:
    return (f"{properties['name'].decode()}, sm_{properties['major']}{properties['minor']}, "
            f"{properties['multiProcessorCount']} multiprocessors, {properties['totalGlobalMem'] / 2**30:.0f} GiB")


def to_device(array: Floats) -> Any:
    """A copy of a NumPy array on the current GPU; MissingError when there is none."""
    cupy = usable()
    with enough_memory():
        return cupy.asarray(array)


def timed(call: Callable[[], object], times: int) -> float:
    """Seconds from the first to the last of `times` calls on the GPU's current stream, by the GPU's own events."""
    cuda = usable().cuda
    start, end = cuda.Event(), cuda.Event()
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(start, end)) / 1000
