"""Pointwise layers with one input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

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


def _softplus_of(x: Array) -> Array:
    """log(1 + exp(x)) without ever taking the exponential of a positive number."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _expm1_below(x: Array) -> Array:
    """exp(x) - 1 where x is negative, 0 elsewhere."""
    return np.asarray(np.expm1(np.minimum(x, 0)))


@apply.register
def _elu(layer: L.Elu, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return np.where(x > 0, x, layer.alpha * _expm1_below(x))


@apply.register
def _selu(layer: L.Selu, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return np.where(x > 0, layer.gamma * x, layer.gamma * (layer.alpha * _expm1_below(x)))


@apply.register
def _hard_sigmoid(layer: L.HardSigmoid, params: Params, inputs: Sequence[Array]) -> Array:
    return np.asarray(np.clip(layer.alpha * inputs[0] + layer.beta, 0, 1))


@apply.register
def _hard_swish(layer: L.HardSwish, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return x * np.clip(x / 6 + 0.5, 0, 1)


@apply.register
def _softplus(layer: L.Softplus, params: Params, inputs: Sequence[Array]) -> Array:
    return _softplus_of(inputs[0])


@apply.register
def _gelu(layer: L.Gelu, params: Params, inputs: Sequence[Array]) -> Array:
    """The share below x is erfc(-x / sqrt(2)) / 2, which does not cancel where x is negative."""
    (x,) = inputs
    if layer.approximate == "tanh":
        return x * _logistic(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))
    share = np.fromiter(map(math.erfc, (x * -math.sqrt(0.5)).ravel()), dtype=x.dtype, count=x.size)
    return x * (0.5 * share.reshape(x.shape))


@apply.register
def _mish(layer: L.Mish, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return x * np.tanh(_softplus_of(x))


@apply.register
def _neg(layer: L.Neg, params: Params, inputs: Sequence[Array]) -> Array:
    return np.negative(inputs[0])


@apply.register
def _abs(layer: L.Abs, params: Params, inputs: Sequence[Array]) -> Array:
    return np.abs(inputs[0])


@apply.register
def _power(layer: L.Power, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    if layer.factors is not None:
        return reduce(np.multiply, [x] * layer.factors, np.ones_like(x))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.power(x, x.dtype.type(layer.exponent))


@apply.register
def _sqrt(layer: L.Sqrt, params: Params, inputs: Sequence[Array]) -> Array:
    with np.errstate(invalid="ignore"):
        return np.sqrt(inputs[0])


@apply.register
def _exp(layer: L.Exp, params: Params, inputs: Sequence[Array]) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(inputs[0])


@apply.register
def _channel_affine(layer: L.ChannelAffine, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return x * per_channel(params["scale"], x) + per_channel(params["shift"], x)
