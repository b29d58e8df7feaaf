"""Every way to cut a network into groups: bytes moved against storage on the chip, and the Pareto front.

In: an exploration. Out: a figure with a dot for each partition, the front as a line, and what is planned. The axes are
those of Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", MICRO 2016, figure 11, the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fusec.explain import labels
from fusec.explain.figure import Canvas, Drawing, Figure, figure
from fusec.explain.legend import legend
from fusec.explain.plot import Plot
from fusec.explain.svg import SMALL, Element, Scale, element, polygon, round_step
from fusec.explain.svg import Point as Place
from fusec.plan.explore import Exploration, Point
from fusec.words import in_bytes, plural

LEFT, RIGHT, TOP, HEIGHT, HEIGHT_NARROW = 72.0, 14.0, 28.0, 360.0, 290.0
SPECK, RADIUS, RING = 3.0, 4.5, 8.5


def pareto(exploration: Exploration, key: str) -> Figure:
    """The figure of one exploration."""
    front = sorted(exploration.front, key=lambda p: p.buffer_bytes)
    how = "" if exploration.listed else ", of which the front alone is drawn"
    desc = (f"{plural(exploration.partitions, 'partition')}{how}. The front: "
            + "; ".join(f"{in_bytes(p.bytes_moved)} moved with {in_bytes(p.buffer_bytes)} of buffers" for p in front) + ".")
    return figure(key, "Bytes moved against storage on the chip, for every partition", desc,
                  lambda canvas: _draw(exploration, front, canvas))


def stairs(front: Sequence[Place]) -> list[Place]:
    """The front as a line: what can be had with the buffers up to each point. Places go to the right and, on paper, down."""
    line = list(front[:1])
    for (_, above), (x, y) in pairwise(front):
        line += [(x, above), (x, y)]
    return line


def _draw(exploration: Exploration, front: Sequence[Point], canvas: Canvas) -> Drawing:
    height = HEIGHT_NARROW if canvas.narrow else HEIGHT
    named = _named(exploration)
    plot = _plot([*exploration.points, *(p for p, _ in named)], canvas, height)
    on_front = [plot.at(p.buffer_bytes, p.bytes_moved) for p in front]
    beaten = [p for p in (*exploration.points, *(p for p, _ in named)) if not p.pareto]
    others = {(round(x / 3), round(y / 3)): (x, y) for x, y in (plot.at(p.buffer_bytes, p.bytes_moved) for p in beaten)}
    body = plot.elements()
    body += [element("circle", cx=x, cy=y, r=SPECK, class_="speck")
             for x, y in sorted(others.values())]  # of those on one another, one
    body.append(polygon(stairs(on_front), "front", "polyline"))
    body += [element("circle", cx=x, cy=y, r=RADIUS, class_="dot") for x, y in on_front]
    entries = [("dot", "on the front: none moves less with as little storage")]
    if others:
        entries.insert(0, ("speck", "another partition"))
    if exploration.planned is not None:
        x, y = plot.at(exploration.planned.buffer_bytes, exploration.planned.bytes_moved)
        body.append(element("circle", cx=x, cy=y, r=RING, class_="chosen", data_part="chosen"))
        entries.append(("chosen", "as planned"))
    body += _names(named, plot, on_front, list(others.values()))
    extra, words = legend(entries, 0, TOP + height + 52, canvas.width)
    return TOP + height + 52 + extra, body + words


def _named(exploration: Exploration) -> list[tuple[Point, str]]:
    """The points that get a label, what is planned first."""
    named = ((exploration.planned, "as planned"), (exploration.layer_by_layer, "layer by layer"),
             (exploration.all_fused, "all in one group"))
    return [(point, words) for point, words in named if point is not None]


def _plot(points: Sequence[Point], canvas: Canvas, height: float) -> Plot:
    """Both axes from zero to a little more than the largest value."""
    x = Scale(0, max(*(p.buffer_bytes for p in points), 1) * 1.08, LEFT, canvas.width - RIGHT)
    y = Scale(0, max(*(p.bytes_moved for p in points), 1) * 1.08, TOP + height, TOP)
    return Plot(x, y, "storage on the chip", "bytes moved for one image", in_bytes, in_bytes,
                _ticks(x, 3 if canvas.narrow else 6), _ticks(y, 6))


def _ticks(scale: Scale, most: int) -> tuple[float, ...]:
    """Whole numbers of the units that sizes are said in."""
    step = round_step(scale.high / most, 1024)
    return tuple(i * step for i in range(int(scale.high / step) + 1))


def _names(named: Sequence[tuple[Point, str]], plot: Plot, on_front: Sequence[Place],
           others: Sequence[Place]) -> list[Element]:
    """Labels of the named points, one for those at the same place."""
    said: dict[Place, str] = {}
    for point, words in named:
        place = (point.buffer_bytes, point.bytes_moved)
        said[place] = f"{said[place]}, {words}" if place in said else words
    taken = [box for start, end in pairwise(stairs(on_front)) for box in labels.along(start, end)]
    taken += [labels.around(p, SPECK) for p in others] + [labels.around(p, RADIUS) for p in on_front]
    wanted = [(plot.at(*place), words) for place, words in said.items()]
    return labels.elements(labels.place(wanted, taken, plot.frame, SMALL, RING), SMALL)
