"""Layers as the literature counts them, and the figures of each group of them that one kernel may compute.

In: a simplified graph, an interval of its depth-first order, the tile. Out: layers as tuples of node names, the groups of them
that are chains, and a table of `GroupFigures` for those that are legal. All counts are exact, boxes clipped at the image's
borders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.plan.cost import ends_at, layer_multiply_adds
from fusec.plan.counting import BYTES, inputs_per_output, taps
from fusec.plan.footprint import Pyramid, granularity, pyramid
from fusec.plan.partition import closed
from fusec.plan.reuse import kept
from fusec.schedule.ir import Chain, Tile

Sizes = Mapping[str, tuple[int, int]]  # (height, width) of every tensor
Extents = tuple[int, int]  # height, width
Members = tuple[int, ...]  # of a group: indices of layers, rising
BY_POSITION = (L.Activation, L.LocalResponseNorm, L.Softmax, L.LogSoftmax)  # read one position of one tensor, all its channels


@dataclass(frozen=True)
class GroupFigures:
    """One group, layers that share a kernel, for one image.

    Attributes
    ----------
    layers
        Indices into `Exploration.layers`, rising.
    bytes_moved
        Every tensor the group reads, and the one it makes for others, once; weights not included.
    buffer_bytes
        Under reuse: the rows that are kept of each tensor read in the group, its inputs included, and the columns kept at the
        left edge of the tile of each tensor made in the group (`reuse.kept`).
    input_row_bytes
        The part of `buffer_bytes` that holds rows of the group's inputs.
    input_column_bytes
        Columns of the group's inputs at the tile's left edge; not part of `buffer_bytes`.
    extra_multiply_adds
        Under recompute: those done again where tiles overlap, less those that fusing leaves out because no tile needs them.
    multiply_adds
        Those of the layers one by one.
    """

    layers: Members
    bytes_moved: int
    buffer_bytes: int
    input_row_bytes: int
    input_column_bytes: int
    extra_multiply_adds: int
    multiply_adds: int

    @property
    def first(self) -> int:
        return self.layers[0]

    @property
    def last(self) -> int:
        """The layer that makes the group's output."""
        return self.layers[-1]


