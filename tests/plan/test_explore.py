"""Exploration: the published figures of fused-layer CNNs, and every claim of an `Exploration` worked out a second way.

The figures are those of Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", MICRO 2016: fp32, one image, weights
not counted, boxes clipped at the image's borders, an output tile of one pixel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from unittest import mock

import networkx as nx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusec.errors import Infeasible, InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import Simplified, simplify
from fusec.pipeline import read
from fusec.plan import explore as module
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, cost, nominal_for, sizes_of
from fusec.plan.explore import MAX_BRANCHED, MAX_LAYERS, MAX_LISTED, Exploration, Point, explore
from fusec.plan.footprint import granularity, pyramid
from fusec.plan.groups import layers_of
from fusec.plan.partition import depth_first, is_chain
from fusec.schedule.ir import Chain, Tile
from fusec.targets.device import DEVICES
from tests.plan.networks import Net, fire, inverted, residual
from tests.strategies import float_graphs, sizes

KIB, MIB, FP32 = 1024, 1024**2, 4
VGG_RANGE = "conv1_1..conv3_1"
VGG_B = ((0, 2), (3, 3), (4, 5), (6, 6))  # {conv1_1, conv1_2, pool1}, {conv2_1}, {conv2_2, pool2}, {conv3_1}


@cache
def network(name: str) -> Simplified:
    """A shipped network, whose weights nothing here asks for."""
    return simplify(read(name, missing="blank"))


def explored(name: str, layers: str | None = None, tile: tuple[int, int] = (1, 1)) -> Exploration:
    found = network(name)
    return explore(found.graph, nominal_for(found.graph), layers=layers, tile=tile, absorbed=found.absorbed)


def cut(point: Point) -> tuple[tuple[int, int], ...]:
    """The first and the last layer of each group, all of which are intervals."""
    assert all(g.layers == tuple(range(g.first, g.last + 1)) for g in point.groups)
    return tuple((g.first, g.last) for g in point.groups)


def groups_of(point: Point) -> tuple[tuple[int, ...], ...]:
    return tuple(g.layers for g in point.groups)


def all_partitions(graph: LayerGraph, layers: list[tuple[str, ...]]) -> set[frozenset[frozenset[str]]]:
    """By definition: every way to put layers together, less those with a group that is no chain or with a circle of groups."""
    found: set[frozenset[frozenset[str]]] = set()
    for ways in set_partitions(layers):
        names = [frozenset(n for layer in group for n in layer) for group in ways]
        digraph = nx.quotient_graph(graph.digraph.subgraph(set().union(*names)), [set(g) for g in names], relabel=True)
        if nx.is_directed_acyclic_graph(digraph) and all(is_chain(graph, g) is None for g in names):
            found.add(frozenset(names))
    return found


def set_partitions(items: list[tuple[str, ...]]) -> Iterator[list[list[tuple[str, ...]]]]:
    if not items:
        yield []
        return
    for rest in set_partitions(items[1:]):
        yield [[items[0]], *rest]
        for i, group in enumerate(rest):
            yield [*rest[:i], [items[0], *group], *rest[i + 1:]]


def at(found: Exploration, groups: tuple[tuple[int, int], ...]) -> Point:
    return next(p for p in found.points if cut(p) == groups)


@pytest.fixture(scope="module")
def vgg() -> Exploration:
    return explored("vgg_e", VGG_RANGE)


@pytest.fixture(scope="module")
def alexnet() -> Exploration:
    return explored("alexnet_prefix")


class TestVgg:
    """224x224x3; 64, 64, pool, 128, 128, pool, 256; 3x3 with padding 1; pools 2/2.

    Tensors in thousands of elements: image 3 * 224^2, conv1_1 and conv1_2 64 * 224^2, pool1 64 * 112^2, conv2_1 and conv2_2
    128 * 112^2, pool2 128 * 56^2, conv3_1 256 * 56^2.
    """

    IMAGE, CONV1, POOL1, CONV2, POOL2, CONV3 = 3 * 224**2, 64 * 224**2, 64 * 112**2, 128 * 112**2, 128 * 56**2, 256 * 56**2

    def test_layers_and_partitions(self, vgg: Exploration) -> None:
        assert vgg.layers == ("conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2", "conv3_1")
        assert (vgg.partitions, len(vgg.points), vgg.listed) == (64, 64, True)

    def test_layer_by_layer_with_pools_of_their_own(self, vgg: Exploration) -> None:
        """Every tensor but the first and the last is written once and read once."""
        between = 2 * self.CONV1 + self.POOL1 + 2 * self.CONV2 + self.POOL2
        assert vgg.layer_by_layer.bytes_moved == FP32 * (self.IMAGE + 2 * between + self.CONV3)
        assert round(vgg.layer_by_layer.bytes_moved / MIB, 2) == 86.32

    def test_layer_by_layer_with_pools_merged(self, vgg: Exploration) -> None:
        """The other convention: conv1_2 and conv2_2 hand their values to the pool behind them."""
        between = self.CONV1 + self.POOL1 + self.CONV2 + self.POOL2
        assert cut(vgg.pools_merged) == ((0, 0), (1, 2), (3, 3), (4, 5), (6, 6))
        assert vgg.pools_merged.bytes_moved == FP32 * (self.IMAGE + 2 * between + self.CONV3)
        assert round(vgg.pools_merged.bytes_moved / MIB, 2) == 49.57

    def test_point_b(self, vgg: Exploration) -> None:
        """25.07 MiB: image, pool1, conv2_1, pool2 and conv3_1. About 118 KiB, in the group of conv1_1, conv1_2 and pool1.

        conv1_1 keeps two rows of the image, conv1_2 two rows of conv1_1 and, at the left edge of a tile with two rows of
        conv1_2 and so four of conv1_1, two columns of the 4 - 2 rows that are not kept anyway. With the image's left edge too
        (six rows of the image, two of them kept) it is 118.34 KiB; without the image's rows 113 KiB.
        """
        point = at(vgg, VGG_B)
        assert point.bytes_moved == FP32 * (self.IMAGE + 2 * (self.POOL1 + self.CONV2 + self.POOL2) + self.CONV3)
        assert round(point.bytes_moved / MIB, 2) == 25.07
        rows, columns = 2 * 224 * (3 + 64), 2 * (4 - 2) * 64
        assert point.buffer_bytes == point.groups[0].buffer_bytes == FP32 * (rows + columns)
        assert point.buffer_bytes / KIB == 118.25
        assert point.groups[0].input_column_bytes == FP32 * 2 * (6 - 2) * 3
        assert round(point.edge_buffer_bytes / KIB, 2) == 118.34
        assert point.inner_buffer_bytes / KIB == 113
        assert point.pareto

    def test_point_c(self, vgg: Exploration) -> None:
        """3.637 MiB: image and conv3_1. About 362 KiB: two rows of each convolution's input over the width of the image, and
        two columns of all that are made on chip. The tile of one pixel has a pyramid 3 (pool2), 8 (conv2_1), 10 (pool1) and
        22 (conv1_1) rows high, two of which are kept anyway; a pool keeps nothing. With the left edge of the image (24 rows)
        it is 362.77 KiB, without any of the image's rows 357 KiB.
        """
        point = vgg.all_fused
        assert point is not None
        assert point.bytes_moved == FP32 * (self.IMAGE + self.CONV3)
        assert round(point.bytes_moved / MIB, 3) == 3.637
        rows = 2 * (224 * (3 + 64) + 112 * (64 + 128) + 56 * 128)
        columns = 2 * ((22 - 2) * 64 + (10 - 2) * 64 + (8 - 2) * 128 + (3 - 2) * 128)
        assert point.buffer_bytes == FP32 * (rows + columns)
        assert point.buffer_bytes / KIB == 362.25
        assert point.edge_buffer_bytes == FP32 * (rows + columns + 2 * (24 - 2) * 3)
        assert round(point.edge_buffer_bytes / KIB, 2) == 362.77
        assert point.inner_buffer_bytes / KIB == 357

    def test_recompute(self, vgg: Exploration) -> None:
        """Work of the five convolutions by output tile, layer by layer 1."""
        ratios = {w.side: vgg.work_ratio(w.extra_multiply_adds) for w in vgg.by_tile}
        assert list(ratios) == [1, 2, 4, 7, 8, 14, 28, 56]
        assert [float(f"{ratios[side]:.3g}") for side in (1, 7, 14, 28)] == [13.9, 1.76, 1.30, 1.09]
        assert ratios[56] == 1
        for side in (7, 28):
            fused = explored("vgg_e", VGG_RANGE, (side, side)).all_fused
            assert fused is not None
            assert vgg.work_ratio(fused.extra_multiply_adds) == ratios[side]

    @pytest.mark.parametrize("side", [1, 7, 14, 28])
    def test_recompute_by_walking_back_tile_by_tile(self, vgg: Exploration, side: int) -> None:
        """Rows of each layer that all tiles compute, by clipped ranges; columns are as many."""
        layers = [(224, 3, 1, 64 * 3), (224, 3, 1, 64 * 64), (112, 2, 2, 0), (112, 3, 1, 128 * 64), (112, 3, 1, 128 * 128),
                  (56, 2, 2, 0), (56, 3, 1, 256 * 128)]  # rows, kernel, stride, products of one tap
        assert vgg.work_ratio(next(w.extra_multiply_adds for w in vgg.by_tile if w.side == side)) == pytest.approx(
            walked(layers, side) / sum(rows**2 * 9 * products for rows, _, _, products in layers))

    def test_weights_are_apart(self, vgg: Exploration) -> None:
        weights = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256) + 64 + 64 + 128 + 128 + 256
        assert vgg.weight_bytes == FP32 * weights


def walked(layers: list[tuple[int, int, int, int]], side: int) -> int:
    """Multiply-adds of all tiles of `side` pixels, each walked back through convolutions padded to keep the size and pools."""
    rows = [0] * len(layers)
    for origin in range(0, layers[-1][0], side):
        start, end = origin, min(origin + side, layers[-1][0])
        for i in reversed(range(len(layers))):
            size, kernel, stride, _ = layers[i]
            start, end = max(start, 0), min(end, size)
            rows[i] += end - start
            before = kernel // 2 if stride == 1 else 0
            start, end = start * stride - before, (end - 1) * stride - before + kernel
    return sum(n**2 * kernel**2 * products for n, (_, kernel, _, products) in zip(rows, layers, strict=True))


class TestAlexnet:
    """227x227x3; 48 maps of 11x11/4: 55x55; pool 3/2: 27x27; 128 maps of 5x5 with padding 2: 27x27; pool 3/2: 13x13."""

    IMAGE, CONV1, POOL1, CONV2, POOL2 = 3 * 227**2, 48 * 55**2, 48 * 27**2, 128 * 27**2, 128 * 13**2

    def test_bytes(self, alexnet: Exploration) -> None:
        """The paper's baseline merges each pool into its convolution; with pools of their own it is 2.8 MiB."""
        assert alexnet.pools_merged.bytes_moved == FP32 * (self.IMAGE + 2 * self.POOL1 + self.POOL2)
        assert round(alexnet.pools_merged.bytes_moved / KIB, 1) == 961.7
        between = self.CONV1 + self.POOL1 + self.CONV2
        assert alexnet.layer_by_layer.bytes_moved == FP32 * (self.IMAGE + 2 * between + self.POOL2)
        assert alexnet.all_fused is not None
        assert alexnet.all_fused.bytes_moved == FP32 * (self.IMAGE + self.POOL2)
        assert round(alexnet.all_fused.bytes_moved / KIB, 1) == 688.4

    def test_recompute(self, alexnet: Exploration) -> None:
        """678.2 million more: 13 tiles along an axis compute 3 rows of conv2 each, where there are 27; and of conv1 15 rows
        each, but 11 in the first and the last tile, where pool1's rows are conv2's padding: 187, where there are 55."""
        conv1, conv2 = 11 * 11 * 3 * 48, 5 * 5 * 48 * 128  # of one pixel
        assert alexnet.multiply_adds == conv1 * 55**2 + conv2 * 27**2
        assert alexnet.all_fused is not None
        extra = conv1 * ((11 * 15 + 2 * 11)**2 - 55**2) + conv2 * ((13 * 3)**2 - 27**2)
        assert alexnet.all_fused.extra_multiply_adds == extra
        assert round(extra / 1e6, 1) == 678.2

    def test_buffers(self, alexnet: Exploration) -> None:
        """Rows: 7 of the image, 1 of conv1, 4 of pool1, 1 of conv2. Columns, of pyramids 15, 7 and 3 rows high."""
        rows = 7 * 227 * 3 + 1 * 55 * 48 + 4 * 27 * 48 + 1 * 27 * 128
        columns = 1 * (15 - 1) * 48 + 4 * (7 - 4) * 48 + 1 * (3 - 1) * 128
        assert alexnet.all_fused is not None
        assert alexnet.all_fused.buffer_bytes == FP32 * (rows + columns)
        assert alexnet.all_fused.edge_buffer_bytes == FP32 * (rows + columns + 7 * (67 - 7) * 3)

    def test_eight_layers_of_the_whole_network(self) -> None:
        """Five convolutions and three pools; norms count with the convolution before, and the other figure is there too."""
        found = explored("alexnet", "conv1..pool5")
        assert found.layers == ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
        assert (found.partitions, len(found.points)) == (128, 128)
        norms = 2 * FP32 * (96 * 55**2 + 256 * 27**2)
        assert found.norms_apart_bytes == found.layer_by_layer.bytes_moved + norms


