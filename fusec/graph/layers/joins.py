"""The layers that make one tensor of several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fusec.graph.layers.base import Form, Layer


@dataclass(frozen=True)
class Add(Layer):
    """Elementwise sum of two or more tensors of one shape."""

    kind: ClassVar[str] = "add"
    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Mul(Layer):
    """Elementwise product of two or more tensors of one shape."""

    kind: ClassVar[str] = "mul"
    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Concat(Layer):
    """Joins tensors along the channels."""

    kind: ClassVar[str] = "concat"
    form: ClassVar[Form] = Form.SAME
