"""The launches of one workload, ready to be queued on the streams of GPUs.

In: a `Workload`, kernels loaded on a GPU, arrays of one call. Out: launches on the current stream, in order. Each stream has
its own intermediates, since calls on different streams overlap; so has each captured call, since its graph may run at any time.
"""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

from ..program import Program
from ..workload import Step, Workload
from .loaded import Loaded

REMEMBERED = 8  # streams for which a workload keeps its intermediates


class Owner(Protocol):
    """What a queue needs of the engine."""

    program: Program
    captured: list[object]

    @property
    def cupy(self) -> Any: ...

    def loaded(self) -> Loaded: ...

    def empty(self, shape: tuple[int, ...]) -> Any: ...


class CudaRunner:
    """A workload with its launches ready, for the GPUs and streams it was used on last."""

    def __init__(self, engine: Owner, workload: Workload) -> None:
        self.workload = workload
        self._engine = engine
        self._queues: OrderedDict[tuple[int, int], _Queue] = OrderedDict()  # the one used last is at the end
        self._guard = threading.Lock()

    def __call__(self, arrays: Mapping[str, Any]) -> None:
        cupy = self._engine.cupy
        stream = cupy.cuda.get_current_stream().ptr
        key = (cupy.cuda.runtime.getDevice(), stream)
        loaded = self._engine.loaded()
        with self._guard:  # held until the launches are queued: the words are filled in anew by each call
            queue = self._queues.pop(key, None) or _Queue(self._engine, loaded, self.workload)
            if stream and cupy.cuda.runtime.streamIsCapturing(stream):
                self._engine.captured.append(queue)  # the graph's own from now on
            else:
                self._queues[key] = queue
                if len(self._queues) > REMEMBERED:  # CuPy hands its memory on in the order of its stream
                    self._queues.popitem(last=False)
            queue.launch(stream, {name: array.data.ptr for name, array in arrays.items()})


class _Queue:
    """The launches of a workload on one stream: one arena for its intermediates, one block of kernel arguments."""

    def __init__(self, engine: Owner, loaded: Loaded, workload: Workload) -> None:
        self._arena = engine.empty((max(workload.arena, 1),))
        from cupy_backends.cuda.api import driver
        self._launch = driver.launchKernel
        self._places: dict[str, list[tuple[Any, int]]] = {}
        self._kept: list[object] = []
        element = engine.program.element
        self._launches = [(loaded.kernels[step.variant.entry], step.tiles, step.variant.threads, element * step.variant.scratch,
                           self._arguments(step, loaded.params[step.launch.params])) for step in workload.steps]
        for name, offset in workload.offsets.items():
            self._point(name, self._arena.data.ptr + element * offset)

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
