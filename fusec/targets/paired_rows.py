"""Rows of few channels in pairs: where they lie in scratch, and what a kernel makes of them.

In: a convolution with few input channels, of a Schedule. Out: a place in scratch that nothing else needs while the convolution
runs, and the constants of the rows' making and use. What the filter reads in one row lies side by side there, filter columns
and channels as one axis of products, and each row is there twice so that any two neighbours are one aligned word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fusec.graph import layers as L
from fusec.schedule.ir import Buffer, Schedule, Space, Stage
from fusec.targets import geometry as G
from fusec.targets.base import Constant
from fusec.targets.device import Device

ALIGN = 64  # bytes


@dataclass(frozen=True)
class PairedRows:
    """The rows one convolution reads: where from, extents, and offset in elements of scratch."""

    source: Buffer
    offset: int
    images: int
    rows: int
    values: int  # of a row
    room: int  # further ones that are read, but not used
    window: G.Numbers  # how the convolution reads them
    constants: tuple[Constant, ...]  # of their making

    @property
    def pitch(self) -> int:
        """Elements of a row."""
        return -(-(self.values + self.room) // 2) * 2

    @property
    def size(self) -> int:
        return 2 * self.images * self.rows * self.pitch

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def type(self) -> str:
        """The buffer in the words of the library."""
        return f"PairedRows<{self.offset}, {2 * self.rows * self.pitch}, {self.pitch}>"


def place_rows(schedule: Schedule, stage: Stage, pool: Stage | None, made: G.Region, device: Device) -> PairedRows | None:
    """The rows that `stage` reads, whose pool, or which itself, makes the region `made`.

    None where scratch has no room, where filter columns are not neighbours in the image, or rows not neighbours in scratch."""
    assert stage.node is not None and isinstance(stage.node.layer, L.Conv2d)
    layer, channels = stage.node.layer, schedule.chain.shapes[stage.reads[0].buffer.tensor].channels
    source = next((s for s in schedule.stages if s.node is None and s.writes is stage.reads[0].buffer), stage).reads[0]
    if (layer.dilation[1] > 1 and layer.kernel[1] > 1) or source.buffer.fold is not None:
        return None
    pooled = pool.node.layer.kernel if pool and pool.node and isinstance(pool.node.layer, L.MaxPool2d | L.AvgPool2d) else (1, 1)
    first, count = (made.row * pooled[0], made.column * pooled[1]), (made.rows * pooled[0], made.columns * pooled[1])
    rows = (count[0] - 1) * layer.stride[0] + (layer.kernel[0] - 1) * layer.dilation[0] + 1
    columns, depth = (count[1] - 1) * layer.stride[1] + layer.kernel[1], channels * layer.kernel[1]
    numbers = G.window_numbers(stage, source)  # taken where a load would take it
    top, left = (int(numbers[f"OFFSET_{a.name}"]) + first[a.value] * layer.stride[a.value] for a in L.Axis)
    images = stage.writes.images
    constants: G.Numbers = {"IMAGES": images, "ROWS": rows, "COLUMNS": columns, "DEEP": channels, "FIRST_Y": top,
                            "FIRST_X": left}
    window: G.Numbers = {"OFFSET_Y": -first[0] * layer.stride[0], "OFFSET_X": -first[1] * layer.stride[1]}
    found = PairedRows(source.buffer, 0, images, rows, columns * channels, -depth % 16, window, tuple(constants.items()))
    offset = _place(schedule, (stage, pool) if pool else (stage,), found.size, device)
    return None if offset is None else replace(found, offset=offset)


def _place(schedule: Schedule, phase: tuple[Stage, ...], size: int, device: Device) -> int | None:
    """The lowest place of `size` elements clear of all buffers in use during a phase; None where there is none."""
    align = ALIGN // device.element
    used = [b for b in schedule.buffers if b.space is Space.SCRATCH and _in_use(schedule, b, phase)]
    taken = [(b.offset, b.offset + b.size) for b in used]
    for place in sorted({0, *(-(-end // align) * align for _, end in taken)}):
        if place + size <= device.scratch_per_block // device.element \
                and all(place + size <= begin or place >= end for begin, end in taken):
            return place
    return None


def _in_use(schedule: Schedule, buffer: Buffer, phase: tuple[Stage, ...]) -> bool:
    """Whether a buffer holds something, before or behind a phase or in it, that is used in or behind it."""
    users = [i for i, s in enumerate(schedule.stages) if buffer in (s.writes, *(r.buffer for r in s.reads))]
    now = [schedule.stages.index(s) for s in phase]
    return buffer.fold is not None or (users[0] <= now[-1] and users[-1] >= now[0])
