"""Converters of ONNX operators that slide a window: convolutions and pools, with every way to say padding.

`auto_pad` is worked out per axis. SAME with a stride depends on the size modulo the stride, so there the size has to be fixed;
with stride 1 it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.onnx.call import Call, Converter
from fusec.graph.onnx.extent import Extent
from fusec.graph.onnx.fold import FIXED
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Image, Tensor


@dataclass(frozen=True)
class Slide:
    """A window along the one or two axes of space."""

    kernel: L.Pair
    stride: L.Pair
    dilation: L.Pair
    padding: L.Padding


def _pair(values: Sequence[int] | None, default: int, rank: int, name: str, beside: int = 1) -> L.Pair:
    """One number per axis of space; a tensor (N, C, L) is an image one pixel wide, with `beside` along it."""
    if values is None:
        return (default, default) if rank == 4 else (default, beside)
    if len(values) != rank - 2:
        raise Refusal(f"{name} has {len(values)} numbers for {rank - 2} axes of space", "the file is damaged")
    return (values[0], values[1]) if rank == 4 else (values[0], beside)


def _padding(before: Sequence[int], after: Sequence[int]) -> L.Padding:
    if any(p < 0 for p in (*before, *after)):
        raise Refusal(f"its pads {[*before, *after]} are below 0", "a Slice takes pixels off")
    return L.Padding(before[0], after[0], before[1], after[1])


def _pads(call: Call, rank: int) -> tuple[L.Pair, L.Pair]:
    """Explicit pads as (before, after) per axis."""
    pads = call.attribute("pads")
    if pads is None:
        return (0, 0), (0, 0)
    half = len(pads) // 2
    if len(pads) != 2 * (rank - 2):
        raise Refusal(f"pads has {len(pads)} numbers for {rank - 2} axes of space", "the file is damaged")
    before, after = (list(part) + [0] * (4 - rank) for part in (pads[:half], pads[half:]))
    return (before[0], before[1]), (after[0], after[1])


def _same(extent: Extent, window: int, stride: int, upper: bool) -> tuple[int, int]:
    """Padding of one axis so that ceil(extent / stride) windows fit, the odd pixel behind (`upper`) or in front."""
    if stride == 1:
        total = window - 1
    elif isinstance(extent, int):
        total = max(0, (-(-extent // stride) - 1) * stride + window - extent)
    else:
        raise Refusal("auto_pad with a stride depends on the image's size", f"{FIXED}, or export with pads")
    small = total // 2
    return (small, total - small) if upper else (total - small, small)


def slide(call: Call, image: Image, kernel: Sequence[int]) -> Slide:
    """The window of a convolution or a pool."""
    rank = image.rank
    size = _pair(kernel, 1, rank, "kernel_shape")
    stride = _pair(call.attribute("strides"), 1, rank, "strides")
    dilation = _pair(call.attribute("dilations"), 1, rank, "dilations")
    if min(*size, *stride, *dilation) < 1:
        raise Refusal("a kernel, stride or dilation is below 1", "the file is damaged")
    auto = call.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        before, after = _pads(call, rank)
    elif auto == "VALID":
        before = after = (0, 0)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        windows = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
        (before, after) = zip(*(_same(e, w, s, auto == "SAME_UPPER")
                                for e, w, s in zip(image.sides, windows, stride, strict=True)), strict=True)
    else:
        raise Refusal(f"auto_pad cannot be {auto!r:.40}", "the file is damaged")
    return Slide(size, stride, dilation, _padding(before, after))


def _kernel(call: Call, given: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The filter's sides; `kernel_shape` has to agree with them."""
    if len(given) != rank:
        raise Refusal(f"its weights have {len(given)} axes for an image of {rank}", "the file is damaged")
    said = call.attribute("kernel_shape")
    if said is not None and tuple(said) != given[2:]:
        raise Refusal(f"kernel_shape {said} does not agree with the weights' {list(given)}", "the file is damaged")
    return given[2:]


