"""YAML text as a tree of values that know their place; the first half of `read_yaml`.

In: the path of a description. Out: a `Located` tree of text, numbers, lists and mappings, each with its line and column. Only
the plain part of YAML is accepted: one document, no anchors, aliases or tags, so that a small file cannot become a large value.
The tree is built from the parser's events, one by one, so that depth and aliases are refused before anything grows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from fusec.errors import InputError, Problem, nearest_file

MAX_BYTES = 1_000_000
MAX_DEPTH = 8
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SYNTAX = {  # hints for what the parser says of common slips
    r"'\t'": "indent with spaces, not tabs",
    "mapping values are not allowed": "check the indentation; text with ': ' in it needs quotes",
}
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}


@dataclass(frozen=True, order=True)
class Mark:
    """A place in the file; both numbers start at 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Located:
    """A value with its place: `value` is text, a number, True, False, None, a tuple of trees or a dict of trees."""

    value: Any
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)  # of a mapping: where each key stands

    def plain(self) -> Any:
        """The value as Python's own lists and dicts."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, tuple):
            return [item.plain() for item in self.value]
        return self.value

    def get(self, key: str | int) -> Located | None:
        """The entry of a mapping or a list, None where there is none."""
        if isinstance(self.value, dict) and isinstance(key, str):
            entry: Located | None = self.value.get(key)
            return entry
        if isinstance(self.value, tuple) and isinstance(key, int) and 0 <= key < len(self.value):
            item: Located = self.value[key]
            return item
        return None


def show(value: object) -> str:
    """A user's word for a message: quoted, control characters escaped, cut to a readable length."""
    text = next((word for word, meant in (("null", None), ("true", True), ("false", False)) if value is meant), repr(value))
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


def read_tree(path: Path, expected: str = "a description has a name, an input and layers",
              ) -> tuple[Located, list[tuple[Mark, Problem]]]:
    """The file as a tree, with the problems that did not stop the reading (duplicate keys).

    Parameters
    ----------
    expected
        What the file should hold: the hint where it holds nothing.

    Raises
    ------
    InputError
        Not a readable UTF-8 file of at most `MAX_BYTES`, not YAML, or YAML with anchors, aliases, tags or deep nesting.
    """
    builder = _Builder(path, read_text(path, expected))
    return builder.document(), builder.problems


def read_text(path: Path, expected: str = "") -> str:
    """The text of a file in YAML; InputError when it cannot be one."""
    if path.suffix.lower() == ".onnx":
        raise InputError("ONNX files cannot be read yet", str(path), "describe the network in YAML, see docs/networks.md")
    data = _bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[:error.start].decode("utf-8", "replace")
        raise InputError("the file is not UTF-8 text", _place(path, _mark(before)), "save it as UTF-8") from None
    if not text.strip():
        raise InputError("the file is empty", str(path), expected)
    return text


def _bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError("this is a directory, not a network description", str(path), "name a .yaml file")
        if not path.exists():
            raise InputError("no such file", str(path), nearest_file(path, ".yaml", ".yml"))
        if not path.is_file():
            raise InputError("this is not a regular file", str(path))
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the file cannot be read: {reason}", show(str(path))) from None
    if len(data) > MAX_BYTES:
        raise InputError(f"the file is larger than {MAX_BYTES:,} bytes", str(path),
                         "weights belong in a .safetensors file")
    return data


