"""NVRTC compiles every shipped network for every architecture, without a GPU, and what it uses of the machine is as planned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest

from fusec.emit.render import render
from fusec.graph.graph import LayerGraph
from fusec.pipeline import generate, plan, read
from fusec.runtime.cuda.nvrtc import ResourceUsage, compile_cubin
from fusec.runtime.program import Source
from fusec.targets.base import MappedKernel
from fusec.targets.device import HALF_SINCE, Device, device_for_arch, in_precision
from tests.targets.test_layers import CASES, build

pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC and CuPy are not installed")

SHIPPED = sorted(p.stem for p in (Path(__file__).parents[2] / "graphs").glob("*.yaml"))
ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
ENDS = ("sm_75", "sm_90")  # what is left out elsewhere without --thorough is compiled for these
EVERYWHERE = ("artcnn_c4f16", "fsrcnn_x2", "lenet5")  # convolutions of all sorts, pools, linear layers; planned soon
LONGEST = "mobilenet_v2"  # of all to plan: without --thorough tests of the planner do that
LONG = ("mobilenet_v1", "mobilenet_v2", "resnet18", "vgg_e")  # take long to plan and have many kernels
WORKERS = 2  # NVRTC works outside the interpreter's lock
RESERVED = 1024  # bytes of scratch the driver takes of every block, from sm_80 on
# A kernel that is to share a multiprocessor with others gets a share of its registers. Where ptxas wants more, it keeps loop
# bounds and addresses on the stack: up to 152 bytes in a linear layer that reads device memory, on sm_120; elsewhere up to 100.
MOST_SPILLED = 192  # bytes per thread, stored or loaded; register tiles that do not fit take many hundreds
# Kernels with matrix instructions spill more on sm_75, why is not known: 520 bytes in artcnn_c4f16, 404 in lenet5.
MOST_SPILLED_TURING = 576


def usual_archs(graph: str, fuse: str) -> tuple[str, ...]:
    """Architectures that a network is compiled for without --thorough."""
    if fuse == "auto" and graph in EVERYWHERE:
        return ARCHS
    oldest, current = ENDS
    if fuse == "auto" and graph == LONGEST:
        return ()
    if graph in LONG:
        return (oldest,) if fuse == "all" else (current,)
    return (current,) if fuse == "none" else ENDS


def combinations() -> Iterator[Any]:
    """All shipped networks, all architectures, all ways to fuse; a part of them without --thorough."""
    for graph in SHIPPED:
        for fuse in ("auto", "none", "all"):
            for arch in ARCHS:
                rare = arch not in usual_archs(graph, fuse)
                yield pytest.param(graph, fuse, arch, marks=pytest.mark.thorough if rare else (), id=f"{graph}-{fuse}-{arch}")


# Without --thorough: the first in both half types for every architecture, the others in float16 for a few.
HALF_GRAPHS = ("lenet5",)
HALF_ONCE = {"artcnn_c4f16": ENDS, "alexnet_prefix": ENDS, "fsrcnn_x2": ("sm_90",)}


def half_combinations() -> Iterator[Any]:
    """All shipped networks, all architectures that have the type; a few of them without --thorough."""
    for graph in SHIPPED:
        for dtype, since in HALF_SINCE.items():
            for arch in ARCHS:
                if int(arch.removeprefix("sm_")) < since:
                    continue
                usual = graph in HALF_GRAPHS or (dtype == "float16" and arch in HALF_ONCE.get(graph, ()))
                yield pytest.param(graph, dtype, arch, marks=() if usual else pytest.mark.thorough,
                                   id=f"{graph}-{dtype}-{arch}")


@lru_cache(maxsize=1)
def network(name: str) -> LayerGraph:
    return read(name, missing="random")


@cache
def compiled(text: str, entry: str, arch: str) -> ResourceUsage:
    return compile_cubin(Source(entry, text, "cuda"), arch)[1]


@pytest.mark.parametrize(("graph", "fuse", "arch"), list(combinations()))
def test_compiles_within_its_means(graph: str, fuse: str, arch: str) -> None:
    compile_all(network(graph), device_for_arch(arch), fuse)


@pytest.mark.parametrize(("graph", "dtype", "arch"), list(half_combinations()))
def test_half_types_compile_within_their_means(graph: str, dtype: str, arch: str) -> None:
    compile_all(network(graph), in_precision(device_for_arch(arch), dtype), "auto")


def compile_all(graph: LayerGraph, device: Device, fuse: str) -> None:
    """Every kernel of a network for a device, each checked."""
    kernels = generate(plan(graph, device, fuse)).kernels
    sources = [render(k) for k in kernels]
    with ThreadPoolExecutor(WORKERS) as pool:
        usages = list(pool.map(lambda s: compiled(s.text, s.entry, device.arch), {s.entry: s for s in sources}.values()))
    by_entry = dict(zip(dict.fromkeys(s.entry for s in sources), usages, strict=True))
    assert kernels
    for kernel, source in zip(kernels, sources, strict=True):
        check(kernel, source, by_entry[source.entry])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_every_layer_compiles(name: str, dtype: str) -> None:
    """Between two convolutions, fused where the planner finds it worth while."""
    graph, device = build(CASES[name], between=True), in_precision(device_for_arch("sm_90"), dtype)
    shape = None if CASES[name].pinned else (1, CASES[name].channels, 36, 36)
    for kernel in generate(plan(graph, device, "auto", shape)).kernels:
        source = render(kernel)
        assert compiled(source.text, source.entry, "sm_90").registers > 0


def check(kernel: MappedKernel, source: Source, usage: ResourceUsage) -> None:
    """Registers and scratch of one kernel against the plan and the device."""
    device, together = kernel.device, kernel.threads * kernel.blocks_per_core
    words = f"{kernel.schedule.chain}: {kernel.threads} threads x {kernel.blocks_per_core}, {usage.registers} registers"
    assert f"__launch_bounds__({kernel.threads}, {kernel.blocks_per_core})" in source.text
    assert 0 < usage.registers * together <= device.registers_per_core, words
    assert together <= device.max_threads_per_core, words
    most = MOST_SPILLED_TURING if device.matrix and device.arch == "sm_75" else MOST_SPILLED
    assert max(usage.spill_stores, usage.spill_loads) <= most, f"{words}, {usage.spill_loads} bytes spilled"
    assert usage.scratch == 0, f"{words}: scratch is dynamic, {usage.scratch} bytes are not"
    check_scratch(kernel, source)


def check_scratch(kernel: MappedKernel, source: Source) -> None:
    """Buffers and rows in pairs, then the weights copied behind them, and nothing else; as much as the device has."""
    device = kernel.device
    scratch = device.element * kernel.scratch
    rows = [map(int, found.groups()) for b in kernel.buffers if (found := re.match(r"PairedRows<(\d+), (\d+),", b.type))]
    end = max([kernel.schedule.scratch_elements, *(first + kernel.schedule.tile.images * size for first, size in rows)])
    for part in kernel.staging:  # words of 4 bytes, to multiples of 16
        assert end <= part.target < end + 16 // device.element
        assert device.element * part.target % 16 == 0
        end = part.target + 4 * part.count // device.element
    assert kernel.scratch == end
    assert scratch <= device.scratch_per_block
    assert kernel.blocks_per_core == 1 or kernel.blocks_per_core * (scratch + RESERVED) <= device.scratch_per_core + RESERVED
    assert re.search(rf"\b{scratch} bytes of scratch", source.text)
