"""Programs on GPUs: what a model needs of CUDA, through CuPy.

In: a `Program` with its cubins and weights; the caller's arrays. Out: arrays on the GPU, and workloads that run there.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError, MissingError
from .. import elements, interop
from ..program import Program
from ..weights import Floats
from ..workload import Workload
from . import gpu
from .loaded import Loaded
from .queue import CudaRunner


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
        self._loaded: dict[int, Loaded] = {}
        self._guard = threading.Lock()
        self._threads = threading.local()
        self.captured: list[object] = []  # what CUDA graphs point to: kept as long as the model

    @property
    def cupy(self) -> Any:
        """CuPy; a MissingError that says what to do where there is no GPU."""
        return gpu.library() if self._loaded else gpu.usable()

    def loaded(self) -> Loaded:
        """The program on the current GPU."""
        cupy = self.cupy
        device = cupy.cuda.runtime.getDevice()
        if device not in getattr(self._threads, "ready", ()):  # the driver's calls need a context, which CUDA makes per thread
            cupy.cuda.runtime.free(0)
            self._threads.ready = {*getattr(self._threads, "ready", ()), device}
        if device not in self._loaded:
            with self._guard:
                if device not in self._loaded:
                    arch = gpu.device_arch()
                    if arch not in self._cubins and arch != self.program.arch.rstrip("af"):
                        self._cubins[arch] = self._rebuild(arch)
                    cubins = self._cubins.get(arch) or self._cubins[self.program.arch]
                    self._loaded[device] = Loaded(cupy, self.program, cubins, self._weights)
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
            host = interop.host_array(value, name)
            if not elements.fits(self.program.dtype, value, host):  # said before it is copied: the device knows fewer types
                raise InputError(elements.wrong_type(self.program.dtype, value, host, name))
            with gpu.enough_memory():
                return cupy.asarray(host)
        held = elements.words_of(value)
        try:
            if isinstance(held, cupy.ndarray):
                array = held
            else:
                with gpu.enough_memory():
                    array = cupy.from_dlpack(elements.shareable(value)) if hasattr(value, "__dlpack__") else cupy.asarray(value)
        except MissingError:
            raise
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

    def dense(self, array: Any) -> Any:
        with gpu.enough_memory():
            return self.cupy.ascontiguousarray(array)

    def empty(self, shape: tuple[int, ...]) -> Any:
        with gpu.enough_memory():
            return self.cupy.empty(shape, elements.HELD[self.program.dtype])

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def give(self, array: Any, like: Any) -> Any:
        if not interop.on_cuda(like):
            with gpu.enough_memory():
                array = self.cupy.asnumpy(array)
        made = elements.as_type_of(like, array)
        back = None if isinstance(like, self.cupy.ndarray) else interop.returner(like)
        return made if back is None else back(made)

    def prepare(self, workload: Workload) -> CudaRunner:
        return CudaRunner(self, workload)
