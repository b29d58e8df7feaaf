"""The eight steps from a network description to a model, in order, as plain calls.

    read      description -> LayerGraph
    simplify  LayerGraph -> LayerGraph       fewer, larger nodes
    partition LayerGraph -> chains           which layers share a kernel
    plan      Chain -> Schedule              what, where, in which order
    map       Schedule -> MappedKernel       by which threads and lanes
    emit      MappedKernel -> Source         text
    build     Source -> binary               by NVRTC or a C++ compiler, cached
    link      binaries -> Model              a callable with its weights

Every value between two steps can be dumped (`FUSEC_DUMP`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusec import debug
from fusec.emit.environment import pool_source
from fusec.emit.render import render
from fusec.errors import InputError, InternalError, nearest
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.locate import find_graph
from fusec.graph.read_yaml import read_yaml
from fusec.graph.shapes import size_rule
from fusec.graph.show import show_graph
from fusec.graph.simplify import Simplified, simplify
from fusec.plan.cost import Nominal, nominal_for
from fusec.plan.partition import partition
from fusec.plan.search import Planned, variants
from fusec.runtime import cpu as cpu_runtime
from fusec.runtime import cuda as cuda_runtime
from fusec.runtime.build import Progress, link
from fusec.runtime.cache import Cache
from fusec.runtime.model import Model
from fusec.runtime.program import Launch, Port, Program, Source, TensorRule, Variant
from fusec.schedule.ir import Chain, Layout
from fusec.schedule.show import show
from fusec.schedule.verify import verify
from fusec.targets import cpu, cuda_simt
from fusec.targets.base import MappedKernel
from fusec.targets.device import Device, device_for_arch, host
from fusec.version import VERSION

Shape4 = tuple[int, int, int, int]

_MAP = {"cpu": cpu.map_schedule, "cuda": cuda_simt.map_schedule}
DTYPES = ("float32",)


@dataclass(frozen=True, eq=False)
class PlannedChain:
    """A chain and its schedules, the one for many tiles first."""

    chain: Chain
    variants: tuple[Planned, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """A network after the first four steps: everything decided but threads."""

    original: LayerGraph
    simplified: Simplified
    device: Device
    nominal: Nominal
    chains: tuple[PlannedChain, ...]


@dataclass(frozen=True, eq=False)
class Generated:
    """A network after six steps: sources and what is needed to link them."""

    plan: Plan
    program: Program
    sources: tuple[Source, ...]
    kernels: tuple[MappedKernel, ...]
    weights: Mapping[str, NDArray[np.float32]]


def read(network: str | Path | LayerGraph, *, weights: str | Path | None = None, random_weights: int | None = None,
         any_weights: bool = False) -> LayerGraph:
    """Step 1. A graph is passed through; `any_weights` puts seeded ones where none are given (for planning alone)."""
    if isinstance(network, LayerGraph):
        return network
    path = find_graph(network)
    if weights is None and random_weights is None and any_weights:
        random_weights = 0
    return read_yaml(path, weights=Path(weights) if weights is not None else None, random_weights=random_weights)


def plan(graph: LayerGraph, device: Device, fuse: str = "auto", shape: Shape4 | None = None) -> Plan:
    """Steps 2 to 4: simplify, partition, plan."""
    debug.dump("00-graph.txt", show_graph(graph))
    simplified = simplify(graph)
    debug.dump("01-simplified.txt", show_graph(simplified.graph))
    nominal = nominal_for(simplified.graph, shape)
    chains = partition(simplified.graph, fuse, device, absorbed=simplified.absorbed, nominal=nominal)
    debug.dump("02-partition.txt", "".join(f"{i:4} {' '.join(c.names)}\n" for i, c in enumerate(chains)))
    planned = tuple(PlannedChain(c, variants(c, device, nominal)) for c in chains)
    for p in planned:
        for v in p.variants:
            verify(v.schedule, device if device.target == "cuda" else None)
    debug.dump("03-schedule.txt", "\n".join(show(v.schedule) for p in planned for v in p.variants))
    return Plan(graph, simplified, device, nominal, planned)


def generate(planned: Plan) -> Generated:
    """Steps 5 and 6: map every schedule to the device and print its source."""
    sources: dict[str, Source] = {}
    kernels: list[MappedKernel] = []
    launches: list[Launch] = []
    weights: dict[str, NDArray[np.float32]] = {}
    for index, item in enumerate(planned.chains):
        mapped = [_MAP[planned.device.target](v.schedule, planned.device, small_grid=_small(planned, v)) for v in item.variants]
        printed = [render(k) for k in mapped]
        sources |= {s.entry: s for s in printed}
        kernels += mapped
        if len({tuple((p.offset, p.size) for p in k.packs) for k in mapped}) > 1:
            raise InternalError(f"the schedules of {item.chain} disagree about their parameters")
        params = f"chain_{index:04}" if mapped[0].packs else ""
        if params:
            weights[params] = mapped[0].parameters()
        launches.append(_launch(item, mapped, printed, params))
    debug.dump("04-mapping.txt", "\n".join(_show_mapping(k) for k in kernels))
    program = _program(planned, tuple(launches))
    debug.dump("05-program.json", json.dumps(program.to_json(), indent=1))
    for i, source in enumerate(sources.values()):
        debug.dump(f"06-kernel-{i:04}{Path(source.filename).suffix}", source.text)
    if planned.device.target == "cpu":
        pool = pool_source()
        sources[pool.entry] = pool
    return Generated(planned, program, tuple(sources.values()), tuple(kernels), weights)


def build_and_link(generated: Generated, progress: Progress | None = None) -> Model:
    """Steps 7 and 8: compile what the cache does not have, and make the model."""
    compiler = cpu_runtime.find_compiler(debug.compiler()) if generated.program.target == "cpu" else None
    return link(generated.program, generated.sources, generated.weights, store=Cache(debug.cache_folder()), compiler=compiler,
                threads=debug.threads(), progress=progress)


def compile_network(network: str | Path | LayerGraph, *, target: str = "auto", dtype: str = "float32", fuse: str = "auto",
                    weights: str | Path | None = None, random_weights: int | None = None, arch: str | None = None,
                    progress: Progress | None = None) -> Model:
    """All eight steps. See `fusec.compile`."""
    device = choose_device(target, dtype, arch)
    graph = read(network, weights=weights, random_weights=random_weights)
    return build_and_link(generate(plan(graph, device, fuse)), progress)


def choose_device(target: str, dtype: str = "float32", arch: str | None = None) -> Device:
    """The device a target means. "auto" is the GPU where there is one and the CPU elsewhere; the model says which."""
    if dtype not in DTYPES:
        raise InputError(f"dtype '{dtype}' is not supported", hint=nearest(dtype, DTYPES) or f"one of {', '.join(DTYPES)}")
    if target not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown target '{target}'", hint=nearest(target, ("auto", "cpu", "cuda")) or "auto, cpu or cuda")
    if target == "auto":
        target = "cuda" if arch is not None or cuda_runtime.available() else "cpu"
    if target == "cpu":
        if arch is not None:
            raise InputError("--arch names a GPU architecture, but the target is cpu", hint="leave one of them out")
        return host()
    return device_for_arch(arch or cuda_runtime.device_arch())


def _small(planned: Plan, variant: Planned) -> bool:
    """Whether a variant is for grids that leave multiprocessors idle: it is the one that runs below some number of tiles."""
    item = next(p for p in planned.chains if variant in p.variants)
    return len(item.variants) > 1 and variant.min_blocks == 0


def _launch(item: PlannedChain, mapped: Sequence[MappedKernel], printed: Sequence[Source], params: str) -> Launch:
    made = tuple(Variant(s.entry, (t.images, t.channels, t.height, t.width), k.threads, k.scratch, v.min_blocks)
                 for v, k, s in zip(item.variants, mapped, printed, strict=True) for t in (v.schedule.tile,))
    return Launch(str(item.chain), item.chain.inputs, item.chain.output, params, mapped[0].sizes, made)


def _program(planned: Plan, launches: tuple[Launch, ...]) -> Program:
    graph, names = planned.simplified.graph, planned.simplified.output_names
    between = {p.chain.output for p in planned.chains} - set(graph.outputs)
    return Program(
        name=graph.name, target=planned.device.target, dtype="float32",
        arch=cpu_runtime.signature() if planned.device.target == "cpu" else planned.device.arch, version=VERSION,
        inputs=tuple(Port(n.name, n.name) for n in graph.inputs),
        outputs=tuple(Port(name, tensor, _flat(planned.original, name)) for name, tensor in names.items()),
        tensors=tuple(_tensor_rule(graph, n.name) for n in graph.nodes),
        layouts={t: planned.device.layout.value for t in sorted(between)} if planned.device.layout is not Layout.NCHW else {},
        launches=launches)


def _flat(graph: LayerGraph, name: str) -> bool:
    """Whether an output is a vector to its user: something made it one, and everything after kept it one."""
    node = graph[name]
    if isinstance(node.layer, L.Flatten | L.Linear):
        return True
    keeps = isinstance(node.layer, L.Activation | L.Softmax | L.Identity | L.BatchNorm | L.Add | L.Mul | L.Concat)
    return keeps and all(_flat(graph, i) for i in node.inputs)


def _tensor_rule(graph: LayerGraph, name: str) -> TensorRule:
    node, shape = graph[name], graph.shapes[name]
    if isinstance(node.layer, L.Input):
        fixed = [() if v is None else ((0, v, 1),) for v in (shape.height, shape.width)]
        return TensorRule(name, shape.channels, None, fixed[0], fixed[1])
    height, width = (size_rule(node.layer, a).terms for a in L.Axis)
    return TensorRule(name, shape.channels, node.inputs[0], height, width, node.inputs[1:])


def _show_mapping(kernel: MappedKernel) -> str:
    lines = [f"{kernel.schedule.chain}: {kernel.threads} threads, {kernel.blocks_per_core} blocks per core"]
    for call in kernel.calls:
        for s in call.structs:
            lines.append(f"  {s.comment}: " + " ".join(f"{k}={v}" for k, v in s.constants))
    return "\n".join(lines) + "\n"
