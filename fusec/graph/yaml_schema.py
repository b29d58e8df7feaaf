"""What a network description may say: one pydantic model per layer type.

In: plain values of one mapping of the file. Out: a checked `LayerSpec`, whose `layer()` is the frozen layer of `layers`, or
pydantic's errors, which `yaml_report` places in the file. Titles and descriptions of the fields are the reference for users
(`yaml_reference` prints them, docs/networks.md shows them).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from fusec.graph import layers as L
from fusec.graph.limits import MAX_EXTENT, MAX_FACTOR, MAX_WINDOW
from fusec.graph.yaml_values import (
    MAX_BRANCHES,
    Edges,
    FactorPair,
    FactorPart,
    Flag,
    Name,
    Names,
    NonNegative,
    Number,
    Padding,
    Place,
    PlainPadding,
    Positive,
    Size,
    SparePair,
    Spec,
    WeightsPath,
    WindowPair,
    WindowPart,
    one_of,
)

MAX_LAYERS = 10_000


class InputSpec(Spec):
    """A network input. The batch is always free; a size left out is chosen at run time."""

    name: Name = Field(description="the tensor's name")
    channels: Size = Field(description="channels of the image")
    height: Size | None = Field(None, title=f"1 to {MAX_EXTENT:,}", description="rows; open when left out")
    width: Size | None = Field(None, title=f"1 to {MAX_EXTENT:,}", description="columns; open when left out")


class DescriptionSpec(Spec):
    """The whole file; `layers` are checked one by one with the model of their type."""

    name: Name = Field(description="the network's name, for reports")
    weights: WeightsPath | None = Field(
        None, title="a relative path", description="a .safetensors file in the description's folder or below it")
    input: InputSpec | None = Field(None, title="a mapping", description="the one input")
    inputs: list[InputSpec] | None = Field(None, min_length=1, max_length=MAX_BRANCHES, title="a list of mappings",
                                           description="several inputs, in place of `input`")
    layers: list[Any] = Field(min_length=1, max_length=MAX_LAYERS, title=f"a list of 1 to {MAX_LAYERS:,} layers",
                              description="the layers, in sequence unless they say otherwise")
    outputs: Names | None = Field(None, title="a name or a list",
                                  description="layers the network returns; those nobody reads when left out")


class LayerSpec(Spec):
    """Base of the layers: the three keys all of them have."""

    name: Name = Field(description="a name of its own; weights are found by it")
    type: str = Field(title="a layer type", description="one of the types below")
    inputs: Names | None = Field(None, title="a name or a list", description="what it reads; the layer above when left out")

    def layer(self) -> L.Layer:
        """The layer of the graph."""
        return PLAIN[self.type][0]


class WindowSpec(LayerSpec):
    """Base of the layers with a sliding window."""

    kernel: WindowPair = Field(description="the window")


def _dividing(groups: int, info: ValidationInfo) -> int:
    made = info.data.get("out_channels", 0)
    if made % groups:
        raise PydanticCustomError("groups", "Input should divide the {made} output channels", {"made": made})
    return groups


Groups = Annotated[Size, AfterValidator(_dividing)]  # of a layer that has its output channels before them


class Conv2dSpec(WindowSpec):
    """Convolution (cross-correlation). Depthwise: `groups` equal to the input's channels."""

    out_channels: Size = Field(description="filters")
    stride: WindowPair = Field((1, 1), description="step of the window")
    dilation: WindowPair = Field((1, 1), description="step between the window's points")
    padding: Padding = Field(Edges(), description="zeros around the image")
    groups: Groups = Field(1, description="groups of channels; must divide input and output channels")
    bias: Flag = Field(True, description="add a learned constant to each channel")

    def layer(self) -> L.Layer:
        return L.Conv2d(self.kernel, self.stride, self.dilation, self.padding.edges(), self.out_channels, self.groups,
                        self.bias)


