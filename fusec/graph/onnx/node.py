"""ONNX nodes as frozen values, checked against the standard's own description of their operator.

In: a `NodeProto` and the opset. Out: an `OnnxNode` whose attributes have the types that the standard gives them, so that
converters need not ask; or a `Refusal`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import AttributeProto

from fusec.errors import nearest
from fusec.graph.onnx.proto import DOMAINS
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.yaml_tree import show

MAX_PORTS = 4096  # inputs or outputs of one node
_TEXT = 200  # characters of a name in a message


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """A node: its name (or that of what it makes), operator, the names of its tensors ("" is one left out), attributes."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)  # numbers, strings, lists of them; or protobuf messages


def to_node(proto: Any) -> OnnxNode:
    """The node without its attributes, which `checked` adds."""
    outputs = tuple(proto.output)
    name = proto.name or next((o for o in outputs if o), "") or proto.op_type
    return OnnxNode(name[:_TEXT], proto.op_type, proto.domain, tuple(proto.input), outputs)


def checked(node: OnnxNode, proto: Any, opset: int) -> OnnxNode:
    """The node with its attributes.

    Raises
    ------
    Refusal
        The standard has no such operator in this opset, or the node has inputs, outputs or attributes that it has not.
    """
    schema = _schema(node, opset)
    for what, ports, low, high in (("input", node.inputs, schema.min_input, schema.max_input),
                                   ("output", node.outputs, schema.min_output, schema.max_output)):
        if not low <= len(ports) <= high or len(ports) > MAX_PORTS:
            takes = f"{low}" if low == high else f"{low} or more" if high > MAX_PORTS else f"{low} to {high}"
            raise Refusal(f"it has {len(ports)} {what}s, but {node.operator} takes {takes}", "the file is damaged")
    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        known = schema.attributes.get(attribute.name)
        if known is None:
            raise Refusal(f"{node.operator} of opset {opset} has no attribute {show(attribute.name)}",
                          nearest(attribute.name[:_TEXT], list(schema.attributes)))
        if attribute.type != int(known.type.value):
            raise Refusal(f"its attribute {attribute.name} is no {known.type.name.lower()}", "the file is damaged")
        attributes[attribute.name] = _value(attribute)
    missing = [name for name, known in schema.attributes.items() if known.required and name not in attributes]
    if missing:
        raise Refusal(f"its attribute {missing[0]} is missing", "the file is damaged")
    return OnnxNode(node.name, node.operator, node.domain, node.inputs, node.outputs, attributes)


def _schema(node: OnnxNode, opset: int) -> Any:
    if node.domain not in DOMAINS:
        raise Refusal(f"{show(node.operator)} is an operator of {show(node.domain)}, outside the standard",
                      "export with standard operators only")
    try:
        return onnx.defs.get_schema(node.operator, opset, "")
    except onnx.defs.SchemaError:
        names = sorted({s.name for s in onnx.defs.get_all_schemas()})
        raise Refusal(f"opset {opset} has no operator {show(node.operator)}", nearest(node.operator[:_TEXT], names)) from None


def _value(attribute: Any) -> Any:
    """A plain value of numbers and text; else the message."""
    kind = attribute.type
    if kind == AttributeProto.FLOAT:
        return _finite(attribute.name, attribute.f)
    if kind == AttributeProto.INT:
        return int(attribute.i)
    if kind == AttributeProto.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == AttributeProto.FLOATS:
        return [_finite(attribute.name, f) for f in attribute.floats]
    if kind == AttributeProto.INTS:
        return [int(i) for i in attribute.ints]
    if kind == AttributeProto.STRINGS:
        return [s.decode("utf-8", "replace") for s in attribute.strings]
    return attribute.t if kind == AttributeProto.TENSOR else attribute


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise Refusal(f"its attribute {name} is {value}")
    return float(value)
