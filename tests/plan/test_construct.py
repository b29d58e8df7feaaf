"""Schedules put together: stages in order, buffers with a place, a layout and a padding value."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.plan.construct import construct
from fusec.plan.placement import ALIGN
from fusec.schedule.ir import Chain, Layout, Space, Tile
from fusec.schedule.verify import verify
from fusec.targets.device import DEVICES, Device, generic_host, in_precision
from tests.schedule.mutants import buffer_named, stage_named
from tests.small_networks import conv, max_pool, network, schedule_of

NEVER = float("-inf")
HALF = in_precision(DEVICES["h200"], "float16")


def test_stages_and_spaces() -> None:
    graph = network(L.Input(3), a=conv(4), b=conv(4), s=(L.Add(), "a", "b"))
    schedule = schedule_of(graph, 4, 4)
    assert [s.name for s in schedule.stages] == ["load x", "a", "b", "s"]
    assert [s.kind for s in schedule.stages] == ["load", "conv2d", "conv2d", "add"]
    assert [b.name for b in schedule.buffers if b.space is Space.SCRATCH] == ["x", "a", "b"]
    assert [b.name for b in schedule.buffers if b.space is Space.GLOBAL] == ["x@global", "s@global"]
    direct = schedule_of(graph, 4, 4, staged=())
    assert [s.name for s in direct.stages] == ["a", "b", "s"]
    assert stage_named(direct, "a").reads[0].buffer.space is Space.GLOBAL
    assert stage_named(direct, "a").reads[0].guarded


def test_an_input_is_loaded_just_before_its_first_reader() -> None:
    graph = network(L.Input(3), first=conv(3), second=conv(3), a=conv(3), s=(L.Add(), "a", "first"))
    chain = Chain(graph, ("a", "s"))
    stages = construct(chain, Tile(1, 3, 4, 4), DEVICES["h200"], chain.inputs).stages
    assert [s.name for s in stages] == ["load second", "a", "load first", "s"]


@pytest.mark.parametrize(("readers", "padding", "guards"), [
    ((max_pool(3, 1, pad=1),), NEVER, (False,)),
    ((conv(2),), 0.0, (False,)),
    ((L.AvgPool2d((3, 3), padding=L.Padding(1, 1, 1, 1)),), 0.0, (False,)),
    ((max_pool(3, 1, pad=1), max_pool(5, 1, pad=2)), NEVER, (False, False)),
    ((max_pool(3, 1, pad=1), conv(2)), 0.0, (True, False)),
])
def test_padding_values_and_guards(readers: Sequence[L.Layer], padding: float, guards: Sequence[bool]) -> None:
    """A buffer holds what its readers take padding for; where they differ, the max pools check the border."""
    steps = {f"r{i}": (layer, "a") for i, layer in enumerate(readers)}
    join = {"s": (L.Concat(), *steps)} if len(steps) > 1 else {}
    schedule = schedule_of(network(L.Input(2), a=conv(2), **steps, **join), 4, 4)  # type: ignore[arg-type]
    verify(schedule)
    assert buffer_named(schedule, "a").padding_value == padding
    assert tuple(stage_named(schedule, name).reads[0].guarded for name in steps) == tuple(guards)


@pytest.mark.parametrize(("device", "channels", "pitches"), [
    (DEVICES["h200"], 5, (5 * 36, 36, 6, 1)),
    (generic_host(8), 3, (3 * 36, 1, 3 * 6, 3)),
    (generic_host(8), 5, (8 * 36, 1, 8 * 6, 8)),
    (generic_host(4), 5, (8 * 36, 1, 8 * 6, 8)),
    (generic_host(16), 5, (8 * 36, 1, 8 * 6, 8)),
    (generic_host(16), 17, (32 * 36, 1, 32 * 6, 32)),
    (HALF, 4, (4 * 36, 36, 6, 1)),
    (HALF, 5, (8 * 36, 8 * 36, 8 * 6, 8)),
    (HALF, 16, (16 * 36, 8 * 36, 8 * 6, 8)),
    (HALF, 17, (24 * 36, 8 * 36, 8 * 6, 8)),
])
def test_pitches(device: Device, channels: int, pitches: tuple[int, ...]) -> None:
    """(image, channel, row, column) of a 6x6 box; pixels of four channels and more are rounded up to whole vectors on a CPU.

    In half precision from five channels on to planes of eight, whose pitch is the channel's.
    """
    schedule = schedule_of(network(L.Input(2), a=conv(channels), b=conv(1)), 4, 4, device=device)
    verify(schedule)
    a = buffer_named(schedule, "a")
    assert (a.image_pitch, a.channel_pitch, a.row_pitch, a.column_pitch) == pitches
    planes = device is HALF and channels > 4
    assert a.layout is (Layout.NC8HW8 if planes else Layout.NCHW if device.target == "cuda" else Layout.NHWC)


def test_places_are_used_again() -> None:
    """A chain keeps two buffers at a time; a new one takes the first place that is free."""
    graph = network(L.Input(4), a=conv(4), b=conv(4), c=conv(4), d=conv(4))
    schedule = schedule_of(graph, 4, 4)
    verify(schedule)
    x, a, b, c = (buffer_named(schedule, n) for n in "xabc")
    assert x.offset == b.offset == 0
    assert a.offset == -(-4 * 12 * 12 // ALIGN) * ALIGN
    assert c.offset == b.size == 4 * 8 * 8  # behind b, where a was
    assert schedule.scratch_elements == a.offset + a.size


def test_a_skip_keeps_its_place() -> None:
    graph = network(L.Input(4), a=conv(4), b=conv(4), c=conv(4), s=(L.Add(), "a", "c"))
    schedule = schedule_of(graph, 4, 4)
    verify(schedule)
    a, c = buffer_named(schedule, "a"), buffer_named(schedule, "c")
    assert c.offset + c.size <= a.offset or a.offset + a.size <= c.offset


def test_images_are_side_by_side() -> None:
    one, two = (schedule_of(network(L.Input(4), a=conv(4), b=conv(4)), 4, 4, images=n) for n in (1, 2))
    verify(two)
    assert buffer_named(two, "a").size == 2 * buffer_named(one, "a").size


def test_a_whole_image_of_open_size_cannot_be_staged() -> None:
    graph = network(L.Input(4), g=L.GlobalAvgPool2d())
    with pytest.raises(Infeasible, match="'x' is read as a whole image of open size"):
        schedule_of(graph, 1, 1)
    verify(schedule_of(graph, 1, 1, staged=()))


def test_a_channel_tile_divides_the_channels() -> None:
    graph = network(L.Input(4), a=conv(6))
    verify(schedule_of(graph, 4, 4, channels=3))
    with pytest.raises(Infeasible, match="4 channels does not divide the 6 of 'a'"):
        schedule_of(graph, 4, 4, channels=4)


# ---- half precision


def test_places_of_halves_are_counted_in_two_bytes() -> None:
    """Buffers begin at multiples of 64 bytes; a spare channel takes its place."""
    graph = network(L.Input(3), a=conv(9), b=conv(9), c=conv(4))
    schedule = schedule_of(graph, 5, 5, device=HALF)
    verify(schedule, HALF)
    x, a, b = (buffer_named(schedule, n) for n in "xab")
    assert (x.size, a.size, b.size) == (3 * 11 * 11, 16 * 9 * 9, 16 * 7 * 7)
    assert x.offset == b.offset == 0
    assert 2 * a.offset == -(-2 * b.size // ALIGN) * ALIGN > 2 * b.size  # behind the larger one of the two
    assert (schedule.element, schedule.scratch_bytes) == (2, 2 * (a.offset + a.size))


def test_layouts_of_halves() -> None:
    """The network's input and output are NCHW; so is every tensor of few channels."""
    graph = network(L.Input(12), a=conv(12), few=conv(4), b=conv(12))
    layouts = {}
    for names in (("a",), ("few",), ("b",), ("a", "few", "b")):
        chain = Chain(graph, names)
        schedule = construct(chain, Tile(1, chain.shapes[chain.output].channels, 4, 4), HALF, chain.inputs)
        verify(schedule, HALF)
        layouts |= {b.name: b.layout for b in schedule.buffers}
    planes = {name for name, layout in layouts.items() if layout is Layout.NC8HW8}
    assert planes == {"x", "a", "a@global"}
    assert {layout for name, layout in layouts.items() if name not in planes} == {Layout.NCHW}


def test_a_tile_of_halves_is_made_of_whole_planes() -> None:
    graph = network(L.Input(4), a=conv(48), b=conv(12))
    chain = Chain(graph, ("a",))
    for channels in (8, 16, 24, 48):
        verify(construct(chain, Tile(1, channels, 4, 4), HALF, ()), HALF)
    for channels in (4, 12):
        with pytest.raises(Infeasible, match=f"{channels} channels does not divide the 48 of 'a' into blocks of 8"):
            construct(chain, Tile(1, channels, 4, 4), HALF, ())
    last = Chain(graph, ("b",))
    verify(construct(last, Tile(1, 12, 4, 4), HALF, ()), HALF)  # all of them, which fill no plane
    with pytest.raises(Infeasible, match="blocks of 8"):
        construct(last, Tile(1, 6, 4, 4), HALF, ())
