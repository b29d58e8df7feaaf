"""Valid small ONNX models, and ways to damage them: what the fuzz run is made of.

In: a source of chance. Out: the bytes of a file. Half of the changes keep the file a readable protobuf and break what it says:
attributes, shapes, names, types, counts, weights; the others work on the bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from onnx import AttributeProto, TensorProto

from tests.onnx_models import Dims, ints, model, node, normal

NUMBERS = (0, 1, -1, 2, 3, 4, 7, 255, 1024, 1 << 20, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))
FRACTIONS = (0.0, -1.0, 0.5, 1e30, -1e38, 1e-40, float("inf"), float("nan"))
STRINGS = (b"", b"SAME_UPPER", b"SAME_LOWER", b"VALID", b"DCR", b"linear", b"\xff\xfe", b"half_pixel")
FIXED: Dims = (1, 3, 8, 8)
OPERATORS = ("Relu", "Conv", "Add", "Concat", "Flatten", "Gemm", "Reshape", "Loop", "Shape", "Identity", "Softmax", "MaxPool",
             "Clip", "QuantizeLinear", "NoSuchOperator", "")


@cache
def seeds() -> tuple[bytes, ...]:
    """The files that damage starts from."""
    return tuple(proto.SerializeToString() for proto in _models())


def _models() -> list[Any]:
    bn = {name: np.abs(normal(4, seed=i)) + 0.5 for i, name in enumerate(("scale", "shift", "mean", "spread"))}
    conv = node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], strides=[1, 1], group=1,
                dilations=[1, 1])
    filters = {"w": normal(4, 3, 3, 3), "b": normal(4)}
    classifier = [conv, node("BatchNormalization", ["c", *bn], ["n"]), node("Relu", ["n"], ["r"]),
                  node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
                  node("GlobalAveragePool", ["p"], ["g"]), node("Flatten", ["g"], ["f"], axis=1),
                  node("Gemm", ["f", "m", "k"], ["l"], transB=1), node("Softmax", ["l"], ["y"], axis=1)]
    upscaler = [conv, node("PRelu", ["c", "slope"], ["q"]), node("DepthToSpace", ["q"], ["d"], blocksize=2, mode="CRD"),
                node("Clip", ["d", "low", "high"], ["y"])]
    skip = [conv, node("Resize", ["c", "", "scales"], ["u"], mode="nearest", nearest_mode="floor",
                       coordinate_transformation_mode="asymmetric"), node("AveragePool", ["u"], ["a"], kernel_shape=[2, 2],
                                                                          strides=[2, 2]),
            node("Add", ["a", "c"], ["s"]), node("Concat", ["s", "x"], ["t"], axis=1), node("Mul", ["t", "half"], ["y"])]
    shapes = [node("Shape", ["x"], ["i"]), node("Gather", ["i", "zero"], ["n0"], axis=0), node("Concat", ["n0", "rest"], ["j"],
                                                                                               axis=0),
              node("Reshape", ["x", "j"], ["f"]), node("MatMul", ["f", "m"], ["y"])]
    transposed = [node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
                  node("LeakyRelu", ["c"], ["l"], alpha=0.1), node("Transpose", ["l"], ["a"], perm=[0, 2, 3, 1]),
                  node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]), node("LRN", ["b"], ["y"], size=3)]
    halves = [node("Split", ["x", "halves"], ["l", "r"], axis=1), node("Slice", ["r", "one", "all", "rows", "two"], ["s"]),
              node("Pad", ["s", "pads", "half"], ["p"]), node("Sub", ["p", "half"], ["d"]), node("SpaceToDepth", ["l"], ["e"],
                                                                                                 blocksize=2),
              node("Concat", ["d", "e"], ["j"], axis=1), node("LogSoftmax", ["j"], ["y"], axis=1)]
    spread = [node("GlobalMaxPool", ["x"], ["g"]), node("HardSigmoid", ["g"], ["h"]), node("Mul", ["x", "h"], ["m"]),
              node("ReduceMean", ["m"], ["z"], axes=[2, 3]), node("Max", ["m", "z"], ["a"]), node("Pow", ["a", "two"], ["b"]),
              node("Resize", ["b", "", "scales"], ["y"], mode="linear")]
    return [
        model(halves, {"halves": ints(2, 2), "one": ints(1), "all": ints(1 << 60), "rows": ints(2), "two": ints(1),
                       "pads": ints(0, 0, 0, 0, 0, 0, -3, -4), "half": np.float32(0.5)}, inputs={"x": (1, 4, 8, 8)}),
        model(spread, {"two": np.float32(2), "scales": np.array([1, 1, 3, 2], np.float32)}),
        model(classifier, {**filters, **bn, "m": normal(5, 4), "k": normal(5)}, inputs={"x": FIXED}),
        model(upscaler, {**filters, "slope": normal(4, 1, 1), "low": np.float32(0), "high": np.float32(1)}),
        model(skip, {**filters, "scales": np.array([1, 1, 2, 2], np.float32), "half": np.float32(0.5)}),
        model(shapes, {"zero": ints(0), "rest": ints(192), "m": normal(192, 3)}, inputs={"x": FIXED}),
        model(transposed, {"w": normal(3, 4, 3, 3)}, inputs={"x": FIXED}),
    ]


# ---- damage to what a file says


def _attribute(proto: Any, chance: random.Random) -> None:
    found = [(n, a) for n in proto.graph.node for a in n.attribute]
    if not found:
        return
    holder, attribute = chance.choice(found)
    how = chance.randrange(6)
    if how == 0:
        holder.attribute.remove(attribute)
    elif how == 1:
        attribute.type = chance.choice(AttributeProto.AttributeType.values())
    elif how == 2:
        attribute.name = chance.choice(["pads", "axis", "strides", "x", "", "kernel_shape", "auto_pad"])
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        values = list(attribute.ints)
        values[chance.randrange(len(values))] = chance.choice(NUMBERS)
        del attribute.ints[:]
        attribute.ints.extend(values[:chance.randrange(len(values)) + 1] if how == 3 else values * (2 if how == 4 else 1))
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = chance.choice(FRACTIONS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = chance.choice(STRINGS)
    else:
        attribute.i = chance.choice(NUMBERS)


def _wiring(proto: Any, chance: random.Random) -> None:
    one = chance.choice(proto.graph.node)
    names = [name for n in proto.graph.node for name in (*n.input, *n.output)] + ["", "nowhere"]
    ports = one.input if chance.random() < 0.7 else one.output
    how = chance.randrange(3)
    if how == 0 and ports:
        ports[chance.randrange(len(ports))] = chance.choice(names)
    elif how == 1 and ports:
        ports.pop(chance.randrange(len(ports)))
    else:
        ports.append(chance.choice(names))


def _operator(proto: Any, chance: random.Random) -> None:
    one = chance.choice(proto.graph.node)
    if chance.random() < 0.1:
        one.domain = chance.choice(["com.microsoft", "ai.onnx", "ai.onnx.ml"])
    else:
        one.op_type = chance.choice(OPERATORS)


def _nodes(proto: Any, chance: random.Random) -> None:
    nodes = proto.graph.node
    index = chance.randrange(len(nodes))
    how = chance.randrange(3)
    if how == 0:
        del nodes[index]
    elif how == 1:
        nodes.add().CopyFrom(nodes[index])
    else:
        first, second = nodes[index], nodes[chance.randrange(len(nodes))]
        kept = type(first).FromString(first.SerializeToString())
        first.CopyFrom(second)
        second.CopyFrom(kept)


def _weights(proto: Any, chance: random.Random) -> None:
    if not proto.graph.initializer:
        return
    tensor = chance.choice(proto.graph.initializer)
    how = chance.randrange(7)
    if how == 0:
        tensor.data_type = chance.choice(TensorProto.DataType.values())
    elif how == 1 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(NUMBERS)
    elif how == 2:
        tensor.dims.append(chance.choice(NUMBERS))
    elif how == 3:
        tensor.raw_data = tensor.raw_data[:chance.randrange(len(tensor.raw_data) + 1)]
    elif how == 4:
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", chance.choice(["../../etc/passwd", "/etc/passwd", "weights.bin", "", "\0"])
    elif how == 5:
        tensor.raw_data = np.array([chance.choice(FRACTIONS)] * (len(tensor.raw_data) // 4), "<f4").tobytes()
    else:
        proto.graph.initializer.remove(tensor)


def _ports(proto: Any, chance: random.Random) -> None:
    port = chance.choice([*proto.graph.input, *proto.graph.output])
    kind = port.type.tensor_type
    how = chance.randrange(4)
    if how == 0:
        kind.elem_type = chance.choice(TensorProto.DataType.values())
    elif how == 1 and kind.shape.dim:
        kind.shape.dim[chance.randrange(len(kind.shape.dim))].dim_value = chance.choice(NUMBERS)
    elif how == 2:
        kind.shape.dim.add().dim_value = chance.choice(NUMBERS)
    else:
        port.name = chance.choice(["x", "y", "c", "w", ""])


def _versions(proto: Any, chance: random.Random) -> None:
    proto.opset_import[0].version = chance.choice([0, 6, 7, 9, 10, 11, 13, 16, 18, 20, 1000, -1])


# ---- damage to bytes


def _bytes(data: bytes, chance: random.Random) -> bytes:
    how = chance.randrange(4)
    place = chance.randrange(len(data) + 1)
    if how == 0:
        return data[:place]
    if how == 1:
        return data[:place] + chance.randbytes(chance.randrange(1, 9)) + data[place:]
    if how == 2:
        return data[:place] + data[place + chance.randrange(1, 33):]
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


DAMAGES: tuple[Callable[[Any, random.Random], None], ...] = (
    _attribute, _attribute, _wiring, _operator, _nodes, _weights, _weights, _ports, _versions)


def damaged(chance: random.Random) -> bytes:
    """A file that was sound once."""
    from onnx import ModelProto

    data = chance.choice(seeds())
    if chance.random() < 0.25:
        return _bytes(data, chance)
    proto = ModelProto.FromString(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if proto.graph.node and (proto.graph.input or proto.graph.output):
            chance.choice(DAMAGES)(proto, chance)
    return bytes(proto.SerializeToString())
