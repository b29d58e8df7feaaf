"""Every way to cut a range of layers into groups that share a kernel: what each moves, keeps on chip and computes again.

In: a simplified graph, a range of it, the tile of the output. Out: an `Exploration`, and its JSON form. Nothing is compiled and
no machine is asked about: these are the exact counts of Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", MICRO
2016, for fp32 and one image. The conventions that change a figure are fields of their own.

Every way means all convex cuts: where chains can only be intervals of the order of layers, and where branches lie side by side
in up to `MAX_BRANCHED` layers with up to `MAX_GROUPS` chains. Of more such layers only chains that are intervals are tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fusec.errors import InputError, Problem
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.plan import pareto
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.counting import weight_bytes
from fusec.plan.groups import (
    Extents,
    Members,
    Sizes,
    bytes_moved,
    convex_cuts,
    extra_multiply_adds,
    figures,
    in_a_row,
    intervals,
    layers_of,
    multiply_adds,
    readers_of,
    table,
)
from fusec.plan.groups import GroupFigures as GroupFigures
from fusec.plan.partition import closed, depth_first, layer_hint
from fusec.schedule.ir import Chain

MAX_LAYERS = 128  # of one range: their groups are counted one by one
MAX_LISTED = 4096  # partitions; where there are more, the Pareto front alone is given
MAX_BRANCHED = 16  # layers whose convex cuts are all tried where not all of them are intervals: up to 2 ** 15 partitions
MAX_GROUPS = 4096  # of such layers: their figures take a few seconds


@dataclass(frozen=True)
class Point:
    """One partition. Bytes moved and work are sums over its groups; they run in turn, so the buffers are the largest ones.

    Attributes
    ----------
    pareto
        No other partition moves fewer bytes without larger buffers; of several with the same two figures it is the one with
        the least extra work, and of those the one with the fewest groups.
    """

    groups: tuple[GroupFigures, ...]
    bytes_moved: int
    buffer_bytes: int
    extra_multiply_adds: int
    pareto: bool

    @property
    def inner_buffer_bytes(self) -> int:
        """The buffers without the rows of the groups' inputs: what is kept between layers that share a kernel."""
        return max(g.buffer_bytes - g.input_row_bytes for g in self.groups)

    @property
    def edge_buffer_bytes(self) -> int:
        """The buffers with the left edge of the groups' inputs counted too."""
        return max(g.buffer_bytes + g.input_column_bytes for g in self.groups)

    def to_json(self) -> dict[str, Any]:
        """The sums, and the groups as the indices of their layers."""
        return {"groups": [g.layers for g in self.groups], "bytes_moved": self.bytes_moved,
                "buffer_bytes": self.buffer_bytes, "inner_buffer_bytes": self.inner_buffer_bytes,
                "edge_buffer_bytes": self.edge_buffer_bytes, "extra_multiply_adds": self.extra_multiply_adds,
                "pareto": self.pareto}


@dataclass(frozen=True)
class TileWork:
    """Recompute with another tile, all layers in one group: multiply-adds done again with square tiles of `side` pixels."""

    side: int
    extra_multiply_adds: int


