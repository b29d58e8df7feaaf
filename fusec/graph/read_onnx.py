"""Reads a network from an ONNX file; the first step of the pipeline for files of that kind.

In: the path of an `.onnx` file, and which part of it is wanted. Out: a checked `LayerGraph` with its weights. The onnx package
(extra `onnx`) is imported here, when a file is read and not before; what ONNX means stands in `graph/onnx/`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fusec.errors import MissingError
from fusec.graph.find_weights import Description
from fusec.graph.onnx.cut import Cut

SUFFIX = ".onnx"


def read_onnx(path: Path, cut: Cut | None = None) -> Description:
    """The network of an ONNX file, with its weights.

    Parameters
    ----------
    path
        The file; external data have to lie in its folder or below.
    cut
        Names of tensors to begin and end at, in place of the graph's own inputs and outputs.

    Raises
    ------
    InputError
        Everything that is wrong with the file or not supported, naming the node.
    MissingError
        The onnx package is not installed.
    """
    need_onnx()
    from fusec.graph.onnx.convert import convert
    from fusec.graph.onnx.proto import read_model

    graph = convert(read_model(path), path.stem, str(path), folder=path.parent, cut=cut)
    return Description(graph, None, "", str(path))


def need_onnx() -> None:
    """MissingError without the onnx package."""
    if importlib.util.find_spec("onnx") is None:
        raise MissingError("ONNX files need the package onnx: python -m pip install 'fusec[onnx]'")
