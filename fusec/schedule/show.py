"""A schedule as one readable block of text, for dumps and for people.

In: a Schedule. Out: text, the same for the same schedule. Nothing parses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from enum import Enum

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.schedule.ir import Buffer, Footprint, Read, Schedule, Space, Stage


def show(schedule: Schedule) -> str:
    """The schedule's chain, tile, stages and buffers, one fact a line."""
    return "\n".join(_lines(schedule)) + "\n"


def layer_summary(node: Node) -> str:
    """A node's layer with all values but defaults, and its epilogue: `conv2d(kernel=3x3, out_channels=8) + relu`."""
    return " + ".join(_layer(x) for x in (node.layer, *(p.layer for p in node.epilogue)))


def _lines(schedule: Schedule) -> Iterator[str]:
    chain = schedule.chain
    overlap = ", ".join(f"{axis.name.lower()} {kind.value}" for axis, kind in schedule.overlap.items())
    step = f", step {schedule.step} rows, warm-up {schedule.warm_up} steps" if schedule.step is not None else ""
    elements = schedule.scratch_elements
    yield f"schedule of {chain}: {', '.join(f'{t} {chain.shapes[t]}' for t in chain.inputs)} -> " \
          f"{chain.output} {chain.shapes[chain.output]}"
    yield f"tile     {schedule.tile} (images x channels x height x width)"
    yield f"overlap  {overlap}; stages {schedule.execution.value}{step}"
    yield f"scratch  {elements} elements, {schedule.scratch_bytes / 1024:.1f} KiB"
    for stage in schedule.stages:
        yield from _stage(stage)


def _stage(stage: Stage) -> Iterator[str]:
    yield ""
    yield f"{stage.name}: {layer_summary(stage.node) if stage.node else 'copy into scratch'}"
    for read in stage.reads:
        yield f"  reads  {_read(read)}"
    yield f"  writes {_buffer(stage.writes)}" + ("" if stage.start is None else f", strips from row {stage.start:+d} on")


def _read(read: Read) -> str:
    return f"{read.buffer.name}: {_footprint(read.footprint)}{', guarded' if read.guarded else ''}"


def _buffer(buffer: Buffer) -> str:
    text = f"{buffer.name}: {_footprint(buffer.footprint)}, {buffer.images} images, {buffer.space.value} {buffer.layout.value}"
    if buffer.space is not Space.SCRATCH:
        return text
    pitches = "/".join(map(str, (buffer.image_pitch, buffer.channel_pitch, buffer.row_pitch, buffer.column_pitch)))
    fold = f", folded along {buffer.fold.name.lower()}" if buffer.fold else ""
    place = f"{buffer.offset}..{buffer.offset + buffer.size}"
    return f"{text} at {place}, pitches {pitches}, padding {buffer.padding_value:g}{fold}"


def _footprint(box: Footprint) -> str:
    return f"c {box.c}, y {box.y}, x {box.x}"


def _layer(layer: L.Layer) -> str:
    """Values that differ from their default, in the order of declaration."""
    values = [(f.name, getattr(layer, f.name)) for f in fields(layer) if getattr(layer, f.name) != f.default]
    shown = [f"{name}={_value(value)}" for name, value in values]
    return f"{layer.kind}({', '.join(shown)})" if shown else layer.kind


def _value(value: object) -> str:
    if isinstance(value, L.Padding):
        return f"{value.top},{value.bottom},{value.left},{value.right}"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value.value) if isinstance(value, Enum) else str(value)
