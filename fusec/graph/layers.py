"""The layers fusec knows, as frozen values.

A layer holds hyper-parameters only: names, inputs and weights belong to the graph's nodes (`graph.py`), shapes to
`shapes.py`, arithmetic to `reference.py`, footprints to `fusec.plan.footprint`. Tensors are NCHW in this vocabulary. Pairs
are (height, width). A layer is checked when it is made: what one cannot compute with is an InputError that names all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from fusec.errors import InputError, Problem
from fusec.graph.limits import MAX_EXTENT, MAX_FACTOR, MAX_WINDOW, flag, number, pair, whole

Pair = tuple[int, int]


class Axis(Enum):
    """A spatial axis; its value is the position in a (height, width) pair."""

    Y = 0
    X = 1


class Form(Enum):
    """What a layer's output is to a user: an image (N, C, H, W), a vector (N, C), or whatever all of its inputs are."""

    IMAGE = "image"
    VECTOR = "vector"
    SAME = "same"


@dataclass(frozen=True)
class Padding:
    """Positions added around the image, in pixels."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        edges = {"top": self.top, "bottom": self.bottom, "left": self.left, "right": self.right}
        _refuse("padding", [p for name, value in edges.items() for p in whole(name, value, 0, MAX_EXTENT)])

    def along(self, axis: Axis) -> tuple[int, int]:
        """(before, after) along one axis."""
        return (self.top, self.bottom) if axis is Axis.Y else (self.left, self.right)

    def __bool__(self) -> bool:
        return any((self.top, self.bottom, self.left, self.right))


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis: output position o reads inputs o*stride - before + k*dilation, k < size."""

    size: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False

    @property
    def span(self) -> int:
        """Extent of the input one output position reads."""
        return (self.size - 1) * self.dilation + 1


@dataclass(frozen=True)
class Layer:
    """Base of all layers; `kind` is the word used in descriptions and generated code."""

    kind: ClassVar[str] = "layer"
    form: ClassVar[Form] = Form.IMAGE

    def __post_init__(self) -> None:
        _refuse(self.kind, self.problems())

    def problems(self) -> Iterator[str]:
        """What is wrong with the values, in words."""
        yield from ()


def _refuse(kind: str, problems: Iterable[str]) -> None:
    found = [Problem(problem, kind) for problem in problems]
    if found:
        raise InputError(found)


@dataclass(frozen=True)
class Input(Layer):
    """A network input; height and width may be open (None): then they are chosen at run time."""

    channels: int
    height: int | None = None
    width: int | None = None
    kind: ClassVar[str] = "input"

    def problems(self) -> Iterator[str]:
        yield from whole("channels", self.channels, 1, MAX_EXTENT)
        for name, side in (("height", self.height), ("width", self.width)):
            yield from whole(name, side, 1, MAX_EXTENT) if side is not None else ()


@dataclass(frozen=True)
class Windowed(Layer):
    """Base of the layers that slide a window over the image."""

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = Padding()

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


@dataclass(frozen=True)
class GlobalAvgPool2d(Layer):
    """Mean of each channel over the whole image; output 1x1."""

    kind: ClassVar[str] = "global_avg_pool2d"


@dataclass(frozen=True)
class Activation(Layer):
    """Base of the pointwise layers with one input: each may become another layer's epilogue."""

    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Relu(Activation):
    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class LeakyRelu(Activation):
    slope: float = 0.01
    kind: ClassVar[str] = "leaky_relu"

    def problems(self) -> Iterator[str]:
        yield from number("slope", self.slope)


@dataclass(frozen=True)
class PRelu(Activation):
    """Learned slope for negative values; weights (channels,) or (1,)."""

    kind: ClassVar[str] = "prelu"


@dataclass(frozen=True)
class Clip(Activation):
    """Limits values to [low, high]; relu6 is Clip(0, 6)."""

    low: float = 0.0
    high: float = 6.0
    kind: ClassVar[str] = "clip"

    def problems(self) -> Iterator[str]:
        found = [*number("low", self.low), *number("high", self.high)]
        yield from found
        if not found and self.high < self.low:
            yield f"high must not be below low, but {self.high} is below {self.low}"


