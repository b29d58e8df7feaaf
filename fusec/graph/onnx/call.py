"""What a converter is given: one ONNX node with its tensors, and how to ask for them and to answer with layers.

A converter is a function `(Call) -> Tensor`, or a tuple of them, one per output. It raises `Refusal` where it cannot; an
`InputError` of a layer that it makes means the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.onnx.builder import Builder, Params
from fusec.graph.onnx.fold import FIXED, Fold, whole_numbers
from fusec.graph.onnx.node import OnnxNode
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Image, Known, Tensor, Value
from fusec.graph.yaml_tree import show

LARGEST = 1 << 30  # of a number that is cut: beyond every limit, and far inside 64 bits


class Call:
    """A node of the file on its way to become layers."""

    def __init__(self, node: OnnxNode, values: Sequence[Value | None], opset: int, builder: Builder) -> None:
        self.node = node
        self.values = values
        self.opset = opset
        self.builder = builder

    # ---- what the node has

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.values) and self.values[index] is not None

    def value(self, index: int) -> Value:
        found = self.values[index] if index < len(self.values) else None
        if found is None:
            raise Refusal(f"its input {index} is missing", "the file is damaged")
        return found

    def tensor(self, index: int = 0) -> Tensor:
        """Input `index`, computed by the network."""
        found = self.value(index)
        if not isinstance(found, Tensor):
            raise Refusal(f"its input {show(self.node.inputs[index])} is a constant where an image is wanted",
                          "fold constants before exporting")
        return found

    def image(self, index: int = 0) -> Image:
        """Input `index` as an image."""
        return self.builder.image(self.tensor(index))

    def picture(self, index: int = 0) -> Image:
        """Input `index` as an image with at least one axis of space."""
        image = self.image(index)
        if image.rank < 3:
            raise Refusal("it reads a vector (N, C) where an image is wanted")
        return image

    def constant(self, index: int) -> NDArray[Any]:
        """Input `index`, which has to be known."""
        found = self.value(index)
        if isinstance(found, Known) and not found.open:
            return found.array
        name = show(self.node.inputs[index])
        if isinstance(found, Known):
            raise Refusal(f"its input {name} depends on the image's size", FIXED)
        raise Refusal(f"its input {name} has to be a constant, but the network computes it")

    def floats(self, index: int) -> NDArray[np.float32]:
        """Input `index` as finite float32 weights."""
        array = self.constant(index)
        if array.dtype.kind != "f":
            raise Refusal(f"its input {show(self.node.inputs[index])} holds {array.dtype}, not floating-point numbers")
        with np.errstate(over="ignore"):
            values = np.asarray(array, dtype=np.float32)
        if not np.isfinite(values).all():
            raise Refusal(f"its input {show(self.node.inputs[index])} has values that are NaN or infinite in float32",
                          "the training may have diverged")
        return values

    def scalar(self, index: int) -> float:
        """Input `index` as one number."""
        array = self.constant(index)
        if array.size != 1 or array.dtype.kind not in "fiu":
            raise Refusal(f"its input {show(self.node.inputs[index])} has to be one number")
        return float(array.reshape(-1)[0])

    def whole(self, index: int) -> list[int]:
        """Input `index` as a few whole numbers."""
        return whole_numbers(self.constant(index))

    def axes(self, index: int) -> list[int] | None:
        """`axes`, an attribute in older opsets and an input in newer ones; None where they are left out."""
        if "axes" in self.node.attributes:
            return list(self.attribute("axes"))
        return self.whole(index) if self.has(index) else None

    def folding(self) -> Fold:
        """The node for the readers of attributes that folding shares; inputs that are no constants are left out."""
        arrays = [v.array if isinstance(v, Known) and not v.open else None for v in self.values]
        return Fold(self.node, arrays, self.opset, None)

    def axis(self, rank: int, default: int) -> int:
        """The attribute `axis`, counted from the front."""
        return normal_axis(self.attribute("axis", default), rank)

    # ---- what becomes of it

    def make(self, layer: L.Layer, inputs: Sequence[Image], params: Params | None = None, *,
             part: str = "", output: int = 0) -> Image:
        """A layer of the node, as an image: `part` names one that is not the last, `output` which tensor it makes."""
        name = self.node.outputs[output]
        if part or not name:
            name = self.builder.auxiliary(f"{name}.{part}")
        return self.builder.add(name, layer, inputs, params)

    def emit(self, layer: L.Layer, inputs: Sequence[Image], params: Params | None = None, *,
             output: int = 0) -> Tensor:
        """The layer that makes an output of the node."""
        return self.make(layer, inputs, params, output=output).view()


Converted = Tensor | tuple[Tensor, ...]
Converter = Callable[[Call], Converted]


def normal_axis(axis: int, rank: int) -> int:
    """An axis counted from the front; Refusal when there is none."""
    if not -rank <= axis < rank:
        raise Refusal(f"there is no axis {axis} in a tensor of {rank} axes", "the file is damaged")
    return axis % rank
