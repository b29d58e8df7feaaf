"""What onnxruntime makes of an ONNX file, tensor by tensor, for `fusec compare --against onnxruntime`.

In: a file that fusec has read, the part of it that is wanted, input arrays. Out: the tensors asked for, as onnxruntime's CPU
provider computes them in float32 without rewriting the graph. The only module that imports onnxruntime.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fusec.errors import InputError, MissingError
from fusec.graph.onnx.cut import Cut

Array = NDArray[Any]


def need_onnxruntime() -> None:
    """MissingError without the package."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingError("--against onnxruntime needs the package onnxruntime: python -m pip install onnxruntime")


def run_onnxruntime(path: Path, cut: Cut, inputs: Mapping[str, Array], wanted: Sequence[str], outputs: Sequence[str],
                    ) -> dict[str, Array]:
    """The tensors of `wanted` that the file has, and what it puts out under the names of `outputs`, which are in its order.

    Raises
    ------
    InputError
        onnxruntime refuses the file or the arrays.
    MissingError
        It is not installed.
    """
    need_onnxruntime()
    import onnx
    import onnxruntime

    model = onnx.load(path)
    ends = list(dict.fromkeys(cut.end or [o.name for o in model.graph.output]))
    if cut:
        model = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(list(inputs), ends)
    made = {name for node in model.graph.node for name in node.output}
    there = {output.name for output in model.graph.output}
    names = [name for name in dict.fromkeys((*wanted, *ends)) if name in made | there]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                              for name in names if name not in there)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        given = {p.name: inputs[p.name].reshape(inputs[p.name].shape[:len(p.shape)]) for p in session.get_inputs()}
        found = dict(zip(names, session.run(names, given), strict=True))
    except Exception as error:  # onnxruntime's own, whose types are no part of its interface
        raise InputError(f"onnxruntime cannot run it: {str(error).splitlines()[0]}"[:500], str(path)) from None
    named = {ours: found[theirs] for ours, theirs in zip(outputs, ends, strict=True)} if len(outputs) == len(ends) else {}
    return found | named
