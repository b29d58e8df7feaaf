"""Exact counts of what a layer does: positions inside the image, multiply-adds, weights.

In: one axis of a footprint as plain integers (or arrays of them), or a layer and its shapes. Out: integers. The closed forms
here are what `cost` and `search` rest on; the tests count the same things by looping over tiles and positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.shapes import Shape, param_shapes
from fusec.targets.device import FEW_CHANNELS, MOST_HELD

Ints = NDArray[np.int64]
BYTES = 4  # of one fp32 element, in which weights are counted unless another type is said


def covered(step: Ints, offset: Ints, extent: Ints, size: Ints, tiles: Ints) -> Ints:
    """Positions inside [0, size) that the boxes [k * step + offset, ... + extent), k < tiles, hold together.

    A position held by several boxes counts as often: this is what overlapped tiles compute or read. All arguments broadcast.
    """
    return _clipped_sum(step, offset + extent, size, tiles) - _clipped_sum(step, offset, size, tiles)


def _clipped_sum(step: Ints, offset: Ints, size: Ints, tiles: Ints) -> Ints:
    """Sum over k < tiles of k * step + offset, each term limited to [0, size]: an arithmetic series between two constants."""
    stride = np.maximum(step, 1)
    first = np.clip(-(offset // stride), 0, tiles)  # from here on the terms are positive
    last = np.clip(-((offset - size) // stride), first, tiles)  # from here on they are `size`
    series = stride * (last * (last - 1) - first * (first - 1)) // 2 + offset * (last - first) + size * (tiles - last)
    return np.where(step == 0, tiles * np.clip(offset, 0, size), series)


def inputs_per_output(graph: LayerGraph, node: Node) -> int:
    """Input channels summed into one output value per filter tap; 0 for layers without multiply-adds."""
    layer = node.layer
    if isinstance(layer, L.Conv2d | L.ConvTranspose2d):
        return graph.shapes[node.inputs[0]].channels // layer.groups
    if isinstance(layer, L.Linear):
        return graph.shapes[node.inputs[0]].elements
    return 0


@dataclass(frozen=True)
class Filters:
    """What a layer multiplies by matrix instructions, as one ordinary convolution.

    Columns of filters over few channels count as channels; phases of a transposed convolution as outputs.

    Attributes
    ----------
    groups
        Of eight output channels.
    depth
        Input channels per output.
    whole
        Whether any outputs side by side read the same inputs, and a warp may make all of them.
    """

    groups: int
    depth: int
    kernel: tuple[int, int]
    few: bool
    whole: bool

    @property
    def steps(self) -> int:
        """Filter columns and channels by sixteens."""
        return self.kernel[1] * -(-self.depth // 16)

    @property
    def part(self) -> float:
        """Of the sixteens, the share that is there: the last channels of a filter column may be eight."""
        return self.kernel[1] * -(-self.depth // 8) / (2 * self.steps)

    @property
    def packed_bytes(self) -> int:
        """Of the weights, filled up to whole groups and steps."""
        return 256 * self.steps * self.kernel[0] * self.groups

    def may_be_held(self, groups: int) -> bool:
        """Whether a warp can keep all weights of so many groups in registers."""
        return self.whole and 2 * self.steps * self.kernel[0] * groups <= MOST_HELD


def matrix_filters(graph: LayerGraph, node: Node) -> Filters | None:
    """What `node` multiplies by matrix instructions; None where it does without."""
    layer, inputs = node.layer, inputs_per_output(graph, node)
    if isinstance(layer, L.ConvTranspose2d) and layer.groups == 1 and layer.dilation == (1, 1) and inputs > FEW_CHANNELS:
        few, (y, x) = layer.out_channels <= FEW_CHANNELS, layer.stride
        outputs = layer.out_channels if few else -(-layer.out_channels // 8) * 8
        return Filters(-(-outputs * y * x // 8), inputs, (-(-layer.kernel[0] // y), -(-layer.kernel[1] // x)), False, few)
    if not isinstance(layer, L.Conv2d):
        return None
    groups, outputs = -(-layer.out_channels // 8), layer.out_channels // layer.groups
    if layer.groups == 1 and inputs <= FEW_CHANNELS:
        return Filters(groups, inputs * layer.kernel[1], (layer.kernel[0], 1), True, True)
    eights = inputs % 8 == 0 and outputs % 8 == 0
    return Filters(groups, inputs, layer.kernel, False, layer.groups == 1) if layer.groups == 1 or eights else None


def taps(layer: L.Layer, axis: L.Axis, start: Ints, end: Ints) -> int:
    """Filter taps along `axis` summed over all positions of the boxes [start, end).

    A convolution has `kernel` taps everywhere (those on padding are counted, as is usual). Of a transposed convolution only the
    taps k with (position + padding - k * dilation) divisible by the stride take part: a pattern that repeats every stride.
    """
    positions = int((end - start).sum())
    if not isinstance(layer, L.ConvTranspose2d):
        return positions * (layer.kernel[axis.value] if isinstance(layer, L.Conv2d) else 1)
    w = layer.window(axis)
    pattern = [sum((p + w.before - k * w.dilation) % w.stride == 0 for k in range(w.size)) for p in range(w.stride)]
    before = np.array([0, *np.cumsum(pattern)], dtype=np.int64)  # taps of the first p positions of a period

    def up_to(position: Ints) -> Ints:
        return np.asarray(position // w.stride * before[-1] + before[position % w.stride])

    return int((up_to(end) - up_to(start)).sum())


def weight_bytes(graph: LayerGraph, node: Node, element: int = BYTES) -> int:
    """Bytes of the weights of a node and its epilogue, in elements of `element` bytes."""
    count = _weights(node.layer, tuple(graph.input_shapes(node)))
    shape = graph.shapes[node.name]
    return element * (count + sum(_weights(p.layer, (shape,)) for p in node.epilogue))


@cache
def _weights(layer: L.Layer, shapes: tuple[Shape, ...]) -> int:
    return sum(math.prod(s) for s in param_shapes(layer, shapes).values())
