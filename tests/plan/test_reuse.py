"""Line buffers: the rule K - S, and that what is kept is enough, by following single positions through a chain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import simplify
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.footprint import granularity, pyramid
from fusec.plan.reuse import Kept, kept
from fusec.schedule.ir import Chain, Space, Tile
from fusec.schedule.taps import READS_WHOLE_IMAGE, input_taps
from fusec.targets.device import DEVICES
from tests.plan.networks import Net
from tests.strategies import float_graphs, sizes
from tests.strategies_schedule import chains


def kept_in(graph: LayerGraph, height: int = 1, width: int = 1) -> dict[str, Kept]:
    chain = Chain(graph, tuple(n.name for n in graph.layers))
    boxes = pyramid(chain, Tile(1, chain.shapes[chain.output].channels, height, width))
    return kept(chain, boxes, sizes_of(graph, Nominal()))


@pytest.mark.parametrize(("kernel", "stride", "rows"), [(3, 1, 2), (5, 1, 4), (5, 2, 3), (11, 4, 7), (2, 2, 0), (1, 1, 0),
                                                        (2, 3, 0), (3, 3, 0)])
def test_a_window_keeps_its_extent_less_its_stride(kernel: int, stride: int, rows: int) -> None:
    net = Net(3, 64, 48)
    net("pool", L.MaxPool2d((kernel, kernel), (stride, stride)))
    assert kept_in(net.graph())["input"] == Kept(3 * rows * 48, 3 * rows * (kernel - rows))


def test_dilation_widens_the_window() -> None:
    net = Net(2, 40, 40)
    net("conv", L.Conv2d((3, 3), dilation=(4, 2), out_channels=1))
    assert kept_in(net.graph())["input"] == Kept(2 * 8 * 40, 2 * 4 * (9 - 8))


def test_a_skip_waits_for_the_branch_beside_it() -> None:
    """Two convolutions of 3 rows run two rows ahead of what they make: a sum with their input waits for two of its rows.

    So `stem` is read by the first of them, which needs two rows again, and by the sum, which has yet to read two.
    """
    net = Net(2, 30, 30)
    net.conv("stem", 4)
    net.conv("one", 4)
    net.conv("two", 4)
    net("sum", L.Add(), "two", "stem")
    found = kept_in(net.graph())
    assert found["stem"].rows == 4 * 2 * 30
    assert found["one"].rows == 4 * 2 * 30
    assert found["two"].rows == 0

    net = Net(2, 30, 30)
    net.conv("stem", 4, 1)
    net.conv("wide", 4, 7)
    net.conv("point", 4, 1)
    net("sum", L.Add(), "point", "stem")
    assert kept_in(net.graph())["stem"].rows == 4 * 6 * 30


def test_layers_that_read_whole_images_need_nothing_twice() -> None:
    net = Net(8, 6, 6)
    net("pool", L.GlobalAvgPool2d())
    assert kept_in(net.graph()) == {"input": Kept(0, 0)}


@st.composite
def tiled(draw: st.DrawFn) -> tuple[Chain, Nominal, tuple[int, int]]:
    graph = simplify(draw(float_graphs(6, max_channels=4, max_extent=24))).graph
    assume(graph.layers)
    nominal = Nominal((1,), *draw(sizes(graph, 24)))
    chain = draw(chains(graph))
    return chain, nominal, (draw(st.integers(1, 6)), draw(st.integers(1, 6)))


@settings(max_examples=150)
@given(case=tiled())
def test_the_rows_kept_are_enough(case: tuple[Chain, Nominal, tuple[int, int]]) -> None:
    """Each layer computes, for each row of tiles, only what no earlier one had to; what is needed later and there already lies
    in the last rows that are kept. Needs are sets of single positions, from the layers' definitions."""
    chain, nominal, tile = case
    extents = sizes_of(chain.graph, nominal)
    height, width = (-(-t // step) * step for t, step in zip(tile, (granularity(chain, a) for a in L.Axis), strict=True))
    try:
        boxes = pyramid(chain, Tile(1, chain.shapes[chain.output].channels, height, width))
    except Infeasible:
        return
    rows = {t: k.rows // (chain.shapes[t].channels * extents[t][1]) for t, k in kept(chain, boxes, extents).items()}
    last = needed(chain, extents, extents[chain.output][0])
    for end in range(height, extents[chain.output][0], height):
        done = needed(chain, extents, end)
        for tensor, count in rows.items():
            readers = [(r, r.inputs.index(tensor), chain.graph.input_shapes(r)) for r in chain.nodes
                       if tensor in r.inputs and not isinstance(r.layer, READS_WHOLE_IMAGE)]
            later = {p for reader in readers for o in last[reader[0].name] - done[reader[0].name]
                     for p in input_taps(*reader, L.Axis.Y, o)} & done[tensor]
            if later:
                assert max(done[tensor]) - min(later) + 1 <= count


def needed(chain: Chain, extents: dict[str, tuple[int, int]], end: int) -> dict[str, set[int]]:
    """Rows of every tensor that the first `end` rows of the output need."""
    needs: dict[str, set[int]] = {t: set() for t in (*chain.inputs, *chain.names)}
    needs[chain.output] = set(range(end))
    for node in reversed(chain.nodes):
        for position, tensor in enumerate(node.inputs):
            inside = range(extents[tensor][0])
            if isinstance(node.layer, READS_WHOLE_IMAGE):
                needs[tensor] |= set(inside)
            else:
                shapes = chain.graph.input_shapes(node)
                needs[tensor] |= {p for o in needs[node.name]
                                  for p in input_taps(node, position, shapes, L.Axis.Y, o) if p in inside}
    return needs


@settings(max_examples=100)
@given(data=st.data())
def test_generated_line_buffers_hold_what_is_kept_and_what_is_new(data: st.DataObject) -> None:
    """The counts of exploration and the buffers of a schedule come from different rules: one row of the reader, one step.

    Where a window leaps over rows, the counts keep what the row behind it would need, and the buffers do not.
    """
    graph = simplify(data.draw(float_graphs(6, max_channels=5, max_extent=30))).graph
    assume(graph.layers)
    chain, nominal = data.draw(chains(graph)), Nominal((1,), *data.draw(sizes(graph, 30)))
    step = granularity(chain, L.Axis.Y) * data.draw(st.integers(1, 3))
    tile = Tile(1, chain.shapes[chain.output].channels, 2 * step, granularity(chain, L.Axis.X))
    try:
        schedule = construct(chain, tile, DEVICES["h200"], chain.inputs, step)
    except Infeasible:
        assume(False)
    extents = sizes_of(graph, nominal)
    leaps = any(isinstance(n.layer, L.Windowed) and n.layer.window(L.Axis.Y).stride > n.layer.window(L.Axis.Y).span
                for n in chain.nodes)
    rows = {t: k.rows // max(1, chain.shapes[t].channels * extents[t][1])
            for t, k in kept(chain, pyramid(chain, replace(tile, height=step)), extents).items()}
    for stage in schedule.stages[:-1]:
        buffer = stage.writes
        if buffer.space is Space.SCRATCH and buffer.footprint.y.extent is not None:
            held = min(buffer.footprint.y.extent - schedule.fresh(stage), extents[buffer.tensor][0])
            assert held == rows[buffer.tensor] or (leaps and held < rows[buffer.tensor]), buffer.name
