"""Hypothesis strategies that every test may use: small random networks that are legal by construction, and images for them.

`integer_graphs` with `integer_images` keep every value, partial sums included and in any order, exact in float32: weights are
small integers, all other factors powers of two, and a bound on the values is kept for each tensor (`growth.py`). So any right
execution gives the same bits. Average pools take part with windows of 2**k positions that all count; global pools, softmax, LRN
and the transcendental activations are in `float_graphs` alone, which is to be compared with a tolerance. Graphs come as a
reader would make them: tests of later steps draw `integer_graphs().map(lambda g: simplify(g).graph)`.

Every window of a max pool sees at least one pixel, at any legal image size, so -inf never appears.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.shapes import size_rule
from tests.growth import FLOATING, IMAGE_BOUND, KINDS, MAX_SIDE, Builder, concat, join, relu

EXTENTS = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 23, 29, 31, 32, 37)


# ---- networks


@st.composite
def _graphs(draw: st.DrawFn, *, exact: bool, max_layers: int, dags: bool, max_channels: int, max_extent: int,
            single_output: bool) -> LayerGraph:
    pinned = draw(st.booleans(), label="pinned")
    b = Builder(draw, exact=exact, pinned=pinned, max_channels=max_channels)
    height, width = (draw(_extents(max_extent)) for _ in L.Axis)
    for _ in range(2 if dags and b.chance(5) else 1):
        assert b.add(L.Input(b.channels(), height, width), (), None, IMAGE_BOUND, 0)
    kinds = KINDS + (() if exact else FLOATING) + ((join, concat, join, concat, join) if dags else ())
    for _ in range(draw(st.integers(1, max_layers), label="layers")):
        start = b.pick(*b.tensors) if dags and b.chance(4) else b.tensors[-1]
        b.pick(*kinds)(b, start)
    if isinstance(b.nodes[-1].layer, L.Input):
        assert relu(b, b.tensors[-1])
    return _finished(b, pinned, dags and not single_output)


def _finished(b: Builder, pinned: bool, many: bool) -> LayerGraph:
    """The network up to the last node (`many`: with all ends, and at times one tensor inside, as outputs)."""
    nodes = b.nodes
    if not pinned:
        keep_height = b.chance(4)
        nodes = [Node(n.name, L.Input(n.layer.channels, n.layer.height if keep_height else None))
                 if isinstance(n.layer, L.Input) else n for n in nodes]
    try:
        graph = LayerGraph("random", nodes)
        graph.sizes(*(b.tensors[0].side(axis) for axis in L.Axis))
    except InputError:  # something was joined to a tensor that is one pixel large at this size only: it stays as built
        nodes = b.nodes
        graph = LayerGraph("random", nodes)
    read = {i for n in nodes for i in n.inputs}
    ends = [n.name for n in graph.layers if n.name not in read] if many else [nodes[-1].name]
    if many and b.chance(3):
        ends.append(b.pick(*(n.name for n in graph.layers)))
    alive = set(ends).union(*(nx.ancestors(graph.digraph, e) for e in ends))
    return LayerGraph("random", (n for n in nodes if n.name in alive), dict.fromkeys(ends))


def integer_graphs(max_layers: int = 6, dags: bool = True, *, max_channels: int = 70, max_extent: int = 40,
                   single_output: bool = False) -> st.SearchStrategy[LayerGraph]:
    """Networks that are exact in float32 on `integer_images`.

    Parameters
    ----------
    max_layers
        Steps of growth; a step may add up to three nodes.
    dags
        Branches: residual adds, products, concatenations, two inputs, several outputs. Else a sequence with one output.
    max_channels, max_extent
        Limits of the inputs' and convolutions' channels, and of the height and width the network is built for; joined and
        enlarged tensors grow past them.
    single_output
        Only the last node is an output, and all others lead to it.
    """
    return _graphs(exact=True, max_layers=max_layers, dags=dags, max_channels=max_channels, max_extent=max_extent,
                   single_output=single_output)


def float_graphs(max_layers: int = 6, dags: bool = True, *, max_channels: int = 70, max_extent: int = 40,
                 single_output: bool = False) -> st.SearchStrategy[LayerGraph]:
    """Networks of all layer kinds with normal weights, for comparisons with a tolerance; parameters as `integer_graphs`."""
    return _graphs(exact=False, max_layers=max_layers, dags=dags, max_channels=max_channels, max_extent=max_extent,
                   single_output=single_output)


# ---- images


def _extents(most: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([e for e in EXTENTS if e <= most]), st.integers(1, most))


def _fits(graph: LayerGraph, axis: L.Axis, extent: int) -> bool:
    """Whether images of this extent go through the network: nothing vanishes or explodes, and branches meet."""
    extents: dict[str, int] = {}
    for node in graph.nodes:
        if isinstance(node.layer, L.Input):
            extents[node.name] = (node.layer.height if axis is L.Axis.Y else node.layer.width) or extent
            continue
        first, *others = (extents[i] for i in graph.sized_by(node))
        made = size_rule(node.layer, axis)(first)
        if any(other != first for other in others) or not 1 <= made <= MAX_SIDE:
            return False
        extents[node.name] = made
    return True


def sizes(graph: LayerGraph, max_extent: int = 40) -> st.SearchStrategy[tuple[int, int]]:
    """(height, width) for the open sizes of `graph`, of those up to `max_extent` that fit it; else the smallest that do."""
    choices = []
    for axis in L.Axis:
        fitting = [e for e in range(1, MAX_SIDE + 1) if _fits(graph, axis, e)]
        choices.append(st.sampled_from([e for e in fitting if e <= max_extent] or fitting[:1]))
    return st.tuples(choices[0], choices[1])


@st.composite
def _images(draw: st.DrawFn, graph: LayerGraph, batch: int | None, max_extent: int, exact: bool,
            ) -> dict[str, NDArray[np.float32]]:
    images = batch if batch is not None else draw(st.integers(1, 3), label="batch")
    height, width = draw(sizes(graph, max_extent), label="size")
    rng = np.random.default_rng(draw(st.integers(0, 2**16), label="pixels"))
    arrays = {}
    for node in graph.inputs:
        assert isinstance(node.layer, L.Input)
        shape = (images, node.layer.channels, node.layer.height or height, node.layer.width or width)
        values = rng.integers(-IMAGE_BOUND, IMAGE_BOUND, size=shape, endpoint=True) if exact else rng.normal(size=shape)
        arrays[node.name] = values.astype(np.float32)
    return arrays


def integer_images(graph: LayerGraph, batch: int | None = None, max_extent: int = 40,
                   ) -> st.SearchStrategy[dict[str, NDArray[np.float32]]]:
    """Integer-valued float32 arrays (images, channels, height, width) by input name; 1 to 3 images, open sizes drawn."""
    return _images(graph, batch, max_extent, True)


def float_images(graph: LayerGraph, batch: int | None = None, max_extent: int = 40,
                 ) -> st.SearchStrategy[dict[str, NDArray[np.float32]]]:
    """Normal float32 arrays (images, channels, height, width) by input name; 1 to 3 images, open sizes drawn."""
    return _images(graph, batch, max_extent, False)
