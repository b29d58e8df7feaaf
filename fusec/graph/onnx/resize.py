"""Converters of ONNX `Resize` and `Upsample`: enlargement by whole factors, nearest neighbour or linear.

Which pixel an output position reads is worked out from the formulas of the standard in exact fractions, and compared with what
`Upsample` does: repeat every pixel, or weigh the two nearest centres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from fusec.graph import layers as L
from fusec.graph.limits import MAX_FACTOR
from fusec.graph.onnx.call import Call, Converter
from fusec.graph.onnx.extent import Open, divide
from fusec.graph.onnx.fold import FIXED
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Known, Tensor

WHOLE = "whole factors of 1 or more work, or --to stops before it"
LINEAR = {"half_pixel": "half_pixel", "asymmetric": "asymmetric",
          "pytorch_half_pixel": "half_pixel",  # which differs for outputs of one pixel alone
          "half_pixel_symmetric": "half_pixel"}  # the same for whole factors
_FAR = 1000  # an index far from the border

_POSITION: dict[str, Callable[[Fraction, int], Fraction]] = {
    "half_pixel": lambda x, s: (x + Fraction(1, 2)) / s - Fraction(1, 2),
    "pytorch_half_pixel": lambda x, s: (x + Fraction(1, 2)) / s - Fraction(1, 2),
    "half_pixel_symmetric": lambda x, s: (x + Fraction(1, 2)) / s - Fraction(1, 2),  # the same for whole factors
    "asymmetric": lambda x, s: x / s,
    "tf_half_pixel_for_nn": lambda x, s: (x + Fraction(1, 2)) / s,
}
_ROUND: dict[str, Callable[[Fraction], int]] = {
    "round_prefer_floor": lambda x: math.ceil(x - Fraction(1, 2)),
    "round_prefer_ceil": lambda x: math.floor(x + Fraction(1, 2)),
    "floor": math.floor,
    "ceil": math.ceil,
}


def resize(call: Call) -> Tensor:
    mode = call.attribute("mode", "nearest")
    factor = _factors(call)
    image = call.image()
    if factor == (1, 1):
        return image.view()
    if mode == "nearest":
        _check_nearest(call, factor)
        return call.emit(L.Upsample(factor), [image])
    if mode in ("linear", "bilinear"):
        return _linear(call, factor)
    raise Refusal(f"mode {mode!r:.40} is not supported", "nearest and linear are")


def _linear(call: Call, factor: L.Pair) -> Tensor:
    how = _transformation(call)
    if how not in LINEAR:
        raise Refusal(f"linear interpolation with {how} is not supported", "half_pixel is: align_corners=False in PyTorch")
    return call.emit(L.Upsample(factor, "linear", LINEAR[how]), [call.image()])


def _transformation(call: Call) -> str:
    """How positions are mapped; `Upsample` and the first `Resize` knew one way only."""
    if call.node.operator == "Upsample" or call.opset < 11:
        return "asymmetric"
    return str(call.attribute("coordinate_transformation_mode", "half_pixel"))


def _check_nearest(call: Call, factors: L.Pair) -> None:
    how = _transformation(call)
    rounding = "floor" if call.node.operator == "Upsample" or call.opset < 11 \
        else call.attribute("nearest_mode", "round_prefer_floor")
    position, whole = _POSITION.get(how), _ROUND.get(rounding)
    repeats = position is not None and whole is not None and all(
        whole(position(Fraction(_FAR * s + j), s)) == _FAR for s in factors for j in range(s))
    if not repeats:
        raise Refusal(f"with {how} and {rounding} some pixels are repeated more often than others",
                      "asymmetric with floor, or half_pixel, repeats each alike")


def _factors(call: Call) -> L.Pair:
    """Whole enlargement along (height, width)."""
    tensor = call.tensor()
    rank = tensor.rank
    if call.node.operator == "Upsample" or call.opset < 11:
        scales = call.attribute("scales") if call.opset < 9 else _entries(call, 1)
        sizes = None
    else:
        scales, sizes = _entries(call, 2), _entries(call, 3)
    if bool(scales) == bool(sizes):
        raise Refusal("it needs either scales or sizes", "the file is damaged")
    axes = call.attribute("axes") or list(range(rank))
    given = scales or sizes or []
    if len(given) != len(axes) or any(not -rank <= a < rank for a in axes):
        raise Refusal(f"it has {len(given)} sizes for {len(axes)} axes", "the file is damaged")
    factors: list[Any] = [1] * 4
    for axis, value in zip(axes, given, strict=True):
        factors[axis % rank] = value if scales else divide(value, tensor.dims[axis % rank])
    if sizes and call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch" and factors[2] != factors[3]:
        raise Refusal("keep_aspect_ratio_policy with sizes of another ratio", WHOLE)
    return _whole(factors)


def _whole(factors: Sequence[Any]) -> L.Pair:
    if any(isinstance(f, Open) or f is None for f in factors):
        raise Refusal("how much it enlarges depends on the image's size",
                      f"export with scales, or {FIXED}")
    if factors[0] != 1 or factors[1] != 1:
        raise Refusal("it enlarges along the batch or the channels", "the two axes of space can be enlarged")
    if any(f != int(f) or not 1 <= f <= MAX_FACTOR for f in factors):
        raise Refusal(f"it scales by {float(factors[2]):g} x {float(factors[3]):g}", WHOLE)
    return int(factors[2]), int(factors[3])


def _entries(call: Call, index: int) -> list[Any]:
    """Numbers or open sizes of an input; empty where it is left out."""
    if not call.has(index):
        return []
    value = call.value(index)
    array = value.array if isinstance(value, Known) else call.constant(index)
    entries = array.reshape(-1).tolist()
    if len(entries) > 8 or any(isinstance(e, float) and not math.isfinite(e) for e in entries):
        raise Refusal("its scales or sizes are no few finite numbers", "the file is damaged")
    return entries


RESIZE: dict[str, Converter] = {"Resize": resize, "Upsample": resize}
