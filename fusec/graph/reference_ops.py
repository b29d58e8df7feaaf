"""What every layer means, in plain NumPy: the ground truth all kernels are compared with.

In: a layer, its weights and its input arrays, (images, channels, height, width) and all of one float dtype. Out: the layer's
output in the same layout and dtype. `reference.py` runs whole graphs with it, the schedule interpreter runs stages with it.

Output sizes are worked out here by counting windows, on purpose without `shapes.py`: a test holds the two against each other.
All arithmetic stays in the dtype of the inputs; weights are cast to it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce, singledispatch

import numpy as np
from numpy.typing import NDArray

from fusec.errors import InputError, InternalError
from fusec.graph import layers as L
from fusec.graph.graph import Array, Params

BLOCK_ELEMENTS = 1 << 22  # elements of an intermediate product made at once; bounds the memory of a large batch


@singledispatch
def apply(layer: L.Layer, params: Params, inputs: Sequence[Array]) -> Array:
    """Evaluate one layer.

    Parameters
    ----------
    layer
        Any layer but an `Input`.
    params
        The layer's weights, named and shaped as `shapes.param_shapes` says; cast to the inputs' dtype.
    inputs
        Arrays (images, channels, height, width) of one float dtype; float32 is computed in float32.

    Returns
    -------
    Array
        (images, channels, height, width) in the inputs' dtype.

    Raises
    ------
    InputError
        The image is too small for the layer's window.
    """
    raise InternalError(f"the reference does not know the layer kind '{layer.kind}'")


# ---- sliding windows


def _positions(window: L.Window, extent: int) -> int:
    """How many places the window has along an axis of `extent` pixels.

    A window lies inside the padded image. In ceil mode one may also overhang its end, as long as the window before left
    something of the padded image unread, and none may start in the trailing padding or beyond it.
    """
    padded = window.before + extent + window.after
    if window.ceil:
        unread = len(range(window.span - window.stride, padded, window.stride))
        starts = len(range(0, window.before + extent, window.stride))
        count = min(unread, starts)
    else:
        count = len(range(window.span, padded + 1, window.stride))
    if count < 1:
        raise InputError(f"a window of {window.span} pixels does not fit into a padded image of {padded}",
                         hint="the image is too small for this network")
    return count


def _tap_indices(window: L.Window, count: int) -> Iterator[slice]:
    """For each tap of the window, the positions of the padded axis that it reads for `count` outputs."""
    for k in range(window.size):
        first = k * window.dilation
        yield slice(first, first + (count - 1) * window.stride + 1, window.stride)


def _padded(x: Array, layer: L.Windowed, value: float) -> tuple[Array, tuple[int, int]]:
    """The image with its padding, long enough for every window, and the number of windows along (height, width)."""
    borders = []
    counts = []
    for axis in L.Axis:
        window, extent = layer.window(axis), x.shape[2 + axis.value]
        count = _positions(window, extent)
        overhang = (count - 1) * window.stride + window.span - (window.before + extent + window.after)
        borders.append((window.before, window.after + max(0, overhang)))
        counts.append(count)
    if any(map(any, borders)):
        x = np.pad(x, ((0, 0), (0, 0), *borders), constant_values=value)
    return x, (counts[0], counts[1])


def _taps(x: Array, layer: L.Windowed, counts: tuple[int, int]) -> Iterator[tuple[int, int, Array]]:
    """(row tap, column tap, the values that tap reads for every output) for each tap of the window; views of padded `x`."""
    for i, rows in enumerate(_tap_indices(layer.window(L.Axis.Y), counts[0])):
        for j, columns in enumerate(_tap_indices(layer.window(L.Axis.X), counts[1])):
            yield i, j, x[:, :, rows, columns]


def _per_channel(values: Array, x: Array) -> Array:
    """Weights (channels,) or (1,) shaped and cast to go with `x`."""
    return np.asarray(values, dtype=x.dtype).reshape(1, -1, 1, 1)


def _batches(images: int, elements_per_image: int) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // max(1, elements_per_image))
    for start in range(0, images, step):
        yield slice(start, start + step)


# ---- convolutions


def _mix(weight: Array, x: Array) -> Array:
    """Channels mixed inside each group: weight (groups, out, in) with x (images, groups * in, height, width)."""
    groups, made, read = weight.shape
    n, _, height, width = x.shape
    columns = x.transpose(1, 0, 2, 3).reshape(groups, read, n * height * width)
    mixed = weight * columns if read == 1 else weight @ columns
    return mixed.reshape(groups * made, n, height, width).transpose(1, 0, 2, 3)


@apply.register
def _conv2d(layer: L.Conv2d, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    groups = layer.groups
    weight = np.asarray(params["weight"], dtype=x.dtype)
    per_tap = np.ascontiguousarray(weight.reshape(groups, -1, *weight.shape[1:]).transpose(3, 4, 0, 1, 2))
    counts = tuple(_positions(layer.window(a), x.shape[2 + a.value]) for a in L.Axis)
    out = np.zeros((len(x), layer.out_channels, *counts), dtype=x.dtype)
    for images in _batches(len(x), max(weight.shape[0], x.shape[1]) * counts[0] * counts[1]):
        padded, fits = _padded(x[images], layer, 0.0)
        for i, j, tap in _taps(padded, layer, fits):
            out[images] += _mix(per_tap[i, j], tap)
    if layer.bias:
        out += _per_channel(params["bias"], x)
    return out


@apply.register
def _conv_transpose2d(layer: L.ConvTranspose2d, params: Params, inputs: Sequence[Array]) -> Array:
    """Every input pixel adds its weighted kernel to a canvas, `stride` apart; padding is cut off, output padding added."""
    (x,) = inputs
    groups = layer.groups
    weight = np.asarray(params["weight"], dtype=x.dtype)
    per_tap = np.ascontiguousarray(weight.reshape(groups, -1, *weight.shape[1:]).transpose(3, 4, 0, 2, 1))
    counts = (x.shape[2], x.shape[3])
    windows = [layer.window(a) for a in L.Axis]
    extents = [(n - 1) * w.stride + w.span + extra
               for n, w, extra in zip(counts, windows, layer.output_padding, strict=True)]
    kept = tuple(slice(w.before, e - w.after) for w, e in zip(windows, extents, strict=True))
    if any(s.stop <= s.start for s in kept):
        raise InputError("the padding of the transposed convolution removes the whole image",
                         hint="the image is too small for this network")
    canvas = np.zeros((len(x), layer.out_channels, *extents), dtype=x.dtype)
    for images in _batches(len(x), max(layer.out_channels, x.shape[1]) * counts[0] * counts[1]):
        for i, j, target in _taps(canvas[images], layer, counts):
            target += _mix(per_tap[i, j], x[images])
    out: Array = canvas[:, :, kept[0], kept[1]]
    return out + _per_channel(params["bias"], x) if layer.bias else out.copy()


@apply.register
def _linear(layer: L.Linear, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    out: Array = x.reshape(len(x), -1) @ np.asarray(params["weight"], dtype=x.dtype).T
    if layer.bias:
        out = out + np.asarray(params["bias"], dtype=x.dtype)
    return out.reshape(len(x), layer.out_features, 1, 1)


# ---- pooling


@apply.register
def _max_pool2d(layer: L.MaxPool2d, params: Params, inputs: Sequence[Array]) -> Array:
    """A window that sees nothing but padding gives -inf."""
    padded, counts = _padded(inputs[0], layer, -np.inf)
    return reduce(np.maximum, (tap for _, _, tap in _taps(padded, layer, counts))).copy()


@apply.register
def _avg_pool2d(layer: L.AvgPool2d, params: Params, inputs: Sequence[Array]) -> Array:
    """Sum of the window, then one division; a window that sees nothing it counts gives 0."""
    (x,) = inputs
    padded, counts = _padded(x, layer, 0.0)
    total = np.zeros((*x.shape[:2], *counts), dtype=x.dtype)
    for _, _, tap in _taps(padded, layer, counts):
        total += tap
    rows, columns = (_counted(layer.window(a), x.shape[2 + a.value], counts[a.value], layer.count_include_pad) for a in L.Axis)
    divisor = np.maximum(np.outer(rows, columns), 1).astype(x.dtype)
    return total / divisor


def _counted(window: L.Window, extent: int, count: int, include_pad: bool) -> NDArray[np.int64]:
    """For each output along one axis, how many taps count: inside the image, or in its padding as well.

    Positions that only ceil mode added, beyond the padding, never count.
    """
    positions = (np.arange(count) * window.stride - window.before)[:, None] + np.arange(window.size) * window.dilation
    low, high = (-window.before, extent + window.after) if include_pad else (0, extent)
    counted: NDArray[np.int64] = ((positions >= low) & (positions < high)).sum(axis=1, dtype=np.int64)
    return counted


@apply.register
def _global_avg_pool2d(layer: L.GlobalAvgPool2d, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    total: Array = x.sum(axis=(2, 3), keepdims=True, dtype=x.dtype)
    return total / x.dtype.type(x.shape[2] * x.shape[3])


# ---- pointwise


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
    return np.where(x > 0, x, x * _per_channel(params["weight"], x))


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
    return x * _per_channel(params["scale"], x) + _per_channel(params["shift"], x)


# ---- normalisation


@apply.register
def _batch_norm(layer: L.BatchNorm, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    weight, bias, mean, variance = (_per_channel(params[k], x) for k in ("weight", "bias", "running_mean", "running_var"))
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
def _softmax(layer: L.Softmax, params: Params, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    powers: Array = np.exp(x - x.max(axis=1, keepdims=True))
    total: Array = powers.sum(axis=1, keepdims=True, dtype=x.dtype)
    return powers / total


# ---- joining and moving


@apply.register
def _add(layer: L.Add, params: Params, inputs: Sequence[Array]) -> Array:
    return reduce(np.add, inputs)


@apply.register
def _mul(layer: L.Mul, params: Params, inputs: Sequence[Array]) -> Array:
    return reduce(np.multiply, inputs)


@apply.register
def _concat(layer: L.Concat, params: Params, inputs: Sequence[Array]) -> Array:
    return np.concatenate(inputs, axis=1)


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
