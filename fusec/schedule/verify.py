"""Checks everything a schedule claims by working it out again, from the layers alone; the planner is not asked.

In: a Schedule, and a Device whose scratch it should fit. Out: nothing, or an error. Runs after planning and before a mapping,
on every schedule: a wrong plan must not become a wrong kernel. Order and boxes are checked here, memory in `memory`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.limits import MAX_EXTENT
from fusec.schedule.box import AXES, span_at, within
from fusec.schedule.ir import Affine, Buffer, Execution, Footprint, Overlap, Read, Schedule, Space, Stage
from fusec.schedule.memory import ScratchLimit, check_limit, check_memory, live_elements, peak_stage
from fusec.schedule.taps import READS_WHOLE_IMAGE, channel_taps, input_taps, leaves_image, repeats_edge, wanted_outside

__all__ = ["live_elements", "peak_stage", "verify"]

FAR = 1 << 20  # tiles from the origin: a box that moves at a wrong rate has left its window by then
ALL_POSITIONS = 128  # boxes up to this extent are checked at every position, longer ones at this many on both ends


def verify(schedule: Schedule, device: ScratchLimit | None = None) -> None:
    """Check a schedule.

    Parameters
    ----------
    schedule
        The schedule of one chain; stages in time.
    device
        The machine (a `Device`) whose scratch has to hold the schedule's buffers; not checked when left out.

    Raises
    ------
    InternalError
        The schedule would compute something else than its chain: says which stage, what it needs and what it would get.
    Infeasible
        The schedule is right but needs more scratch than `device` has.
    """
    _check_form(schedule)
    _check_tile(schedule)
    _check_order(schedule)
    for stage in schedule.stages:
        _check_start(schedule, stage)
        for position, read in enumerate(stage.reads):
            _check_claim(stage, read)
            _check_turn(schedule, stage, read)
            _check_needs(schedule, stage, position)
            _check_padding(stage, read)
    _check_registers(schedule)
    check_memory(schedule)
    if device is not None:
        check_limit(schedule, device)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InternalError(message)


def _check_form(schedule: Schedule) -> None:
    """Only what the rest of this module has rules for passes: tiles, or strips walked down along y, in time or in space."""
    chain, folded = schedule.chain, [b for b in schedule.buffers if b.fold is not None]
    reused = {axis for axis, overlap in schedule.overlap.items() if overlap is Overlap.REUSE}
    strange = [b.name for b in folded if b.fold not in reused or b.fold is not L.Axis.Y or b.space is not Space.SCRATCH]
    _require(not strange, f"{chain}: {', '.join(strange)} cannot be folded")
    if schedule.execution is Execution.IN_SPACE:
        unfolded = [b.name for b in schedule.buffers if b.space is Space.SCRATCH and b.fold is None]
        _require(schedule.step is not None and not unfolded and schedule.drain % schedule.rows == 0,
                 f"{chain}: stages side by side pass rows through line buffers, step by step")
    _require((L.Axis.Y in reused) == (schedule.step is not None),
             f"{chain}: overlap along y and the step {schedule.step} disagree")
    _require(L.Axis.X not in reused or (L.Axis.Y in reused and schedule.stages[-1].footprint.x.scale == 0),
             f"{chain}: overlap along x cannot be reused by strips that do not cover the width")
    if schedule.step is not None:
        _require(schedule.step >= 1 and schedule.tile.height % schedule.step == 0,
                 f"{chain}: steps of {schedule.step} rows do not divide a strip of {schedule.tile.height}")
    for buffer in folded:
        box = buffer.footprint.y
        _require(box.extent is not None and 0 < box.scale * schedule.rows < box.extent,
                 f"{buffer.name}: y {box} keeps no rows from one step of {schedule.rows} to the next")


def _check_start(schedule: Schedule, stage: Stage) -> None:
    """A walk begins early enough for all rows that the strip needs of a stage, and its readers' first rows need no others."""
    if schedule.step is None:
        _require(stage.start is None and schedule.warm_up == 0, f"{stage.name}: a start, but nothing is walked down")
        return
    box = stage.footprint.y
    _require(stage.start is not None and box.extent is not None, f"{stage.name}: no start, though strips are walked down")
    assert stage.start is not None and box.extent is not None
    begun = box.offset + box.extent - (schedule.warm_up + 1) * box.scale * schedule.step
    _require(begun <= stage.start, f"{stage.name}: a warm-up of {schedule.warm_up} steps leaves out rows from {stage.start} on")
    if stage is schedule.stages[-1]:
        _require(stage.start == 0, f"{stage.name}: strips begin in row {stage.start} of theirs")
    made = {s.writes: s.start for s in schedule.stages}
    for position, read in enumerate(stage.reads):
        if read.buffer in made and stage.node is not None:
            shapes = schedule.chain.graph.input_shapes(stage.node)
            rows = (input_taps(stage.node, position, shapes, L.Axis.Y, stage.start + i) for i in range(schedule.fresh(stage)))
            needed = min((r[0] for r in rows if r), default=made[read.buffer] or 0)
            _require(needed >= (made[read.buffer] or 0),
                     f"{stage.name}: needs row {needed} of {read.buffer.name}, which a strip has from {made[read.buffer]} on")


