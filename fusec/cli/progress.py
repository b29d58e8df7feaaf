"""What takes longer than a second says so on standard error: a bar on a terminal, lines elsewhere.

In: the name of each phase and how far it is. Out: text on standard error; nothing when all is done in time.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

import click

DELAY = 1.0  # seconds before anything is shown
EVERY = 2.0  # seconds between lines of one phase, where there is no terminal


class Progress:
    """A context whose phases are shown once they have lasted `DELAY` seconds (a bar stays for the phases after it too).

    Called with the number of things done and of all: it is a `fusec.runtime.build.Progress`.

    Parameters
    ----------
    stream
        Where to; None is standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._guard = threading.RLock()
        self._text, self._done, self._total = "", 0, 0
        self._phase = 0  # how many there have been; a timer set for one must not show another
        self._showing = False
        self._last = 0.0  # when a line was printed
        self._bar: Any = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        with self._guard:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def phase(self, text: str, total: int = 0) -> None:
        """Begin a phase, of `total` steps if that is known."""
        self._stop()
        with self._guard:
            self._text, self._done, self._total = text, 0, total
            if self._bar is not None:
                self._showing = True
                self._show(new=True)
                return
            self._timer = threading.Timer(DELAY, self._begin, (self._phase,))
            self._timer.daemon = True
            self._timer.start()

    def __call__(self, done: int, total: int) -> None:
        with self._guard:
            self._done, self._total = done, total
            self._show(new=False)

    def _stop(self) -> None:
        """End the phase."""
        with self._guard:
            self._phase += 1
            self._showing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None

    def _begin(self, phase: int) -> None:
        """What the timer does: show the phase it was set for, if that is not over."""
        with self._guard, contextlib.suppress(OSError, ValueError):  # the stream may be closed by now
            if phase != self._phase:
                return
            if self._terminal:
                self._bar = _bar(self._stream)
                self._bar.start()
                self._bar.add_task(self._text, total=None)
            self._showing = True
            self._show(new=True)

    def _show(self, new: bool) -> None:
        if not self._showing:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=self._text, completed=self._done, total=self._total or None)
        elif new or self._done == self._total or time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            count = f" {self._done} of {self._total}" if self._total else " ..."
            click.echo(f"{self._text}{count}", file=self._stream)


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=stream, force_terminal=True, markup=False, highlight=False)
    return Progress(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    console=console, transient=True)
