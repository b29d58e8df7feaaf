"""Generated CUDA on the emulator with its threads in several orders; all generated code under AddressSanitizer and UBSan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fusec.graph.layers import Axis
from fusec.plan.construct import construct
from fusec.plan.footprint import granularity
from fusec.schedule.ir import Tile
from fusec.schedule.show import show
from tests.emulator import can_sanitize
from tests.harness import Cpu, EmulatedCuda, Runner, chain_reference, graph_reference
from tests.small_networks import image_of, whole_chain
from tests.strategies import integer_graphs, integer_images
from tests.strategies_schedule import chains
from tests.targets.test_padding import ENDS, GRAPHS
from tests.targets.test_random import MOST_WORK, examples, planned, simplified, work

HALVES = ("float16", "bfloat16")
sanitized = pytest.mark.skipif(not can_sanitize(), reason="the compiler's sanitizer libraries are missing")


def check_random(target: Runner, data: st.DataObject) -> None:
    graph = simplified(data, integer_graphs(5, max_channels=36, max_extent=16))
    machine = data.draw(st.sampled_from(target.machines))
    schedule = planned(data, target, data.draw(chains(graph)), machine)
    tensors = graph_reference(graph, data.draw(integer_images(graph, max_extent=16)), target.dtype)
    assume(work(schedule, tensors) <= MOST_WORK // 16)
    result = target.run(schedule, tensors, machine)
    np.testing.assert_array_equal(result, tensors[schedule.chain.output], err_msg=show(schedule))


@examples(3)
@given(st.data())
def test_any_order_of_threads_gives_the_same_bits(data: st.DataObject) -> None:
    check_random(EmulatedCuda("all"), data)


@examples(8)
@given(st.data())
def test_any_order_of_threads_gives_the_same_bits_of_half_types(data: st.DataObject) -> None:
    check_random(EmulatedCuda("all", dtype=data.draw(st.sampled_from(HALVES))), data)


@sanitized
@examples(8)
@given(st.data())
def test_random_cuda_kernels_under_sanitizers(data: st.DataObject) -> None:
    check_random(EmulatedCuda(sanitize=True), data)


@sanitized
@examples(10)
@given(st.data())
def test_random_cuda_kernels_of_half_types_under_sanitizers(data: st.DataObject) -> None:
    check_random(EmulatedCuda(sanitize=True, dtype=data.draw(st.sampled_from(HALVES))), data)


@sanitized
@examples(8)
@given(st.data())
def test_random_cpu_kernels_under_sanitizers(data: st.DataObject) -> None:
    check_random(Cpu(sanitize=True), data)


def run_padded(target: Runner, name: str, tile: Tile, step: int | None, images: tuple[int, int, int]) -> None:
    """A chain of `test_padding`; the tile's channels count blocks of the target's layout, 0 for all there are."""
    block = target.device.layout.block
    graph = GRAPHS[name](None, None) if name in GRAPHS else ENDS[name](None, None, block)
    chain = whole_chain(graph)
    channels = tile.channels * block or chain.shapes[chain.output].channels
    schedule = construct(chain, replace(tile, channels=channels), target.device, (),
                         step and step * granularity(chain, Axis.Y))
    x = image_of(graph, *images)
    wanted = chain_reference(chain, {"x": x}, target.dtype)[chain.output]
    np.testing.assert_array_equal(target.run(schedule, {"x": x}), wanted)


def walks() -> Iterator[Any]:
    """Networks in strips and their ends in tiles, the other way round with --thorough."""
    for name, walked in product((*GRAPHS, *ENDS), (False, True)):
        marks = pytest.mark.thorough if walked == (name in ENDS) else ()
        yield pytest.param(name, walked, marks=marks, id=f"{name}-{'strips' if walked else 'tiles'}")


@sanitized
@pytest.mark.parametrize("target", [EmulatedCuda(sanitize=True), Cpu(sanitize=True)], ids=str)
@pytest.mark.parametrize(("name", "walked"), list(walks()))
def test_padded_chains_under_sanitizers(target: Runner, name: str, walked: bool) -> None:
    run_padded(target, name, Tile(2, 6 if name in ENDS else 0, 8, 8), int(walked) or None, (7, 11, 3))


@sanitized
@pytest.mark.parametrize("walked", [False, True], ids=["tiles", "strips"])
@pytest.mark.parametrize("name", ["max_pool_beside_conv", "halos_of_a_concat", "transposed", "depthwise_end", "pooled_end"])
def test_padded_chains_of_half_types_under_sanitizers(name: str, walked: bool) -> None:
    run_padded(EmulatedCuda(sanitize=True, dtype="float16"), name, Tile(2, 6 if name in ENDS else 0, 8, 8), int(walked) or None,
               (7, 11, 3))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_strips_in_any_order_of_threads(name: str, dtype: str) -> None:
    run_padded(EmulatedCuda("all", dtype=dtype), name, Tile(1, 0, 12, 8), 1, (13, 9, 2))
