"""The environment variables fusec listens to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fusec import debug
from fusec.errors import InputError, MissingError

NAMES = ("FUSEC_DUMP", "FUSEC_DEBUG", "FUSEC_CACHE", "FUSEC_THREADS", "CXX")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_unset_and_empty_are_the_same(value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        if value is not None:
            monkeypatch.setenv(name, value)
    assert (debug.level(), debug.threads(), debug.compiler(), debug.cache_folder(), debug.dump_folder()) == (0, *[None] * 4)
    debug.dump("00-graph.txt", "text", debug.TIMINGS)
    assert list(tmp_path.iterdir()) == []


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(NAMES, ("~/dump", "3", "/cache", "12", "clang++ -m64"), strict=True):
        monkeypatch.setenv(name, value)
    assert debug.dump_folder() == Path.home() / "dump"
    assert (debug.level(), debug.cache_folder(), debug.threads(), debug.compiler()) == (3, Path("/cache"), 12, "clang++ -m64")


@pytest.mark.parametrize(("name", "value"), [("FUSEC_DEBUG", "6"), ("FUSEC_DEBUG", "-1"), ("FUSEC_DEBUG", "yes"),
                                             ("FUSEC_THREADS", "0"), ("FUSEC_THREADS", "1.5"), ("FUSEC_THREADS", "9" * 5000),
                                             ("FUSEC_THREADS", "٣"), ("FUSEC_THREADS", "²")])
def test_wrong_values_name_the_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=rf"{name}: .* is not an integer from"):
        debug.level() if name == "FUSEC_DEBUG" else debug.threads()


def test_dumps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FUSEC_DUMP", str(tmp_path / "a" / "b"))
    debug.dump("00-graph.txt", "grüße", debug.PLAN)
    assert (tmp_path / "a" / "b" / "00-graph.txt").read_text("utf-8") == "grüße"
    monkeypatch.setenv("FUSEC_DUMP", str(tmp_path / "a" / "b" / "00-graph.txt"))
    with pytest.raises(MissingError, match="cannot write the dump"):
        debug.dump("01.txt", "x", debug.PLAN)


def test_lines_are_printed_up_to_the_level(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FUSEC_DEBUG", "2")
    debug.say(debug.PLAN, "plan")
    debug.say(debug.SCHEDULE, "schedule")
    assert capsys.readouterr() == ("", "plan\n")


def test_dumps_are_printed_up_to_the_level(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FUSEC_DEBUG", "3")
    debug.dump("03-schedule.txt", "tile\n", debug.SCHEDULE)
    debug.dump("06-kernel.cu", "source\n", debug.SOURCE)
    assert capsys.readouterr() == ("", "== 03-schedule.txt\ntile\n")


def test_steps_are_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("0", "1"):
        monkeypatch.setenv("FUSEC_DEBUG", value)
        with debug.timed("plan"):
            pass
    assert re.fullmatch(r"plan +\d+\.\d ms\n", capsys.readouterr().err)


def test_a_step_that_fails_has_no_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FUSEC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError), debug.timed("plan"):
        _ = 1 / 0
    assert capsys.readouterr().err == ""
