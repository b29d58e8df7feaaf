"""Numbers in words, tables, JSON, and progress that is shown only when there is time to see it."""

from __future__ import annotations

import io
import json
import os
import sys
import time

import pytest

from fusec.cli import output, progress
from fusec.cli.progress import Progress


@pytest.mark.parametrize(("count", "words"), [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (200 * 1024, "200 KiB"), (3 << 30, "3.0 GiB"),
    (1 << 60, "1048576 TiB")])
def test_bytes(count: int, words: str) -> None:
    assert output.in_bytes(count) == words


@pytest.mark.parametrize(("seconds", "words"), [
    (0.0, "0.00 µs"), (1.5e-6, "1.50 µs"), (12.34e-6, "12.3 µs"), (4.567e-3, "4.57 ms"), (0.5, "500 ms"), (1.0, "1.00 s"),
    (123.4, "123 s")])
def test_seconds(seconds: float, words: str) -> None:
    assert output.in_seconds(seconds) == words


@pytest.mark.parametrize(("count", "words"), [
    (0, "0"), (61706, "61,706"), (999_999, "999,999"), (1_230_000, "1.23 M"), (7_169_999_999, "7.17 G"),
    (5_000_000_000_000, "5,000 G")])
def test_counts(count: int, words: str) -> None:
    assert output.in_words(count) == words


def test_names_are_no_markup_and_columns_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", ">size"), [("[red]a[/red]", "1"), (":smile: \x1b[1m", "1000")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name             size", "[red]a[/red]        1", ":smile: \\x1b[1m  1000"]


def test_a_table_nobody_reads_ends_like_any_other_output(environment: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(writer, "wb", buffering=0), write_through=True))
    with pytest.raises(BrokenPipeError):  # rich's own way out is exit code 1
        output.table(("name",), [("a",)])


def test_json_has_no_infinities(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": (1.5, float("inf"), float("nan")), "b": {"c": None}})
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None, None], "b": {"c": None}}


# ---- progress


def wait_for(stream: io.StringIO, text: str) -> str:
    """What was written once `text` is there."""
    end = time.monotonic() + 20
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.005)
    return stream.getvalue()


@pytest.fixture
def stream(environment: pytest.MonkeyPatch) -> io.StringIO:
    environment.setattr(progress, "DELAY", 0.02)
    return io.StringIO()


def test_what_is_quick_is_not_mentioned(stream: io.StringIO, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(progress, "DELAY", 60.0)
    with Progress(stream) as shown:
        shown.phase("planning")
        shown.phase("building")
        shown(1, 2)
    assert stream.getvalue() == ""


def test_what_is_slow_gets_lines(stream: io.StringIO) -> None:
    with Progress(stream) as shown:
        shown.phase("planning")
        wait_for(stream, "planning ...\n")
        shown.phase("building")
        shown(0, 9)
        wait_for(stream, "building 0 of 9\n")
        shown(1, 9)  # too soon after the line before
        shown(9, 9)
    assert stream.getvalue() == "planning ...\nbuilding 0 of 9\nbuilding 9 of 9\n"


def test_nothing_is_shown_after_the_end(stream: io.StringIO) -> None:
    with Progress(stream) as shown:
        shown.phase("planning")
    time.sleep(0.1)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away(stream: io.StringIO, environment: pytest.MonkeyPatch) -> None:
    stream.isatty = lambda: True  # type: ignore[method-assign]
    environment.setenv("TERM", "xterm")
    with Progress(stream) as shown:
        shown.phase("building kernels")
        shown(3, 12)
        wait_for(stream, "3/12")
        shown.phase("running")
        wait_for(stream, "running")
    assert "building kernels" in stream.getvalue()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1  # the cursor is back
