"""The environment variables fusec listens to, read here and nowhere else.

In: the process environment. Out: values the pipeline passes on as arguments, and the helpers that write dumps and debug lines.
Sits beside the pipeline; any step may use it except the runtime, which also lives in artefacts without fusec.

    FUSEC_DUMP      folder for numbered dumps of every step (00-graph.txt ... 07-compiler-*.txt)
    FUSEC_DEBUG     what to print of the same on standard error, each level with those before it (the constants below)
    FUSEC_CACHE     folder for compiled kernels instead of the user's cache folder
    FUSEC_THREADS   threads a CPU model uses instead of all the process may run on
    CXX             the C++ compiler, with options if need be
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fusec.errors import InputError, MissingError

TIMINGS = 1  # of each step
PLAN = 2  # the graphs, and the chains they are cut into
SCHEDULE = 3  # of every chain, and its mapping
SOURCE = 4  # of every kernel, and the program they make up
COMPILER = MAX_LEVEL = 5  # what the compiler said of every kernel it was asked for


def _text(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _integer(name: str, least: int, most: int) -> int | None:
    text = _text(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not least <= int(text[:9]) <= most or len(text) > 9:
        raise InputError(f"{text!r} is not an integer from {least} to {most}", where=name, hint=f"unset {name}, or correct it")
    return int(text)


def level() -> int:
    """How much to tell, 0 to 5; InputError when FUSEC_DEBUG is anything else."""
    return _integer("FUSEC_DEBUG", 0, MAX_LEVEL) or 0


def threads() -> int | None:
    """Threads a CPU model is to use; None leaves it to the runtime. InputError when FUSEC_THREADS is no count."""
    return _integer("FUSEC_THREADS", 1, 4096)


def compiler() -> str | None:
    """The C++ compiler the user prefers."""
    return _text("CXX")


def cache_folder() -> Path | None:
    """Where compiled kernels are to be kept; None is the user's cache folder."""
    text = _text("FUSEC_CACHE")
    return Path(text).expanduser() if text else None


def dump_folder() -> Path | None:
    """Where every step leaves its result; None for nowhere."""
    text = _text("FUSEC_DUMP")
    return Path(text).expanduser() if text else None


def dump(name: str, text: str, importance: int) -> None:
    """Tell one step's result: into the dump folder, if there is one, and to standard error from level `importance` on.

    Raises
    ------
    MissingError
        The folder cannot be written.
    """
    say(importance, f"== {name}\n{text}")
    folder = dump_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MissingError(f"cannot write the dump {folder / name}: {error.strerror or error}") from None


def say(importance: int, text: str) -> None:
    """Print `text` to standard error when FUSEC_DEBUG is at least `importance`."""
    if level() >= importance:
        print(text.rstrip("\n"), file=sys.stderr, flush=True)


@contextlib.contextmanager
def timed(step: str) -> Iterator[None]:
    """A context that says how long it took, at level `TIMINGS`; nothing when it ends in an error."""
    began = time.perf_counter()
    yield
    say(TIMINGS, f"{step:10}{1000 * (time.perf_counter() - began):10.1f} ms")
