"""The layers fusec knows, as frozen values; the one place they are imported from.

A layer holds hyper-parameters only: names, inputs and weights belong to the graph's nodes (`graph.py`), shapes to
`shapes.py`, arithmetic to `reference.py`, footprints to `fusec.plan.footprint`. Tensors are NCHW in this vocabulary. Pairs
are (height, width). A layer is checked when it is made: what one cannot compute with is an InputError that names all of it.
"""

from __future__ import annotations

from fusec.graph.layers.activations import (
    Abs,
    Activation,
    ChannelAffine,
    Clip,
    Elu,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mish,
    Neg,
    Power,
    PRelu,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Sqrt,
    Tanh,
)
from fusec.graph.layers.base import Axis, Form, Input, Layer, Padding, Pair, Window
from fusec.graph.layers.joins import Add, Concat, Div, Elementwise, Max, Min, Mul, Sub
from fusec.graph.layers.moves import (
    Crop,
    DepthToSpace,
    DepthToSpaceOrder,
    Flatten,
    Identity,
    Pad,
    SliceChannels,
    SpaceToDepth,
    Upsample,
)
from fusec.graph.layers.reductions import (
    BatchNorm,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    GlobalPool2d,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    Softmax,
)
from fusec.graph.layers.windows import AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d, Pool2d, Windowed

__all__ = [
    "LAYER_KINDS", "Abs", "Activation", "Add", "AvgPool2d", "Axis", "BatchNorm", "ChannelAffine", "Clip", "Concat",
    "Conv2d", "ConvTranspose2d", "Crop", "DepthToSpace", "DepthToSpaceOrder", "Div", "Elementwise", "Elu", "Exp", "Flatten",
    "Form", "Gelu", "GlobalAvgPool2d", "GlobalMaxPool2d", "GlobalPool2d", "HardSigmoid", "HardSwish", "Identity", "Input",
    "Layer", "LeakyRelu", "Linear", "LocalResponseNorm", "LogSoftmax", "Max", "MaxPool2d", "Min", "Mish", "Mul", "Neg",
    "PRelu", "Pad", "Padding", "Pair", "Pool2d", "Power", "Relu", "Selu", "Sigmoid", "Silu", "SliceChannels", "Softmax",
    "Softplus", "SpaceToDepth", "Sqrt", "Sub", "Tanh", "Upsample", "Window", "Windowed",
]

LAYER_KINDS: dict[str, type[Layer]] = {
    cls.kind: cls
    for cls in (
        Input, Conv2d, ConvTranspose2d, MaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, Relu, LeakyRelu, PRelu,
        Clip, Sigmoid, Tanh, Silu, Elu, Selu, HardSigmoid, HardSwish, Softplus, Gelu, Mish, Neg, Abs, Power, Sqrt, Exp,
        ChannelAffine, BatchNorm, LocalResponseNorm, Add, Mul, Sub, Div, Min, Max, Concat, Flatten, Linear, Softmax,
        LogSoftmax, Upsample, DepthToSpace, SpaceToDepth, SliceChannels, Crop, Pad, Identity,
    )
}