class ConvTranspose2dSpec(WindowSpec):
    """Transposed convolution; `padding` is taken off the output."""

    out_channels: Size = Field(description="filters")
    stride: WindowPair = Field((1, 1), description="enlargement")
    dilation: WindowPair = Field((1, 1), description="step between the window's points")
    padding: PlainPadding = Field(Edges(), description="positions taken off the output")
    output_padding: SparePair = Field((0, 0), description="positions added at the bottom and right; below stride or dilation")
    groups: Groups = Field(1, description="groups of channels; must divide input and output channels")
    bias: Flag = Field(True, description="add a learned constant to each channel")

    @field_validator("output_padding")
    @classmethod
    def _below_stride(cls, value: L.Pair, info: ValidationInfo) -> L.Pair:
        steps = [info.data[key] for key in ("stride", "dilation") if key in info.data]
        if len(steps) == 2 and any(v >= max(s) for v, s in zip(value, zip(*steps, strict=True), strict=True)):
            raise PydanticCustomError("output_padding", "Input should be below the stride or the dilation")
        return value

    def layer(self) -> L.Layer:
        return L.ConvTranspose2d(self.kernel, self.stride, self.dilation, self.padding.edges(), self.out_channels,
                                 self.groups, self.output_padding, self.bias)


class PoolSpec(WindowSpec):
    """Base of the pools; the stride is the kernel's unless given."""

    stride: WindowPair | None = Field(None, title=f"1 to {MAX_WINDOW:,}, or [height, width]",
                                      description="step of the window; the kernel's size when left out")
    dilation: WindowPair = Field((1, 1), description="step between the window's points")
    padding: PlainPadding = Field(Edges(), description="positions around the image; less than the kernel with its dilation")
    ceil_mode: Flag = Field(False, description="round the output's size up")

    @field_validator("padding")
    @classmethod
    def _below_kernel(cls, value: Edges, info: ValidationInfo) -> Edges:
        kernel, dilation = info.data.get("kernel", (MAX_EXTENT + 1, MAX_EXTENT + 1)), info.data.get("dilation", (1, 1))
        height, width = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        if max(value.top, value.bottom) >= height or max(value.left, value.right) >= width:
            raise PydanticCustomError("pool_padding", "Input should be below the kernel, or a window sees padding only")
        return value


class MaxPool2dSpec(PoolSpec):
    """The largest value under the window; padding never wins."""

    def layer(self) -> L.Layer:
        return L.MaxPool2d(self.kernel, self.stride or self.kernel, self.dilation, self.padding.edges(), self.ceil_mode)


class AvgPool2dSpec(PoolSpec):
    """The mean under the window."""

    count_include_pad: Flag = Field(True, description="count padding as zeros; else divide by the image's positions alone")

    def layer(self) -> L.Layer:
        return L.AvgPool2d(self.kernel, self.stride or self.kernel, self.dilation, self.padding.edges(), self.ceil_mode,
                           self.count_include_pad)


class LeakyReluSpec(LayerSpec):
    """x where x is positive, slope * x elsewhere."""

    slope: Number = Field(0.01, description="factor of negative values")

    def layer(self) -> L.Layer:
        return L.LeakyRelu(self.slope)


