"""Collects the problems of one description, each at its line and column.

In: findings of pydantic and of `read_yaml`, with trees that know their place. Out: one InputError with all of them in the order
of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fusec.errors import InputError, Problem, nearest
from fusec.graph.yaml_schema import DescriptionSpec, InputSpec
from fusec.graph.yaml_tree import Located, Mark, show
from fusec.graph.yaml_values import Edges, Spec

_HINTED = 50  # problems that get a nearest name: looking it up is slow in large files

_WORDS = {  # for pydantic's, which speak of Python
    "model_type": "Input should be a mapping", "list_type": "Input should be a list", "string_type": "Input should be text",
    "int_type": "Input should be a whole number", "float_type": "Input should be a number",
    "bool_type": "Input should be true or false",
}

Model = TypeVar("Model", bound=Spec)


class Findings:
    """The problems found so far.

    Parameters
    ----------
    path
        The description, for the problems' places.
    problems
        What the reading of the text has found already.
    """

    def __init__(self, path: Path, problems: Sequence[tuple[Mark, Problem]] = ()) -> None:
        self.path = path
        self.problems = list(problems)

    def place(self, mark: Mark) -> str:
        """A mark as "file:line:column"."""
        return f"{self.path}:{mark.line}:{mark.column}"

    def add(self, mark: Mark, what: str, hint: str = "") -> None:
        """One more problem."""
        self.problems.append((mark, Problem(what, self.place(mark), hint)))

    def error(self) -> InputError:
        """All problems in the order of the file, each once."""
        return InputError(dict.fromkeys(p for _, p in sorted(self.problems, key=lambda item: item[0])))

    def suggest(self, word: str, known: Sequence[str]) -> str:
        """The nearest known word as a hint; empty once there are many problems."""
        return nearest(word[:200], known) if len(self.problems) < _HINTED else ""

    def check(self, model: type[Model], tree: Located, subject: str) -> Model | None:
        """`tree` as a value of `model`; None, and the problems added, where it is not one."""
        try:
            return model.model_validate(tree.plain())
        except ValidationError as error:
            for found in error.errors(include_url=False):
                self._add_finding(model, tree, subject, found)
        return None

    def _add_finding(self, model: type[Spec], tree: Located, subject: str, found: Any) -> None:
        """One finding of pydantic's, at the deepest place of the file it leads to."""
        *above, last = found["loc"] or ("",)
        fields, subject = _nested(model, above, subject)
        if found["type"] == "extra_forbidden":
            parent = _deepest(tree, above)[0]
            self.add(parent.keys.get(str(last), parent.mark), f"unknown key {show(last)}",
                     self.suggest(str(last), list(fields.model_fields)) or f"{subject} takes {', '.join(fields.model_fields)}")
            return
        node, key = _deepest(tree, found["loc"])
        if found["type"] == "missing":
            self.add(node.mark, f"{subject} needs '{last}'", _values(fields, last))
            return
        message = _WORDS.get(found["type"], str(found["msg"]))
        field = next((s for s in reversed(found["loc"]) if s in fields.model_fields), "")
        what = f"{key or subject}: {message}"
        if message.startswith("Input "):
            what = f"{key or subject} {message[6:]}, not {show(node.plain())}"
        self.add(node.mark, what, _values(fields, field) or _values(model, found["loc"][0] if above else ""))


def _nested(model: type[Spec], above: Sequence[str | int], subject: str) -> tuple[type[Spec], str]:
    """The model, and its words, of the mapping a finding is in."""
    if model is DescriptionSpec and above and above[0] in ("input", "inputs"):
        return InputSpec, "an input"
    if model is not DescriptionSpec and above == ["padding"]:
        return Edges, "padding"
    return model, subject


def _deepest(tree: Located, loc: Sequence[str | int]) -> tuple[Located, str]:
    """The value that `loc` leads to, as far as the file goes, and its key; a list's item goes by the key of the list."""
    key = ""
    for step in loc:
        below = tree.get(step)
        if below is None:
            break
        tree = below
        if isinstance(step, str):
            key = f"'{step}'"
    return tree, key


def _values(model: type[Spec], key: str | int) -> str:
    """What a key takes, in words."""
    field = model.model_fields.get(str(key))
    return f"{key}: {field.title}" if field and field.title else ""
