"""Grows small random networks one legal layer at a time; `strategies.py` turns this into hypothesis strategies.

In: hypothesis' choices. Out: nodes, and for each tensor its size and a bound on its values. In an exact network weights are
small integers and all other factors powers of two; a layer that would take any value or partial sum past 2**24 units of its
last bit is refused, so float32 holds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.shapes import Shape, infer, param_shapes

IMAGE_BOUND = 3  # largest magnitude in integer images
UNITS_LIMIT = 1 << 24  # float32 holds every integer up to here
MAX_SIDE = 128  # of any tensor
MAX_ELEMENTS = 1 << 18  # of one image of any tensor
MAX_WEIGHTS = 1 << 17  # of one layer

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 32, 33, 64, 70)


@dataclass(frozen=True)
class Tensor:
    """A tensor at the size the network is built for; its values are multiples of 2**-bits, at most `units` of them."""

    name: str
    shape: Shape
    units: int
    bits: int

    def side(self, axis: L.Axis) -> int:
        extent = self.shape.along(axis)
        assert extent is not None
        return extent


class Builder:
    """Grows a network node by node; what does not fit is refused with None."""

    def __init__(self, draw: st.DrawFn, *, exact: bool, pinned: bool, max_channels: int) -> None:
        self.draw = draw
        self.exact = exact
        self.pinned = pinned
        self.max_channels = max_channels
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16), label="weights"))
        self.nodes: list[Node] = []
        self.tensors: list[Tensor] = []

    def chance(self, one_in: int) -> bool:
        """True once in `one_in`; shrinks to False."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def pick(self, *choices: Any) -> Any:
        """One of `choices`; shrinks to the first."""
        return self.draw(st.sampled_from(choices))

    def channels(self) -> int:
        return self.pick(*(c for c in CHANNELS if c <= self.max_channels)) if not self.chance(3) \
            else self.draw(st.integers(1, self.max_channels))

    def add(self, layer: L.Layer, inputs: Sequence[Tensor] = (), params: Mapping[str, NDArray[Any]] | None = None,
            units: int | None = None, bits: int | None = None) -> Tensor | None:
        """Appends a node; `units` and `bits` are those of its first input when left out."""
        try:
            shape = infer(layer, [t.shape for t in inputs])
        except InputError:
            return None
        units = inputs[0].units if units is None else units
        bits = inputs[0].bits if bits is None else bits
        assert shape.height is not None and shape.width is not None
        if max(shape.height, shape.width) > MAX_SIDE or shape.elements > MAX_ELEMENTS or (self.exact and units > UNITS_LIMIT):
            return None
        name = f"{layer.kind}_{len(self.nodes)}"
        given = {k: np.asarray(v, dtype=np.float32) for k, v in (params or {}).items()}
        self.nodes.append(Node(name, layer, tuple(t.name for t in inputs), given))
        self.tensors.append(Tensor(name, shape, units, bits))
        return self.tensors[-1]

    def integers(self, size: int, *choices: float) -> NDArray[Any]:
        return self.rng.choice(choices, size=size)

    def normals(self, size: int) -> NDArray[Any]:
        return self.rng.normal(size=size)

    def mixing_weights(self, layer: L.Conv2d | L.ConvTranspose2d | L.Linear, t: Tensor) -> tuple[dict[str, NDArray[Any]], int]:
        """Weights and bias, and the bound of the output in units: few non-zero integers, so that the bound grows slowly."""
        shapes = param_shapes(layer, [t.shape])
        shape = shapes["weight"]
        summed_axis = 0 if isinstance(layer, L.ConvTranspose2d) else 1
        summed = shape[summed_axis] * int(np.prod(shape[2:])) // (layer.groups if isinstance(layer, L.ConvTranspose2d) else 1)
        if self.exact:
            mask = self.rng.random(shape) < min(1.0, 4 / summed)
            weight = mask * self.rng.choice((-1, 1, 1, 2), size=shape)
            bias = self.integers(layer_channels(layer), -3, -2, -1, 0, 1, 2, 3)
        else:
            weight = self.rng.normal(size=shape) / np.sqrt(summed)
            bias = self.normals(layer_channels(layer))
        params = {"weight": weight} | ({"bias": bias} if layer.bias else {})
        kept = tuple(range(2, len(shape)))
        per_output = np.abs(weight).sum(axis=(summed_axis, *kept)).max()  # over all groups at once for a transposed one
        return params, int(np.ceil(per_output)) * t.units + (3 << t.bits)