class ClipSpec(LayerSpec):
    """Limits values to [low, high]."""

    low: Number = Field(description="least value")
    high: Number = Field(description="greatest value")

    @field_validator("high")
    @classmethod
    def _above_low(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("low", value):
            raise PydanticCustomError("order", "Input should not be below low")
        return value

    def layer(self) -> L.Layer:
        return L.Clip(self.low, self.high)


class EluSpec(LayerSpec):
    """x where x is positive, alpha * (exp(x) - 1) elsewhere."""

    alpha: Number = Field(1.0, description="see the formula")

    def layer(self) -> L.Layer:
        return L.Elu(self.alpha)


class SeluSpec(LayerSpec):
    """gamma * x where x is positive, gamma * alpha * (exp(x) - 1) elsewhere."""

    alpha: Number = Field(L.Selu.alpha, description="see the formula")
    gamma: Number = Field(L.Selu.gamma, description="see the formula")

    def layer(self) -> L.Layer:
        return L.Selu(self.alpha, self.gamma)


class HardSigmoidSpec(LayerSpec):
    """alpha * x + beta, limited to [0, 1]."""

    alpha: Number = Field(0.2, description="see the formula")
    beta: Number = Field(0.5, description="see the formula")

    def layer(self) -> L.Layer:
        return L.HardSigmoid(self.alpha, self.beta)


class GeluSpec(LayerSpec):
    """x times the share of the normal distribution below x."""

    approximate: Annotated[str, one_of("none", "tanh")] = Field(
        "none", title="none or tanh", description="none, or x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))")

    def layer(self) -> L.Layer:
        return L.Gelu(self.approximate)


class PowSpec(LayerSpec):
    """x ** exponent: a product for exponents 0 to 8; NaN where x is negative and the exponent not whole."""

    exponent: Number = Field(description="the exponent")

    def layer(self) -> L.Layer:
        return L.Power(self.exponent)


class BatchNormSpec(LayerSpec):
    """Batch normalisation with its stored statistics."""

    eps: NonNegative = Field(1e-5, description="added to the variance")

    def layer(self) -> L.Layer:
        return L.BatchNorm(self.eps)


class LocalResponseNormSpec(LayerSpec):
    """x / (k + alpha / size * sum of squares over neighbouring channels) ** beta."""

    size: WindowPart = Field(title=f"1 to {MAX_WINDOW:,}", description="neighbouring channels summed")
    alpha: NonNegative = Field(1e-4, description="see the formula")
    beta: NonNegative = Field(0.75, description="see the formula")
    k: Positive = Field(1.0, description="see the formula")

    def layer(self) -> L.Layer:
        return L.LocalResponseNorm(self.size, self.alpha, self.beta, self.k)


class LinearSpec(LayerSpec):
    """Matrix product; flattens its input, whose size must be fixed."""

    out_features: Size = Field(description="output channels")
    bias: Flag = Field(True, description="add a learned constant to each output")

    def layer(self) -> L.Layer:
        return L.Linear(self.out_features, self.bias)


class UpsampleSpec(LayerSpec):
    """Enlargement by whole factors. Beyond its outermost pixels the image goes on as they are."""

    factor: FactorPair = Field(description="enlargement")
    mode: Annotated[str, one_of("nearest", "linear")] = Field(
        "nearest", title="nearest or linear", description="each pixel repeated, or what lies between the pixels")
    coordinates: Annotated[str, one_of("half_pixel", "asymmetric")] = Field(
        "half_pixel", title="half_pixel or asymmetric",
        description="linear: output position o lies at (o + 1/2) / factor - 1/2 of the input, or at o / factor")

    def layer(self) -> L.Layer:
        return L.Upsample(self.factor, self.mode, self.coordinates)


class DepthToSpaceSpec(LayerSpec):
    """Moves channels into block x block pixels."""

    block: FactorPart = Field(title=f"1 to {MAX_FACTOR}", description="enlargement")
    order: Annotated[str, one_of("DCR", "CRD")] = Field(
        "DCR", title="DCR or CRD", description="slowest channel digit: block (DCR) or channel (CRD, pixel shuffle)")

    def layer(self) -> L.Layer:
        return L.DepthToSpace(self.block, L.DepthToSpaceOrder(self.order))


class SpaceToDepthSpec(LayerSpec):
    """Moves block x block pixels into channels, those of one place in the block together.

    The size has to be a multiple of the block. Of an open size that is not, the rows and columns left over are dropped.
    """

    block: FactorPart = Field(title=f"1 to {MAX_FACTOR}", description="reduction")

    def layer(self) -> L.Layer:
        return L.SpaceToDepth(self.block)


class SliceChannelsSpec(LayerSpec):
    """Channels start, start + step, ... below stop."""

    start: Place = Field(0, description="the first channel, counted from 0")
    stop: Size = Field(description="the channel to stop before")
    step: Size = Field(1, description="from one channel to the next")

    @field_validator("stop")
    @classmethod
    def _above_start(cls, value: int, info: ValidationInfo) -> int:
        if value <= info.data.get("start", 0):
            raise PydanticCustomError("order", "Input should be above start")
        return value

    def layer(self) -> L.Layer:
        return L.SliceChannels(self.start, self.stop, self.step)


class CropSpec(LayerSpec):
    """Takes rows and columns off the image's sides."""

    top: Place = Field(0, description="rows")
    bottom: Place = Field(0, description="rows")
    left: Place = Field(0, description="columns")
    right: Place = Field(0, description="columns")

    def layer(self) -> L.Layer:
        return L.Crop(self.top, self.bottom, self.left, self.right)


class PadSpec(LayerSpec):
    """Adds rows and columns of one value at the image's sides; zeros before a convolution become its padding."""

    padding: PlainPadding = Field(description="positions added")
    value: Number = Field(0.0, description="their value")

    def layer(self) -> L.Layer:
        return L.Pad(self.padding.edges(), self.value)


SPREAD = "One channel goes with every channel of the others, one pixel with every pixel."

PLAIN: dict[str, tuple[L.Layer, str]] = {
    "relu": (L.Relu(), "max(x, 0)."),
    "relu6": (L.Clip(0.0, 6.0), "Limits values to [0, 6]."),
    "prelu": (L.PRelu(), "x where x is positive, a learned slope times x elsewhere; one slope per channel, or one for all."),
    "sigmoid": (L.Sigmoid(), "1 / (1 + exp(-x))."),
    "tanh": (L.Tanh(), "Hyperbolic tangent."),
    "silu": (L.Silu(), "x * sigmoid(x)."),
    "hard_swish": (L.HardSwish(), "x * (x / 6 + 1/2, limited to [0, 1])."),
    "softplus": (L.Softplus(), "log(1 + exp(x))."),
    "mish": (L.Mish(), "x * tanh(log(1 + exp(x)))."),
    "neg": (L.Neg(), "-x."),
    "abs": (L.Abs(), "The magnitude of x."),
    "sqrt": (L.Sqrt(), "The square root of x; NaN where x is negative."),
    "exp": (L.Exp(), "exp(x)."),
    "channel_affine": (L.ChannelAffine(), "x * scale + shift, a scale and a shift for each channel."),
    "global_avg_pool2d": (L.GlobalAvgPool2d(), "The mean of each channel over the whole image."),
    "global_max_pool2d": (L.GlobalMaxPool2d(), "The largest value of each channel of the whole image."),
    "add": (L.Add(), f"Sum of two or more tensors. {SPREAD}"),
    "sub": (L.Sub(), f"The first tensor less the second. {SPREAD}"),
    "mul": (L.Mul(), f"Product of two or more tensors. {SPREAD}"),
    "div": (L.Div(), f"The first tensor divided by the second. {SPREAD}"),
    "min": (L.Min(), f"The least value of two or more tensors. {SPREAD}"),
    "max": (L.Max(), f"The greatest value of two or more tensors. {SPREAD}"),
    "concat": (L.Concat(), "Joins tensors along the channels."),
    "flatten": (L.Flatten(), "(channels, height, width) to one row of channels; needs a fixed size."),
    "softmax": (L.Softmax(), "exp(x) / sum(exp(x)) over the channels."),
    "log_softmax": (L.LogSoftmax(), "x - log(sum(exp(x))) over the channels."),
    "identity": (L.Identity(), "Passes its input on; removed before planning."),
    "dropout": (L.Identity(), "Passes its input on, as dropout does at inference; removed before planning."),
}

LAYER_SPECS: dict[str, type[LayerSpec]] = {
    "conv2d": Conv2dSpec,
    "conv_transpose2d": ConvTranspose2dSpec,
    "max_pool2d": MaxPool2dSpec,
    "avg_pool2d": AvgPool2dSpec,
    "leaky_relu": LeakyReluSpec,
    "clip": ClipSpec,
    "elu": EluSpec,
    "selu": SeluSpec,
    "hard_sigmoid": HardSigmoidSpec,
    "gelu": GeluSpec,
    "pow": PowSpec,
    "batch_norm": BatchNormSpec,
    "local_response_norm": LocalResponseNormSpec,
    "linear": LinearSpec,
    "upsample": UpsampleSpec,
    "depth_to_space": DepthToSpaceSpec,
    "space_to_depth": SpaceToDepthSpec,
    "slice_channels": SliceChannelsSpec,
    "crop": CropSpec,
    "pad": PadSpec,
    **dict.fromkeys(PLAIN, LayerSpec),
}
