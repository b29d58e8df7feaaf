"""The frame of a plot: two scales, grid lines, ticks with their words, and the names of the axes.

In: scales and how to say a tick. Out: elements. The y axis grows upwards: its scale runs from the bottom to the top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fusec.explain.labels import Box
from fusec.explain.svg import SMALL, Element, Scale, line, text, text_width

Say = Callable[[float], str]


@dataclass(frozen=True)
class Plot:
    """Two axes with their names and the words of their ticks."""

    x: Scale
    y: Scale
    x_name: str
    y_name: str
    say_x: Say
    say_y: Say
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]

    @property
    def frame(self) -> Box:
        return Box(self.x.start, self.y.end, self.x.end, self.y.start)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x(x), self.y(y)

    def elements(self) -> list[Element]:
        """The name of the y axis stands above the plot, where it needs no turning."""
        box, drawn = self.frame, []
        for value in self.x_ticks:
            x, words = self.x(value), self.say_x(value)
            inside = min(x, box.right - text_width(words, SMALL) / 2)  # words of the last tick stay within the plot
            drawn += [line((x, box.top), (x, box.bottom), "grid"),
                      text(inside, box.bottom + 18, words, "quiet", "middle", SMALL)]
        for value in self.y_ticks:
            y = self.y(value)
            drawn += [line((box.left, y), (box.right, y), "grid"),
                      text(box.left - 8, y + 4, self.say_y(value), "quiet", "end", SMALL)]
        return [*drawn, line((box.left, box.bottom), (box.right, box.bottom), "axis"),
                text(box.right, box.bottom + 38, self.x_name, "quiet", "end", SMALL),
                text(0, 12, self.y_name, "quiet", size=SMALL)]
