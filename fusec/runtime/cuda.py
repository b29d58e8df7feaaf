"""CUDA kernels: from generated source to a cubin (NVRTC), and running cubins on the GPU through CuPy.

In: a `Source` in CUDA C++, then workloads. Out: cubins and what they use of the machine; filled device arrays. The only module
that imports CuPy, and only when something is compiled or run: NVRTC needs neither a GPU nor a driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, InternalError, MissingError
from . import interop
from .program import Program, Source
from .weights import Floats
from .workload import Step, Workload

OPTIONS = ("-std=c++17", "--ptxas-options=-v")
WAYS_OUT = "pip install 'fusec[cuda13]' (or 'fusec[cuda12]' for a CUDA 12 driver), or choose target 'cpu'"
SHOWN_LINES = 12  # of the compiler's complaints
ALIGNMENT = 64  # elements, of each launch's weights on the device


@dataclass(frozen=True)
class ResourceUsage:
    """What ptxas says of a kernel: registers per thread, bytes per thread on the stack and spilled, static scratch bytes."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    scratch: int
    log: str


def _nvrtc() -> Any:
    try:
        from cupy_backends.cuda.libs import nvrtc
        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingError(f"NVRTC, the CUDA compiler, is not installed ({error}): {WAYS_OUT}") from None
    return nvrtc


def identity() -> str:
    """Text that changes when the compiler, or the way it is called, does; MissingError without NVRTC."""
    return f"nvrtc {'.'.join(map(str, _nvrtc().getVersion()))} {' '.join(OPTIONS)}"


