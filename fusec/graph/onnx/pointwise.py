"""Converters of ONNX operators that take one value to one value: activations, and those that change nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import TensorProto

from fusec.graph import layers as L
from fusec.graph.limits import MAX_NUMBER
from fusec.graph.onnx.broadcast import per_channel
from fusec.graph.onnx.call import Call, Converter
from fusec.graph.onnx.proto import FLOATS, type_name
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Tensor


def _plain(layer: Callable[[Call], L.Layer]) -> Converter:
    """One layer that follows from the attributes."""
    def convert(call: Call) -> Tensor:
        return call.emit(layer(call), [call.image()])
    return convert


def prelu(call: Call) -> Tensor:
    image = call.image()
    return call.emit(L.PRelu(), [image], {"weight": per_channel(call.floats(1), image, "slope")})


def clip(call: Call) -> Tensor:
    """Bounds are attributes before opset 11 and inputs since; 0 alone is a Relu."""
    low, high = (call.scalar(i) if call.has(i) else call.attribute(name, default)
                 for i, name, default in ((1, "min", -MAX_NUMBER), (2, "max", MAX_NUMBER)))
    if math.isnan(low) or math.isnan(high):
        raise Refusal("one of its bounds is NaN")
    low, high = (max(-MAX_NUMBER, min(bound, MAX_NUMBER)) for bound in (low, high))
    if low == 0 and high == MAX_NUMBER:
        return call.emit(L.Relu(), [call.image()])
    return call.emit(L.Clip(min(low, high), high), [call.image()])  # ONNX: a least value above the greatest gives the greatest


def identity(call: Call) -> Tensor:
    return call.tensor()


def dropout(call: Call) -> Tensor:
    if call.has(2) and bool(call.constant(2).reshape(-1)[:1].any()):
        raise Refusal("it drops values, as in training", "export the network for inference")
    return call.tensor()


def cast(call: Call) -> Tensor:
    if call.attribute("to") not in FLOATS:
        raise Refusal(f"it casts to {type_name(call.attribute('to'))}", "casts among float, float16 and bfloat16 are left out, "
                      f"since all is computed in {type_name(TensorProto.FLOAT)}")
    return call.tensor()


def power(call: Call) -> Tensor:
    return call.emit(L.Power(call.scalar(1)), [call.image()])


def swish(call: Call) -> Tensor:
    if call.attribute("alpha", 1.0) != 1:
        raise Refusal(f"its alpha is {call.attribute('alpha'):g}", "1 works")
    return call.emit(L.Silu(), [call.image()])


POINTWISE: dict[str, Converter] = {
    "Relu": _plain(lambda call: L.Relu()),
    "LeakyRelu": _plain(lambda call: L.LeakyRelu(call.attribute("alpha", 0.01))),
    "Sigmoid": _plain(lambda call: L.Sigmoid()),
    "Tanh": _plain(lambda call: L.Tanh()),
    "Elu": _plain(lambda call: L.Elu(call.attribute("alpha", 1.0))),
    "Selu": _plain(lambda call: L.Selu(call.attribute("alpha", L.Selu.alpha), call.attribute("gamma", L.Selu.gamma))),
    "HardSigmoid": _plain(lambda call: L.HardSigmoid(call.attribute("alpha", 0.2), call.attribute("beta", 0.5))),
    "HardSwish": _plain(lambda call: L.HardSwish()),
    "Softplus": _plain(lambda call: L.Softplus()),
    "Gelu": _plain(lambda call: L.Gelu(call.attribute("approximate", "none"))),
    "Mish": _plain(lambda call: L.Mish()),
    "Swish": swish,
    "Neg": _plain(lambda call: L.Neg()),
    "Abs": _plain(lambda call: L.Abs()),
    "Sqrt": _plain(lambda call: L.Sqrt()),
    "Exp": _plain(lambda call: L.Exp()),
    "Reciprocal": _plain(lambda call: L.Power(-1.0)),
    "Pow": power,
    "PRelu": prelu,
    "Clip": clip,
    "Identity": identity,
    "Dropout": dropout,
    "Cast": cast,
}
