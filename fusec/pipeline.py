"""The eight steps from a network description to a model, in order, as plain calls.

    read      description -> LayerGraph
    simplify  LayerGraph -> Simplified       fewer, larger nodes
    partition LayerGraph -> chains           which layers share a kernel
    plan      Chain -> Schedules             what, where, in which order
    map       Schedule -> MappedKernel       by which threads and lanes
    emit      MappedKernel -> Source         text
    build     Source -> binary               by NVRTC or a C++ compiler, cached
    link      binaries -> Model              a callable with its weights

Every value between two steps can be dumped (`FUSEC_DUMP`) and printed, with the time each step took (`FUSEC_DEBUG`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusec import debug
from fusec.emit.environment import threads_source
from fusec.emit.render import render
from fusec.emit.show import show_mapping
from fusec.errors import InputError, Problem, nearest
from fusec.graph.find_weights import Description, Missing, with_weights
from fusec.graph.graph import LayerGraph
from fusec.graph.limits import MAX_BATCH, MAX_EXTENT, whole
from fusec.graph.locate import find_graph
from fusec.graph.onnx.cut import Cut
from fusec.graph.read_onnx import SUFFIX, read_onnx
from fusec.graph.read_yaml import read_description
from fusec.graph.show import show_graph
from fusec.graph.simplify import Simplified, simplify
from fusec.plan.cost import Nominal, nominal_for
from fusec.plan.lock import Lock, lock_of, scope_of, unlock
from fusec.plan.lock_file import read_lock
from fusec.plan.partition import partition
from fusec.plan.search import Planned, variants
from fusec.program import layouts_of, make_launch, make_program
from fusec.runtime import cpu as cpu_runtime
from fusec.runtime.build import Progress, assemble, build
from fusec.runtime.cache import Cache
from fusec.runtime.cpu_engine import usable_threads
from fusec.runtime.cuda import gpu
from fusec.runtime.model import Model
from fusec.runtime.program import Program, Source
from fusec.runtime.store import Store
from fusec.schedule.ir import Chain
from fusec.schedule.show import show
from fusec.schedule.verify import verify
from fusec.targets import cpu, cuda_mma, cuda_simt
from fusec.targets.base import MappedKernel
from fusec.targets.device import Device, device_for_arch, device_for_gpu, host, in_precision

Shape4 = tuple[int, int, int, int]

WHOLE = Cut()


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
         missing: Missing = "refuse", drawn: Callable[[int], None] | None = None, cut: Cut = WHOLE) -> LayerGraph:
    """Step 1: a network with its weights, of a description, an ONNX file or a graph; options as in `with_weights`.

    `cut` is for ONNX files: the tensors to begin and end at.
    """
    with debug.timed("read"):
        described = _described(network, cut)
        return with_weights(described, weights=None if weights is None else Path(weights), random_weights=random_weights,
                            missing=missing, drawn=drawn)


def _described(network: str | Path | LayerGraph, cut: Cut) -> Description:
    path = None if isinstance(network, LayerGraph) else find_graph(network)
    if path is not None and path.suffix.lower() == SUFFIX:
        return read_onnx(path, cut)
    if cut:
        raise InputError("only a network in an ONNX file can be cut at its tensors",
                         hint="leave layers out of the description instead")
    if isinstance(network, LayerGraph):
        return Description(network, None, "", network.name)
    return read_description(find_graph(network))


def plan(graph: LayerGraph, device: Device, fuse: str = "auto", shape: Shape4 | None = None,
         locked: Path | None = None) -> Plan:
    """Steps 2 to 4: simplify, partition, plan. A lockfile (`locked`) decides in place of `fuse`, `shape` and the time model."""
    debug.dump("00-graph.txt", show_graph(graph), debug.PLAN)
    with debug.timed("simplify"):
        simplified = simplify(graph)
    debug.dump("01-simplified.txt", show_graph(simplified.graph), debug.PLAN)
    lock = None if locked is None else _read_lock(locked, simplified.graph, device)
    nominal = nominal_for(simplified.graph, shape) if lock is None else lock.nominal
    decided = {} if lock is None else dict(unlock(lock, simplified.graph, device))  # and verified
    with debug.timed("partition"):
        chains = tuple(decided) if lock else \
            partition(simplified.graph, fuse, device, absorbed=simplified.absorbed, nominal=nominal)
    debug.dump("02-partition.txt", "".join(f"{i:4} {' '.join(c.names)}\n" for i, c in enumerate(chains)), debug.PLAN)
    with debug.timed("plan"):
        planned = tuple(PlannedChain(c, decided[c] if lock else variants(c, device, nominal)) for c in chains)
    schedules = [v.schedule for p in planned for v in p.variants]
    debug.dump("03-schedule.txt", "\n".join(map(show, schedules)), debug.SCHEDULE)
    with debug.timed("verify"):
        for schedule in () if lock else schedules:
            verify(schedule, device if device.target == "cuda" else None)
    return Plan(graph, simplified, device, nominal, planned)


def _read_lock(path: Path, graph: LayerGraph, device: Device) -> Lock:
    """The lockfile, if it is for this network and device."""
    lock = read_lock(path)
    lock.check(scope_of(graph, device, architecture(device), device.dtype))
    return lock


def to_lock(planned: Plan) -> Lock:
    """The plan as a lock: `plan` makes the same of it, whatever the time model has become."""
    graph, device = planned.simplified.graph, planned.device
    return lock_of(scope_of(graph, device, architecture(device), device.dtype), planned.nominal,
                   ((c.chain, c.variants) for c in planned.chains))


def architecture(device: Device) -> str:
    """What binaries are built for: the GPU's architecture, or this CPU's signature."""
    return cpu_runtime.signature() if device.target == "cpu" else device.arch


def generate(planned: Plan) -> Generated:
    """Steps 5 and 6: map every schedule to the device and print its source."""
    chains, device = planned.chains, planned.device
    with debug.timed("map"):
        map_schedule = mapping(device)
        mapped = [[map_schedule(v.schedule, device, tiles=v.tiles) for v in c.variants] for c in chains]
    kernels = tuple(k for group in mapped for k in group)
    debug.dump("04-mapping.txt", "\n".join(map(show_mapping, kernels)), debug.SCHEDULE)
    with debug.timed("emit"):
        printed = [[render(k) for k in group] for group in mapped]
    launches = [make_launch(f"chain_{i:04}", c.chain, c.variants, mapped[i], printed[i]) for i, c in enumerate(chains)]
    weights = {launch.params: group[0].parameters() for launch, group in zip(launches, mapped, strict=True) if launch.params}
    layouts = layouts_of(v.schedule for c in chains for v in c.variants)
    program = make_program(planned.original, planned.simplified, device, architecture(device), launches, layouts)
    debug.dump("05-program.json", json.dumps(program.to_json(), indent=1), debug.SOURCE)
    sources = {s.entry: s for group in printed for s in group}  # equal kernels have one entry
    for i, source in enumerate(sources.values()):
        debug.dump(f"06-kernel-{i:04}{Path(source.filename).suffix}", source.text, debug.SOURCE)
    threads = (threads_source(),) if device.target == "cpu" else ()
    return Generated(planned, program, (*sources.values(), *threads), kernels, weights)


def mapping(device: Device) -> Callable[..., MappedKernel]:
    """The mapping of a device's target and type."""
    if device.target == "cpu":
        return cpu.map_schedule
    return cuda_mma.map_schedule if device.matrix else cuda_simt.map_schedule


