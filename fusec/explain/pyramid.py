"""The pyramid of one chain: for every stage what a tile needs of it, what its neighbour needs too, and where it is kept.

In: a chain's report. Out: a figure. The bars are a cut through two neighbouring tiles along one axis, the small boxes one tile
from above; in each of them a pixel is as long in one band as in all others. Footprints are drawn centred on what a tile owns:
where exactly padding puts them makes no difference to their extents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from fusec.explain.figure import NARROW, Canvas, Drawing, Figure, figure
from fusec.explain.legend import legend
from fusec.explain.svg import SMALL, Element, polygon, rect, shortened, text, text_width
from fusec.plan.report import Box, ChainReport, InputReport, StageReport
from fusec.words import extents, plural

ROWS, COLUMNS = 1, 2  # places in a Box
KEPT = {"scratch": "kept in scratch", "registers": "kept in registers", "global": "written to memory"}
BOLD = 1.1  # how much wider bold text is
LEAST = 1.5  # no bar is thinner


@dataclass(frozen=True)
class Band:
    """A tensor of the chain: its words, and what a tile needs and owns of it; of a strip, what a step does.

    Attributes
    ----------
    price, dear
        What the overlap costs, in words, and whether it costs anything.
    across
        Along which axes tiles have neighbours that do that work too: "along the width"; empty where there is none.
    reused
        Whether the rows of the footprint that are not owned are kept from the step before, not computed or loaded again.
    """

    tensor: str
    title: str
    detail: str
    price: str
    dear: bool
    kept: str
    footprint: Box
    owned: Box
    reads: tuple[str, ...]
    reused: bool = False
    across: str = ""


def pyramid(chain: ChainReport, key: str) -> Figure:
    """The figure of one chain; `key` is the prefix of its ids."""
    found = tuple(bands(chain))
    last = found[-1]
    needs = ", ".join(f"{extents(b.footprint)} of {b.title}" for b in found[:-1])
    desc = (f"{len(found)} bands, from what the chain reads to what it writes. A {'tile' if chain.step is None else 'step'} "
            f"owns {extents(last.owned)} of the output and needs {needs}.")
    return figure(key, f"The tile of chain {chain.name} in every layer", desc, lambda canvas: _draw(chain, found, canvas))


def bands(chain: ChainReport) -> Iterator[Band]:
    """The tensors in the order they are read or made, each direct input before its first reader."""
    waiting = {i.name: i for i in chain.direct}
    for stage in chain.stages:
        for name in stage.reads:
            if stage.kind != "load" and name in waiting:
                yield _direct(waiting.pop(name), chain)
        yield _band(stage, chain)


def _direct(source: InputReport, chain: ChainReport) -> Band:
    """An input that is read from memory whenever a value of it is needed."""
    strip = chain.step is not None
    footprint, owned = ((c, source.fresh if strip else y, x) for c, y, x in (source.footprint, source.owned))
    return Band(source.name, source.name, f"read from memory · {extents(footprint)}", *_shared(source, chain.grid), "not kept",
                footprint, owned, ())


def _band(stage: StageReport, chain: ChainReport) -> Band:
    """A stage's tensor; that of a load, which has no layer, is called by the tensor it copies."""
    load, strip = stage.kind == "load", chain.step is not None
    title, what = (stage.reads[0], "copied from memory") if load else (stage.label, stage.kind.replace("_", " "))
    (price, dear), across = _shared(stage, chain.grid), ""
    if stage.multiply_adds:
        price, dear = (f"{_ratio(stage.extra_ratio)} extra work", True) if stage.extra else ("no extra work", False)
        across = _across(stage, chain.grid) if stage.extra else ""
    footprint, owned, kept = stage.footprint, stage.owned, KEPT[stage.kept]
    if strip:  # registers hold nothing from one step to the next
        held = stage.fresh if stage.kept == "registers" else stage.held
        footprint, owned = (footprint[0], held, footprint[2]), (owned[0], stage.fresh, owned[2])
        kept = kept if held == stage.fresh else f"{plural(held - stage.fresh, 'row')} of {held} kept"
    return Band(title if load else stage.name, title, f"{what} · {extents(footprint)}", price, dear, kept, footprint, owned,
                () if load else stage.reads, strip, across)


