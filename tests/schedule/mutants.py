"""Changes one fact of a right schedule, so that a test can ask who notices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fusec.schedule.ir import Affine, Buffer, Footprint, Schedule, Stage


def stage_named(schedule: Schedule, name: str) -> Stage:
    return next(s for s in schedule.stages if s.name == name)


def buffer_named(schedule: Schedule, name: str) -> Buffer:
    return next(b for b in schedule.buffers if b.name == name)


def with_stages(schedule: Schedule, stages: Iterable[Stage]) -> Schedule:
    return replace(schedule, stages=tuple(stages))


def with_buffer(schedule: Schedule, buffer: Buffer, **changes: Any) -> Schedule:
    """`buffer` changed wherever it is used."""
    new = replace(buffer, **changes)
    return with_stages(schedule, (
        replace(s, writes=new if s.writes is buffer else s.writes,
                reads=tuple(replace(r, buffer=new) if r.buffer is buffer else r for r in s.reads)) for s in schedule.stages))


def with_read(schedule: Schedule, stage: Stage, position: int, **changes: Any) -> Schedule:
    """One read of one stage changed."""
    reads = tuple(replace(r, **changes) if i == position else r for i, r in enumerate(stage.reads))
    return with_stages(schedule, (replace(s, reads=reads) if s is stage else s for s in schedule.stages))


def smaller(box: Footprint, axis: str, end: str) -> Footprint:
    """`box` one position shorter at the "first" or the "last" end of an axis."""
    affine: Affine = getattr(box, axis)
    assert affine.extent is not None
    return replace(box, **{axis: Affine(affine.scale, affine.offset + (end == "first"), affine.extent - 1)})
