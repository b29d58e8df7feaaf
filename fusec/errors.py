"""The three families of error, and the exit code each one means on the command line.

Every module raises these and nothing else on purpose. `Problem` is one finding with its place; an `InputError` carries all
findings of a file, so that a user mends them in one pass.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FEW = 3  # files of a folder that a hint lists
ALIKE = 0.75  # of two words' letters: one other letter in four, or two in eight; further guesses mislead


class FusecError(Exception):
    """Base of all errors fusec raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One finding in a user's input: what is wrong, where, and the way out."""

    what: str
    where: str = ""  # "file:line:column", a node's name, an option; empty when the whole input is meant
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.what}{hint}"


class InputError(FusecError):
    """The user's network, weights, array or option cannot be used; lists every problem found."""

    exit_code = 3

    def __init__(self, problems: Problem | str | Iterable[Problem], where: str = "", hint: str = "") -> None:
        if isinstance(problems, str):
            problems = Problem(problems, where, hint)
        if isinstance(problems, Problem):
            problems = (problems,)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Infeasible(FusecError):
    """A legal network cannot be scheduled as asked; names the tightest limit."""

    exit_code = 3


class MissingError(FusecError):
    """Something the machine lacks: a compiler, a GPU, a package, room on the disk."""

    exit_code = 5


class AccuracyError(FusecError):
    """Two executions of one network differ by more than was allowed."""

    exit_code = 4


class InternalError(FusecError):
    """A promise of ours is broken; always a bug in fusec."""


def nearest(word: str, known: Sequence[str] | Mapping[str, str]) -> str:
    """A hint naming the known word nearest to `word`, upper case or lower, or the mapping's value for it; else empty."""
    match = _closest(word, known if isinstance(known, Mapping) else {k: k for k in known})
    return f"did you mean '{match}'?" if match else ""


def nearest_file(path: Path, *suffixes: str) -> str:
    """A hint for a path where there is no file: that its folder is missing, or what that has of these suffixes.

    The nearest name; all, where none is near and they are few; else the empty string.
    """
    folder = path.parent
    try:
        if not folder.is_dir():
            return f"there is no folder '{folder}'"
        names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in suffixes)
    except (OSError, ValueError):  # it may not be read, or cannot be a path
        return ""
    match = _closest(path.stem, {Path(name).stem: name for name in names})  # an ending they share would make any two alike
    if match:
        return f"did you mean '{match}'?"
    return f"there is {', '.join(map(repr, names))}" if 0 < len(names) <= FEW else ""


def _closest(word: str, known: Mapping[str, str]) -> str | None:
    """The value whose key is most like `word`."""
    folded = {key.lower(): value for key, value in known.items()}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=ALIKE)
    return folded[found[0]] if found else None
