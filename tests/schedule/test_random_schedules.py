"""Random networks, random chains of them, random legal schedules: all verify, and all compute what the reference computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.reference import run
from fusec.graph.simplify import simplify
from fusec.schedule.interpret import interpret, interpret_graph
from fusec.schedule.ir import Schedule, Space
from fusec.schedule.show import show
from fusec.schedule.verify import verify
from tests.schedule.mutants import smaller, with_buffer, with_read
from tests.strategies import float_graphs, float_images, integer_graphs, integer_images
from tests.strategies_schedule import chains, partitions, schedules

SIDE = 20  # of the images here; tiles go up to 12


@st.composite
def scheduled(draw: st.DrawFn, *, exact: bool = True) -> tuple[LayerGraph, Schedule]:
    """A network, simplified or as it was, and a schedule of one of its chains."""
    graph = draw((integer_graphs if exact else float_graphs)(8, max_channels=12, max_extent=SIDE))
    if draw(st.booleans(), label="simplified"):
        graph = simplify(graph).graph
    assume(graph.layers)
    return graph, draw(schedules(draw(chains(graph))))


@settings(max_examples=200)
@given(st.data())
def test_every_schedule_verifies_and_computes_its_chain_exactly(data: st.DataObject) -> None:
    graph, schedule = data.draw(scheduled())
    verify(schedule)
    tensors = run(graph, data.draw(integer_images(graph, max_extent=SIDE)), dtype=np.float32, keep=True)
    seed = data.draw(st.one_of(st.none(), st.integers(0, 9)), label="order")
    result = interpret(schedule, {t: tensors[t] for t in schedule.chain.inputs}, order_seed=seed)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, tensors[schedule.chain.output], err_msg=show(schedule))


@settings(max_examples=80)
@given(st.data())
def test_all_layer_kinds_agree_closely(data: st.DataObject) -> None:
    graph, schedule = data.draw(scheduled(exact=False))
    verify(schedule)
    images = data.draw(float_images(graph, max_extent=SIDE))
    tensors = run(graph, images, dtype=np.float64, keep=True)
    result = interpret(schedule, {t: tensors[t] for t in schedule.chain.inputs})
    np.testing.assert_allclose(result, tensors[schedule.chain.output], rtol=1e-9, atol=1e-9, err_msg=show(schedule))


@settings(max_examples=60)
@given(st.data())
def test_whole_networks_run_chain_by_chain(data: st.DataObject) -> None:
    graph = simplify(data.draw(integer_graphs(8, max_channels=12, max_extent=SIDE))).graph
    plan = [data.draw(schedules(chain)) for chain in data.draw(partitions(graph))]
    images = data.draw(integer_images(graph, max_extent=SIDE))
    results = interpret_graph(plan, images)
    assert set(results) == {s.chain.output for s in plan}
    for name, wanted in run(graph, images, dtype=np.float32).items():
        np.testing.assert_array_equal({**images, **results}[name], wanted)


@settings(max_examples=100)
@given(st.data())
def test_a_read_of_one_position_less_is_noticed(data: st.DataObject) -> None:
    _, schedule = data.draw(scheduled())
    stage = data.draw(st.sampled_from(schedule.stages), label="stage")
    position = data.draw(st.integers(0, len(stage.reads) - 1), label="read")
    axis = data.draw(st.sampled_from("cyx"), label="axis")
    footprint = stage.reads[position].footprint
    assume(getattr(footprint, axis).extent is not None)
    # the ends of a transposed convolution's box may fall between its strides: nothing has to be there
    assume(axis == "c" or stage.node is None or not isinstance(stage.node.layer, L.ConvTranspose2d))
    # a slice claims all channels, whichever it takes
    assume(axis != "c" or stage.node is None or not isinstance(stage.node.layer, L.SliceChannels))
    end = data.draw(st.sampled_from(("first", "last")))
    with pytest.raises(InternalError):
        verify(with_read(schedule, stage, position, footprint=smaller(footprint, axis, end)))


@settings(max_examples=100)
@given(st.data())
def test_a_buffer_that_is_smaller_shifted_or_crowded_is_noticed(data: st.DataObject) -> None:
    _, schedule = data.draw(scheduled())
    scratch = [b for b in schedule.buffers if b.space is Space.SCRATCH]
    assume(scratch)
    buffer = data.draw(st.sampled_from(scratch), label="buffer")
    change = data.draw(st.sampled_from(("smaller", "shifted", "image pitch", "row pitch", "images")))
    axis, end = data.draw(st.sampled_from("cyx")), data.draw(st.sampled_from(("first", "last")))
    changes = {
        "smaller": {"footprint": smaller(buffer.footprint, axis, end)},
        "shifted": {"offset": buffer.offset + 1},
        "image pitch": {"image_pitch": buffer.image_pitch - 1},
        "row pitch": {"row_pitch": buffer.row_pitch - buffer.column_pitch},
        "images": {"images": buffer.images + 1},
    }[change]
    with pytest.raises(InternalError, match=buffer.name):
        verify(with_buffer(schedule, buffer, **changes))
