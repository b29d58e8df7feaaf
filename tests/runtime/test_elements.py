"""Types of elements: rounding to bfloat16, its words through DLPack and arrays of other libraries, and the tables of sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.errors import InputError
from fusec.runtime.elements import (
    HELD,
    Bfloat16,
    as_type_of,
    fits,
    is_bfloat16,
    offered,
    rounded,
    shareable,
    type_of,
    widened,
    words_of,
    wrong_type,
)
from fusec.runtime.interop import host_array, returner
from fusec.runtime.program import ELEMENT_BYTES, PLANES
from fusec.schedule.ir import Layout
from fusec.targets import device

LARGEST = 0x7F7F  # the largest finite bfloat16


def test_the_tables_of_artefacts_are_those_of_the_planner() -> None:
    """Two of each, since an artefact carries the runtime alone."""
    assert device.ELEMENT_BYTES == ELEMENT_BYTES == {name: dtype.itemsize for name, dtype in HELD.items()}
    assert {layout.value: layout.block for layout in Layout} == PLANES


def value_of(word: int) -> float:
    return float(np.array([word << 16], np.uint32).view(np.float32)[0])


@given(st.floats(width=32, allow_nan=False))
def test_numbers_round_to_the_nearest_word_ties_to_even(number: float) -> None:
    word = int(rounded(np.float32([number]), "bfloat16")[0])
    magnitude, sign = word & 0x7FFF, word & 0x8000
    assert sign == (0x8000 if np.signbit(number) else 0)
    if magnitude == 0x7F80:  # from half a step beyond the largest number on
        assert abs(number) >= value_of(LARGEST) + (value_of(LARGEST) - value_of(LARGEST - 1)) / 2
        return
    apart = [abs(abs(number) - value_of(near)) for near in (magnitude, max(magnitude - 1, 0), min(magnitude + 1, LARGEST))]
    assert apart[0] == min(apart)
    assert apart.count(apart[0]) == 1 or magnitude % 2 == 0 or magnitude in (0, LARGEST)


@given(st.integers(0, 0xFFFF))
def test_words_survive_the_way_there_and_back(word: int) -> None:
    wide = widened(Bfloat16(np.uint16([word])))
    again = rounded(wide, "bfloat16")
    assert wide.dtype == np.float32
    assert again.dtype == np.uint16
    assert again[0] == word or (np.isnan(wide[0]) and np.isnan(widened(Bfloat16(again))[0]))


def test_no_number_stays_none_and_half_precision_is_numpys() -> None:
    bits = np.uint32([0x7F800001, 0xFFFFFFFF, 0x7FC00000, 0x7F800000, 0xFF800000])
    assert np.isnan(widened(offered(bits.view(np.float32), "bfloat16"))).tolist() == [True] * 3 + [False] * 2
    x = np.array([[1e6, 1 / 3], [-1e-8, 65504.0]])
    made = offered(x, "float16")
    assert made.dtype == np.float16
    assert made.tolist() == [[np.inf, float(np.float16(1 / 3))], [0, 65504]]
    assert widened(made).dtype == np.float32
    assert rounded(np.float32([1]), "float32").dtype == np.float32
    strided = np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2].transpose(2, 0, 1)
    assert np.array_equal(widened(offered(strided, "bfloat16")), strided)


class Torchlike:
    """As much of a tensor of bfloat16 as is used: DLPack, and a type with the library's name in front."""

    class Type:
        def __str__(self) -> str:
            return "library.bfloat16"

    dtype = Type()

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def __dlpack__(self, **options: Any) -> Any:
        return Bfloat16(self.words).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


@pytest.mark.parametrize("options", [{}, {"max_version": (1, 0)}], ids=["first DLPack", "DLPack 1"])
def test_words_are_shared_as_bfloat16_and_taken_back(options: dict[str, object]) -> None:
    class Asking:
        """An exporter that is asked in one way only."""

        def __init__(self, value: Any) -> None:
            self.value = value

        def __dlpack__(self, **_: object) -> Any:
            return self.value.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    words = np.arange(12, dtype=np.uint16).reshape(3, 4)
    with pytest.raises((BufferError, RuntimeError)):  # NumPy is told that these are bfloat16, which it does not know
        np.from_dlpack(Asking(Bfloat16(words)))
    taken = np.from_dlpack(Asking(shareable(Bfloat16(words))))
    assert taken.dtype == np.uint16
    assert np.array_equal(taken, words)
    assert taken.ctypes.data == words.ctypes.data


def test_a_tensor_of_another_library() -> None:
    words = np.arange(12, dtype=np.uint16).reshape(1, 1, 3, 4)
    tensor = Torchlike(words)
    taken = host_array(tensor, "x")
    assert taken.ctypes.data == words.ctypes.data
    assert type_of(tensor, taken) == "bfloat16"
    assert fits("bfloat16", tensor, taken)
    assert isinstance(as_type_of(tensor, words), Bfloat16)
    assert as_type_of(words, words) is words
    assert shareable(words) is words


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.randn(2, 3, 4, 5).to(torch.bfloat16)
    words = host_array(tensor, "x")
    assert words.ctypes.data == tensor.data_ptr()
    assert np.array_equal(words, tensor.view(torch.int16).numpy().view(np.uint16))
    back = returner(tensor)
    assert back is not None
    again = back(as_type_of(tensor, words.copy()))
    assert again.dtype == torch.bfloat16
    assert torch.equal(again, tensor)
    with pytest.raises(InputError, match=r"\.detach\(\)"):
        host_array(tensor.clone().requires_grad_(), "x")


def test_plain_words_are_no_numbers() -> None:
    words = np.zeros(3, np.uint16)
    assert not fits("bfloat16", words, words)
    assert "'x' is uint16, but the model computes in bfloat16 (pass .to(torch.bfloat16)" in str(
        wrong_type("bfloat16", words, words, "x"))
    halves = np.zeros(3, np.float16)
    assert fits("float16", halves, halves)
    assert not fits("float32", halves, halves)
    assert "'x' is float32, but the model computes in float16 (pass .astype('float16') of it" in str(
        wrong_type("float16", halves, halves.astype(np.float32), "x"))
    numbers = Bfloat16(words)
    assert "'x' is bfloat16, but the model computes in float32" in str(wrong_type("float32", numbers, words, "x"))


def test_arrays_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16)
    words = words_of(x)
    assert is_bfloat16(x)
    assert words.dtype == np.uint16
    assert words.ctypes.data == x.ctypes.data
    assert as_type_of(x, words).dtype == x.dtype
    assert np.array_equal(widened(x), x.astype(np.float32))
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32)
    numbers = bits.view(np.float32)
    finite = ~np.isnan(numbers)
    assert np.array_equal(rounded(numbers[finite], "bfloat16"), words_of(numbers[finite].astype(ml_dtypes.bfloat16)))
