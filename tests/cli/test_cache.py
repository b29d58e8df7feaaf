"""`fusec cache` and `fusec doctor`: what they say of the kernels kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.cli.doctor import _write_problem
from tests.cli.harness import NO_WEIGHTS, invoke, invoke_json, run, write


@pytest.fixture
def filled(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    """A cache with the kernels of one network, made by another process: damage to a loaded library is the end of its user."""
    folder = tmp_path / "cache"
    environment.setenv("FUSEC_CACHE", str(folder))
    run("compile", write(tmp_path, NO_WEIGHTS), "--target", "cpu", "-o", tmp_path / "built")
    return folder


def test_list_and_clear(filled: Path) -> None:
    count = len(list(filled.glob("*.so")))
    assert f"{count} kernels, " in invoke("cache", "ls").stdout
    (filled / "letter.txt").write_text("not ours")
    assert invoke("cache", "clear").stdout == f"removed {count} kernels from {filled}\n"
    assert [p.name for p in filled.iterdir()] == ["letter.txt"]
    assert "0 kernels" in invoke("cache", "ls").stdout


def test_damage_is_found_and_mended(filled: Path, tmp_path: Path) -> None:
    victim = sorted(filled.glob("*.so"))[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    result = invoke("cache", "verify", code=1)
    assert f"damaged: {victim.name}" in result.stdout
    assert [e["name"] for e in invoke_json("cache", "verify", code=1)["damaged"]] == [victim.name]
    invoke("compile", tmp_path / "net.yaml", "--target", "cpu", "-o", tmp_path / "built")
    assert "none damaged" in invoke("cache", "verify").stdout


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FUSEC_CACHE", str(tmp_path / "none"))
    assert invoke_json("cache", "ls")["entries"] == []
    assert invoke_json("cache", "clear")["removed"] == 0
    assert not (tmp_path / "none").exists()


def test_doctor_on_the_cache(filled: Path, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    made = invoke_json("doctor")["cache"]
    assert (made["folder"], made["writable"], made["problem"]) == (str(filled), True, None)
    assert made["kernels"] == len(list(filled.glob("*.so")))
    environment.setenv("FUSEC_CACHE", str(tmp_path / "net.yaml" / "below"))
    made = invoke_json("doctor")["cache"]
    assert made["writable"] is False
    assert made["problem"]
    assert "not writable" in invoke("doctor").stdout


def test_writing_is_tried_where_the_folder_would_be(tmp_path: Path) -> None:
    assert _write_problem(tmp_path / "a" / "b") is None
    assert not (tmp_path / "a").exists()
    assert _write_problem(Path("/proc/none")) is not None
