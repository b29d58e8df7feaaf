"""Layers that move values and change none."""

from __future__ import annotations

from collections.abc import Sequence

from fusec.graph import layers as L
from fusec.graph.graph import Array, Params
from fusec.graph.reference_ops.dispatch import apply


@apply.register
def _flatten(layer: L.Flatten, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return x.reshape(len(x), -1, 1, 1)


@apply.register
def _upsample(layer: L.Upsample, params: Params, inputs: Sequence[Array]) -> Array:
    height, width = layer.factor
    return inputs[0].repeat(height, axis=2).repeat(width, axis=3)


@apply.register
def _depth_to_space(layer: L.DepthToSpace, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    b = layer.block
    n, channels, height, width = x.shape
    made = channels // b**2
    if layer.order is L.DepthToSpaceOrder.DCR:
        parts = x.reshape(n, b, b, made, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, made, b, b, height, width).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, made, height * b, width * b)


@apply.register
def _identity(layer: L.Identity, params: Params, inputs: Sequence[Array]) -> Array:
    return inputs[0]
