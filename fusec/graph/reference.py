"""Runs a layer graph in plain NumPy: slow, simple, and what every other way of running it is compared with.

In: a `LayerGraph`, simplified or not, and its input arrays. Out: its output arrays. What a layer means stands in
`reference_ops`; nothing here or there is shared with the planner or the code generators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fusec.errors import InputError, Problem, nearest
from fusec.graph.graph import Array, LayerGraph, Node
from fusec.graph.layers import Input
from fusec.graph.reference_ops import apply

__all__ = ["apply", "apply_node", "run"]


def run(graph: LayerGraph, inputs: Mapping[str, ArrayLike] | ArrayLike, *, dtype: DTypeLike = np.float64,
        keep: bool = False) -> dict[str, Array]:
    """Evaluate a network.

    Parameters
    ----------
    graph
        The network; epilogues are applied after their node's layer.
    inputs
        One array (images, channels, height, width) per input, by name; a bare array when there is one input.
    dtype
        float32 or float64; inputs and weights are cast to it and all arithmetic stays in it.
    keep
        Return every tensor, not the outputs alone.

    Returns
    -------
    dict
        Output name (every tensor's name with `keep`) to array (images, channels, height, width).

    Raises
    ------
    InputError
        Missing, unknown or wrongly shaped inputs; an image that is too small; branches whose sizes do not meet.
    """
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError(f"the reference computes in float32 or float64, not {kind}")
    tensors = _checked_inputs(graph, inputs, kind)
    readers = Counter(i for node in graph.nodes for i in set(node.inputs))
    needed = set(graph.outputs)
    for node in graph.layers:
        _check_sizes(node, [tensors[i] for i in graph.sized_by(node)])
        tensors[node.name] = apply_node(node, [tensors[i] for i in node.inputs])
        if keep:
            continue
        for name in set(node.inputs):
            readers[name] -= 1
            if not readers[name] and name not in needed:
                del tensors[name]
    return tensors if keep else {name: tensors[name] for name in graph.outputs}


def apply_node(node: Node, inputs: list[Array]) -> Array:
    """Evaluate one node with its epilogue; InputError naming the node where the inputs' sizes do not fit."""
    try:
        result = apply(node.layer, node.params, inputs)
    except InputError as error:
        raise InputError(Problem(p.what, node.name, p.hint) for p in error.problems) from None
    for pointwise in node.epilogue:
        result = apply(pointwise.layer, pointwise.params, [result])
    return result


def _check_sizes(node: Node, inputs: list[Array]) -> None:
    """InputError where inputs that should be of one height and width are not."""
    if len({x.shape[2:] for x in inputs}) > 1:
        sizes = " and ".join(f"{x.shape[2]}x{x.shape[3]}" for x in inputs)
        raise InputError(f"{node.layer.kind} reads images of {sizes} pixels", node.name)


def _checked_inputs(graph: LayerGraph, inputs: Mapping[str, ArrayLike] | ArrayLike, dtype: np.dtype[Any],
                    ) -> dict[str, Array]:
    names = [node.name for node in graph.inputs]
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InputError(f"the network has {len(names)} inputs: give a mapping from {', '.join(names)} to arrays")
        inputs = {names[0]: inputs}
    problems = [Problem(f"unknown input '{k}'", graph.name, nearest(k, names)) for k in inputs if k not in names]
    problems += [Problem(f"input '{k}' is missing", graph.name) for k in names if k not in inputs]
    arrays = {k: np.asarray(inputs[k], dtype=dtype) for k in names if k in inputs}
    problems += [p for node in graph.inputs if node.name in arrays for p in _shape_problems(node, arrays[node.name].shape)]
    batches = {a.shape[0] for a in arrays.values() if a.ndim == 4}
    if len(batches) > 1:
        counts = ", ".join(map(str, sorted(batches)))
        problems.append(Problem(f"the inputs hold different numbers of images: {counts}", graph.name))
    if problems:
        raise InputError(problems)
    return arrays


def _shape_problems(node: Node, shape: tuple[int, ...]) -> list[Problem]:
    assert isinstance(node.layer, Input)
    wanted = (None, node.layer.channels, node.layer.height, node.layer.width)
    if len(shape) == 4 and all(shape[1:]) and all(w is None or w == s for w, s in zip(wanted, shape, strict=True)):
        return []
    form = "x".join(["N", *("?" if w is None else str(w) for w in wanted[1:])])
    return [Problem(f"expects an array of {form}, not {'x'.join(map(str, shape)) or 'a scalar'}", node.name)]
