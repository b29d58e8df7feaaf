"""What `fusec plan` shows, as plain data: the chains, their tiles, what each stage computes and what fusing them saves.

In: the schedules of a network, a device, the sizes planned for. Out: a `Report` of numbers and strings, and its JSON form.
Nothing is worked out here that `cost` has not counted; drawing tables is the command line's business.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fusec.graph.layers import Axis
from fusec.plan.boxes import Boxes, boxes_of
from fusec.plan.cost import Cost, Nominal, cost, sizes_of
from fusec.schedule.ir import Footprint, Schedule, Space, Tile
from fusec.targets.device import Device

Box = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class StageReport:
    """One stage. Extents are of a tile away from the borders; counts are over all tiles, clipped at the borders.

    Attributes
    ----------
    footprint
        What a tile computes, or loads, of this tensor for one image.
    held, fresh
        Rows of it that are there at a time, and rows of those that are made at a time: of a strip those of one step, where rows
        held but not made are kept from the step before. Of a tile all of them.
    owned
        How far the footprint moves from one tile to the next along each axis, no more than its extent: the part of it that no
        neighbour along that axis has too.
    shared
        Elements of the footprint that neighbouring tiles compute, or load, again.
    reads
        The tensors it reads.
    positions
        Output elements inside the image, over all tiles.
    extra_ratio
        Extra multiply-adds by the unfused ones; 0 for stages without any.
    kept
        Where the result goes: "scratch", "registers" (of the next stage, a pool) or "global".
    """

    name: str
    label: str
    kind: str
    kept: str
    footprint: Box
    held: int
    fresh: int
    owned: Box
    shared: int
    reads: tuple[str, ...]
    positions: int
    multiply_adds: int
    extra: int
    extra_ratio: float


@dataclass(frozen=True)
class InputReport:
    """A tensor that the stages read straight from device memory; footprint, fresh rows and owned part as a stage has them."""

    name: str
    footprint: Box
    fresh: int
    owned: Box


@dataclass(frozen=True)
class ChainReport:
    """One chain: sizes in bytes, time in seconds. `bytes_unfused` is what its layers one by one move, weights once included.

    `step` is the rows of the output made at a time where tiles are strips, whose overlap along y is reused; None elsewhere.
    `direct` are the inputs that no stage loads first.
    """

    name: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    direct: tuple[InputReport, ...]
    output: str
    tile: tuple[int, int, int, int]  # images, channels, height, width
    grid: tuple[int, int, int, int]  # tiles along each of these axes
    overlap: Mapping[str, str]
    step: int | None
    stages: tuple[StageReport, ...]
    multiply_adds: int
    extra: int
    extra_ratio: float
    scratch_bytes: int
    bytes_read: int
    bytes_written: int
    weight_bytes: int
    bytes_fused: int
    bytes_unfused: int
    tiles: int
    blocks_per_core: int
    waves: int
    compute: float
    memory: float
    seconds: float


@dataclass(frozen=True)
class Totals:
    """Sums over the chains; `scratch_bytes` is the largest."""

    chains: int
    layers: int
    multiply_adds: int
    extra: int
    extra_ratio: float
    scratch_bytes: int
    bytes_fused: int
    bytes_unfused: int
    seconds: float

    @property
    def saved(self) -> float:
        """By which part of `bytes_unfused` the plan moves less; negative where it moves more."""
        return 1 - self.bytes_fused / self.bytes_unfused if self.bytes_unfused else 0.0


@dataclass(frozen=True)
class Report:
    """A whole plan."""

    network: str
    device: str
    batch: int
    height: int | None
    width: int | None
    chains: tuple[ChainReport, ...]
    totals: Totals

    def to_json(self) -> dict[str, Any]:
        """Dictionaries, tuples, numbers and strings only: what `json.dumps` takes."""
        plain: dict[str, Any] = dataclasses.asdict(self)
        return plain


def report(schedules: Iterable[Schedule], device: Device, nominal: Nominal) -> Report:
    """The plan of a network for the nominal image size and the largest nominal batch.

    Parameters
    ----------
    schedules
        One for each chain of one network, in order; at least one.
    """
    given = tuple(schedules)
    chains = tuple(_chain(s, device, nominal) for s in given)
    return Report(given[0].chain.graph.name, device.name, nominal.batch, nominal.height, nominal.width, chains, _totals(chains))


def _ratio(multiply_adds: int, extra: int) -> float:
    """Extra work by the work done once."""
    once = multiply_adds - extra
    return extra / once if once else 0.0


def _chain(schedule: Schedule, device: Device, nominal: Nominal) -> ChainReport:
    chain, tile, counted = schedule.chain, schedule.tile, cost(schedule, device, nominal)
    boxes = boxes_of(schedule, sizes_of(chain.graph, nominal), nominal.batch)
    rows, columns = (int(n) for n in boxes.grid[1:, 0])
    return ChainReport(
        name=str(chain),
        layers=tuple(n.label for n in chain.nodes),
        inputs=chain.inputs,
        direct=_direct(schedule, boxes),
        output=chain.output,
        tile=(tile.images, tile.channels, tile.height, tile.width),
        grid=(-(-nominal.batch // tile.images), int(boxes.grid[0, 0]), rows, columns),
        overlap={axis.name.lower(): schedule.overlap[axis].value for axis in Axis},
        step=schedule.step,
        stages=_stages(schedule, counted, boxes),
        multiply_adds=counted.multiply_adds,
        extra=counted.extra,
        extra_ratio=_ratio(counted.multiply_adds, counted.extra),
        scratch_bytes=counted.scratch_bytes,
        bytes_read=counted.bytes_read,
        bytes_written=counted.bytes_written,
        weight_bytes=counted.weight_bytes,
        bytes_fused=counted.bytes_moved,
        bytes_unfused=counted.unfused_bytes + counted.weight_bytes,
        tiles=counted.tiles,
        blocks_per_core=counted.blocks_per_core,
        waves=counted.waves,
        compute=counted.compute,
        memory=counted.memory,
        seconds=counted.seconds,
    )


def _stages(schedule: Schedule, counted: Cost, boxes: Boxes) -> tuple[StageReport, ...]:
    reports = []
    for stage, numbers in zip(schedule.stages, counted.stages, strict=True):
        box, held = _extent(boxes, schedule, stage.writes.tensor, stage.footprint)
        owned = _owned(stage.footprint, box, schedule.tile)
        extra = numbers.multiply_adds - numbers.unfused_multiply_adds
        reports.append(StageReport(
            stage.name, stage.name if stage.node is None else stage.node.label, stage.kind,
            stage.writes.space.value, box, held, schedule.fresh(stage), owned, math.prod(box) - math.prod(owned),
            tuple(dict.fromkeys(r.buffer.tensor for r in stage.reads)), numbers.positions,
            numbers.multiply_adds, extra, _ratio(numbers.multiply_adds, extra)))
    return tuple(reports)


def _direct(schedule: Schedule, boxes: Boxes) -> tuple[InputReport, ...]:
    footprints = {r.buffer.tensor: r.buffer.footprint for s in schedule.stages if s.node is not None for r in s.reads
                  if r.buffer.space is Space.GLOBAL}
    inputs = []
    for name, footprint in footprints.items():
        box, _ = _extent(boxes, schedule, name, footprint)
        fresh = int(boxes.fresh[boxes.index[name], 0])
        inputs.append(InputReport(name, box, fresh, _owned(footprint, box, schedule.tile)))
    return tuple(inputs)


def _extent(boxes: Boxes, schedule: Schedule, tensor: str, footprint: Footprint) -> tuple[Box, int]:
    """What a whole tile needs of a tensor, and how many rows of that at a time."""
    i = boxes.index[tensor]
    c, held, x = (int(n) for n in boxes.extent[:, i, 0])
    step = int(boxes.early[i, 0] + boxes.fresh[i, 0])
    return (c, step + int(footprint.y.scale * (schedule.tile.height - schedule.rows)), x), held


def _owned(footprint: Footprint, extent: Box, tile: Tile) -> Box:
    """What the next tile along each axis has not: as much as the box moves by."""
    moved = zip((footprint.c, footprint.y, footprint.x), extent, (tile.channels, tile.height, tile.width), strict=True)
    c, y, x = (own if part.scale == 0 else min(own, int(part.scale * by)) for part, own, by in moved)
    return c, y, x


def _totals(chains: tuple[ChainReport, ...]) -> Totals:
    multiply_adds, extra = sum(c.multiply_adds for c in chains), sum(c.extra for c in chains)
    return Totals(
        chains=len(chains),
        layers=sum(len(c.layers) for c in chains),
        multiply_adds=multiply_adds,
        extra=extra,
        extra_ratio=_ratio(multiply_adds, extra),
        scratch_bytes=max(c.scratch_bytes for c in chains),
        bytes_fused=sum(c.bytes_fused for c in chains),
        bytes_unfused=sum(c.bytes_unfused for c in chains),
        seconds=sum(c.seconds for c in chains),
    )
