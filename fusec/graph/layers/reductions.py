"""The layers that sum over channels, over the whole image or over both, and normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from fusec.graph.layers.base import Form, Layer
from fusec.graph.limits import MAX_EXTENT, MAX_WINDOW, flag, number, whole


@dataclass(frozen=True)
class GlobalPool2d(Layer):
    """Base of the layers that make one pixel of each channel of the whole image."""


@dataclass(frozen=True)
class GlobalAvgPool2d(GlobalPool2d):
    """Mean of each channel over the whole image."""

    kind: ClassVar[str] = "global_avg_pool2d"


@dataclass(frozen=True)
class GlobalMaxPool2d(GlobalPool2d):
    """Largest value of each channel of the whole image."""

    kind: ClassVar[str] = "global_max_pool2d"


@dataclass(frozen=True)
class Linear(Layer):
    """Matrix product with weights (out_features, in_features); the input is flattened row-major."""

    out_features: int
    bias: bool = True
    kind: ClassVar[str] = "linear"
    form: ClassVar[Form] = Form.VECTOR

    def problems(self) -> Iterator[str]:
        yield from whole("out_features", self.out_features, 1, MAX_EXTENT)
        yield from flag("bias", self.bias)


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Inference-time batch normalisation; weights weight, bias, running_mean, running_var of (channels,)."""

    eps: float = 1e-5
    kind: ClassVar[str] = "batch_norm"
    form: ClassVar[Form] = Form.SAME

    def problems(self) -> Iterator[str]:
        yield from number("eps", self.eps, 0)


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """x / (k + alpha / size * sum of squares over `size` neighbouring channels) ** beta."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    kind: ClassVar[str] = "local_response_norm"

    def problems(self) -> Iterator[str]:
        yield from whole("size", self.size, 1, MAX_WINDOW)
        yield from number("alpha", self.alpha, 0)
        yield from number("beta", self.beta, 0)
        found = [*number("k", self.k)]
        yield from found
        if not found and self.k <= 0:
            yield f"k must be above 0, not {self.k}"


@dataclass(frozen=True)
class LogSoftmax(Layer):
    """x - log(sum(exp(x))) over the channels of each position."""

    kind: ClassVar[str] = "log_softmax"
    form: ClassVar[Form] = Form.SAME


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) over the channels of each position."""

    kind: ClassVar[str] = "softmax"
    form: ClassVar[Form] = Form.SAME
