"""Labels beside points that cover neither each other nor what must stay visible.

In: points with texts, the most important first, and boxes to keep free. Out: for each label that found a place, where.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusec.explain.svg import Element, Point, line, text, text_width

GAP = 4.0  # between a label and whatever is next to it
ASCENT, DESCENT = 0.8, 0.25  # of a line of text, by the font's size


@dataclass(frozen=True)
class Box:
    """A rectangle from (left, top) to (right, bottom)."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, other: Box) -> bool:
        return other.left <= self.left and self.right <= other.right and other.top <= self.top and self.bottom <= other.bottom


@dataclass(frozen=True)
class Label:
    """A text that got a place: the start of its baseline, and from where to where a line leads to it if it is not close."""

    words: str
    at: Point
    box: Box
    leader: tuple[Point, Point] | None


def around(point: Point, radius: float) -> Box:
    return Box(point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius)


def along(start: Point, end: Point, radius: float = 2.0, steps: int = 48) -> list[Box]:
    """Boxes that cover a line."""
    return [around((start[0] + (end[0] - start[0]) * i / steps, start[1] + (end[1] - start[1]) * i / steps), radius)
            for i in range(steps + 1)]


def place(wanted: Sequence[tuple[Point, str]], taken: Iterable[Box], frame: Box, size: float, radius: float) -> list[Label]:
    """Greedily, in the order given; a label without any free place is left out."""
    blocked = list(taken)
    placed: list[Label] = []
    for point, words in wanted:
        for close, at, box in _places(point, words, size, radius):
            if box.within(frame) and not any(box.meets(b) for b in blocked):
                leader = None if close else _leader(point, box, radius)
                path = along(*leader, 0.5) if leader else []
                if any(part.meets(label.box) for part in path for label in placed):
                    continue
                placed.append(Label(words, at, box, leader))
                blocked += [box, *path]
                break
    return placed


def _leader(point: Point, box: Box, radius: float) -> tuple[Point, Point]:
    """From the edge of a point's circle to the nearest place of the box."""
    end = (min(max(point[0], box.left), box.right), min(max(point[1], box.top), box.bottom))
    return _towards(point, end, radius), end


def _towards(start: Point, end: Point, distance: float) -> Point:
    """The point at `distance` from `start` on the way to `end`."""
    share = min(distance / max(math.dist(start, end), 1e-9), 1.0)
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _places(point: Point, words: str, size: float, radius: float) -> Iterable[tuple[bool, Point, Box]]:
    """(close, start of the baseline, box): right, left, above, below and the corners, then the same further away."""
    width, (x, y) = text_width(words, size), point
    middle = y + (ASCENT - DESCENT) / 2 * size
    for distance in (radius + GAP, radius + 4 * GAP, radius + 8 * GAP, radius + 12 * GAP):
        above, below = y - distance - DESCENT * size, y + distance + ASCENT * size
        right, left = x + distance, x - distance - width
        for at in ((right, middle), (left, middle), (x - width / 2, above), (x - width / 2, below), (right, above),
                   (right, below), (left, above), (left, below)):
            yield distance == radius + GAP, at, Box(at[0] - 1, at[1] - ASCENT * size, at[0] + width + 1, at[1] + DESCENT * size)


def elements(placed: Iterable[Label], size: float, style: str = "ink") -> list[Element]:
    """The labels and the lines that lead to them."""
    return [e for label in placed for e in (*([line(*label.leader, "leader")] if label.leader else []),
                                            text(*label.at, label.words, style, size=size))]