@dataclass(frozen=True)
class Exploration:
    """Partitions of a range of layers, for one image.

    Attributes
    ----------
    layers
        Names of the layers, in the order they are computed. What works position by position, alone behind another layer,
        belongs to that one: activations, and normalisation over channels.
    tile
        (height, width) of the output tile of every group; smaller where the output is, in steps that upsampling allows.
    height, width
        Pixels of an image, as planned for; None where the network fixes them and none were given.
    complete
        Whether all convex cuts were tried; else those into intervals of `layers` (see the module).
    partitions
        How many there are, of those tried.
    listed
        Whether `points` has all of them; else it has the Pareto front alone.
    points
        All partitions, those of few groups first; or the front by bytes moved.
    behind
        Names of the nodes that are counted with the layer before them.
    chosen
        Index of the point that equals the planner's own partition, each layer in the chain of its first name; None when that
        is not among them.
    planned
        The planner's own partition, counted in the same way: the chosen point, or where it is not listed, its figures all the
        same. None where none was given.
    layer_by_layer, pools_merged, all_fused
        Every layer alone; the same but every pool in the kernel of the convolution before it; all layers in one group, None
        where that is not legal.
    norms_apart_bytes
        Bytes moved layer by layer if `behind`, normalisations above all, moved tensors of their own.
    weight_bytes
        Weights and biases of all layers, each once: to be added to any partition's bytes.
    multiply_adds
        Of all layers, each value computed once.
    by_tile
        Recompute of `all_fused` for square tiles whose side divides height and width of the output; empty where illegal.
    """

    network: str
    layers: tuple[str, ...]
    tile: Extents
    height: int | None
    width: int | None
    complete: bool
    partitions: int
    listed: bool
    points: tuple[Point, ...]
    behind: tuple[str, ...]
    chosen: int | None
    planned: Point | None
    layer_by_layer: Point
    pools_merged: Point
    all_fused: Point | None
    norms_apart_bytes: int
    weight_bytes: int
    multiply_adds: int
    by_tile: tuple[TileWork, ...]

    @property
    def front(self) -> tuple[Point, ...]:
        """The Pareto front, by bytes moved."""
        return tuple(sorted((p for p in self.points if p.pareto), key=lambda p: p.bytes_moved))

    @property
    def ends(self) -> dict[str, Point]:
        """The partitions that have a name."""
        named = {"layer by layer": self.layer_by_layer, "layer by layer, pools merged": self.pools_merged}
        return named if self.all_fused is None else named | {"all fused": self.all_fused}

    def to_json(self) -> dict[str, Any]:
        """Dictionaries, lists, numbers and strings only. Groups stand once, and points name them by their layers.

        What is planned has its groups in full, since they need not be among those.
        """
        groups = {g.layers: g for p in (*self.points, *self.ends.values()) for g in p.groups}
        planned = self.planned and {**self.planned.to_json(), "groups": [dataclasses.asdict(g) for g in self.planned.groups]}
        return {
            "network": self.network, "layers": self.layers, "tile": self.tile, "height": self.height, "width": self.width,
            "complete": self.complete, "partitions": self.partitions, "listed": self.listed,
            "left_out": self.partitions - len(self.points),
            "multiply_adds": self.multiply_adds, "weight_bytes": self.weight_bytes, "norms_apart_bytes": self.norms_apart_bytes,
            "ends": {name: p.to_json() for name, p in self.ends.items()},
            "by_tile": [{**dataclasses.asdict(w), "ratio": self.work_ratio(w.extra_multiply_adds)} for w in self.by_tile],
            "groups": [dataclasses.asdict(groups[key]) for key in sorted(groups)],
            "points": [p.to_json() for p in self.points],
            "behind": self.behind,
            "chosen": self.chosen, "planned": planned,
        }

    def called(self, group: GroupFigures) -> str:
        """A group by its layers: "first..last", with a "+" wherever it leaves out some between."""
        starts = [i for i in group.layers if i - 1 not in group.layers]
        ends = [i for i in group.layers if i + 1 not in group.layers]
        return "+".join(self.layers[i] if i == j else f"{self.layers[i]}..{self.layers[j]}"
                        for i, j in zip(starts, ends, strict=True))

    def work_ratio(self, extra: int) -> float:
        """How many times the multiply-adds of the layers one by one are done, `extra` ones included; 1 where there are none."""
        return 1 + extra / self.multiply_adds if self.multiply_adds else 1.0


