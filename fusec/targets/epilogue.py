"""Epilogues as statements: what happens to a value between its reduction and its store.

In: a node's pointwise layers. Out: statements over `v` (the value), `c` (its channel in the tensor) and `params`, in words that
both targets' libraries define.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import Node, Pointwise
from fusec.targets.base import Packer

ParamReader = Callable[[int], str]  # offset of a per-channel array -> expression for the element of channel c


def literal(value: float) -> str:
    """A C++ float literal with exactly the float32 bits of `value`."""
    v = np.float32(value)
    if np.isinf(v):
        return "infinity()" if v > 0 else "-infinity()"
    return f"{float(v).hex()}f"


def epilogue(node: Node | None, channels: int, packer: Packer, read: ParamReader) -> tuple[str, ...]:
    """Statements for all pointwise layers of a node, the node's own included when it is one."""
    if node is None:
        return ()
    own = (Pointwise(node.name, node.layer, node.params),) if isinstance(node.layer, L.Activation) else ()
    return tuple(_statement(p, channels, packer, read) for p in (*own, *node.epilogue))


def _statement(op: Pointwise, channels: int, packer: Packer, read: ParamReader) -> str:
    layer = op.layer

    def array(name: str) -> str:
        offset = packer.add(channels + 16, lambda: np.resize(np.broadcast_to(
            np.asarray(op.params[name], np.float32), (channels,)), channels + 16))
        return read(offset)

    if isinstance(layer, L.LeakyRelu):
        return f"v = leaky_relu(v, {literal(layer.slope)});"
    if isinstance(layer, L.PRelu):
        return f"v = leaky_relu(v, {array('weight')});"
    if isinstance(layer, L.Clip):
        return f"v = clip(v, {literal(layer.low)}, {literal(layer.high)});"
    if isinstance(layer, L.ChannelAffine):
        return f"v = channel_affine(v, {array('scale')}, {array('shift')});"
    words = {L.Relu: "relu", L.Sigmoid: "sigmoid", L.Tanh: "tanh_activation", L.Silu: "silu"}
    if type(layer) not in words:
        raise InternalError(f"no epilogue for {layer.kind}")
    return f"v = {words[type(layer)]}(v);"
