"""The interpreter on small cases worked out by hand, and on wrong schedules it has to notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fusec.errors import InputError, InternalError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.reference import run
from fusec.plan.construct import construct
from fusec.schedule.interpret import interpret, interpret_graph
from fusec.schedule.ir import Chain, Schedule, Space, Tile
from fusec.schedule.verify import verify
from fusec.targets.device import DEVICES, Device, generic_host
from tests.schedule.mutants import buffer_named, smaller, stage_named, with_buffer, with_read, with_stages
from tests.small_networks import conv, image_of, max_pool, network, schedule_of

ROW = L.Padding(left=1, right=1)


def row(*values: float) -> NDArray[np.float32]:
    """One image of one channel and one row."""
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


def chain_of(*layers: L.Layer, weight: float = 1.0, bias: float = 0.0) -> LayerGraph:
    """Layers with one channel in a row, on images of any size; all weights the same."""
    nodes = [Node("x", L.Input(1))]
    for i, layer in enumerate(layers):
        params = {"weight": np.full((1, 1, *layer.kernel), weight, np.float32), "bias": np.full(1, bias, np.float32)} \
            if isinstance(layer, L.Conv2d) else {}
        nodes.append(Node(f"n{i}", layer, (nodes[-1].name,), params))
    return LayerGraph("row", nodes)


def sums(graph: LayerGraph, image: NDArray[np.float32], width: int, device: Device = DEVICES["h200"],
         staged: Sequence[str] = ("x",)) -> list[float]:
    """What the whole chain makes of one row, in tiles of 1 x `width`."""
    schedule = schedule_of(graph, 1, width, device=device, staged=staged)
    verify(schedule)
    return [float(v) for v in interpret(schedule, {"x": image}).ravel()]


@pytest.mark.parametrize("staged", [(), ("x",)])
@pytest.mark.parametrize("device", [DEVICES["h200"], generic_host(8)], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_padding_in_the_middle_of_a_chain(width: int, device: Device, staged: Sequence[str]) -> None:
    """Sums of three neighbours, thrice: 1 1 1 -> 2 3 2 -> 5 7 5 -> 12 17 12.

    Were intermediate positions outside the row computed instead of 0, the ends would be 16 and the middle 19.
    """
    three = L.Conv2d((1, 3), padding=ROW)
    assert sums(chain_of(three), row(1, 1, 1), width, device, staged) == [2, 3, 2]
    assert sums(chain_of(three, three), row(1, 1, 1), width, device, staged) == [5, 7, 5]
    assert sums(chain_of(three, three, three), row(1, 1, 1), width, device, staged) == [12, 17, 12]


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_a_bias_does_not_leak_into_the_padding(width: int) -> None:
    """With bias 1: 0 0 -> 1 1 -> 3 3 -> 7 7; a leaking bias would give more."""
    three = L.Conv2d((1, 3), padding=ROW)
    assert sums(chain_of(three, three, three, bias=1.0), row(0, 0), width) == [7, 7]


def test_activations_do_not_move_the_padding() -> None:
    """clip to [2, 5] of 0 is 2, but the padding behind it stays 0: 1 1 1 -> 2 2 2 -> 4 6 4."""
    assert sums(chain_of(L.Clip(2, 5), L.Conv2d((1, 3), padding=ROW)), row(1, 1, 1), 2) == [4, 6, 4]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_ceil_mode_pools(width: int) -> None:
    """The last window hangs over the end: it sees -inf for a max pool, and nothing it counts for a mean."""
    negate = L.Conv2d((1, 1))
    windows = {"kernel": (1, 2), "stride": (1, 2)}
    graph = chain_of(negate, L.MaxPool2d(**windows, ceil_mode=True), weight=-1.0)
    assert sums(graph, row(1, 2, 3, 4, 5), width) == [-1, -3, -5]
    graph = chain_of(negate, L.AvgPool2d(**windows, ceil_mode=True), weight=-1.0)
    assert sums(graph, row(1, 2, 3, 4, 5), width) == [-1.5, -3.5, -5]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_the_divisor_of_a_mean_depends_on_where_it_is_taken(width: int) -> None:
    counted = L.AvgPool2d((1, 3), padding=ROW)
    assert sums(chain_of(counted), row(3, 6, 9, 12), width) == [3, 6, 9, 7]
    assert sums(chain_of(replace(counted, count_include_pad=False)), row(3, 6, 9, 12), width) == [4.5, 6, 9, 10.5]


@pytest.mark.parametrize("width", [2, 4, 6])
def test_a_max_pool_and_a_convolution_share_a_buffer(width: int) -> None:
    """Negative pixels: the padding is 0 for the convolution (-2 -3 -2) and never wins the pool (-1 -1 -1)."""
    nodes = [Node("x", L.Input(1)), Node("r", L.Clip(-9, 9), ("x",)),
             Node("p", L.MaxPool2d((1, 3), padding=ROW), ("r",)),
             Node("c", L.Conv2d((1, 3), padding=ROW, bias=False), ("r",), {"weight": np.ones((1, 1, 1, 3), np.float32)}),
             Node("s", L.Add(), ("p", "c"))]
    assert sums(LayerGraph("shared", nodes), row(-1, -1, -1), width) == [-3, -4, -3]


@pytest.mark.parametrize("staged", [(), ("x",)])
@pytest.mark.parametrize("side", [2, 4, 6])
@pytest.mark.parametrize("device", [DEVICES["h200"], generic_host(4)], ids=["NCHW", "NHWC"])
def test_a_skip_around_a_stride_and_an_upsampling(device: Device, side: int, staged: Sequence[str]) -> None:
    graph = network(L.Input(3), a=conv(4, stride=2), up=L.Upsample((2, 2)), b=(conv(4), "x"), s=(L.Add(), "up", "b"), c=conv(2))
    schedule = schedule_of(graph, side, side, images=2, staged=staged, device=device)
    verify(schedule)
    for size in ((2, 2), (6, 4), (10, 14)):
        image = image_of(graph, *size, batch=3)
        wanted = run(graph, image, dtype=np.float32)["c"]
        for seed in (None, 0, 1):
            np.testing.assert_array_equal(interpret(schedule, {"x": image}, order_seed=seed), wanted)


def test_chains_one_after_another() -> None:
    graph = network(L.Input(3), outputs=("a", "c"), a=conv(4), b=conv(5), c=conv(2, stride=2))
    image = image_of(graph, 9, 7)
    chains = (Chain(graph, ("a",)), Chain(graph, ("b", "c")))
    tiles = (Tile(1, 4, 3, 3), Tile(1, 2, 2, 3))
    plan = [construct(c, t, DEVICES["h200"], c.inputs) for c, t in zip(chains, tiles, strict=True)]
    results = interpret_graph(plan, {"x": image})
    wanted = run(graph, image, dtype=np.float32)
    assert set(results) == {"a", "c"}
    for name, array in results.items():
        np.testing.assert_array_equal(array, wanted[name])


# ---- wrong schedules


def residual(device: Device = DEVICES["h200"]) -> Schedule:
    graph = network(L.Input(3), a=conv(4), b=conv(4), s=(L.Add(), "a", "b"), p=max_pool(3, 2, pad=1), out=conv(5))
    return schedule_of(graph, 2, 2, device=device)


def outcome(schedule: Schedule) -> NDArray[np.float32]:
    return interpret(schedule, {"x": image_of(schedule.chain.graph, 9, 9)})


def held(schedule: Schedule, name: str, axis: str, end: str) -> Schedule:
    buffer = buffer_named(schedule, name)
    return with_buffer(schedule, buffer, footprint=smaller(buffer.footprint, axis, end))


def changed(schedule: Schedule, name: str, **changes: object) -> Schedule:
    return with_buffer(schedule, buffer_named(schedule, name), **changes)


def closer(schedule: Schedule, name: str, pitch: str) -> Schedule:
    return changed(schedule, name, **{pitch: getattr(buffer_named(schedule, name), pitch) // 2})


def resized(schedule: Schedule, height: int) -> Schedule:
    return replace(schedule, tile=replace(schedule.tile, height=height))


def unguarded(schedule: Schedule) -> Schedule:
    """The first convolution reads device memory as if there were no border."""
    return with_read(schedule, stage_named(schedule, "a"), 0, guarded=False, buffer=buffer_named(schedule, "x@global"))


ERRORS: dict[str, tuple[Callable[[Schedule], Schedule], str]] = {
    "box without its first row": (lambda s: held(s, "a", "y", "first"), "b: needs"),
    "box without its last column": (lambda s: held(s, "b", "x", "last"), "s: needs"),
    "box without its last channel": (lambda s: held(s, "s", "c", "last"), "p: needs"),
    "device memory without its last row": (lambda s: held(s, "x@global", "y", "last"), "load x: needs"),
    "skip overwritten": (lambda s: changed(s, "b", offset=buffer_named(s, "a").offset), "of b was written last"),
    "rows over each other": (lambda s: closer(s, "a", "row_pitch"), "where row . of a was written"),
    "channels over each other": (lambda s: closer(s, "x", "channel_pitch"), "a: reads element"),
    "outside scratch": (lambda s: changed(s, "a", offset=-64), "outside the"),
    "nothing loaded": (lambda s: with_stages(s, s.stages[1:]), "where nothing was written last"),
    "unguarded device memory": (unguarded, "unguarded, outside the image"),
    "tiles written twice": (lambda s: resized(s, 1), "was written 2 times"),
    "tiles left out": (lambda s: resized(s, 4), "was written 0 times"),
    "registers": (lambda s: changed(s, "a", space=Space.REGISTER, offset=0), "b: reads .* where nothing was written last"),
    "another tensor": (lambda s: with_read(s, stage_named(s, "s"), 0, buffer=buffer_named(s, "b")), "reads"),
    "intermediate in device memory": (lambda s: changed(s, "b", space=Space.GLOBAL), "not the output"),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_faults_that_stop_the_interpreter(fault: str) -> None:
    plant, message = ERRORS[fault]
    with pytest.raises(InternalError, match=message):
        outcome(plant(residual()))


WALK_ERRORS: dict[str, tuple[Callable[[Schedule], Schedule], str]] = {
    "line buffer of too few rows": (lambda s: held(s, "a", "y", "first"), "b: needs"),
    "line buffer not kept": (lambda s: changed(s, "one", offset=buffer_named(s, "a").offset), "where row .* of one was"),
    "longer steps than the boxes are for": (lambda s: replace(s, step=4), "needs"),
    "warm-up a step too short": (lambda s: replace(s, warm_up=s.warm_up - 1), "was written last"),
    "strips over each other": (lambda s: resized(s, 5), "was written 2 times"),
}


@pytest.mark.parametrize("fault", WALK_ERRORS)
def test_faults_of_a_walk_stop_the_interpreter(fault: str) -> None:
    plant, message = WALK_ERRORS[fault]
    graph = network(L.Input(3), a=conv(4), b=conv(4), s=(L.Add(), "a", "b"), one=conv(6), out=conv(5, 1))
    schedule = schedule_of(graph, 8, 4, step=2)
    image = {"x": image_of(graph, 13, 9)}
    np.testing.assert_array_equal(interpret(schedule, image), run(graph, image["x"], dtype=np.float32)["out"])
    with pytest.raises(InternalError, match=message):
        interpret(plant(schedule), image)


FAULTS: dict[str, Callable[[Schedule], Schedule]] = {
    "padding of a convolution": lambda s: changed(s, "a", padding_value=1.0),
    "padding of a max pool": lambda s: changed(s, "s", padding_value=1e6),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_change_the_result(fault: str) -> None:
    schedule = residual()
    right = run(schedule.chain.graph, image_of(schedule.chain.graph, 9, 9), dtype=np.float32)["out"]
    np.testing.assert_array_equal(outcome(schedule), right)
    assert (outcome(FAULTS[fault](schedule)) != right).any()


def test_a_missing_guard_changes_the_result() -> None:
    """Without its guard the pool takes the convolution's zeros for pixels."""
    graph = network(L.Input(1), r=L.Clip(-9, 9), p=(max_pool(3, 1, pad=1), "r"), c=(conv(1), "r"), s=(L.Add(), "p", "c"))
    schedule = schedule_of(graph, 2, 2)
    image = {"x": image_of(graph, 5, 5, low=-4, high=-1)}
    right = interpret(schedule, image)
    pool = stage_named(schedule, "p")
    assert pool.reads[0].guarded
    assert (interpret(with_read(schedule, pool, 0, guarded=False), image) != right).any()


def test_claimed_footprints_are_not_believed() -> None:
    """Only the buffers' boxes count: a read that claims too little still gets what its layer needs."""
    schedule = residual()
    stage = stage_named(schedule, "b")
    lying = with_read(schedule, stage, 0, footprint=smaller(stage.reads[0].footprint, "y", "first"))
    np.testing.assert_array_equal(outcome(lying), outcome(schedule))


def test_arrays_that_do_not_fit() -> None:
    schedule = residual()
    image = image_of(schedule.chain.graph, 9, 9)
    with pytest.raises(InputError, match="'x' is missing"):
        interpret(schedule, {})
    with pytest.raises(InputError, match="expects 3x"):
        interpret(schedule, {"x": image[:, :2]})
    with pytest.raises(InputError, match="one float dtype"):
        interpret(schedule, {"x": image.astype(np.int32)})  # type: ignore[dict-item]
