"""Planning one chain: feasible, verified, as good as the candidates, and honest about why not."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.simplify import simplify
from fusec.plan.boxes import Family, boxes_of
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, cost, sizes_of
from fusec.plan.footprint import granularity
from fusec.plan.scratch import scratch_elements
from fusec.plan.search import Search, plan, staging_options, variants
from fusec.schedule.ir import Chain, Tile
from fusec.schedule.verify import verify
from fusec.targets.device import DEVICES, generic_host
from tests.plan.networks import Net, residual, unet, vgg_prefix
from tests.strategies import float_graphs, sizes
from tests.strategies_schedule import PLANNED, PLANNED_DEVICES, chains, schedules

H200, T4, CPU = DEVICES["h200"], DEVICES["t4"], generic_host()


@settings(max_examples=60)
@given(data=st.data())
def test_boxes_and_scratch_of_a_search_are_those_of_the_schedule(data: st.DataObject) -> None:
    """The linear law and the array form of first fit, against footprints and places worked out one by one."""
    graph = simplify(data.draw(float_graphs(5, max_channels=20, max_extent=16))).graph
    assume(graph.layers)
    chain = data.draw(chains(graph))
    nominal = Nominal((3,), *data.draw(sizes(graph, 16)))
    device = data.draw(st.sampled_from(PLANNED_DEVICES))
    schedule = data.draw(schedules(chain, (device,), PLANNED))
    family, tile = Family(chain, sizes_of(graph, nominal)), schedule.tile
    wanted = [min(e, n) if pinned else e for e, n, pinned in
              zip((tile.channels, tile.height, tile.width), family.size, family.pinned, strict=True)]
    if schedule.step is not None:
        wanted[1] = tile.height
    assume(all(family.allows(a, e) for a, e in enumerate(wanted) if a != 1 or schedule.step is None))
    zero = np.zeros(1, dtype=np.int64)
    found = family.boxes([[e] for e in wanted], [zero] * 3, zero + tile.images, nominal.batch,
                         None if schedule.step is None else [schedule.step])
    exact = boxes_of(schedule, sizes_of(graph, nominal), nominal.batch)
    holes = any(isinstance(n.layer, L.ConvTranspose2d) and (n.layer.window(a).stride > n.layer.window(a).span)
                for n in chain.nodes for a in L.Axis)
    assume(not holes)  # a tile between two inputs' reach still reads one: not linear, and only ever smaller
    assert (found.extent == exact.extent).all()
    assert (found.covered == exact.covered).all()
    assert (found.fresh == exact.fresh).all() and found.steps == exact.steps and found.steps_y == exact.steps_y
    assert int(found.tiles[0]) == int(exact.tiles[0])
    staged = [s.writes.tensor for s in schedule.stages if s.node is None]
    assert int(scratch_elements(chain, found, staged, device)[0]) == schedule.scratch_elements


@settings(max_examples=40)
@given(data=st.data())
def test_plans_are_right_and_fit(data: st.DataObject) -> None:
    graph = simplify(data.draw(float_graphs(6, max_channels=40, max_extent=40))).graph
    assume(graph.layers)
    chain = data.draw(chains(graph))
    nominal = Nominal((data.draw(st.sampled_from([1, 7, 100])),), *data.draw(sizes(graph)))
    device = data.draw(st.sampled_from([H200, T4, CPU]))
    try:
        schedule = plan(chain, device, nominal)
    except Infeasible:
        assume(False)
    verify(schedule, device if device.target == "cuda" or len(chain.names) > 1 else None)
    assert tuple(s.writes.tensor for s in schedule.stages if s.node is None) in staging_options(chain, device)
    assert cost(schedule, device, nominal).seconds == pytest.approx(Search(chain, device, nominal).best(nominal.batch).seconds)


@pytest.mark.parametrize("device", [H200, T4, CPU], ids=lambda d: d.name)
@pytest.mark.parametrize("names", [("stem",), ("stem", "a1"), ("stem", "a1", "a2", "down", "add1"), ("b1", "b2", "add2")])
def test_no_plain_tile_beats_the_plan(device, names: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    """Every power of two on each axis and every staging, planned by hand, at several batches."""
    chain = Chain(residual(16), names)
    for batch in (1, 200):
        nominal = Nominal((batch,))
        found = cost(plan(chain, device, nominal), device, nominal).seconds
        channels = chain.shapes[chain.output].channels
        for y, x, staged in product((1, 2, 4, 8, 16), (1, 2, 4, 8, 16), staging_options(chain, device)):
            schedule = construct(chain, Tile(1, channels, y, x), device, staged)
            if schedule.scratch_elements * 4 <= device.scratch_per_block:
                assert found <= cost(schedule, device, nominal).seconds * (1 + 1e-12)


def test_tiles_are_multiples_of_the_granularity() -> None:
    graph = unet()
    chain = Chain(graph, tuple(n.name for n in graph.layers))
    assert granularity(chain, L.Axis.Y) == 4
    for device in (H200, CPU):
        tile = plan(chain, device, Nominal((1,), 64, 128)).tile
        assert tile.height % 4 == tile.width % 4 == 0


def test_one_large_layer_gets_enough_blocks() -> None:
    """A single image of few pixels and many channels is split along the channels."""
    net = Net(512, 14, 14)
    net.conv("conv", 512)
    chain = Chain(net.graph(), ("conv",))
    assert cost(plan(chain, H200, Nominal((1,))), H200, Nominal((1,))).tiles >= H200.cores / 2


def test_small_images_share_a_tile_when_there_are_many() -> None:
    net = Net(1, 8, 8)
    net.conv("conv1", 4)
    net("flat", L.Conv2d((8, 8), out_channels=10))
    chain = Chain(net.graph(), ("conv1", "flat"))
    assert plan(chain, H200, Nominal((20000,))).tile.images > 1
    assert plan(chain, H200, Nominal((1,))).tile.images == 1


def test_a_single_layer_fits_every_device() -> None:
    net = Net(4096, 28, 28)
    net("conv", L.Conv2d((28, 28), out_channels=64))
    chain = Chain(net.graph(), ("conv",))
    for device in (*DEVICES.values(), CPU):
        schedule = plan(chain, device, Nominal((1,)))
        if device.target == "cuda":
            assert schedule.scratch_elements * 4 <= device.scratch_per_block
        else:
            assert schedule.scratch_elements == 4096 * 28 * 28  # more than the cache, and still computed


class TestInfeasible:
    def test_names_scratch_limit_and_stage(self) -> None:
        net = Net(64, 14, 14)
        net.conv("narrow", 64, 1)
        net.conv("wide", 4096)
        net.conv("last", 8)
        chain = Chain(net.graph(), ("narrow", "wide", "last"))
        with pytest.raises(Infeasible, match=r"scratch 148 KiB > 64 KiB at wide: .* tile of chain narrow\.\.last .* t4"):
            plan(chain, T4, Nominal((1,)))
        small = replace(CPU, scratch_per_block=64 * 1024, scratch_per_core=64 * 1024)
        with pytest.raises(Infeasible, match=r"scratch \d+ KiB > 64 KiB at wide"):
            plan(chain, small, Nominal((1,)))

    def test_whole_images_of_open_size(self) -> None:
        net = Net(8)
        net.conv("conv", 8)
        net("pool", L.GlobalAvgPool2d())
        with pytest.raises(Infeasible, match="'conv' is read as a whole image"):
            plan(Chain(net.graph(), ("conv", "pool")), H200, Nominal((1,), 32, 32))


class TestStaging:
    def test_cuda_chooses_all_windowed_or_none(self) -> None:
        net = Net(8, 16, 16)
        net.conv("before", 8)
        net.conv("conv", 8, 3, 1, "input")
        net("add", L.Add(), "conv", "before")
        chain = Chain(net.graph(), ("conv", "add"))
        assert staging_options(chain, H200) == [(), ("input",), ("input", "before")]

    def test_cpu_stages_what_is_read_more_than_once(self) -> None:
        net = Net(8, 16, 16)
        net.conv("before", 8)
        net.conv("conv", 8, 3, 1, "input")
        net("add", L.Add(), "conv", "before")
        assert staging_options(Chain(net.graph(), ("conv", "add")), CPU) == [("input",)]

    def test_whole_images_of_open_size_stay_where_they_are(self) -> None:
        net = Net(8)
        net("pool", L.GlobalAvgPool2d())
        chain = Chain(net.graph(), ("pool",))
        for device in (H200, CPU):
            assert staging_options(chain, device) == [()]
            assert plan(chain, device, Nominal((1,), 40, 40)).scratch_elements == 0


class TestVariants:
    def chain(self) -> Chain:
        net = Net(1, 28, 28)
        net.conv("conv1", 6)
        net.conv("conv2", 16, 3, 2)
        net.conv("conv3", 8)
        return Chain(net.graph(), ("conv1", "conv2", "conv3"))

    @pytest.mark.parametrize("device", [H200, T4, CPU], ids=lambda d: d.name)
    def test_the_first_with_enough_tiles_is_the_fastest(self, device) -> None:  # type: ignore[no-untyped-def]
        nominal = Nominal((1024, 1))
        found = variants(self.chain(), device, nominal)
        assert 1 <= len(found) <= 2
        assert found[-1].min_blocks == 0
        for batch in (1, 1024):
            at = nominal.at(batch)
            costs = [cost(p.schedule, device, at) for p in found]
            picked = next(c for c, p in zip(costs, found, strict=True) if c.tiles >= p.min_blocks)
            assert picked.seconds == min(c.seconds for c in costs)

    def test_one_image_is_cut_into_more_tiles_than_each_of_many(self) -> None:
        large, small = variants(self.chain(), H200, Nominal((1024, 1)))
        assert cost(small.schedule, H200, Nominal((1,))).tiles > cost(large.schedule, H200, Nominal((1,))).tiles
        assert 1 < large.min_blocks <= 1024

    def test_one_batch_one_variant(self) -> None:
        assert len(variants(self.chain(), H200, Nominal((64,)))) == 1


def test_plans_do_not_depend_on_the_run() -> None:
    chain = Chain(vgg_prefix(), ("conv1_1", "conv1_2", "pool1"))
    first, second = (plan(chain, H200, Nominal((8,))) for _ in range(2))
    assert first.tile == second.tile
    assert [s.name for s in first.stages] == [s.name for s in second.stages]
