"""The roofline of a device with every chain on it, as planned and layer by layer.

In: the report of a plan, that of the same network layer by layer, the device. Out: a figure. Operations are counted once, two
for a multiply-add, whatever a plan does twice: higher is faster, and further right needs less memory for the same work. Seconds
are the time model's. After Williams, Waterman and Patterson, "Roofline", CACM 52 (4), 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusec.explain import labels
from fusec.explain.figure import Canvas, Drawing, Figure, figure
from fusec.explain.layerwise import apart
from fusec.explain.legend import legend
from fusec.explain.plot import Plot
from fusec.explain.svg import SMALL, Element, Point, Scale, element, line, polygon, shortened, text, text_width
from fusec.plan.matrix_time import PRODUCT
from fusec.plan.report import Report
from fusec.targets.device import Device

LEFT, RIGHT, TOP, HEIGHT, HEIGHT_NARROW = 58.0, 8.0, 28.0, 400.0, 330.0
RADIUS = 4.5
NAMED, NAMED_NARROW = 8, 4  # places up to which all chains are called by their names


@dataclass(frozen=True)
class Mark:
    """A chain: operations per byte and per second, as planned and layer by layer (`alone`: it has one layer)."""

    index: int
    name: str
    fused: Point
    unfused: Point
    seconds: float
    alone: bool


def marks(report: Report, layerwise: Report) -> list[Mark]:
    """The chains with multiply-adds, in order; the others have no operations to count."""
    found = []
    for index, chain in enumerate(report.chains):
        operations = 2 * (chain.multiply_adds - chain.extra)
        single = apart(chain, layerwise)
        if operations:
            seconds, moved = sum(c.seconds for c in single), sum(c.bytes_fused for c in single)
            found.append(Mark(index, chain.name, (operations / chain.bytes_fused, operations / chain.seconds),
                              (operations / moved, operations / seconds), chain.seconds, len(single) == 1))
    return found


def peak(device: Device) -> float:
    """Operations per second of all lanes, or of the matrix units where convolutions go through them."""
    products = 16 * 8 * 16 / PRODUCT if device.matrix else device.lanes
    return 2 * device.cores * products * device.clock


def roofline(report: Report, layerwise: Report, device: Device, key: str) -> Figure:
    """The figure; `layerwise` is the plan of the same network, device and sizes with a chain for each layer."""
    found = marks(report, layerwise)
    ridge = peak(device) / device.bandwidth
    listed = "; ".join(f"{m.name}: {m.fused[0]:.1f} operations per byte, {_rate(m.fused[1])} expected" for m in found)
    desc = (f"{device.name}: {_rate(peak(device))} at most, {_bandwidth(device.bandwidth)} from memory; "
            f"they meet at {ridge:.0f} operations per byte. {listed}.")
    return figure(key, f"Roofline of {device.name} with every chain", desc, lambda canvas: _draw(found, device, canvas))


def _draw(found: Sequence[Mark], device: Device, canvas: Canvas) -> Drawing:
    height = HEIGHT_NARROW if canvas.narrow else HEIGHT
    plot = _plot(found, device, canvas.width, height)
    body = plot.elements() + _roofs(plot, device)
    points = [plot.at(*p) for m in found for p in ((m.fused,) if m.alone else (m.fused, m.unfused))]
    for mark in found:
        fused, unfused = plot.at(*mark.fused), plot.at(*mark.unfused)
        if not mark.alone:
            body.append(line(unfused, fused, "link"))
            body.append(_dot(unfused, "dot-plain", f"{mark.name}, layer by layer"))
        body.append(_dot(fused, "dot", mark.name))
    body += _names(found, plot, device, points, NAMED_NARROW if canvas.narrow else NAMED)
    entries = [("dot", "a chain as planned")]
    if not all(m.alone for m in found):
        entries.append(("dot-plain", "its layers one by one, as planned"))
    extra, words = legend(entries, 0, TOP + height + 52, canvas.width)
    return TOP + height + 52 + extra, body + words


def _plot(found: Sequence[Mark], device: Device, width: float, height: float) -> Plot:
    """The ridge and all chains, with room around them."""
    ridge = peak(device) / device.bandwidth
    xs = [p[0] for m in found for p in (m.fused, m.unfused)] + [ridge / 8, ridge * 8]
    ys = [p[1] for m in found for p in (m.fused, m.unfused)] + [peak(device) / 60]
    x = Scale(min(xs) / 1.6, max(xs) * 1.8, LEFT, width - RIGHT, True)
    y = Scale(min(ys) / 2, peak(device) * 2.2, TOP + height, TOP, True)
    return Plot(x, y, "operations per byte moved", "operations per second", lambda v: f"{v:g}", _rate_short,
                tuple(x.ticks(8)), tuple(y.ticks(8)))


def _roofs(plot: Plot, device: Device) -> list[Element]:
    """Memory's slope, the ridge and the flat roof; the shared cache's slope dashed."""
    top = peak(device)
    drawn = []
    for bandwidth, style, words in ((device.cache_bandwidth, "roof-near", f"cache {_bandwidth(device.cache_bandwidth)}"),
                                    (device.bandwidth, "roof", f"memory {_bandwidth(device.bandwidth)}")):
        start, ridge, end = slope(plot, bandwidth, top), plot.at(top / bandwidth, top), plot.at(plot.x.high, top)
        drawn.append(polygon((start, ridge, end) if style == "roof" else (start, ridge), style, "polyline"))
        drawn.append(_along(start, ridge, words, above=style == "roof-near"))
    ridge = plot.at(top / device.bandwidth, top)
    words = f"ridge: {top / device.bandwidth:.0f} operations per byte"
    return [*drawn, line(ridge, (ridge[0], plot.y.start), "hint"),
            text(plot.x.end, ridge[1] - 7, f"peak {_rate(top)}", "quiet", "end", SMALL),
            text(min(ridge[0] + 6, plot.x.end - text_width(words, SMALL)), plot.y.start - 7, words, "quiet", size=SMALL)]


def slope(plot: Plot, bandwidth: float, top: float) -> Point:
    """Where the slope of a bandwidth enters the plot, at its left or its lower edge."""
    intensity = max(plot.x.low, plot.y.low / bandwidth)
    return plot.at(intensity, intensity * bandwidth)


def _along(start: Point, end: Point, words: str, above: bool) -> Element:
    """Words along a line, turned by its angle, near its beginning."""
    angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
    share = 0.06 + 14 / max(math.dist(start, end), 15)
    x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    across = -7.0 if above else 15.0
    x, y = x - across * math.sin(math.radians(angle)), y + across * math.cos(math.radians(angle))
    return element("text", words, x=x, y=y, class_="quiet", font_size=SMALL, transform=f"rotate({angle:.2f} {x:.2f} {y:.2f})")


def _names(found: Sequence[Mark], plot: Plot, device: Device, points: Sequence[Point], most: int) -> list[Element]:
    top, taken = peak(device), [labels.around(p, RADIUS + 1) for p in points]
    for bandwidth in (device.bandwidth, device.cache_bandwidth):
        start, ridge = slope(plot, bandwidth, top), plot.at(top / bandwidth, top)
        taken += labels.along(start, ridge, 12) + labels.along(ridge, plot.at(plot.x.high, top), 3)
    ridge = plot.at(top / device.bandwidth, top)
    taken.append(labels.Box(ridge[0] - 2, plot.y.start - 22, plot.x.end, plot.y.start))
    taken.append(labels.Box(plot.x.end - 160, ridge[1] - 22, plot.x.end, ridge[1]))
    for mark in found:
        if not mark.alone:
            taken += labels.along(plot.at(*mark.unfused), plot.at(*mark.fused))
    return labels.elements(labels.place(_wanted(found, plot, most), taken, plot.frame, SMALL, RADIUS), SMALL)


def _wanted(found: Sequence[Mark], plot: Plot, most: int) -> list[tuple[Point, str]]:
    """What the places are called: chains of several layers first, then by time. Of many places, most only get numbers."""
    groups: list[tuple[Point, list[Mark]]] = []
    for mark in sorted(found, key=lambda m: (m.alone, -m.seconds, m.index)):
        at = plot.at(*mark.fused)
        group = next((g for place, g in groups if math.dist(place, at) < RADIUS), None)
        if group is None:
            groups.append((at, [mark]))
        else:
            group.append(mark)
    if len(groups) <= most:
        return [(at, _called(g)) for at, g in groups]
    return [(at, _called(g) if i < most // 2 else _numbers(g)) for i, (at, g) in enumerate(groups)]


def _numbers(group: Sequence[Mark]) -> str:
    numbers = sorted(m.index for m in group)
    return ", ".join(map(str, numbers[:3])) + ("…" if len(numbers) > 3 else "")


def _called(group: Sequence[Mark]) -> str:
    """The first chain's number and name, and how many more there are."""
    name = f"{group[0].index} {shortened(group[0].name, 180, SMALL)}"
    return name if len(group) == 1 else f"{name} and {len(group) - 1} more"


def _dot(at: Point, style: str, words: str) -> Element:
    return element("circle", element("title", words), cx=at[0], cy=at[1], r=RADIUS, class_=style)


def _rate(value: float) -> str:
    """`67 Tflop/s`."""
    power = min(max(int(math.log10(value) // 3), 2), 5)
    return f"{value / 1000 ** power:.3g} {'MGTP'[power - 2]}flop/s"


def _rate_short(value: float) -> str:
    power = min(max(int(math.log10(value) // 3), 2), 5)
    return f"{value / 1000 ** power:g} {'MGTP'[power - 2]}"


def _bandwidth(value: float) -> str:
    return f"{value / 1e12:.1f} TB/s" if value >= 1e12 else f"{value / 1e9:.0f} GB/s"
