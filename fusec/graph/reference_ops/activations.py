"""Pointwise layers with one input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusec.graph import layers as L
from fusec.graph.graph import Array, Params
from fusec.graph.reference_ops.dispatch import apply, per_channel


@apply.register
def _relu(layer: L.Relu, params: Params, inputs: Sequence[Array]) -> Array:
    return np.maximum(inputs[0], 0)


@apply.register
def _leaky_relu(layer: L.LeakyRelu, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return np.where(x > 0, x, x * layer.slope)


@apply.register
def _prelu(layer: L.PRelu, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return np.where(x > 0, x, x * per_channel(params["weight"], x))


@apply.register
def _clip(layer: L.Clip, params: Params, inputs: Sequence[Array]) -> Array:
    return np.minimum(np.maximum(inputs[0], layer.low), layer.high)


def _logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without ever taking the exponential of a positive number."""
    small = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1, small) / (1 + small)
    return result


@apply.register
def _sigmoid(layer: L.Sigmoid, params: Params, inputs: Sequence[Array]) -> Array:
    return _logistic(inputs[0])


@apply.register
def _tanh(layer: L.Tanh, params: Params, inputs: Sequence[Array]) -> Array:
    return np.tanh(inputs[0])


@apply.register
def _silu(layer: L.Silu, params: Params, inputs: Sequence[Array]) -> Array:
    return inputs[0] * _logistic(inputs[0])


@apply.register
def _channel_affine(layer: L.ChannelAffine, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return x * per_channel(params["scale"], x) + per_channel(params["shift"], x)