def _check_tile(schedule: Schedule) -> None:
    """Extents are within limits, the last stage writes the tile, and every tile's origin makes every box whole."""
    tile, shape = schedule.tile, schedule.chain.shapes[schedule.chain.output]
    extents = (tile.channels, schedule.rows, tile.width)
    known = (tile.channels, tile.height, tile.width)
    _require(tile.images >= 1 and all(1 <= e <= MAX_EXTENT for e in known) and tile.channels <= shape.channels,
             f"{schedule.chain}: tile {tile} is not within 1 and the output's {shape}")
    _require(shape.channels % tile.channels == 0, f"{schedule.chain}: tile {tile} does not divide {shape.channels} channels")
    _require(bool(schedule.stages), f"{schedule.chain}: no stages")
    written = schedule.stages[-1].footprint
    for name, extent, size in zip(AXES, extents, (shape.channels, shape.height, shape.width), strict=True):
        box = getattr(written, name)
        one_tile = size is not None and extent >= size
        _require(not (one_tile and name == "y" and schedule.step), f"{schedule.chain}: a step of {extent} covers the image")
        wanted = range(size) if one_tile and size is not None else range(extent)
        origin = schedule.drain if name == "y" else 0
        _require(box.extent is not None and span_at(box, origin, 0) == wanted and box.scale == (0 if one_tile else 1),
                 f"{schedule.chain}: writes {name} {box} for the tile {tile} of {shape}")
    for buffer, box in _all_boxes(schedule):
        for name, extent in zip(AXES, extents, strict=True):
            affine: Affine = getattr(box, name)
            _require((affine.scale * extent).denominator == 1,
                     f"{buffer.name}: {name} {affine} is not whole for tiles of {extent}")
            _require(affine.extent is None or affine.extent >= 1, f"{buffer.name}: {name} {affine} is empty")


def _all_boxes(schedule: Schedule) -> Iterator[tuple[Buffer, Footprint]]:
    for buffer in schedule.buffers:
        yield buffer, buffer.footprint
    for stage in schedule.stages:
        yield from ((read.buffer, read.footprint) for read in stage.reads)


