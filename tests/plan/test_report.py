"""The plan as plain data: its numbers are those of the cost model, and JSON can hold them."""

from __future__ import annotations

import json

import pytest

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node, Pointwise
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, cost, nominal_for
from fusec.plan.partition import partition
from fusec.plan.report import InputReport, report
from fusec.plan.search import plan
from fusec.schedule.ir import Chain, Schedule, Tile
from fusec.targets.device import DEVICES, generic_host
from tests.plan.networks import fire, residual, unet

H200, CPU = DEVICES["h200"], generic_host()


def two_convolutions(*staged: str, step: int | None = None) -> Schedule:
    """8x8 output of two 3x3 convolutions in tiles of 4x4: the first stage makes 6x6 and its input is 8x8.

    With a step, the tiles are strips of that height that are walked down in steps of so many rows.
    """
    pad = L.Padding(1, 1, 1, 1)
    graph = LayerGraph("pair", (
        Node("image", L.Input(3, 8, 8)),
        Node("conv1", L.Conv2d((3, 3), padding=pad, out_channels=4), ("image",), epilogue=(Pointwise("relu1", L.Relu()),)),
        Node("conv2", L.Conv2d((3, 3), padding=pad, out_channels=5), ("conv1",))))
    return construct(Chain(graph, ("conv1", "conv2")), Tile(1, 5, 4, 4), H200, staged, step)


def test_a_chain_worked_out_by_hand() -> None:
    (chain,) = report([two_convolutions("image")], H200, Nominal((2,))).chains
    load, first, last = chain.stages
    assert chain.name == "conv1..conv2"
    assert chain.layers == ("conv1+relu1", "conv2")
    assert chain.tile == (1, 5, 4, 4)
    assert chain.tiles == 2 * 4
    assert [s.kind for s in chain.stages] == ["load", "conv2d", "conv2d"]
    assert [s.footprint for s in chain.stages] == [(3, 8, 8), (4, 6, 6), (5, 4, 4)]
    assert [s.shared for s in chain.stages] == [3 * (64 - 16), 4 * (36 - 16), 0]
    assert [s.owned for s in chain.stages] == [(3, 4, 4), (4, 4, 4), (5, 4, 4)]
    assert [s.reads for s in chain.stages] == [("image",), ("image",), ("conv1",)]
    assert chain.direct == ()
    assert chain.grid == (2, 1, 2, 2)
    # at the corner a tile of 4x4 needs 5x5 of conv1 inside the image and 6x6 of the picture
    assert first.positions == 2 * 4 * 4 * 25
    assert load.positions == 2 * 4 * 3 * 36
    assert first.multiply_adds == first.positions * 27
    assert first.extra == 2 * 4 * 27 * (4 * 25 - 64)
    assert first.extra_ratio == pytest.approx(36 / 64)
    assert last.extra == 0
    assert chain.extra == first.extra
    assert chain.bytes_read == 4 * load.positions
    assert chain.bytes_written == 4 * 2 * 5 * 64
    assert chain.weight_bytes == 4 * (4 * 27 + 4 + 5 * 36 + 5)
    assert chain.bytes_fused == chain.bytes_read + chain.bytes_written + chain.weight_bytes
    assert chain.bytes_unfused == 4 * 2 * 64 * (3 + 4 + 4 + 5) + chain.weight_bytes
    assert chain.scratch_bytes == 4 * (3 * 64 + 4 * 36)


def test_an_input_that_is_not_loaded_is_listed_with_its_footprint() -> None:
    (chain,) = report([two_convolutions()], H200, Nominal((1,))).chains
    assert [s.kind for s in chain.stages] == ["conv2d", "conv2d"]
    assert chain.direct == (InputReport("image", (3, 8, 8), 8, (3, 4, 4)),)


def test_a_strip_has_rows_that_are_held_and_rows_that_are_made() -> None:
    (chain,) = report([two_convolutions("image", step=1)], H200, Nominal((1,))).chains
    assert (chain.step, chain.overlap, chain.grid) == (1, {"y": "reuse", "x": "recompute"}, (1, 1, 2, 2))
    assert [s.footprint for s in chain.stages] == [(3, 8, 8), (4, 6, 6), (5, 4, 4)]
    assert [s.owned for s in chain.stages] == [(3, 4, 4), (4, 4, 4), (5, 4, 4)]
    assert [(s.held, s.fresh) for s in chain.stages] == [(3, 1), (3, 1), (1, 1)]
    (chain,) = report([two_convolutions(step=2)], H200, Nominal((1,))).chains
    assert [(s.held, s.fresh) for s in chain.stages] == [(4, 2), (2, 2)]
    assert chain.direct == (InputReport("image", (3, 8, 8), 2, (3, 4, 4)),)


def test_loads_and_poolings_have_no_ratio() -> None:
    (chain,) = report([two_convolutions("image")], H200, Nominal((1,))).chains
    assert chain.stages[0].multiply_adds == chain.stages[0].extra_ratio == 0


@pytest.mark.parametrize("device", [H200, CPU], ids=lambda d: d.name)
@pytest.mark.parametrize("graph", [residual(), fire(), unet()], ids=["residual", "fire", "unet"])
@pytest.mark.parametrize("fuse", ["none", "all", "auto"])
def test_totals_are_sums_and_json_holds_it(device, graph: LayerGraph, fuse: str) -> None:  # type: ignore[no-untyped-def]
    nominal = nominal_for(graph) if graph.shapes["input"].pinned else Nominal((1,), 64, 96)
    schedules = [plan(c, device, nominal) for c in partition(graph, fuse, device, nominal=nominal)]
    found = report(schedules, device, nominal)
    costs = [cost(s, device, nominal) for s in schedules]
    assert found.totals.chains == len(schedules)
    assert found.totals.layers == len(graph.layers)
    assert found.totals.multiply_adds == sum(c.multiply_adds for c in costs)
    assert found.totals.extra == sum(c.extra for c in costs)
    assert found.totals.seconds == pytest.approx(sum(c.seconds for c in costs))
    assert found.totals.bytes_fused == sum(c.bytes_moved for c in costs)
    assert found.totals.scratch_bytes == max(s.scratch_elements * 4 for s in schedules)
    if fuse == "none":
        assert found.totals.extra == 0
    if fuse == "all":
        assert found.totals.bytes_unfused > found.totals.bytes_fused
    plain = json.loads(json.dumps(found.to_json()))
    assert [c["name"] for c in plain["chains"]] == [str(s.chain) for s in schedules]
    assert plain["totals"]["multiply_adds"] == found.totals.multiply_adds
    assert (plain["batch"], plain["height"]) == (nominal.batch, nominal.height)
