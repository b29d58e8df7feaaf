"""Convolutions whose output stays in registers for a pool: which, and what the planner makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.plan.boxes import boxes_of
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, cost, sizes_of
from fusec.plan.merge import merged_pools
from fusec.plan.report import report
from fusec.plan.scratch import peak_stage, scratch_elements
from fusec.plan.search import plan
from fusec.schedule import verify as V
from fusec.schedule.ir import Chain, Space, Tile
from fusec.schedule.show import show
from fusec.targets.device import DEVICES, Device, generic_host
from tests.plan.networks import shipped
from tests.schedule.mutants import buffer_named, stage_named
from tests.small_networks import Step, conv, max_pool, network, schedule_of, whole_chain

H200, CPU = DEVICES["h200"], generic_host(8)
AVG = L.AvgPool2d((2, 2), (2, 2))


def merged(*, size: int | None = None, **steps: Step) -> dict[str, str]:
    """Of a network of those steps: the pools that take their input from registers, by that input's name."""
    return {t: n.name for t, n in merged_pools(whole_chain(network(L.Input(2, size, size), **steps))).items()}


@pytest.mark.parametrize("pool", [
    max_pool(2, 2), AVG, max_pool(3, 3), max_pool(1, 1), L.MaxPool2d((2, 3), (2, 3)), L.AvgPool2d((1, 4), (1, 4)),
    replace(AVG, count_include_pad=False)])
def test_windows_side_by_side_are_merged(pool: L.Layer) -> None:
    assert merged(a=conv(4), p=pool) == {"a": "p"}
    assert merged(a=conv(4), p=pool, b=conv(3)) == {"a": "p"}
    assert merged(a=conv(4, groups=2, stride=2), p=pool, size=9) == {"a": "p"}


@pytest.mark.parametrize("pool", [
    max_pool(3, 2), max_pool(2, 1), max_pool(2, 3), max_pool(2, 2, pad=1), max_pool(2, 2, ceil=True),
    replace(AVG, ceil_mode=True), L.MaxPool2d((2, 2), (2, 1)), L.MaxPool2d((2, 2), (2, 2), (2, 2)),
    L.AvgPool2d((2, 2), (2, 2), padding=L.Padding(bottom=1)), L.Upsample((2, 2)), L.GlobalAvgPool2d(),
    conv(4, 2, stride=2, pad=0)])
def test_other_windows_are_not(pool: L.Layer) -> None:
    assert merged(a=conv(4), p=pool, b=L.Relu(), size=12) == {}


def test_who_else_may_stand_around() -> None:
    """Only a convolution, read by the pool alone, directly before it, with more than one pixel."""
    pool, up = max_pool(2, 2), L.ConvTranspose2d((2, 2), (2, 2), out_channels=3)
    assert merged(p=pool) == merged(a=L.Relu(), p=pool) == merged(a=up, p=pool) == {}
    assert merged(a=conv(2), p=pool, q=(pool, "a"), s=(L.Add(), "p", "q")) == {}  # two readers
    assert merged(a=conv(2), p=pool, q=pool) == {"a": "p"}
    assert merged(a=conv(2), b=(conv(2), "x"), p=(pool, "a"), q=(pool, "b"), s=(L.Add(), "p", "q")) == {}  # b lies between
    assert merged(a=conv(2), p=pool, b=(conv(2), "x"), q=pool, s=(L.Add(), "p", "q")) == {"a": "p", "b": "q"}
    assert merged(a=conv(3, 5, pad=0), p=max_pool(1, 1), size=5) == {}  # one position
    assert merged(a=conv(3, 5, pad=0), p=max_pool(1, 1), size=6) == {"a": "p"}


def test_a_chain_that_starts_with_the_pool_or_ends_with_the_convolution() -> None:
    graph = network(L.Input(2), a=conv(4), p=max_pool(2, 2), b=conv(4))
    assert merged_pools(Chain(graph, ("a",))) == merged_pools(Chain(graph, ("p", "b"))) == {}
    assert list(merged_pools(Chain(graph, ("a", "p")))) == ["a"]


@pytest.mark.parametrize(("device", "pitches"), [(H200, (5 * 48, 48, 8, 1)), (CPU, (5 * 48, 1, 5 * 8, 5))],
                         ids=["NCHW", "NHWC"])
