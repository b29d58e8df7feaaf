"""The pages: `fusec explain` and `fusec plan --explore --html`, one file each that needs nothing else.

In: reports of a plan. Out: HTML, and the figures of which it is made. What is said is decided here, how it is marked up in
templates/explain/. A page holds no script and refers to nothing outside itself, which its content security policy enforces.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from markupsafe import Markup

from fusec.explain import tables
from fusec.explain.bars import bars
from fusec.explain.figure import Figure
from fusec.explain.pareto import pareto
from fusec.explain.pyramid import pyramid
from fusec.explain.roofline import marks, roofline
from fusec.explain.style import DARK, LIGHT, rules
from fusec.explain.template import printed
from fusec.plan.explore import Exploration
from fusec.plan.report import ChainReport, Report
from fusec.targets.device import DTYPES, Device
from fusec.version import VERSION
from fusec.words import extents, in_bytes, in_seconds, in_words, plural

BARS = 14  # chains with bars of their own in the first figure
SINGLES = 6  # chains of one layer up to which they are not folded away
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
OPEN = 3  # chains shown without a click: those of several layers that save most


@dataclass(frozen=True, eq=False)
class Subject:
    """A plan to explain: its report, that of the same network layer by layer, the device, and the exploration if there is one.

    `unexplored` says why there is none.
    """

    report: Report
    layerwise: Report
    device: Device
    exploration: Exploration | None
    unexplored: str = ""


@dataclass(frozen=True, eq=False)
class Explained:
    """A page, and its figures as files: names without suffix."""

    html: str
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Card:
    """A number of the summary and its sentence."""

    value: str
    words: str


@dataclass(frozen=True)
class Section:
    """One chain: the line that is always there, whether it has several layers, whether the rest is open, and what it holds."""

    index: int
    name: str
    layers: str
    saved: str
    several: bool
    open: bool
    sentences: tuple[str, ...]
    figure: Markup


def explain(subject: Subject) -> Explained:
    """The page of a plan."""
    report, device = subject.report, subject.device
    pyramids = [pyramid(c, f"pyramid-{i:02}") for i, c in enumerate(report.chains)]
    moved, moved_all = bars(report, subject.layerwise, "bytes", BARS), bars(report, subject.layerwise, "bytes-all")
    roof = roofline(report, subject.layerwise, device, "roofline")
    front = None if subject.exploration is None else pareto(subject.exploration, "pareto")
    figures = {f"{f.key}-{_file_part(c.name)}": f for f, c in zip(pyramids, report.chains, strict=True)}
    figures |= {f.key: f for f in (moved_all, roof, front) if f is not None}
    html = printed(
        "explain.html.j2", **_frame(f"How fusec plans {report.network}"), network=report.network, device=_used(device),
        planned_for=_planned_for(report), cards=_cards(subject), bytes=Markup(moved.markup()),
        bytes_all=Markup(moved_all.markup()) if len(report.chains) > BARS + 1 else None,
        chains=_folded(_sections(subject, pyramids)),
        front=None if front is None else Markup(front.markup()), front_words=_front_words(subject.exploration, device),
        unexplored=subject.unexplored, roofline=Markup(roof.markup()), roofline_words=_roofline_words(subject),
        tables=[tables.chains(report, subject.layerwise), tables.stages(report),
                *([] if subject.exploration is None else [tables.front(subject.exploration)])])
    return Explained(html, figures)


def explore_page(exploration: Exploration, device: Device, layers: str | None = None) -> str:
    """The page of an exploration, of the range `layers` unless that is the whole network; `device` is what is planned for."""
    part = exploration.network if layers is None else f"{layers} of {exploration.network}"
    return printed(
        "explore.html.j2", **_frame(f"Every way to cut {part}"), network=exploration.network,
        figure=Markup(pareto(exploration, "pareto").markup()), words=_front_words(exploration, device),
        tables=[tables.front(exploration), *([tables.partitions(exploration)] if exploration.listed else [])])


def _frame(title: str) -> dict[str, object]:
    return {"title": title, "version": VERSION, "light": asdict(LIGHT), "dark": asdict(DARK),
            "light_figures": Markup(rules(LIGHT)), "dark_figures": Markup(rules(DARK))}


def _file_part(name: str) -> str:
    """Of a chain's name what any file system takes."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:60] or "chain"


def _used(device: Device) -> str:
    """The device, and the type of its tensors where that is not the usual one."""
    return device.name if device.dtype == DTYPES[0] else f"{device.name} in {device.dtype}"


def _planned_for(report: Report) -> str:
    size = "" if report.height is None else f" of {extents((report.height, report.width or 0))} pixels"
    return f"{plural(report.batch, 'image')}{size} at a time"


