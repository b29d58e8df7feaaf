"""The layers that move values: where to, and what comes between them; `Identity`, which does not even that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from fusec.graph.layers.base import Axis, Form, Layer, Padding, Pair
from fusec.graph.limits import MAX_EXTENT, MAX_FACTOR, choice, number, pair, whole


@dataclass(frozen=True)
class Flatten(Layer):
    """(channels, height, width) to (channels * height * width, 1, 1), row-major."""

    kind: ClassVar[str] = "flatten"
    form: ClassVar[Form] = Form.VECTOR


@dataclass(frozen=True)
class Upsample(Layer):
    """Enlargement by whole factors: each pixel repeated ("nearest"), or what lies between four of them ("linear").

    Output position o lies at (o + 1/2) / factor - 1/2 of the input ("half_pixel") or at o / factor ("asymmetric"), which makes
    no difference to the nearest pixel. Beyond its outermost pixels the image goes on as they are.
    """

    factor: Pair = (2, 2)
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    kind: ClassVar[str] = "upsample"

    def problems(self) -> Iterator[str]:
        yield from pair("factor", self.factor, 1, MAX_FACTOR)
        yield from choice("mode", self.mode, ("nearest", "linear"))
        yield from choice("coordinates", self.coordinates, ("half_pixel", "asymmetric"))

    @property
    def linear(self) -> bool:
        return self.mode == "linear"


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
class SpaceToDepth(Layer):
    """Moves block x block pixels into channels, those of one place in the block together: ONNX's order, back from DCR.

    Height and width have to be multiples of the block. Where they are chosen at run time and are not, the rows and columns
    left over are dropped.
    """

    block: int = 2
    kind: ClassVar[str] = "space_to_depth"

    def problems(self) -> Iterator[str]:
        yield from whole("block", self.block, 1, MAX_FACTOR)


@dataclass(frozen=True)
class SliceChannels(Layer):
    """Channels start, start + step, ... below stop."""

    start: int
    stop: int
    step: int = 1
    kind: ClassVar[str] = "slice_channels"
    form: ClassVar[Form] = Form.SAME

    def problems(self) -> Iterator[str]:
        found = [*whole("start", self.start, 0, MAX_EXTENT), *whole("stop", self.stop, 1, MAX_EXTENT)]
        yield from found
        yield from whole("step", self.step, 1, MAX_EXTENT)
        if not found and self.stop <= self.start:
            yield f"stop must be above start, but {self.stop} is not above {self.start}"

    @property
    def channels(self) -> int:
        """How many channels are left."""
        return len(range(self.start, self.stop, self.step))


@dataclass(frozen=True)
class Crop(Layer):
    """Takes rows and columns off the image's sides."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    kind: ClassVar[str] = "crop"

    def problems(self) -> Iterator[str]:
        edges = {"top": self.top, "bottom": self.bottom, "left": self.left, "right": self.right}
        yield from (p for name, value in edges.items() for p in whole(name, value, 0, MAX_EXTENT))

    def along(self, axis: Axis) -> tuple[int, int]:
        """Positions taken off (before, after) along one axis."""
        return (self.top, self.bottom) if axis is Axis.Y else (self.left, self.right)


@dataclass(frozen=True)
class Pad(Layer):
    """Adds rows and columns of one value at the image's sides."""

    padding: Padding
    value: float = 0.0
    kind: ClassVar[str] = "pad"

    def problems(self) -> Iterator[str]:
        if not isinstance(self.padding, Padding):
            yield f"padding must be a Padding(top, bottom, left, right), not {self.padding!r:.60}"
        yield from number("value", self.value)


@dataclass(frozen=True)
class Identity(Layer):
    """Passes its input on (dropout at inference too); removed by `simplify`."""

    kind: ClassVar[str] = "identity"
    form: ClassVar[Form] = Form.SAME
