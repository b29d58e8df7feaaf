"""The verifier finds every planted fault, each by its own rule, and accepts the schedule the fault was planted in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from fusec.errors import Infeasible, InternalError
from fusec.graph import layers as L
from fusec.schedule.ir import WHOLE, Affine, Execution, Footprint, Overlap, Schedule, Space, Tile
from fusec.schedule.verify import live_elements, peak_stage, verify
from fusec.targets.device import DEVICES, generic_host, in_precision
from tests.schedule.mutants import buffer_named, smaller, stage_named, with_buffer, with_read, with_stages
from tests.small_networks import conv, max_pool, network, schedule_of


def residual() -> Schedule:
    """Two convolutions with a skip around the second, then a max pool: x -> a -> b, a + b -> pool -> out."""
    graph = network(L.Input(3, None, None), a=conv(4), b=conv(4), s=(L.Add(), "a", "b"), p=max_pool(3, 2, pad=1), out=conv(5))
    return schedule_of(graph, 4, 4)


def shared() -> Schedule:
    """One tensor read by a padded max pool, guarded, and by a padded convolution, unguarded."""
    graph = network(L.Input(2, None, None), a=conv(3), p=(max_pool(3, 1, pad=1), "a"), b=(conv(3), "a"), s=(L.Add(), "p", "b"))
    return schedule_of(graph, 4, 4)


def planes() -> Schedule:
    """Two convolutions in half precision, whose tensors take two planes of eight channels each."""
    graph = network(L.Input(3, None, None), a=conv(12), b=conv(12), out=conv(5))
    return schedule_of(graph, 4, 4, device=in_precision(DEVICES["h200"], "float16"))


def walked() -> Schedule:
    """Strips of 8 rows walked down by 2; `one` is read by a convolution of 1x1 and needs no line buffer."""
    graph = network(L.Input(3, None, None), a=conv(4), b=conv(4), s=(L.Add(), "a", "b"), p=max_pool(3, 2, pad=1), one=conv(6),
                    out=conv(5, 1))
    return schedule_of(graph, 8, 4, step=2)


def interpolated() -> Schedule:
    """A linear enlargement between two convolutions: what it reads of `a` outside the image, it takes from the edge."""
    return schedule_of(network(L.Input(3, None, None), a=conv(4), u=L.Upsample((2, 2), "linear"), b=conv(4)), 4, 4)


def framed() -> Schedule:
    return schedule_of(network(L.Input(3, None, None), a=conv(4), p=L.Pad(L.Padding(1, 1, 1, 1), 2.0), b=conv(4)), 4, 4)


def other_tensor(schedule: Schedule) -> Schedule:
    return with_read(schedule, stage_named(schedule, "s"), 0, buffer=buffer_named(schedule, "b"))


def reuse(schedule: Schedule) -> Schedule:
    return replace(schedule, overlap={L.Axis.Y: Overlap.REUSE, L.Axis.X: Overlap.RECOMPUTE})


def reuse_along_x(schedule: Schedule) -> Schedule:
    return replace(schedule, overlap={L.Axis.Y: Overlap.REUSE, L.Axis.X: Overlap.REUSE})


def started(schedule: Schedule, name: str, later: int) -> Schedule:
    return with_stages(schedule, (replace(s, start=(s.start or 0) + later) if s.name == name else s for s in schedule.stages))


def swapped(schedule: Schedule, first: str, second: str) -> Schedule:
    order = {first: stage_named(schedule, second), second: stage_named(schedule, first)}
    return with_stages(schedule, (order.get(s.name, s) for s in schedule.stages))


def moved(schedule: Schedule, name: str, onto: str) -> Schedule:
    return with_buffer(schedule, buffer_named(schedule, name), offset=buffer_named(schedule, onto).offset)


def read(schedule: Schedule, stage: str, axis: str, end: str) -> Schedule:
    s = stage_named(schedule, stage)
    return with_read(schedule, s, 0, footprint=smaller(s.reads[0].footprint, axis, end))


def held(schedule: Schedule, name: str, axis: str, end: str) -> Schedule:
    buffer = buffer_named(schedule, name)
    return with_buffer(schedule, buffer, footprint=smaller(buffer.footprint, axis, end))


def slower(schedule: Schedule) -> Schedule:
    """A read whose rows move half as fast as its buffer's."""
    stage = stage_named(schedule, "a")
    box = stage.reads[0].footprint
    return with_read(schedule, stage, 0, footprint=replace(box, y=replace(box.y, scale=box.y.scale / 2)))


