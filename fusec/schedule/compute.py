"""One layer on one box: which windows of its inputs it needs, and its values there. The arithmetic half of `interpret`.

In: a node, a box of its output inside the image, and arrays that hold exactly the windows asked for, positions outside the
image included. Out: the values of the box. The arithmetic is that of `reference_ops.apply` on a layer without padding, so that
a window's padding comes from the arrays and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fusec.graph import layers as L
from fusec.graph.graph import Array, Node, Params
from fusec.graph.reference_ops import apply
from fusec.graph.shapes import Shape
from fusec.schedule.box import Box, Extents
from fusec.schedule.taps import READS_WHOLE_IMAGE, channel_taps, input_taps, taps


def input_window(node: Node, box: Box, position: int, shapes: Sequence[Shape], extents: Extents) -> Box:
    """The smallest box of input number `position` that holds all that `node` reads to make `box`.

    Parameters
    ----------
    shapes
        Shapes of all inputs of the node.
    extents
        Channels, height and width of this input.
    """
    channels = _hull([c for out in box.c for c in channel_taps(node, position, shapes, out)])
    if isinstance(node.layer, READS_WHOLE_IMAGE):
        return Box(channels, range(extents[1]), range(extents[2]))
    y, x = (_hull([p for out in r for p in input_taps(node, position, shapes, a, out)])
            for a, r in zip(L.Axis, (box.y, box.x), strict=True))
    return Box(channels, y, x)


def compute(node: Node, box: Box, windows: Sequence[Box], patches: Sequence[Array], shape: Shape, extents: Extents) -> Array:
    """The values of `node`, epilogue included, on `box`.

    Parameters
    ----------
    box
        Part of the output inside the image, not empty.
    windows, patches
        For each input the window (`input_window`) and its values, (images, channels, rows, columns).
    shape, extents
        Of the node's first input: its shape, and its channels, height and width at run time.

    Returns
    -------
    Array
        (images, channels, rows, columns) of the box, in the patches' dtype.
    """
    layer, params, (patch, *_) = node.layer, node.params, patches
    if isinstance(layer, L.ConvTranspose2d):
        result = _transposed(layer, params, box, windows[0], patch)
    elif isinstance(layer, L.AvgPool2d):
        result = _average(layer, box, patch, extents)
    else:
        local, weights, kept = _localised(layer, params, box, windows[0], shape)
        result = apply(local, weights, patches)[(slice(None), *kept)]
    for pointwise in node.epilogue:
        result = apply(pointwise.layer, _of_channels(pointwise.params, box.c), [result])
    return result


def _hull(positions: Sequence[int]) -> range:
    return range(min(positions), max(positions) + 1) if positions else range(0)


ALL = slice(None)
Kept = tuple[slice, slice, slice]


def _localised(layer: L.Layer, params: Params, box: Box, window: Box, shape: Shape) -> tuple[L.Layer, Params, Kept]:
    """A layer without padding and with the weights of the box's channels, and which part of its result is the box."""
    if isinstance(layer, L.Conv2d):
        groups, made = _groups(layer, shape.channels, window.c)
        local = replace(layer, padding=L.Padding(), groups=groups, out_channels=len(made))
        return local, _of_channels(params, made), (_part(box.c, made.start), ALL, ALL)
    if isinstance(layer, L.MaxPool2d):
        return replace(layer, padding=L.Padding(), ceil_mode=False), params, (ALL, ALL, ALL)
    if isinstance(layer, L.Upsample | L.DepthToSpace):
        height, width = layer.factor if isinstance(layer, L.Upsample) else (layer.block, layer.block)
        rows, columns = _part(box.y, window.y.start * height), _part(box.x, window.x.start * width)
        return layer, params, (ALL if isinstance(layer, L.Upsample) else _part(box.c, 0), rows, columns)
    if isinstance(layer, L.SliceChannels):
        return replace(layer, start=0, stop=len(window.c)), params, (ALL, ALL, ALL)
    if isinstance(layer, L.Crop | L.Pad):  # the window is what is left, or has the padding
        return L.Identity(), params, (ALL, ALL, ALL)
    if isinstance(layer, L.SpaceToDepth):
        return layer, params, (_part(box.c, 0), ALL, ALL)
    if isinstance(layer, L.LocalResponseNorm | L.Softmax | L.LogSoftmax):
        return layer, params, (_part(box.c, window.c.start), ALL, ALL)
    if isinstance(layer, L.Flatten):
        return layer, params, (_part(box.c, 0), ALL, ALL)
    if isinstance(layer, L.Linear):
        return replace(layer, out_features=len(box.c)), _of_channels(params, box.c), (ALL, ALL, ALL)
    return layer, _of_channels(params, box.c), (ALL, ALL, ALL)