def layer_channels(layer: L.Conv2d | L.ConvTranspose2d | L.Linear) -> int:
    return layer.out_features if isinstance(layer, L.Linear) else layer.out_channels


Grow = Callable[[Builder, Tensor], Tensor | None]


# ---- one function per kind of layer: draws it behind a tensor


def _window(b: Builder, t: Tensor, axis: L.Axis, sizes: tuple[int, ...], dilations: tuple[int, ...], *, pool: bool = False,
            ) -> tuple[int, int, int, int, int]:
    """(size, stride, dilation, before, after) that fit the tensor; a pool's window always covers a pixel."""
    size, stride, dilation = b.pick(*sizes), b.pick(1, 1, 2, 3), b.pick(*dilations)
    span = (size - 1) * dilation + 1
    style = b.pick("none", "same", "any")
    before, after = 0, 0
    if style == "same":
        before = (span - 1) // 2
        after = span - 1 - before
    elif style == "any":
        before, after = b.draw(st.integers(0, span - 1)), b.draw(st.integers(0, span - 1))
    if pool and dilation > 1:
        before = 0  # the first tap then always reads a pixel; else two taps could straddle a small image
    if t.side(axis) + before + after < span:
        return 1, stride, 1, 0, 0
    return size, stride, dilation, before, after


def _windows(b: Builder, t: Tensor, sizes: tuple[int, ...], dilations: tuple[int, ...], *, pool: bool = False,
             ) -> dict[str, Any]:
    y, x = (_window(b, t, axis, sizes, dilations, pool=pool) for axis in L.Axis)
    padding = L.Padding(y[3], y[4], x[3], x[4])
    return {"kernel": (y[0], x[0]), "stride": (y[1], x[1]), "dilation": (y[2], x[2]), "padding": padding}


def _groups(b: Builder, t: Tensor) -> tuple[int, int]:
    """(groups, output channels)"""
    channels = t.shape.channels
    groups = b.pick(1, 1, channels, *(g for g in (2, 3, 4, 8) if channels % g == 0))
    out = b.channels()
    return groups, max(1, round(out / groups)) * groups


def _mixed(b: Builder, layer: L.Conv2d | L.ConvTranspose2d | L.Linear, t: Tensor) -> Tensor | None:
    if np.prod(param_shapes(layer, [t.shape])["weight"], dtype=np.int64) > MAX_WEIGHTS:
        return None
    params, units = b.mixing_weights(layer, t)
    return b.add(layer, [t], params, units)


def conv(b: Builder, t: Tensor) -> Tensor | None:
    groups, out = _groups(b, t)
    window = _windows(b, t, (3, 1, 2, 3, 5), (1, 1, 2))
    return _mixed(b, L.Conv2d(**window, out_channels=out, groups=groups, bias=not b.chance(4)), t)


