"""Scratch of a schedule: what is live when, whether buffers keep clear of each other, and how much is needed.

In: a Schedule. Out: figures, or an error. Part of verification; lifetimes are worked out from the stages again.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, combinations, pairwise
from typing import Protocol

from fusec.errors import Infeasible, InternalError
from fusec.schedule.ir import Buffer, Layout, Schedule, Space, Stage

ALIGNMENT = 64  # bytes a buffer's offset is a multiple of: a cache line and any vector


class ScratchLimit(Protocol):
    """The part of a Device this module asks for (devices live above schedules)."""

    @property
    def name(self) -> str: ...

    @property
    def scratch_per_block(self) -> int: ...


def live_elements(schedule: Schedule, stage: Stage) -> int:
    """Scratch elements of all buffers that hold something while `stage` runs."""
    now = _barriers(schedule)[schedule.stages.index(stage)]
    return sum(b.size for b, (first, last) in _lifetimes(schedule).items() if first <= now <= last)


def peak_stage(schedule: Schedule) -> Stage:
    """The stage with the largest live set, the first of equals."""
    return max(schedule.stages, key=lambda s: live_elements(schedule, s))


def check_limit(schedule: Schedule, device: ScratchLimit) -> None:
    """Infeasible, with the stage to blame, where the schedule's scratch is more than a block has."""
    needed, limit = schedule.scratch_bytes, device.scratch_per_block
    if needed > limit:
        raise Infeasible(f"scratch {_kib(needed)} > {_kib(limit)} at {peak_stage(schedule).name}")


def check_memory(schedule: Schedule) -> None:
    """InternalError where a buffer's elements or two buffers alive together share an address."""
    lifetimes = _lifetimes(schedule)
    for buffer in schedule.buffers:
        if buffer.space is not Space.GLOBAL:
            _check_pitches(buffer, ALIGNMENT // schedule.element)
    for a, b in combinations(lifetimes, 2):
        if _meet(lifetimes[a], lifetimes[b]) and a.offset < b.offset + b.size and b.offset < a.offset + a.size:
            places = " and ".join(f"{x.name} at {x.offset}..{x.offset + x.size}" for x in (a, b))
            raise InternalError(f"{places} share scratch while both are needed")


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def _barriers(schedule: Schedule) -> list[int]:
    """For every stage the number of barriers before it: there is none behind a stage that leaves its result in registers."""
    barriers = (stage.writes.space is not Space.REGISTER for stage in schedule.stages)
    return list(accumulate(map(int, barriers), initial=0))[:-1]


def _lifetimes(schedule: Schedule) -> Mapping[Buffer, tuple[int, int]]:
    """First write and last use of every scratch buffer, as numbers of barriers; a line buffer is always in use."""
    used: dict[Buffer, list[int]] = {}
    barriers = _barriers(schedule)
    for i, stage in zip(barriers, schedule.stages, strict=True):
        for buffer in (*(r.buffer for r in stage.reads), stage.writes):
            if buffer.space is Space.SCRATCH:
                used.setdefault(buffer, []).append(i)
    return {buffer: (uses[0], uses[-1]) if buffer.fold is None else (0, barriers[-1]) for buffer, uses in used.items()}


def _check_pitches(buffer: Buffer, align: int) -> None:
    """Every element of the box has an address of its own, inside the buffer."""
    channels, height, width = (a.extent or 0 for a in (buffer.footprint.c, buffer.footprint.y, buffer.footprint.x))
    block = buffer.layout.block
    image, channel = (buffer.images, buffer.image_pitch), (-(-channels // block), buffer.channel_pitch)
    row, column = (height, buffer.row_pitch), (width, buffer.column_pitch)
    nested = {Layout.NCHW: (image, channel, row, column), Layout.NHWC: (image, row, column, channel),
              Layout.NC8HW8: (image, channel, row, column, (block, 1))}[buffer.layout]
    if buffer.offset < 0 or buffer.offset % align:
        raise InternalError(f"{buffer.name}: offset {buffer.offset} is not a multiple of {align}")
    if nested[-1][1] != 1 or any(outer < count * inner for (_, outer), (count, inner) in pairwise(nested)):
        pitches = "/".join(str(pitch) for _, pitch in nested)
        box = f"{channels}x{height}x{width}"
        raise InternalError(f"{buffer.name}: pitches {pitches} do not hold {box} in {buffer.layout.value}")


def _kib(size: int) -> str:
    return f"{size / 1024:.1f}".removesuffix(".0") + " KiB"
