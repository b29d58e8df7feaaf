"""Printing: tables for people, JSON for programs, and numbers in words.

In: rows of text, plain data. Out: standard output (tables, lines, JSON) and standard error (notes). Names of a user's network
are printed as they are, never read as markup.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from fusec.cli.failures import shown

PLAIN_WIDTH = 1000  # columns of a file or pipe: nothing is cut


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object. Numbers that JSON does not have become null."""
    click.echo(json.dumps(_plain(data), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def note(text: str) -> None:
    """A remark that does not belong to the result."""
    click.echo(f"note: {shown(text)}", err=True)


def line(text: str = "") -> None:
    """A line of the result."""
    click.echo(shown(text))


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Lines of a name and a value, the values in a column."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        line(f"{name:{width}}  {value}".rstrip())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table. A column whose heading starts with `>` is aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False, width=None if terminal else PLAIN_WIDTH)
    drawn = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False)
    for name in columns:
        drawn.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(shown(cell) for cell in row))
    with console.capture() as captured:  # rich would end the process itself when nobody reads on
        console.print(drawn)
    click.echo(captured.get(), nl=False)


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
