"""Shape inference: what each layer makes of its inputs' shapes, and which weights it wants.

In: a layer and the shapes of its inputs. Out: what does not fit, the output's `Shape`, the `SizeRule` of each axis (so that
sizes chosen at run time can be followed through a network as plain integers), and the shapes of the layer's weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.limits import MAX_EXTENT


@dataclass(frozen=True)
class Shape:
    """Channels, height and width of a tensor; None is a size chosen at run time. The batch is always free."""

    channels: int
    height: int | None
    width: int | None

    @property
    def pinned(self) -> bool:
        return self.height is not None and self.width is not None

    @property
    def one_pixel(self) -> bool:
        return (self.height, self.width) == (1, 1)

    @property
    def elements(self) -> int:
        """Elements of one image; to be asked of pinned shapes alone."""
        assert self.height is not None and self.width is not None
        return self.channels * self.height * self.width

    def along(self, axis: L.Axis) -> int | None:
        return self.height if axis is L.Axis.Y else self.width

    def __str__(self) -> str:
        return "x".join("?" if v is None else str(v) for v in (self.channels, self.height, self.width))


@dataclass(frozen=True)
class SizeRule:
    """Output extent as a function of the input's: the least of floor((multiply * n + add) / divide) over `terms`.

    Covers every layer: windows divide, upsampling multiplies, ceil mode is the least of two terms, a constant multiplies by 0.
    """

    terms: tuple[tuple[int, int, int], ...] = ((1, 0, 1),)

    def __call__(self, extent: int) -> int:
        return min((multiply * extent + add) // divide for multiply, add, divide in self.terms)


SAME = SizeRule()
ONE = SizeRule(((0, 1, 1),))


def window_rule(window: L.Window) -> SizeRule:
    """Extent after a sliding window; in ceil mode the last window must start inside the image or its leading padding."""
    room = window.before + window.after - window.span
    if not window.ceil:
        return SizeRule(((1, room + window.stride, window.stride),))
    return SizeRule(((1, room + 2 * window.stride - 1, window.stride), (1, window.before - 1 + window.stride, window.stride)))


def size_rule(layer: L.Layer, axis: L.Axis) -> SizeRule:
    """How `layer` changes the extent along `axis`."""
    if isinstance(layer, L.ConvTranspose2d):
        w = layer.window(axis)
        return SizeRule(((w.stride, w.span - w.stride - w.before - w.after + layer.output_padding[axis.value], 1),))
    if isinstance(layer, L.Windowed):
        return window_rule(layer.window(axis))
    if isinstance(layer, L.Upsample):
        return SizeRule(((layer.factor[axis.value], 0, 1),))
    if isinstance(layer, L.DepthToSpace):
        return SizeRule(((layer.block, 0, 1),))
    if isinstance(layer, L.SpaceToDepth):
        return SizeRule(((1, 0, layer.block),))
    if isinstance(layer, L.Crop):
        return SizeRule(((1, -sum(layer.along(axis)), 1),))
    if isinstance(layer, L.Pad):
        return SizeRule(((1, sum(layer.padding.along(axis)), 1),))
    if isinstance(layer, L.GlobalPool2d | L.Linear | L.Flatten):
        return ONE
    return SAME


def sized_by(layer: L.Layer, inputs: Sequence[Shape]) -> tuple[int, ...]:
    """Positions of the inputs with the height and width from which the output's follow; they agree, so the first decides.

    Those are all inputs, but for what an elementwise layer spreads: inputs of one pixel beside some that are not known to be.
    """
    large = tuple(i for i, shape in enumerate(inputs) if not shape.one_pixel)
    return large if large and isinstance(layer, L.Elementwise) else tuple(range(len(inputs)))


def misfit(layer: L.Layer, inputs: Sequence[Shape]) -> str | None:
    """What is wrong with the inputs though the output's shape is certain: groups that do not divide their channels."""
    if isinstance(layer, L.Conv2d | L.ConvTranspose2d) and inputs[0].channels % layer.groups:
        return f"groups={layer.groups} must divide the {inputs[0].channels} input channels"
    return None


def infer(layer: L.Layer, inputs: Sequence[Shape]) -> Shape:
    """The output shape of `layer`; raises InputError with the reason when the inputs leave none."""
    if isinstance(layer, L.Input):
        return Shape(layer.channels, layer.height, layer.width)
    first = inputs[0]
    if isinstance(layer, L.Flatten | L.Linear) and not first.pinned:
        raise InputError(f"{layer.kind} needs a fixed image size, but its input is {first}",
                         hint="give height and width in the input, or put a global_avg_pool2d before it")
    channels = _channels(layer, inputs)
    if channels > MAX_EXTENT:
        raise InputError(f"{channels:,} output channels are over the limit of {MAX_EXTENT:,}")
    sized = inputs[sized_by(layer, inputs)[0]]
    height, width = (_extent(layer, axis, sized.along(axis)) for axis in L.Axis)
    return Shape(channels, height, width)