@st.composite
def networks(draw: st.DrawFn) -> tuple[LayerGraph, Nominal]:
    """Random networks of up to 10 layers, and a size for them."""
    graph = simplify(draw(float_graphs(8, max_channels=9, max_extent=20))).graph
    assume(1 <= len(graph.layers) <= 10)
    return graph, Nominal((draw(st.integers(1, 3)),), *draw(sizes(graph, 20)))


class TestClaims:
    @settings(max_examples=60)
    @given(case=networks(), tile=st.tuples(st.integers(1, 6), st.integers(1, 6)), most=st.sampled_from([0, 16]))
    def test_listing_and_dynamic_programming_agree(self, case: tuple[LayerGraph, Nominal], tile: tuple[int, int],
                                                   most: int) -> None:
        graph, nominal = case
        with mock.patch.object(module, "MAX_BRANCHED", most):
            listed, found = explore(graph, nominal, tile=tile), explore(graph, nominal, tile=tile, limit=0)
        assert listed.complete == found.complete
        assert (listed.listed, found.listed) == (True, False)
        assert listed.partitions == found.partitions == len(listed.points)
        assert all(p.pareto for p in found.points)
        assert [(p.bytes_moved, p.buffer_bytes, p.extra_multiply_adds, len(p.groups)) for p in found.points] \
            == [(p.bytes_moved, p.buffer_bytes, p.extra_multiply_adds, len(p.groups)) for p in listed.front]
        assert found.ends.keys() == listed.ends.keys()
        for name, point in listed.ends.items():
            assert found.ends[name].groups == point.groups

    @settings(max_examples=60)
    @given(case=networks())
    def test_partitions(self, case: tuple[LayerGraph, Nominal]) -> None:
        """Each has every layer once, in legal chains that can run in turn, none comes twice, and figures are its groups'."""
        graph, nominal = case
        found = explore(graph, nominal)
        layers = layers_of(graph, depth_first(graph))
        extents = sizes_of(graph, nominal)
        assert found.complete
        assert len({groups_of(p) for p in found.points}) == len(found.points)

        def whole(tensor: str) -> int:
            return FP32 * graph.shapes[tensor].channels * math.prod(extents[tensor])

        for point in found.points:
            assert sorted(i for g in point.groups for i in g.layers) == list(range(len(layers)))
            chains = [Chain(graph, tuple(n for i in g.layers for n in layers[i])) for g in point.groups]
            assert all(is_chain(graph, c.names) is None for c in chains)
            made = {n.name for n in graph.inputs}
            for chain in chains:
                assert made.issuperset(chain.inputs)
                made.update(chain.names)
            assert point.bytes_moved == sum(whole(t) for c in chains for t in {*c.inputs, c.output})
            assert point.buffer_bytes == max(g.buffer_bytes for g in point.groups)
            assert point.inner_buffer_bytes <= point.buffer_bytes <= point.edge_buffer_bytes
            assert sum(g.multiply_adds for g in point.groups) == found.multiply_adds

    @settings(max_examples=60)
    @given(case=networks())
    def test_all_convex_cuts_are_tried(self, case: tuple[LayerGraph, Nominal]) -> None:
        """But for groups whose tiles no independent blocks compute, these are all partitions there are."""
        graph, nominal = case
        layers = layers_of(graph, depth_first(graph))
        assume(len(layers) <= 7)
        found = explore(graph, nominal)
        groups = {frozenset(frozenset(n for i in g.layers for n in layers[i]) for g in p.groups) for p in found.points}
        order = depth_first(graph)

        @cache
        def has_tiles(group: frozenset[str]) -> bool:
            chain = Chain(graph, tuple(n for n in order if n in group))
            sides = (granularity(chain, axis) for axis in L.Axis)
            try:
                return bool(pyramid(chain, Tile(1, chain.shapes[chain.output].channels, *sides)).tensors)
            except Infeasible:
                return False

        assert groups == {p for p in all_partitions(graph, list(layers)) if all(map(has_tiles, p))}
        assert len(groups) == found.partitions

    @settings(max_examples=30)
    @given(case=networks())
    def test_layer_by_layer_keeps_nothing_between_layers(self, case: tuple[LayerGraph, Nominal]) -> None:
        """Nor does it compute anything twice."""
        found = explore(*case)
        assert found.layer_by_layer.inner_buffer_bytes == 0
        assert found.layer_by_layer.extra_multiply_adds == 0
        assert found.norms_apart_bytes >= found.layer_by_layer.bytes_moved

    @settings(max_examples=40)
    @given(case=networks(), tile=st.tuples(st.integers(1, 5), st.integers(1, 5)))
    def test_extra_work_is_that_of_the_schedule(self, case: tuple[LayerGraph, Nominal], tile: tuple[int, int]) -> None:
        """Of the planner's own schedule with the same tile, where it takes that one as it stands."""
        graph, nominal = case
        extents = sizes_of(graph, nominal)
        found = explore(graph, nominal, tile=tile)
        layers = layers_of(graph, depth_first(graph))
        for group in {g for p in found.points for g in p.groups}:
            chain = Chain(graph, tuple(n for i in group.layers for n in layers[i]))
            if any(granularity(chain, axis) > 1 for axis in L.Axis):
                continue  # the tile is another one
            height, width = (min(t, n) for t, n in zip(tile, extents[chain.output], strict=True))
            schedule = construct(chain, Tile(1, chain.shapes[chain.output].channels, height, width), DEVICES["h200"], ())
            assert group.extra_multiply_adds == cost(schedule, DEVICES["h200"], nominal.at(1)).extra

    def test_chain_of_n_layers_has_two_to_the_n_less_one(self) -> None:
        net = Net(2, 40, 40)
        for i in range(9):
            net.conv(f"c{i}", 2)
        assert explore(net.graph(), Nominal()).partitions == 2**8

    def test_branches(self) -> None:
        """A block with a skip is one group or has its input cut; never a group whose inner tensor is read outside."""
        found = explore(residual(), Nominal())
        assert found.layers == ("stem", "a1", "a2", "down", "add1", "b1", "b2", "add2")
        groups = {c for p in found.points for c in groups_of(p)}
        assert {(1, 2, 3, 4), (5, 6, 7), (0, 1, 2, 3, 4), (2, 4), (2, 3, 4), (3, 4), (1, 2, 4)} <= groups
        assert not {(0, 1), (4, 5), (4, 5, 6), (2, 3), (0, 1, 2, 4), (1, 4)} & groups
        assert found.all_fused is not None
        assert found.complete

    def test_branches_of_many_layers_are_cut_into_intervals(self) -> None:
        """What is left out is said; blocks whose skip has no layer of its own are cut into intervals in any case."""
        with mock.patch.object(module, "MAX_BRANCHED", 7):
            found = explore(residual(), Nominal())
        assert not found.complete
        assert {groups_of(p) for p in found.points} < {groups_of(p) for p in explore(residual(), Nominal()).points}
        assert {(1, 2, 3, 4), (3, 4)} <= {c for p in found.points for c in groups_of(p)}
        assert all(cut(p) for p in found.points)
        assert explore(inverted(6), Nominal()).complete
        assert not explored("resnet18").complete

    def test_a_group_is_called_by_its_layers(self) -> None:
        found = explore(residual(), Nominal())
        named = {g.layers: found.called(g) for p in found.points for g in p.groups}
        assert [named[g] for g in ((0,), (5, 6, 7), (2, 4), (1, 2, 4))] == ["stem", "b1..add2", "a2+add1", "a1..a2+add1"]

    @pytest.mark.parametrize(("branches", "complete"), [(7, True), (8, False), (MAX_BRANCHED - 1, False)])
    def test_layers_of_which_there_are_too_many_groups(self, branches: int, complete: bool) -> None:
        """Side by side n layers have 2 ** n groups with the one that reads them all, and as many partitions."""
        net = Net(2, 8, 8)
        for i in range(branches):
            net.conv(f"c{i}", 2, 3, 1, "input")
        net("all", L.Concat(), *(f"c{i}" for i in range(branches)))
        with mock.patch.object(module, "MAX_GROUPS", 2**7 + 7):
            found = explore(net.graph(), Nominal())
        assert found.complete is complete
        assert found.partitions == (2**branches if complete else branches + 1)

    @pytest.mark.parametrize("limit", [100, 5])
    def test_many_convex_cuts_leave_their_front(self, limit: int) -> None:
        listed, found = explore(residual(), Nominal()), explore(residual(), Nominal(), limit=limit)
        assert (found.complete, found.partitions, found.listed) == (True, listed.partitions, listed.partitions <= limit)
        assert [groups_of(p) for p in found.front] == [groups_of(p) for p in listed.front]

    def test_a_fire_module(self) -> None:
        """Its global pool reads a whole image of known size, which is one tile then: nothing is done twice."""
        found = explore(fire(), Nominal())
        assert found.all_fused is not None
        assert found.all_fused.extra_multiply_adds == 0

    def test_upsampling_takes_its_steps(self) -> None:
        """A tile of one pixel behind an enlargement by 2 is one of two: its origin has to be a whole pixel before."""
        net = Net(2, 8, 8)
        net.conv("conv", 2)
        net("up", L.Upsample((2, 2)))
        one, two = (explore(net.graph(), Nominal(), tile=(n, n)).all_fused for n in (1, 2))
        assert one == two
        assert one is not None
        assert one.extra_multiply_adds == 0

    def test_a_tile_as_wide_as_the_image_has_no_left_edge(self, vgg: Exploration) -> None:
        wide = explored("vgg_e", VGG_RANGE, (1, 56)).all_fused
        assert wide is not None and vgg.all_fused is not None
        assert wide.buffer_bytes == wide.edge_buffer_bytes == FP32 * 2 * (224 * (3 + 64) + 112 * (64 + 128) + 56 * 128)
        assert wide.extra_multiply_adds < vgg.all_fused.extra_multiply_adds

    @pytest.mark.parametrize("groups", [VGG_B, ((0, 6),), tuple((i, i) for i in range(7))])
    def test_the_planners_own(self, groups: tuple[tuple[int, int], ...]) -> None:
        """Chains of the whole network; those outside the range do not matter, nor how far one reaches out of it."""
        found = network("vgg_e")
        order = depth_first(found.graph)
        ends = [*(last + 1 for _, last in groups[:-1]), 9, len(order)]
        planned = [order[i:j] for i, j in pairwise([0, *ends])]
        exploration = explore(found.graph, nominal_for(found.graph), layers=VGG_RANGE, absorbed=found.absorbed, planned=planned)
        assert exploration.chosen is not None
        assert cut(exploration.points[exploration.chosen]) == groups

    def test_a_plan_that_parts_a_layer_is_counted_with_that_layer_whole(self) -> None:
        """A norm that is planned alone, or with the pool behind it, counts with the convolution before it."""
        found = network("alexnet")
        order = depth_first(found.graph)
        for planned in ([(n,) for n in order], [("conv1",), ("norm1", "pool1"), *((n,) for n in order[3:])]):
            exploration = explore(found.graph, Nominal(), absorbed=found.absorbed, planned=planned)
            assert exploration.planned == exploration.layer_by_layer
            assert exploration.chosen is not None
            assert exploration.behind == ("norm1", "norm2", "prob")

    def test_long_networks_are_not_listed(self) -> None:
        found = explored("vgg_e")
        assert (len(found.layers), found.partitions, found.listed) == (24, 2**23, False)
        data = found.to_json()
        assert data["left_out"] == 2**23 - len(found.points)
        moved, buffers = ([getattr(p, key) for p in found.points] for key in ("bytes_moved", "buffer_bytes"))
        assert moved == sorted(set(moved))
        assert buffers == sorted(set(buffers), reverse=True)
        assert found.all_fused is not None
        assert moved[0] == found.all_fused.bytes_moved

    def test_open_sizes(self) -> None:
        """A global pool behind a convolution of open size cannot be fused by independent tiles, so not all layers are one."""
        graph = network("resnet18").graph
        found = explore(graph, nominal_for(graph, (1, 3, 64, 96)))
        assert (found.height, found.width, found.all_fused, found.by_tile) == (64, 96, None, ())
        assert set(found.ends) == {"layer by layer", "layer by layer, pools merged"}

    def test_json(self, vgg: Exploration) -> None:
        data = json.loads(json.dumps(vgg.to_json()))
        assert data["left_out"] == 0
        assert len(data["groups"]) == 7 * 8 // 2
        figures = {tuple(g["layers"]): g for g in data["groups"]}
        for point in data["points"]:
            assert point["bytes_moved"] == sum(figures[tuple(g)]["bytes_moved"] for g in point["groups"])
        assert (data["chosen"], data["planned"], data["complete"]) == (None, None, True)
        assert data["ends"]["all fused"]["buffer_bytes"] == 362.25 * KIB


    def test_json_has_what_is_planned_in_full(self) -> None:
        """Whether it is among the points or, where only the front is, not."""
        found = network("alexnet")
        order = depth_first(found.graph)
        planned = [order[:2], order[2:6], order[6:]]
        for limit, listed in ((MAX_LISTED, True), (0, False)):
            exploration = explore(found.graph, Nominal(), absorbed=found.absorbed, planned=planned, limit=limit)
            data = json.loads(json.dumps(exploration.to_json()))
            assert (data["chosen"] is not None) is listed
            assert exploration.planned is not None
            assert data["planned"].keys() == data["points"][0].keys()
            assert data["planned"]["bytes_moved"] == sum(g["bytes_moved"] for g in data["planned"]["groups"])
            assert data["planned"]["buffer_bytes"] == max(g["buffer_bytes"] for g in data["planned"]["groups"])
            assert [g["layers"] for g in data["planned"]["groups"]] == [list(g.layers) for g in exploration.planned.groups]
            assert len(data["planned"]["groups"]) == len(planned)