def build_kernels(generated: Generated, store: Store, progress: Progress | None = None) -> dict[str, Path]:
    """Step 7: compile what the store does not have; the path of every entry's binary."""
    program = generated.program
    compiler = cpu_runtime.find_compiler(debug.compiler()) if program.target == "cpu" else None
    with debug.timed("build"):
        return build(program.target, program.arch, generated.sources, store, compiler, progress, _compiler_log)


def build_and_link(generated: Generated, progress: Progress | None = None) -> Model:
    """Steps 7 and 8: compile what the cache does not have, and make the model."""
    program, store = generated.program, Cache(debug.cache_folder())
    binaries = build_kernels(generated, store, progress)
    with debug.timed("link"):
        return assemble(program, generated.sources, binaries, generated.weights, store=store, threads=debug.threads())


def compile_network(network: str | Path | LayerGraph, *, target: str = "auto", dtype: str = "float32", fuse: str = "auto",
                    weights: str | Path | None = None, random_weights: int | None = None, arch: str | None = None,
                    shape: Sequence[int] | None = None, locked: str | Path | None = None, cut: Cut = WHOLE,
                    progress: Progress | None = None) -> Model:
    """All eight steps. See `fusec.compile`."""
    device = choose_device(target, dtype, arch)
    if locked is not None and (fuse != "auto" or shape is not None):
        other = "shape" if fuse == "auto" else "fuse"
        raise InputError(f"a lockfile decides what is planned, so {other} cannot be given", hint="leave one of them out")
    sizes = None if shape is None else check_shape(shape)
    graph = read(network, weights=weights, random_weights=random_weights, cut=cut)
    return build_and_link(generate(plan(graph, device, fuse, sizes, None if locked is None else Path(locked))), progress)


def choose_device(target: str, dtype: str = "float32", arch: str | None = None) -> Device:
    """The device a target means. "auto" is the GPU where there is one and the CPU elsewhere; the model says which."""
    if target not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown target '{target}'", hint=nearest(target, ("auto", "cpu", "cuda")) or "auto, cpu or cuda")
    if target == "auto":
        target = "cuda" if arch is not None or gpu.available() else "cpu"
    if target == "cpu":
        if arch is not None:
            raise InputError("--arch names a GPU architecture, but the target is cpu", hint="leave one of them out")
        return in_precision(host(cpu_threads()), dtype)
    return in_precision(device_for_gpu(*gpu.identity()) if arch is None else device_for_arch(arch), dtype)


def cpu_threads() -> int:
    """Threads that a model on this CPU uses, so the cores it is planned for; InputError when FUSEC_THREADS is no count."""
    return debug.threads() or usable_threads()


def check_shape(shape: Sequence[int]) -> Shape4:
    """Batch, channels, height and width to plan for; InputError when they are not four such numbers."""
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) != 4:
        raise InputError(f"a shape is (batch, channels, height, width), not {shape!r:.60}", "shape", "such as (1, 3, 480, 640)")
    batch, channels, height, width = shape
    limits = (("batch", batch, MAX_BATCH), ("channels", channels, MAX_EXTENT), ("height", height, MAX_EXTENT),
              ("width", width, MAX_EXTENT))
    if found := [Problem(what, "shape") for name, value, most in limits for what in whole(name, value, 1, most)]:
        raise InputError(found)
    return batch, channels, height, width


def _compiler_log(entry: str, text: str | None) -> None:
    said = "not compiled: the cache has it" if text is None else text.rstrip() or "compiled without a warning"
    debug.dump(f"07-compiler-{entry}.txt", said + "\n", debug.COMPILER)