def compile_cubin(source: Source, arch: str, include: Sequence[str] = ()) -> tuple[bytes, ResourceUsage]:
    """Compile one source for an architecture such as `sm_90`; needs no GPU.

    InputError when this NVRTC does not know the architecture, InternalError with the file and line when it rejects the source,
    MissingError when it is not installed.
    """
    nvrtc = _nvrtc()
    match = re.fullmatch(r"sm_(\d{2,3})[af]?", arch)
    known = tuple(nvrtc.getSupportedArchs())
    if match is None or int(match[1]) not in known:
        raise InputError(f"the architecture {arch!r} is unknown to NVRTC {'.'.join(map(str, nvrtc.getVersion()))}",
                         hint=f"one of {', '.join(f'sm_{a}' for a in known)}")
    program = nvrtc.createProgram(source.text, source.filename, (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={arch}", *OPTIONS, *(f"-I{folder}" for folder in include)))
        return nvrtc.getCUBIN(program), _usage(nvrtc.getProgramLog(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise _rejected(source, arch, log or str(error)) from None
    finally:
        nvrtc.destroyProgram(program)


def _usage(log: str) -> ResourceUsage:
    def number(pattern: str) -> int:
        found = re.search(pattern, log)
        return int(found[1]) if found else 0
    return ResourceUsage(registers=number(r"Used (\d+) registers"), stack=number(r"(\d+) bytes stack frame"),
                         spill_stores=number(r"(\d+) bytes spill stores"), spill_loads=number(r"(\d+) bytes spill loads"),
                         scratch=number(r"(\d+) bytes smem"), log=log)


def _rejected(source: Source, arch: str, log: str) -> InternalError:
    lines = log.strip().splitlines()
    first = next((i for i, line in enumerate(lines) if "error" in line), 0)
    shown = "\n  ".join(lines[first:first + SHOWN_LINES])
    place = re.search(rf"{re.escape(source.filename)}\((\d+)\)", log)
    text = source.text.splitlines()
    number = int(place[1]) if place else 0
    context = f"\n  line {number}: {text[number - 1].strip()}" if 0 < number <= len(text) else ""
    return InternalError(f"NVRTC rejects the generated {source.filename} for {arch}:\n  {shown}{context}")


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise MissingError(f"CuPy is not installed ({error}): {WAYS_OUT}") from None
    return cupy


def _device_or_error() -> Any:
    """CuPy, once it is certain that there is a GPU."""
    cupy = _cupy()
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
        _device_or_error()
    except MissingError:
        return False
    return True


def device_arch() -> str:
    """The architecture of the current GPU, e.g. `sm_90`; MissingError when there is none."""
    return f"sm_{_device_or_error().cuda.Device().compute_capability}"


class _Loaded:
    """The kernels and weights of a program on one GPU."""

    def __init__(self, cupy: Any, program: Program, cubins: Mapping[str, Path], weights: Mapping[str, Floats]) -> None:
        from cupy_backends.cuda.api import driver
        self._modules = []
        self.kernels: dict[str, int] = {}
        for variant in {v.entry: v for launch in program.launches for v in launch.variants}.values():
            module = cupy.cuda.function.Module()
            module.load(cubins[variant.entry].read_bytes())
            kernel = module.get_function(variant.entry).ptr
            driver.funcSetAttribute(kernel, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 4 * variant.scratch)
            self._modules.append(module)
            self.kernels[variant.entry] = kernel
        starts, total = {}, 0
        for key, array in weights.items():
            starts[key] = total
            total += -(-array.size // ALIGNMENT) * ALIGNMENT
        packed = np.zeros(max(total, 1), np.float32)
        for key, array in weights.items():
            packed[starts[key]:starts[key] + array.size] = array
        self._weights = cupy.asarray(packed)
        self.params = {"": 0, **{key: self._weights.data.ptr + 4 * start for key, start in starts.items()}}


class CudaEngine:
    """A program on the GPUs of this machine: loaded onto each when it is first used there.

    Parameters
    ----------
    cubins
        Path of every entry's cubin, built for `program.arch`.
    rebuild
        Builds the cubins for another architecture.
    """

    def __init__(self, program: Program, cubins: Mapping[str, Path], weights: Mapping[str, Floats],
                 rebuild: Callable[[str], Mapping[str, Path]]) -> None:
        self.program = program
        self._cubins = {program.arch: cubins}
        self._weights = weights
        self._rebuild = rebuild
        self._loaded: dict[int, _Loaded] = {}
        self._guard = threading.Lock()
        self._threads = threading.local()
        self.captured: list[object] = []  # what CUDA graphs point to: kept as long as the model

    @property
    def cupy(self) -> Any:
        """CuPy; a MissingError that says what to do where there is no GPU."""
        return _cupy() if self._loaded else _device_or_error()

    def loaded(self) -> _Loaded:
        """The program on the current GPU."""
        cupy = self.cupy
        device = cupy.cuda.runtime.getDevice()
        if device not in getattr(self._threads, "ready", ()):  # the driver's calls need a context, which CUDA makes per thread
            cupy.cuda.runtime.free(0)
            self._threads.ready = {*getattr(self._threads, "ready", ()), device}
        if device not in self._loaded:
            with self._guard:
                if device not in self._loaded:
                    arch = device_arch()
                    if arch not in self._cubins and arch != self.program.arch.rstrip("af"):
                        self._cubins[arch] = self._rebuild(arch)
                    cubins = self._cubins.get(arch) or self._cubins[self.program.arch]
                    self._loaded[device] = _Loaded(cupy, self.program, cubins, self._weights)
        return self._loaded[device]

    def scope(self, values: Sequence[Any]) -> contextlib.AbstractContextManager[object]:
        """The GPU of the first input, and torch's stream for torch's tensors; else CuPy's current ones."""
        cupy, value = self.cupy, values[0]
        if not interop.on_cuda(value):
            return contextlib.nullcontext()
        if isinstance(value, cupy.ndarray):
            device = value.device.id
            stream = None
        else:
            device = int(value.__dlpack_device__()[1]) if hasattr(value, "__dlpack_device__") else cupy.asarray(value).device.id
            torch = sys.modules.get("torch")
            is_tensor = torch is not None and isinstance(value, torch.Tensor)
            stream = torch.cuda.current_stream(device).cuda_stream if torch is not None and is_tensor else None
        if stream is None and device == cupy.cuda.runtime.getDevice():
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        stack.enter_context(cupy.cuda.Device(device))
        if stream is not None:
            stack.enter_context(cupy.cuda.ExternalStream(stream, device))
        return stack

    def accept(self, value: Any, name: str) -> Any:
        cupy = self.cupy
        if not interop.on_cuda(value):
            return cupy.asarray(self._numbers(interop.host_array(value, name), name))
        try:
            if isinstance(value, cupy.ndarray):
                array = value
            else:
                array = cupy.from_dlpack(value) if hasattr(value, "__dlpack__") else cupy.asarray(value)
        except Exception as error:  # any library's own complaint, said in its words
            raise interop.exchange_failed(name, error) from None
        if array.device.id != cupy.cuda.runtime.getDevice():
            raise InputError(f"'{name}' is on GPU {array.device.id}, the first input on GPU {cupy.cuda.runtime.getDevice()}")
        return array

    def accept_out(self, value: Any, name: str) -> Any:
        if not interop.on_cuda(value):
            raise InputError(f"'{name}' is not in GPU memory, where this model computes",
                             hint="pass an array of the GPU, or no out")
        return self.accept(value, name)

    def _numbers(self, array: Any, name: str) -> Any:
        if array.dtype != self.program.dtype:  # said before it is copied to the device, which knows fewer types
            raise InputError(f"'{name}' is {array.dtype}, but the model computes in {self.program.dtype}",
                             hint=f"pass .astype('{self.program.dtype}') of it, scaled as in training")
        return array

    def dense(self, array: Any) -> Any:
        return self.cupy.ascontiguousarray(array)

    def empty(self, shape: tuple[int, ...]) -> Any:
        try:
            return self.cupy.empty(shape, np.float32)
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            raise MissingError(f"not enough GPU memory: {error}") from None

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def give(self, array: Any, like: Any) -> Any:
        if not interop.on_cuda(like):
            array = self.cupy.asnumpy(array)
        elif isinstance(like, self.cupy.ndarray):
            return array
        back = interop.returner(like)
        return array if back is None else back(array)

    def prepare(self, workload: Workload) -> CudaRunner:
        return CudaRunner(self, workload)


class CudaRunner:
    """A workload with its launches ready, for every GPU and stream it is used on."""

    def __init__(self, engine: CudaEngine, workload: Workload) -> None:
        self.workload = workload
        self._engine = engine
        self._queues: dict[tuple[int, int], _Queue] = {}
        self._guard = threading.Lock()

    def __call__(self, arrays: Mapping[str, Any]) -> None:
        cupy = self._engine.cupy
        stream = cupy.cuda.get_current_stream().ptr
        key = (cupy.cuda.runtime.getDevice(), stream)
        loaded = self._engine.loaded()
        with self._guard:  # held until the launches are queued: the words are filled in anew by each call
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = _Queue(self._engine, loaded, self.workload)
            if stream and not queue.captured and cupy.cuda.runtime.streamIsCapturing(stream):
                queue.captured = True
                self._engine.captured.append(queue)
            queue.launch(stream, {name: array.data.ptr for name, array in arrays.items()})


class _Queue:
    """The launches of a workload on one stream: one arena for its intermediates, one block of kernel arguments."""

    def __init__(self, engine: CudaEngine, loaded: _Loaded, workload: Workload) -> None:
        self._arena = engine.empty((max(workload.arena, 1),))
        from cupy_backends.cuda.api import driver
        self._launch = driver.launchKernel
        self.captured = False
        self._places: dict[str, list[tuple[Any, int]]] = {}
        self._kept: list[object] = []
        self._launches = [(loaded.kernels[step.variant.entry], step.tiles, step.variant.threads, 4 * step.variant.scratch,
                           self._arguments(step, loaded.params[step.launch.params])) for step in workload.steps]
        for name, offset in workload.offsets.items():
            self._point(name, self._arena.data.ptr + 4 * offset)

    def _arguments(self, step: Step, params: int) -> int:
        """Address of the array of the arguments' addresses, which is what a launch takes."""
        tensors = (*step.launch.inputs, step.launch.output)
        words = (ctypes.c_uint64 * (len(tensors) + 1))()
        words[len(tensors)] = params
        sizes = (ctypes.c_int32 * len(step.sizes))(*step.sizes)
        where = [ctypes.addressof(words) + 8 * i for i in range(len(words))]
        where += [ctypes.addressof(sizes) + 4 * i for i in range(len(sizes))]
        table = (ctypes.c_uint64 * len(where))(*where)
        for index, name in enumerate(tensors):
            self._places.setdefault(name, []).append((words, index))
        self._kept += (words, sizes, table)
        return ctypes.addressof(table)

    def _point(self, name: str, address: int) -> None:
        for words, index in self._places.get(name, ()):
            words[index] = address

    def launch(self, stream: int, addresses: Mapping[str, int]) -> None:
        for name, address in addresses.items():
            self._point(name, address)
        for kernel, tiles, threads, scratch, arguments in self._launches:
            self._launch(kernel, tiles, 1, 1, threads, 1, 1, scratch, stream, arguments, 0)


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
    nvrtc, cupy, driver, obstacles = "", "", "", []
    gpus: tuple[str, ...] = ()
    try:
        nvrtc = ".".join(map(str, _nvrtc().getVersion()))
    except MissingError as error:
        obstacles.append(str(error))
    try:
        cupy = str(_cupy().__version__)
        runtime = _device_or_error().cuda.runtime
        version = runtime.driverGetVersion()
        driver = f"{version // 1000}.{version % 1000 // 10}"
        gpus = tuple(_gpu(runtime.getDeviceProperties(i)) for i in range(runtime.getDeviceCount()))
    except MissingError as error:
        obstacles.append(str(error))
    return Inventory(cupy, nvrtc, driver, gpus, tuple(dict.fromkeys(obstacles)))


def _gpu(properties: Mapping[str, Any]) -> str:
    return (f"{properties['name'].decode()}, sm_{properties['major']}{properties['minor']}, "
            f"{properties['multiProcessorCount']} multiprocessors, {properties['totalGlobalMem'] / 2**30:.0f} GiB")


def to_device(array: Floats) -> Any:
    """A copy of a NumPy array on the current GPU; MissingError when there is none."""
    return _device_or_error().asarray(array)


def timed(call: Callable[[], object], times: int) -> float:
    """Seconds from the first to the last of `times` calls on the GPU's current stream, by the GPU's own events."""
    cuda = _device_or_error().cuda
    start, end = cuda.Event(), cuda.Event()
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(start, end)) / 1000
