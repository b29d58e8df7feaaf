"""Whole networks of half types through the CUDA engine without a GPU: CuPy's stand-in launches the emulated kernels.

So what the planner, the mapping and the runtime believe of one another is held together: sizes in bytes, planes of channels
between kernels, the arena, packed weights. Memory that nobody has written holds no numbers.
"""

from __future__ import annotations

import ctypes
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fusec import pipeline
from fusec.cli.tolerances import OUTPUT
from fusec.graph import reference
from fusec.graph.graph import LayerGraph
from fusec.graph.layers import (
    Add,
    Concat,
    Crop,
    GlobalMaxPool2d,
    Input,
    LogSoftmax,
    Pad,
    Padding,
    SliceChannels,
    SpaceToDepth,
    Sub,
    Upsample,
)
from fusec.runtime.cuda.engine import CudaEngine
from fusec.runtime.elements import offered, widened, words_of
from fusec.runtime.model import Model
from fusec.runtime.workload import Workload, arrange
from fusec.targets.device import DEVICES, in_precision
from tests.harness import emulated
from tests.runtime.test_cuda_engine import Machine
from tests.small_networks import conv, max_pool, network

NETWORKS = {
    "row": network(Input(3), a=conv(12), b=conv(20), pool=max_pool(2, 2), c=conv(6)),
    "branches": network(Input(2), a=conv(12), b=conv(12), sum=(Add(), "a", "b"), few=conv(3), both=(Concat(), "sum", "few"),
                        deep=conv(15, groups=15), y=conv(9, 1)),
    "one pixel": network(Input(3), a=conv(16), g=GlobalMaxPool2d(), h=conv(16, 1), sum=(Add(), "h", "a"),
                         one=conv(1), less=(Sub(), "sum", "one"), y=conv(9, 1)),
    "moved": network(Input(3), a=conv(16), up=Upsample((2, 2), "linear"), part=SliceChannels(3, 16),
                     p=Pad(Padding(1, 0, 2, 1), 2.0), b=conv(5), c=Crop(1, 0, 0, 1), deep=SpaceToDepth(2), y=LogSoftmax()),
}
SHAPE = (2, 9, 14)  # images, height, width


class Emulating(Machine):
    """CuPy's stand-in for one call: its launches are the steps of `workload`, in order."""

    def __init__(self, made: pipeline.Generated, workload: Workload) -> None:
        super().__init__(SimpleNamespace(program=made.program))  # type: ignore[arg-type]
        self.made, self.workload = made, workload
        self.texts = {s.entry: s.text for s in made.sources}

    def launch_kernel(self, kernel: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int, stream: int,
                      arguments: int, extra: int) -> None:
        step = self.workload.steps[len(self.launches)]
        launch, entry, program = step.launch, self.names[kernel], self.made.program
        assert (entry, gx, bx) == (step.variant.entry, step.tiles, step.variant.threads)
        assert self.shared[kernel] == shared == program.element * step.variant.scratch
        self.launches.append(SimpleNamespace(entry=entry))
        tensors = (*launch.inputs, launch.output)
        count = len(tensors) + 1
        table = (ctypes.c_uint64 * (count + len(step.sizes))).from_address(arguments)
        pointers = [ctypes.c_uint64.from_address(a).value for a in table[:count]]
        words = [array_at(p, math.prod(self.workload.shapes[t]), np.uint16)
                 for p, t in zip(pointers[:-1], tensors, strict=True)]
        params = array_at(pointers[-1], self.made.weights[launch.params].size, np.float32) if launch.params else np.zeros(
            1, np.float32)
        sizes = [ctypes.c_int32.from_address(a).value for a in table[count:]]
        emulated(self.texts[entry], entry, False).launch((gx, gy, gz), (bx, by, bz), [*words, params, *sizes], shared)


def array_at(address: int, size: int, dtype: Any) -> np.ndarray:
    kind = np.dtype(dtype)
    return np.frombuffer((ctypes.c_uint8 * (size * kind.itemsize)).from_address(address), kind)


def run(graph: LayerGraph, dtype: str, fuse: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, int]:
    """Input and output in the network's type, and how many kernels ran."""
    n, h, w = SHAPE
    device = in_precision(DEVICES["h200"], dtype)
    made = pipeline.generate(pipeline.plan(graph, device, fuse, (n, graph.shapes["x"].channels, h, w)))
    workload = arrange(made.program, n, ((h, w),))
    gpu = Emulating(made, workload)
    monkeypatch.setitem(sys.modules, "cupy", gpu.cupy())
    for name in ("cupy_backends", "cupy_backends.cuda"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.api", SimpleNamespace(driver=gpu.driver()))
    cubins = {source.entry: folder / "cubin" for source in made.sources}
    (folder / "cubin").write_bytes(b"cubin")
    model = Model(made.program, CudaEngine(made.program, cubins, made.weights, lambda arch: cubins), made.sources, cubins,
                  made.weights)
    x = offered(np.random.default_rng(0).normal(size=(n, graph.shapes["x"].channels, h, w)).astype(np.float32), dtype)
    return x, model(x), len(gpu.launches)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_bits_however_it_is_cut(name: str, dtype: str, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    graph = NETWORKS[name]
    x, alone, most = run(graph, dtype, "none", tmp_path, monkeypatch)
    [wanted] = reference.run(graph, widened(x).astype(np.float64)).values()
    apart = np.abs(widened(alone) - wanted).max() / np.abs(wanted).max()
    assert 0 < apart <= OUTPUT[dtype]
    _, fused, fewer = run(graph, dtype, "all", tmp_path, monkeypatch)
    assert fewer < most == len(graph.layers)
    assert np.array_equal(words_of(fused).view(np.uint16), words_of(alone).view(np.uint16))
