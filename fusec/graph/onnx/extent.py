"""Sizes that are known only when the network runs, as exact arithmetic.

In: names of open dimensions of an ONNX graph, and integers. Out: polynomials of these names with rational coefficients, so
that what a file computes of shapes (`Shape`, `Gather`, `Mul`, `Concat`, ...) is folded even where a size is open. An `Extent`
that is a whole number is a plain int. What does not divide evenly becomes a name of its own, `floor((h + 1)/2)`, equal to
itself alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fusec.graph.shapes import SizeRule

MOST_TERMS = 16  # of a polynomial; a shape's has one or two
LONGEST_NAME = 200  # of an extent that is a name of its own; beyond it the name is a digest

Monomial = tuple[str, ...]


class Unresolved(Exception):
    """Something of open sizes has no answer before the network runs."""


@dataclass(frozen=True)
class Open:
    """A polynomial of open sizes; make one with `name` and arithmetic. Division and rounding are exact or `Unresolved`."""

    terms: tuple[tuple[Monomial, Fraction], ...]

    def __add__(self, other: object) -> Any:
        return _sum(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: object) -> Any:
        return _sum(self, other, -1)

    def __rsub__(self, other: object) -> Any:
        return _sum(self * -1, other, 1)

    def __neg__(self) -> Any:
        return self * -1

    def __mul__(self, other: object) -> Any:
        made: dict[Monomial, Fraction] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                key = tuple(sorted((*left, *right)))
                made[key] = made.get(key, Fraction(0)) + a * b
        return _extent(made)

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> Any:
        found = divide(self, other)
        if found is None:
            raise Unresolved(f"({self}) / ({other}) is no multiple of open sizes")
        return found

    def __rtruediv__(self, other: object) -> Any:
        found = divide(other, self)
        if found is None:
            raise Unresolved(f"({other}) / ({self}) is no multiple of open sizes")
        return found

    def __floordiv__(self, other: object) -> Any:
        found = divide(self, other)
        return _named(f"floor(({self})/({other}))") if found is None else floor(found)

    def __rfloordiv__(self, other: object) -> Any:
        found = divide(other, self)
        return _named(f"floor(({other})/({self}))") if found is None else floor(found)

    def __str__(self) -> str:
        return " + ".join("*".join((*((str(c),) if c != 1 or not names else ()), *names)) for names, c in self.terms)

    @property
    def positive(self) -> bool:
        """Whether it is above 0 for all sizes of at least 1: no coefficient is negative."""
        return all(c > 0 for _, c in self.terms)


Extent = int | Open


def name(symbol: str) -> Open:
    """The open size of this name."""
    return Open((((symbol,), Fraction(1)),))


def divide(value: object, by: object) -> Any:
    """The exact quotient, or None: a divisor of several terms has one only where it is the value itself, or a multiple."""
    above, below = _terms(value), _terms(by)
    if not below:
        raise Unresolved("division by zero")
    if len(below) == 1:
        ((names, factor),) = below
        made = {}
        for have, c in above:
            left = _without(have, names)
            if left is None:
                return None
            made[left] = c / factor
        return _extent(made)
    if len(above) == len(below):
        ratio = above[0][1] / below[0][1]
        if all(a == b and c == d * ratio for (a, c), (b, d) in zip(above, below, strict=True)):
            return _extent({(): ratio})
    return None


def floor(value: Any) -> Any:
    """The largest whole number not above a number or an extent."""
    if isinstance(value, Open):
        return value if all(c.denominator == 1 for _, c in value.terms) else _named(f"floor({value})")
    return math.floor(value)


def ceil(value: Any) -> Any:
    """The least whole number not below."""
    if isinstance(value, Open):
        return value if all(c.denominator == 1 for _, c in value.terms) else _named(f"ceil({value})")
    return math.ceil(value)


def equal(one: Any, other: Any) -> bool:
    """Whether two extents or numbers are equal for all sizes; `Unresolved` where that depends on the sizes."""
    if not isinstance(one, Open) and not isinstance(other, Open):
        return bool(one == other)
    if one == other:
        return True
    apart = one - other
    if not isinstance(apart, Open):
        return False
    if apart.positive or (-apart).positive:
        return False
    raise Unresolved(f"whether {one} is {other} depends on the image's size")


def follow(rule: SizeRule, extent: Extent) -> Extent:
    """What a layer's size rule makes of an extent."""
    if isinstance(extent, int):
        return rule(extent)
    made: list[Extent] = [(extent * multiply + add) // divisor for multiply, add, divisor in rule.terms]
    if all(value == made[0] for value in made):
        return made[0]
    return _named(f"min({', '.join(map(str, made))})")


def product(extents: Any) -> Extent:
    """All extents multiplied; 1 for none."""
    made: Any = 1
    for extent in extents:
        made = made * extent
    return made  # type: ignore[no-any-return]


def _terms(value: object) -> tuple[tuple[Monomial, Fraction], ...]:
    if isinstance(value, Open):
        return value.terms
    if isinstance(value, int | float | Fraction) and math.isfinite(value):
        return (((), Fraction(value)),) if value else ()
    raise Unresolved(f"arithmetic of an open size with {value!r:.40}")


def _sum(one: Open, other: object, sign: int) -> Any:
    made = dict(one.terms)
    for names, c in _terms(other):
        made[names] = made.get(names, Fraction(0)) + sign * c
    return _extent(made)


def _extent(terms: Mapping[Monomial, Fraction]) -> Any:
    """The polynomial; a constant as a plain number."""
    kept = tuple(sorted((names, c) for names, c in terms.items() if c))
    if not kept:
        return 0
    if len(kept) > MOST_TERMS or max(len(names) for names, _ in kept) > MOST_TERMS:
        raise Unresolved(f"a size of more than {MOST_TERMS} terms")
    if kept[0][0] == () and len(kept) == 1:
        constant = kept[0][1]
        return int(constant) if constant.denominator == 1 else constant
    return Open(kept)


def _without(names: Monomial, taken: Monomial) -> Monomial | None:
    left = list(names)
    for symbol in taken:
        if symbol not in left:
            return None
        left.remove(symbol)
    return tuple(left)


def _named(words: str) -> Open:
    return name(words if len(words) <= LONGEST_NAME else f"size {hashlib.sha256(words.encode()).hexdigest()[:16]}")