def _across(stage: StageReport, grid: tuple[int, int, int, int]) -> str:
    """Along which axes a stage's footprint reaches into that of a neighbouring tile, or strip."""
    found = [name for axis, name in ((ROWS, "height"), (COLUMNS, "width"))
             if grid[1 + axis] > 1 and stage.footprint[axis] > stage.owned[axis]]
    return "along both axes" if len(found) == 2 else f"along the {found[0]}" if found else ""


def _shared(part: StageReport | InputReport, grid: tuple[int, int, int, int]) -> tuple[str, bool]:
    """How much of a tile's footprint neighbours along its rows or columns have too, in words."""
    share = 1 - math.prod(part.owned[a] / part.footprint[a] for a in (ROWS, COLUMNS) if grid[1 + a] > 1)
    return (f"{share:.0%} shared", True) if share >= 0.005 else ("nothing shared", False)


def _ratio(value: float) -> str:
    return f"{value:.1%}" if value < 10 else f"{value:,.0f} times"


def cut_axis(chain: ChainReport) -> int:
    """The axis the bars lie along: that of a strip's steps, else the width unless only the height has neighbours."""
    if chain.step is not None:
        return ROWS
    found = tuple(bands(chain))
    shared = [any(b.footprint[a] > b.owned[a] for b in found) for a in (ROWS, COLUMNS)]
    cut = [chain.grid[1 + a] > 1 for a in (ROWS, COLUMNS)]
    return ROWS if (shared[0], cut[0]) > (shared[1], cut[1]) else COLUMNS


@dataclass(frozen=True)
class Layout:
    """Where things go: the bars between `left` and `right`, a band every `pitch` with its bar in the middle of `bar` units."""

    left: float
    right: float
    top: float
    pitch: float
    bar: float
    icon: float  # width of the boxes from above; 0 for none
    narrow: bool

    def bar_top(self, index: int) -> float:
        """The upper edge of a band's bar."""
        return self.top + index * self.pitch + (36 if self.narrow else (self.pitch - self.bar) / 2)


WIDE_LAYOUT = Layout(230, 490, 30, 74, 24, 108, narrow=False)
SKIP = 8.0  # distance of a line around bands from them
NARROW_LAYOUT = Layout(0, NARROW, 0, 80, 20, 0, narrow=True)
ICON, PRICE, TALL = 508, 632, 62  # where the columns to the right of the bars begin; height of boxes from above


def _draw(chain: ChainReport, found: tuple[Band, ...], canvas: Canvas) -> Drawing:
    skipping = skips(found)
    layout = WIDE_LAYOUT if not canvas.narrow else replace(NARROW_LAYOUT, left=2 * SKIP if skipping else 0)
    axis = cut_axis(chain)
    strip = chain.step is not None
    neighbours = strip or chain.grid[1 + axis] > 1
    cut = Cut(axis, neighbours, strip, canvas, layout, unit(found, axis, neighbours, layout.right - layout.left))
    body = [] if canvas.narrow else _headings(cut)
    for index, (band, after) in enumerate(pairwise(found)):
        if band.tensor in after.reads:
            body += cut.links(index, band, after)
    body += _around(found, skipping, cut)
    for index, band in enumerate(found):
        body += cut.bars(index, band) + (_words_above if canvas.narrow else _words_beside)(layout, index, band)
        if layout.icon:
            body += _from_above(found, band, chain.grid[1 + COLUMNS] > 1, canvas, layout.top + (index + 0.5) * layout.pitch)
    bottom = layout.top + len(found) * layout.pitch
    height, entries = legend(_entries(found, cut, chain.grid[1 + COLUMNS] > 1), 0, bottom + 12, canvas.width)
    return bottom + 12 + height, body + entries


def unit(found: tuple[Band, ...], axis: int, neighbours: bool, room: float) -> float:
    """Length of a pixel: the longest pair of neighbouring footprints fills the room."""
    return room / max(b.footprint[axis] + (b.owned[axis] if neighbours else 0) for b in found)