def same_conv(b: Builder, t: Tensor) -> Tensor | None:
    """A convolution that keeps the shape, what residual blocks are made of."""
    k = b.pick(3, 1, 5)
    pad = L.Padding(*[k // 2] * 4)
    return _mixed(b, L.Conv2d((k, k), padding=pad, out_channels=t.shape.channels), t)


def conv_transpose(b: Builder, t: Tensor) -> Tensor | None:
    groups, out = _groups(b, t)
    kernel, stride, dilation = ((b.pick(*c), b.pick(*c)) for c in ((2, 1, 3, 4), (2, 1, 3), (1, 1, 2)))
    pads = [b.draw(st.integers(0, kernel[axis.value] - 1)) for axis in L.Axis for _ in range(2)]
    extra = tuple(b.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    layer = L.ConvTranspose2d(kernel, stride, dilation, L.Padding(*pads), out_channels=out, groups=groups,
                              output_padding=(extra[0], extra[1]), bias=not b.chance(4))
    return _mixed(b, layer, t)


def max_pool(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.MaxPool2d(**_windows(b, t, (2, 3, 1, 4), (1, 1, 2), pool=True), ceil_mode=b.chance(2)), [t])


def avg_pool(b: Builder, t: Tensor) -> Tensor | None:
    """In exact networks every window divides by the same power of two."""
    if not b.exact:
        window = _windows(b, t, (2, 3, 1, 4), (1, 1, 2), pool=True)
        return b.add(L.AvgPool2d(**window, ceil_mode=b.chance(2), count_include_pad=b.chance(2)), [t])
    layer = L.AvgPool2d(**_windows(b, t, (2, 1, 4), (1, 1, 2)))
    area = layer.kernel[0] * layer.kernel[1]
    if not layer.padding and b.chance(2):
        layer = L.AvgPool2d(layer.kernel, layer.stride, layer.dilation, count_include_pad=False)
    return b.add(layer, [t], None, t.units * area, t.bits + area.bit_length() - 1)


def global_max_pool(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.GlobalMaxPool2d(), [t])


def relu(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.Relu(), [t])


def leaky_relu(b: Builder, t: Tensor) -> Tensor | None:
    shift = b.pick(1, 2, 3)
    return b.add(L.LeakyRelu(2.0**-shift), [t], None, t.units << shift, t.bits + shift)


def prelu(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.PRelu(), [t], {"weight": b.integers(b.pick(t.shape.channels, 1), -1, 0, 1, 2)}, t.units * 2)


def clip(b: Builder, t: Tensor) -> Tensor | None:
    """Bounds above zero too: padding must not be clipped to them."""
    low, high = b.pick((0, 6), (-2, 3), (1, 5), (-4, -1))
    return b.add(L.Clip(low, high), [t], None, max(abs(low), abs(high)) << t.bits)


def hard_sigmoid(b: Builder, t: Tensor) -> Tensor | None:
    """From 0 to 1 in steps of a quarter of the input's."""
    return b.add(L.HardSigmoid(0.25, 0.5), [t], None, t.units + (4 << t.bits), t.bits + 2)


def sign(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(b.pick(L.Neg(), L.Abs()), [t])


def power(b: Builder, t: Tensor) -> Tensor | None:
    """Products; in floating networks anything, of values from 0 to 1."""
    if not b.exact:
        small = b.add(L.Sigmoid(), [t])
        return b.add(b.pick(L.Power(3), L.Sqrt(), L.Power(0.5), L.Power(1.7), L.Exp()), [small]) if small else None
    factors = b.pick(2, 1, 3, 0)
    return b.add(L.Power(factors), [t], None, t.units**factors, t.bits * factors)


def channel_affine(b: Builder, t: Tensor) -> Tensor | None:
    n = t.shape.channels
    params = {"scale": b.integers(n, 1, -1, 2, 0.5), "shift": b.integers(n, -2, -1, 0, 1, 2)}
    return b.add(L.ChannelAffine(), [t], params, (t.units * 2 + (2 << t.bits)) << 1, t.bits + 1)


def batch_norm(b: Builder, t: Tensor) -> Tensor | None:
    """Exact ones have eps 0 and variances whose roots are powers of two."""
    n = t.shape.channels
    if not b.exact:
        params = {k: b.normals(n) for k in ("weight", "bias", "running_mean")} | {"running_var": b.normals(n) ** 2 + 0.1}
        return b.add(L.BatchNorm(), [t], params)
    params = {"weight": b.integers(n, -1, 1, 2), "bias": b.integers(n, -2, -1, 0, 1, 2),
              "running_mean": b.integers(n, -2, -1, 0, 1, 2), "running_var": b.integers(n, 0.25, 1, 4)}
    return b.add(L.BatchNorm(0.0), [t], params, ((t.units + (2 << t.bits)) * 4 + (2 << t.bits)) << 1, t.bits + 1)


def identity(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.Identity(), [t])


def upsample(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.Upsample((b.pick(2, 1, 3), b.pick(2, 1, 3))), [t])


def upsample_linear(b: Builder, t: Tensor) -> Tensor | None:
    """In exact networks by powers of two: the weights along an axis are halves or quarters of an output pixel."""
    factors = (2, 1, 4) if b.exact else (2, 1, 3, 4, 5)
    layer = L.Upsample((b.pick(*factors), b.pick(*factors)), "linear", b.pick("half_pixel", "asymmetric"))
    finer = sum(f.bit_length() for f in layer.factor if f > 1)
    return b.add(layer, [t], None, 2 * t.units << finer, t.bits + finer)


def space_to_depth(b: Builder, t: Tensor) -> Tensor | None:
    """Of a tensor made large enough."""
    block = b.pick(2, 3)
    if t.shape.channels * block**2 > 140:
        return None
    if t.side(L.Axis.Y) % block or t.side(L.Axis.X) % block:
        large = b.add(L.Upsample((block, block)), [t])
        if large is None:
            return None
        t = large
    return b.add(L.SpaceToDepth(block), [t])


def slice_channels(b: Builder, t: Tensor) -> Tensor | None:
    start = b.draw(st.integers(0, t.shape.channels - 1))
    return b.add(L.SliceChannels(start, b.draw(st.integers(start + 1, t.shape.channels)), b.pick(1, 1, 2, 3)), [t])


def crop(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.Crop(*(b.pick(0, 1, 3) for _ in range(4))), [t])


def pad(b: Builder, t: Tensor) -> Tensor | None:
    """At times zeros in front of what takes them in."""
    value = b.pick(0, 0, 2, -3)
    padded = b.add(L.Pad(L.Padding(*(b.pick(0, 1, 2) for _ in range(4))), value), [t], None, max(t.units, abs(value) << t.bits))
    return b.pick(conv, avg_pool)(b, padded) if padded and b.chance(2) else padded


def depth_to_space(b: Builder, t: Tensor) -> Tensor | None:
    """Behind a convolution that makes the channels it needs."""
    block = b.pick(2, 3)
    if t.shape.channels % block**2:
        wide = _mixed(b, L.Conv2d((1, 1), out_channels=block**2 * b.pick(1, 2, 3)), t)
        if wide is None:
            return None
        t = wide
    return b.add(L.DepthToSpace(block, b.pick(*L.DepthToSpaceOrder)), [t])


def linear(b: Builder, t: Tensor) -> Tensor | None:
    """With or without a flatten and an activation before it; for networks of one size only."""
    if not b.pinned or t.shape.elements > 1 << 14:
        return None
    if b.chance(2):
        flat = b.add(L.Flatten(), [t])
        assert flat is not None
        t = (relu(b, flat) if b.chance(4) else None) or flat
    return _mixed(b, L.Linear(min(b.channels(), MAX_WEIGHTS // t.shape.elements), bias=not b.chance(4)), t)


def flatten(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.Flatten(), [t]) if b.pinned and t.shape.elements <= 256 else None


def concat(b: Builder, t: Tensor) -> Tensor | None:
    """Joins `t` to an earlier tensor of its height and width, or to a branch grown for it."""
    sides = (t.shape.height, t.shape.width)
    fits = [u for u in b.tensors if (u.shape.height, u.shape.width) == sides and u.shape.channels + t.shape.channels <= 140]
    inputs = _pair(b, t, fits)
    return b.add(L.Concat(), inputs, None, max(_aligned(inputs)), _bits(inputs)) if inputs else None


def join(b: Builder, t: Tensor) -> Tensor | None:
    """`t` and another tensor of its shape, or of one channel or one pixel, elementwise."""
    layer = b.pick(L.Add(), L.Mul(), L.Sub(), L.Min(), L.Max(), *(() if b.exact else (L.Div(),)))
    if b.chance(3):
        other = b.pick(_one_channel, _one_pixel)(b, t)
        inputs = _ordered(b, t, other) if other else None
    else:
        inputs = _pair(b, t, [u for u in b.tensors if u.shape == t.shape])
    if inputs is None:
        return None
    if isinstance(layer, L.Div):
        positive = b.add(L.Softplus(), [inputs[1]])
        below = b.add(L.HardSigmoid(1.0, 0.1), [positive]) if positive else None  # 0.1 to 1
        return b.add(layer, [inputs[0], below]) if below else None
    if isinstance(layer, L.Mul):
        return b.add(layer, inputs, None, inputs[0].units * inputs[1].units, inputs[0].bits + inputs[1].bits)
    units = _aligned(inputs)
    return b.add(layer, inputs, None, sum(units) if isinstance(layer, L.Add | L.Sub) else max(units), _bits(inputs))


def _one_channel(b: Builder, t: Tensor) -> Tensor | None:
    return _mixed(b, L.Conv2d((1, 1), out_channels=1), t)


def _one_pixel(b: Builder, t: Tensor) -> Tensor | None:
    """As many channels as `t` has, or one, behind a global pool: what squeezes and excites."""
    pooled = b.add(L.GlobalMaxPool2d(), [t])
    return _mixed(b, L.Conv2d((1, 1), out_channels=b.pick(t.shape.channels, 1)), pooled) if pooled and b.chance(2) else pooled


def _pair(b: Builder, t: Tensor, fits: Sequence[Tensor]) -> list[Tensor] | None:
    """`t` with one of those that fit, at times itself, or with a branch grown for it."""
    others = [u for u in fits if u != t]
    if b.chance(8) and t in fits:
        other: Tensor | None = t
    else:
        other = b.pick(*others) if others and not b.chance(2) else same_conv(b, t)
    return _ordered(b, t, other) if other else None


def _ordered(b: Builder, t: Tensor, other: Tensor) -> list[Tensor]:
    return [t, other] if not b.chance(2) else [other, t]


def _bits(inputs: Sequence[Tensor]) -> int:
    return max(u.bits for u in inputs)


def _aligned(inputs: Sequence[Tensor]) -> list[int]:
    """The inputs' bounds in units of the finest of them."""
    return [u.units << (_bits(inputs) - u.bits) for u in inputs]


def _plain(*choices: L.Layer) -> Grow:
    return lambda b, t: b.add(b.pick(*choices), [t])


def local_response_norm(b: Builder, t: Tensor) -> Tensor | None:
    return b.add(L.LocalResponseNorm(b.pick(3, 1, 2, 4, 5), b.pick(1e-4, 0.5), b.pick(0.75, 0.5), b.pick(1.0, 2.0)), [t])


KINDS: tuple[Grow, ...] = (conv, relu, conv, max_pool, conv, avg_pool, leaky_relu, prelu, clip, conv_transpose, upsample,
                           depth_to_space, linear, channel_affine, batch_norm, identity, flatten, hard_sigmoid, sign, power,
                           global_max_pool, upsample_linear, space_to_depth, slice_channels, crop, pad)
SMOOTH = (L.Sigmoid(), L.Tanh(), L.Silu(), L.Elu(0.7), L.Selu(), L.HardSwish(), L.Softplus(), L.Gelu(), L.Gelu("tanh"),
          L.Mish())
FLOATING: tuple[Grow, ...] = (_plain(*SMOOTH), _plain(*SMOOTH), _plain(L.GlobalAvgPool2d()),
                              _plain(L.Softmax(), L.LogSoftmax()), local_response_norm)
