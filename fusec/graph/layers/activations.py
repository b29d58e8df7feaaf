"""The pointwise layers with one input; each may become another layer's epilogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from fusec.graph.layers.base import Form, Layer
from fusec.graph.limits import number


@dataclass(frozen=True)
class Activation(Layer):
    """Base of the pointwise layers with one input: each may become another layer's epilogue."""

    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Relu(Activation):
    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class LeakyRelu(Activation):
    slope: float = 0.01
    kind: ClassVar[str] = "leaky_relu"

    def problems(self) -> Iterator[str]:
        yield from number("slope", self.slope)


@dataclass(frozen=True)
class PRelu(Activation):
    """Learned slope for negative values; weights (channels,) or (1,)."""

    kind: ClassVar[str] = "prelu"


@dataclass(frozen=True)
class Clip(Activation):
    """Limits values to [low, high]; relu6 is Clip(0, 6)."""

    low: float = 0.0
    high: float = 6.0
    kind: ClassVar[str] = "clip"

    def problems(self) -> Iterator[str]:
        found = [*number("low", self.low), *number("high", self.high)]
        yield from found
        if not found and self.high < self.low:
            yield f"high must not be below low, but {self.high} is below {self.low}"


@dataclass(frozen=True)
class Sigmoid(Activation):
    kind: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Tanh(Activation):
    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class Silu(Activation):
    kind: ClassVar[str] = "silu"


@dataclass(frozen=True)
class ChannelAffine(Activation):
    """x * scale[c] + shift[c]: what is left of a batch-norm that no convolution could take in."""

    kind: ClassVar[str] = "channel_affine"
