"""The layer graph while it is made of ONNX nodes: layers with their weights, and the extents of what they make.

In: layers in the order of the file. Out: a `LayerGraph`. A tensor that converters ask for as an image is given its reshapes and
transposes as a layer then, not before. Open sizes are followed through the layers' own size rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node, wrong_count
from fusec.graph.onnx.extent import Extent, follow
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Image, Tensor
from fusec.graph.onnx.views import arrangement, shuffle
from fusec.graph.shapes import Shape, infer, misfit, size_rule

MOST_SHUFFLED = 4096  # channels that are put into another order

Params = Mapping[str, NDArray[Any]]


class Builder:
    """Collects layers; `reserved` are names that only the tensors of the file may have."""

    def __init__(self, reserved: Collection[str]) -> None:
        self.reserved = set(reserved)
        self.nodes: dict[str, Node] = {}
        self.images: dict[str, Image] = {}
        self._arranged: dict[Tensor, Image] = {}
        self._vectors: set[str] = set()  # tensors that users get as (N, C)

    def add_input(self, name: str, image: Image) -> Tensor:
        """A network input of this form."""
        height, width = (side if isinstance(side, int) else None for side in image.sides)
        self.nodes[name] = Node(name, L.Input(image.channels, height, width))
        self.images[name] = image
        return image.view()

    def add(self, name: str, layer: L.Layer, inputs: Sequence[Image], params: Params | None = None) -> Image:
        """A layer that makes tensor `name`; Refusal or InputError where its inputs do not fit."""
        if wrong := wrong_count(layer, len(inputs)):
            raise Refusal(wrong)
        shapes = [_shape(image) for image in inputs]
        if wrong := misfit(layer, shapes):
            raise Refusal(wrong)
        channels = infer(layer, shapes).channels
        weights = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in (params or {}).items()}
        self.nodes[name] = Node(name, layer, tuple(image.name for image in inputs), weights)
        sides = [_side(layer, axis, inputs) for axis in L.Axis]
        rank = 2 if layer.form is L.Form.VECTOR else max(image.rank for image in inputs)
        batch = next((i.batch for i in inputs if i.batch != 1), 1)
        self.images[name] = Image(name, rank, batch, channels, *sides)
        if layer.form is L.Form.VECTOR or (layer.form is L.Form.SAME and all(i.name in self._vectors for i in inputs)):
            self._vectors.add(name)
        return self.images[name]

    def auxiliary(self, name: str) -> str:
        """A name like this that is free."""
        while name in self.reserved or name in self.nodes:
            name += "_"
        return name

    def _free(self, name: str) -> str:
        return self.auxiliary(f"{name}.output") if name in self.nodes else name

    def image(self, tensor: Tensor, name: str | None = None) -> Image:
        """The tensor as an image of its own rank: the layer that makes it, or a layer that rearranges that."""
        source = self.images[tensor.source]
        if tensor.axes == source.view().axes:
            return source
        if tensor in self._arranged:
            return self._arranged[tensor]
        layer = arrangement(tensor.axes)
        order = shuffle(tensor.axes) if layer is None else None
        if order is not None and len(order) <= MOST_SHUFFLED:
            return self._shuffled(tensor, order, name)
        if layer is None:
            raise Refusal("a reshape or transpose in front of it is neither a view of an image nor a pixel shuffle",
                          "tensors are (N, C, H, W), (N, C, L) or (N, C); --to stops before, --from starts behind")
        made = source
        if not isinstance(layer, L.Identity):
            made = self.add(name or self.auxiliary(f"{tensor.source}.{layer.kind}"), layer, [source])
        result = Image(made.name, tensor.rank, made.batch, made.channels, made.height, made.width)
        self._arranged[tensor] = result
        return result

    def _shuffled(self, tensor: Tensor, order: NDArray[Any], name: str | None) -> Image:
        """Channels in another order, as a convolution of zeros and ones."""
        source = self.images[tensor.source]
        weight = np.eye(source.channels, dtype=np.float32)[order].reshape(-1, source.channels, 1, 1)
        layer = L.Conv2d((1, 1), out_channels=len(order), bias=False)
        made = self.add(name or self.auxiliary(f"{tensor.source}.shuffle"), layer, [source], {"weight": weight})
        self._arranged[tensor] = Image(made.name, tensor.rank, made.batch, made.channels, made.height, made.width)
        return self._arranged[tensor]

    def output(self, name: str, tensor: Tensor) -> str:
        """The layer of this name that makes a network output: a vector where the tensor has two axes, else an image."""
        image = self.image(tensor, self._free(name))
        if (image.rank == 2) != (image.name in self._vectors):
            self.add(name := self._free(name), L.Flatten() if image.rank == 2 else L.MaxPool2d((1, 1)), [image])
            return name
        if image.name != name:
            self.add(name := self._free(name), L.Identity(), [image])
        return name

    def finish(self, name: str, outputs: Sequence[str]) -> LayerGraph:
        """The network; layers that no output needs are left out."""
        needed: set[str] = set()
        waiting = [*outputs]
        while waiting:
            one = waiting.pop()
            if one not in needed:
                needed.add(one)
                waiting += self.nodes[one].inputs
        kept = [n for n in self.nodes.values() if n.name in needed or isinstance(n.layer, L.Input)]
        return LayerGraph(name, kept, outputs)


def _shape(image: Image) -> Shape:
    height, width = (side if isinstance(side, int) else None for side in image.sides)
    return Shape(image.channels, height, width)


def _side(layer: L.Layer, axis: L.Axis, inputs: Sequence[Image]) -> Extent:
    """Height or width of what a layer makes; of several inputs, those of one pixel are repeated."""
    given = [image.sides[axis.value] for image in inputs]
    return follow(size_rule(layer, axis), next((side for side in given if side != 1), 1))
