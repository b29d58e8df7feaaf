"""The pointwise layers with one input; each may become another layer's epilogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from fusec.graph.layers.base import Form, Layer
from fusec.graph.limits import choice, number


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
class Elu(Activation):
    """x where x is positive, alpha * (exp(x) - 1) elsewhere."""

    alpha: float = 1.0
    kind: ClassVar[str] = "elu"

    def problems(self) -> Iterator[str]:
        yield from number("alpha", self.alpha)


@dataclass(frozen=True)
class Selu(Activation):
    """gamma * x where x is positive, gamma * alpha * (exp(x) - 1) elsewhere.

    The defaults are ONNX's: the constants of Klambauer et al., "Self-normalizing neural networks", NIPS 2017, in float32.
    """

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875
    kind: ClassVar[str] = "selu"

    def problems(self) -> Iterator[str]:
        yield from number("alpha", self.alpha)
        yield from number("gamma", self.gamma)


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """alpha * x + beta, limited to [0, 1]."""

    alpha: float = 0.2
    beta: float = 0.5
    kind: ClassVar[str] = "hard_sigmoid"

    def problems(self) -> Iterator[str]:
        yield from number("alpha", self.alpha)
        yield from number("beta", self.beta)


@dataclass(frozen=True)
class HardSwish(Activation):
    """x times (x / 6 + 1/2, limited to [0, 1])."""

    kind: ClassVar[str] = "hard_swish"


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + exp(x))."""

    kind: ClassVar[str] = "softplus"


@dataclass(frozen=True)
class Gelu(Activation):
    """x times the normal distribution's share below x; "tanh" is the approximation x * sigmoid(2 * u).

    There u = sqrt(2 / pi) * (x + 0.044715 * x ** 3): Hendrycks and Gimpel, "Gaussian error linear units", 2016.
    """

    approximate: str = "none"
    kind: ClassVar[str] = "gelu"

    def problems(self) -> Iterator[str]:
        yield from choice("approximate", self.approximate, ("none", "tanh"))


@dataclass(frozen=True)
class Mish(Activation):
    """x * tanh(log(1 + exp(x)))."""

    kind: ClassVar[str] = "mish"


@dataclass(frozen=True)
class Neg(Activation):
    kind: ClassVar[str] = "neg"


@dataclass(frozen=True)
class Abs(Activation):
    kind: ClassVar[str] = "abs"


@dataclass(frozen=True)
class Power(Activation):
    """x ** exponent: a product for whole exponents up to `MOST_FACTORS`, 1 / x for -1, else IEEE's pow (NaN for x below 0
    unless the exponent is whole)."""

    exponent: float
    kind: ClassVar[str] = "pow"
    MOST_FACTORS: ClassVar[int] = 8

    def problems(self) -> Iterator[str]:
        yield from number("exponent", self.exponent)

    @property
    def factors(self) -> int | None:
        """How many times x is multiplied; None where the power is no such product."""
        exponent = int(self.exponent)
        return exponent if exponent == self.exponent and 0 <= exponent <= self.MOST_FACTORS else None


@dataclass(frozen=True)
class Sqrt(Activation):
    kind: ClassVar[str] = "sqrt"


@dataclass(frozen=True)
class Exp(Activation):
    kind: ClassVar[str] = "exp"


@dataclass(frozen=True)
class ChannelAffine(Activation):
    """x * scale[c] + shift[c]: a batch-norm with its statistics worked in, or constants of each channel."""

    kind: ClassVar[str] = "channel_affine"
