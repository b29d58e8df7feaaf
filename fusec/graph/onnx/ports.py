"""What an ONNX graph says of the form of its tensors: as images for the network's inputs.

In: a `ModelProto`. Out: an `Image` of a tensor's declared or inferred form, or a `Refusal` with what it lacks.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import onnx

from fusec.graph.limits import MAX_EXTENT
from fusec.graph.onnx.extent import Extent, name
from fusec.graph.onnx.proto import FLOATS, type_name
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Image
from fusec.graph.yaml_tree import show


class Ports:
    """The forms of a graph's tensors; those that the file does not say are inferred by the onnx package when asked for."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @cached_property
    def _declared(self) -> dict[str, Any]:
        graph = self.model.graph
        return {info.name: info.type for info in (*graph.value_info, *graph.output, *graph.input)}

    @cached_property
    def _inferred(self) -> dict[str, Any]:
        try:
            graph = onnx.shape_inference.infer_shapes(self.model).graph
        except Exception:  # whatever a broken file makes it raise: then nothing is known
            return {}
        return {info.name: info.type for info in (*graph.value_info, *graph.output)}

    def declared(self, tensor: str) -> Image:
        """The tensor as the file describes it."""
        return image_of(tensor, self._declared.get(tensor))

    def found(self, tensor: str) -> Image:
        """The tensor as the file or shape inference describes it."""
        try:
            return self.declared(tensor)
        except Refusal:
            return image_of(tensor, self._inferred.get(tensor))


def image_of(tensor: str, kind: Any) -> Image:
    """A tensor's type as an image: (N, C, H, W), (N, C, L) or (N, C) of floats, with known channels."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        raise Refusal(f"the shape of {show(tensor)} is not known", "the file has to say it: onnx.shape_inference.infer_shapes")
    if kind.tensor_type.elem_type not in FLOATS:
        raise Refusal(f"{show(tensor)} holds {type_name(kind.tensor_type.elem_type)}", "images are float, float16 or bfloat16")
    dims = kind.tensor_type.shape.dim
    if not 2 <= len(dims) <= 4:
        raise Refusal(f"{show(tensor)} has {len(dims)} axes", "(N, C, H, W), (N, C, L) and (N, C) are read")
    extents = [_extent(tensor, i, dim) for i, dim in enumerate(dims)]
    batch, channels, height, width = (*extents, 1, 1)[:4]
    if not isinstance(channels, int):
        raise Refusal(f"{show(tensor)} has an open number of channels", "axis 1 holds the channels, and has to be fixed")
    return Image(tensor, len(dims), batch, channels, height, width)


def _extent(tensor: str, axis: int, dim: Any) -> Extent:
    """A fixed size, or an open one by the name that the file gives it."""
    if not dim.HasField("dim_value"):
        return name(dim.dim_param[:40] or f"{tensor[:40]}.{axis}")
    if not 1 <= dim.dim_value <= MAX_EXTENT:
        raise Refusal(f"{show(tensor)} has an extent of {dim.dim_value}", f"1 to {MAX_EXTENT:,} are read")
    return int(dim.dim_value)
