"""What a user sees of a failure, and the exit code it means.

In: whatever a command raises. Out: short lines on standard error and click's exit. Errors raised on purpose are one line per
problem; anything else is a bug of ours, and says so.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import click

from fusec import debug
from fusec.errors import FusecError, InputError, InternalError, MissingError

MOST_PROBLEMS = 20  # shown of one failure
LONGEST = 2000  # characters shown of one problem
BROKEN_PIPE, INTERRUPTED = 141, 130  # 128 + the signal's number, as shells report it
PLEASE_REPORT = "this is a bug in fusec; please report it"


def guarded(ctx: click.Context, body: Callable[[click.Context], object]) -> object:
    """Call `body(ctx)`; turn what it raises into lines on standard error and an exit code. click's own exits pass."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            result = body(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            _fail(ctx, error)
        return result


def _fail(ctx: click.Context, error: BaseException) -> NoReturn:
    if isinstance(error, KeyboardInterrupt):
        ctx.exit(INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        _drop_output()
        ctx.exit(BROKEN_PIPE)
    bug = isinstance(error, InternalError)
    if isinstance(error, FusecError):
        lines, code = problem_lines(error), error.exit_code
    elif isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        lines, code = [f"{place}{error.strerror or error}"], MissingError.exit_code
        _drop_output()  # it may be the output itself that cannot be written
    elif isinstance(error, MemoryError):
        lines, code = ["not enough memory"], MissingError.exit_code
    else:
        lines, code, bug = [f"{type(error).__name__}: {error}"], 1, True
    for line in lines:
        click.echo(f"error: {shown(line)}", err=True)
    if bug:
        _report_bug(error)
    ctx.exit(code)


def problem_lines(error: FusecError) -> list[str]:
    """One line per problem; after `MOST_PROBLEMS` of them only their number."""
    if not isinstance(error, InputError):
        return [str(error)]
    lines = [str(problem).replace("\n", "\\n") for problem in error.problems]
    more = len(lines) - MOST_PROBLEMS
    return lines if more <= 0 else [*lines[:MOST_PROBLEMS], f"... and {more} more"]


def shown(text: str) -> str:
    """Text for a terminal: control characters and the like as escapes, since names come from anybody's files."""
    safe = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text[:LONGEST])
    return safe if len(text) <= LONGEST else f"{safe} ..."


def _report_bug(error: BaseException) -> None:
    try:
        wanted = debug.level() >= 1
    except InputError:
        wanted = True
    if wanted:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    click.echo(PLEASE_REPORT if wanted else f"{PLEASE_REPORT}, with what FUSEC_DEBUG=1 adds to this", err=True)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None,
                  line: str | None = None) -> None:
    click.echo(f"warning: {shown(str(message))}", err=True)


def _drop_output() -> None:
    """Let what is still to be written to standard output go nowhere: Python would complain about it when it ends."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # standard output is no file of the system
        pass
