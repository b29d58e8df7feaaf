"""SVG elements, the width of text, and scales with round ticks: what all figures are drawn with.

In: numbers and text. Out: `xml.etree` elements, which escape whatever a user's file holds when they are printed. Colours are
never named here: elements carry classes, and `figure` joins them with a style.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

Element = ElementTree.Element
Point = tuple[float, float]

SMALL, NORMAL = 11.0, 13.0  # font sizes, in the units of a drawing

# Widths of characters by the font's size, on the generous side of the usual sans-serif fonts.
_NARROW, _WIDE = set("iljtfrI.,:;'|!()[]/ ·"), set("mwMW@%…+×")


def element(tag: str, *children: Element | str, **attributes: str | float) -> Element:
    """An element. `_` in an attribute's name stands for `-`, one at its end for nothing (`class_`); empty ones are left out."""
    made = ElementTree.Element(tag, {k.rstrip("_").replace("_", "-"): number(v) for k, v in attributes.items() if v != ""})
    for child in children:
        if isinstance(child, str):
            made.text = clean(child)
        else:
            made.append(child)
    return made


def number(value: str | float) -> str:
    """A coordinate with at most two decimals, or a text as it is."""
    if isinstance(value, str):
        return clean(value)
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")  # + 0.0 takes the sign from -0.0


def clean(text: str) -> str:
    """Text that XML can hold: names come from anybody's files, and escaping does not help control characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def rect(x: float, y: float, width: float, height: float, class_: str, **attributes: str | float) -> Element:
    return element("rect", x=x, y=y, width=width, height=height, class_=class_, **attributes)


def line(start: Point, end: Point, class_: str) -> Element:
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def polygon(points: Iterable[Point], class_: str, tag: str = "polygon") -> Element:
    return element(tag, points=" ".join(f"{number(x)},{number(y)}" for x, y in points), class_=class_)


def text(x: float, y: float, words: str, class_: str = "", anchor: str = "start", size: float = NORMAL,
         **attributes: str | float) -> Element:
    """One line of text whose baseline is at `y`."""
    return element("text", words, x=x, y=y, class_=class_ or "ink", text_anchor=anchor, font_size=size, **attributes)


def text_width(words: str, size: float = NORMAL) -> float:
    """Estimated width of a line of text: a browser's own font may be a little narrower."""
    return size * sum(_advance(c) for c in words)


def _advance(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if character in _NARROW:
        return 0.36
    return 0.92 if character in _WIDE else 0.72 if character.isupper() else 0.61


def shortened(words: str, width: float, size: float = NORMAL) -> str:
    """`words`, or as much of its beginning and end as fits into `width`, with an ellipsis between."""
    if text_width(words, size) <= width:
        return words
    for kept in range(len(words) - 1, 1, -1):
        short = f"{words[:kept - kept // 3]}…{words[len(words) - kept // 3:]}"
        if text_width(short, size) <= width:
            return short
    return "…"


@dataclass(frozen=True)
class Scale:
    """Numbers between `low` and `high` to positions between `start` and `end`, evenly or by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.logarithmic \
            else (self.low, self.high, value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most `most` + 1 round numbers within the scale: powers of ten, or multiples of 1, 2 or 5 of one."""
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0 ** p for p in powers[::max(1, -(-len(powers) // most))]]
        step = round_step((self.high - self.low) / most)
        return [i * step for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def round_step(least: float, base: float = 10.0) -> float:
    """The smallest of 1, 2, 5 times a power of ten (or 1, 2, 4 ... times one of 1024) that is not below `least`."""
    if least <= 0:
        return 1.0
    power = base ** math.floor(math.log(least, base) + 1e-9)
    factors: Sequence[float] = (1, 2, 5, 10) if base == 10 else [2.0 ** i for i in range(11)]
    return next(f * power for f in factors if f * power >= least * (1 - 1e-9))