@dataclass(frozen=True)
class Cut:
    """The bars: along which axis, whether a tile has a neighbour there, and whether that is the next step of a strip."""

    axis: int
    neighbours: bool
    strip: bool
    canvas: Canvas
    layout: Layout
    unit: float

    def spans(self, band: Band) -> tuple[float, float, float, float]:
        """Start of the footprint, its length, start and length of the part that is owned: its middle, or a step's last rows."""
        length, owned = (max(box[self.axis] * self.unit, LEAST) for box in (band.footprint, band.owned))
        start = (self.layout.left + self.layout.right - length - (owned if self.neighbours else 0)) / 2
        return start, length, start + (length - owned) / (1 if self.strip else 2), owned

    def bars(self, index: int, band: Band) -> list[Element]:
        """Both footprints, what each owns, and on top what they share; the steps of a strip on two levels."""
        (start, length, begin, owned), top = self.spans(band), self.layout.bar_top(index)
        height = (self.layout.bar - 1) / 2 if self.strip else self.layout.bar
        below = top + (height + 1 if self.strip else 0)
        drawn = [rect(start, top, length, height, "halo", data_part="footprint")]
        if self.neighbours:
            drawn.append(rect(start + owned, below, length, height, "other-halo", data_part="neighbour"))
            drawn.append(rect(begin + owned, below, owned, height, "other"))
        drawn.append(rect(begin, top, owned, height, "tile", data_part="owned"))
        if self.neighbours and length > owned:
            fill = self.canvas.pattern("dots" if band.reused else "hatch")
            drawn.append(rect(start + owned, below, length - owned, height, "", fill=fill, data_part="shared"))
            if band.reused:
                drawn.append(rect(start, top, length - owned, height, "", fill=fill))
        return drawn if self.strip else drawn + self._count(band, begin, owned, max(length - owned, 0), top + height / 2)

    def _count(self, band: Band, begin: float, owned: float, shared: float, middle: float) -> list[Element]:
        """How many pixels a tile owns, where the number fits between what it shares."""
        words = str(band.owned[self.axis])
        if text_width(words, SMALL) + 8 > owned - (shared if self.neighbours else 0):
            return []
        return [text(begin + owned / 2, middle + 4, words, "on-tile", "middle", SMALL)]

    def links(self, index: int, band: Band, after: Band) -> list[Element]:
        """The sides of the pyramids between two bars."""
        (start, length, _, owned), (start2, length2, _, owned2) = self.spans(band), self.spans(after)
        top, bottom = self.layout.bar_top(index) + self.layout.bar, self.layout.bar_top(index + 1)
        first = polygon(((start, top), (start + length, top), (start2 + length2, bottom), (start2, bottom)), "tile-light")
        if not self.neighbours:
            return [first]
        return [first, polygon(((start + owned, top), (start + owned + length, top), (start2 + owned2 + length2, bottom),
                                (start2 + owned2, bottom)), "other-light")]


def skips(found: tuple[Band, ...]) -> list[tuple[int, int]]:
    """Pairs of bands, a tensor and a reader that does not follow it."""
    made = {band.tensor: i for i, band in enumerate(found)}
    return [(made[name], i) for i, band in enumerate(found) for name in band.reads if name in made and made[name] < i - 1]


def _around(found: tuple[Band, ...], pairs: list[tuple[int, int]], cut: Cut) -> list[Element]:
    """Lines from a band to another around those between."""
    drawn = []
    for number, (start, end) in enumerate(pairs):
        ends = [(cut.spans(found[i])[0] - 3, cut.layout.bar_top(i) + cut.layout.bar / 2) for i in (start, end)]
        # beside the bars, or where words stand above them, beside the words
        nearest = cut.layout.left if cut.layout.narrow else min(cut.spans(b)[0] for b in found[start:end + 1])
        x = nearest - SKIP * (1 + number % 3 / 2)
        drawn.append(polygon((ends[0], (x, ends[0][1]), (x, ends[1][1]), ends[1]), "skip", "polyline"))
    return drawn


