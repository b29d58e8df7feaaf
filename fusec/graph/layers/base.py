"""What every layer is made of: axes, paddings, windows, the class `Layer`; and the network's input.

Pairs are (height, width).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from fusec.errors import InputError, Problem
from fusec.graph.limits import MAX_EXTENT, whole

Pair = tuple[int, int]


class Axis(Enum):
    """A spatial axis; its value is the position in a (height, width) pair."""

    Y = 0
    X = 1


class Form(Enum):
    """What a layer's output is to a user: an image (N, C, H, W), a vector (N, C), or whatever all of its inputs are."""

    IMAGE = "image"
    VECTOR = "vector"
    SAME = "same"


def refuse(kind: str, problems: Iterable[str]) -> None:
    """An InputError that lists the `problems`; nothing when there are none."""
    found = [Problem(problem, kind) for problem in problems]
    if found:
        raise InputError(found)


@dataclass(frozen=True)
class Padding:
    """Positions added around the image, in pixels."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        edges = {"top": self.top, "bottom": self.bottom, "left": self.left, "right": self.right}
        refuse("padding", [p for name, value in edges.items() for p in whole(name, value, 0, MAX_EXTENT)])

    def along(self, axis: Axis) -> tuple[int, int]:
        """(before, after) along one axis."""
        return (self.top, self.bottom) if axis is Axis.Y else (self.left, self.right)

    def __bool__(self) -> bool:
        return any((self.top, self.bottom, self.left, self.right))


NO_PADDING = Padding()


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis: output position o reads inputs o*stride - before + k*dilation, k < size."""

    size: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False

    @property
    def span(self) -> int:
        """Extent of the input one output position reads."""
        return (self.size - 1) * self.dilation + 1


@dataclass(frozen=True)
class Layer:
    """Base of all layers; `kind` is the word used in descriptions and generated code."""

    kind: ClassVar[str] = "layer"
    form: ClassVar[Form] = Form.IMAGE

    def __post_init__(self) -> None:
        refuse(self.kind, self.problems())

    def problems(self) -> Iterator[str]:
        """What is wrong with the values, in words."""
        yield from ()


@dataclass(frozen=True)
class Input(Layer):
    """A network input; height and width may be open (None): then they are chosen at run time."""

    channels: int
    height: int | None = None
    width: int | None = None
    kind: ClassVar[str] = "input"

    def problems(self) -> Iterator[str]:
        yield from whole("channels", self.channels, 1, MAX_EXTENT)
        for name, side in (("height", self.height), ("width", self.width)):
            yield from whole(name, side, 1, MAX_EXTENT) if side is not None else ()
