"""Reshapes and transposes as rearranged digits, and which layer such an arrangement is.

In: the axes of a `Tensor` (`values.py`) and a new shape or order. Out: new axes over the same layer, or None where the values
would not only be rearranged. `arrangement` tells what the axes are to an image: itself, a flattened one, or one whose channels
became pixels. So `Reshape`, `Transpose` and `Reshape` of a pixel shuffle are one `DepthToSpace`, and a `Flatten` of one pixel
is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.limits import MAX_FACTOR
from fusec.graph.onnx.extent import Extent, Open, divide
from fusec.graph.onnx.values import Axes, C, Digit, H, N, W

Target = Sequence["Extent | None"]  # None: what is left


def reshape(axes: Axes, target: Target) -> Axes | None:
    """The axes with extents `target`, one of which may be None: it takes what the others leave."""
    digits = [d for axis in axes for d in axis]
    hole = next((i for i, extent in enumerate(target) if extent is None), len(target))
    front = _taken(digits, target[:hole])
    if front is None:
        return None
    made, left = front
    if hole == len(target):
        return None if left else made
    mirrored = _taken(left[::-1], target[:hole:-1], backwards=True)
    if mirrored is None:
        return None
    behind, middle = mirrored
    return (*made, tuple(middle[::-1]), *(axis[::-1] for axis in behind[::-1]))


def transpose(axes: Axes, order: Sequence[int]) -> Axes:
    """The axes in another order."""
    return tuple(axes[i] for i in order)


def _taken(digits: list[Digit], target: Target, backwards: bool = False) -> tuple[Axes, list[Digit]] | None:
    """Digits dealt out to axes of these extents, splitting one where need be; the axes and what is left."""
    left = list(digits)
    made: list[tuple[Digit, ...]] = []
    for extent in target:
        axis: list[Digit] = []
        missing = extent
        while missing != 1:
            if not left:
                return None
            first = left.pop(0)
            if (more := _whole(missing, first.extent)) is not None:
                axis.append(first)
                missing = more
            elif (rest := _whole(first.extent, missing)) is not None:
                assert missing is not None
                slow, fast = (rest, missing) if backwards else (missing, rest)
                high, low = Digit(first.axis, slow, first.stride * fast), Digit(first.axis, fast, first.stride)
                axis.append(low if backwards else high)
                left.insert(0, high if backwards else low)
                missing = 1
            else:
                return None
        made.append(tuple(axis))
    return tuple(made), left


def _whole(value: Extent | None, by: Extent | None) -> Extent | None:
    """value / by where that is whole for all sizes."""
    found = divide(value, by)
    if isinstance(found, Open):
        return found if all(c.denominator == 1 for _, c in found.terms) and found.positive else None
    return found if isinstance(found, int) and found >= 1 else None


def merged(axis: Sequence[Digit]) -> tuple[Digit, ...]:
    """Neighbouring digits that are one number, as one."""
    made: list[Digit] = []
    for digit in axis:
        last = made[-1] if made else None
        if last is not None and last.axis == digit.axis and last.stride == digit.stride * digit.extent:
            made[-1] = Digit(digit.axis, last.extent * digit.extent, digit.stride)
        else:
            made.append(digit)
    return tuple(made)


def arrangement(axes: Axes) -> L.Layer | None:
    """The layer that makes an image with these axes of the image itself; None where there is none.

    `Identity` where nothing moves. Axes beyond the last are of extent 1. The batch has to stay where it is.
    """
    if not 2 <= len(axes) <= 4:
        return None
    batch, channels, *sides = (merged(axis) for axis in axes)
    rows, columns = (*sides, (), ())[:2]
    if any(d.axis != N or d.stride != 1 for d in batch) or any(d.axis == N for axis in (channels, rows, columns) for d in axis):
        return None
    if all(_untouched(axis, which) for which, axis in ((C, channels), (H, rows), (W, columns))):
        return L.Identity()
    if not rows and not columns and _in_order(channels):
        return L.Flatten()
    return _depth_to_space(channels, rows, columns) or _space_to_depth(channels, rows, columns)


def _space_to_depth(channels: tuple[Digit, ...], rows: tuple[Digit, ...], columns: tuple[Digit, ...]) -> L.Layer | None:
    """Channels begin with a digit of the rows and one of the columns, of which the rest stays."""
    if len(channels) < 2 or len(rows) != 1 or len(columns) != 1:
        return None
    (row, column, *kept), block = channels, channels[0].extent
    fast = (row.axis, row.stride, column.axis, column.stride, column.extent) == (H, 1, W, 1, block)
    slow = (rows[0].axis, rows[0].stride, columns[0].axis, columns[0].stride) == (H, block, W, block)
    if not fast or not slow or not _untouched(tuple(kept), C) or not isinstance(block, int) or block > MAX_FACTOR:
        return None
    return L.SpaceToDepth(block)


def shuffle(axes: Axes) -> NDArray[np.int64] | None:
    """For each channel the image's channel that it is, where axes only reorder channels; None where they do not."""
    if not 2 <= len(axes) <= 4:
        return None
    batch, channels, *sides = (merged(axis) for axis in axes)
    plain = all(_untouched(axis, which) for axis, which in zip((batch, *sides), (N, H, W), strict=False))
    if not plain or any(d.axis != C for d in channels):
        return None
    order = np.zeros(1, np.int64)
    for digit in channels:
        assert isinstance(digit.extent, int)  # the number of channels always is
        order = (order[:, None] + np.arange(digit.extent) * digit.stride).reshape(-1)
    return order


def _untouched(axis: tuple[Digit, ...], which: int) -> bool:
    return not axis or (len(axis) == 1 and axis[0].axis == which and axis[0].stride == 1)


def _in_order(channels: tuple[Digit, ...]) -> bool:
    """Whole axes, one after another: channels, then rows, then columns."""
    return all(d.stride == 1 for d in channels) and [d.axis for d in channels] == sorted({d.axis for d in channels})


def _depth_to_space(channels: tuple[Digit, ...], rows: tuple[Digit, ...], columns: tuple[Digit, ...]) -> L.Layer | None:
    """Rows and columns each end in a digit of the channels."""
    if not rows or not columns or rows[-1].axis != C or columns[-1].axis != C:
        return None
    (*above, low_row), (*beside, low_column) = rows, columns
    block = low_row.extent
    plain = _untouched(tuple(above), H) and _untouched(tuple(beside), W) and all(d.axis == C for d in channels)
    if not plain or block != low_column.extent or not isinstance(block, int) or block > MAX_FACTOR or len(channels) > 1:
        return None
    kept = channels[0] if channels else Digit(C, 1, 0)
    if low_column.stride == 1 and low_row.stride == block and kept.stride in (0, block * block):
        return L.DepthToSpace(block, L.DepthToSpaceOrder.CRD)
    if kept.stride in (0, 1) and low_column.stride == kept.extent and low_row.stride == kept.extent * block:
        return L.DepthToSpace(block, L.DepthToSpaceOrder.DCR)
    return None

