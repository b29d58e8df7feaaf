"""Numbers every target needs of a stage: how positions of its box lie in the boxes it reads, as integers for a struct.

In: a Stage of a Schedule. Out: constants by name. All positions are relative to the boxes' first elements, so that a kernel
never adds an image origin in an inner loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.shapes import Shape, size_rule
from fusec.schedule.ir import Affine, Read, Schedule, Space, Stage
from fusec.targets.base import AxisCode

Numbers = dict[str, int | str]


@dataclass(frozen=True)
class Region:
    """The part of what a stage makes at a time that has to be computed; the rest is known to lie outside the image."""

    channels: int
    row: int
    column: int
    rows: int
    columns: int
    inside: bool  # True when every position is known to lie inside the image


def region(stage: Stage, shape: Shape, rows: int) -> Region:
    """Whole box, or just the image where box and image are both fixed; of a step of a strip, its last `rows` rows."""
    y, x = stage.footprint.y, stage.footprint.x
    (row, height, fixed_y), (column, width, fixed_x) = _clip(y, rows, shape.height), _clip(x, _extent(x), shape.width)
    return Region(_extent(stage.footprint.c), _extent(y) - rows + row, column, height, width, fixed_y and fixed_x)


def _clip(box: Affine, extent: int, size: int | None) -> tuple[int, int, bool]:
    if box.scale != 0 or size is None or not -extent < box.offset < size:
        return 0, extent, False
    first, last = max(box.offset, 0), min(box.offset + extent, size)
    return first - box.offset, last - first, True


def _extent(axis: Affine) -> int:
    if axis.extent is None:
        raise InternalError("a computed box has an open extent")
    return axis.extent


def axis_code(origin: str, axis: Affine) -> AxisCode:
    return AxisCode(origin, axis.scale.numerator, axis.scale.denominator, axis.offset)


def region_numbers(stage: Stage, shape: Shape, rows: int) -> Numbers:
    """The region, the box around it, whose last `rows` rows from TOP on are made at a time, and the number of images."""
    r = region(stage, shape, rows)
    box = stage.footprint
    return {"IMAGES": stage.writes.images, "CHANNELS": r.channels, "ROW": r.row, "COLUMN": r.column, "ROWS": r.rows,
            "COLUMNS": r.columns, "TOP": _extent(box.y) - rows, "BOX_ROWS": rows, "BOX_COLUMNS": _extent(box.x),
            "WALKED": str(stage.start is not None).lower(), "INSIDE": str(r.inside).lower()}


def window_numbers(stage: Stage, read: Read) -> Numbers:
    """Kernel, stride, dilation, and the row and column of the read box under output position (0, 0) and tap (0, 0)."""
    layer = _layer(stage, L.Windowed)
    assert isinstance(layer, L.Windowed)
    numbers: Numbers = {}
    for axis, letter in ((L.Axis.Y, "Y"), (L.Axis.X, "X")):
        w = layer.window(axis)
        out, box = stage.footprint.along(axis), read.buffer.footprint.along(axis)
        numbers |= {f"KERNEL_{letter}": w.size, f"STRIDE_{letter}": w.stride, f"DILATION_{letter}": w.dilation,
                    f"OFFSET_{letter}": out.offset * w.stride - w.before - box.offset,
                    f"BEFORE_{letter}": w.before, f"AFTER_{letter}": w.after}
    return numbers


def transposed_numbers(stage: Stage, read: Read) -> Numbers:
    """Output row y is fed by tap k from read row (y + PHASE - k * DILATION) / STRIDE + OFFSET if that divides."""
    layer = _layer(stage, L.ConvTranspose2d)
    assert isinstance(layer, L.ConvTranspose2d)
    numbers: Numbers = {}
    for axis, letter in ((L.Axis.Y, "Y"), (L.Axis.X, "X")):
        w = layer.window(axis)
        out, box = stage.footprint.along(axis), read.buffer.footprint.along(axis)
        # a positive multiple of the stride is added to the dividend, so that C++'s rounding towards zero does not matter
        lift = -(-max(0, w.span - 1 - (out.offset + w.before)) // w.stride)
        numbers |= {f"KERNEL_{letter}": w.size, f"STRIDE_{letter}": w.stride, f"DILATION_{letter}": w.dilation,
                    f"PHASE_{letter}": out.offset + w.before + lift * w.stride, f"OFFSET_{letter}": -lift - box.offset}
    return numbers


def phase_numbers(stage: Stage, read: Read, made: Region, across: int) -> Numbers:
    """A transposed convolution as one ordinary convolution over positions q: output row y = UP * q + phase - PHASE.

    The region `made` meets COUNT of them from FIRST on. Tap t of it multiplies read row STRIDE * q + t + OFFSET, where along x
    `across` neighbours that one input column makes phases of are one position, and STRIDE is that many. CLAMPED: taps with zero
    weights may lie outside the box of BOX rows and columns in scratch.
    """
    numbers, clamped = transposed_numbers(stage, read), False
    layer = _layer(stage, L.ConvTranspose2d)
    assert isinstance(layer, L.ConvTranspose2d)
    for axis, letter, first, count, step in ((L.Axis.Y, "Y", made.row, made.rows, 1),
                                             (L.Axis.X, "X", made.column, made.columns, across)):
        w, phase = layer.window(axis), int(numbers[f"PHASE_{letter}"])
        taps, up = -(-w.size // w.stride), w.stride * step
        offset, box = int(numbers[f"OFFSET_{letter}"]) - taps + 1, read.buffer.footprint.along(axis).extent or 0
        start, end, taps = (first + phase) // up, (first + count - 1 + phase) // up + 1, taps + step - 1
        outside = start * step + offset < 0 or (end - 1) * step + offset + taps > box
        clamped = clamped or (read.buffer.space is Space.SCRATCH and outside)
        numbers |= {f"KERNEL_{letter}": taps, f"STRIDE_{letter}": step, f"UP_{letter}": up, f"OFFSET_{letter}": offset,
                    f"BOX_{letter}": box, f"FIRST_{letter}": start, f"COUNT_{letter}": end - start}
    return numbers | {"CLAMPED": str(clamped).lower()}


def enlarged_numbers(stage: Stage, read: Read, factors: tuple[int, int]) -> Numbers:
    """Output row y comes from read row (y + PHASE) / FACTOR + OFFSET; (y + PHASE) % FACTOR is its place in the block."""
    numbers: Numbers = {}
    for axis, letter in ((L.Axis.Y, "Y"), (L.Axis.X, "X")):
        f = factors[axis.value]
        out, box = stage.footprint.along(axis), read.buffer.footprint.along(axis)
        numbers |= {f"FACTOR_{letter}": f, f"PHASE_{letter}": out.offset % f,
                    f"OFFSET_{letter}": floor(out.offset / f) - box.offset}
    return numbers


def shrunk_numbers(stage: Stage, read: Read, block: int) -> Numbers:
    """The block of output row y begins in read row y * BLOCK + OFFSET."""
    offsets = (stage.footprint.along(a).offset * block - read.buffer.footprint.along(a).offset for a in L.Axis)
    return {"BLOCK": block, **{f"OFFSET_{a.name}": offset for a, offset in zip(L.Axis, offsets, strict=True)}}


def shift(stage: Stage, read: Read) -> tuple[int, int]:
    """Row and column of the read box under the first position of the stage's box, for layers that keep positions or move all
    of them alike."""
    layer, out, box = stage.node.layer if stage.node is not None else None, stage.footprint, read.buffer.footprint
    down, right = 0, 0
    if isinstance(layer, L.Crop):
        down, right = layer.top, layer.left
    elif isinstance(layer, L.Pad):
        down, right = -layer.padding.top, -layer.padding.left
    return out.y.offset + down - box.y.offset, out.x.offset + right - box.x.offset


def open_sizes(schedule: Schedule) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Tensors whose sizes are arguments (one of each group that always agrees), and the index every tensor uses."""
    chain = schedule.chain
    key: dict[str, object] = {}
    for tensor in chain.inputs:
        key[tensor] = tensor
    for node in chain.nodes:
        rules = tuple(size_rule(node.layer, a) for a in L.Axis)
        first = key[chain.graph.sized_by(node)[0]]
        key[node.name] = first if all(r.terms == ((1, 0, 1),) for r in rules) else (first, rules)
    used = dict.fromkeys(b.tensor for b in schedule.buffers)
    representatives: dict[object, str] = {}
    for tensor in used:
        representatives.setdefault(key[tensor], tensor)
    names = tuple(representatives.values())
    return names, {t: names.index(representatives[key[t]]) for t in used}


def comment(node: Node | None, stage: Stage) -> str:
    """Kind and extents of a stage for the reader of the generated source; holds nothing of the user's text."""
    box = stage.footprint
    extents = f"{_extent(box.c)}x{_extent(box.y)}x{_extent(box.x)}"
    if node is None:
        return f"load {extents}"
    words = [node.layer.kind, *(p.layer.kind for p in node.epilogue)]
    if isinstance(node.layer, L.Windowed):
        words[0] += f" {node.layer.kernel[0]}x{node.layer.kernel[1]}"
    return f"{' + '.join(words)} -> {extents}"


def _layer(stage: Stage, kind: type[L.Layer]) -> L.Layer:
    if stage.node is None or not isinstance(stage.node.layer, kind):
        raise InternalError(f"stage {stage.name} is not a {kind.__name__}")
    return stage.node.layer
