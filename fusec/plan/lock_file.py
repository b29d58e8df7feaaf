"""The text of a lockfile: a small YAML file to be committed beside the network, with one decision per line.

In: a `Lock`; or the path of a lockfile. Out: its text, always the same for the same lock; or the `Lock`, with the place of
everything in it, so that `lock` can name the line of what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fusec.errors import InputError
from fusec.graph.yaml_report import Findings
from fusec.graph.yaml_tree import Located, read_tree, show
from fusec.graph.yaml_values import Size, Spec
from fusec.plan.cost import Nominal
from fusec.plan.lock import Decision, Lock, LockedChain, LockedVariant, Scope
from fusec.schedule.ir import Tile

SUFFIX = ".lock"
FORMAT = 2  # raised when a reader of the old one would misunderstand the new
MAX_COUNT = (1 << 31) - 1
HEAD = ("Schedules of fusec, found by `fusec tune`. `fusec compile --locked` makes exactly these.",
        "tile: images, channels, height, width. May be edited: every schedule is checked before it is used.")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_WORDS = ("null", "true", "false")  # what YAML reads as something else than text

Count = Annotated[int, Field(ge=1, le=MAX_COUNT, title=f"1 to {MAX_COUNT:,}")]


class LockSpec(Spec):
    """The whole file."""

    format: int
    fusec: str
    network: str
    signature: str
    target: str
    device: str
    machine: str
    cores: Count
    arch: str
    dtype: str
    batches: Annotated[list[Count], Field(min_length=1, title="numbers of images, the largest first")]
    height: Size | None
    width: Size | None
    chains: Annotated[list[Any], Field(title="a list of chains")]


class ChainSpec(Spec):
    """A chain."""

    layers: Annotated[list[str], Field(min_length=1, title="names of layers")]
    variants: Annotated[list[Any], Field(min_length=1, title="a list of schedules")]


class VariantSpec(Spec):
    """A schedule."""

    tile: Annotated[list[Size], Field(min_length=4, max_length=4, title="[images, channels, height, width]")]
    staged: Annotated[list[str], Field(title="names of tensors")]
    step: Size | None
    min_blocks: Annotated[int, Field(ge=0, le=MAX_COUNT, title=f"0 to {MAX_COUNT:,}")]
    tiles: Count | None


def text_of(lock: Lock, remarks: Iterable[str] = ()) -> str:
    """A lockfile's text.

    Parameters
    ----------
    remarks
        Lines of comment for its head, such as what was measured.
    """
    scope, nominal = lock.scope, lock.nominal
    lines = [f"# {_printable(line)}" for line in (*HEAD, *remarks)]
    lines += [f"format: {FORMAT}"]
    lines += [f"{name}: {value if isinstance(value, int) else _text(value)}" for name, value in vars(scope).items()]
    lines += [f"batches: {_list(map(str, nominal.batches))}", f"height: {_number(nominal.height)}",
              f"width: {_number(nominal.width)}", f"chains:{'' if lock.chains else ' []'}"]
    for chain in lock.chains:
        lines += [f"  - layers: {_list(map(_text, chain.layers))}", "    variants:"]
        lines += [f"      - {_variant(v)}" for v in chain.variants]
    return "\n".join(lines) + "\n"


def _variant(variant: LockedVariant) -> str:
    decision, tile = variant.decision, variant.decision.tile
    sides = (tile.images, tile.channels, tile.height, tile.width)
    return (f"{{tile: {_list(map(str, sides))}, staged: {_list(map(_text, decision.staged))}, step: {_number(decision.step)}, "
            f"min_blocks: {variant.min_blocks}, tiles: {_number(variant.tiles)}}}")


def _list(words: Iterable[str]) -> str:
    return f"[{', '.join(words)}]"


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _text(value: str) -> str:
    """A YAML scalar that is read as this text and nothing else."""
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return '"' + _printable(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    """Characters that may not stand in a YAML file as its escapes."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def read_lock(path: Path) -> Lock:
    """The lock in a file.

    Raises
    ------
    InputError
        There is no such file, or it is no lockfile of this format: every problem, each at `file:line:column`.
    """
    if not path.is_file():
        if path.is_dir():
            raise InputError("this is a directory, not a lockfile", str(path), f"name a {SUFFIX} file")
        raise InputError("there is no such lockfile", str(path), "`fusec tune` makes one")
    tree, problems = read_tree(path, "a lockfile is what `fusec tune` writes")
    return _Reader(tree, Findings(path, problems)).read()


class _Reader:
    """Makes a lock of the parts of a file; `found` collects what is wrong."""

    def __init__(self, tree: Located, found: Findings) -> None:
        self.tree = tree
        self.found = found

    def read(self) -> Lock:
        if not isinstance(self.tree.value, dict):
            self.found.add(self.tree.mark, f"a lockfile is a mapping, not {show(self.tree.plain())}")
            raise self.found.error()
        self.check_format()
        spec = self.found.check(LockSpec, self.tree, "a lockfile")
        chains = [self.chain(tree) for tree in self.items(self.tree, "chains")]
        if spec and spec.batches != sorted(set(spec.batches), reverse=True):
            self.found.add(self.tree.value["batches"].mark, "'batches' do not fall", "the largest first, each once")
        if spec is None or self.found.problems:
            raise self.found.error()
        scope = Scope(**{name: getattr(spec, name) for name in Scope.__dataclass_fields__})
        places = {"": str(self.found.path), **{key: self.found.place(mark) for key, mark in self.tree.keys.items()}}
        return Lock(scope, Nominal(tuple(spec.batches), spec.height, spec.width), tuple(c for c in chains if c), places)

    def check_format(self) -> None:
        """Nothing else of a file of another format can be judged."""
        tree = self.tree.get("format")
        if tree is not None and tree.value != FORMAT:
            self.found.add(tree.mark, f"the lockfile has format {show(tree.plain())}, but this fusec reads {FORMAT}",
                           "`fusec tune` makes a new one")
            raise self.found.error()

    def items(self, tree: Located, key: str) -> Sequence[Located]:
        """The entries of a list; none where it is no list, which the models say."""
        found = tree.get(key)
        return found.value if found is not None and isinstance(found.value, tuple) else ()

    def chain(self, tree: Located) -> LockedChain | None:
        spec = self.found.check(ChainSpec, tree, "a chain")
        variants = [self.variant(item) for item in self.items(tree, "variants")]
        if spec is None:
            return None
        return LockedChain(tuple(spec.layers), tuple(v for v in variants if v), self.found.place(tree.mark))

    def variant(self, tree: Located) -> LockedVariant | None:
        spec = self.found.check(VariantSpec, tree, "a variant")
        if spec is None:
            return None
        decision = Decision(Tile(*spec.tile), tuple(spec.staged), spec.step)
        return LockedVariant(decision, spec.min_blocks, spec.tiles, self.found.place(tree.mark))