def test_the_buffer_between(device: Device, pitches: tuple[int, ...]) -> None:
    """The box of a tile of 3x4 is 6x8, dense, and takes no scratch."""
    graph = network(L.Input(3), a=conv(5), p=max_pool(2, 2))
    schedule = schedule_of(graph, 3, 4, images=2, device=device)
    V.verify(schedule)
    a, read = buffer_named(schedule, "a"), stage_named(schedule, "p").reads[0]
    assert (a.space, a.size, a.offset, a.padding_value, a.images) == (Space.REGISTER, 0, 0, 0.0, 2)
    assert (a.footprint.c.extent, a.footprint.y.extent, a.footprint.x.extent) == (5, 6, 8)
    assert (a.image_pitch, a.channel_pitch, a.row_pitch, a.column_pitch) == pitches
    assert read.buffer is a
    assert read.footprint == a.footprint
    assert not read.guarded
    assert schedule.scratch_elements == buffer_named(schedule, "x").size
    assert "  writes a: c 0*o+0 [5], y 2*o+0 [6], x 2*o+0 [8], 2 images, registers " in show(schedule)
    assert f"2 images, registers {device.layout.value}\n" in show(schedule)


def test_the_pool_does_not_write_where_the_convolution_reads() -> None:
    """The two run as one step: the input of the one and the output of the other are both there, through all of it."""
    graph = network(L.Input(4), a=conv(4), p=max_pool(2, 2), b=conv(4))
    schedule = schedule_of(graph, 4, 4)
    x, p = buffer_named(schedule, "x"), buffer_named(schedule, "p")
    assert x.offset + x.size <= p.offset or p.offset + p.size <= x.offset
    assert [V.live_elements(schedule, s) for s in schedule.stages] == [x.size, x.size + p.size, x.size + p.size, p.size]
    assert V.peak_stage(schedule).name == "a"
    boxes = boxes_of(schedule, sizes_of(graph, Nominal((1,), 40, 40)), 1)
    assert int(scratch_elements(schedule.chain, boxes, ("x",), H200)[0]) == schedule.scratch_elements
    assert peak_stage(schedule.chain, boxes, ("x",), H200) == "a"


def with_pool(pool: L.Layer) -> LayerGraph:
    return network(L.Input(8), a=conv(16), p=pool, b=conv(16))


@pytest.mark.parametrize("device", [H200, CPU], ids=["h200", "cpu"])
def test_it_saves_scratch_and_time(device: Device) -> None:
    """Against the same pool with a ceil mode that changes nothing at this size."""
    plain, kept = (cost(schedule_of(with_pool(max_pool(2, 2, ceil=c)), 4, 8, device=device), device, Nominal((64,), 32, 32))
                   for c in (True, False))
    assert kept.scratch_bytes < plain.scratch_bytes
    assert kept.compute < plain.compute
    assert kept.memory == plain.memory
    counts = [(c.multiply_adds, c.bytes_moved, c.unfused_bytes, [s.positions for s in c.stages]) for c in (plain, kept)]
    assert counts[0] == counts[1]


def test_the_report_says_where_results_go() -> None:
    (chain,) = report([schedule_of(with_pool(AVG), 4, 4)], H200, Nominal((1,), 16, 16)).chains
    assert [(s.name, s.kept) for s in chain.stages] == \
        [("load x", "scratch"), ("a", "registers"), ("p", "scratch"), ("b", "global")]


@pytest.mark.parametrize("device", [H200, CPU], ids=["h200", "cpu"])
def test_lenet5_keeps_both_convolutions_in_registers(device: Device) -> None:
    graph = shipped("lenet5").graph
    chain = Chain(graph, tuple(n.name for n in graph.layers))
    schedule = plan(chain, device, Nominal((1024,)))
    V.verify(schedule)
    kept = [b.tensor for b in schedule.buffers if b.space is Space.REGISTER]
    assert kept == [n.name for n in graph.layers if isinstance(n.layer, L.Conv2d)][:2]


def test_tiles_are_counted_alike_for_many_at_once() -> None:
    """Odd sizes, covering and moving tiles, several images, channel tiles: scratch as `construct` places it."""
    graph = network(L.Input(3, 15, 13), a=conv(8), p=max_pool(2, 2), b=conv(12), q=L.AvgPool2d((3, 2), (3, 2)))
    chain = whole_chain(graph)
    sizes = sizes_of(graph, Nominal((4,)))
    for device in (H200, CPU):
        for tile in (Tile(4, 12, 2, 3), Tile(1, 12, 1, 1), Tile(1, 4, 1, 2), Tile(1, 6, 2, 1)):
            schedule = construct(chain, tile, device, ("x",))
            V.verify(schedule)
            boxes = boxes_of(schedule, sizes, 4)
            assert scratch_elements(chain, boxes, ("x",), device) == np.array([schedule.scratch_elements])
