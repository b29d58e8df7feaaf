"""How far tensors are apart, for `fusec compare`.

In: what kernels made and what is right. Out: a `Difference`, which a `Tolerance` allows or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.cli.output import extents
from fusec.errors import InternalError

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """Of the largest value: what a layer may add, and how far an output may be from what is right."""

    layer: float
    output: float

    def __str__(self) -> str:
        return f"{self.layer:g}" if self.layer == self.output else f"{self.layer:g} for a layer, {self.output:g} for an output"


@dataclass(frozen=True)
class Difference:
    """How far one tensor is from what it is compared with.

    Relative numbers are by the largest value of that, or absolute where it is 0.

    Attributes
    ----------
    own
        What this layer adds: its values against a float64 layer fed with the very values the kernel read. None for outputs of
        the whole network, and where the reference is not what it is compared with.
    beyond
        The largest right value (of such a float64 layer, else of what it is compared with) that is finite where the kernel's
        is infinite: too large for the type of the tensors. Else None.
    """

    layer: str
    tensor: str
    chain: str
    shape: tuple[int, ...]
    peak: float
    absolute: float
    relative: float
    place: tuple[int, ...]  # of the largest difference
    own: float | None
    beyond: float | None = None

    @property
    def judged(self) -> float:
        """What the tolerance is for: a layer must not answer for the roundings of those before it, an output must."""
        return self.relative if self.own is None else self.own

    def within(self, tolerance: Tolerance) -> bool:
        return self.judged <= (tolerance.output if self.own is None else tolerance.layer)


def beyond_range(made: Array, right: Array) -> float | None:
    """The largest of the right values, where the kernel made infinities of finite ones."""
    lost = np.isinf(made.reshape(right.shape)) & np.isfinite(right)
    return float(np.abs(right[lost]).max()) if lost.any() else None


def difference_of(layer: str, tensor: str, chain: str, made: Array, wanted: Array, added: float | None = None,
                  beyond: float | None = None) -> Difference:
    """A row of the table; `added` and `beyond` as there, `added` not yet relative."""
    apart = distances(made, wanted)
    peak = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    largest = float(apart.max(initial=0.0))
    place = np.unravel_index(int(apart.argmax()), apart.shape) if apart.size else ()
    return Difference(layer, tensor, chain, tuple(wanted.shape), peak, largest, largest / (peak or 1.0),
                      tuple(int(i) for i in place), None if added is None else added / (peak or 1.0), beyond)


def distances(made: Array, wanted: Array) -> Array:
    """Absolute differences; 0 where both are the same infinity or no number, infinite where only one is."""
    if made.size != wanted.size:
        raise InternalError(f"a kernel made {extents(made.shape)} values, the reference {extents(wanted.shape)}")
    values = made.reshape(wanted.shape).astype(np.float64)
    same = (values == wanted) | (np.isnan(values) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(values - wanted))
    return np.where(np.isnan(apart), np.inf, apart)


def tolerance_for(relative: float) -> float:
    """The smallest tolerance of two digits that is not below `relative`."""
    if relative == 0 or not math.isfinite(relative):
        return relative
    exponent = math.floor(math.log10(relative)) - 1
    digits = math.ceil(relative / 10**exponent)
    rounded = float(f"{digits}e{exponent}")
    return rounded if rounded >= relative else float(f"{digits + 1}e{exponent}")