def explore(graph: LayerGraph, nominal: Nominal, *, layers: str | None = None, tile: Extents = (1, 1),
            absorbed: Mapping[str, str] | None = None, planned: Iterable[Sequence[str]] = (),
            limit: int = MAX_LISTED) -> Exploration:
    """Weigh the partitions of a range of layers into groups that share a kernel.

    Parameters
    ----------
    graph
        A simplified network.
    nominal
        The image size; its batch does not matter, figures are for one image.
    layers
        "first..last", an interval of the order that keeps branches together (`partition.depth_first`); all of them when left
        out.
    tile
        (height, width) of the output tile in pixels: it decides the extra work under recompute and the left edges under reuse.
    absorbed
        Names of the description to the nodes of `graph` that took them in.
    planned
        The planner's own chains, as names of nodes; those outside the range do not matter.
    limit
        Partitions that are listed at most.

    Raises
    ------
    InputError
        `layers` is no range of the network, or it has more than `MAX_LAYERS` layers.
    """
    names = _range(depth_first(graph), layers, absorbed or {})
    found = layers_of(graph, names)
    if len(found) > MAX_LAYERS:
        raise InputError(f"{len(found)} layers are too many to explore; {MAX_LAYERS} can be", "layers", "name a range of them")
    sizes, count = sizes_of(graph, nominal), len(found)
    readers = readers_of(graph, found)
    branched, complete = _what_to_try(readers)
    groups = table(graph, found, branched or intervals(readers), tile, sizes)
    partitions, points = (_branched if branched else _in_a_row)(groups, count, limit)
    by_ends = {_ends(p.groups): p for p in points}

    def named(ends: tuple[int, ...]) -> Point:
        cut = tuple(groups[tuple(range(i, j))] for i, j in zip((0, *ends), ends, strict=False))
        return by_ends.get(ends) or _point(cut, False)

    everything = tuple(range(count))
    chains, own = [Chain(graph, layer) for layer in found], _counted(found, planned)
    chosen = _chosen(points, found, own)
    return Exploration(
        network=graph.name, layers=tuple(layer[0] for layer in found), tile=tile, height=nominal.height, width=nominal.width,
        complete=complete, partitions=partitions, listed=partitions <= limit, points=tuple(points),
        behind=tuple(name for layer in found for name in layer[1:]), chosen=chosen,
        planned=_planned(graph, found, own, tile, sizes) if chosen is None else points[chosen],
        layer_by_layer=named(tuple(range(1, count + 1))),
        pools_merged=named(_pools_merged(chains, groups)),
        all_fused=named((count,)) if everything in groups else None,
        norms_apart_bytes=sum(bytes_moved(Chain(graph, (n,)), sizes) for n in names),
        weight_bytes=sum(weight_bytes(graph, graph[n]) for n in names),
        multiply_adds=sum(multiply_adds(c, sizes) for c in chains),
        by_tile=_by_tile(Chain(graph, names), sizes) if everything in groups else (),
    )