def _groups(layer: L.Conv2d | L.ConvTranspose2d, channels: int, read: range) -> tuple[int, range]:
    """How many groups read the channels `read` of an input of `channels`, and the output channels they make."""
    per_read, per_made = channels // layer.groups, layer.out_channels // layer.groups
    first, last = read.start // per_read, read.stop // per_read
    return last - first, range(first * per_made, last * per_made)


def _part(wanted: range, first: int) -> slice:
    """`wanted` as a slice of an axis that starts at position `first`."""
    return slice(wanted.start - first, wanted.stop - first)


def _of_channels(params: Params, channels: range) -> Params:
    """The weights of some output channels; a single shared one (a prelu's slope) stays."""
    return {k: v if len(v) == 1 else v[channels.start:channels.stop] for k, v in params.items()}


def _average(layer: L.AvgPool2d, box: Box, patch: Array, extents: Extents) -> Array:
    """Sum under each window, then one division by the taps that count where the window really lies."""
    total = np.zeros((len(patch), *box.shape), dtype=patch.dtype)
    (rows, columns), (down, right), (dy, dx) = layer.kernel, layer.stride, layer.dilation
    height, width = (len(box.y) - 1) * down + 1, (len(box.x) - 1) * right + 1
    for i in range(rows):
        for j in range(columns):
            total += patch[:, :, i * dy: i * dy + height: down, j * dx: j * dx + width: right]
    rows_counted, columns_counted = (np.array([_counted(layer, a, out, extents[1 + a.value]) for out in r])
                                     for a, r in zip(L.Axis, (box.y, box.x), strict=True))
    return total / np.maximum(np.outer(rows_counted, columns_counted), 1).astype(patch.dtype)


def _counted(layer: L.AvgPool2d, axis: L.Axis, position: int, extent: int) -> int:
    """Taps of one window that go into its divisor: inside the image, or in the declared padding as well."""
    before, after = layer.padding.along(axis) if layer.count_include_pad else (0, 0)
    return sum(-before <= p < extent + after for p in taps(layer, axis, position))


def _transposed(layer: L.ConvTranspose2d, params: Params, box: Box, window: Box, patch: Array) -> Array:
    """The canvas the window's pixels paint, cut or widened to the box: an output no pixel reaches is its bias."""
    result = np.zeros((len(patch), *box.shape), dtype=patch.dtype)
    if not window.empty:
        groups, made = _groups(layer, len(params["weight"]), window.c)
        local = replace(layer, padding=L.Padding(), output_padding=(0, 0), groups=groups, out_channels=len(made), bias=False)
        painted = apply(local, {"weight": params["weight"][window.c.start:window.c.stop]}, [patch])
        y, x = (_painted(layer.window(a), r.start, n)
                for a, r, n in zip(L.Axis, (window.y, window.x), painted.shape[2:], strict=True))
        canvas = Box(made, y, x)
        common = box.intersect(canvas)
        result[(ALL, *box.slices(common))] = painted[(ALL, *canvas.slices(common))]
    if layer.bias:
        result += params["bias"][box.c.start:box.c.stop].astype(patch.dtype).reshape(1, -1, 1, 1)
    return result


def _painted(window: L.Window, first: int, extent: int) -> range:
    """Output positions of a canvas of `extent` painted by inputs from `first` on."""
    start = first * window.stride - window.before
    return range(start, start + extent)