class TestErrors:
    @pytest.mark.parametrize(("layers", "said"), [
        ("conv1..conv9", "layers: unknown layer 'conv9' (did you mean"),
        ("conv1-pool2", "layers: unknown layer 'conv1-pool2' (ranges are written first..last: conv1..pool2)"),
        ("image..conv2", "layers: unknown layer 'image'"),
        ("pool2..conv1", "layers: 'pool2..conv1' runs backwards (write conv1..pool2)"),
        ("conv1..", "layers: 'conv1..' is no range (write first..last)"),
        ("", "layers: '' is no range"),
        ("conv1..pool1..pool2", "is no range"),
    ])
    def test_ranges(self, layers: str, said: str) -> None:
        with pytest.raises(InputError) as caught:
            explored("alexnet_prefix", layers)
        assert said in str(caught.value)

    def test_both_unknown_names_at_once(self) -> None:
        with pytest.raises(InputError) as caught:
            explored("alexnet_prefix", "a..b")
        assert len(caught.value.problems) == 2

    def test_absorbed_names_are_known(self) -> None:
        assert explored("alexnet_prefix", "relu1..relu2").layers == ("conv1", "pool1", "conv2")
        assert explored("alexnet_prefix", "pool1").layers == ("pool1",)

    def test_too_many_layers(self) -> None:
        net = Net(1, 8, 8)
        for i in range(MAX_LAYERS + 1):
            net.conv(f"c{i}", 1, 1)
        with pytest.raises(InputError, match=f"{MAX_LAYERS + 1} layers are too many to explore"):
            explore(net.graph(), Nominal())
        assert len(explore(net.graph(), Nominal(), layers="c0..c9").layers) == 10
