"""Convolutions and pools, one tap of the window at a time, for all output positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import Array, Params
from fusec.graph.reference_ops.dispatch import apply, per_channel

BLOCK_ELEMENTS = 1 << 22  # elements of an intermediate product made at once; bounds the memory of a large batch


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


def _batches(images: int, elements_per_image: int) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // max(1, elements_per_image))
    for start in range(0, images, step):
        yield slice(start, start + step)


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
        out += per_channel(params["bias"], x)
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
    return out + per_channel(params["bias"], x) if layer.bias else out.copy()


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
