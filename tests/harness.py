"""Runs schedules on every way of executing them, so that each can be held to the reference.

In: schedules of a chain or of a whole graph, and NCHW arrays. Out: NCHW arrays. A `Runner` is one way: the interpreter,
generated C++ built by a real compiler, generated CUDA C++ on the host emulator or on a GPU. Outputs and intermediates are NaN
before a kernel writes them, scratch is NaN before every tile, and what surrounds an array has to stay as it was.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fusec.emit.render import render
from fusec.graph.graph import Array, LayerGraph, Node
from fusec.graph.layers import Conv2d, ConvTranspose2d
from fusec.graph.reference import apply_node
from fusec.pipeline import mapping
from fusec.runtime import cpu as cpu_runtime
from fusec.runtime import elements
from fusec.runtime.program import Source
from fusec.runtime.weights import empty_aligned
from fusec.schedule.interpret import interpret, run_time_extents
from fusec.schedule.ir import Chain, Layout, Schedule, Space
from fusec.targets import cpu
from fusec.targets.base import MappedKernel
from fusec.targets.device import DEVICES, HALF_SINCE, Device, generic_host, in_precision
from tests.emulator import EmulatedKernel

Floats = NDArray[np.float32]

DRIVER = Path(__file__).parent / "targets" / "cpu_driver.cpp"
GUARD = 64  # elements on both sides of an array
GUARD_BITS = np.uint32(0x7FC0DEAD)  # a NaN of our own
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1", "-fno-omit-frame-pointer")


# ---- what a launch needs


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel at given sizes: its source and its arguments in the order a kernel takes them."""

    kernel: MappedKernel
    source: Source
    inputs: tuple[Array, ...]  # each in its buffer's layout, of the kernel's type of elements
    params: Floats
    sizes: tuple[int, ...]  # batch, tiles along y, tiles along x, then extents
    tiles: int
    shape: tuple[int, int, int, int]  # of the output, NCHW
    layout: Layout  # of the output

    @property
    def scratch_bytes(self) -> int:
        return self.kernel.device.element * self.kernel.scratch


