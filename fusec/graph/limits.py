"""How large the numbers of a layer may be, and the checks of single values.

In: a value from whoever makes a layer. Out: what is wrong with it, in words; nothing when it is sound. `layers` checks every
layer with these, made in Python or read from a file; the YAML reader has the same limits, and says where in the file it stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

MAX_EXTENT = 1 << 20  # largest channel count or image side accepted, so that products stay far inside 64 bits
MAX_BATCH = (1 << 31) - 1  # images of one call
MAX_WINDOW = 1024  # of a stride, a dilation, neighbouring channels; in descriptions of a kernel's side too
MAX_FACTOR = 64  # of an enlargement
MAX_NUMBER = 1e30  # finite in float32 too


def whole(name: str, value: object, low: int, high: int) -> Iterator[str]:
    """A Python integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        yield f"{name} must be a whole number, not {_word(value)}"
    elif not low <= value <= high:
        yield f"{name} must be {low} to {high:,}, not {_word(value)}"


def pair(name: str, value: object, low: int, high: int) -> Iterator[str]:
    """A tuple (height, width) of two such integers."""
    if not isinstance(value, tuple) or len(value) != 2:
        yield f"{name} must be a tuple (height, width), not {_word(value)}"
        return
    for part in dict.fromkeys(value):
        yield from whole(name, part, low, high)


def number(name: str, value: object, low: float = -MAX_NUMBER) -> Iterator[str]:
    """A Python number from `low` to `MAX_NUMBER`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"{name} must be a number, not {_word(value)}"
    elif not math.isfinite(value):
        yield f"{name} must be finite, not {value}"
    elif not low <= value <= MAX_NUMBER:
        yield f"{name} must be {low:g} to {MAX_NUMBER:g}, not {_word(value)}"


def flag(name: str, value: object) -> Iterator[str]:
    """True or False."""
    if not isinstance(value, bool):
        yield f"{name} must be True or False, not {_word(value)}"


def choice(name: str, value: object, options: tuple[str, ...]) -> Iterator[str]:
    """One of some words."""
    if not isinstance(value, str) or value not in options:
        yield f"{name} must be {' or '.join(options)}, not {_word(value)}"


def _word(value: object) -> str:
    return f"{value!r:.60} ({type(value).__name__})" if not isinstance(value, int | float | str | bool) else f"{value!r:.60}"
