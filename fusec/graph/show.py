"""A layer graph as text, for dumps and for people."""

from __future__ import annotations

from dataclasses import fields

from fusec.graph.graph import LayerGraph
from fusec.graph.layers import Layer


def show_layer(layer: Layer) -> str:
    """Kind and hyper-parameters that differ from their defaults, e.g. `conv2d kernel=(3, 3) out_channels=16`."""
    words = [layer.kind]
    for field in fields(layer):
        value = getattr(layer, field.name)
        if value != field.default:
            words.append(f"{field.name}={getattr(value, 'value', value)}")
    return " ".join(words)


def show_graph(graph: LayerGraph) -> str:
    """One line per node: name with epilogue, layer, inputs, output shape."""
    rows = [(n.label, show_layer(n.layer), ", ".join(n.inputs) or "-", str(graph.shapes[n.name])) for n in graph.nodes]
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    lines = [f"{graph.name}: outputs {', '.join(graph.outputs)}"]
    lines += ["  " + "  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]) for r in rows]
    return "\n".join(lines) + "\n"
