"""The three families of error, and the exit code each one means on the command line.

Every module raises these and nothing else on purpose. `Problem` is one finding with its place; an `InputError` carries all
findings of a file, so that a user mends them in one pass.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint naming the known word nearest to `word`, or the empty string."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else ""
