"""Sums over channels or the whole image, and normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusec.graph import layers as L
from fusec.graph.graph import Array, Params
from fusec.graph.reference_ops.dispatch import apply, per_channel


@apply.register
def _global_avg_pool2d(layer: L.GlobalAvgPool2d, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    total: Array = x.sum(axis=(2, 3), keepdims=True, dtype=x.dtype)
    return total / x.dtype.type(x.shape[2] * x.shape[3])


@apply.register
def _global_max_pool2d(layer: L.GlobalMaxPool2d, params: Params, inputs: Sequence[Array]) -> Array:
    return np.asarray(inputs[0].max(axis=(2, 3), keepdims=True))


@apply.register
def _linear(layer: L.Linear, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    out: Array = x.reshape(len(x), -1) @ np.asarray(params["weight"], dtype=x.dtype).T
    if layer.bias:
        out = out + np.asarray(params["bias"], dtype=x.dtype)
    return out.reshape(len(x), layer.out_features, 1, 1)


@apply.register
def _batch_norm(layer: L.BatchNorm, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    weight, bias, mean, variance = (per_channel(params[k], x) for k in ("weight", "bias", "running_mean", "running_var"))
    result: Array = (x - mean) / np.sqrt(variance + layer.eps) * weight + bias
    return result


@apply.register
def _local_response_norm(layer: L.LocalResponseNorm, params: Params, inputs: Sequence[Array]) -> Array:
    """Channel c sees channels c - size // 2 to c + (size - 1) // 2, PyTorch's choice for even sizes; ones that are not
    there count as 0, and the divisor is `size` everywhere."""
    (x,) = inputs
    channels = x.shape[1]
    padded = np.pad(np.square(x), ((0, 0), (layer.size // 2, (layer.size - 1) // 2), (0, 0), (0, 0)))
    total = np.zeros_like(x)
    for k in range(layer.size):
        total += padded[:, k : k + channels]
    return x / (layer.k + layer.alpha / layer.size * total) ** layer.beta


@apply.register
def _log_softmax(layer: L.LogSoftmax, params: Params, inputs: Sequence[Array]) -> Array:
    below = inputs[0] - inputs[0].max(axis=1, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(axis=1, keepdims=True, dtype=below.dtype)))


@apply.register
def _softmax(layer: L.Softmax, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    powers: Array = np.exp(x - x.max(axis=1, keepdims=True))
    total: Array = powers.sum(axis=1, keepdims=True, dtype=x.dtype)
    return powers / total
