"""Rows of taps: where they lie in scratch, and what a kernel makes of them.

In: a convolution with few input channels, of a Schedule. Out: a place in scratch that nothing else needs while the convolution
runs, and the constants of its making and its use. A position there holds what the filter reads in one row: filter columns are
channels, in planes of eight.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusec.graph import layers as L
from fusec.schedule.ir import Buffer, Schedule, Space, Stage
from fusec.targets import geometry as G
from fusec.targets.base import Constant
from fusec.targets.device import Device

ALIGN = 64  # bytes


@dataclass(frozen=True)
class Unfolded:
    """Rows of taps of one convolution: their extents, and offset and pitches in elements of scratch."""

    offset: int
    images: int
    depth: int  # values of a position
    rows: int
    columns: int
    window: G.Numbers  # how the convolution reads them
    constants: tuple[Constant, ...]  # of their making

    @property
    def plane(self) -> int:
        return 8 * self.rows * self.columns

    @property
    def size(self) -> int:
        return self.images * -(-self.depth // 8) * self.plane

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def type(self) -> str:
        """The buffer in the words of the library."""
        planes = -(-self.depth // 8)
        return f"Scratch<{self.offset}, {planes * self.plane}, {self.plane}, {8 * self.columns}, 0x0u, 0, 8, {self.depth}>"


def place_unfolded(schedule: Schedule, stage: Stage, pool: Stage | None, made: G.Region, device: Device) -> Unfolded | None:
    """The rows of taps of `stage`, whose pool, or which itself, makes the region `made`; None where scratch has no room."""
    assert stage.node is not None and isinstance(stage.node.layer, L.Conv2d)
    layer, channels = stage.node.layer, schedule.chain.shapes[stage.reads[0].buffer.tensor].channels
    pooled = pool.node.layer.kernel if pool and pool.node and isinstance(pool.node.layer, L.MaxPool2d | L.AvgPool2d) else (1, 1)
    first, count = (made.row * pooled[0], made.column * pooled[1]), (made.rows * pooled[0], made.columns * pooled[1])
    depth, rows = channels * layer.kernel[1], (count[0] - 1) * layer.stride[0] + (layer.kernel[0] - 1) * layer.dilation[0] + 1
    numbers = G.window_numbers(stage, stage.reads[0])
    source = next((s for s in schedule.stages if s.node is None and s.writes is stage.reads[0].buffer), None)
    if source is not None:  # taken where the load would take it
        numbers = G.window_numbers(stage, source.reads[0])
    top, left = (int(numbers[f"OFFSET_{a.name}"]) + first[a.value] * layer.stride[a.value] for a in L.Axis)
    images = stage.writes.images
    constants: G.Numbers = {"IMAGES": images, "ROWS": rows, "COLUMNS": count[1], "DEPTH": depth, "DEEP": channels,
                            "STRIDE_X": layer.stride[1], "DILATION_X": layer.dilation[1], "FIRST_Y": top, "FIRST_X": left}
    window: G.Numbers = {"STRIDE_X": 1, "DILATION_X": 1, "OFFSET_Y": -first[0] * layer.stride[0], "OFFSET_X": -first[1]}
    unplaced = Unfolded(0, images, depth, rows, count[1], window, tuple(constants.items()))
    offset = _place(schedule, (stage, pool) if pool else (stage,), unplaced.size, device)
    return None if offset is None else Unfolded(offset, images, depth, rows, count[1], window, unplaced.constants)


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
