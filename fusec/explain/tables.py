"""Everything exact, as tables: chains, stages and the partitions of an exploration.

In: reports. Out: `Table`, headings and cells as text. Counts keep all their digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusec.explain.layerwise import apart
from fusec.plan.explore import Exploration, Point
from fusec.plan.report import Report
from fusec.words import extents, in_seconds


@dataclass(frozen=True)
class Table:
    """Headings and cells, and what they need to be understood."""

    title: str
    note: str
    columns: tuple[tuple[str, bool], ...]  # heading, whether it holds numbers
    rows: tuple[tuple[tuple[str, bool], ...], ...]  # of cells: text, whether it is a number


def table(title: str, note: str, headings: Sequence[str], rows: Iterable[Sequence[str | int]]) -> Table:
    """A table of texts and whole numbers; a heading that begins with `>` is that of a column of numbers."""
    columns = tuple((h.removeprefix(">"), h.startswith(">")) for h in headings)
    cells = tuple(tuple((f"{c:,}" if isinstance(c, int) else c, numeric) for c, (_, numeric) in zip(row, columns, strict=True))
                  for row in rows)
    return Table(title, note, columns, cells)


def chains(report: Report, layerwise: Report) -> Table:
    """One row for each chain. `layerwise` has its layers one by one."""
    headings = ("chain", ">layers", ">tile", ">tiles", ">multiply-adds", ">of these extra", ">scratch bytes", ">bytes read",
                ">bytes written", ">weight bytes", ">bytes moved", ">least layer by layer",
                ">layer by layer as planned", ">expected", ">layer by layer as planned")
    return table("Chains", "A tile is images x channels x rows x columns.", headings, (
        (f"{i} {c.name}", len(c.layers), extents(c.tile), c.tiles, c.multiply_adds, c.extra, c.scratch_bytes, c.bytes_read,
         c.bytes_written, c.weight_bytes, c.bytes_fused, c.bytes_unfused, sum(a.bytes_fused for a in apart(c, layerwise)),
         in_seconds(c.seconds), in_seconds(sum(a.seconds for a in apart(c, layerwise)))) for i, c in enumerate(report.chains)))


def stages(report: Report) -> Table:
    """One row for each stage of each chain."""
    headings = ("chain", "stage", "kind", "result", ">footprint", ">rows held", ">new", ">owned", ">shared", ">positions",
                ">multiply-adds", ">of these extra", ">extra part")
    return table("Stages", "Footprint and owned part are of one tile away from borders, in channels x rows x columns; of a "
                 "strip some rows are held at a time, some of them new in a step. Shared are elements neighbours make too.",
                 headings, ((str(i), s.label, s.kind, s.kept, extents(s.footprint), s.held, s.fresh, extents(s.owned), s.shared,
                             s.positions, s.multiply_adds, s.extra, f"{s.extra_ratio:.2%}")
                            for i, c in enumerate(report.chains) for s in c.stages))


def front(exploration: Exploration) -> Table:
    """The Pareto front, and the named partitions wherever they lie."""
    planned = () if exploration.planned is None else (exploration.planned,)
    points = dict.fromkeys((*exploration.front, *planned, *exploration.ends.values()))
    return _partitions("The Pareto front", "Behind it what is planned and layer by layer, where they are not on it.",
                       exploration, list(points))


def partitions(exploration: Exploration) -> Table:
    """All points of an exploration that lists them, in its order."""
    return _partitions("All partitions", "By the number of groups.", exploration, exploration.points)


def _partitions(title: str, note: str, exploration: Exploration, points: Sequence[Point]) -> Table:
    note += f" Work done again is that of tiles of {extents(exploration.tile)} which keep nothing."
    headings = ("partition", ">groups", ">bytes moved", ">buffer bytes", ">multiply-adds again")
    return table(title, note, headings, ((groups(exploration, p), len(p.groups), p.bytes_moved, p.buffer_bytes,
                                          p.extra_multiply_adds) for p in points))


def groups(exploration: Exploration, point: Point) -> str:
    """The groups of a partition by their layers."""
    return ", ".join(map(exploration.called, point.groups))
