"""Layers are checked when they are made, with the limits of the descriptions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.limits import MAX_EXTENT, MAX_FACTOR, MAX_WINDOW

K = (3, 3)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "input without channels": (lambda: L.Input(0), "input: channels must be 1 to 1,048,576, not 0"),
    "input of no height": (lambda: L.Input(1, 0, 4), "height must be 1 to"),
    "input too wide": (lambda: L.Input(1, 4, MAX_EXTENT + 1), "width must be 1 to"),
    "kernel of 0": (lambda: L.Conv2d((0, 3)), "conv2d: kernel must be 1 to 1,048,576, not 0"),
    "kernel as a number": (lambda: L.Conv2d(3), r"kernel must be a tuple \(height, width\), not 3"),  # type: ignore[arg-type]
    "kernel as a list": (lambda: L.Conv2d([3, 3]), r"not \[3, 3\] \(list\)"),  # type: ignore[arg-type]
    "NumPy's integers": (lambda: L.Conv2d(K, out_channels=np.int64(3)), "a whole number, not .*int64"),  # type: ignore[arg-type]
    "stride of 0": (lambda: L.MaxPool2d(K, (1, 0)), "max_pool2d: stride must be 1 to 1,024, not 0"),
    "large stride": (lambda: L.MaxPool2d(K, (1, MAX_WINDOW + 1)), "stride must be 1 to"),
    "dilation below 0": (lambda: L.Conv2d(K, dilation=(-1, 1)), "dilation must be 1 to"),
    "padding below 0": (lambda: L.Padding(top=-1), "padding: top must be 0 to"),
    "padding as a number": (lambda: L.Conv2d(K, padding=1), r"padding must be a Padding\("),  # type: ignore[arg-type]
    "padding as large as the kernel": (lambda: L.AvgPool2d(K, padding=L.Padding(bottom=3)), "a window sees padding only"),
    "no filters": (lambda: L.Conv2d(K, out_channels=0), "out_channels must be 1 to"),
    "filters by halves": (lambda: L.Conv2d(K, out_channels=1.5), "a whole number, not 1.5"),  # type: ignore[arg-type]
    "True filters": (lambda: L.Conv2d(K, out_channels=True), "a whole number, not True"),
    "no groups": (lambda: L.ConvTranspose2d(K, groups=0), "conv_transpose2d: groups must be 1 to"),
    "groups that do not divide": (lambda: L.Conv2d(K, out_channels=9, groups=2), "groups must divide the 9 output channels"),
    "groups of the transposed": (lambda: L.ConvTranspose2d(K, out_channels=4, groups=3), "but is 3"),
    "bias as an array": (lambda: L.Linear(3, bias=np.ones(3)), "bias must be True or False"),  # type: ignore[arg-type]
    "output padding": (lambda: L.ConvTranspose2d(K, (2, 2), output_padding=(1, 2)), "below the stride or the dilation"),
    "slope": (lambda: L.LeakyRelu(math.nan), "leaky_relu: slope must be finite, not nan"),
    "slope in words": (lambda: L.LeakyRelu("0.1"), "slope must be a number, not '0.1'"),  # type: ignore[arg-type]
    "clip without an end": (lambda: L.Clip(0, math.inf), "high must be finite"),
    "clip too far": (lambda: L.Clip(0, 1e38), "high must be -1e"),
    "clip upside down": (lambda: L.Clip(2, 1), "high must not be below low"),
    "elu": (lambda: L.Elu(math.nan), "elu: alpha must be finite"),
    "selu": (lambda: L.Selu(gamma=math.inf), "selu: gamma must be finite"),
    "hard sigmoid": (lambda: L.HardSigmoid(beta="0"), "beta must be a number"),  # type: ignore[arg-type]
    "gelu": (lambda: L.Gelu("erf"), "gelu: approximate must be none or tanh, not 'erf'"),
    "gelu, yes": (lambda: L.Gelu(True), "approximate must be none or tanh, not True"),  # type: ignore[arg-type]
    "power": (lambda: L.Power(math.inf), "pow: exponent must be finite"),
    "eps": (lambda: L.BatchNorm(-1e-5), "eps must be 0 to"),
    "lrn without channels": (lambda: L.LocalResponseNorm(0), "size must be 1 to"),
    "lrn dividing by 0": (lambda: L.LocalResponseNorm(5, k=0), "k must be above 0"),
    "lrn, beta": (lambda: L.LocalResponseNorm(5, beta=math.inf), "beta must be finite"),
    "no features": (lambda: L.Linear(0), "linear: out_features must be 1 to"),
    "upsample by 0": (lambda: L.Upsample((0, 2)), "upsample: factor must be 1 to 64"),
    "upsample too far": (lambda: L.Upsample((2, MAX_FACTOR + 1)), "factor must be 1 to 64"),
    "upsample in cubes": (lambda: L.Upsample((2, 2), "cubic"), "upsample: mode must be nearest or linear, not 'cubic'"),
    "upsample by corners": (lambda: L.Upsample((2, 2), "linear", "corners"), "coordinates must be half_pixel or"),
    "block of pixels": (lambda: L.SpaceToDepth(65), "space_to_depth: block must be 1 to 64"),
    "slice of nothing": (lambda: L.SliceChannels(3, 3), "stop must be above start, but 3 is not above 3"),
    "slice backwards": (lambda: L.SliceChannels(0, 3, -1), "step must be 1 to"),
    "slice from the end": (lambda: L.SliceChannels(-2, 3), "start must be 0 to"),
    "crop": (lambda: L.Crop(left=-1), "crop: left must be 0 to"),
    "pad": (lambda: L.Pad(1), r"pad: padding must be a Padding\("),  # type: ignore[arg-type]
    "pad with infinity": (lambda: L.Pad(L.Padding(), math.inf), "value must be finite"),
    "block": (lambda: L.DepthToSpace(0), "depth_to_space: block must be 1 to 64"),
    "order": (lambda: L.DepthToSpace(2, "DCR"), "order must be a DepthToSpaceOrder"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_cannot_be(name: str) -> None:
    make, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        make()


def test_all_of_a_layer_is_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        L.Conv2d((0, 3), (0, 0), out_channels=-1)
    assert len(caught.value.problems) == 3


def test_limits_themselves_are_taken() -> None:
    L.Conv2d((1, MAX_EXTENT), (MAX_WINDOW, 1), out_channels=MAX_EXTENT)
    L.ConvTranspose2d(K, (2, 1), dilation=(1, 3), output_padding=(1, 2))
    L.MaxPool2d(K, padding=L.Padding(2, 2, 2, 2))
    L.Clip(1, 1)
    L.BatchNorm(0)
    L.Upsample((MAX_FACTOR, 1))


@pytest.mark.parametrize("kind", [k for k, layer in L.LAYER_KINDS.items() if fields(layer)])
def test_no_kind_with_values_goes_unchecked(kind: str) -> None:
    """A value of no sensible type is found in any field."""
    cls = L.LAYER_KINDS[kind]
    with pytest.raises(InputError) as caught:
        cls(**{field.name: object() for field in fields(cls)})
    found = "\n".join(p.what for p in caught.value.problems)
    assert [field.name for field in fields(cls) if f"{field.name} must be" not in found] == []
