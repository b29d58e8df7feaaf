"""Writes a network as a description in YAML with its weights beside it: what `read_yaml` reads back as the same network.

In: a `LayerGraph` as read, from an ONNX file or Python. Out: a `.yaml` and a `.safetensors` file, both whole or none. Names
that a description cannot have are changed, and said; a layer is written on a line, without the values it would have anyway.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.read_yaml import read_yaml
from fusec.graph.weights import SUFFIX, has_weights, save_weights
from fusec.graph.yaml_schema import LAYER_SPECS

LONGEST = 100  # characters of a name in a description
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # what YAML takes for something else
_HEAD = 20  # characters of a digest in a name made shorter


def write_yaml(graph: LayerGraph, path: Path) -> dict[str, str]:
    """Write a network.

    Parameters
    ----------
    graph
        The network, with weights if it has any, and without epilogues: as a reader made it.
    path
        The description to write; the weights go into the file of the same name that ends in `.safetensors`.

    Returns
    -------
    dict
        Names that were changed, old to new.

    Raises
    ------
    InputError
        The network has something that a description cannot say, or a file cannot be written; nothing is left behind.
    """
    named, changed = with_plain_names(graph)
    weights = path.with_suffix(SUFFIX) if has_weights(named) else None
    try:
        with tempfile.TemporaryDirectory(prefix=".fusec-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.write_text(to_yaml(named, None if weights is None else weights.name), encoding="utf-8")
            if weights is not None:
                save_weights(named, draft.with_suffix(SUFFIX))
            read_yaml(draft)  # what cannot be read back is not written
            if weights is not None:
                draft.with_suffix(SUFFIX).replace(weights)
            draft.replace(path)
    except OSError as error:
        raise InputError(f"the description cannot be written: {error.strerror or error}", str(path)) from None
    return changed


def with_plain_names(graph: LayerGraph) -> tuple[LayerGraph, dict[str, str]]:
    """The graph with names of 1 to `LONGEST` printable characters, and what was changed."""
    taken = {node.name for node in graph.nodes}
    changed: dict[str, str] = {}
    for node in graph.nodes:
        plain = "".join(c if c.isprintable() else "_" for c in node.name)
        if plain != node.name or not 1 <= len(plain) <= LONGEST or _changed_by_yaml(plain):
            digest = hashlib.sha256(node.name.encode("utf-8", "surrogatepass")).hexdigest()[:_HEAD]
            plain = f"{plain[:LONGEST - _HEAD - 1].strip()}~{digest}"
        while plain != node.name and plain in taken:
            plain = plain[:LONGEST - 1] + "_"
        taken.add(plain)
        if plain != node.name:
            changed[node.name] = plain
    if not changed:
        return graph, changed
    nodes = [replace(n, name=changed.get(n.name, n.name), inputs=tuple(changed.get(i, i) for i in n.inputs))
             for n in graph.nodes]
    return LayerGraph(graph.name, nodes, [changed.get(o, o) for o in graph.outputs]), changed


def _changed_by_yaml(name: str) -> bool:
    """Whether a name would not come back as it is: characters outside UTF-8."""
    return any(0xD800 <= ord(c) <= 0xDFFF for c in name)


def to_yaml(graph: LayerGraph, weights: str | None) -> str:
    """The text of a description."""
    inputs = [_flow({"name": n.name, **_input(n)}) for n in graph.inputs]
    lines = [f"name: {_text(graph.name[:LONGEST])}"]
    lines += [f"weights: {_text(weights)}"] if weights is not None else []
    lines += [f"input: {inputs[0]}"] if len(inputs) == 1 else ["inputs:", *(f"  - {text}" for text in inputs)]
    lines.append("layers:")
    previous = graph.inputs[0].name if len(inputs) == 1 else None
    for node in graph.layers:
        lines.append(f"  - {_flow(_layer(node, previous))}")
        previous = node.name
    sinks = tuple(n.name for n in graph.nodes if not graph.consumers(n.name))
    if graph.outputs != sinks:
        lines.append(f"outputs: [{', '.join(map(_text, graph.outputs))}]")
    return "\n".join(lines) + "\n"


def _input(node: Node) -> dict[str, Any]:
    assert isinstance(node.layer, L.Input)
    sides = {"height": node.layer.height, "width": node.layer.width}
    return {"channels": node.layer.channels, **{k: v for k, v in sides.items() if v is not None}}


def _layer(node: Node, previous: str | None) -> dict[str, Any]:
    """A layer's line: the fields that have to be there, and those that differ from their defaults."""
    line: dict[str, Any] = {"name": node.name, "type": node.layer.kind}
    if node.inputs != (previous,):
        line["inputs"] = node.inputs[0] if len(node.inputs) == 1 else list(node.inputs)
    for field in sorted(dataclasses.fields(node.layer), key=lambda field: field.name != "out_channels"):
        value = getattr(node.layer, field.name)
        spec = LAYER_SPECS[node.layer.kind].model_fields[field.name]
        if value != field.default or spec.is_required() or spec.default is None:
            line[field.name] = _value(value)
    return line


def _value(value: Any) -> Any:
    if isinstance(value, L.Padding):
        sides = {edge.name: getattr(value, edge.name) for edge in dataclasses.fields(value)}
        if len(set(sides.values())) == 1:
            return value.top
        if (value.top, value.left) == (value.bottom, value.right):
            return [value.top, value.left]
        return sides
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return value[0] if len(set(value)) == 1 else list(value)
    return value


def _flow(mapping: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_text(value)}" for key, value in mapping.items()) + "}"


def _text(value: Any) -> str:
    """A value in YAML's flow style; text in quotes unless it is a plain word."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value)) if "e" not in repr(value) or "." in repr(value) else repr(value).replace("e", ".0e")
    if isinstance(value, Mapping):
        return _flow(value)
    if isinstance(value, Iterable):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)
