"""A figure in two widths, for a page and for a phone, and the same as a file of its own.

In: a function that draws at a given width. Out: `Figure`, elements for the page's template, or the text of an SVG file that
brings its own style (a light one, without a background).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

from fusec.explain.style import LIGHT, rules
from fusec.explain.svg import Element, element, polygon, rect

WIDE, NARROW = 760.0, 324.0  # units of the two drawings; a unit is a pixel at most sizes of a page
XMLNS = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Canvas:
    """Where a drawing goes: its width, and the prefix of the ids it may use."""

    width: float
    key: str

    @property
    def narrow(self) -> bool:
        return self.width < WIDE

    def pattern(self, name: str) -> str:
        """The `fill` of one of the patterns."""
        return f"url(#{self.key}-{name})"


Drawing = tuple[float, list[Element]]  # height, elements


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure: `key` is its file's name and the prefix of its ids; `title` and `desc` are what a screen reader says."""

    key: str
    title: str
    desc: str
    wide: Element
    narrow: Element

    def markup(self) -> str:
        """Both drawings, for a page whose style shows the one that fits."""
        return "\n".join(ElementTree.tostring(e, encoding="unicode") for e in (self.wide, self.narrow))

    def standalone(self) -> str:
        """The wide drawing as an SVG file."""
        root = copy.deepcopy(self.wide)
        style = element("style")
        style.text = "\n" + rules(LIGHT)
        root.insert(2, style)  # behind title and desc
        ElementTree.indent(root, " ")
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def figure(key: str, title: str, desc: str, draw: Callable[[Canvas], Drawing]) -> Figure:
    """Draw in both widths."""
    wide, narrow = (_picture(Canvas(width, f"{key}-{name}"), title, desc, draw)
                    for width, name in ((WIDE, "wide"), (NARROW, "narrow")))
    return Figure(key, title, desc, wide, narrow)


def _picture(canvas: Canvas, title: str, desc: str, draw: Callable[[Canvas], Drawing]) -> Element:
    height, body = draw(canvas)
    key = canvas.key
    return element(
        "svg", element("title", title, id=f"{key}-title"), element("desc", desc, id=f"{key}-desc"), _patterns(key), *body,
        xmlns=XMLNS, viewBox=f"0 0 {canvas.width:.0f} {height:.0f}", width=canvas.width, height=round(height), role="img",
        class_=f"figure {'narrow' if canvas.narrow else 'wide'}", aria_labelledby=f"{key}-title {key}-desc")


def _patterns(key: str) -> Element:
    """Hatching for what is computed twice, dots for what is kept: told apart without colour."""
    hatch = element("pattern", rect(0, 0, 6, 6, "hatch-ground"), polygon(((0, 6), (6, 0)), "hatch", "polyline"),
                    polygon(((-1, 1), (1, -1)), "hatch", "polyline"), polygon(((5, 7), (7, 5)), "hatch", "polyline"),
                    id=f"{key}-hatch", patternUnits="userSpaceOnUse", width=6, height=6)
    dots = element("pattern", rect(0, 0, 6, 6, "kept-ground"), element("circle", cx=1.5, cy=1.5, r=1.1, class_="kept"),
                   element("circle", cx=4.5, cy=4.5, r=1.1, class_="kept"),
                   id=f"{key}-dots", patternUnits="userSpaceOnUse", width=6, height=6)
    return element("defs", hatch, dots)
