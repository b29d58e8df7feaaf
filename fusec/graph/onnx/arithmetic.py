"""Converters of ONNX arithmetic: between images, and between an image and constants per channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.limits import MAX_NUMBER
from fusec.graph.onnx.broadcast import per_channel
from fusec.graph.onnx.call import Call, Converter
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Image, Known, Tensor

Floats = NDArray[np.float32]


def images_of(call: Call) -> list[Image]:
    """All inputs as images of one rank."""
    images = [call.image(i) for i in range(len(call.values))]
    if len({image.rank for image in images}) > 1:
        raise Refusal(f"it reads tensors of {' and '.join(str(i.rank) for i in images)} axes",
                      "a Reshape or Unsqueeze gives them the same number")
    return images


def joined(layer: L.Layer, call: Call) -> Tensor:
    """A layer of all inputs; one alone is passed on."""
    images = images_of(call)
    return call.emit(layer, images) if len(images) > 1 else images[0].view()


def affine(call: Call, image: Image, scale: object, shift: object) -> Tensor:
    """image * scale + shift, each one number or one per channel."""
    params = {name: np.broadcast_to(np.asarray(value, np.float32), (image.channels,))
              for name, value in (("scale", scale), ("shift", shift))}
    if not all(np.isfinite(value).all() for value in params.values()):
        raise Refusal("with its constant, values are NaN or infinite in float32")
    return call.emit(L.ChannelAffine(), [image], params)


def _constant(call: Call) -> tuple[int, Image, Floats] | None:
    """Which of two inputs is the constant, the other one, and the constant per channel; None where both are computed."""
    for index in range(2):
        if isinstance(call.value(index), Known):
            image = call.image(1 - index)
            return index, image, per_channel(call.floats(index), image)
    return None


def add(call: Call) -> Tensor:
    if (found := _constant(call)) is None:
        return joined(L.Add(), call)
    _, image, constant = found
    return affine(call, image, 1, constant)


def mul(call: Call) -> Tensor:
    if (found := _constant(call)) is None:
        return joined(L.Mul(), call)
    _, image, constant = found
    return affine(call, image, constant, 0)


def sub(call: Call) -> Tensor:
    if (found := _constant(call)) is None:
        return joined(L.Sub(), call)
    index, image, constant = found
    return affine(call, image, 1, -constant) if index == 1 else affine(call, image, -1, constant)


def div(call: Call) -> Tensor:
    if (found := _constant(call)) is None:
        return joined(L.Div(), call)
    index, image, constant = found
    if index == 0:
        return affine(call, call.make(L.Power(-1.0), [image], part="reciprocal"), constant, 0)
    if not constant.all():
        raise Refusal("it divides by zero")
    return affine(call, image, 1 / constant.astype(np.float64), 0)


def least(call: Call) -> Tensor:
    return _extreme(call, L.Min(), lambda bound: L.Clip(-MAX_NUMBER, bound))


def greatest(call: Call) -> Tensor:
    return _extreme(call, L.Max(), lambda bound: L.Clip(bound, MAX_NUMBER) if bound else L.Relu())


def _extreme(call: Call, between: L.Layer, clip: Callable[[float], L.Layer]) -> Tensor:
    """The least or greatest of images, or of an image and a number."""
    if not any(isinstance(value, Known) for value in call.values):
        return joined(between, call)
    if len(call.values) != 2:
        raise Refusal("it reads constants and several images", "one image and one number work, and any number of images")
    index = 0 if isinstance(call.value(0), Known) else 1
    return call.emit(clip(call.scalar(index)), [call.image(1 - index)])


ARITHMETIC: dict[str, Converter] = {
    "Add": add, "Sum": lambda call: joined(L.Add(), call), "Mul": mul, "Sub": sub, "Div": div, "Min": least, "Max": greatest,
}
