"""A kernel's arguments: Python values and NumPy arrays in, checked bytes in the kernel's own parameter types out."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Value = NDArray[np.generic] | np.generic | int | float | bytes

_FORMATS = {("i", 1): "<b", ("i", 2): "<h", ("i", 4): "<i", ("i", 8): "<q", ("u", 1): "<B", ("u", 2): "<H", ("u", 4): "<I",
            ("u", 8): "<Q", ("f", 4): "<f", ("f", 8): "<d"}


@dataclass(frozen=True)
class Parameter:
    """One parameter as the C++ side tells it.

    `role` is v for a value, r for a pointer to const, w for a pointer to writable memory; `kind` is i, u, f, or s for structs
    and void; `size` is in bytes, of the value or of one element behind the pointer.
    """

    role: str
    kind: str
    size: int

    def __str__(self) -> str:
        word = {"i": "int", "u": "uint", "f": "float", "s": "struct of "}[self.kind] + str(self.size * 8)
        return word if self.role == "v" else f"pointer to {'const ' if self.role == 'r' else ''}{word}"


@dataclass(frozen=True, eq=False)
class Argument:
    """One argument ready to pass: an array, or a value's bytes; `same_as` is an earlier argument with this very array."""

    parameter: Parameter
    array: NDArray[np.generic] | None
    data: bytes
    same_as: int

    @property
    def nbytes(self) -> int:
        return len(self.data) if self.array is None else self.array.nbytes


def parse_signature(text: str) -> tuple[Parameter, ...]:
    """Parameters from the C++ side's "role kind size, ..." text."""
    words = (part.split() for part in text.split(",") if part.strip())
    return tuple(Parameter(role, kind, int(size)) for role, kind, size in words)


def prepare(parameters: Sequence[Parameter], values: Sequence[Value]) -> tuple[Argument, ...]:
    """Checks and converts the arguments of a launch.

    Arrays must be C-contiguous, of the pointer's element type (any type where that is a struct such as float4 or void), and
    writable unless the pointer is to const. Python numbers take the parameter's type if they fit; NumPy scalars must have it.

    Raises
    ------
    TypeError, ValueError
        With the position of the argument and what the kernel wants there.
    """
    if len(parameters) != len(values):
        raise TypeError(f"the kernel takes {len(parameters)} arguments, {len(values)} were given")
    result: list[Argument] = []
    for i, (parameter, value) in enumerate(zip(parameters, values, strict=True)):
        try:
            if parameter.role == "v":
                result.append(Argument(parameter, None, _bytes(parameter, value), -1))
            else:
                array = _array(parameter, value)
                result.append(Argument(parameter, array, b"", _same_as(array, result)))
        except (TypeError, ValueError) as error:
            raise type(error)(f"argument {i} ({parameter}): {error}") from None
    return tuple(result)


def _array(parameter: Parameter, value: Value) -> NDArray[np.generic]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"needs an array, not {type(value).__name__}")
    if parameter.kind != "s" and (value.dtype.kind, value.dtype.itemsize) != (parameter.kind, parameter.size):
        raise TypeError(f"the array is of {value.dtype}")
    if not value.flags.c_contiguous:
        raise ValueError("the array is not C-contiguous")
    if parameter.role == "w" and not value.flags.writeable:
        raise ValueError("the array is read-only")
    return value


def _same_as(array: NDArray[np.generic], earlier: Sequence[Argument]) -> int:
    for i, other in enumerate(earlier):
        if other.array is None or not np.may_share_memory(array, other.array):
            continue
        if array.ctypes.data == other.array.ctypes.data and array.nbytes == other.array.nbytes:
            return i if other.same_as < 0 else other.same_as
        raise ValueError(f"the array overlaps that of argument {i} in part, which the emulator cannot copy")
    return -1


def _bytes(parameter: Parameter, value: Value) -> bytes:
    if isinstance(value, np.ndarray):
        raise TypeError("needs a value, not an array")
    if isinstance(value, np.generic):
        if parameter.kind != "s" and (value.dtype.kind, value.dtype.itemsize) != (parameter.kind, parameter.size):
            raise TypeError(f"the value is of {value.dtype}")
        value = value.tobytes()
    if isinstance(value, bytes):
        if len(value) != parameter.size:
            raise ValueError(f"needs {parameter.size} bytes, not {len(value)}")
        return value
    if (parameter.kind, parameter.size) not in _FORMATS:
        raise TypeError(f"needs bytes, not {type(value).__name__}")
    if parameter.kind != "f" and not isinstance(value, int):
        raise TypeError(f"needs an integer, not {type(value).__name__}")
    try:
        return struct.pack(_FORMATS[parameter.kind, parameter.size], value)
    except (struct.error, OverflowError):
        raise ValueError(f"{value} does not fit") from None
