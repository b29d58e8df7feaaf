"""Small ONNX models for tests, and what onnxruntime makes of them.

In: nodes, constants and the forms of inputs. Out: a `ModelProto`. The other executions are onnxruntime's and the float32
reference of the graph that fusec reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fusec.graph import reference
from fusec.graph.graph import LayerGraph
from fusec.graph.onnx.convert import convert
from fusec.graph.onnx.cut import Cut

Array = NDArray[Any]
Dims = Sequence["int | str"]
IMAGE: Dims = ("N", 3, "H", "W")
OPSET = 17

node = helper.make_node


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(nodes: Sequence[Any], constants: Mapping[str, Array] | None = None, *, inputs: Mapping[str, Dims] | None = None,
          outputs: Sequence[str] = ("y",), opset: int = OPSET) -> Any:
    """A model that reads `x` and makes `y` unless it says otherwise."""
    ports = inputs or {"x": IMAGE}
    graph = helper.make_graph(
        list(nodes), "graph", [helper.make_tensor_value_info(k, TensorProto.FLOAT, list(v)) for k, v in ports.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(proto: Any, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def read(proto: Any, cut: Cut | None = None) -> LayerGraph:
    return convert(proto, "net", "net.onnx", cut=cut)


def kinds(graph: LayerGraph) -> list[str]:
    """The layers in order."""
    return [n.layer.kind for n in graph.layers]


def by_onnxruntime(proto: Any, *arrays: Array) -> list[Array]:
    """The outputs by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {port.name: x for port, x in zip(session.get_inputs(), arrays, strict=True)}))


def by_reference(graph: LayerGraph, *arrays: Array) -> list[Array]:
    """The outputs by fusec's reference, arrays with fewer axes as images of one pixel."""
    given = {n.name: x.reshape(x.shape + (1,) * (4 - x.ndim)) for n, x in zip(graph.inputs, arrays, strict=True)}
    made = reference.run(graph, given)
    return [made[name] for name in graph.outputs]


def assert_equal(proto: Any, *arrays: Array, tolerance: float = 2e-6) -> LayerGraph:
    """That fusec's reading of a model means what onnxruntime computes; the graph that was read."""
    graph = read(proto)
    for made, wanted in zip(by_reference(graph, *arrays), by_onnxruntime(proto, *arrays), strict=True):
        assert made.size == wanted.size, (made.shape, wanted.shape)
        assert made.shape[:wanted.ndim] == wanted.shape
        apart = np.abs(made.reshape(wanted.shape) - wanted).max(initial=0.0)
        assert apart <= tolerance * max(1.0, np.abs(wanted).max(initial=0.0)), apart
    return graph
