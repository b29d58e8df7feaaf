"""Which input positions one output position reads, straight from each layer's definition.

In: a layer and one output position. Out: the positions of the input it reads, outside the image too. `verify` and `interpret`
ask here what the planner must have provided; nothing is shared with the planner's own rules, which work on whole boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.shapes import Shape

READS_WHOLE_IMAGE = (L.GlobalPool2d, L.Flatten, L.Linear)


def input_taps(node: Node, position: int, shapes: Sequence[Shape], axis: L.Axis, place: int) -> Sequence[int]:
    """Positions of input number `position` that output position `place` reads; `shapes` are those of all inputs.

    As `taps`, but for the one pixel that an elementwise layer reads for all of its output's.
    """
    alone = shapes[position].one_pixel and not all(s.one_pixel for s in shapes)
    return [0] if alone and isinstance(node.layer, L.Elementwise) else taps(node.layer, axis, place)


def taps(layer: L.Layer, axis: L.Axis, position: int) -> Sequence[int]:
    """Input positions along a spatial axis that output `position` reads, ascending.

    Not for the layers of `READS_WHOLE_IMAGE`. A transposed convolution may read nothing at all.
    """
    if isinstance(layer, L.ConvTranspose2d):
        w = layer.window(axis)
        numerators = (position + w.before - k * w.dilation for k in reversed(range(w.size)))
        return [n // w.stride for n in numerators if n % w.stride == 0]
    if isinstance(layer, L.Windowed):
        w = layer.window(axis)
        return [position * w.stride - w.before + k * w.dilation for k in range(w.size)]
    if isinstance(layer, L.Upsample):
        return _enlarged(layer, *divmod(position, layer.factor[axis.value]), layer.factor[axis.value])
    if isinstance(layer, L.DepthToSpace):
        return [position // layer.block]
    if isinstance(layer, L.SpaceToDepth):
        return range(position * layer.block, (position + 1) * layer.block)
    if isinstance(layer, L.Crop):
        return [position + layer.along(axis)[0]]
    if isinstance(layer, L.Pad):
        return [position - layer.padding.along(axis)[0]]
    return [position]


def _enlarged(layer: L.Upsample, pixel: int, place: int, factor: int) -> Sequence[int]:
    """What an output reads that lies in the input's `pixel`, in one of `factor` places: beside it, of a linear enlargement, the
    neighbour on whose side of the pixel's centre (half_pixel) or start (asymmetric) the place is."""
    side = 2 * place + 1 - factor if layer.coordinates == "half_pixel" else place
    if not layer.linear or side == 0:
        return [pixel]
    return [pixel - 1, pixel] if side < 0 else [pixel, pixel + 1]


def channel_taps(node: Node, position: int, shapes: Sequence[Shape], channel: int) -> range:
    """Channels of input number `position` that output `channel` reads; `shapes` are those of all inputs."""
    layer, own = node.layer, shapes[position].channels
    if isinstance(layer, L.Conv2d | L.ConvTranspose2d):
        per_group = own // layer.groups
        group = channel // (layer.out_channels // layer.groups)
        return range(group * per_group, (group + 1) * per_group)
    if isinstance(layer, L.LocalResponseNorm):
        return range(max(0, channel - layer.size // 2), min(own, channel + (layer.size - 1) // 2 + 1))
    if isinstance(layer, L.Concat):
        inner = channel - sum(s.channels for s in shapes[:position])
        return range(inner, inner + 1) if 0 <= inner < own else range(0)
    if isinstance(layer, L.Elementwise) and own == 1:
        return range(1)
    if isinstance(layer, L.SliceChannels):
        return range(layer.start + channel * layer.step, layer.start + channel * layer.step + 1)
    if isinstance(layer, L.Softmax | L.LogSoftmax | L.DepthToSpace | L.SpaceToDepth | L.Flatten | L.Linear):
        return range(own)
    return range(channel, channel + 1)


def wanted_outside(layer: L.Layer | None) -> float:
    """What a layer takes a position outside the image for: padding never wins a max pool and adds nothing to any other.

    Not for layers that repeat the edge.
    """
    if isinstance(layer, L.Pad):
        return layer.value
    return float("-inf") if isinstance(layer, L.MaxPool2d) else 0.0


def repeats_edge(layer: L.Layer | None) -> bool:
    """Whether a layer takes a position outside the image for the nearest one inside. An output inside its image always reads
    one inside as well, next to those outside, so that this one lies in every box that holds what the layer reads."""
    return isinstance(layer, L.Upsample) and layer.linear


def leaves_image(layer: L.Layer, axis: L.Axis) -> bool:
    """Whether an output position inside its image may read an input position outside."""
    if isinstance(layer, L.ConvTranspose2d):
        w = layer.window(axis)
        reach = w.span - 1 - w.stride
        return w.before <= reach or w.after <= reach + layer.output_padding[axis.value]
    if isinstance(layer, L.Windowed):
        w = layer.window(axis)
        return w.before > 0 or w.after > 0 or (w.ceil and w.stride > 1)
    if isinstance(layer, L.Pad):
        return any(layer.padding.along(axis))
    return isinstance(layer, L.Upsample) and layer.linear and layer.factor[axis.value] > 1
