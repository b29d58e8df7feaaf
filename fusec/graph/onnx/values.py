"""What is known of an ONNX tensor while a graph is read: its value, or which layer makes it.

`Known` holds initializers, constants and what follows from them and from shapes alone; entries of a shape may be open
(`extent.py`). `Tensor` is what a layer of the network makes, seen through the reshapes and transposes behind it. `Lost` is
what a refused node should have made.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.graph.onnx.extent import Extent, Open, product

N, C, H, W = range(4)


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor whose values do not depend on the image; an array of objects where some are open sizes."""

    array: NDArray[Any]

    @property
    def open(self) -> bool:
        return self.array.dtype == object


@dataclass(frozen=True)
class Digit:
    """A part of an image's axis: positions `stride` apart, `extent` of them, as a digit of the position in a mixed radix."""

    axis: int
    extent: Extent
    stride: Extent = 1


Axes = tuple[tuple[Digit, ...], ...]


@dataclass(frozen=True)
class Tensor:
    """The tensor of layer `source`, an image (batch, channels, height, width), with its axes in the order of the ONNX tensor.

    Each axis is a list of digits, the slowest first; digits of extent 1 are left out.
    """

    source: str
    axes: Axes

    @property
    def rank(self) -> int:
        return len(self.axes)

    @property
    def dims(self) -> tuple[Extent, ...]:
        return tuple(product(d.extent for d in axis) for axis in self.axes)


@dataclass(frozen=True)
class Lost:
    """The tensor of a node that was refused, or that reads such a tensor."""


Value = Known | Tensor | Lost


@dataclass(frozen=True)
class Image:
    """The tensor of a layer with the extents it has, and the rank of the ONNX tensor: 4, 3 for (N, C, L), 2 for (N, C)."""

    name: str
    rank: int
    batch: Extent
    channels: int
    height: Extent
    width: Extent

    @property
    def sides(self) -> tuple[Extent, Extent]:
        return self.height, self.width

    @property
    def one_pixel(self) -> bool:
        return self.sides == (1, 1)

    def view(self) -> Tensor:
        """The tensor as it stands."""
        extents = (self.batch, self.channels, self.height, self.width)[:self.rank]
        return Tensor(self.name, tuple((Digit(axis, e),) if e != 1 else () for axis, e in enumerate(extents)))


def known(array: Any) -> Known:
    """The array as a `Known`: objects that are plain numbers become numbers."""
    array = np.asarray(array)
    if array.dtype == object:
        flat = array.ravel().tolist()
        if not any(isinstance(v, Open) for v in flat):
            kind = np.int64 if all(isinstance(v, int) for v in flat) else np.float64
            if kind is np.int64 and any(not -(1 << 63) <= v < 1 << 63 for v in flat):
                raise OverflowError("a size outside 64 bits")
            array = np.array([float(v) if isinstance(v, Fraction) else v for v in flat], dtype=kind).reshape(array.shape)
    return Known(array)