@dataclass(frozen=True)
class Sigmoid(Activation):
    kind: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Tanh(Activation):
    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class Silu(Activation):
    kind: ClassVar[str] = "silu"


@dataclass(frozen=True)
class ChannelAffine(Activation):
    """x * scale[c] + shift[c]: what is left of a batch-norm that no convolution could take in."""

    kind: ClassVar[str] = "channel_affine"


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Inference-time batch normalisation; weights weight, bias, running_mean, running_var of (channels,)."""

    eps: float = 1e-5
    kind: ClassVar[str] = "batch_norm"
    form: ClassVar[Form] = Form.SAME

    def problems(self) -> Iterator[str]:
        yield from number("eps", self.eps, 0)


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """x / (k + alpha / size * sum of squares over `size` neighbouring channels) ** beta."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    kind: ClassVar[str] = "local_response_norm"

    def problems(self) -> Iterator[str]:
        yield from whole("size", self.size, 1, MAX_WINDOW)
        yield from number("alpha", self.alpha, 0)
        yield from number("beta", self.beta, 0)
        found = [*number("k", self.k)]
        yield from found
        if not found and self.k <= 0:
            yield f"k must be above 0, not {self.k}"


@dataclass(frozen=True)
class Add(Layer):
    """Elementwise sum of two or more tensors of one shape."""

    kind: ClassVar[str] = "add"
    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Mul(Layer):
    """Elementwise product of two or more tensors of one shape."""

    kind: ClassVar[str] = "mul"
    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Concat(Layer):
    """Joins tensors along the channels."""

    kind: ClassVar[str] = "concat"
    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Flatten(Layer):
    """(channels, height, width) to (channels * height * width, 1, 1), row-major."""

    kind: ClassVar[str] = "flatten"
    form: ClassVar[Form] = Form.VECTOR


@dataclass(frozen=True)
class Linear(Layer):
    """Matrix product with weights (out_features, in_features); the input is flattened row-major."""

    out_features: int
    bias: bool = True
    kind: ClassVar[str] = "linear"
    form: ClassVar[Form] = Form.VECTOR

    def problems(self) -> Iterator[str]:
        yield from whole("out_features", self.out_features, 1, MAX_EXTENT)
        yield from flag("bias", self.bias)


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) over the channels of each position."""

    kind: ClassVar[str] = "softmax"
    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Upsample(Layer):
    """Nearest-neighbour enlargement by whole factors."""

    factor: Pair = (2, 2)
    kind: ClassVar[str] = "upsample"

    def problems(self) -> Iterator[str]:
        yield from pair("factor", self.factor, 1, MAX_FACTOR)


class DepthToSpaceOrder(Enum):
    """Which channel digit varies slowest: DCR (block, channel) or CRD (channel, block); ONNX's words."""

    DCR = "DCR"
    CRD = "CRD"


@dataclass(frozen=True)
class DepthToSpace(Layer):
    """Moves channels into block x block pixels; PyTorch's pixel_shuffle is CRD."""

    block: int = 2
    order: DepthToSpaceOrder = DepthToSpaceOrder.DCR
    kind: ClassVar[str] = "depth_to_space"

    def problems(self) -> Iterator[str]:
        yield from whole("block", self.block, 1, MAX_FACTOR)
        if not isinstance(self.order, DepthToSpaceOrder):
            yield f"order must be a DepthToSpaceOrder, not {self.order!r:.60}"


@dataclass(frozen=True)
class Identity(Layer):
    """Passes its input on (dropout at inference too); removed by `simplify`."""

    kind: ClassVar[str] = "identity"
    form: ClassVar[Form] = Form.SAME


LAYER_KINDS: dict[str, type[Layer]] = {
    cls.kind: cls
    for cls in (
        Input, Conv2d, ConvTranspose2d, MaxPool2d, AvgPool2d, GlobalAvgPool2d, Relu, LeakyRelu, PRelu, Clip, Sigmoid, Tanh,
        Silu, ChannelAffine, BatchNorm, LocalResponseNorm, Add, Mul, Concat, Flatten, Linear, Softmax, Upsample, DepthToSpace,
        Identity,
    )
}
