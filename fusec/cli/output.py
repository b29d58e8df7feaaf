"""Printing: tables for people, JSON for programs; with the numbers in words of `fusec.words`.

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
from fusec.words import extents as extents
from fusec.words import in_bytes as in_bytes
from fusec.words import in_seconds as in_seconds
from fusec.words import in_words as in_words
from fusec.words import plural as plural

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
