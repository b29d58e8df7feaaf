"""What `fusec plan` shows, as plain data: the chains, their tiles, what each stage computes and what fusing them saves.

In: the schedules of a network, a device, the sizes planned for. Out: a `Report` of numbers and strings, and its JSON form.
Nothing is worked out here that `cost` has not counted; drawing tables is the command line's business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fusec.graph.layers import Axis
from fusec.plan.boxes import AXES, boxes_of
from fusec.plan.cost import Cost, Nominal, cost, sizes_of
from fusec.schedule.ir import Schedule, Stage
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
    overlap
        Elements of it that neighbouring tiles compute, or load, again.
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
    overlap: int
    positions: int
    multiply_adds: int
    extra: int
    extra_ratio: float


@dataclass(frozen=True)
class ChainReport:
    """One chain: sizes in bytes, time in seconds. `bytes_unfused` is what its layers one by one move, weights once included.

    `step` is the rows of the output made at a time where tiles are strips, whose overlap along y is reused; None elsewhere.
    """

    name: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    tile: tuple[int, int, int, int]  # images, channels, height, width
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
    return ChainReport(
        name=str(chain),
        layers=tuple(n.label for n in chain.nodes),
        inputs=chain.inputs,
        output=chain.output,
        tile=(tile.images, tile.channels, tile.height, tile.width),
        overlap={axis.name.lower(): schedule.overlap[axis].value for axis in Axis},
        step=schedule.step,
        stages=_stages(schedule, counted, nominal),
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


def _stages(schedule: Schedule, counted: Cost, nominal: Nominal) -> tuple[StageReport, ...]:
    boxes = boxes_of(schedule, sizes_of(schedule.chain.graph, nominal), nominal.batch)
    reports = []
    for stage, numbers in zip(schedule.stages, counted.stages, strict=True):
        c, held, x = (int(n) for n in boxes.extent[:, boxes.index[stage.writes.tensor], 0])
        y = held + int(stage.footprint.y.scale * (schedule.tile.height - schedule.rows))
        extra = numbers.multiply_adds - numbers.unfused_multiply_adds
        reports.append(StageReport(
            stage.name, stage.name if stage.node is None else stage.node.label, stage.kind,
            stage.writes.space.value, (c, y, x), held, schedule.fresh(stage), c * y * x - _owned(schedule, stage, (c, y, x)),
            numbers.positions, numbers.multiply_adds, extra, _ratio(numbers.multiply_adds, extra)))
    return tuple(reports)


def _owned(schedule: Schedule, stage: Stage, extent: Box) -> int:
    """Elements of a stage's box that the next tile along no axis has too: as many as the tile's origin moves by."""
    owned, tile = 1, schedule.tile
    for name, own, moved in zip(AXES, extent, (tile.channels, tile.height, tile.width), strict=True):
        part = getattr(stage.footprint, name)
        owned *= own if part.scale == 0 else min(own, int(part.scale * moved))
    return owned


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
