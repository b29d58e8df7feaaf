"""A convolution's output in registers: the interpreter computes the same, and the verifier finds all other uses of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.reference import run
from fusec.graph.simplify import simplify
from fusec.schedule.interpret import interpret
from fusec.schedule.ir import Affine, Schedule, Space
from fusec.schedule.verify import verify
from fusec.targets.device import DEVICES, Device, generic_host
from tests.schedule.mutants import buffer_named, smaller, stage_named, with_buffer, with_read, with_stages
from tests.small_networks import Step, conv, image_of, max_pool, network, schedule_of, whole_chain
from tests.strategies_schedule import schedules

DEVICES_OF_BOTH_LAYOUTS = [DEVICES["h200"], generic_host(8)]
TWO = L.AvgPool2d((2, 2), (2, 2))

NETWORKS: dict[str, dict[str, Step]] = {
    "conv, pool": {"a": conv(5), "p": max_pool(2, 2)},
    "lenet5": {"a": conv(3, 5, pad=0), "p": TWO, "b": conv(6, 5, pad=0), "q": TWO},
    "activations": {"a": conv(4), "r": L.Relu(), "p": max_pool(2, 2), "c": L.Clip(1, 3), "b": conv(3)},
    "clip away from zero": {"a": conv(4), "c": L.Clip(2, 5), "p": TWO, "b": conv(2, 5)},
    "windows of 3x2": {"a": conv(4, stride=2), "p": L.MaxPool2d((3, 2), (3, 2)), "b": conv(3)},
    "depthwise": {"d": conv(3, groups=3), "p": max_pool(2, 2), "b": conv(4, 1)},
    "padded pool behind": {"a": conv(4), "p": max_pool(2, 2), "q": max_pool(3, 1, pad=1)},
    "upsampled": {"a": conv(4), "p": TWO, "u": L.Upsample((2, 2)), "b": conv(2)},
    "skip around the pair": {"a": conv(3), "p": max_pool(2, 2), "d": (conv(3, stride=2), "x"), "s": (L.Add(), "p", "d")},
}


@pytest.mark.parametrize("device", DEVICES_OF_BOTH_LAYOUTS, ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("name", NETWORKS)
def test_tails_odd_sizes_and_several_images(name: str, device: Device) -> None:
    """The reference's values exactly, at sizes where a pool drops a row or a column and where tiles hang over the end."""
    graph = simplify(network(L.Input(3), **NETWORKS[name])).graph
    for height, width, images in ((1, 1, 1), (2, 3, 1), (2, 2, 3), (4, 2, 2)):
        if name == "upsampled" and (height % 2 or width % 2):
            height, width = 2 * height, 2 * width
        for staged in ((), ("x",)):
            schedule = schedule_of(graph, height, width, images=images, staged=staged, device=device)
            verify(schedule)
            assert any(b.space is Space.REGISTER for b in schedule.buffers)
            for size in ((16, 16), (17, 19)):
                if name == "skip around the pair":  # else the two do not meet
                    size = (16, size[1] // 2 * 2)
                image = image_of(graph, *size, batch=images + 1)
                wanted = run(graph, image, dtype=np.float32)[schedule.chain.output]
                np.testing.assert_array_equal(interpret(schedule, {"x": image}, order_seed=images), wanted)


@pytest.mark.parametrize("device", DEVICES_OF_BOTH_LAYOUTS, ids=["NCHW", "NHWC"])
def test_pinned_sizes_and_channel_tiles(device: Device) -> None:
    """A pool that drops the last row of a pinned image, whole and in parts, with a fully connected layer behind or not."""
    graph = network(L.Input(2, 11, 9), a=conv(6), p=max_pool(2, 2))
    image = image_of(graph, 11, 9, batch=3)
    wanted = run(graph, image, dtype=np.float32)["p"]
    for height, width, channels in ((5, 4, 6), (11, 9, 2), (2, 4, 3), (3, 3, 6)):
        schedule = schedule_of(graph, height, width, channels=channels, images=2, device=device)
        verify(schedule)
        np.testing.assert_array_equal(interpret(schedule, {"x": image}), wanted)
    graph = network(L.Input(2, 11, 9), a=conv(3), p=max_pool(2, 2), f=L.Linear(7))
    schedule = schedule_of(graph, 1, 1, images=2, device=device)
    verify(schedule)
    np.testing.assert_array_equal(interpret(schedule, {"x": image}), run(graph, image, dtype=np.float32)["f"])


@st.composite
def pooled(draw: st.DrawFn) -> LayerGraph:
    """A few convolutions with a pool behind each, most of them with windows side by side."""
    steps: dict[str, Step] = {}
    for i in range(draw(st.integers(1, 2))):
        kernel, stride = draw(st.sampled_from((1, 2, 3))), draw(st.integers(1, 2 - i))
        steps[f"a{i}"] = conv(draw(st.integers(1, 5)), kernel, pad=draw(st.integers(0, kernel - 1)), stride=stride)
        window = (draw(st.integers(1, 3 - i)), draw(st.integers(1, 3 - i)))
        side_by_side = draw(st.integers(0, 3)) > 0
        steps[f"p{i}"] = L.MaxPool2d(window, window if side_by_side else (2, 1), ceil_mode=not side_by_side)
    if draw(st.booleans()):
        steps["b"] = conv(3, 3)
    size = draw(st.sampled_from((None, 29, 33)))
    return network(L.Input(2, size, size), **steps)


@settings(max_examples=80)
@given(data=st.data())
def test_random_convolutions_and_pools(data: st.DataObject) -> None:
    graph = data.draw(pooled())
    schedule = data.draw(schedules(whole_chain(graph)))
    verify(schedule)
    height, width = (graph.shapes["x"].height or data.draw(st.integers(29, 40)) for _ in range(2))
    image = image_of(graph, height, width, batch=2)
    wanted = run(graph, image, dtype=np.float32)[schedule.chain.output]
    np.testing.assert_array_equal(interpret(schedule, {"x": image}), wanted)


# ---- planted faults


def pair() -> Schedule:
    """x -> a -> pool -> b, the output of `a` in registers; 4x4 tiles."""
    return schedule_of(network(L.Input(3), a=conv(4), p=max_pool(2, 2), b=conv(4)), 4, 4)


def two() -> Schedule:
    """Two such pairs on one input, added."""
    pool = max_pool(2, 2)
    return schedule_of(network(L.Input(3), a=conv(4), p=pool, b=(conv(4), "x"), q=pool, s=(L.Add(), "p", "q")), 4, 4)


def plain(pool: L.Layer | None = None, **steps: Step) -> Callable[[], Schedule]:
    """A schedule without registers: x -> a -> `pool` -> b, or those steps."""
    return lambda: schedule_of(network(L.Input(3), **(steps or {"a": conv(4), "p": pool, "b": conv(4)})), 4, 4)  # type: ignore[dict-item]


def changed(schedule: Schedule, name: str, **changes: object) -> Schedule:
    return with_buffer(schedule, buffer_named(schedule, name), **changes)


def kept(schedule: Schedule, name: str = "a") -> Schedule:
    """A scratch buffer moved to registers, its readers unguarded."""
    moved = changed(schedule, name, space=Space.REGISTER, offset=0)
    buffer = buffer_named(moved, name)
    reader = next(s for s in moved.stages if any(r.buffer is buffer for r in s.reads))
    return with_read(moved, reader, 0, guarded=False)


def guarded(schedule: Schedule) -> Schedule:
    return with_read(schedule, stage_named(schedule, "p"), 0, guarded=True)


def order(schedule: Schedule, names: str) -> Schedule:
    return with_stages(schedule, (stage_named(schedule, {"x": "load x"}.get(n, n)) for n in names))


def wider(schedule: Schedule, axis: str) -> Schedule:
    """The box in registers with one position more than the pool's windows."""
    buffer = buffer_named(schedule, "a")
    own: Affine = getattr(buffer.footprint, axis)
    assert own.extent is not None
    box = replace(buffer.footprint, **{axis: Affine(own.scale, own.offset, own.extent + 1)})
    pitches = {"image_pitch": 1 << 20, "channel_pitch": 1 << 14, "row_pitch": 1 << 7}
    grown = with_buffer(schedule, buffer, footprint=box, **pitches)
    source = buffer_named(grown, "x")
    room = replace(source.footprint, y=Affine(Fraction(2), -8, 64), x=Affine(Fraction(2), -8, 64))
    grown = with_buffer(grown, source, footprint=room, offset=1 << 20, **pitches)
    grown = with_buffer(grown, buffer_named(grown, "x@global"), footprint=room)
    grown = with_read(grown, stage_named(grown, "load x"), 0, footprint=room)
    return with_read(grown, stage_named(grown, "a"), 0, footprint=room)


def onto(schedule: Schedule, name: str, other: str) -> Schedule:
    return changed(schedule, name, offset=buffer_named(schedule, other).offset)


FAULTS: dict[str, tuple[Callable[[], Schedule], Callable[[Schedule], Schedule], str]] = {
    "overlapping windows": (plain(max_pool(3, 2)), kept, "windows along y overlap"),
    "windows with gaps": (plain(max_pool(2, 3)), kept, "windows along y overlap, have holes"),
    "overlap along x alone": (plain(L.AvgPool2d((2, 3), (2, 2))), kept, "windows along x overlap"),
    "dilated windows": (plain(L.MaxPool2d((2, 2), (2, 2), (2, 2))), kept, "windows along y overlap, have holes"),
    "padded pool": (plain(max_pool(2, 2, pad=1)), kept, "leave the image"),
    "padded on one side": (plain(L.AvgPool2d((2, 2), (2, 2), padding=L.Padding(right=1))), kept, "windows along x .* leave"),
    "ceil mode": (plain(max_pool(2, 2, ceil=True)), kept, "leave the image"),
    "no pool": (plain(conv(3)), kept, "p is no pool"),
    "no convolution": (plain(a=L.Relu(), p=max_pool(2, 2)), kept, "a is no convolution"),
    "a pool's output": (plain(a=conv(3), p=max_pool(2, 2), q=max_pool(2, 2)), lambda s: kept(s, "p"), "p is no convolution"),
    "a loaded input": (plain(p=max_pool(2, 2)), lambda s: kept(s, "x"), "load x is no convolution"),
    "two readers": (plain(a=conv(3), p=max_pool(2, 2), q=(max_pool(2, 2), "a"), s=(L.Add(), "p", "q")), kept,
                    "read by p, q, not by p alone"),
    "another stage between": (two, lambda s: order(s, "xabpqs"), "a in registers: read by p, not by b alone"),
    "the pool much later": (two, lambda s: order(s, "xabqps"), "a in registers: read by p, not by b alone"),
    "the pool first": (two, lambda s: order(s, "xpabqs"), "before it is written"),
    "a guarded read": (pair, guarded, "checks the border"),
    "a place in scratch": (pair, lambda s: changed(s, "a", offset=16), "has a place in scratch"),
    "folded": (pair, lambda s: changed(s, "a", fold=L.Axis.Y), "folded"),
    "less than the windows": (pair, lambda s: changed(s, "a", footprint=smaller(buffer_named(s, "a").footprint, "y", "last")),
                              "not inside the buffer"),
    "a row more than the windows": (pair, lambda s: wider(s, "y"), r"y .* is not made of the windows"),
    "a column more than the windows": (pair, lambda s: wider(s, "x"), r"x .* is not made of the windows"),
    "pitches": (pair, lambda s: changed(s, "a", row_pitch=buffer_named(s, "a").row_pitch - 1), "a: pitches"),
    "images": (pair, lambda s: changed(s, "a", images=2), "not of the tile's 1 images"),
    "the pool writes where the convolution reads": (pair, lambda s: onto(s, "p", "x"), "x at .* and p at .* share scratch"),
    "the output of the chain": (pair, lambda s: changed(s, "b@global", space=Space.REGISTER), "writes to registers memory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str) -> None:
    make, plant, message = FAULTS[fault]
    schedule = make()
    verify(schedule)
    with pytest.raises(InternalError, match=message):
        verify(plant(schedule))


def outcome(schedule: Schedule) -> NDArray[np.float32]:
    return interpret(schedule, {"x": image_of(schedule.chain.graph, 9, 10)})


def test_registers_are_gone_after_the_next_stage() -> None:
    outcome(two())
    with pytest.raises(InternalError, match="p: a is no longer, or not yet, in registers"):
        outcome(order(two(), "xabpqs"))
    with pytest.raises(InternalError, match="p: a is no longer, or not yet, in registers"):
        outcome(order(two(), "xpabqs"))


def test_registers_hold_nothing_outside_the_image() -> None:
    """A pool that would look there finds nothing; the padding value in the buffer never matters."""
    schedule = pair()
    wanted = outcome(schedule)
    np.testing.assert_array_equal(outcome(changed(schedule, "a", padding_value=1e6)), wanted)
    padded = schedule_of(network(L.Input(3), a=conv(4), p=max_pool(2, 2, pad=1), b=conv(4)), 4, 4)
    outcome(padded)
    with pytest.raises(InternalError, match="where nothing was written last"):
        outcome(kept(padded))
