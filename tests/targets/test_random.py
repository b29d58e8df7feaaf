"""Random networks, random schedules of random chains, random sizes: every target computes what the reference computes.

Integers are compared exactly, so a wrong halo cannot hide in a tolerance. On floats all schedules of one target have to agree
bit for bit, since the order in which one output is summed depends on the layer and the target alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import simplify
from fusec.schedule.ir import Chain, Schedule
from fusec.schedule.show import show
from tests.harness import Floats, Machine, Runner, assert_close, assert_same_bits, graph_reference
from tests.strategies import float_graphs, float_images, integer_graphs, integer_images
from tests.strategies_schedule import chains, partitions, schedules

SIDE = 40  # of the images here; tiles go up to 12
MOST_WORK = 1 << 27  # multiply-adds, with recomputed halos, that an emulated example may take: some seconds


def examples(share: int) -> settings:
    """A share of the profile's examples: each of them builds one kernel or several."""
    return settings(max_examples=max(5, settings().max_examples // share))


def simplified(data: st.DataObject, graphs: st.SearchStrategy[LayerGraph]) -> LayerGraph:
    graph = simplify(data.draw(graphs)).graph
    assume(graph.layers)
    return graph


def planned(data: st.DataObject, target: Runner, chain: Chain, machine: Machine) -> Schedule:
    """A schedule of the chain that fits the target's scratch."""
    schedule = data.draw(schedules(chain, (machine.device,)))
    assume(target.fits(schedule))
    return schedule


def work(schedule: Schedule, tensors: Mapping[str, Floats]) -> int:
    """Values computed for all tiles times what each is summed from, about."""
    n, _, h, w = tensors[schedule.chain.output].shape
    tiles = len(list(schedule.tiles(n, h, w)))
    per_tile = 0
    for stage in schedule.stages:
        weight = stage.node.params.get("weight") if stage.node is not None else None
        each = int(np.prod(weight.shape[1:])) if weight is not None and weight.ndim == 4 else 4
        per_tile += each * stage.writes.images * stage.footprint.elements
    return tiles * per_tile


@examples(2)
@given(st.data())
def test_chains_compute_what_the_reference_computes(target: Runner, data: st.DataObject) -> None:
    graph = simplified(data, integer_graphs(6, max_extent=SIDE))
    machine = data.draw(st.sampled_from(target.machines))
    schedule = planned(data, target, data.draw(chains(graph)), machine)
    for _ in range(data.draw(st.integers(1, 2), label="sizes")):  # one build serves all of them
        tensors = graph_reference(graph, data.draw(integer_images(graph, max_extent=SIDE)), target.dtype)
        if work(schedule, tensors) > MOST_WORK:
            continue
        result = target.run(schedule, tensors, machine)
        np.testing.assert_array_equal(result, tensors[schedule.chain.output], err_msg=show(schedule))


@examples(2)
@given(st.data())
def test_networks_compute_what_the_reference_computes(target: Runner, data: st.DataObject) -> None:
    graph = simplified(data, integer_graphs(6, max_channels=20, max_extent=20))
    machine = data.draw(st.sampled_from(target.machines))
    plan = [planned(data, target, chain, machine) for chain in data.draw(partitions(graph))]
    images = data.draw(integer_images(graph, max_extent=20))
    tensors = graph_reference(graph, images, target.dtype)
    assume(all(work(s, tensors) <= MOST_WORK for s in plan))
    results = target.run_graph(plan, images, machine)
    for schedule in plan:
        name = schedule.chain.output
        np.testing.assert_array_equal(results[name], tensors[name], err_msg=show(schedule))


@examples(2)
@given(st.data())
def test_schedules_agree_bit_for_bit(generated: Runner, data: st.DataObject) -> None:
    graph = simplified(data, float_graphs(5, max_extent=24))
    chain = data.draw(chains(graph))
    images = data.draw(float_images(graph, max_extent=24))
    exact = graph_reference(graph, images, generated.dtype)
    tensors = {name: values.astype(np.float32) for name, values in exact.items()}
    results, words = [], []
    for _ in range(2):
        machine = data.draw(st.sampled_from(generated.machines))
        schedule = planned(data, generated, chain, machine)
        assume(work(schedule, tensors) <= MOST_WORK)
        results.append(generated.run(schedule, tensors, machine))
        words.append(f"{machine}: {show(schedule)}")
    assert_same_bits(*results, "\n".join(words))
    assert_close(results[0], chain, tensors, generated.dtype)
