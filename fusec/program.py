"""From chains and their kernels to the `Program`, the plain data that the runtime executes.

In: the chains of a network with their schedules, mapped kernels and sources. Out: `Launch` and `Program`. Between emit and
build in the pipeline: the last module that knows layers. What it makes is a manifest's content, so it holds names and numbers
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.shapes import size_rule
from fusec.graph.simplify import Simplified
from fusec.plan.search import Planned
from fusec.runtime.program import Launch, Port, Program, Source, TensorRule, Variant
from fusec.schedule.ir import Chain, Layout, Schedule, Space
from fusec.targets.base import MappedKernel
from fusec.targets.device import Device
from fusec.version import VERSION


def make_launch(params: str, chain: Chain, variants: Sequence[Planned], kernels: Sequence[MappedKernel],
                sources: Sequence[Source]) -> Launch:
    """How a chain is run: its variants with their kernels and sources, in order.

    Parameters
    ----------
    params
        Key of the chain's block of weights; unused when its kernels take none.

    Raises
    ------
    InternalError
        The kernels expect different blocks of weights, while a launch has one for all its variants.
    """
    if len({tuple((p.offset, p.size) for p in k.packs) for k in kernels}) > 1:
        raise InternalError(f"the schedules of {chain} disagree about their parameters")
    made = tuple(Variant(s.entry, (t.images, t.channels, t.height, t.width), k.threads, k.scratch, v.min_blocks)
                 for v, k, s in zip(variants, kernels, sources, strict=True) for t in (v.schedule.tile,))
    return Launch(str(chain), chain.inputs, chain.output, params if kernels[0].packs else "", kernels[0].sizes, made)


def layouts_of(schedules: Iterable[Schedule]) -> dict[str, str]:
    """The layouts of tensors in device memory where they are not NCHW, by the buffers of the schedules that touch them.

    Raises
    ------
    InternalError
        Two schedules disagree about one: they would misread each other.
    """
    found: dict[str, Layout] = {}
    for buffer in (b for schedule in schedules for b in schedule.buffers if b.space is Space.GLOBAL):
        known = found.setdefault(buffer.tensor, buffer.layout)
        if known is not buffer.layout:
            raise InternalError(f"'{buffer.tensor}' is {known.value} to one kernel and {buffer.layout.value} to another")
    return {tensor: layout.value for tensor, layout in sorted(found.items()) if layout is not Layout.NCHW}


def make_program(original: LayerGraph, simplified: Simplified, device: Device, arch: str, launches: Iterable[Launch],
                 layouts: Mapping[str, str]) -> Program:
    """The whole network: sizes of all tensors, inputs and outputs as the caller sees them, launches in order.

    Parameters
    ----------
    original
        The network as read, whose outputs' names and forms the caller expects.
    arch
        What the binaries will be built for.
    layouts
        Of the tensors that are not NCHW, see `layouts_of`.
    """
    graph, vectors = simplified.graph, _vectors(original)
    return Program(
        name=graph.name, target=device.target, dtype=device.dtype, arch=arch, version=VERSION,
        inputs=tuple(Port(n.name, n.name) for n in graph.inputs),
        outputs=tuple(Port(name, tensor, name in vectors) for name, tensor in simplified.output_names.items()),
        tensors=tuple(_tensor_rule(graph, n.name) for n in graph.nodes),
        layouts=layouts, launches=tuple(launches))


def _vectors(graph: LayerGraph) -> frozenset[str]:
    """The tensors that are vectors to a user: something made one, and everything after kept it one."""
    found: set[str] = set()
    for node in graph.nodes:
        form = node.layer.form
        if form is L.Form.VECTOR or (form is L.Form.SAME and found.issuperset(node.inputs)):
            found.add(node.name)
    return frozenset(found)


def _tensor_rule(graph: LayerGraph, name: str) -> TensorRule:
    node, shape = graph[name], graph.shapes[name]
    if isinstance(node.layer, L.Input):
        fixed = [() if v is None else ((0, v, 1),) for v in (shape.height, shape.width)]
        return TensorRule(name, shape.channels, None, fixed[0], fixed[1])
    height, width = (size_rule(node.layer, a).terms for a in L.Axis)
    source, *same = graph.sized_by(node)
    return TensorRule(name, shape.channels, source, height, width, tuple(same))
