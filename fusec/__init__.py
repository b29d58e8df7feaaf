"""fusec: a code-generating compiler for fused CNN kernels.

`compile` makes a model of a network description; `load` opens one that `fusec compile` left in a folder. Both are called with
arrays of shape (batch, channels, height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from fusec.version import VERSION

if TYPE_CHECKING:
    from fusec.graph.graph import LayerGraph
    from fusec.runtime.model import Model

__version__ = VERSION
__all__ = ["compile", "load"]


def compile(network: str | PathLike[str] | LayerGraph, *, target: str = "auto", dtype: str = "float32", fuse: str = "auto",
            weights: str | PathLike[str] | None = None, random_weights: int | None = None, arch: str | None = None,
            shape: Sequence[int] | None = None, locked: str | PathLike[str] | None = None,
            from_: str | Sequence[str] = (), to: str | Sequence[str] = ()) -> Model:
    """Compile a network in memory.

    Parameters
    ----------
    network
        Path of a description or of an ONNX file, the name of a shipped network ("lenet5"), or a LayerGraph; its weights are
        NumPy arrays, and checked like those of a file.
    target
        "cpu", "cuda", or "auto": the GPU where there is one, else the CPU; `model.program.target` says which it was.
    dtype
        "float32", or on a GPU "float16" and "bfloat16": the type of weights, inputs, outputs and all tensors between. Sums are
        float32 in any case.
    fuse
        "auto" (the cost model decides), "none" (layer by layer), "all" (chains as long as they can be), or chains by name:
        "conv1..pool2,conv3..conv5".
    weights
        A safetensors file, in place of the one the description names or of the graph's own weights.
    random_weights
        Seed of random weights, in place of any others. Without these two, a network that has no weights is refused.
    arch
        GPU architecture such as "sm_90" instead of that of the GPU present.
    shape
        Batch, channels, height and width of the (first) input that tiles and chains are chosen for, such as (1, 3, 480, 640);
        usual sizes when left out. The model takes any other size all the same.
    locked
        A lockfile that `fusec tune` wrote, whose schedules are made in place of the cost model's.
    from_, to
        Of an ONNX file: tensors to begin and end at, in place of the network's inputs and outputs.

    Returns
    -------
    Model
        Called with one array (N, C, H, W) of type `dtype` per input; returns the same kind of array.

    Raises
    ------
    fusec.errors.InputError
        The description, the weights, the lockfile or an option cannot be used; lists every problem.
    fusec.errors.Infeasible
        The network cannot be scheduled as asked.
    fusec.errors.MissingError
        No compiler, or no GPU.
    """
    from pathlib import Path

    from fusec.graph.graph import LayerGraph as Graph
    from fusec.graph.onnx.cut import Cut
    from fusec.pipeline import compile_network

    return compile_network(network if isinstance(network, Graph) else Path(network), target=target, dtype=dtype, fuse=fuse,
                           weights=None if weights is None else Path(weights), random_weights=random_weights, arch=arch,
                           shape=shape, locked=None if locked is None else Path(locked),
                           cut=Cut(*((names,) if isinstance(names, str) else tuple(names) for names in (from_, to))))


def load(directory: str | PathLike[str]) -> Model:
    """Open a model that `fusec compile` left in a folder.

    Raises
    ------
    fusec.errors.InputError
        The folder is no model, or damaged.
    fusec.errors.MissingError
        It was built for another CPU, and there is no compiler here. A GPU is looked for at the first call, not here.
    """
    from fusec.runtime.artefact import load as load_artefact

    return load_artefact(directory)