def _mark(before: str) -> Mark:
    """The place right after `before`."""
    return Mark(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _place(path: Path, mark: Mark) -> str:
    return f"{path}:{mark.line}:{mark.column}"


class _Builder:
    """Turns the parser's events into a tree."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.problems: list[tuple[Mark, Problem]] = []
        self._text = text
        self._open: list[Any] = []  # events of lists and mappings that have begun
        self._events = self._parse(text)

    def document(self) -> Located:
        """The one document of the file."""
        root = self._value(self._content(), 1)
        extra = self._content()
        if not isinstance(extra, StreamEndEvent):
            raise self._error(extra, "a second YAML document starts here", "a file holds one")
        return root

    def _content(self) -> Any:
        """The next event that is neither the start of the stream nor a border of a document."""
        for event in self._events:
            if isinstance(event, AliasEvent | ScalarEvent | MappingStartEvent | SequenceStartEvent | StreamEndEvent):
                return event
        raise InputError("the file ends too early", str(self.path))

    def _value(self, event: Any, depth: int) -> Located:
        self._refuse(event, depth)
        mark = _event_mark(event)
        if isinstance(event, ScalarEvent):
            return Located(self._scalar(event), mark)
        if isinstance(event, SequenceStartEvent):
            self._open.append(event)
            items = []
            while not isinstance(item := next(self._events), SequenceEndEvent):
                items.append(self._value(item, depth + 1))
            self._open.pop()
            return Located(tuple(items), mark)
        if isinstance(event, MappingStartEvent):
            self._open.append(event)
            mapping = self._mapping(mark, depth)
            self._open.pop()
            return mapping
        raise self._error(event, "the file holds nothing")

    def _mapping(self, mark: Mark, depth: int) -> Located:
        values: dict[str, Located] = {}
        keys: dict[str, Mark] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self._error(event, "a key must be a word")
            self._refuse(event, depth)
            key = str(event.value)
            value = self._value(next(self._events), depth + 1)
            if key in values:
                self._add(event, f"duplicate key {show(key)}", f"first given in line {keys[key].line}")
                continue
            values[key], keys[key] = value, _event_mark(event)
        return Located(values, mark, keys)

    def _refuse(self, event: Any, depth: int) -> None:
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise self._error(event, "YAML anchors (&) and aliases (*) are not accepted", "write the value out")
        if getattr(event, "tag", None):
            raise self._error(event, "YAML tags (!) are not accepted", "leave the tag out")
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels", self._unclosed())

    def _unclosed(self) -> str:
        """A hint with the places of the brackets that are open: nesting no one wanted comes of one that is not closed."""
        marks = [_event_mark(e) for e in self._open if self._text[e.start_mark.index] in "[{"]
        places = ", ".join(f"{m.line}:{m.column}" for m in marks)
        return f"is a bracket not closed? Open here: {places}" if places else "check the indentation"

    def _scalar(self, event: Any) -> object:
        """Plain text after YAML 1.2's core schema, less the octal and hexadecimal forms."""
        text = str(event.value)
        if not event.implicit[0]:
            return text  # quoted
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > 20:
                self._add(event, f"number of {len(text)} digits", "no size or factor is that large")
                return None
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _parse(self, text: str) -> Iterator[Any]:
        """The parser's events; every way it can fail becomes an InputError."""
        yaml = YAML(typ="safe", pure=True)
        try:
            yield from yaml.parse(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = _place(self.path, Mark(mark.line + 1, mark.column + 1)) if mark else str(self.path)
            what = error.problem or error.context or ""
            hint = next((hint for part, hint in _SYNTAX.items() if part in what), _context(error))
            raise InputError(f"not valid YAML: {what}", place, hint) from None
        except ReaderError as error:
            place = _place(self.path, _mark(text[:error.position]))
            raise InputError("not valid YAML: a control character", place, "remove it") from None
        except (ValueError, OverflowError, LookupError, AttributeError, TypeError, AssertionError) as error:
            # the parser's own slips on malformed text, such as an escape beyond the last character of Unicode
            raise InputError(f"not valid YAML: {error}", str(self.path)) from None

    def _add(self, event: Any, what: str, hint: str) -> None:
        mark = _event_mark(event)
        self.problems.append((mark, Problem(what, _place(self.path, mark), hint)))

    def _error(self, event: Any, what: str, hint: str = "") -> InputError:
        self._add(event, what, hint)
        return InputError(problem for _, problem in self.problems)


def _context(error: MarkedYAMLError) -> str:
    """What the parser was reading: of a list or mapping in brackets, where they open."""
    words, mark = error.context or "", error.context_mark
    if mark and "flow" in words:
        return f"is the bracket opened at {mark.line + 1}:{mark.column + 1} closed?"
    return words


def _event_mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
