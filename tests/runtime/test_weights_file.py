"""The weights file: what is written is read, other readers read it too, and damage is noticed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fusec.errors import InputError
from fusec.runtime import weights


def some() -> dict[str, np.ndarray]:
    sizes = {"k_0": 5, "k_1": 1024, "k_2": 0, "k_3": 16, "k_4": 33}
    return {name: np.arange(size, dtype=np.float32) + i for i, (name, size) in enumerate(sizes.items())}


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_round_trip_aligned_and_read_only(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, some())
    got = weights.read(path)
    assert got.keys() == some().keys()
    for name, array in some().items():
        assert got[name].dtype == np.float32
        assert np.array_equal(got[name], array)
        assert got[name].ctypes.data % 64 == 0 or not got[name].size
    assert not got["k_1"].flags.writeable  # mapped where it lies


def test_the_safetensors_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for arrays in (some(), {}):
        weights.write(path, arrays)
        theirs = load_file(path)
        assert theirs.keys() == arrays.keys()
        assert all(np.array_equal(theirs[name], arrays[name]) for name in arrays)


def test_arrays_that_are_not_dense_are_written_right(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, {"a": np.arange(10, dtype=np.float32)[::-2]})
    assert weights.read(path)["a"].tolist() == [9, 7, 5, 3, 1]


def entry(start: int = 0, end: int = 8, dtype: str = "F32", shape: object = (2,)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


@pytest.mark.parametrize("content", [
    b"", b"\1", raw(entry())[:20], raw(entry(), b"1234567"), raw(entry(end=12), b"x" * 12), raw(entry(-8, 0), b"x" * 8),
    raw(entry(8, 0), b"x" * 8), raw(entry(dtype="F64"), b"x" * 8), raw(entry(shape=["2"]), b"x" * 8),
    raw(entry(shape=None), b"x" * 8),
    raw({"a": {}}), raw({"a": 3}), raw([]), raw(b"{"), raw(b"\xff\xff"), (1 << 63).to_bytes(8, "little") + b"{}",
    raw(b"[" * 100000), raw(entry(shape=[2 ** 62]), b"x" * 8)], ids=range(18))
def test_damage_is_an_error_of_the_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"w\.safetensors: the weights are damaged"):
        weights.read(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        weights.read(tmp_path / "none")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "w"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert isinstance(weights.read(path), dict)