def left_behind(schedule: Schedule) -> Schedule:
    """The input's whole box moves half as fast as it should."""
    buffer = buffer_named(schedule, "x@global")
    box = replace(buffer.footprint, y=replace(buffer.footprint.y, scale=buffer.footprint.y.scale / 2))
    return with_buffer(schedule, buffer, footprint=box)


def unguarded(schedule: Schedule, stage: str) -> Schedule:
    return with_read(schedule, stage_named(schedule, stage), 0, guarded=False)


def padded(schedule: Schedule, name: str, value: float) -> Schedule:
    return with_buffer(schedule, buffer_named(schedule, name), padding_value=value)


def changed(schedule: Schedule, name: str, **changes: object) -> Schedule:
    return with_buffer(schedule, buffer_named(schedule, name), **changes)


def pitch(schedule: Schedule, name: str, which: str) -> Schedule:
    return changed(schedule, name, **{which: getattr(buffer_named(schedule, name), which) - 1})


def whole_rows(schedule: Schedule) -> Schedule:
    return changed(schedule, "b", footprint=replace(buffer_named(schedule, "b").footprint, y=WHOLE))


FAULTS: dict[str, tuple[Callable[[], Schedule], Callable[[Schedule], Schedule], str]] = {
    "read without its first row": (residual, lambda s: read(s, "b", "y", "first"), "b: needs y"),
    "read without its last column": (residual, lambda s: read(s, "p", "x", "last"), "p: needs x"),
    "read without its last channel": (residual, lambda s: read(s, "out", "c", "last"), "out: needs c 0..3"),
    "load of less than its buffer": (residual, lambda s: read(s, "load x", "y", "last"), "load x: needs y"),
    "buffer without its first row": (residual, lambda s: held(s, "a", "y", "first"), "not inside the buffer"),
    "buffer without its last channel": (residual, lambda s: held(s, "s", "c", "last"), "not inside the buffer"),
    "footprint at another rate": (residual, slower, "another rate"),
    "device memory at another rate": (residual, left_behind, "moves at another rate"),
    "whole axis of scratch": (residual, whole_rows, "whole axis"),
    "a tile of a whole axis": (residual, lambda s: changed(s, "x@global", footprint=Footprint(
        buffer_named(s, "x@global").footprint.c, WHOLE, WHOLE)), "another rate"),
    "edge that is not looked for": (interpolated, lambda s: unguarded(s, "u"), "repeats the edge of a"),
    "enlarged without the pixel before": (interpolated, lambda s: read(s, "u", "y", "first"), "u: needs y"),
    "padding of another value": (framed, lambda s: unguarded(s, "p"), "takes padding for 2, but a holds 0"),
    "misaligned": (residual, lambda s: changed(s, "b", offset=8), "not a multiple"),
    "negative offset": (residual, lambda s: changed(s, "a", offset=-16), "offset -16"),
    "misaligned in two bytes": (planes, lambda s: changed(s, "b", offset=16), "offset 16 is not a multiple of 32"),
    "plane pitch": (planes, lambda s: pitch(s, "a", "channel_pitch"), "pitches"),
    "row pitch of planes": (planes, lambda s: pitch(s, "a", "row_pitch"), "pitches"),
    "pixels of seven channels": (planes, lambda s: changed(s, "a", column_pitch=7), "pitches"),
    "planes too few": (planes, lambda s: changed(s, "a", image_pitch=buffer_named(s, "a").channel_pitch), "pitches"),
    "planes over planes": (planes, lambda s: moved(s, "b", "a"), "share scratch"),
    "skip overwritten": (residual, lambda s: moved(s, "b", "a"), "a at .* and b at .* share scratch"),
    "output over input of a stage": (residual, lambda s: moved(s, "p", "s"), "share scratch"),
    "row pitch": (residual, lambda s: pitch(s, "a", "row_pitch"), "pitches"),
    "channel pitch": (residual, lambda s: pitch(s, "a", "channel_pitch"), "pitches"),
    "column pitch": (residual, lambda s: changed(s, "a", column_pitch=2), "pitches"),
    "conv takes padding for 0": (residual, lambda s: padded(s, "a", float("-inf")), "b: takes padding for 0"),
    "max pool takes padding for -inf": (residual, lambda s: padded(s, "s", 0.0), "p: takes padding for -inf"),
    "pool without its guard": (shared, lambda s: unguarded(s, "p"), "p: takes padding for -inf"),
    "device memory unguarded": (residual, lambda s: unguarded(s, "load x"), "load x: reads x@global unguarded"),
    "stages in another order": (residual, lambda s: swapped(s, "b", "s"), "before it is written"),
    "no load": (residual, lambda s: with_stages(s, s.stages[1:]), "before it is written"),
    "stage missing": (residual, lambda s: with_stages(s, (x for x in s.stages if x.name != "b")), "the stages compute"),
    "stage twice": (residual, lambda s: with_stages(s, (s.stages[0], *s.stages)), "a second time"),
    "another tensor": (residual, other_tensor, "reads b, b instead"),
    "output in scratch": (residual, lambda s: changed(s, "out@global", space=Space.SCRATCH), "to scratch memory"),
    "intermediate in device memory": (residual, lambda s: changed(s, "b", space=Space.GLOBAL), "b"),
    "registers": (residual, lambda s: changed(s, "b", space=Space.REGISTER), "registers"),
    "images": (residual, lambda s: changed(s, "b", images=2), "not of the tile's 1 images"),
    "tile of no rows": (residual, lambda s: replace(s, tile=Tile(1, 5, 0, 4)), "is not within"),
    "tile of too many channels": (residual, lambda s: replace(s, tile=Tile(1, 6, 4, 4)), "is not within"),
    "tile of a part of the channels": (residual, lambda s: replace(s, tile=Tile(1, 2, 4, 4)), "does not divide 5 channels"),
    "tile of no images": (residual, lambda s: replace(s, tile=Tile(0, 5, 4, 4)), "is not within"),
    "another tile than is written": (residual, lambda s: replace(s, tile=Tile(1, 5, 5, 4)), "writes y"),
    "fold without reuse": (residual, lambda s: changed(s, "a", fold=L.Axis.Y), "folded"),
    "fold of a tensor without overlap": (walked, lambda s: changed(s, "one", fold=L.Axis.Y), "one: y .* keeps no rows"),
    "fold along x": (walked, lambda s: changed(s, "a", fold=L.Axis.X), "a cannot be folded"),
    "fold of device memory": (walked, lambda s: changed(s, "x@global", fold=L.Axis.Y), "cannot be folded"),
    "line buffer without its first row": (walked, lambda s: held(s, "a", "y", "first"), "not inside the buffer"),
    "line buffer in a place used by another phase": (walked, lambda s: moved(s, "one", "x"), "share scratch"),
    "reuse without steps": (residual, reuse, "the step None disagree"),
    "steps without reuse": (residual, lambda s: replace(s, step=2), "the step 2 disagree"),
    "reuse along x by narrow strips": (walked, reuse_along_x, "do not cover the width"),
    "steps that do not divide the strip": (walked, lambda s: replace(s, tile=Tile(1, 5, 9, 4)), "do not divide a strip of 9"),
    "other steps than the boxes are for": (walked, lambda s: replace(s, step=1), "writes y"),
    "line buffer of a row too few": (walked, lambda s: held(s, "s", "y", "first"), "s: y .* keeps no rows"),
    "warm-up a step too short": (walked, lambda s: replace(s, warm_up=s.warm_up - 1), "leaves out rows"),
    "warm-up without a walk": (residual, lambda s: replace(s, warm_up=1), "nothing is walked down"),
    "stage that starts a row too late": (walked, lambda s: started(s, "a", 1), "needs row .* of a, which a strip has from"),
    "output that starts too early": (walked, lambda s: started(s, "out", -1), "strips begin in row -1"),
    "tiles in space": (residual, lambda s: replace(s, execution=Execution.IN_SPACE), "stages side by side pass rows through"),
    "stages in space, none behind": (walked, lambda s: replace(s, execution=Execution.IN_SPACE),
                                     "stages side by side|in the step"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str) -> None:
    make, plant, message = FAULTS[fault]
    schedule = make()
    verify(schedule)
    with pytest.raises(InternalError, match=message):
        verify(plant(schedule))


def test_a_fractional_origin_is_found() -> None:
    graph = network(L.Input(2, None, None), a=conv(2), up=L.Upsample((2, 3)))
    verify(schedule_of(graph, 4, 6))
    with pytest.raises(InternalError, match="not whole for tiles of 5"):
        verify(schedule_of(graph, 5, 6))


def test_an_intermediate_that_is_read_outside_is_found() -> None:
    graph = network(L.Input(2, None, None), outputs=("a", "b"), a=conv(2), b=conv(2))
    with pytest.raises(InternalError, match="a is read outside"):
        verify(schedule_of(graph, 4, 4))


def test_whole_images_come_from_device_memory() -> None:
    graph = network(L.Input(2, None, None), g=L.GlobalAvgPool2d())
    schedule = schedule_of(graph, 1, 1, staged=())
    verify(schedule)
    box = replace(schedule.stages[0].reads[0].footprint, y=Affine(Fraction(0), 0, 64))
    with pytest.raises(InternalError, match="needs the whole y axis"):
        verify(with_read(schedule, schedule.stages[0], 0, footprint=box))


def test_every_channel_tile_is_looked_at() -> None:
    """Only the second channel tile needs the second group's channels."""
    graph = network(L.Input(4, None, None), a=conv(4, groups=2))
    schedule = schedule_of(graph, 4, 4, channels=2)
    verify(schedule)
    with pytest.raises(InternalError, match=r"a: needs c 2\.\.3"):
        verify(read(schedule, "a", "c", "last"))


def test_scratch_figures() -> None:
    """x 3x11x11 -> a 4x9x9 -> b 4x7x7, a tile of 5x5: the second stage holds the first two buffers."""
    graph = network(L.Input(3, None, None), a=conv(4), b=conv(4), c=conv(1))
    schedule = schedule_of(graph, 5, 5)
    x, a, b = 3 * 11 * 11, 4 * 9 * 9, 4 * 7 * 7
    assert [live_elements(schedule, s) for s in schedule.stages] == [x, x + a, a + b, b]
    assert peak_stage(schedule).name == "a"
    assert schedule.scratch_bytes == 4 * (-(-x // 16) * 16 + a)


def test_too_much_scratch_names_the_stage() -> None:
    graph = network(L.Input(3, None, None), a=conv(64), b=conv(64), c=conv(1))
    schedule = schedule_of(graph, 24, 24)  # 64x28x28 and 64x26x26 elements at once
    verify(schedule)
    with pytest.raises(Infeasible, match=r"scratch 365 KiB > 227 KiB at b"):
        verify(schedule, DEVICES["h200"])
    verify(schedule, generic_host())
