"""Generated CUDA on the emulator with its threads in several orders; all generated code under AddressSanitizer and UBSan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fusec.graph.layers import Axis
from fusec.graph.reference import run
from fusec.plan.construct import construct
from fusec.plan.footprint import granularity
from fusec.schedule.ir import Tile
from fusec.schedule.show import show
from tests.emulator import can_sanitize
from tests.harness import Cpu, EmulatedCuda, Runner
from tests.small_networks import image_of, whole_chain
from tests.strategies import integer_graphs, integer_images
from tests.strategies_schedule import chains
from tests.targets.test_padding import ENDS, GRAPHS
from tests.targets.test_random import MOST_WORK, examples, planned, simplified, work

sanitized = pytest.mark.skipif(not can_sanitize(), reason="the compiler's sanitizer libraries are missing")


def check_random(target: Runner, data: st.DataObject) -> None:
    graph = simplified(data, integer_graphs(5, max_channels=36, max_extent=16))
    machine = data.draw(st.sampled_from(target.machines))
    schedule = planned(data, target, data.draw(chains(graph)), machine)
    tensors = run(graph, data.draw(integer_images(graph, max_extent=16)), keep=True)
    assume(work(schedule, tensors) <= MOST_WORK // 16)
    result = target.run(schedule, tensors, machine)
    np.testing.assert_array_equal(result, tensors[schedule.chain.output], err_msg=show(schedule))


@examples(3)
@given(st.data())
def test_any_order_of_threads_gives_the_same_bits(data: st.DataObject) -> None:
    check_random(EmulatedCuda("all"), data)


@sanitized
@examples(8)
@given(st.data())
def test_random_cuda_kernels_under_sanitizers(data: st.DataObject) -> None:
    check_random(EmulatedCuda(sanitize=True), data)


@sanitized
@examples(8)
@given(st.data())
def test_random_cpu_kernels_under_sanitizers(data: st.DataObject) -> None:
    check_random(Cpu(sanitize=True), data)


@sanitized
@pytest.mark.parametrize("target", [EmulatedCuda(sanitize=True), Cpu(sanitize=True)], ids=str)
@pytest.mark.parametrize("walked", [False, True], ids=["tiles", "strips"])
@pytest.mark.parametrize("name", [*GRAPHS, *ENDS])
def test_padded_chains_under_sanitizers(target: Runner, name: str, walked: bool) -> None:
    graph = (GRAPHS | ENDS)[name](None, None)
    chain = whole_chain(graph)
    channels = chain.shapes[chain.output].channels
    tile, step = Tile(2, channels // 2 if name in ENDS else channels, 8, 8), granularity(chain, Axis.Y) if walked else None
    schedule = construct(chain, tile, target.device, (), step)
    x = image_of(graph, 7, 11, 3)
    np.testing.assert_array_equal(target.run(schedule, {"x": x}), run(graph, x)[chain.output])


@pytest.mark.parametrize("name", GRAPHS)
def test_strips_in_any_order_of_threads(name: str) -> None:
    target, graph = EmulatedCuda("all"), GRAPHS[name](None, None)
    chain = whole_chain(graph)
    tile = Tile(1, chain.shapes[chain.output].channels, 12, 8)
    schedule = construct(chain, tile, target.device, (), granularity(chain, Axis.Y))
    x = image_of(graph, 13, 9, 2)
    np.testing.assert_array_equal(target.run(schedule, {"x": x}), run(graph, x)[chain.output])
