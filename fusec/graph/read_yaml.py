"""Reads a network description in YAML; the first step of the pipeline.

In: the path of a description, with a weights file or a seed if it names no weights itself. Out: a checked `LayerGraph` with its
weights. Every problem of the file is reported in one InputError, each at its line and column. `yaml_tree` says where things
stand, `yaml_schema` what may be said; here the layers are put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import networkx as nx
from pydantic import ValidationError

from fusec.errors import InputError, nearest
from fusec.graph import layers as L
from fusec.graph.find_weights import Description, with_weights
from fusec.graph.graph import LayerGraph, Node, cycle_in_words, cycles, wrong_count
from fusec.graph.weights import check_size
from fusec.graph.yaml_report import Findings
from fusec.graph.yaml_schema import LAYER_SPECS, DescriptionSpec, InputSpec, LayerSpec
from fusec.graph.yaml_tree import Located, Mark, read_tree, show

_ROUNDS = 16  # attempts to build what is sound of a broken network, so that later problems are reported too


def read_yaml(path: Path, *, weights: Path | None = None, random_weights: int | None = None) -> LayerGraph:
    """The network of a YAML description, with its weights.

    Parameters
    ----------
    path
        The description; docs/networks.md is its reference.
    weights
        A safetensors file to use in place of the one the description names.
    random_weights
        Seed of random weights to use in place of a file.

    Returns
    -------
    LayerGraph
        Nodes in topological order with float32 parameters.

    Raises
    ------
    InputError
        Everything that is wrong with the description, each at `file:line:column`, or with the weights; or there are none.
    """
    return with_weights(read_description(path), weights=weights, random_weights=random_weights)


def read_description(path: Path) -> Description:
    """The network of a YAML description without weights: enough for shapes and plans.

    Raises
    ------
    InputError
        Everything that is wrong with the file, each at `file:line:column`.
    """
    tree, problems = read_tree(path)
    return _Reader(path, tree, Findings(path, problems)).read()


@dataclass(frozen=True)
class _Entry:
    """An input or a layer of the file; `layer` None has problems of its own."""

    name: str | None
    mark: Mark
    layer: L.Layer | None
    inputs: tuple[tuple[str | None, Mark], ...]


class _Reader:
    """Makes nodes of the parts of one file; `found` collects what is wrong."""

    def __init__(self, path: Path, tree: Located, found: Findings) -> None:
        self.path = path
        self.tree = tree
        self.found = found

    def read(self) -> Description:
        if not isinstance(self.tree.value, dict):
            self.found.add(self.tree.mark, f"a description is a mapping, not {show(self.tree.plain())}",
                        "it starts with 'name: ...', 'input: ...' and 'layers: ...'")
            raise self.found.error()
        document = self.found.check(DescriptionSpec, self.tree, "a description")
        entries = self.input_entries()
        inputs = len(entries)
        self.layer_entries(entries)
        self.check_names(entries)
        outputs = self.check_outputs(entries, inputs)
        self.check_unread(entries, outputs)
        entries = self.check_wiring(entries)
        weights = self.weights_path()
        graph = self.build(entries, document, outputs)
        if self.found.problems or graph is None:
            raise self.found.error()
        where = self.tree.get("weights")
        return Description(graph, weights, self.found.place(where.mark) if where else "", str(self.path))

    def input_entries(self) -> list[_Entry]:
        one, many = self.tree.get("input"), self.tree.get("inputs")
        if one and many:
            self.found.add(self.tree.keys["inputs"], "'input' and 'inputs' are both given", "keep 'inputs' for several")
        if not one and not many:
            self.found.add(self.tree.mark, "a description needs 'input'", "for example input: {name: image, channels: 3}")
        trees = [*([one] if one else []), *(many.value if many and isinstance(many.value, tuple) else [])]
        return [self.input_entry(tree) for tree in trees]

    def input_entry(self, tree: Located) -> _Entry:
        try:
            spec = InputSpec.model_validate(tree.plain())
        except ValidationError:  # reported with the whole description
            return _Entry(_name(tree), tree.mark, None, ())
        return _Entry(spec.name, tree.mark, L.Input(spec.channels, spec.height, spec.width), ())

    def layer_entries(self, entries: list[_Entry]) -> None:
        """Appends the layers to the inputs."""
        layers = self.tree.get("layers")
        inputs = len(entries)
        for i, tree in enumerate(layers.value if layers and isinstance(layers.value, tuple) else ()):
            spec = self.layer_spec(tree)
            given = tree.get("inputs")
            if given is None and i == 0 and inputs != 1:
                if inputs:
                    self.found.add(tree.mark, "the first layer must say which of the inputs it reads", "add 'inputs: NAME'")
                sources: tuple[tuple[str | None, Mark], ...] = ((None, tree.mark),)
            elif given is None:
                sources = ((entries[-1].name if entries else None, tree.mark),)
            else:
                names = given.value if isinstance(given.value, tuple) else (given,)
                sources = tuple((n.value if isinstance(n.value, str) else None, n.mark) for n in names)
            entries.append(_Entry(_name(tree), tree.mark, spec.layer() if spec else None, sources))

    def layer_spec(self, tree: Located) -> LayerSpec | None:
        """A layer checked by the model of its type."""
        if not isinstance(tree.value, dict):
            self.found.add(tree.mark, f"a layer is a mapping, not {show(tree.plain())}",
                           "write {name: conv1, type: conv2d, ...}")
            return None
        kind = tree.get("type")
        model = LAYER_SPECS.get(kind.value) if kind and isinstance(kind.value, str) else None
        if kind is None or model is None:
            self.report_type(tree, kind)
            # what every layer has can be checked all the same
            shared = {key: value for key in ("name", "inputs") if (value := tree.get(key))}
            self.found.check(LayerSpec, Located({**shared, "type": Located("", tree.mark)}, tree.mark), "a layer")
            return None
        spec: LayerSpec | None = self.found.check(model, tree, str(kind.value))
        return spec

    def report_type(self, tree: Located, kind: Located | None) -> None:
        if kind is None:
            typo = next((k for k in tree.keys if nearest(k[:200], ["type"])), None)
            self.found.add(tree.keys[typo] if typo else tree.mark, "a layer needs 'type'",
                           f"is {show(typo)} meant?" if typo else "write {name: conv1, type: conv2d, ...}")
        else:
            hint = self.found.suggest(str(kind.value), list(LAYER_SPECS)) or f"known are {', '.join(LAYER_SPECS)}"
            self.found.add(kind.mark, f"unknown layer type {show(kind.plain())}", hint)

    def weights_path(self) -> Path | None:
        """The weights file the description names, links followed, checked to lie in its folder."""
        named = self.tree.get("weights")
        if named is None or not isinstance(named.value, str):
            return None
        folder = self.path.parent
        try:
            inside = (folder / named.value).resolve().is_relative_to(folder.resolve())
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside and not any(p.where == self.found.place(named.mark) for _, p in self.found.problems):
            self.found.add(named.mark, "'weights' leads out of the description's folder", "links are followed; copy the file")
        return folder / named.value

    def check_names(self, entries: list[_Entry]) -> None:
        first: dict[str, Mark] = {}
        for entry in entries:
            if entry.name in first:
                self.found.add(entry.mark, f"duplicate name {show(entry.name)}", f"first used in line {first[entry.name].line}")
            elif entry.name is not None:
                first[entry.name] = entry.mark
        known = list(first)
        for entry in entries:
            for source, mark in entry.inputs:
                if source is not None and source not in first:
                    self.found.add(mark, f"unknown input {show(source)}", self.found.suggest(source, known))

    def check_outputs(self, entries: list[_Entry], inputs: int) -> tuple[str, ...] | None:
        given = self.tree.get("outputs")
        if given is None:
            return None
        names = given.value if isinstance(given.value, tuple) else (given,)
        known = [e.name for e in entries[inputs:] if e.name]
        accepted = set(known)
        seen: set[str] = set()
        for name in (n for n in names if isinstance(n.value, str)):
            if name.value in seen:
                self.found.add(name.mark, f"output {show(name.value)} is listed twice")
            elif name.value not in accepted:
                self.found.add(name.mark, f"unknown output {show(name.value)}",
                            self.found.suggest(name.value, known) or "an output is the name of a layer")
            seen.add(name.value)
        return tuple(n.value for n in names if isinstance(n.value, str))

    def check_unread(self, entries: list[_Entry], outputs: tuple[str, ...] | None) -> None:
        """An input nobody reads, or a layer nobody reads beside listed outputs, is a slip of the pen."""
        if not any(e.inputs for e in entries):
            return  # there are no layers, which is reported
        read = {source for e in entries for source, _ in e.inputs}.union(outputs or ())
        guessing = any(source is None for e in entries for source, _ in e.inputs)
        for entry in entries:
            if entry.name is None or entry.name in read or guessing:
                continue
            if isinstance(entry.layer, L.Input):
                self.found.add(entry.mark, f"nothing reads the input {show(entry.name)}",
                               "leave it out, or name it in 'inputs:'")
            elif outputs is not None and entry.layer is not None:
                self.found.add(entry.mark, f"nothing reads {show(entry.name)} and it is no output",
                               "leave it out, or list it in 'outputs:'")

    def check_wiring(self, entries: list[_Entry]) -> list[_Entry]:
        """Numbers of inputs and cycles, known without any shape; returns the entries that are on no cycle."""
        wires: nx.DiGraph[str] = nx.DiGraph()
        marks = _first_marks(entries)
        wires.add_nodes_from(marks)
        for entry in entries:
            if entry.layer is not None and (wrong := wrong_count(entry.layer, len(entry.inputs))):
                self.found.add(entry.mark, wrong)
            if entry.name is not None and entry.mark is marks[entry.name]:
                wires.add_edges_from((source, entry.name) for source, _ in entry.inputs if source in marks)
        around: set[str | None] = set()
        for cycle in cycles(wires):
            self.found.add(marks[cycle[0]], cycle_in_words(cycle))
            around.update(cycle)
        return [e for e in entries if e.name not in around]

    def build(self, entries: list[_Entry], document: DescriptionSpec | None,
              outputs: tuple[str, ...] | None) -> LayerGraph | None:
        """The graph of the sound layers; what it refuses is reported, dropped, and the rest tried again."""
        marks = _first_marks(entries)
        sound = [e for e in entries if e.layer is not None]
        whole = not self.found.problems and document is not None
        for _ in range(_ROUNDS):
            nodes = _closed(sound)
            if not any(isinstance(n.layer, L.Input) for n in nodes):
                return None
            try:
                graph = LayerGraph(document.name if document else "", nodes, outputs if whole else None)
                check_size(graph)
                return graph
            except InputError as error:
                whole = False
                for p in error.problems:
                    self.found.add(marks.get(p.where, self.tree.mark), p.what, p.hint)
                bad = {p.where for p in error.problems}
                sound = [e for e in sound if e.name not in bad]
        return None


def _first_marks(entries: list[_Entry]) -> dict[str, Mark]:
    """Where each name stands first, in the order of the file."""
    marks: dict[str, Mark] = {}
    for entry in entries:
        if entry.name is not None:
            marks.setdefault(entry.name, entry.mark)
    return marks


def _name(tree: Located) -> str | None:
    name = tree.get("name")
    return name.value if name and isinstance(name.value, str) else None


def _closed(entries: list[_Entry]) -> list[Node]:
    """Nodes of the entries whose names are their own and whose inputs, all the way up, are there."""
    by_name: dict[str, _Entry] = {}
    for e in entries:
        if e.name is not None:
            by_name.setdefault(e.name, e)
    readers: dict[str, list[str]] = {}
    gone = []
    for name, e in by_name.items():
        for source, _ in e.inputs:
            if source is None or source not in by_name:
                gone.append(name)
            else:
                readers.setdefault(source, []).append(name)
    lost: set[str] = set()
    while gone:
        name = gone.pop()
        if name not in lost:
            lost.add(name)
            gone += readers.get(name, [])
    return [Node(name, e.layer, tuple(s for s, _ in e.inputs if s is not None))
            for name, e in by_name.items() if name not in lost and e.layer is not None]