def _headings(cut: Cut) -> list[Element]:
    along = "width" if cut.axis == COLUMNS else "height"
    tiles = "two steps of a strip" if cut.strip else "two neighbouring tiles" if cut.neighbours else "one tile"
    middle = (cut.layout.left + cut.layout.right) / 2
    return [text(middle, 14, f"{tiles}, cut along the {along}", "quiet", "middle", SMALL),
            text(ICON + cut.layout.icon / 2, 14, "from above", "quiet", "middle", SMALL)]


def _words_beside(layout: Layout, index: int, band: Band) -> list[Element]:
    middle, room = layout.top + (index + 0.5) * layout.pitch, layout.left - 2.5 * SKIP
    style = "warm" if band.dear else "quiet"
    right = [(band.price, style), *([(band.across, style)] if band.across else []), (band.kept, "quiet")]
    return [text(0, middle - 3, shortened(band.title, room / BOLD), "strong"),
            text(0, middle + 14, shortened(band.detail, room, SMALL), "quiet", size=SMALL),
            *(text(PRICE, middle + 5.5 + 17 * (i - len(right) / 2), words, style, size=SMALL)
              for i, (words, style) in enumerate(right))]


def _words_above(layout: Layout, index: int, band: Band) -> list[Element]:
    top, right = layout.top + index * layout.pitch, layout.right
    price = f"{band.price}, {band.across}" if band.across else band.price
    room = [right - layout.left - text_width(words, SMALL) - 10 for words in (price, band.kept)]
    return [text(layout.left, top + 13, shortened(band.title, room[0] / BOLD), "strong"),
            text(right, top + 13, price, "warm" if band.dear else "quiet", "end", SMALL),
            text(layout.left, top + 28, shortened(band.detail, room[1], SMALL), "quiet", size=SMALL),
            text(right, top + 28, band.kept, "quiet", "end", SMALL)]


def _from_above(found: tuple[Band, ...], band: Band, beside: bool, canvas: Canvas, middle: float) -> list[Element]:
    """One tile's footprint, rows by columns, and the part it owns; with rows reused, those kept lie on top.

    `beside`: tiles have neighbours along the width.
    """
    side = WIDE_LAYOUT.icon
    pixel = min(TALL / max(b.footprint[ROWS] for b in found), side / max(b.footprint[COLUMNS] for b in found))
    (height, width), (rows, columns) = ((max(n * pixel, LEAST) for n in box[1:]) for box in (band.footprint, band.owned))
    left, top = ICON + (side - width) / 2, middle - height / 2
    drawn = [rect(left, top, width, height, "halo"),
             rect(left + (width - columns) / 2, top + (height - rows) / 2, columns, rows, "tile")]
    if band.reused:
        drawn[1] = rect(left + (width - columns) / 2, top + height - rows, columns, rows, "tile")
        drawn.append(rect(left, top, width, height - rows, "", fill=canvas.pattern("dots")))
        if beside and width > columns:  # both sides are computed again; kept rows of them too
            edge, fill = max((width - columns) / 2, LEAST), canvas.pattern("hatch")
            drawn += [rect(x, top, edge, height, "", fill=fill, data_part="again") for x in (left, left + width - edge)]
    return [*drawn, rect(left, top, width, height, "outline")]


def _entries(found: tuple[Band, ...], cut: Cut, beside: bool) -> list[tuple[str, str]]:
    """(class or pattern, words) of what occurs in the figure."""
    shared = [b for b in found if cut.neighbours and b.footprint[cut.axis] > b.owned[cut.axis]]
    again = cut.strip and beside and bool(cut.layout.icon) and any(b.footprint[COLUMNS] > b.owned[COLUMNS] for b in found)
    entries = [("tile", "what one step makes" if cut.strip else "what one tile owns")]
    if any(b.footprint[1:] != b.owned[1:] and not (b.reused and b.footprint[COLUMNS] == b.owned[COLUMNS]) for b in found):
        entries.append(("halo", "what it needs beyond that"))
    if cut.neighbours:
        entries.append(("other", "the next step" if cut.strip else "its neighbour"))
    if any(b.reused for b in shared):
        entries.append((cut.canvas.pattern("dots"), "kept, not computed again"))
    if again or any(not b.reused for b in shared):
        entries.append((cut.canvas.pattern("hatch"), "needed by both: done twice"))
    return entries
