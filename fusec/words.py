"""Numbers in words, for people to read: sizes, durations, counts, shapes.

In: numbers. Out: short texts. The command line's tables and the pages of `explain` say the same number in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def in_bytes(count: float) -> str:
    """A size: `312 B`, `1.2 MiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    power = min(int(math.log2(count) // 10), 4)
    return f"{count / 1024**power:.{0 if count / 1024**power >= 100 else 1}f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def in_seconds(seconds: float) -> str:
    """A duration with three digits: `12.3 µs`, `4.56 ms`, `78.9 s`."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * factor
        if value >= 1 or unit == "µs":
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    raise AssertionError("microseconds take everything")


def in_words(count: float) -> str:
    """A large count with three digits: `61,706`, `1.23 G`."""
    for unit, factor in (("G", 1e9), ("M", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:,.0f}"


def extents(shape: Iterable[int]) -> str:
    """A shape: `1x3x480x640`."""
    return "x".join(map(str, shape))


def plural(count: int, word: str) -> str:
    """`1 kernel`, `2 kernels`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