def make_call(kernel: MappedKernel, inputs: Mapping[str, Floats]) -> Call:
    """The call of a mapped kernel on NCHW arrays."""
    schedule = kernel.schedule
    chain, tile = schedule.chain, schedule.tile
    arrays = {t: np.ascontiguousarray(inputs[t], np.float32) for t in chain.inputs}
    extents = run_time_extents(chain, arrays)
    batch = len(arrays[chain.inputs[0]])
    shape = (batch, *extents[chain.output])
    grid = [-(-e // t) for e, t in zip(shape, (tile.images, tile.channels, tile.height, tile.width), strict=True)]
    layouts = {b.tensor: b.layout for b in schedule.buffers if b.space is Space.GLOBAL}
    sizes = (batch, grid[2], grid[3], *(e for t in kernel.sizes for e in extents[t][1:]))
    given = tuple(encoded(to_layout(arrays[t], layouts[t]), kernel.device.dtype) for t in chain.inputs)
    return Call(kernel, render(kernel), given, kernel.parameters(), sizes, prod(grid), shape, layouts[chain.output])


def to_layout(nchw: Floats, layout: Layout) -> Floats:
    """In planes of eight, channels that fill up the last one are zeros."""
    if layout is Layout.NC8HW8:
        n, c, h, w = nchw.shape
        full = np.pad(nchw, ((0, 0), (0, -c % 8), (0, 0), (0, 0)))
        return np.ascontiguousarray(full.reshape(n, -1, 8, h, w).transpose(0, 1, 3, 4, 2))
    return np.ascontiguousarray(nchw.transpose(0, 2, 3, 1) if layout is Layout.NHWC else nchw)


def empty_output(call: Call) -> Array:
    """NaN, in the layout the kernel writes."""
    n, c, h, w = call.shape
    shapes = {Layout.NCHW: call.shape, Layout.NHWC: (n, h, w, c), Layout.NC8HW8: (n, -(-c // 8), h, w, 8)}
    return encoded(np.full(shapes[call.layout], np.nan, np.float32), call.kernel.device.dtype)


def from_layout(array: Array, call: Call) -> Floats:
    """NCHW in float32; places behind the last channel have to hold zeros."""
    values = decoded(array, call.kernel.device.dtype)
    if call.layout is Layout.NC8HW8:
        n, _, h, w, _ = values.shape
        full = values.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)
        assert not full[:, call.shape[1]:].any(), "channels behind the last are not zeros"
        return np.ascontiguousarray(full[:, :call.shape[1]])
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if call.layout is Layout.NHWC else values)


def encoded(values: Floats, dtype: str) -> Array:
    """Float32 values as elements of `dtype`, to the nearest: the bits of 16-bit types as unsigned integers."""
    return values if dtype == "float32" else elements.rounded(np.ascontiguousarray(values), dtype).view(np.uint16)


def decoded(array: Array, dtype: str) -> Floats:
    """Inverse of `encoded`."""
    if dtype == "float16":
        return array.view(np.float16).astype(np.float32)
    return array if dtype == "float32" else (array.astype(np.uint32) << 16).view(np.float32)


# ---- ways of running a schedule


@dataclass(frozen=True)
class Machine:
    """What a schedule is made for and mapped to: a device, and whether the grid is to leave it idle."""

    device: Device
    small_grid: bool = False

    def __str__(self) -> str:
        dtype = "" if self.device.dtype == "float32" else f", {self.device.dtype}"
        return f"{self.device.name}/{self.device.vector}{dtype}{', small grid' if self.small_grid else ''}"


class Runner(ABC):
    """One way of executing schedules. `machines` are those whose schedules it takes, the usual one first."""

    name: str
    machines: tuple[Machine, ...]

    @abstractmethod
    def run(self, schedule: Schedule, inputs: Mapping[str, Floats], machine: Machine | None = None) -> Floats:
        """The chain's output (NCHW) for NCHW arrays of its inputs; the schedule must be for the machine's device."""

    def run_graph(self, schedules: Sequence[Schedule], images: Mapping[str, Floats], machine: Machine | None = None,
                  ) -> dict[str, Floats]:
        """Every chain's output by tensor, each chain fed by the ones before it."""
        tensors = dict(images)
        for schedule in schedules:
            tensors[schedule.chain.output] = self.run(schedule, {t: tensors[t] for t in schedule.chain.inputs}, machine)
        return {s.chain.output: tensors[s.chain.output] for s in schedules}

    @property
    def device(self) -> Device:
        return self.machines[0].device

    @property
    def dtype(self) -> str:
        """Of the tensors; the same on all machines."""
        return self.device.dtype

    def fits(self, schedule: Schedule) -> bool:
        """Whether scratch is within what every machine has; a CPU's has no limit."""
        return all(m.device.target == "cpu" or schedule.scratch_bytes <= m.device.scratch_per_block
                   for m in self.machines)

    def __repr__(self) -> str:
        return self.name


class Interpreter(Runner):
    """`fusec.schedule.interpret` in float32."""

    name = "interpreter"
    machines = (Machine(DEVICES["h200"]), Machine(generic_host(8)))

    def run(self, schedule: Schedule, inputs: Mapping[str, Floats], machine: Machine | None = None) -> Floats:
        return interpret(schedule, inputs)


class Cpu(Runner):
    """Generated C++, compiled and called tile by tile.

    Parameters
    ----------
    command
        Of the compiler; the one `fusec` would use when left out.
    optimize
        Replaces the runtime's -O3: less for quick builds. All other flags are the runtime's.
    sanitize
        In a process of its own under AddressSanitizer and UBSan.
    """

    name = "cpu"
    machines = tuple(Machine(generic_host(v)) for v in (8, 4, 16))

    def __init__(self, command: str | None = None, optimize: str = "-O1", sanitize: bool = False) -> None:
        self.compiler = cpu_runtime.find_compiler(command)
        self.flags = tuple(optimize if f == "-O3" else f for f in self.compiler.flags)
        if optimize == "-O1" and cpu_runtime.GCC_FLAGS[0] in self.flags:
            self.flags += ("-fexpensive-optimizations",)  # the pass that fuses multiply-adds comes with them
        self.sanitize = sanitize

    def run(self, schedule: Schedule, inputs: Mapping[str, Floats], machine: Machine | None = None) -> Floats:
        return self.call(make_call(cpu.map_schedule(schedule, (machine or self.machines[0]).device), inputs))

    def call(self, call: Call) -> Floats:
        result = self._run_process(call) if self.sanitize else self._run_here(call)
        return from_layout(result, call)

    def _run_here(self, call: Call) -> Floats:
        flags = (*self.flags, *headers(self.compiler.command, self.flags))
        library = build(self.compiler.command, flags, call.source.text)
        kernel = getattr(load(library), call.source.entry)
        inputs, output, params = [Guarded(a) for a in call.inputs], Guarded(empty_output(call)), Guarded(call.params)
        scratch = Guarded(np.full(call.kernel.scratch, np.nan, np.float32))
        table = (ctypes.c_void_p * len(inputs))(*(i.address for i in inputs))
        sizes = (ctypes.c_int * len(call.sizes))(*call.sizes)
        run_tiles = load(build(self.compiler.command, self.flags, DRIVER.read_text())).run_tiles
        run_tiles.restype = None
        pointer, number = ctypes.c_void_p, ctypes.c_longlong
        run_tiles(ctypes.cast(kernel, pointer), table, pointer(output.address), pointer(params.address), sizes,
                  number(call.tiles), pointer(scratch.address), number(call.kernel.scratch))
        for name, array in (("output", output), ("scratch", scratch), ("parameters", params),
                            *((f"input {i}", a) for i, a in enumerate(inputs))):
            assert array.intact, f"the kernel wrote beside its {name}"
        assert params.unchanged and all(i.unchanged for i in inputs), "the kernel wrote into what it should only read"
        return output.array

    def _run_process(self, call: Call) -> Floats:
        flags = tuple(f for f in self.flags if f != "-shared")
        program = build(self.compiler.command, (*flags, *SANITIZE, f"-DENTRY={call.source.entry}", "-x", "c++", str(DRIVER)),
                        call.source.text)
        output = empty_output(call)
        with tempfile.TemporaryDirectory() as folder:
            request, result = Path(folder, "request"), Path(folder, "result")
            with request.open("wb") as file:
                file.write(np.int64(len(call.inputs)).tobytes())
                for array in (*call.inputs, output, call.params, np.array(call.sizes, np.int32)):
                    file.write(np.int64(array.size).tobytes() + array.tobytes())
                file.write(np.array([call.tiles, call.kernel.scratch], np.int64).tobytes())
            done = subprocess.run([str(program), str(request), str(result)], capture_output=True, text=True, check=False,
                                  env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"})
            assert done.returncode == 0, f"{done.stderr[:4000]}\n{call.source.entry}: exit code {done.returncode}"
            return np.fromfile(result, np.float32).reshape(output.shape)


def cuda_machines(dtype: str) -> tuple[Machine, ...]:
    """A large GPU, the same with few blocks, and one of the oldest architecture where that has the type."""
    usual = in_precision(DEVICES["h200"], dtype)
    oldest = DEVICES["t4"]
    able = int(oldest.arch.removeprefix("sm_")) >= HALF_SINCE.get(dtype, 0)
    return (Machine(usual), Machine(usual, small_grid=True), *((Machine(in_precision(oldest, dtype)),) if able else ()))


class Cuda(Runner):
    """What emulated and real CUDA share: the mapping, and the order of a kernel's arguments.

    Parameters
    ----------
    dtype
        Of the tensors. An architecture without it is no machine here.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.machines = cuda_machines(dtype)
        self.name = self.kind if dtype == "float32" else f"{self.kind} in {dtype}"

    kind: str

    def run(self, schedule: Schedule, inputs: Mapping[str, Floats], machine: Machine | None = None) -> Floats:
        chosen = machine or self.machines[0]
        tiles = 1 if chosen.small_grid else None
        return self.call(make_call(mapping(chosen.device)(schedule, chosen.device, tiles=tiles), inputs))

    @abstractmethod
    def call(self, call: Call) -> Floats: ...


class EmulatedCuda(Cuda):
    """The printed CUDA text, compiled for the host.

    Parameters
    ----------
    order
        Who runs first between two barriers; "all" runs several orders, which must leave the same bits.
    sanitize
        Under AddressSanitizer and UBSan.
    """

    kind = "emulated cuda"

    def __init__(self, order: str = "forward", sanitize: bool = False, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self.order, self.sanitize = order, sanitize

    def call(self, call: Call) -> Floats:
        kernel = emulated(call.source.text, call.source.entry, self.sanitize)
        output = empty_output(call)
        arguments = [*call.inputs, output, call.params, *call.sizes]
        grid, block, scratch = (call.tiles, 1, 1), (call.kernel.threads, 1, 1), call.scratch_bytes
        if self.order == "all":
            kernel.check_races(grid, block, arguments, scratch)
        else:
            kernel.launch(grid, block, arguments, scratch, self.order)
        return from_layout(output, call)


class Gpu(Cuda):
    """The printed CUDA text, compiled by NVRTC and run on this machine's GPU."""

    kind = "cuda"

    def call(self, call: Call) -> Floats:
        import cupy

        function = loaded(call.source.text, call.source.entry)
        if call.scratch_bytes > 48 * 1024:
            function.max_dynamic_shared_size_bytes = call.scratch_bytes
        empty = empty_output(call)
        guard = np.resize(GUARD_BITS.reshape(1).view(empty.dtype), GUARD)
        room = cupy.asarray(np.concatenate([guard, empty.ravel(), guard]))
        output = room[GUARD:GUARD + empty.size]
        tensors = [cupy.asarray(i) for i in call.inputs]
        function((call.tiles,), (call.kernel.threads,),
                 (*tensors, output, cupy.asarray(call.params), *(np.int32(s) for s in call.sizes)),
                 shared_mem=call.scratch_bytes)
        host = cupy.asnumpy(room)
        around = (host[:GUARD], host[host.size - GUARD:])
        assert all(a.tobytes() == guard.tobytes() for a in around), "the kernel wrote beside its output"
        return from_layout(host[GUARD:host.size - GUARD].reshape(empty.shape), call)


# ---- memory with guards, builds that are kept


class Guarded:
    """A copy of an array between two guard zones, aligned to 64 bytes."""

    def __init__(self, array: Floats) -> None:
        self._room = empty_aligned(array.size + 2 * GUARD)
        self._room.view(np.uint32)[...] = GUARD_BITS
        self._before = array.tobytes()
        self.array = self._room[GUARD:GUARD + array.size].reshape(array.shape)
        self.array[...] = array
        self.address = self.array.ctypes.data if array.size else self._room.ctypes.data + 4 * GUARD

    @property
    def intact(self) -> bool:
        bits = self._room.view(np.uint32)
        return bool((bits[:GUARD] == GUARD_BITS).all() and (bits[bits.size - GUARD:] == GUARD_BITS).all())

    @property
    def unchanged(self) -> bool:
        return self.array.tobytes() == self._before


@cache
def folder() -> Path:
    """Where this process keeps what it builds."""
    made = tempfile.mkdtemp(prefix="fusec-tests-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


@cache
def build(command: tuple[str, ...], flags: tuple[str, ...], text: str) -> Path:
    """A library (or, by its flags, a program) of one C++ text."""
    name = hashlib.sha256(repr((command, flags, text)).encode()).hexdigest()[:20]
    source, made = folder() / f"{name}.cpp", folder() / f"{name}.bin"
    source.write_text(text)
    done = subprocess.run([*command, *flags, "-o", str(made), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return made


@cache
def headers(command: tuple[str, ...], flags: tuple[str, ...]) -> tuple[str, ...]:
    """Flags that let the standard headers of all C++ kernels be read once, compiled: they took a quarter of a build."""
    header = folder() / f"{hashlib.sha256(repr((command, flags)).encode()).hexdigest()[:20]}.hpp"
    header.write_text("#include <cmath>\n#include <cstdint>\n")
    alone = [f for f in flags if f != "-shared"]
    subprocess.run([*command, *alone, "-x", "c++-header", "-o", f"{header}.gch", str(header)], check=True, capture_output=True)
    return ("-include", str(header))


@cache
def load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


@cache
def emulated(text: str, entry: str, sanitize: bool) -> EmulatedKernel:
    return EmulatedKernel(text, entry, sanitize=sanitize, flags=() if sanitize else ("-O1",))


@cache
def loaded(text: str, entry: str) -> Any:
    import cupy

    from fusec.runtime.cuda.gpu import device_arch
    from fusec.runtime.cuda.nvrtc import compile_cubin

    path = folder() / f"{entry}.cubin"
    path.write_bytes(compile_cubin(Source(entry, text, "cuda"), device_arch())[0])
    return cupy.RawModule(path=str(path)).get_function(entry)


# ---- what a result is held to


def rounded(values: Array, dtype: str) -> Array:
    """Values as tensors of `dtype` hold them."""
    return values if dtype == "float32" else decoded(encoded(values.astype(np.float32), dtype), dtype).astype(values.dtype)


def tensors_of(nodes: Iterable[Node], inputs: Mapping[str, Array], dtype: str = "float32", precision: DTypeLike = np.float64,
               ) -> dict[str, Array]:
    """Every tensor by the reference, computed in `precision`, each of them and the weights of convolutions rounded to `dtype`.

    Where all sums are exact, as those of integers are, this is what kernels have to give: inside and between kernels each layer
    rounds once.
    """
    tensors: dict[str, Array] = {t: rounded(a.astype(precision), dtype) for t, a in inputs.items()}
    for node in nodes:
        given = [tensors[i] for i in node.inputs]
        tensors[node.name] = rounded(apply_node(_with_rounded_weights(node, dtype), given), dtype)
    return tensors


def _with_rounded_weights(node: Node, dtype: str) -> Node:
    if not isinstance(node.layer, Conv2d | ConvTranspose2d):
        return node
    return replace(node, params={**node.params, "weight": rounded(node.params["weight"], dtype)})


def graph_reference(graph: LayerGraph, images: Mapping[str, Floats], dtype: str = "float32") -> dict[str, Array]:
    """Every tensor of a network."""
    return tensors_of(graph.layers, images, dtype)


def chain_reference(chain: Chain, inputs: Mapping[str, Floats], dtype: str = "float32", precision: DTypeLike = np.float64,
                    ) -> dict[str, Array]:
    """Every tensor of the chain, from arrays of its inputs."""
    return tensors_of(chain.nodes, {t: inputs[t] for t in chain.inputs}, dtype, precision)


def assert_close(result: Floats, chain: Chain, inputs: Mapping[str, Floats], dtype: str = "float32") -> None:
    """Near the reference in float64, by what computing and rounding in the type makes of the reference itself."""
    given = {t: rounded(inputs[t], dtype) for t in chain.inputs}
    wanted = chain_reference(chain, given)
    largest = max(np.abs(v).max(initial=0) for v in wanted.values())
    exact = wanted[chain.output]
    if dtype == "float32":
        noise = np.abs(chain_reference(chain, given, precision=np.float32)[chain.output] - exact).max(initial=0)
        np.testing.assert_allclose(result, exact, rtol=1e-4, atol=16 * noise + 1e-6 * largest)
        return
    # sums that differ in float32's last bit may end on either side of a tie: a unit of the type's last place, then its effects
    near = chain_reference(chain, given, dtype)[chain.output]
    noise, unit = np.nan_to_num(np.abs(near - exact), nan=0, posinf=0).max(initial=0), HALF_UNIT[dtype]  # of what stays finite
    np.testing.assert_allclose(result, near, rtol=unit, atol=noise + unit * 1e-3 * largest)


HALF_UNIT = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # from one value to the next, relative


def assert_same_bits(one: Floats, other: Floats, words: str = "") -> None:
    differing = np.argwhere(one.view(np.uint32) != other.view(np.uint32))
    if len(differing):
        where = tuple(int(i) for i in differing[0])
        raise AssertionError(f"{len(differing)} of {one.size} values differ, first at {where}: {one[where]!r} and "
                             f"{other[where]!r}\n{words}")
