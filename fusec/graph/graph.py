"""The layer graph: named nodes with their weights, in a networkx digraph that is checked when it is made.

In: nodes from a reader or from Python. Out: a `LayerGraph`, the value every later step works on. Graphs are never changed in
place; a pass returns a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from fusec.errors import InputError, Problem, nearest
from fusec.graph import layers as L
from fusec.graph.shapes import Shape, infer, misfit, size_rule, sized_by

Array = NDArray[np.floating]
Params = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Pointwise:
    """An activation attached to the node that produces its input, with the name it had in the description."""

    name: str
    layer: L.Activation
    params: Params = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Node:
    """A layer with a name, the names of the tensors it reads, its weights and its pointwise epilogue.

    A node makes one tensor, called by the node's name.
    """

    name: str
    layer: L.Layer
    inputs: tuple[str, ...] = ()
    params: Params = field(default_factory=dict)
    epilogue: tuple[Pointwise, ...] = ()

    @property
    def label(self) -> str:
        """The name with its absorbed activations, e.g. `conv1+relu1`."""
        return "+".join((self.name, *(p.name for p in self.epilogue)))


class LayerGraph:
    """A directed acyclic graph of nodes in topological order.

    Parameters
    ----------
    name
        The network's name, used in reports only.
    nodes
        Any order; every input must name another node.
    outputs
        Tensors the network returns; the nodes nobody reads when left out.

    Raises
    ------
    InputError
        Duplicate names, unknown inputs, cycles, wrong numbers of inputs, shapes that do not fit: all in one error.
    """

    def __init__(self, name: str, nodes: Iterable[Node], outputs: Iterable[str] | None = None) -> None:
        self.name = name
        given = tuple(nodes)
        self.digraph = _digraph(given)
        by_name = {n.name: n for n in given}
        order = {n.name: i for i, n in enumerate(given)}
        self.nodes: tuple[Node, ...] = tuple(
            by_name[k] for k in nx.lexicographical_topological_sort(self.digraph, key=order.__getitem__))
        sinks = tuple(n.name for n in self.nodes if self.digraph.out_degree(n.name) == 0)
        self.outputs: tuple[str, ...] = tuple(outputs) if outputs is not None else sinks
        unknown = [Problem(f"unknown output '{o}'", name, nearest(o, list(by_name))) for o in self.outputs if o not in by_name]
        if unknown:
            raise InputError(unknown)
        self._by_name = MappingProxyType(by_name)
        self.shapes: Mapping[str, Shape] = MappingProxyType(_infer_all(self.nodes))

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The network's input nodes."""
        return tuple(n for n in self.nodes if isinstance(n.layer, L.Input))

    @cached_property
    def layers(self) -> tuple[Node, ...]:
        """All nodes that compute something, in topological order."""
        return tuple(n for n in self.nodes if not isinstance(n.layer, L.Input))

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read tensor `name`, in topological order."""
        return tuple(n for n in self.nodes if name in n.inputs)

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        return tuple(self.shapes[i] for i in node.inputs)

    def sized_by(self, node: Node) -> tuple[str, ...]:
        """The inputs of `node` from whose height and width the output's follow; they agree, so the first decides."""
        return tuple(node.inputs[i] for i in sized_by(node.layer, self.input_shapes(node)))

    def sizes(self, height: int | None = None, width: int | None = None) -> dict[str, tuple[int, int]]:
        """(height, width) of every tensor when open input sizes are `height` and `width`; InputError where they do not fit."""
        sizes: dict[str, tuple[int, int]] = {}
        for node in self.nodes:
            if isinstance(node.layer, L.Input):
                h, w = node.layer.height or height, node.layer.width or width
                if h is None or w is None:
                    raise InputError(f"input '{node.name}' has an open size: give height and width")
                sizes[node.name] = (h, w)
                continue
            leader, *others = self.sized_by(node)
            first = sizes[leader]
            for other in others:
                if sizes[other] != first:
                    read = " and ".join(f"{h}x{w}" for h, w in (first, sizes[other]))
                    raise InputError(f"'{node.name}' reads {read} pixels",
                                     hint=f"an image of {height}x{width} does not fit this network")
            h, w = (size_rule(node.layer, a)(first[a.value]) for a in L.Axis)
            if h < 1 or w < 1:
                raise InputError(f"'{node.name}' would make {h}x{w} pixels of {first[0]}x{first[1]}",
                                 hint="the image is too small for this network")
            sizes[node.name] = (h, w)
        return sizes


def _arity(layer: L.Layer) -> tuple[int, int]:
    """Fewest and most inputs a layer takes."""
    if isinstance(layer, L.Input):
        return 0, 0
    if isinstance(layer, L.Sub | L.Div):
        return 2, 2
    if isinstance(layer, L.Elementwise | L.Concat):
        return (1 if isinstance(layer, L.Concat) else 2), 64
    return 1, 1


def wrong_count(layer: L.Layer, count: int) -> str | None:
    """What is wrong with a layer that reads `count` tensors; None when it takes so many."""
    low, high = _arity(layer)
    if low <= count <= high:
        return None
    takes = f"{low} to {high} inputs" if low < high else f"{high} input{'s' * (high != 1)}"
    return f"{layer.kind} takes {takes}, not {count}"


def cycles(wires: nx.DiGraph[str]) -> list[tuple[str, ...]]:
    """One cycle of each group of nodes that depend on each other, in the order the nodes were added."""
    order = {name: i for i, name in enumerate(wires)}
    found = []
    for group in nx.strongly_connected_components(wires):
        inner = [(a, b) for a, b in wires.out_edges(sorted(group, key=order.__getitem__)) if b in group]
        if inner:
            found.append(tuple(edge[0] for edge in nx.find_cycle(nx.DiGraph(inner))))
    return sorted(found, key=lambda cycle: order[cycle[0]])


def cycle_in_words(cycle: Sequence[str]) -> str:
    """What is said of a cycle."""
    return f"the layers form a cycle: {' -> '.join([*cycle, cycle[0]])}"


def _digraph(nodes: tuple[Node, ...]) -> nx.DiGraph[str]:
    names = [n.name for n in nodes]
    problems = [Problem(f"duplicate name '{k}'", k) for k in sorted({k for k in names if names.count(k) > 1})] \
        if len(set(names)) < len(names) else []
    known = set(names)
    digraph: nx.DiGraph[str] = nx.DiGraph()
    digraph.add_nodes_from(names)
    for node in nodes:
        if wrong := wrong_count(node.layer, len(node.inputs)):
            problems.append(Problem(wrong, node.name))
        for source in node.inputs:
            if source in known:
                digraph.add_edge(source, node.name)
            else:
                problems.append(Problem(f"unknown input '{source}'", node.name, nearest(source, names)))
    if not problems and not any(isinstance(n.layer, L.Input) for n in nodes):
        problems.append(Problem("the network has no input"))
    problems += [Problem(cycle_in_words(cycle), cycle[0]) for cycle in cycles(digraph)]
    if problems:
        raise InputError(problems)
    return digraph


def _infer_all(nodes: tuple[Node, ...]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    problems: list[Problem] = []
    for node in nodes:
        if any(i not in shapes for i in node.inputs):
            continue  # a problem upstream is reported once
        given = [shapes[i] for i in node.inputs]
        if wrong := misfit(node.layer, given):
            problems.append(Problem(wrong, node.name))  # what follows is looked at all the same
        try:
            shapes[node.name] = infer(node.layer, given)
        except InputError as error:
            problems += [Problem(p.what, node.name, p.hint) for p in error.problems]
    if problems:
        raise InputError(problems)
    return shapes