def _cards(subject: Subject) -> list[Card]:
    device, totals, single = subject.device, subject.report.totals, subject.layerwise.totals
    share, faster = totals.saved, single.seconds / totals.seconds
    once = in_words(totals.multiply_adds - totals.extra)
    room = f", of {in_bytes(device.scratch_per_block)} there are" if device.target == "cuda" else ""
    return [
        Card(f"{abs(share):.0%} {'less' if share >= 0 else 'more'} moved",
             f"{in_bytes(totals.bytes_fused)} go to and from memory, and layer by layer at least "
             f"{in_bytes(totals.bytes_unfused)}."),
        Card(f"{plural(totals.layers, 'layer')}, {plural(totals.chains, 'kernel')}",
             "Layers that share a kernel are a chain. What passes between them stays on the chip."),
        Card(f"{totals.extra_ratio:.1%} extra work",
             f"{in_words(totals.extra)} multiply-adds are done again because tiles overlap, on top of {once}." if totals.extra
             else f"Each of {once} multiply-adds is done once."),
        Card(f"{in_bytes(totals.scratch_bytes)} on the chip", f"is the most scratch memory that a tile takes{room}."),
        Card(f"{in_seconds(totals.seconds)} expected", f"for {plural(subject.report.batch, 'image')}, by the time model."),
        Card(f"{faster:.2f} times as fast", f"as layer by layer as planned, where {in_seconds(single.seconds)} are expected."),
    ]


def _sections(subject: Subject, pyramids: list[Figure]) -> list[Section]:
    chains = subject.report.chains
    several = [i for i, c in enumerate(chains) if len(c.layers) > 1]
    opened = set(sorted(several, key=lambda i: (chains[i].bytes_fused - chains[i].bytes_unfused, i))[:OPEN] or [0])
    return [Section(i, c.name, plural(len(c.layers), "layer"), _moved(c), i in several, i in opened,
                    _sentences(c), Markup(f.markup()))
            for i, (c, f) in enumerate(zip(chains, pyramids, strict=True))]


def _folded(sections: list[Section]) -> tuple[list[Section], list[Section]]:
    """The chains that are listed, and those of one layer that are folded away because they are many."""
    single = [s for s in sections if not s.several and not s.open]
    return (sections, []) if len(single) <= SINGLES else ([s for s in sections if s not in single], single)


def _moved(chain: ChainReport) -> str:
    """The bytes of its layers one by one, at least, and its own; of a single layer only these."""
    fused = in_bytes(chain.bytes_fused)
    return fused if len(chain.layers) == 1 else f"{in_bytes(chain.bytes_unfused)} → {fused}"


def _sentences(chain: ChainReport) -> tuple[str, ...]:
    images, *box = chain.tile
    work = f"{chain.extra_ratio:.1%} extra work where tiles overlap." if chain.extra else "No work is done twice."
    strip = () if chain.step is None else (
        f"A tile is a strip, walked down {plural(chain.step, 'row')} at a time; rows that the next step needs are kept.",)
    one_by_one = f" and at least {in_bytes(chain.bytes_unfused)} by its layers one by one" if len(chain.layers) > 1 else ""
    return (f"{plural(chain.tiles, 'tile')} of {extents(box)} (channels x rows x columns), {plural(images, 'image')} each.",
            f"{in_bytes(chain.scratch_bytes)} of scratch for a tile.", work, *strip,
            f"{in_bytes(chain.bytes_fused)} are moved{one_by_one}.")


def _front_words(exploration: Exploration | None, device: Device) -> tuple[str, ...]:
    if exploration is None:
        return ()
    one, many = exploration.layer_by_layer, exploration.all_fused
    size = "" if exploration.height is None else f" of {extents((exploration.height, exploration.width or 0))} pixels"
    fused = "" if many is None else (f"; all in one group, {in_bytes(many.bytes_moved)}, with {in_bytes(many.buffer_bytes)} of "
                                     "storage")
    said = [f"{len(exploration.layers)} layers can be cut in {_ways(exploration.partitions)} ways, counted here for one "
            f"image{size}, without weights.", f"Layer by layer {in_bytes(one.bytes_moved)} are moved{fused}."]
    if not exploration.complete:
        said.append("With branches side by side in so many layers not all cuts are tried: these are the cuts into intervals of "
                    "an order that keeps each branch together.")
    if not exploration.listed:
        said.append("That is too many to draw: only the front is shown.")
    if exploration.planned is not None:
        said.append(f"As planned for {device.name}, {in_bytes(exploration.planned.bytes_moved)} are moved; plans are made for "
                    "the least time, and need not lie on the front.")
    return tuple(said)


def _ways(count: int) -> str:
    """`4,287,500`, or a power of ten where nobody counts the digits."""
    return f"{count:,}" if count < 10 ** 9 else f"some 10{str(len(str(count)) - 1).translate(SUPERSCRIPT)}"


def _roofline_words(subject: Subject) -> str:
    report = subject.report
    without = len(report.chains) - len(marks(report, subject.layerwise))
    return f" {plural(without, 'chain')} without multiply-adds cannot be placed here." if without else ""
