"""Damaged ONNX files: a bounded part of the fuzz run, with hypothesis and by seeds. `onnx_fuzz.py` has the whole."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.onnx_fuzz import check, watch
from tests.fuzz.onnx_mutations import damaged, seeds

COUNT = 500


@pytest.fixture(scope="module")
def built() -> set[str]:
    watch()
    return set()


def test_what_is_not_damaged_is_built(tmp_path: Path, built: set[str]) -> None:
    assert [check(data, tmp_path, built) for data in seeds()] == ["built"] * len(seeds())


def test_damaged_files_are_refused_or_mean_what_they_say(tmp_path: Path, built: set[str]) -> None:
    said = [check(damaged(random.Random(seed)), tmp_path, built) for seed in range(COUNT)]
    assert said.count("refused") > COUNT // 2
    assert said.count("compared") + said.count("built") > COUNT // 20


@settings(max_examples=100)
@given(chance=st.randoms(use_true_random=False))
def test_damage_that_hypothesis_looks_for(built: set[str], chance: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(damaged(chance), Path(folder), built)


@settings(max_examples=100)
@given(data=st.binary(max_size=300))
def test_bytes_of_any_kind(built: set[str], data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(data, Path(folder), built)
