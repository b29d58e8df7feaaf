"""The layers that make one tensor of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fusec.graph.layers.base import Form, Layer


@dataclass(frozen=True)
class Elementwise(Layer):
    """Base of the layers that make each value of one value of every input.

    Inputs of one channel go with every channel of the others, and inputs of one pixel with every pixel.
    """

    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Add(Elementwise):
    """Sum of two or more tensors."""

    kind: ClassVar[str] = "add"


@dataclass(frozen=True)
class Sub(Elementwise):
    """The first tensor less the second."""

    kind: ClassVar[str] = "sub"


@dataclass(frozen=True)
class Mul(Elementwise):
    """Product of two or more tensors."""

    kind: ClassVar[str] = "mul"


@dataclass(frozen=True)
class Div(Elementwise):
    """The first tensor divided by the second."""

    kind: ClassVar[str] = "div"


@dataclass(frozen=True)
class Min(Elementwise):
    """The least value of two or more tensors; NaN where one has it."""

    kind: ClassVar[str] = "min"


@dataclass(frozen=True)
class Max(Elementwise):
    """The greatest value of two or more tensors; NaN where one has it."""

    kind: ClassVar[str] = "max"


@dataclass(frozen=True)
class Concat(Layer):
    """Joins tensors along the channels."""

    kind: ClassVar[str] = "concat"
    form: ClassVar[Form] = Form.SAME
