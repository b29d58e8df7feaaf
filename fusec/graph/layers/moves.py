"""The layers that move values and change none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from fusec.graph.layers.base import Form, Layer, Pair
from fusec.graph.limits import MAX_FACTOR, pair, whole


@dataclass(frozen=True)
class Flatten(Layer):
    """(channels, height, width) to (channels * height * width, 1, 1), row-major."""

    kind: ClassVar[str] = "flatten"
    form: ClassVar[Form] = Form.VECTOR


@dataclass(frozen=True)
class Upsample(Layer):
    """Nearest-neighbour enlargement by whole factors."""

    factor: Pair = (2, 2)
    kind: ClassVar[str] = "upsample"

    def problems(self) -> Iterator[str]:
        yield from pair("factor", self.factor, 1, MAX_FACTOR)


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
class Identity(Layer):
    """Passes its input on (dropout at inference too); removed by `simplify`."""

    kind: ClassVar[str] = "identity"
    form: ClassVar[Form] = Form.SAME
