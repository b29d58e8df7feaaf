"""The layers that slide a window over the image: convolutions and pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from fusec.graph.layers.base import NO_PADDING, Axis, Layer, Padding, Pair, Window
from fusec.graph.limits import MAX_EXTENT, MAX_WINDOW, flag, pair, whole


@dataclass(frozen=True)
class Windowed(Layer):
    """Base of the layers that slide a window over the image."""

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = NO_PADDING

    def problems(self) -> Iterator[str]:
        yield from pair("kernel", self.kernel, 1, MAX_EXTENT)  # that of a linear layer is as large as its image
        yield from pair("stride", self.stride, 1, MAX_WINDOW)
        yield from pair("dilation", self.dilation, 1, MAX_WINDOW)
        if not isinstance(self.padding, Padding):
            yield f"padding must be a Padding(top, bottom, left, right), not {self.padding!r:.60}"

    def window(self, axis: Axis) -> Window:
        i = axis.value
        before, after = self.padding.along(axis)
        ceil = getattr(self, "ceil_mode", False)
        return Window(self.kernel[i], self.stride[i], self.dilation[i], before, after, ceil)


@dataclass(frozen=True)
class Conv2d(Windowed):
    """Cross-correlation; weights (out_channels, in_channels / groups, kernel_height, kernel_width)."""

    out_channels: int = 1
    groups: int = 1
    bias: bool = True
    kind: ClassVar[str] = "conv2d"

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from _filters(self)


@dataclass(frozen=True)
class ConvTranspose2d(Windowed):
    """Transposed convolution; weights (in_channels, out_channels / groups, kernel_height, kernel_width)."""

    out_channels: int = 1
    groups: int = 1
    output_padding: Pair = (0, 0)
    bias: bool = True
    kind: ClassVar[str] = "conv_transpose2d"

    def problems(self) -> Iterator[str]:
        found = [*super().problems(), *pair("output_padding", self.output_padding, 0, MAX_WINDOW - 1)]
        yield from found
        yield from _filters(self)
        steps = zip(self.output_padding, self.stride, self.dilation, strict=True) if not found else ()
        if any(spare >= max(stride, dilation) for spare, stride, dilation in steps):
            yield f"output_padding must be below the stride or the dilation, not {self.output_padding}"


def _filters(layer: Conv2d | ConvTranspose2d) -> Iterator[str]:
    found = [*whole("out_channels", layer.out_channels, 1, MAX_EXTENT), *whole("groups", layer.groups, 1, MAX_EXTENT)]
    yield from found
    if not found and layer.out_channels % layer.groups:
        yield f"groups must divide the {layer.out_channels} output channels, but is {layer.groups}"
    yield from flag("bias", layer.bias)


@dataclass(frozen=True)
class Pool2d(Windowed):
    """Base of the pools; no window may see padding alone."""

    ceil_mode: bool = False

    def problems(self) -> Iterator[str]:
        found = [*super().problems()]
        yield from found
        yield from flag("ceil_mode", self.ceil_mode)
        if not found and any(max(self.padding.along(axis)) >= self.window(axis).span for axis in Axis):
            yield f"padding must be below the extent of the kernel {self.kernel}, or a window sees padding only"


@dataclass(frozen=True)
class MaxPool2d(Pool2d):
    """Largest value under the window; padding never wins."""

    kind: ClassVar[str] = "max_pool2d"


@dataclass(frozen=True)
class AvgPool2d(Pool2d):
    """Mean under the window; `count_include_pad` divides by the window's padded size (PyTorch's rule in ceil mode too)."""

    count_include_pad: bool = True
    kind: ClassVar[str] = "avg_pool2d"

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from flag("count_include_pad", self.count_include_pad)
