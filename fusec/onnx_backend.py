"""fusec as a backend of the onnx package: the interface that the standard's own tests run against.

In: a `ModelProto` and a device, "CPU" or "CUDA". Out: a prepared model whose `run` takes and returns NumPy arrays of the shapes
that the graph declares. Beside the pipeline; nothing imports it.

    import fusec.onnx_backend as backend
    outputs = backend.prepare(model, "CPU").run([x])

fusec compiles weights into a model. Graph inputs that no node reads as an image are taken for weights: their values are those
of the first call, and other ones compile the model anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.backend.base import Backend, BackendRep, namedtupledict

from fusec.errors import InputError
from fusec.graph.graph import LayerGraph
from fusec.graph.onnx.convert import convert
from fusec.graph.onnx.table import OPERATORS
from fusec.pipeline import compile_network
from fusec.runtime.cuda import gpu

TARGETS = {"CPU": "cpu", "CUDA": "cuda"}
HALVES = ("float16", "bfloat16")  # computed in float32
WHERE = "model"  # what errors call a model that has no file

Array = NDArray[Any]
Compile = Callable[[LayerGraph], Callable[..., Any]]


class Prepared(BackendRep):
    """A model ready to run; kernels are built at the first call, when all weights are known."""

    def __init__(self, model: Any, compile_graph: Compile) -> None:
        self.model = model
        self._compile = compile_graph
        weights = {tensor.name for tensor in model.graph.initializer}
        self.inputs = tuple(i.name for i in model.graph.input if i.name not in weights)
        self._constant = tuple(name for name in self.inputs if not _read_as_image(model, name))
        self._baked: tuple[Mapping[str, Array], LayerGraph, Callable[..., Any]] | None = None

    def run(self, inputs: Sequence[Array] | Mapping[str, Array], **kwargs: Any) -> tuple[Any, ...]:
        """The outputs for inputs in the graph's order or by name; InputError where the network is not supported."""
        given = dict(inputs) if isinstance(inputs, Mapping) else dict(zip(self.inputs, inputs, strict=True))
        graph, model = self._ready({name: np.asarray(given[name]) for name in self._constant})
        made = model(*(_image(given[node.name], node.name) for node in graph.inputs))
        results = made if isinstance(made, tuple) else (made,)
        names = [output.name for output in self.model.graph.output]
        shaped = [_shaped(result, output) for result, output in zip(results, self.model.graph.output, strict=True)]
        outputs: tuple[Any, ...] = namedtupledict("Outputs", names)(*shaped)
        return outputs

    def _ready(self, constants: Mapping[str, Array]) -> tuple[LayerGraph, Callable[..., Any]]:
        if self._baked is None or not all(np.array_equal(self._baked[0][k], v) for k, v in constants.items()):
            graph = convert(self.model, self.model.graph.name or WHERE, WHERE, constants=constants)
            self._baked = (constants, graph, self._compile(graph))
        return self._baked[1], self._baked[2]


class FusecBackend(Backend):
    """The interface of `onnx.backend.base.Backend`."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Prepared:
        """The model, to be built at its first call; `fuse` is as in `fusec.compile`."""
        target = TARGETS[device.split(":")[0]]
        return Prepared(model, lambda graph: compile_network(graph, target=target, fuse=kwargs.get("fuse", "auto")))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None,
                 **kwargs: Any) -> tuple[Any, ...]:
        """A single node on arrays; `opset_version` in `kwargs`, the newest when left out."""
        names = [name for name in node.input if name]
        given = {name: np.asarray(array) for name, array in zip(names, inputs, strict=True)}
        ports = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                 for name, array in given.items()]
        made = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
        opset = onnx.helper.make_opsetid("", kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        model = onnx.helper.make_model(onnx.helper.make_graph([node], node.op_type, ports, made), opset_imports=[opset])
        return cls.run_model(model, given, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        target = TARGETS.get(device.split(":")[0])
        return target == "cpu" or (target == "cuda" and gpu.available())


def _read_as_image(model: Any, name: str) -> bool:
    """Whether a node reads the tensor where the network may compute it, or it is an output."""
    if any(output.name == name for output in model.graph.output):
        return True
    for node in model.graph.node:
        operator = OPERATORS.get(node.op_type)
        if any(source == name and (operator is None or i < operator.computed) for i, source in enumerate(node.input)):
            return True
    return False


def _image(array: Any, name: str) -> Array:
    """An input as float32 (N, C, H, W): (N, C, L) and (N, C) get axes of one pixel."""
    values = np.asarray(array)
    values = values.astype(np.float32) if values.dtype.name in HALVES else values
    if not 2 <= values.ndim <= 4:
        raise InputError(f"input '{name}' has {values.ndim} axes instead of 2 to 4")
    return np.ascontiguousarray(values.reshape(values.shape + (1,) * (4 - values.ndim)))


def _shaped(result: Any, output: Any) -> Array:
    """A result of the type and with as many axes as the graph declares; further ones are of one pixel."""
    values = np.asarray(result)
    kind = output.type.tensor_type
    rank = len(kind.shape.dim) if kind.HasField("shape") else values.ndim
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else values.dtype
    return values.reshape(values.shape[:rank] + (1,) * (rank - values.ndim)).astype(dtype)


prepare = FusecBackend.prepare
run_model = FusecBackend.run_model
run_node = FusecBackend.run_node
supports_device = FusecBackend.supports_device
