"""An ONNX graph as a layer graph, node by node; all that is wrong in one error.

In: a `ModelProto`, and which of its tensors to begin and end at. Out: a `LayerGraph` with weights, its layers named after the
tensors they make. Nodes that no output needs are not looked at. A node that cannot be converted is noted, and those behind it
are looked at all the same, with the form that shape inference gives its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from fusec.errors import InputError, Problem, nearest
from fusec.graph.graph import LayerGraph
from fusec.graph.onnx.builder import Builder
from fusec.graph.onnx.call import Call
from fusec.graph.onnx.cut import Cut
from fusec.graph.onnx.extent import Unresolved
from fusec.graph.onnx.fold import FIXED, FOLDS, fold, shape_of
from fusec.graph.onnx.node import OnnxNode, checked, to_node
from fusec.graph.onnx.ports import Ports
from fusec.graph.onnx.proto import MAX_NODES, opset_of, to_array
from fusec.graph.onnx.refusal import Refusal, Refused, Unsupported
from fusec.graph.onnx.table import OPERATORS, REFUSED
from fusec.graph.onnx.values import Known, Lost, Tensor, Value, known
from fusec.graph.weights import check_size
from fusec.graph.yaml_tree import show

FEW = 8  # tensors named in a hint


def convert(model: Any, name: str, where: str, *, folder: Path | None = None, cut: Cut | None = None,
            constants: Mapping[str, NDArray[Any]] | None = None) -> LayerGraph:
    """The network of an ONNX model.

    Parameters
    ----------
    model
        A `ModelProto`; it is not changed.
    name
        The network's name, in reports.
    where
        What errors call the file.
    folder
        Where external data may lie.
    cut
        The part of the network that is wanted.
    constants
        Values of graph inputs that are no images but weights.

    Raises
    ------
    Unsupported
        Nodes that fusec does not read, all of them.
    InputError
        The file is damaged, or has no such tensors.
    """
    return _Converter(model, name, where, folder, cut or Cut(), constants or {}).run()


class _Converter:
    """The state of one reading."""

    def __init__(self, model: Any, name: str, where: str, folder: Path | None, cut: Cut,
                 constants: Mapping[str, NDArray[Any]]) -> None:
        self.name, self.where, self.folder, self.cut = name, where, folder, cut
        self.opset = opset_of(model, where)
        self.graph = model.graph
        if len(self.graph.node) > MAX_NODES:
            raise InputError(f"the graph has {len(self.graph.node):,} nodes, over the limit of {MAX_NODES:,}", where)
        self.ports = Ports(model)
        self.weights = {t.name: t for t in self.graph.initializer}
        self.constants = constants
        self.protos = dict(enumerate(self.graph.node))
        self.nodes = {i: to_node(proto) for i, proto in self.protos.items()}
        self.maker = self._makers()
        self.values: dict[str, Value] = {}
        self.problems: list[Problem] = []
        self.refused: dict[int, Refused] = {}
        self.unmade: dict[str, OnnxNode] = {}  # further outputs, and the nodes that leave them out
        self.builder = Builder({*self.maker, *self.weights, *(i.name for i in self.graph.input)})

    def run(self) -> LayerGraph:
        outputs = self.cut.end or tuple(dict.fromkeys(o.name for o in self.graph.output))
        self.check_tensors("--to", self.cut.end)
        self.check_tensors("--from", self.cut.start)
        if not outputs:
            self.problems.append(Problem("the graph has no output", self.where, "the file is damaged"))
        self.stop()
        live = self.live(outputs)
        self.add_inputs(live, outputs)
        for index in live:
            self.node(index)
        finished = [made for output in outputs if (made := self.output(output)) is not None]
        if self.refused:
            raise Unsupported(self.where, tuple(self.refused.values()), len(live), self.before(), self.behind(live),
                              tuple(self.problems))
        self.stop()
        graph = self.builder.finish(self.name, finished)
        check_size(graph)
        return graph

    def stop(self) -> None:
        """InputError when something is wrong by now."""
        if self.problems:
            raise InputError(self.problems)

    # ---- the graph's structure

    def _makers(self) -> dict[str, int]:
        """Which node makes each tensor; InputError when two make one, or a name is taken already."""
        maker: dict[str, int] = {}
        found = []
        for index, node in self.nodes.items():
            for output in (o for o in node.outputs if o):
                if output in maker or output in self.weights:
                    found.append(Problem(f"node {show(node.name)} makes {show(output)}, which is there already", self.where,
                                         "the file is damaged"))
                maker.setdefault(output, index)
        if found:
            raise InputError(found)
        return maker

    def check_tensors(self, option: str, names: Sequence[str]) -> None:
        known_names = [*self.maker, *(i.name for i in self.graph.input)]
        self.problems += [Problem(f"{option} names {show(n)}, which is no tensor of the network", self.where,
                                  nearest(n, known_names)) for n in dict.fromkeys(names) if n not in known_names]

    def live(self, outputs: Sequence[str]) -> list[int]:
        """The nodes that outputs need, in an order in which each comes behind those it reads."""
        wires: nx.DiGraph[int] = nx.DiGraph()
        waiting = [self.maker[o] for o in outputs if o in self.maker and o not in self.cut.start]
        while waiting:
            index = waiting.pop()
            if index in wires and wires.nodes[index].get("seen"):
                continue
            wires.add_node(index, seen=True)
            for source in self.nodes[index].inputs:
                if source in self.maker and source not in self.cut.start:
                    wires.add_edge(self.maker[source], index)
                    waiting.append(self.maker[source])
        try:
            return list(nx.lexicographical_topological_sort(wires))
        except nx.NetworkXUnfeasible:
            around = nx.find_cycle(wires)
            names = " -> ".join(show(self.nodes[a].name) for a, _ in around[:FEW])
            raise InputError(f"the nodes form a cycle: {names}", self.where, "the file is damaged") from None

    def add_inputs(self, live: Sequence[int], outputs: Sequence[str]) -> None:
        """The images the network begins with: graph inputs that are read, and the tensors of `--from`."""
        read = {source for index in live for source in self.nodes[index].inputs} | set(outputs)
        names = [i.name for i in self.graph.input if i.name not in self.weights and i.name not in self.cut.start]
        for name in dict.fromkeys((*self.cut.start, *names)):
            if name in self.constants:
                self.values[name] = Known(self.constants[name])
            elif name in read:
                self.add_input(name)
        if not self.builder.nodes and not self.problems:
            self.problems.append(Problem("no output depends on an input", self.where, "there is nothing to compute"))

    def add_input(self, name: str) -> None:
        try:
            if (behind := self.channels_last(name)) is not None:
                raise Refusal("its images have the channels last, (N, H, W, C)",
                              f"--from {behind} begins behind the Transpose, with (N, C, H, W)")
            form = self.ports.found(name) if name in self.cut.start else self.ports.declared(name)
            self.values[name] = self.builder.add_input(name, form)
        except Refusal as refusal:
            self.values[name] = Lost()
            self.problems.append(Problem(f"input {show(name)}: {refusal.why}", self.where, refusal.instead))

    def channels_last(self, name: str) -> str | None:
        """The transposed tensor, where all that is done with an input is to put its channels first."""
        readers = [i for i, node in self.nodes.items() if name in node.inputs]
        first = all(self.nodes[i].operator == "Transpose" and [list(a.ints) for a in self.protos[i].attribute] == [[0, 3, 1, 2]]
                    for i in readers)
        return next((o for o in self.nodes[readers[0]].outputs), None) if readers and first else None

    # ---- nodes

    def node(self, index: int) -> None:
        """One node's outputs, or why there are none."""
        node = self.nodes[index]
        try:
            made = self.converted(node, self.protos[index])
        except Refusal as refusal:
            self.refuse(index, refusal.why, refusal.instead)
            return
        except InputError as error:
            self.refuse(index, "; ".join(p.what for p in error.problems), error.problems[0].hint)
            return
        except Unresolved as reason:
            self.refuse(index, f"it depends on the image's size: {reason}", FIXED)
            return
        self.values.update((name, value) for name, value in zip(node.outputs, made, strict=False) if name)
        self.unmade.update(dict.fromkeys(filter(None, node.outputs[len(made):]), node))

    def refuse(self, index: int, why: str, instead: str) -> None:
        node = self.nodes[index]
        self.refused[index] = Refused(node.name, node.operator, why, instead)
        for name in (o for o in node.outputs if o):
            try:
                self.values[name] = self.builder.add_input(name, self.ports.found(name))
            except (Refusal, InputError):
                self.values[name] = Lost()

    def converted(self, node: OnnxNode, proto: Any) -> Sequence[Value]:
        """What the node makes."""
        if node.operator in REFUSED:
            raise Refusal(*REFUSED[node.operator])
        node = checked(node, proto, self.opset)
        values = [self.value(name) if name else None for name in node.inputs]
        if any(isinstance(value, Lost) for value in values):
            self.check_known(node)
            return [Lost() for _ in node.outputs]
        if all(value is None or isinstance(value, Known) for value in values) and (values or node.operator in FOLDS):
            return fold(node, [v for v in values if not isinstance(v, Tensor | Lost)], self.opset, self.folder)
        first = values[0]
        if node.operator in ("Shape", "Size") and isinstance(first, Tensor):
            shape = shape_of(first.dims, node)
            return [shape if node.operator == "Shape" else known(np.prod(shape.array))]
        self.check_known(node)
        made = OPERATORS[node.operator].convert(Call(node, values, self.opset, self.builder))
        return made if isinstance(made, tuple) else (made,)

    def check_known(self, node: OnnxNode) -> None:
        """Refusal where the operator is none that fusec reads."""
        if node.operator not in OPERATORS and node.operator not in ("Shape", "Size"):
            hint = "on constants it is folded" if node.operator in FOLDS else "--from and --to compile a part without it"
            raise Refusal("this operator is not supported on images", hint)

    def value(self, name: str) -> Value:
        """What is known of a tensor."""
        if name in self.unmade:
            raise Refusal(f"its input {show(name)} is not made: of {self.unmade[name].operator} only the first output is",
                          "export without it")
        if name not in self.values:
            if name not in self.weights:
                raise Refusal(f"nothing makes its input {show(name)}",
                              nearest(name, [*self.maker, *self.weights]) or "the file is damaged")
            self.values[name] = Known(to_array(self.weights[name], self.folder))
        return self.values[name]

    # ---- outputs

    def output(self, name: str) -> str | None:
        """The layer that makes an output, of the output's name and rank; None where something is wrong."""
        value = self.values.get(name, Lost())
        if isinstance(value, Lost):
            if name in self.unmade:
                self.problems.append(Problem(f"the output {show(name)} is not made: of {self.unmade[name].operator} only the "
                                             "first output is", self.where, "leave it out with --to"))
            elif not self.refused and not self.problems:
                self.problems.append(Problem(f"nothing makes the output {show(name)}", self.where, "the file is damaged"))
            return None
        if isinstance(value, Known):
            self.problems.append(Problem(f"the output {show(name)} is a constant", self.where, "leave it out with --to"))
            return None
        try:
            return self.builder.output(name, value)
        except (Refusal, InputError, Unresolved) as error:
            why, instead = (error.why, error.instead) if isinstance(error, Refusal) else (str(error), "")
            self.problems.append(Problem(f"output {show(name)}: {why}", self.where, instead))
            return None

    def before(self) -> tuple[str, ...]:
        """Tensors that nodes make which are supported, and nodes read which are not."""
        read = dict.fromkeys(source for index in self.refused for source in self.nodes[index].inputs)
        return tuple(t for t in read if isinstance(self.values.get(t), Tensor) and t not in self.cut.start
                     and self.maker.get(t, -1) not in {-1, *self.refused})[:FEW]

    def behind(self, live: Sequence[int]) -> tuple[str, ...]:
        """Tensors of known form that nodes make which are not supported, and nodes read which are."""
        read = {source for index in live if index not in self.refused for source in self.nodes[index].inputs}
        made = [o for index in self.refused for o in self.nodes[index].outputs if o in read]
        return tuple(t for t in made if isinstance(self.values.get(t), Tensor))[:FEW]