def _check_order(schedule: Schedule) -> None:
    """Every node has one stage, tensors are written before they are read, and only the output goes to device memory."""
    chain = schedule.chain
    made = [s.node.name for s in schedule.stages if s.node is not None]
    _require(sorted(made) == sorted(chain.names), f"{chain}: the stages compute {', '.join(made)}")
    seen = [n for n in chain.names[:-1]
            if n in chain.graph.outputs or any(r.name not in made for r in chain.graph.consumers(n))]
    _require(not seen, f"{chain}: {', '.join(seen)} is read outside but kept in scratch")
    _require(schedule.stages[-1].writes.tensor == chain.output, f"{chain}: the last stage is {schedule.stages[-1].name}")
    written: set[Buffer] = set()
    for stage in schedule.stages:
        sources = tuple(r.buffer.tensor for r in stage.reads)
        wanted = stage.node.inputs if stage.node else (stage.writes.tensor,)
        _require(sources == wanted, f"{stage.name}: reads {', '.join(sources)} instead of {', '.join(wanted)}")
        for read in stage.reads:
            outside = read.buffer.space is Space.GLOBAL
            _require(not outside or read.buffer.tensor in chain.inputs,
                     f"{stage.name}: reads {read.buffer.tensor} from device memory, but this chain makes it")
            _require(outside or read.buffer in written, f"{stage.name}: reads {read.buffer.name} before it is written")
            _require(outside or stage.node is not None, f"{stage.name}: loads from scratch")
        target = stage.writes
        last = stage is schedule.stages[-1]
        _require(stage.node is None or target.tensor == stage.node.name, f"{stage.name}: writes {target.tensor}")
        _require((target.space is Space.GLOBAL) == last, f"{stage.name}: writes to {target.space.value} memory")
        _require(target not in written, f"{stage.name}: writes {target.name} a second time")
        _require(all(b.images == schedule.tile.images for b in (target, *(r.buffer for r in stage.reads))),
                 f"{stage.name}: its buffers are not of the tile's {schedule.tile.images} images")
        written.add(target)


def _check_claim(stage: Stage, read: Read) -> None:
    """The box a read claims lies in its buffer's box, wherever the tile is."""
    for name in AXES:
        claimed, held = getattr(read.footprint, name), getattr(read.buffer.footprint, name)
        place = f"{stage.name}: {name} {claimed} of {read.buffer.name}"
        if claimed.extent is None or held.extent is None:
            _require(held.extent is None and read.buffer.space is Space.GLOBAL, f"{place} is a whole axis, which only device "
                     f"memory holds, not {held} in {read.buffer.space.value}")
        _require(claimed.scale == held.scale, f"{place} moves at another rate than the buffer's {held}")
        _require(held.extent is None or within(span_at(claimed, 0, 0), span_at(held, 0, 0)),
                 f"{place} is not inside the buffer's {held}")


def _check_turn(schedule: Schedule, stage: Stage, read: Read) -> None:
    """Side by side, a stage reads no row that is made in the same step, but what it takes from registers."""
    if schedule.execution is Execution.IN_TIME or read.buffer.space is not Space.SCRATCH:
        return
    claimed, held = read.footprint.y, read.buffer.footprint.y
    maker = next(s for s in schedule.stages if s.writes is read.buffer)
    made = held.offset + (held.extent or 0) - schedule.fresh(maker)
    asked = claimed.offset + (claimed.extent or 0)
    _require(asked <= made, f"{stage.name}: reads row {asked - 1} of {read.buffer.name} in the step that makes it")


def _check_needs(schedule: Schedule, stage: Stage, position: int) -> None:
    """What the layer needs for every position of its box is inside the box it claims to read."""
    read, tile = stage.reads[position], schedule.tile
    channels = range(0, schedule.chain.shapes[schedule.chain.output].channels, tile.channels)
    origins = {"c": channels, "y": (0, schedule.rows, FAR * schedule.rows), "x": (0, tile.width, FAR * tile.width)}
    for name in AXES:
        out, claimed = getattr(stage.footprint, name), getattr(read.footprint, name)
        for origin in origins[name] if out.scale else (0,):
            for needed in _needed(schedule, stage, position, name, origin):
                _require(claimed.extent is None or within(needed, span_at(claimed, origin, 0)),
                         f"{stage.name}: needs {name} {needed.start}..{needed.stop - 1} of {read.buffer.name} for the tile at "
                         f"{origin}, reads {claimed}")


