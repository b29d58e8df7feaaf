"""Converters of ONNX operators that cut and enlarge images: Slice, Split and Pad, where they are affine in space.

Channels are cut with steps, rows and columns by crops at their sides; every s-th row is a max pool of one pixel. Where a size
is open, a bound has to lie at a fixed distance from one of the image's sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fusec.graph import layers as L
from fusec.graph.onnx.builder import Params
from fusec.graph.onnx.call import LARGEST, Call, Converter, normal_axis
from fusec.graph.onnx.extent import Extent, Open
from fusec.graph.onnx.fold import FIXED, split_points
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import C, H, Image, Known, N, Tensor, W

MOST_CHANNELS = 4096  # of an image that gets further ones


Step = tuple[L.Layer, Params]


@dataclass(frozen=True)
class Part:
    """Positions `before` to `after` from the ends of an axis, every `step`-th."""

    before: int = 0
    after: int = 0
    step: int = 1

    @property
    def whole(self) -> bool:
        return self == Part()


def cut(call: Call, image: Image, parts: Sequence[Part], output: int = 0) -> Tensor:
    """The image with these parts of its axes (batch, channels, height, width), as few layers as it takes."""
    batch, channels, rows, columns = parts
    if not batch.whole:
        raise Refusal("it cuts the batch", "channels, rows and columns can be cut")
    layers: list[Step] = []
    if rows.before or rows.after or columns.before or columns.after:
        layers.append((L.Crop(rows.before, rows.after, columns.before, columns.after), {}))
    if not channels.whole:
        layers.append((L.SliceChannels(channels.before, image.channels - channels.after, channels.step), {}))
    if rows.step > 1 or columns.step > 1:
        layers.append((L.MaxPool2d((1, 1), (rows.step, columns.step)), {}))
    return in_turn(call, image, layers, output)


def in_turn(call: Call, image: Image, layers: Sequence[Step], output: int = 0) -> Tensor:
    """Layers one after another, of which the last makes the output."""
    for i, (layer, params) in enumerate(layers):
        image = call.make(layer, [image], params, part="" if i == len(layers) - 1 else f"part{i}", output=output)
    return image.view()


def slice_(call: Call) -> Tensor:
    image = call.image()
    extents: tuple[Extent, ...] = (image.batch, image.channels, image.height, image.width)
    starts, ends, axes, steps = _bounds(call, image.rank)
    parts = [Part()] * 4
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = _part(extents[axis], start, end, step)
    return cut(call, image, parts)


def _bounds(call: Call, rank: int) -> tuple[list[Any], list[Any], list[int], list[int]]:
    """Starts, ends, axes and steps: attributes before opset 10, inputs since."""
    if call.opset < 10:
        starts, ends = list(call.attribute("starts")), list(call.attribute("ends"))
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = _entries(call, 1), _entries(call, 2)
        axes, steps = (call.whole(i) if call.has(i) else None for i in (3, 4))
    axes = [normal_axis(a, rank) for a in (range(len(starts)) if axes is None else axes)]
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(set(axes)) < len(axes):
        raise Refusal("its starts, ends, axes and steps are not as many", "the file is damaged")
    return starts, ends, axes, steps


def _entries(call: Call, index: int) -> list[Any]:
    """Whole numbers or open sizes of an input."""
    value = call.value(index)
    if not isinstance(value, Known) or value.array.ndim > 1 or value.array.size > 8 or value.array.dtype.kind not in "iuO":
        raise Refusal("its bounds have to be a few whole numbers that are known", FIXED)
    return list(value.array.reshape(-1).tolist())


def _part(extent: Extent, start: Any, end: Any, step: int) -> Part:
    """A slice as distances from both ends."""
    if step < 1:
        raise Refusal(f"its step is {step}", "steps of 1 or more work")
    if isinstance(extent, int) and isinstance(start, int) and isinstance(end, int):
        first, last, _ = slice(start, end, step).indices(extent)
        if last <= first:
            raise Refusal("it leaves nothing", "the file is damaged")
        return Part(first, extent - last, step)
    before = _distance(start, 0, extent)
    after = 0 if isinstance(end, int) and end >= LARGEST else _distance(extent, end, extent)
    return Part(before, after, step)


def _distance(value: Any, origin: Any, extent: Extent) -> int:
    """value - origin where that is the same for all sizes; bounds below 0 are counted from the end."""
    value, origin = (extent + v if isinstance(v, int) and v < 0 else v for v in (value, origin))
    apart = value - origin
    if isinstance(apart, Open):
        raise Refusal("where it cuts depends on the image's size", FIXED)
    return max(0, int(apart))


def split(call: Call) -> tuple[Tensor, ...]:
    image = call.image()
    axis = normal_axis(call.attribute("axis", 0), image.rank)
    extents: tuple[Extent, ...] = (image.batch, image.channels, image.height, image.width)
    extent = extents[axis]
    if not isinstance(extent, int):
        raise Refusal("the sizes of its parts depend on the image's size", FIXED)
    if call.has(1):
        call.constant(1)  # says so where it is none
    points = [0, *split_points(call.folding(), extent), extent]
    made = []
    for i, (first, last) in enumerate(pairwise(points)):
        parts = [Part()] * 4
        parts[axis] = Part(first, extent - last)
        made.append(cut(call, image, parts, output=i))
    return tuple(made)


def pad(call: Call) -> Tensor:
    image = call.image()
    if call.attribute("mode", "constant") != "constant":
        raise Refusal(f"it pads with {call.attribute('mode')!r:.40}", "constant works")
    before, after = _pads(call, image.rank)
    value = call.scalar(2) if call.opset >= 11 and call.has(2) else float(call.attribute("value", 0.0))
    if before[N] or after[N]:
        raise Refusal("it pads the batch", "channels, rows and columns can be padded")
    edges = (before[H], after[H], before[W], after[W])
    layers: list[Step] = []
    if before[C] or after[C]:
        layers.append(_further_channels(image.channels, before[C], after[C], value))
    if min(edges) < 0:
        layers.append((L.Crop(*(max(0, -edge) for edge in edges)), {}))
    if max(edges) > 0:
        layers.append((L.Pad(L.Padding(*(max(0, edge) for edge in edges)), value), {}))
    return in_turn(call, image, layers)


def _pads(call: Call, rank: int) -> tuple[list[int], list[int]]:
    """Positions added in front of and behind each of the four axes."""
    pads = list(call.attribute("pads")) if call.opset < 11 else call.whole(1)
    axes = [normal_axis(a, rank) for a in call.whole(3)] if call.opset >= 18 and call.has(3) else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise Refusal(f"pads has {len(pads)} numbers for {len(axes)} axes", "the file is damaged")
    before, after = [0] * 4, [0] * 4
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    return before, after


def _further_channels(channels: int, before: int, after: int, value: float) -> Step:
    """Channels of zeros in front and behind, as a convolution of zeros and ones."""
    made = channels + before + after
    if value != 0 or before < 0 or after < 0 or made > MOST_CHANNELS:
        raise Refusal("it adds or takes off channels", f"up to {MOST_CHANNELS:,}, with further ones of zeros, work")
    weight = np.zeros((made, channels, 1, 1), np.float32)
    weight[before:before + channels, :, 0, 0] = np.eye(channels, dtype=np.float32)
    return L.Conv2d((1, 1), out_channels=made, bias=False), {"weight": weight}


CUTTING: dict[str, Converter] = {"Slice": slice_, "Split": split, "Pad": pad}
