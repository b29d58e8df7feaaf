"""Counts against counting: every closed form of the cost model, by looping over tiles and positions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.simplify import simplify
from fusec.plan.boxes import boxes_of
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, cost, nominal_for, sizes_of
from fusec.plan.counting import covered
from fusec.plan.footprint import pyramid
from fusec.plan.timing import works_of
from fusec.schedule.ir import Affine, Chain, Schedule, Stage, Tile
from fusec.targets.device import DEVICES, generic_host
from tests.plan.networks import Net, residual, vgg_prefix
from tests.strategies import float_graphs, sizes
from tests.strategies_schedule import PLANNED, chains, schedules

H200, CPU = DEVICES["h200"], generic_host()


@given(step=st.integers(0, 9), offset=st.integers(-20, 20), extent=st.integers(0, 15), size=st.integers(1, 30),
       tiles=st.integers(1, 9))
def test_covered_counts_positions(step: int, offset: int, extent: int, size: int, tiles: int) -> None:
    expected = sum(0 <= k * step + offset + i < size for k in range(tiles) for i in range(extent))
    assert int(covered(*map(np.int64, (step, offset, extent, size, tiles)))) == expected


def clipped(part: Affine, origin: int, size: int) -> range:
    if part.extent is None:
        return range(size)
    start = int(part.scale * origin) + part.offset
    return range(max(0, start), max(0, min(size, start + part.extent)))


def rows_of(schedule: Schedule, tensor: str, part: Affine, y: int, out: int, size: int) -> set[int]:
    """Rows of a tensor that the tile at row `y` makes or reads in all its steps, each once."""
    if schedule.step is None:
        return set(clipped(part, y, size))
    whole = pyramid(schedule.chain, replace(schedule.tile, height=schedule.step)).tensors[tensor].y
    assert part.extent is not None
    fresh, rows = min(part.extent, int(part.scale * schedule.step)), set()
    for step in schedule.steps(y, out):
        end = int(part.scale * step) + part.offset + part.extent
        rows |= {r for r in range(end - fresh, end) if r >= int(part.scale * y) + whole.offset and 0 <= r < size}
    return rows


def busy_steps(schedule: Schedule, stage: Stage, y: int, out: int) -> int:
    """Steps of the tile at row `y` in which a stage makes a row, inside the image or not."""
    box = stage.footprint.y
    ends = [int(box.scale * step) + box.offset + (box.extent or 0) for step in schedule.steps(y, out)]
    return sum(stage.start is None or end > int(box.scale * y) + stage.start for end in ends)


def taps(layer: L.Layer, axis: L.Axis, position: int) -> int:
    """Filter taps that reach output `position`, one after the other."""
    if isinstance(layer, L.ConvTranspose2d):
        w = layer.window(axis)
        return sum((position + w.before - k * w.dilation) % w.stride == 0 for k in range(w.size))
    return layer.kernel[axis.value] if isinstance(layer, L.Conv2d) else 1


def brute_stage(schedule: Schedule, index: int, nominal: Nominal) -> tuple[int, int]:
    """(positions, multiply-adds) of a stage, by looping over tiles, rows and columns."""
    stage, chain = schedule.stages[index], schedule.chain
    extents = sizes_of(chain.graph, nominal)
    tensor = stage.writes.tensor
    channels, (height, width) = chain.shapes[tensor].channels, extents[tensor]
    layer = stage.node.layer if stage.node else L.Identity()
    depth = 0
    if isinstance(layer, L.Conv2d | L.ConvTranspose2d) and stage.node:
        depth = chain.shapes[stage.node.inputs[0]].channels // layer.groups
    positions = products = 0
    for n, c, y, x in schedule.tiles(nominal.batch, *extents[chain.output]):
        images = min(schedule.tile.images, nominal.batch - n)
        box = stage.footprint
        values = images * len(clipped(box.c, c, channels))
        rows, columns = rows_of(schedule, tensor, box.y, y, extents[chain.output][0], height), clipped(box.x, x, width)
        positions += values * len(rows) * len(columns)
        if depth:
            products += values * depth * sum(taps(layer, L.Axis.Y, i) * taps(layer, L.Axis.X, j) for i in rows for j in columns)
    return positions, products


@st.composite
def cases(draw: st.DrawFn) -> tuple[Schedule, Nominal]:
    graph = simplify(draw(float_graphs(5, max_channels=7, max_extent=11))).graph
    assume(graph.layers)
    height, width = draw(sizes(graph, 11))
    schedule = draw(schedules(draw(chains(graph)), executions=PLANNED))
    return schedule, Nominal((draw(st.integers(1, 5)),), height, width)


@settings(max_examples=80)
@given(case=cases())
def test_counts_equal_brute_force(case: tuple[Schedule, Nominal]) -> None:
    schedule, nominal = case
    chain, extents, found = schedule.chain, sizes_of(schedule.chain.graph, nominal), cost(schedule, H200, nominal)
    assert [(s.positions, s.multiply_adds) for s in found.stages] == \
        [brute_stage(schedule, i, nominal) for i in range(len(schedule.stages))]
    origins = list(schedule.tiles(nominal.batch, *extents[chain.output]))
    assert found.tiles == len(origins)
    boxes = {r.buffer.tensor: r.buffer.footprint for s in schedule.stages for r in s.reads}
    read = weights = 0
    for n, c, y, x in origins:
        for t in chain.inputs:
            box = boxes[t]
            read += min(schedule.tile.images, nominal.batch - n) * len(clipped(box.c, c, chain.shapes[t].channels)) \
                * len(rows_of(schedule, t, box.y, y, extents[chain.output][0], extents[t][0])) \
                * len(clipped(box.x, x, extents[t][1]))
        for stage in schedule.stages:
            if stage.node and "weight" in stage.node.params and isinstance(stage.node.layer, L.Conv2d):
                steps = busy_steps(schedule, stage, y, extents[chain.output][0])
                weights += steps * len(clipped(stage.footprint.c, c, stage.node.layer.out_channels)) * (
                    stage.node.params["weight"][0].size + int(stage.node.layer.bias))
    assert found.bytes_read == 4 * read
    assert found.bytes_written == 4 * nominal.batch * chain.shapes[chain.output].channels * math.prod(extents[chain.output])
    if all(isinstance(n.layer, L.Conv2d | L.Add | L.MaxPool2d | L.Concat) and not n.epilogue for n in chain.nodes):
        assert found.weight_traffic == 4 * weights


@settings(max_examples=80)
@given(case=cases())
def test_the_time_model_counts_no_less_than_the_work_and_no_more_than_all_boxes(case: tuple[Schedule, Nominal]) -> None:
    """Rows, columns and images of a stage over all tiles, as a CPU's time is made of them: between the positions inside the
    image, which are counted exactly, and the boxes of all tiles."""
    schedule, nominal = case
    boxes = boxes_of(schedule, sizes_of(schedule.chain.graph, nominal), nominal.batch)
    exact = {s.name: s.positions for s in cost(schedule, CPU, nominal).stages}
    names = {s.writes.tensor: s.name for s in schedule.stages}
    staged = {s.writes.tensor for s in schedule.stages if s.node is None}
    channels = boxes.grid[0] * boxes.images  # each tile makes its own
    for tensor, work in works_of(schedule.chain, boxes, staged, CPU).items():
        each = work.box[0] * channels * -(-nominal.batch // boxes.images) * boxes.grid[1] * boxes.grid[2]
        rows = work.box[1] * work.passes
        [counted], [most] = each * rows * work.share * work.columns, each * rows * work.box[2]
        assert exact[names[tensor]] * (1 - 1e-9) <= counted <= most * (1 + 1e-9)


@settings(max_examples=40)
@given(case=cases())
def test_unfused_counts_are_those_of_one_covering_tile_per_layer(case: tuple[Schedule, Nominal]) -> None:
    schedule, nominal = case
    chain, extents = schedule.chain, sizes_of(schedule.chain.graph, nominal)
    found = cost(schedule, H200, nominal)
    single = 0
    for node in chain.nodes:
        alone = Chain(chain.graph, (node.name,))
        height, width = extents[node.name]
        tile = Tile(nominal.batch, chain.shapes[node.name].channels, height, width)
        single += sum(brute_stage(construct(alone, tile, H200, ()), 0, nominal))
    counted = sum(s.unfused_multiply_adds for s in found.stages)
    outputs = sum(nominal.batch * chain.shapes[n].channels * math.prod(extents[n]) for n in chain.names)
    assert counted + outputs == single
    assert found.unfused_multiply_adds == counted
    assert found.extra == found.multiply_adds - counted


def test_transposed_convolution_counts_every_input_once_per_weight() -> None:
    """Each input value meets each weight once: the number everyone quotes; padding cuts the outermost taps off."""
    net = Net(3, 5, 7)
    net("up", L.ConvTranspose2d((3, 3), (2, 2), out_channels=4))
    graph = net.graph()
    schedule = construct(Chain(graph, ("up",)), Tile(1, 4, 11, 15), H200, ())
    found = cost(schedule, H200, Nominal((1,)))
    # rows of taps: 11 outputs, those at even positions meet kernel rows 0 and 2, those at odd ones row 1
    assert found.multiply_adds == 3 * 4 * (6 * 2 + 5) * (8 * 2 + 7)


class TestVggPrefix:
    """The first five convolutions of VGG, Alwani et al., "Fused-layer CNN accelerators", MICRO 2016."""

    def fused(self, side: int) -> tuple[float, int, int]:
        graph = vgg_prefix()
        chain = Chain(graph, tuple(n.name for n in graph.layers))
        found = cost(construct(chain, Tile(1, 256, side, side), CPU, chain.inputs), CPU, Nominal((1,)))
        return found.multiply_adds / found.unfused_multiply_adds, found.boundary_bytes, found.bytes_read + found.bytes_written

    @pytest.mark.parametrize(("side", "factor"), [(1, 13.9), (7, 1.76), (14, 1.30), (28, 1.09)])
    def test_recomputation(self, side: int, factor: float) -> None:
        assert self.fused(side)[0] == pytest.approx(factor, rel=0.005)

    def test_traffic_is_the_picture_and_the_last_tensor(self) -> None:
        _, boundary, moved = self.fused(56)
        assert boundary == moved == 4 * (3 * 224 * 224 + 256 * 56 * 56)
        assert boundary / 2**20 == pytest.approx(3.637, abs=0.001)

    def test_one_tile_recomputes_nothing(self) -> None:
        assert self.fused(56)[0] == 1.0


def test_more_overlap_costs_more() -> None:
    graph = residual(32)
    chain = Chain(graph, ("stem", "a1", "a2", "down", "add1"))
    for device in (H200, CPU):
        schedules_ = [construct(chain, Tile(1, 64, side, side), device, chain.inputs) for side in (1, 2, 4)]
        costs = [cost(s, device, Nominal((512,))) for s in schedules_]
        assert [c.multiply_adds for c in costs] == sorted((c.multiply_adds for c in costs), reverse=True)
        assert [c.compute for c in costs] == sorted((c.compute for c in costs), reverse=True)
        assert [c.bytes_read for c in costs] == sorted((c.bytes_read for c in costs), reverse=True)


def test_slower_memory_costs_more() -> None:
    graph = residual()
    schedule = construct(Chain(graph, ("add2",)), Tile(1, 16, 8, 8), H200, ())
    slow = replace(H200, bandwidth=H200.bandwidth / 4, cache_bandwidth=H200.cache_bandwidth / 4)
    nominal = Nominal((4096,))
    assert cost(schedule, slow, nominal).memory == pytest.approx(4 * cost(schedule, H200, nominal).memory)
    assert cost(schedule, slow, nominal).seconds > cost(schedule, H200, nominal).seconds


def test_seconds_come_from_their_parts() -> None:
    graph = residual()
    found = cost(construct(Chain(graph, ("a1", "a2")), Tile(1, 16, 4, 4), H200, ("stem",)), H200, Nominal((64,)))
    assert max(found.compute, found.memory) + found.launch <= found.seconds <= found.compute + found.memory + found.launch
    assert found.waves == -(-found.tiles // (H200.cores * found.blocks_per_core))


def test_scratch_limits_the_blocks_per_core() -> None:
    net = Net(64, 32, 32)
    net.conv("conv", 64)
    chain = Chain(net.graph(), ("conv",))
    big = cost(construct(chain, Tile(1, 64, 16, 32), H200, ("input",)), H200, Nominal((512,)))
    assert big.scratch_bytes == 4 * 64 * 18 * 34
    assert big.blocks_per_core == 1
    assert cost(construct(chain, Tile(1, 64, 16, 32), H200, ()), H200, Nominal((512,))).blocks_per_core > 1


class TestNominal:
    def test_pinned_sizes_are_planned_for_many_images_and_for_one(self) -> None:
        assert nominal_for(residual()) == Nominal((1024, 1))
        assert nominal_for(vgg_prefix()) == Nominal((32, 1))

    def test_open_sizes_are_planned_for_a_frame(self) -> None:
        net = Net(3)
        net.conv("conv", 3)
        assert nominal_for(net.graph()) == Nominal((1,), 1088, 1920)
        assert nominal_for(net.graph(), (4, 3, 20, 30)) == Nominal((4,), 20, 30)

    def test_open_classifiers_are_planned_for_a_small_picture(self) -> None:
        net = Net(3)
        net.conv("conv", 10)
        net("pool", L.GlobalAvgPool2d())
        assert nominal_for(net.graph()) == Nominal((32, 1), 224, 224)

    @pytest.mark.parametrize(("shape", "words"), [
        ((1, 3, 16, 16), "has channels 8, not 3"), ((1, 8, 17, 16), "has height 16, not 17"), ((0, 8, 16, 16), "batch must be"),
        ((1, 8, 16, -1), "width must be")])
    def test_shapes_that_do_not_fit(self, shape: tuple[int, int, int, int], words: str) -> None:
        with pytest.raises(InputError, match=words):
            nominal_for(residual(), shape)

    def test_images_too_small_for_the_network(self) -> None:
        net = Net(3)
        net("conv", L.Conv2d((5, 5), out_channels=4))
        with pytest.raises(InputError, match="too small"):
            nominal_for(net.graph(), (1, 3, 4, 4))


def test_weights_count_once_per_launch_and_once_per_tile() -> None:
    net = Net(6, 8, 8)
    net.conv("conv", 16)
    graph = net.graph()
    found = cost(construct(Chain(graph, ("conv",)), Tile(1, 8, 4, 8), H200, ()), H200, Nominal((3,)))
    once = 4 * (16 * 6 * 9 + 16)
    assert found.weight_bytes == once
    assert found.weight_traffic == 3 * 2 * once  # three images, two tiles along y; the two along the channels share the weights
    assert found.bytes_moved == found.bytes_read + found.bytes_written + once
