"""The CUDA engine without a GPU: a stand-in for CuPy works on NumPy arrays, and its launches run the kernels built for the CPU.

What is tested is ours: which launches are made, in which order, on which stream, with which arguments and memory. What CUDA
makes of them is tested in tests/gpu.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fusec.errors import InputError, MissingError
from fusec.runtime.cpu_engine import CpuEngine
from fusec.runtime.cuda.engine import CudaEngine
from fusec.runtime.cuda.queue import REMEMBERED
from fusec.runtime.model import Model
from tests.hand_programs import Parts, chain, chain_reference, linked, scale


class DeviceArray(np.ndarray):
    """Host memory that says it is a GPU's."""

    device = SimpleNamespace(id=0)
    __cuda_array_interface__: Any = None

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def __dlpack_device__(self) -> tuple[Any, int]:
        return 2, 0


def on_device(array: np.ndarray) -> DeviceArray:
    return np.array(array).view(DeviceArray)


class OutOfMemory(MemoryError):
    """As CuPy's."""


class Machine:
    """The parts of CuPy that the engine uses. `launches` is the record of what was started."""

    def __init__(self, kernels: CpuEngine) -> None:
        self.kernels = kernels
        self.names: list[str] = []
        self.launches: list[SimpleNamespace] = []
        self.shared: dict[int, int] = {}
        self.stream, self.capturing, self.full, self.count = 0, False, False, 1
        self.inputs = {v.entry: len(x.inputs) for x in kernels.program.launches for v in x.variants}

    def module(self) -> Any:
        def get_function(name: str) -> Any:
            self.names.append(name)
            return SimpleNamespace(ptr=len(self.names) - 1)
        return SimpleNamespace(load=lambda cubin: None, get_function=get_function)

    def empty(self, shape: tuple[int, ...], dtype: type) -> DeviceArray:
        if self.full:
            raise OutOfMemory("out of memory")
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max, dtype).view(DeviceArray)

    def upload(self, array: np.ndarray) -> DeviceArray:
        if self.full:
            raise OutOfMemory("out of memory")
        return on_device(array)

    def launch_kernel(self, kernel: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int, stream: int,
                      arguments: int, extra: int) -> None:
        entry = self.names[kernel]
        count = self.inputs[entry]
        table = (ctypes.c_uint64 * (count + 2 + 7)).from_address(arguments)
        pointers = [ctypes.c_uint64.from_address(a).value for a in table[:count + 2]]
        sizes = (ctypes.c_int32 * 7)(*(ctypes.c_int32.from_address(a).value for a in table[count + 2:]))
        assert (gy, gz, by, bz, extra) == (1, 1, 1, 1, 0)
        assert self.shared[kernel] == shared
        self.launches.append(SimpleNamespace(entry=entry, stream=stream, threads=bx, shared=shared, pointers=pointers))
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_longlong, ctypes.c_void_p)
        function = prototype(self.kernels.entries[entry])
        scratch = np.zeros(shared // 4 + 16, np.float32)
        inputs = (ctypes.c_uint64 * count)(*pointers[:count])
        for tile in range(gx):
            function(ctypes.addressof(inputs), pointers[count], pointers[count + 1] or None, ctypes.addressof(sizes), tile,
                     scratch.ctypes.data + -scratch.ctypes.data % 64)

    def cupy(self) -> Any:
        runtime = SimpleNamespace(
            getDeviceCount=lambda: self.count, getDevice=lambda: 0, free=lambda pointer: None, CUDARuntimeError=ArithmeticError,
            streamIsCapturing=lambda stream: self.capturing)
        device = SimpleNamespace(compute_capability="90")
        cuda = SimpleNamespace(
            runtime=runtime, Device=lambda number=0: contextlib.nullcontext(device) if number else device,
            function=SimpleNamespace(Module=self.module), memory=SimpleNamespace(OutOfMemoryError=OutOfMemory),
            get_current_stream=lambda: SimpleNamespace(ptr=self.stream))
        return SimpleNamespace(
            cuda=cuda, ndarray=DeviceArray, empty=self.empty, asarray=self.upload,
            asnumpy=lambda a: np.array(a.view(np.ndarray)),
            ascontiguousarray=lambda a: a if a.flags.c_contiguous else self.upload(a))

    def driver(self) -> Any:
        return SimpleNamespace(
            launchKernel=self.launch_kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            funcSetAttribute=lambda function, attribute, value: self.shared.update({function: value} if attribute == 8 else {}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def machine(cpu_parts: Parts, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    engine = linked(cpu_parts, folder).engine
    assert isinstance(engine, CpuEngine)
    made = Machine(engine)
    monkeypatch.setitem(sys.modules, "cupy", made.cupy())
    for name in ("cupy_backends", "cupy_backends.cuda"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.api", SimpleNamespace(driver=made.driver()))
    return made


def cuda_model(parts: Parts, folder: Path, arch: str = "sm_90", rebuilt: list[str] | None = None) -> Model:
    """A model with something in place of cubins; the architectures it is rebuilt for are appended to `rebuilt`."""
    program, sources, weights = parts
    program = replace(program, arch=arch)
    cubins = {source.entry: folder / f"{source.entry}.cubin" for source in sources}
    for path in cubins.values():
        path.write_bytes(b"cubin")

    def rebuild(other: str) -> dict[str, Path]:
        assert rebuilt is not None
        rebuilt.append(other)
        return cubins
    return Model(program, CudaEngine(program, cubins, weights, rebuild), sources, cubins, weights)


@pytest.fixture
def chained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Machine]:
    gpu = machine(chain(), folder, monkeypatch)
    return cuda_model(chain("cuda"), folder), gpu


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(np.float32)


def test_launches_in_order_with_the_right_arguments(chained: tuple[Model, Machine]) -> None:
    model, gpu = chained
    for seed, (n, h, w) in enumerate([(1, 2, 2), (5, 17, 23), (5, 17, 23)]):
        a, b = numbers(n, 3, h, w, seed=seed), numbers(n, 3, h, w, seed=seed + 9)
        x, y = on_device(a), on_device(b)
        gpu.launches.clear()
        got = model(x, y)
        assert [one.entry for one in gpu.launches] == ["k_0", "k_1", "k_2"]
        assert gpu.launches[0].pointers[:2] == [x.ctypes.data, y.ctypes.data]  # no copies
        assert gpu.launches[2].pointers[2] == got[1].ctypes.data
        assert all(one.threads == 32 and one.shared == 32 for one in gpu.launches)
        assert all(isinstance(g, DeviceArray) for g in got)
        assert all(np.array_equal(g, r) for g, r in zip(got, chain_reference(a, b), strict=True))


def test_numpy_goes_there_and_back(chained: tuple[Model, Machine]) -> None:
    model, _ = chained
    a = numbers(1, 3, 4, 4)
    got = model(a, a)
    assert all(type(g) is np.ndarray for g in got)
    assert all(np.array_equal(g, r) for g, r in zip(got, chain_reference(a, a), strict=True))
    with pytest.raises(InputError, match="'left' is float64"):
        model(a.astype(float), a)
    with pytest.raises(InputError, match="not in GPU memory"):
        model(a, a, out=(a, a))


def test_every_stream_has_its_own_intermediates_and_keeps_them(chained: tuple[Model, Machine]) -> None:
    model, gpu = chained
    x = on_device(numbers(1, 3, 6, 6))
    places = {}
    for stream in (0, 7, 0, 7):
        gpu.stream = stream
        gpu.launches.clear()
        model(x, x)
        assert all(one.stream == stream for one in gpu.launches)
        place = gpu.launches[0].pointers[2]
        assert places.setdefault(stream, place) == place
    assert places[0] != places[7]


def test_what_a_cuda_graph_points_to_is_kept(chained: tuple[Model, Machine]) -> None:
    model, gpu = chained
    x = on_device(numbers(1, 3, 6, 6))
    gpu.stream = 7
    model(x, x)
    captured = model.engine.captured  # type: ignore[attr-defined]
    assert captured == []
    places = []
    for gpu.capturing in (True, True, False):
        gpu.launches.clear()
        model(x, x)
        places.append(gpu.launches[0].pointers[2])
    assert len(captured) == 2
    assert len(set(places)) == 3  # neither another graph nor a later call writes into what a graph works with


def test_only_so_many_streams_are_remembered(chained: tuple[Model, Machine]) -> None:
    model, gpu = chained
    x = on_device(numbers(1, 3, 6, 6))
    for stream in (*range(1, 40), 1):
        gpu.stream = stream
        assert all(np.array_equal(g, r) for g, r in zip(model(x, x), chain_reference(x, x), strict=True))
    [runner] = model._runners.values()
    assert [stream for _, stream in runner._queues] == [*range(40 - REMEMBERED + 1, 40), 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("arch", "expected"), [("sm_90", []), ("sm_90a", []), ("sm_80", ["sm_90"])])
def test_cubins_for_another_architecture_are_built_for_this_one(
        arch: str, expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(scale(), folder, monkeypatch)
    rebuilt: list[str] = []
    model = cuda_model(scale("cuda"), folder, arch, rebuilt)
    x = on_device(numbers(1, 2, 3, 3))
    for _ in range(2):
        assert np.array_equal(model(x), 3 * x)
        assert rebuilt == expected


def test_no_memory_and_no_device(chained: tuple[Model, Machine]) -> None:
    model, gpu = chained
    x = on_device(numbers(1, 3, 6, 6))
    a = numbers(1, 3, 6, 6)
    gpu.full = True
    for given in ((x, x), (a, a), (x[:, :, ::2], x[:, :, ::2])):
        with pytest.raises(MissingError, match="not enough GPU memory: out of memory"):
            model(*given)
    gpu.full, gpu.count = False, 0
    with pytest.raises(MissingError, match="the driver shows none"):
        model(x, x)
