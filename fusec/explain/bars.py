"""Bytes between kernels and memory, chain by chain: as planned, and the least layer by layer.

In: the report of a plan and that of the same network layer by layer. Out: a figure with two bars for each chain, the second the
least that its layers one by one could do with, each reading its inputs and weights once; a mark is at what they do as planned.
Where there are many chains, those that move most are drawn, in the network's order, and the others as one pair of bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusec.explain.figure import Canvas, Drawing, Figure, figure
from fusec.explain.layerwise import apart
from fusec.explain.legend import legend
from fusec.explain.svg import SMALL, Element, Scale, line, rect, round_step, shortened, text, text_width
from fusec.plan.report import ChainReport, Report
from fusec.words import in_bytes, plural

BAR, PITCH, PITCH_NARROW, TOP = 9.0, 36.0, 50.0, 26.0
LABELS, VALUES = 210.0, 74.0  # widths of the columns left and right of the bars


@dataclass(frozen=True)
class Row:
    """A pair of bars, `fused` and `least`, and the mark at what the layers one by one move as planned."""

    name: str
    note: str
    fused: int
    least: int
    apart: int


def bars(report: Report, layerwise: Report, key: str, most: int | None = None) -> Figure:
    """The figure; with `most`, no more chains than that are drawn on their own."""
    rows = rows_of(report.chains, layerwise, most)
    total, least = report.totals.bytes_fused, report.totals.bytes_unfused
    desc = (f"In all {in_bytes(total)} as planned and at least {in_bytes(least)} layer by layer. "
            + "; ".join(f"{r.name}: {in_bytes(r.fused)} and {in_bytes(r.least)}" for r in rows) + ".")
    return figure(key, "Bytes moved by each chain, as planned and least layer by layer", desc,
                  lambda canvas: _draw(rows, canvas))


def rows_of(chains: Sequence[ChainReport], layerwise: Report, most: int | None) -> list[Row]:
    """A row for each chain, in order, or for the `most` that move most layer by layer and one for the rest."""
    rows = [Row(f"{i} {c.name}", plural(len(c.layers), "layer"), c.bytes_fused, c.bytes_unfused,
                sum(a.bytes_fused for a in apart(c, layerwise))) for i, c in enumerate(chains)]
    if most is None or len(rows) <= most + 1:
        return rows
    ranked = sorted(range(len(rows)), key=lambda i: (-rows[i].least, i))
    rest = [rows[i] for i in ranked[most:]]
    layers = plural(sum(len(chains[i].layers) for i in ranked[most:]), "layer")
    return [*(rows[i] for i in sorted(ranked[:most])),
            Row(f"the other {len(rest)} chains", layers, sum(r.fused for r in rest), sum(r.least for r in rest),
                sum(r.apart for r in rest))]


def _draw(rows: Sequence[Row], canvas: Canvas) -> Drawing:
    narrow = canvas.narrow
    left, pitch = (0.0, PITCH_NARROW) if narrow else (LABELS, PITCH)
    right, bottom = canvas.width - VALUES, TOP + pitch * len(rows)
    largest = max(max(r.fused, r.least, r.apart) for r in rows)
    scale = Scale(0, max(largest, 1), left, right)
    body = _grid(scale, largest, bottom, narrow)
    for index, row in enumerate(rows):
        top = TOP + index * pitch
        if narrow:
            room = canvas.width - text_width(row.note, SMALL) - 12
            body.append(text(canvas.width, top + 14, row.note, "quiet", "end", SMALL))
            body.append(text(0, top + 14, shortened(row.name, room)))
        else:
            body += [text(0, top + 15, shortened(row.name, LABELS - 16)), text(0, top + 29, row.note, "quiet", size=SMALL)]
        body += _pair(row, scale, top + (20 if narrow else 7))
    meanings = [("tile", "as planned"), ("plain", "least layer by layer"),
                ("mark", "layer by layer as planned")]
    height, entries = legend(meanings, 0, bottom + 10, canvas.width)
    return bottom + 10 + height, body + entries


def _grid(scale: Scale, largest: float, bottom: float, narrow: bool) -> list[Element]:
    step, drawn = round_step(max(largest, 1) / (3 if narrow else 5), 1024), []
    for i in range(int(max(largest, 1) / step) + 1):
        x = scale(i * step)
        drawn.append(line((x, TOP - 4), (x, bottom), "grid"))
        drawn.append(text(x, 14, in_bytes(i * step) if i else "0", "quiet", "middle" if i or not narrow else "start", SMALL))
    return drawn


def _pair(row: Row, scale: Scale, top: float) -> list[Element]:
    drawn = []
    for value, fill, y in ((row.fused, "tile", top), (row.least, "plain", top + BAR + 3)):
        length = max(scale(value) - scale.start, 1)
        drawn += [rect(scale.start, y, length, BAR, fill, data_bytes=str(value)),
                  text(scale.start + length + 6, y + 8.5, in_bytes(value), "ink" if fill == "tile" else "quiet", size=SMALL)]
    return [*drawn, rect(scale(row.apart) - 1, top + BAR + 2, 2, BAR + 2, "mark")]
