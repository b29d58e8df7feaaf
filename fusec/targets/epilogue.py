"""Epilogues as statements: what happens to a value between its reduction and its store.

In: a node's pointwise layers. Out: statements over `v` (the value), `c` (its channel in the tensor) and `params`, in words that
both targets' libraries define.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import Node, Pointwise
from fusec.targets.base import Packer

# Library functions of the layers without weights or numbers.
FUNCTIONS: dict[type[L.Layer], str] = {
    L.Relu: "relu", L.Sigmoid: "sigmoid", L.Tanh: "tanh_activation", L.Silu: "silu", L.HardSwish: "hard_swish",
    L.Softplus: "softplus", L.Mish: "mish", L.Neg: "negative", L.Abs: "absolute", L.Sqrt: "square_root", L.Exp: "exponential"}
# Those whose functions every kernel has, in its core; all others have a library file of their own.
IN_CORE = (L.Relu, L.LeakyRelu, L.PRelu, L.Clip, L.Sigmoid, L.Tanh, L.Silu, L.ChannelAffine)

ParamReader = Callable[[int], str]  # offset of a per-channel array -> expression for the element of channel c


def literal(value: float) -> str:
    """A C++ float literal with exactly the float32 bits of `value`."""
    v = np.float32(value)
    if np.isinf(v):
        return "infinity()" if v > 0 else "-infinity()"
    return f"{float(v).hex()}f"


def epilogue(node: Node | None, channels: int, packer: Packer, read: ParamReader) -> tuple[str, ...]:
    """Statements for all pointwise layers of a node, in their order."""
    return tuple(_statement(p, channels, packer, read) for p in _pointwise(node))


def beyond_core(node: Node | None) -> bool:
    """Whether a node's epilogue needs functions that the core has not."""
    return any(not isinstance(p.layer, IN_CORE) for p in _pointwise(node))


def _pointwise(node: Node | None) -> tuple[Pointwise, ...]:
    """All pointwise layers of a node, the node's own included when it is one."""
    if node is None:
        return ()
    own = (Pointwise(node.name, node.layer, node.params),) if isinstance(node.layer, L.Activation) else ()
    return (*own, *node.epilogue)


def _statement(op: Pointwise, channels: int, packer: Packer, read: ParamReader) -> str:
    def array(name: str) -> str:
        offset = packer.add(channels + 16, lambda: np.resize(np.broadcast_to(
            np.asarray(op.params[name], np.float32), (channels,)), channels + 16))
        return read(offset)

    function, *arguments = _call(op, array)
    return f"v = {function}({', '.join(['v', *arguments])});"


def _call(op: Pointwise, array: Callable[[str], str]) -> tuple[str, ...]:
    """The library function of an activation, and its arguments behind the value; `array` reads a weight of the channel."""
    layer = op.layer
    match layer:
        case L.LeakyRelu():
            return _leaky(layer.slope), literal(layer.slope)
        case L.PRelu():
            return _leaky(op.params["weight"]), array("weight")
        case L.Clip():
            return "clip", literal(layer.low), literal(layer.high)
        case L.ChannelAffine():
            return "channel_affine", array("scale"), array("shift")
        case L.Elu():
            return "elu", literal(layer.alpha)
        case L.Selu():
            return "selu", literal(layer.alpha), literal(layer.gamma)
        case L.HardSigmoid():
            return "hard_sigmoid", literal(layer.alpha), literal(layer.beta)
        case L.Gelu():
            return ("gelu_tanh" if layer.approximate == "tanh" else "gelu",)
        case L.Power():
            return _power(layer)
    if type(layer) not in FUNCTIONS:
        raise InternalError(f"no epilogue for {layer.kind}")
    return (FUNCTIONS[type(layer)],)


def _leaky(slopes: ArrayLike) -> str:
    """The function for slopes: above 0 and up to 1, the larger of the value and its product is the same, and faster."""
    return "shallow_relu" if bool(np.all((np.asarray(slopes) > 0) & (np.asarray(slopes) <= 1))) else "leaky_relu"


def _power(layer: L.Power) -> tuple[str, ...]:
    if layer.factors is not None:
        return (f"product<{layer.factors}>",)
    return ("reciprocal",) if layer.exponent == -1 else ("power", literal(layer.exponent))