def layers_of(graph: LayerGraph, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The nodes `names`, an interval of the depth-first order, as layers: convolutions, pools and all else that moves a window.

    What works position by position, alone behind another node, is counted with that one: simplifying did so for activations,
    this does so for normalisation over channels.
    """
    layers: list[tuple[str, ...]] = []
    for name in names:
        node = graph[name]
        alone = layers and node.inputs == (layers[-1][-1],) and closed(graph, (*node.inputs, name))
        if alone and isinstance(node.layer, BY_POSITION):
            layers[-1] = (*layers[-1], name)
        else:
            layers.append((name,))
    return tuple(layers)


def tensor_bytes(graph: LayerGraph, sizes: Sizes, tensor: str) -> int:
    """Bytes of a whole tensor for one image."""
    return BYTES * graph.shapes[tensor].channels * math.prod(sizes[tensor])


def bytes_moved(chain: Chain, sizes: Sizes) -> int:
    """Bytes of what the chain reads and of what it makes for others, each once, for one image."""
    return sum(tensor_bytes(chain.graph, sizes, t) for t in (*chain.inputs, chain.output))


def readers_of(graph: LayerGraph, layers: Sequence[tuple[str, ...]]) -> tuple[frozenset[int], ...]:
    """Of each layer, those that read it, by index; `len(layers)` stands for what is outside, the network's outputs too."""
    index, outside = {name: i for i, layer in enumerate(layers) for name in layer}, len(layers)
    made = []
    for *_, last in layers:
        readers = {index.get(name, outside) for name in graph.digraph.successors(last)}
        made.append(frozenset(readers if readers and last not in graph.outputs else readers | {outside}))
    return tuple(made)


def in_a_row(readers: Sequence[frozenset[int]]) -> bool:
    """Whether every chain is sure to be an interval: a layer that may be inside of one is read by the layer next to it."""
    return all(i + 1 in found or len(readers) in found for i, found in enumerate(readers))


def intervals(readers: Sequence[frozenset[int]]) -> Iterator[Members]:
    """Every interval of the layers that is a chain."""
    for last in range(len(readers)):
        for first in range(last, -1, -1):
            if all(max(readers[i]) <= last for i in range(first, last)):
                yield tuple(range(first, last + 1))


def convex_cuts(readers: Sequence[frozenset[int]]) -> Iterator[Members]:
    """Every set of layers that is a chain: what reads a layer of it, but for the last, is in it too.

    So it is convex, and so are several of them apart from one another: groups that wait for each other in a circle would be a
    circle of layers, since all layers of a group lead to its last one.
    """
    for last in range(len(readers)):
        found: list[Members] = [(last,)]
        for i in range(last - 1, -1, -1):
            found += [(i, *members) for members in found if readers[i].issubset(members)]
        yield from found


def table(graph: LayerGraph, layers: Sequence[tuple[str, ...]], groups: Iterable[Members], tile: Extents,
          sizes: Sizes) -> dict[Members, GroupFigures]:
    """Figures of those of `groups`, which are chains, whose tiles independent blocks can compute.

    Raises
    ------
    Infeasible
        That is not so for a layer alone.
    """
    found = {}
    for members in groups:
        names = tuple(n for i in members for n in layers[i])
        try:
            found[members] = figures(Chain(graph, names), tile, sizes, members)
        except Infeasible:
            if len(members) == 1:
                raise
    return found


def extra_multiply_adds(chain: Chain, tile: Extents, sizes: Sizes) -> int:
    """Multiply-adds that tiles of (height, width) do more than once under recompute, for one image."""
    extents, boxes = _pyramid(chain, tile, sizes)
    return _extra(chain, extents, boxes, sizes)


def multiply_adds(chain: Chain, sizes: Sizes) -> int:
    """Multiply-adds of the chain's layers one by one, for one image."""
    return sum(layer_multiply_adds(chain.graph, n, sizes[n.name], 1) for n in chain.nodes)


def figures(chain: Chain, tile: Extents, sizes: Sizes, layers: Members) -> GroupFigures:
    """The figures of a chain, with the indices of its layers.

    Raises
    ------
    Infeasible
        No independent blocks can compute its tiles.
    """
    extents, boxes = _pyramid(chain, tile, sizes)
    held = kept(chain, boxes, sizes)
    inputs = [held[t] for t in chain.inputs]
    rows, columns = BYTES * sum(k.rows for k in inputs), BYTES * sum(k.columns for k in inputs)
    return GroupFigures(
        layers,
        bytes_moved=bytes_moved(chain, sizes),
        buffer_bytes=BYTES * sum(k.rows + k.columns for k in held.values()) - columns,
        input_row_bytes=rows,
        input_column_bytes=columns,
        extra_multiply_adds=_extra(chain, extents, boxes, sizes),
        multiply_adds=multiply_adds(chain, sizes),
    )


def _pyramid(chain: Chain, tile: Extents, sizes: Sizes) -> tuple[Extents, Pyramid]:
    """The tile, no larger than the image and in the steps that upsampling allows, and its pyramid with all channels."""
    height, width = (-(-min(t, n) // step) * step for t, n, step in
                     zip(tile, sizes[chain.output], (granularity(chain, a) for a in L.Axis), strict=True))
    return (height, width), pyramid(chain, Tile(1, chain.shapes[chain.output].channels, height, width))


def _extra(chain: Chain, tile: Extents, boxes: Pyramid, sizes: Sizes) -> int:
    done = 0
    for node in chain.nodes:
        along = []
        for axis in L.Axis:
            origins = np.arange(0, sizes[chain.output][axis.value], tile[axis.value], dtype=np.int64)
            size = sizes[node.name][axis.value]
            start, end = ends_at(boxes.tensors[node.name].along(axis), origins, size)
            along.append(taps(node.layer, axis, np.clip(start, 0, size), np.clip(end, 0, size)))
        done += inputs_per_output(chain.graph, node) * chain.shapes[node.name].channels * math.prod(along)
    return done - multiply_adds(chain, sizes)
