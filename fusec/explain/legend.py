"""A line of swatches with their meaning, broken into several where the figure is narrow.

In: classes (or pattern fills) and words. Out: elements and the height they take.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.explain.svg import SMALL, Element, element, rect, text, text_width

SWATCH, GAP, LINE = 12.0, 18.0, 20.0


def legend(entries: Sequence[tuple[str, str]], left: float, top: float, right: float) -> tuple[float, list[Element]]:
    """(height, elements) of the entries between `left` and `right`; a fill that begins with `url(` is a pattern."""
    drawn, x, y = [], left, top
    for fill, words in entries:
        width = SWATCH + 6 + text_width(words, SMALL)
        if x > left and x + width > right:
            x, y = left, y + LINE
        drawn += [swatch(x, y, fill), text(x + SWATCH + 6, y + 10, words, "quiet", size=SMALL)]
        x += width + GAP
    return y + LINE - top, drawn


def swatch(x: float, y: float, fill: str) -> Element:
    """A square, or what else the class is drawn as: a circle, a stroke."""
    if fill.startswith("url("):
        return rect(x, y, SWATCH, SWATCH, "", fill=fill)
    if fill.startswith(("dot", "speck", "chosen")):
        return element("circle", cx=x + SWATCH / 2, cy=y + SWATCH / 2, r=4.5, class_=fill)
    if fill == "mark":
        return rect(x + SWATCH / 2 - 1, y, 2, SWATCH, fill)
    return rect(x, y, SWATCH, SWATCH, fill)