def _range(order: tuple[str, ...], text: str | None, absorbed: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes from `first` to `last` of "first..last"; every problem of the text in one InputError."""
    if text is None:
        return order
    words = [w.strip() for w in text.split("..")]
    if len(words) > 2 or not all(words):
        raise InputError(f"'{text}' is no range", "layers", "write first..last")
    position = {name: i for i, name in enumerate(order)}
    places = [position.get(absorbed.get(w, w)) for w in words]
    first, last = places[0], places[-1]
    if first is None or last is None:
        known = [*position, *absorbed]
        raise InputError([Problem(f"unknown layer '{w}'", "layers", layer_hint(w, known))
                          for w, place in zip(words, places, strict=True) if place is None])
    if first > last:
        raise InputError(f"'{text}' runs backwards", "layers", f"write {words[-1]}..{words[0]}")
    return order[first:last + 1]


def _what_to_try(readers: Sequence[frozenset[int]]) -> tuple[tuple[Members, ...], bool]:
    """All convex cuts, or nothing where intervals are to be tried; and whether what is tried is all there is."""
    if in_a_row(readers):
        return (), True
    cuts = tuple(islice(convex_cuts(readers), MAX_GROUPS + 1)) if len(readers) <= MAX_BRANCHED else ()
    return (cuts, True) if 0 < len(cuts) <= MAX_GROUPS else ((), False)


def _in_a_row(groups: pareto.Table, count: int, limit: int) -> tuple[int, list[Point]]:
    """How many partitions into intervals there are, and all of them, or the front where that is more than `limit`."""
    partitions = pareto.count(groups, count)
    if partitions > limit:
        return partitions, [_point(p, True) for p in pareto.front_of_all(groups, count)]
    return _branched(groups, count, limit)


def _branched(groups: pareto.Table, count: int, limit: int) -> tuple[int, list[Point]]:
    """The same for any groups, by listing."""
    partitions = sorted(pareto.every(groups, count), key=lambda p: (len(p), _ends(p)))
    front = pareto.front(partitions)
    if len(partitions) > limit:
        return len(partitions), [_point(partitions[i], True) for i in front]
    best = set(front)
    return len(partitions), [_point(p, i in best) for i, p in enumerate(partitions)]


def _point(groups: pareto.Partition, on_front: bool) -> Point:
    return Point(groups, pareto.total_bytes(groups), pareto.largest_buffer(groups), pareto.total_extra(groups), on_front)


def _ends(groups: pareto.Partition) -> tuple[int, ...]:
    """The ends of the groups. No other partition has the same: what is no end belongs to the group that reads it."""
    return tuple(g.last + 1 for g in groups)


def _pools_merged(layers: list[Chain], groups: pareto.Table) -> tuple[int, ...]:
    """The ends of the groups when every layer is alone, but a pool goes with the convolution before it."""
    ends = set(range(1, len(layers) + 1))
    for i in range(1, len(layers)):
        convolution = isinstance(layers[i - 1].nodes[0].layer, L.Conv2d | L.ConvTranspose2d)
        if convolution and isinstance(layers[i].nodes[0].layer, L.Pool2d) and (i - 1, i) in groups:
            ends.remove(i)
    return tuple(sorted(ends))


def _counted(layers: tuple[tuple[str, ...], ...], planned: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """The planner's chains as far as they lie in the range, what is counted with a layer in the chain of that layer."""
    own = [[name for layer in layers if layer[0] in chain for name in layer] for chain in map(set, planned)]
    return [tuple(names) for names in own if names]


def _chosen(points: list[Point], layers: tuple[tuple[str, ...], ...], planned: Iterable[Sequence[str]]) -> int | None:
    """The point whose groups are the planner's chains."""
    wanted = {frozenset(chain) for chain in planned}
    return next((i for i, p in enumerate(points) if {_names(layers, g) for g in p.groups} == wanted), None)


def _planned(graph: LayerGraph, layers: tuple[tuple[str, ...], ...], planned: Iterable[tuple[str, ...]], tile: Extents,
             sizes: Sizes) -> Point | None:
    """The figures of the planner's chains, where they are chains in the range."""
    index = {name: i for i, layer in enumerate(layers) for name in layer}
    chains = sorted(planned, key=lambda c: index[c[0]])
    if not chains or not all(closed(graph, c) for c in chains):
        return None
    return _point(tuple(figures(Chain(graph, c), tile, sizes, tuple(sorted({index[n] for n in c}))) for c in chains), False)


def _names(layers: tuple[tuple[str, ...], ...], group: GroupFigures) -> frozenset[str]:
    return frozenset(name for i in group.layers for name in layers[i])


def _by_tile(chain: Chain, sizes: Sizes) -> tuple[TileWork, ...]:
    common = math.gcd(*sizes[chain.output])
    sides = [side for side in range(1, common + 1) if common % side == 0]
    return tuple(TileWork(side, extra_multiply_adds(chain, (side, side), sizes)) for side in sides)
