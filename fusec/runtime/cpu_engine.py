"""Running CPU kernels: the shared libraries of a program, called through the thread pool's one foreign function.

In: the paths of built libraries, packed weights, workloads. Out: filled output arrays. A whole call is one block of 64-bit
words, made once per size of image; each call fills in the addresses of its own arrays.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import InternalError, MissingError
from . import interop
from .program import POOL, Program
from .weights import Floats, aligned, empty_aligned
from .workload import Workload

RUN = "fusec_pool_run"
WORDS = 7  # of a launch: entry, inputs, output, params, sizes, tiles, scratch
OUTPUT = 2  # word of a launch
QUOTAS = (("/sys/fs/cgroup/cpu.max",), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"))

T = TypeVar("T")


def usable_threads() -> int:
    """Processors this process may use: its affinity mask, and the quota of its control group, where there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in QUOTAS:
        try:
            quota, period = (int(word) for file in files for word in Path(file).read_text("ascii").split())
        except (OSError, ValueError):  # no such file, or "max": no quota
            continue
        if quota > 0 and period > 0:
            count = min(count, max(1, round(quota / period)))
    return count


class CpuEngine:
    """The loaded kernels of a program on the CPU.

    Parameters
    ----------
    libraries
        Path of the shared library of every entry, the thread pool's among them.
    threads
        None is all that the process may use.
    """

    def __init__(self, program: Program, libraries: Mapping[str, Path], weights: Mapping[str, Floats],
                 threads: int | None = None) -> None:
        self.program = program
        self.threads = threads or usable_threads()
        self._libraries = {entry: _load(path) for entry, path in libraries.items()}
        self.pool = _function(self._libraries, POOL, RUN)
        self.pool.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
        entries = {variant.entry for launch in program.launches for variant in launch.variants}
        self.entries = {e: ctypes.cast(_function(self._libraries, e, e), ctypes.c_void_p).value or 0 for e in entries}
        self._weights = {key: aligned(array) for key, array in weights.items()}
        self.params = {"": 0, **{key: array.ctypes.data for key, array in self._weights.items()}}
        self.arenas: deque[Floats] = deque()  # free ones; a call takes one and puts it back, so that two never share

    def scope(self, values: Sequence[Any]) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def accept(self, value: Any, name: str) -> Any:
        return interop.host_array(value, name)

    def accept_out(self, value: Any, name: str) -> Any:
        return interop.writable_array(value, name)

    def dense(self, array: Any) -> Any:
        if array.flags.c_contiguous and array.flags.aligned:
            return array
        try:
            return np.array(array, dtype=np.float32, order="C", copy=True)
        except MemoryError as error:
            raise MissingError(f"not enough memory for a dense copy of an input: {error}") from None

    def empty(self, shape: tuple[int, ...]) -> Any:
        try:
            return np.empty(shape, np.float32)
        except MemoryError as error:
            raise MissingError(f"not enough memory for this batch: {error}") from None

    def pointer(self, array: Any) -> int:
        return int(array.__array_interface__["data"][0])

    def give(self, array: Any, like: Any) -> Any:
        back = interop.returner(like)
        return array if back is None else back(array)

    def prepare(self, workload: Workload) -> CpuRunner:
        return CpuRunner(self, workload)

    def take_arena(self, elements: int) -> Floats:
        """A free arena of at least `elements`; to be put back into `arenas`. MissingError when there is no memory."""
        arena = _popped(self.arenas)
        if arena is None or arena.size < elements:
            try:
                arena = empty_aligned(elements)
            except MemoryError as error:
                raise MissingError(f"not enough memory for intermediate tensors: {error}") from None
        return arena


class CpuRunner:
    """A workload as blocks of words, one block for every call under way at once."""

    def __init__(self, engine: CpuEngine, workload: Workload) -> None:
        self.workload = workload
        self._engine = engine
        self._blocks: deque[_Block] = deque()

    def __call__(self, arrays: Mapping[str, Any]) -> None:
        engine, workload = self._engine, self.workload
        block = _popped(self._blocks) or _Block(engine, workload)
        arena = engine.take_arena(workload.arena)
        try:
            block.move(arena.ctypes.data, workload.offsets)
            for name, array in arrays.items():
                block.point(name, engine.pointer(array))
            status = engine.pool(block.address, len(workload.steps), engine.threads)
        finally:
            engine.arenas.append(arena)
            self._blocks.append(block)
        if status == 1:
            raise MissingError("not enough memory for the scratch of the kernels")
        if status:
            raise MissingError("the thread pool cannot be started: the system gives no lock or thread")


class _Block:
    """The launches of a call, as the pool reads them, and where in it each tensor's address stands."""

    def __init__(self, engine: CpuEngine, workload: Workload) -> None:
        steps = workload.steps
        tables = sum(len(step.launch.inputs) for step in steps)
        self._words = (ctypes.c_uint64 * (WORDS * len(steps) + tables))()
        self._sizes = (ctypes.c_int32 * sum(len(step.sizes) for step in steps))()
        self._places: dict[str, list[int]] = {}
        self._base: int | None = None
        self.address = ctypes.addressof(self._words)
        table, size = WORDS * len(steps), 0
        for index, step in enumerate(steps):
            word = WORDS * index
            self._words[word:word + WORDS] = [
                engine.entries[step.variant.entry], self.address + 8 * table, 0, engine.params[step.launch.params],
                ctypes.addressof(self._sizes) + 4 * size, step.tiles, step.variant.scratch]
            self._places.setdefault(step.launch.output, []).append(word + OUTPUT)
            for name in step.launch.inputs:
                self._places.setdefault(name, []).append(table)
                table += 1
            self._sizes[size:size + len(step.sizes)] = list(step.sizes)
            size += len(step.sizes)

    def point(self, name: str, address: int) -> None:
        """Let all uses of a tensor point to `address`."""
        for place in self._places.get(name, ()):
            self._words[place] = address

    def move(self, base: int, offsets: Mapping[str, int]) -> None:
        """Put the intermediates into the arena at `base`."""
        if base != self._base:
            for name, offset in offsets.items():
                self.point(name, base + 4 * offset)
            self._base = base


def _popped(free: deque[T]) -> T | None:
    """One of `free`, or None; in one step, since other threads take from it too."""
    try:
        return free.pop()
    except IndexError:
        return None


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise MissingError(f"the compiled kernel {path} cannot be loaded: {error}; compile the network again on this machine"
                           ) from None


def _function(libraries: Mapping[str, ctypes.CDLL], entry: str, symbol: str) -> Any:
    try:
        return getattr(libraries[entry], symbol)
    except (KeyError, AttributeError):
        raise InternalError(f"no library exports {symbol}: the source lacks it, or its visibility is hidden") from None
