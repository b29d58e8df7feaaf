"""The types of a program's tensors as arrays hold them, and bfloat16, a type that NumPy and older CuPy do not have.

In: a caller's arrays and tensors. Out: arrays of `HELD`, and the way back. Of bfloat16 these are the 16-bit words themselves,
the upper halves of float32 numbers: they are moved, never calculated with. A library that has the type shares its words
through DLPack, where one byte says what they mean.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Problem

BFLOAT16 = "bfloat16"
HELD: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32), "float16": np.dtype(np.float16), BFLOAT16: np.dtype(np.uint16)}

UNSIGNED, BFLOAT = 1, 4  # DLPack: kDLUInt, kDLBfloat
# Where a capsule's tensor has the code of its type (dlpack.h: DLManagedTensor, DLManagedTensorVersioned, both with DLTensor)
CODE_AT = {b"dltensor": 20, b"dltensor_versioned": 52}
ROUND_BIT, QUIET = 0x7FFF, 0x40  # just under half of a bfloat16's last bit, in a float32; what tells no number from an infinity

_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi))


class Recoded:
    """A tensor of 16-bit elements as DLPack shares it, under another code of its type: same memory, same owner."""

    def __init__(self, value: Any, code: int) -> None:
        self._value, self._code = value, code

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self._value.__dlpack_device__()
        return int(kind), int(index)

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self._value.__dlpack__(**options)  # made for this call alone, so it may be changed
        name = _capsule_name(capsule)
        ctypes.c_uint8.from_address(_capsule_pointer(capsule, name) + CODE_AT[name]).value = self._code
        return capsule


class Bfloat16(Recoded):
    """An array of 16-bit words, NumPy's or CuPy's, as one of bfloat16: a model takes and gives it, and it speaks DLPack."""

    dtype = BFLOAT16

    def __init__(self, words: Any) -> None:
        super().__init__(words, BFLOAT)
        self.words = words

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.words.shape)


def is_bfloat16(value: Any) -> bool:
    """Whether the elements are of this type, by the name that every library gives it."""
    dtype = getattr(value, "dtype", None)
    return str(getattr(dtype, "name", dtype)).rpartition(".")[2] == BFLOAT16


def words_of(value: Any) -> Any:
    """The words of a `Bfloat16`, or of a NumPy or CuPy array of bfloat16 (as the package ml_dtypes has it); else `value`."""
    if isinstance(value, Bfloat16):
        return value.words
    dtype = getattr(value, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == "V" and is_bfloat16(value):
        return value.view(HELD[BFLOAT16])
    return value


def shareable(value: Any) -> Any:
    """What NumPy or CuPy can take through DLPack: a tensor of bfloat16 as one of words, any other as it is."""
    return Recoded(value, UNSIGNED) if is_bfloat16(value) else value


def as_type_of(like: Any, array: Any) -> Any:
    """A result under the type of `like`: of words a view where `like` is an array of the same library, else a `Bfloat16`."""
    if not is_bfloat16(like):
        return array
    return array.view(like.dtype) if isinstance(like, type(array)) else Bfloat16(array)


def type_of(value: Any, array: Any) -> str:
    """The type of a caller's elements in words; `array` is what holds them here."""
    return BFLOAT16 if is_bfloat16(value) else str(array.dtype)


def fits(dtype: str, value: Any, array: Any) -> bool:
    """Whether the elements of `value`, held by `array`, are of a program's type. Plain integers of 16 bits are no numbers."""
    return bool(array.dtype == HELD[dtype]) and (dtype != BFLOAT16 or is_bfloat16(value))


def wrong_type(dtype: str, value: Any, array: Any, name: str) -> Problem:
    """What is said of an input that does not fit a program's type: nothing is converted silently."""
    way = "pass .to(torch.bfloat16) of a tensor or .astype(ml_dtypes.bfloat16) of an array" if dtype == BFLOAT16 else \
        f"pass .astype('{dtype}') of it"
    return Problem(f"'{name}' is {type_of(value, array)}, but the model computes in {dtype}",
                   hint=f"{way}, scaled as in training")


def rounded(numbers: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Floating-point numbers as NumPy holds those of `dtype`, to the nearest, ties to even; beyond its range infinite."""
    with np.errstate(over="ignore"):
        if dtype != BFLOAT16:
            return numbers.astype(HELD[dtype], copy=False)
        bits = numbers.astype(np.float32, order="C").view(np.uint32)
    upper = bits >> 16
    return np.where(np.isnan(numbers), upper | QUIET, (bits + (ROUND_BIT + (upper & 1))) >> 16).astype(HELD[dtype])


def offered(numbers: NDArray[Any], dtype: str) -> Any:
    """Floating-point numbers, rounded to `dtype`, as what a model takes."""
    return typed(rounded(numbers, dtype), dtype)


def typed(held: Any, dtype: str) -> Any:
    """An array of `HELD`, NumPy's or CuPy's, as what a model takes."""
    return Bfloat16(held) if dtype == BFLOAT16 else held


def widened(result: Any) -> NDArray[Any]:
    """What a model gave for NumPy arrays or a `Bfloat16` of them, exactly, as float32 (or the wider type it has)."""
    if is_bfloat16(result):
        bits: NDArray[np.uint32] = words_of(result).astype(np.uint32) << 16
        return bits.view(np.float32)
    return np.asarray(result, np.float32) if result.dtype == np.float16 else np.asarray(result)