def _needed(schedule: Schedule, stage: Stage, position: int, name: str, origin: int) -> Iterator[range]:
    """Per position of the stage's box, the least and the greatest input position the layer reads."""
    node = stage.node
    made = span_at(getattr(stage.footprint, name), origin, 0)
    if name == "y":
        made = made[len(made) - schedule.fresh(stage):]
    if node is None:
        yield made
        return
    shapes = schedule.chain.graph.input_shapes(node)
    if name == "c":
        outputs = [c for c in made if c < schedule.chain.shapes[node.name].channels]
        yield from _ends(channel_taps(node, position, shapes, c) for c in outputs)
        return
    axis = L.Axis.Y if name == "y" else L.Axis.X
    if isinstance(node.layer, READS_WHOLE_IMAGE):
        yield from _whole_axis(node, axis, shapes[position].along(axis), getattr(stage.reads[position].footprint, name))
        return
    yield from _ends(input_taps(node, position, shapes, axis, p) for p in _sample(made))


def _whole_axis(node: Node, axis: L.Axis, size: int | None, claimed: Affine) -> Iterator[range]:
    if size is not None:
        yield range(size)
        return
    _require(claimed.extent is None, f"{node.name}: needs the whole {axis.name.lower()} axis, reads {claimed}")


def _sample(positions: range) -> Sequence[int]:
    if len(positions) <= 2 * ALL_POSITIONS:
        return positions
    return (*positions[:ALL_POSITIONS], *positions[-ALL_POSITIONS:])


def _ends(reads: Iterator[Sequence[int]]) -> Iterator[range]:
    """From the first to the last of positions that ascend."""
    return (range(r[0], r[-1] + 1) for r in reads if r)


def _check_padding(stage: Stage, read: Read) -> None:
    """Positions outside the image are either checked by the reader or hold what the reader takes them for."""
    _require(read.guarded or read.buffer.space is not Space.GLOBAL, f"{stage.name}: reads {read.buffer.name} unguarded")
    if stage.node is None or read.guarded:
        return
    wanted = wanted_outside(stage.node.layer)
    outside = any(leaves_image(stage.node.layer, axis) for axis in L.Axis)
    _require(not outside or not repeats_edge(stage.node.layer),
             f"{stage.name}: repeats the edge of {read.buffer.name}, but does not check where it is")
    _require(not outside or read.buffer.padding_value == wanted,
             f"{stage.name}: takes padding for {wanted:g}, but {read.buffer.name} holds {read.buffer.padding_value:g}")


def _check_registers(schedule: Schedule) -> None:
    """Registers hold what a convolution hands to the next stage alone: a pool that reads every value in one window."""
    for stage, after in pairwise(schedule.stages):
        buffer = stage.writes
        if buffer.space is not Space.REGISTER:
            continue
        place = f"{buffer.name} in registers"
        _require(stage.node is not None and isinstance(stage.node.layer, L.Conv2d), f"{place}: {stage.name} is no convolution")
        readers = [s.name for s in schedule.stages for r in s.reads if r.buffer is buffer]
        _require(readers == [after.name], f"{place}: read by {', '.join(readers)}, not by {after.name} alone")
        layer = after.node.layer if after.node is not None else None
        if not isinstance(layer, L.MaxPool2d | L.AvgPool2d):
            raise InternalError(f"{place}: {after.name} is no pool")
        _require(not after.reads[0].guarded, f"{place}: {after.name} checks the border, where it reads nothing")
        _require(buffer.offset == 0 and buffer.fold is None, f"{place}: has a place in scratch")
        _require(buffer.footprint.c == after.footprint.c, f"{place}: c {buffer.footprint.c} is not that of {after.name}")
        for axis in L.Axis:
            _check_windows(place, layer, axis, after.footprint.along(axis), buffer.footprint.along(axis))


def _check_windows(place: str, layer: L.MaxPool2d | L.AvgPool2d, axis: L.Axis, out: Affine, held: Affine) -> None:
    """The pool's windows lie side by side inside the image, and the box is made of those of the pool's box, no more."""
    size = layer.kernel[axis.value]
    _require(layer.window(axis) == L.Window(size, size), f"{place}: the pool's windows along {axis.name.lower()} overlap, have "
             f"holes or leave the image")
    _require(out.extent is not None and held == Affine(out.scale * size, out.offset * size, out.extent * size),
             f"{place}: {axis.name.lower()} {held} is not made of the windows of {out}")
