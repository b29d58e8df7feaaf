"""Layers that move values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import Array, Params
from fusec.graph.reference_ops.dispatch import apply


@apply.register
def _flatten(layer: L.Flatten, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return x.reshape(len(x), -1, 1, 1)


@apply.register
def _upsample(layer: L.Upsample, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    for axis in L.Axis:
        enlarge = _interpolated if layer.linear else _repeated
        x = enlarge(layer, axis, x)
    return x


def _repeated(layer: L.Upsample, axis: L.Axis, x: Array) -> Array:
    return x.repeat(layer.factor[axis.value], axis=2 + axis.value)


def _interpolated(layer: L.Upsample, axis: L.Axis, x: Array) -> Array:
    """Each position's value on the line between the pixels before and behind it; both are kept inside the image."""
    factor, dim = layer.factor[axis.value], 2 + axis.value
    extent = x.shape[dim]
    places = np.arange(extent * factor)
    halves = 2 * places + 1 - factor if layer.coordinates == "half_pixel" else 2 * places  # of an output position
    before = halves // (2 * factor)
    weight = (halves % (2 * factor) / (2 * factor)).astype(x.dtype).reshape([-1 if d == dim else 1 for d in range(4)])
    low, high = (x.take(np.clip(before + k, 0, extent - 1), axis=dim) for k in (0, 1))
    return np.asarray(low + weight * (high - low))


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
def _space_to_depth(layer: L.SpaceToDepth, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    b = layer.block
    n, channels, height, width = x.shape[0], x.shape[1], x.shape[2] // b, x.shape[3] // b
    if not height or not width:
        raise InputError(f"an image of {x.shape[2]}x{x.shape[3]} pixels has no block of {b}x{b}",
                         hint="the image is too small for this network")
    parts = x[:, :, : height * b, : width * b].reshape(n, channels, height, b, width, b)
    return parts.transpose(0, 3, 5, 1, 2, 4).reshape(n, channels * b**2, height, width)


@apply.register
def _slice_channels(layer: L.SliceChannels, params: Params, inputs: Sequence[Array]) -> Array:
    return inputs[0][:, layer.start : layer.stop : layer.step].copy()


@apply.register
def _crop(layer: L.Crop, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    rows, columns = (slice(before, max(x.shape[2 + axis.value] - after, 0))
                     for axis, (before, after) in ((a, layer.along(a)) for a in L.Axis))
    kept = x[:, :, rows, columns]
    if not kept.size and x.size:
        raise InputError(f"nothing is left of an image of {x.shape[2]}x{x.shape[3]} pixels",
                         hint="the image is too small for this network")
    return kept.copy()


@apply.register
def _pad(layer: L.Pad, params: Params, inputs: Sequence[Array]) -> Array:
    return np.pad(inputs[0], ((0, 0), (0, 0), *(layer.padding.along(a) for a in L.Axis)), constant_values=layer.value)


@apply.register
def _identity(layer: L.Identity, params: Params, inputs: Sequence[Array]) -> Array:
    return inputs[0]
