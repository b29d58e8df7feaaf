"""Weights of a network: read from a safetensors file, made from a seed, checked, or written.

In: a `LayerGraph` from a reader or from Python. Out: the same graph with float32 parameters in every node. Keys are
`NODE.PARAMETER`, such as `conv1.weight`; shapes are those of `shapes.param_shapes`. An activation that a node has taken in is
called by its own name. `find_weights` chooses among these ways; nothing later in the pipeline does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from fusec.errors import InputError, Problem, nearest, nearest_file
from fusec.graph import layers as L
from fusec.graph.graph import Array, LayerGraph, Node, Params
from fusec.graph.shapes import Shape, fan_in, param_shapes

SUFFIX = ".safetensors"
MAX_ELEMENTS = 1 << 31  # 8 GiB of float32
MAX_LISTED = 100  # problems of one sort that are listed; the rest are counted
_HINTED = 20  # problems that get a nearest name: looking it up is slow in large files
_READ_AS = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16"}
_NAMES = {"float32": "F32", "float64": "F64", "float16": "F16"}

Shapes = dict[str, tuple[int, ...]]


def weight_shapes(graph: LayerGraph) -> Shapes:
    """Key and shape of every weight the network wants, in topological order."""
    return {f"{name}.{param}": shape for name, layer, inputs, _ in _holders(graph)
            for param, shape in param_shapes(layer, inputs).items()}


def has_weights(graph: LayerGraph) -> bool:
    """Whether any node has parameters."""
    return any(params for _, _, _, params in _holders(graph))


def _holders(graph: LayerGraph) -> Iterator[tuple[str, L.Layer, tuple[Shape, ...], Params]]:
    """Name, layer, input shapes and present parameters of every layer, those in epilogues too."""
    for node in graph.nodes:
        yield node.name, node.layer, graph.input_shapes(node), node.params
        for taken in node.epilogue:
            yield taken.name, taken.layer, (graph.shapes[node.name],), taken.params


def check_size(graph: LayerGraph) -> None:
    """Refuses a network with more than `MAX_ELEMENTS` weights; the InputError names the largest layer."""
    sizes = {name: sum(math.prod(s) for s in param_shapes(layer, inputs).values())
             for name, layer, inputs, _ in _holders(graph)}
    total = sum(sizes.values())
    if total > MAX_ELEMENTS:
        largest = max(sizes, key=sizes.__getitem__)
        raise InputError(f"the network has {total:,} weights, over the limit of {MAX_ELEMENTS:,}", largest,
                         f"this layer alone has {sizes[largest]:,}")


def load_weights(path: Path, graph: LayerGraph) -> LayerGraph:
    """The graph with the weights of a safetensors file.

    Parameters
    ----------
    path
        A safetensors file with one tensor per weight, of float32, float64, float16 or bfloat16, and no other tensors.
    graph
        The network; weights it may have already are replaced.

    Returns
    -------
    LayerGraph
        New nodes with float32 parameters.

    Raises
    ------
    InputError
        The file cannot be read, or weights are missing, surplus, of a wrong shape or dtype, not finite, or variances below
        zero: all in one error.
    """
    check_size(graph)
    wanted = weight_shapes(graph)
    _check_file(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            keys = sorted(file.keys())
            problems = _key_problems(str(path), wanted, keys)
            scalars = _shared_slopes(graph)
            arrays: dict[str, Array] = {}
            for key in (k for k in keys if k in wanted):
                view = file.get_slice(key)
                found = _form_problem(key, tuple(view.get_shape()), view.get_dtype(), wanted[key], key in scalars)
                if not found:
                    raw = _bfloat16(path, key) if view.get_dtype() == "BF16" else file.get_tensor(key)
                    arrays[key], found = _float32(key, raw)
                problems += [Problem(what, str(path), hint) for what, hint in found]
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        hint = "it may be truncated" if path.suffix == SUFFIX else "PyTorch writes one with safetensors.torch.save_file"
        raise InputError(f"not a readable safetensors file: {error}", str(path), hint) from None
    if problems:
        raise InputError(problems)
    return attach(graph, arrays)


def random_weights(graph: LayerGraph, seed: int) -> LayerGraph:
    """The graph with seeded random float32 weights.

    Filters are normal with variance 2 / fan-in (He et al., ICCV 2015), so that values neither vanish nor explode through many
    layers; biases are small; batch-norm statistics are near (0, 1) and variances positive. Each value depends on the seed and
    on its own node's name, parameter and shape alone.

    Raises
    ------
    InputError
        The seed is negative, or the network has more than `MAX_ELEMENTS` weights.
    """
    if seed < 0:
        raise InputError(f"the seed of random weights must be 0 or more, not {seed}")
    check_size(graph)
    arrays = {f"{name}.{param}": _random(seed, name, layer, param, shape, fan_in(layer, inputs))
              for name, layer, inputs, _ in _holders(graph) for param, shape in param_shapes(layer, inputs).items()}
    return attach(graph, arrays)


def blank_weights(graph: LayerGraph) -> LayerGraph:
    """The graph with weights of zero (variances of one), which cost nothing however many: a plan does not depend on them."""
    check_size(graph)
    return attach(graph, {key: np.broadcast_to(np.float32(key.endswith(".running_var")), shape)
                          for key, shape in weight_shapes(graph).items()})


def check_params(graph: LayerGraph) -> LayerGraph:
    """The graph with the weights it has, checked as those of a file are.

    Parameters
    ----------
    graph
        A network with NumPy arrays of float32, float64 or float16 as parameters.

    Returns
    -------
    LayerGraph
        The same graph when all is float32 already; else new nodes with float32 parameters.

    Raises
    ------
    InputError
        Weights are missing, surplus, no arrays, of a wrong shape or dtype, not finite, or variances below
        zero: all in one error.
    """
    check_size(graph)
    wanted, scalars = weight_shapes(graph), _shared_slopes(graph)
    given: dict[str, object] = {f"{name}.{param}": value for name, _, _, params in _holders(graph)
                                for param, value in params.items()}
    problems = _key_problems(graph.name, wanted, list(given))
    arrays: dict[str, Array] = {}
    for key, value in given.items():
        if key not in wanted:
            continue
        if not isinstance(value, np.ndarray):
            problems.append(Problem(f"'{key}' is no NumPy array but {type(value).__name__}", graph.name, "try numpy.asarray"))
            continue
        found = _form_problem(key, value.shape, _NAMES.get(value.dtype.name, value.dtype.name), wanted[key], key in scalars)
        if not found:
            arrays[key], found = _float32(key, value)
        problems += [Problem(what, graph.name, hint) for what, hint in found]
    if problems:
        raise InputError(problems)
    return graph if all(arrays[key] is given[key] for key in arrays) else attach(graph, arrays)


def save_weights(graph: LayerGraph, path: Path) -> None:
    """Writes all weights of the graph as float32; the file appears whole or not at all.

    Raises
    ------
    InputError
        The graph lacks weights, or the file cannot be written.
    """
    arrays = {f"{name}.{param}": np.ascontiguousarray(value, dtype=np.float32)
              for name, _, _, params in _holders(graph) for param, value in params.items()}
    missing = [Problem(f"'{key}' has no value", graph.name) for key in weight_shapes(graph) if key not in arrays]
    if missing:
        raise InputError(_cut(missing))
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        safetensors.numpy.save_file(arrays, partial)
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"the weights cannot be written: {error}", str(path)) from None


def attach(graph: LayerGraph, arrays: Mapping[str, Array]) -> LayerGraph:
    """The graph with `arrays[NODE.PARAMETER]` as its parameters; every weight must be there."""
    def params_of(name: str, layer: L.Layer, inputs: tuple[Shape, ...]) -> Params:
        return {p: arrays[f"{name}.{p}"] for p in param_shapes(layer, inputs)}

    def with_params(node: Node) -> Node:
        made = (graph.shapes[node.name],)
        epilogue = tuple(replace(taken, params=params_of(taken.name, taken.layer, made)) for taken in node.epilogue)
        return replace(node, params=params_of(node.name, node.layer, graph.input_shapes(node)), epilogue=epilogue)
    return LayerGraph(graph.name, map(with_params, graph.nodes), graph.outputs)


def _shared_slopes(graph: LayerGraph) -> set[str]:
    """Keys that may also have the shape (1,)."""
    return {f"{name}.weight" for name, layer, _, _ in _holders(graph) if isinstance(layer, L.PRelu)}


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError("this is a directory, not a weights file", str(path))
    if not path.exists():
        raise InputError("no such weights file", str(path), nearest_file(path, SUFFIX) or
                         f"name a {SUFFIX} file, or give a seed of random weights instead")
    if not path.is_file():
        raise InputError("this is not a regular file", str(path))
    if path.stat().st_size > 8 * MAX_ELEMENTS:
        raise InputError(f"the file is larger than {8 * MAX_ELEMENTS:,} bytes", str(path))


def _key_problems(where: str, wanted: Shapes, keys: list[str]) -> list[Problem]:
    """Missing and surplus keys, each with the key of the other sort it was likely meant to be."""
    present = set(keys)
    missing = [k for k in wanted if k not in present]
    surplus = [k for k in keys if k not in wanted]
    problems = []
    for i, key in enumerate(missing):
        other = nearest(key, surplus[:1000]) if i < _HINTED else ""
        problems.append(Problem(f"'{key}' is missing", where, other.replace("did you mean", "is it meant by")))
    extra = [Problem(f"{key!r:.120} is not a weight of this network", where,
                     nearest(key, missing[:1000] or list(wanted)[:1000]) if i < _HINTED else "")
             for i, key in enumerate(surplus)]
    return _cut(problems) + _cut(extra)


def _cut(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= MAX_LISTED:
        return problems
    return [*problems[:MAX_LISTED], Problem(f"... and {len(problems) - MAX_LISTED} more of this sort", problems[0].where)]


def _form_problem(
    key: str, shape: tuple[int, ...], dtype: str, wanted: tuple[int, ...], may_be_scalar: bool,
) -> list[tuple[str, str]]:
    found = []
    if shape != wanted and not (may_be_scalar and shape == (1,)):
        transposed = "the axes look swapped" if sorted(shape) == sorted(wanted) else ""
        found.append((f"'{key}' has shape {_sizes(shape)}, but the network wants {_sizes(wanted)}", transposed))
    if dtype not in _READ_AS:
        found.append((f"'{key}' holds {dtype}", f"accepted are {', '.join(_READ_AS.values())}"))
    return found


def _sizes(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _float32(key: str, raw: Array) -> tuple[Array, list[tuple[str, str]]]:
    """The values as float32, with what is wrong about them."""
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(raw, dtype=np.float32)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        sort = "too large for float32" if np.isfinite(raw).all() else "NaN or infinite"
        return values, [(f"{bad} of the {values.size} values of '{key}' are {sort}", "the training may have diverged")]
    if key.endswith(".running_var") and (values < 0).any():
        return values, [(f"'{key}' has a variance below zero", "")]
    return values, []


def _bfloat16(path: Path, key: str) -> Array:
    """A bfloat16 tensor as float32: NumPy has no such type, but its bits are the upper half of a float32's."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_bytes))[key]
        begin, end = entry["data_offsets"]
        file.seek(8 + header_bytes + begin)
        halves = np.frombuffer(file.read(end - begin), dtype="<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def _random(seed: int, name: str, layer: L.Layer, param: str, shape: tuple[int, ...], summed: int) -> Array:
    identity = json.dumps([seed, name, param, shape]).encode()
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(identity).digest(), "little"))
    if param == "running_var":
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    values = generator.standard_normal(shape, dtype=np.float32)
    if isinstance(layer, L.PRelu):
        return np.abs(values) * np.float32(0.25)
    if param in ("bias", "running_mean", "shift"):
        return values * np.float32(0.1)
    if isinstance(layer, L.BatchNorm | L.ChannelAffine):
        return 1 + values * np.float32(0.1)
    values *= np.float32(math.sqrt(2 / summed))
    return values