def _extent(layer: L.Layer, axis: L.Axis, extent: int | None) -> int | None:
    rule = size_rule(layer, axis)
    if all(multiply == 0 for multiply, _, _ in rule.terms):
        return rule(0)
    if extent is None:
        return None
    result = rule(extent)
    name = "height" if axis is L.Axis.Y else "width"
    if isinstance(layer, L.SpaceToDepth) and extent % layer.block:
        raise InputError(f"space_to_depth with block {layer.block} needs a multiple of {layer.block} as {name}, not {extent}",
                         hint="a pad or a crop before it can make one")
    if result < 1 and isinstance(layer, L.Crop):
        raise InputError(f"output {name} would be {result}: {sum(layer.along(axis))} of {extent} are taken off",
                         hint="a smaller crop or a larger image")
    if result < 1:
        raise InputError(f"output {name} would be {result}: the window is larger than the padded input of {extent}",
                         hint="a smaller kernel, more padding or a larger image")
    if result > MAX_EXTENT:
        raise InputError(f"output {name} {result} is over the limit of {MAX_EXTENT}")
    return result


def _channels(layer: L.Layer, inputs: Sequence[Shape]) -> int:
    first = inputs[0].channels
    if isinstance(layer, L.Conv2d | L.ConvTranspose2d):
        return layer.out_channels
    if isinstance(layer, L.Linear):
        return layer.out_features
    if isinstance(layer, L.Flatten):
        return inputs[0].elements
    if isinstance(layer, L.DepthToSpace):
        if first % layer.block**2:
            raise InputError(f"depth_to_space with block {layer.block} needs a multiple of {layer.block**2} channels, "
                             f"not {first}")
        return first // layer.block**2
    if isinstance(layer, L.SpaceToDepth):
        return first * layer.block**2
    if isinstance(layer, L.SliceChannels):
        if layer.stop > first:
            raise InputError(f"slice_channels takes channels {layer.start} to {layer.stop - 1}, but its input has {first}")
        return layer.channels
    if isinstance(layer, L.Concat):
        if len({(s.height, s.width) for s in inputs}) > 1:
            raise InputError(f"concat needs inputs of one height and width, not {', '.join(map(str, inputs))}")
        return sum(s.channels for s in inputs)
    return _common_channels(layer, inputs) if isinstance(layer, L.Elementwise) else first


def _common_channels(layer: L.Elementwise, inputs: Sequence[Shape]) -> int:
    """Channels of an elementwise layer's output; InputError where its inputs are of several sizes."""
    sizes = {(inputs[i].height, inputs[i].width) for i in sized_by(layer, inputs)}
    channels = {s.channels for s in inputs}
    if len(sizes) > 1 or len(channels - {1}) > 1:
        raise InputError(f"{layer.kind} needs inputs of one shape, not {', '.join(map(str, inputs))}",
                         hint="beside them there may be inputs of one channel, and of one pixel")
    return max(channels)


def param_shapes(layer: L.Layer, inputs: Sequence[Shape]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights `layer` wants; prelu also accepts (1,)."""
    if isinstance(layer, L.Input):
        return {}
    first = inputs[0]
    if isinstance(layer, L.Conv2d):
        shapes: dict[str, tuple[int, ...]] = {"weight": (layer.out_channels, first.channels // layer.groups, *layer.kernel)}
        return shapes | ({"bias": (layer.out_channels,)} if layer.bias else {})
    if isinstance(layer, L.ConvTranspose2d):
        shapes = {"weight": (first.channels, layer.out_channels // layer.groups, *layer.kernel)}
        return shapes | ({"bias": (layer.out_channels,)} if layer.bias else {})
    if isinstance(layer, L.Linear):
        shapes = {"weight": (layer.out_features, first.elements)}
        return shapes | ({"bias": (layer.out_features,)} if layer.bias else {})
    if isinstance(layer, L.PRelu):
        return {"weight": (first.channels,)}
    if isinstance(layer, L.BatchNorm):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (first.channels,))
    if isinstance(layer, L.ChannelAffine):
        return dict.fromkeys(("scale", "shift"), (first.channels,))
    return {}


def fan_in(layer: L.Layer, inputs: Sequence[Shape]) -> int:
    """Values summed into one output, for scaling random weights."""
    weight = param_shapes(layer, inputs).get("weight")
    if weight is None or len(weight) < 2:
        return 1
    if isinstance(layer, L.ConvTranspose2d):
        return max(1, math.prod(weight[2:]) * weight[0] // layer.groups // math.prod(layer.stride))
    return math.prod(weight[1:])