def conv(call: Call) -> Tensor:
    image, weight = call.picture(), call.floats(1)
    window = slide(call, image, _kernel(call, weight.shape, image.rank))
    groups = call.attribute("group", 1)
    params = {"weight": weight.reshape(*weight.shape[:2], *window.kernel)}
    if groups < 1 or weight.shape[1] * groups != image.channels:
        raise Refusal(f"weights of {'x'.join(map(str, weight.shape))} in {groups} groups do not fit {image.channels} channels")
    if call.has(2):
        params["bias"] = _bias(call, weight.shape[0])
    layer = L.Conv2d(window.kernel, window.stride, window.dilation, window.padding, weight.shape[0], groups, call.has(2))
    return call.emit(layer, [image], params)


def _bias(call: Call, channels: int) -> NDArray[np.float32]:
    bias = call.floats(2)
    if bias.shape != (channels,):
        raise Refusal(f"its bias has shape {list(bias.shape)} for {channels} output channels", "the file is damaged")
    return bias


def conv_transpose(call: Call) -> Tensor:
    image, weight = call.picture(), call.floats(1)
    kernel = _kernel(call, weight.shape, image.rank)
    groups = call.attribute("group", 1)
    if groups < 1 or weight.shape[0] != image.channels:
        raise Refusal(f"weights of {'x'.join(map(str, weight.shape))} do not fit {image.channels} channels")
    spare = _pair(call.attribute("output_padding"), 0, image.rank, "output_padding", beside=0)
    window, spare = _transposed(call, image, kernel, spare)
    made = weight.shape[1] * groups
    params = {"weight": weight.reshape(*weight.shape[:2], *window.kernel)}
    if call.has(2):
        params["bias"] = _bias(call, made)
    layer = L.ConvTranspose2d(window.kernel, window.stride, window.dilation, window.padding, made, groups, spare,
                              call.has(2))
    return call.emit(layer, [image], params)


def _transposed(call: Call, image: Image, kernel: Sequence[int], spare: L.Pair) -> tuple[Slide, L.Pair]:
    """The window and output padding: `auto_pad` and `output_shape` of a transposed convolution say how large its output is.

    What that is short of the windows' reach is taken off both ends; what it is beyond is added at the end.
    """
    rank, wanted = image.rank, call.attribute("output_shape")
    auto = call.attribute("auto_pad", "NOTSET")
    if wanted is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return slide(call, image, kernel), spare
    size = _pair(kernel, 1, rank, "kernel_shape")
    stride = _pair(call.attribute("strides"), 1, rank, "strides")
    dilation = _pair(call.attribute("dilations"), 1, rank, "dilations")
    before, after, beyond = [], [], []
    for axis in range(2):
        whole = (size[axis] - 1) * dilation[axis] + 1 + spare[axis] - stride[axis]  # beyond stride * extent
        extent, total = image.sides[axis], whole
        if wanted is not None and axis < rank - 2:
            if not isinstance(extent, int):
                raise Refusal("output_shape names one size of the image", f"{FIXED}, or export with pads")
            total = whole + stride[axis] * extent - wanted[axis + len(wanted) - (rank - 2)]
        beyond.append(spare[axis] + max(0, -total))
        total = max(0, total)
        before.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
        after.append(total - before[-1])
    return Slide(size, stride, dilation, _padding(before, after)), (beyond[0], beyond[1])


def max_pool(call: Call) -> Tensor:
    image = call.picture()
    window = slide(call, image, call.attribute("kernel_shape"))
    return call.emit(L.MaxPool2d(window.kernel, window.stride, window.dilation, window.padding, _ceil(call)), [image])


def average_pool(call: Call) -> Tensor:
    image = call.picture()
    window = slide(call, image, call.attribute("kernel_shape"))
    padded = bool(call.attribute("count_include_pad", 0))
    return call.emit(L.AvgPool2d(window.kernel, window.stride, window.dilation, window.padding, _ceil(call), padded), [image])


def _ceil(call: Call) -> bool:
    """`auto_pad` SAME_* says how large the output is, whatever `ceil_mode` is."""
    return bool(call.attribute("ceil_mode", 0)) and not call.attribute("auto_pad", "NOTSET").startswith("SAME")


def global_average_pool(call: Call) -> Tensor:
    return call.emit(L.GlobalAvgPool2d(), [call.picture()])


def global_max_pool(call: Call) -> Tensor:
    return call.emit(L.GlobalMaxPool2d(), [call.picture()])


WINDOWED: dict[str, Converter] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": max_pool, "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool, "GlobalMaxPool": global_max_pool,
}
