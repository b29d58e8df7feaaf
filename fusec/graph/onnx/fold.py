"""Operators on values that do not depend on the image, worked out while the file is read.

In: a node and its `Known` inputs, some entries of which may be open sizes. Out: `Known` outputs. This resolves what exporters
compute of shapes, and reshaped, scaled or transposed weights. The functions are NumPy's, on numbers and on `extent.Open` alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from fusec.graph.onnx.extent import Open, Unresolved, ceil, equal, floor
from fusec.graph.onnx.node import OnnxNode
from fusec.graph.onnx.proto import MAX_RANK, to_array
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import Known, known

FIXED = "give the network's input a fixed height and width"
MAX_FOLDED = 1 << 26  # elements of a folded tensor, 256 MiB of float32
MAX_MADE = 1 << 20  # of one that is repeated, counted up, or spread by arithmetic

Array = NDArray[Any]
Arrays = Sequence["Array | None"]


class Fold:
    """A node on constants: its attributes and inputs."""

    def __init__(self, node: OnnxNode, inputs: Arrays, opset: int, folder: Path | None) -> None:
        self.node = node
        self.inputs = inputs
        self.opset = opset
        self.folder = folder

    def __getitem__(self, index: int) -> Array:
        value = self.get(index)
        if value is None:
            raise Refusal(f"its input {index} is missing", "the file is damaged")
        return value

    def get(self, index: int) -> Array | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def whole(self, index: int) -> list[int] | None:
        """Input `index` as whole numbers that are known; None where it is left out."""
        value = self.get(index)
        return None if value is None else whole_numbers(value)

    def axes(self, index: int) -> list[int] | None:
        """`axes`: an attribute in older opsets, an input in newer ones."""
        given = self.attribute("axes")
        return given if given is not None else self.whole(index)


def whole_numbers(array: Array) -> list[int]:
    """The entries of a vector of whole numbers, all known; Refusal otherwise."""
    flat = np.atleast_1d(array)
    if flat.ndim != 1 or flat.size > 4096:
        raise Refusal(f"an array of {array.shape} stands where a few numbers are wanted")
    if flat.dtype.kind not in "iu":
        raise Refusal("it needs whole numbers that are known", FIXED)
    return [int(v) for v in flat]


def fold(node: OnnxNode, inputs: Sequence[Known | None], opset: int, folder: Path | None) -> tuple[Known, ...]:
    """The outputs of a node whose inputs are all known; Refusal where the operator is not one that is folded."""
    operation = FOLDS.get(node.operator)
    if operation is None:
        raise Refusal("all it reads are constants, and it is not folded", "fold constants before exporting")
    arrays = [None if value is None else value.array for value in inputs]
    call = Fold(node, arrays, opset, folder)
    try:
        with np.errstate(all="ignore"):
            made = operation(call)
        outputs = tuple(known(array) for array in (made if isinstance(made, tuple) else (made,)))
    except Unresolved as reason:
        raise Refusal(f"it depends on the image's size: {reason}", FIXED) from None
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError, np.exceptions.AxisError) as reason:
        raise Refusal(f"its inputs do not fit: {reason}"[:300], "the file is damaged") from None
    if any(output.array.size > MAX_FOLDED or output.array.ndim > MAX_RANK for output in outputs):
        raise Refusal(f"a constant of more than {MAX_FOLDED:,} elements or {MAX_RANK} axes")
    return outputs


def shape_of(dims: Sequence[Any], node: OnnxNode) -> Known:
    """What `Shape` says of a tensor with these extents."""
    first, last = node.attributes.get("start", 0), node.attributes.get("end", len(dims))
    return known(np.array([*dims][slice(first, last)], dtype=object))


# ---- making and moving


def _constant(call: Fold) -> Array:
    given = call.node.attributes
    if len(given) != 1:
        raise Refusal("it needs exactly one value")
    ((name, value),) = given.items()
    if name == "value":
        return to_array(value, call.folder)
    if name in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if name in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    raise Refusal(f"constants of {name} are not read", "numbers are")


def _limited(shape: Sequence[int], most: int = MAX_MADE) -> tuple[int, ...]:
    if len(shape) > MAX_RANK or any(s < 0 for s in shape) or math.prod(shape) > most:
        raise Refusal(f"it makes a constant of {list(shape)[:MAX_RANK]}", f"up to {most:,} elements are made")
    return tuple(shape)


def _constant_of_shape(call: Fold) -> Array:
    value = call.attribute("value")
    fill = np.zeros(1, np.float32) if value is None else to_array(value, call.folder)
    return np.broadcast_to(fill.reshape(-1)[0], _limited(whole_numbers(call[0]), MAX_FOLDED))


def _range(call: Fold) -> Array:
    start, limit, delta = (call[i].reshape(-1)[0] for i in range(3))
    if any(isinstance(v, Open) for v in (start, limit, delta)):
        raise Unresolved("a range")
    _limited([max(0, math.ceil((limit - start) / delta))])
    return np.arange(start, limit, delta, dtype=call[0].dtype)


def _expand(call: Fold) -> Array:
    shape = np.broadcast_shapes(call[0].shape, tuple(whole_numbers(call[1])))
    return np.broadcast_to(call[0], _limited(shape))


def _tile(call: Fold) -> Array:
    repeats = whole_numbers(call[1])
    _limited([a * b for a, b in zip(call[0].shape, repeats, strict=True)])
    return np.tile(call[0], repeats)


def _reshape(call: Fold) -> Array:
    target = whole_numbers(call[1])
    if not call.attribute("allowzero", 0):
        target = [call[0].shape[i] if extent == 0 else extent for i, extent in enumerate(target)]
    return call[0].reshape(target)


def _flatten(call: Fold) -> Array:
    axis = call.attribute("axis", 1)
    axis = axis + call[0].ndim if axis < 0 else axis
    return call[0].reshape(math.prod(call[0].shape[:axis]), -1)


def _squeeze(call: Fold) -> Array:
    axes = call.axes(1)
    return np.squeeze(call[0], None if axes is None else tuple(axes))


def _unsqueeze(call: Fold) -> Array:
    return np.expand_dims(call[0], tuple(call.axes(1) or ()))


def _transpose(call: Fold) -> Array:
    return np.transpose(call[0], call.attribute("perm"))


def _slice(call: Fold) -> Array:
    return call[0][slices(call, call[0].ndim)]


def slices(call: Fold, rank: int) -> tuple[slice, ...]:
    """The slices of a `Slice` node, one per axis."""
    if call.opset < 10:
        starts, ends = call.attribute("starts", []), call.attribute("ends", [])
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = whole_numbers(call[1]), whole_numbers(call[2])
        axes, steps = call.whole(3), call.whole(4)
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    made = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 0:
            raise Refusal("its step is 0", "the file is damaged")
        made[axis] = slice(start, end, step)
    return tuple(made)


def _gather(call: Fold) -> Array:
    return np.take(call[0], np.asarray(call[1], np.int64), axis=call.attribute("axis", 0))


def _concat(call: Fold) -> Array:
    arrays = [call[i] for i in range(len(call.inputs))]
    return np.concatenate(arrays, axis=call.attribute("axis", 1))


def _split(call: Fold) -> tuple[Array, ...]:
    return tuple(np.split(call[0], split_points(call, call[0].shape[call.attribute("axis", 0)]),
                          axis=call.attribute("axis", 0)))


def split_points(call: Fold, extent: int) -> list[int]:
    """Where a `Split` node cuts an axis of `extent`: the starts of all parts but the first."""
    count = len(call.node.outputs)
    parts = call.attribute("split") or call.whole(1)
    if not parts:
        if call.attribute("num_outputs", count) != count:
            raise Refusal("num_outputs is not the number of its outputs", "the file is damaged")
        size = -(-extent // count)
        parts = [min(size, extent - i * size) for i in range(count)]
    if len(parts) != count or sum(parts) != extent or any(p < 1 for p in parts):
        raise Refusal(f"it cuts {extent} into {parts[:10]}", "the parts must be 1 or more and add up")
    return [sum(parts[:i]) for i in range(1, count)]


# ---- arithmetic


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of single values as one of arrays of objects."""
    made: Callable[..., Any] = np.frompyfunc(function, function.__code__.co_argcount, 1)
    return made


def _objects(*arrays: Array) -> bool:
    return any(a.dtype == object for a in arrays)


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Fold], Array]:
    def run(call: Fold) -> Array:
        shape = np.broadcast_shapes(call[0].shape, call[1].shape)
        if math.prod(shape) > max(MAX_MADE, call[0].size, call[1].size):
            raise Refusal(f"it makes a constant of {list(shape)}")
        return np.asarray(function(call[0], call[1]))
    return run


def _divide(a: Array, b: Array) -> Array:
    if _objects(a, b):
        exact = a.dtype.kind == "f" or b.dtype.kind == "f"
        return np.asarray(np.true_divide(a, b) if exact else np.floor_divide(a, b))
    if a.dtype.kind in "iu":
        if (b == 0).any():
            raise Refusal("it divides by zero")
        return np.asarray(np.trunc(a / b).astype(a.dtype) if (np.minimum(a.min(initial=0), b.min(initial=0)) < 0) else a // b)
    return np.asarray(a / b)


def _equal(a: Array, b: Array) -> Array:
    return np.asarray(_each(lambda x, y: equal(x, y))(a, b), dtype=bool) if _objects(a, b) else np.asarray(a == b)


def _number(function: Callable[[Array], Array]) -> Callable[[Fold], Array]:
    """A function of one array of numbers; `Unresolved` for open sizes."""
    def run(call: Fold) -> Array:
        if _objects(call[0]):
            raise Unresolved("a function of a size")
        return np.asarray(function(call[0]))
    return run


def _rounding(numbers: Callable[[Array], Array], extents: Callable[[Any], Any]) -> Callable[[Fold], Array]:
    def run(call: Fold) -> Array:
        return np.asarray(_each(lambda x: extents(x))(call[0]) if _objects(call[0]) else numbers(call[0]))
    return run


def _least(function: Callable[[Array, Array], Array]) -> Callable[[Fold], Array]:
    def run(call: Fold) -> Array:
        arrays = [call[i] for i in range(len(call.inputs))]
        if _objects(*arrays):
            raise Unresolved("the least or greatest of sizes")
        return reduce(function, arrays)
    return run


def _where(call: Fold) -> Array:
    return np.where(call[0].astype(bool), call[1], call[2])


_NUMPY_TYPES = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16,
                TensorProto.BFLOAT16: np.float32, TensorProto.INT32: np.int32, TensorProto.INT64: np.int64,
                TensorProto.BOOL: np.bool_, TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8}


def _cast(call: Fold) -> Array:
    kind = _NUMPY_TYPES.get(call.attribute("to"))
    if kind is None:
        raise Refusal("it casts to a type that is not read", "float, integer and bool are")
    if not _objects(call[0]):
        return call[0].astype(kind)
    return np.asarray(_each(lambda x: floor(x))(call[0])) if np.dtype(kind).kind in "iu" else call[0]


def _reduce(function: Callable[..., Any], axes_from: int) -> Callable[[Fold], Array]:
    def run(call: Fold) -> Array:
        axes = call.attribute("axes") if call.opset < axes_from else call.whole(1)
        if not axes and call.attribute("noop_with_empty_axes", 0):
            return call[0]
        return np.asarray(function(call[0], axis=tuple(axes) if axes else None, keepdims=bool(call.attribute("keepdims", 1))))
    return run


FOLDS: dict[str, Callable[[Fold], Array | tuple[Array, ...]]] = {
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Range": _range, "Expand": _expand, "Tile": _tile,
    "Identity": lambda call: call[0], "Dropout": lambda call: call[0],
    "Shape": lambda call: shape_of(call[0].shape, call.node).array,
    "Size": lambda call: np.array(call[0].size, np.int64),
    "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Transpose": _transpose,
    "Slice": _slice, "Gather": _gather, "Concat": _concat, "Split": _split,
    "Add": _binary(np.add), "Sub": _binary(np.subtract), "Mul": _binary(np.multiply), "Div": _binary(_divide),
    "Pow": _binary(np.power), "Equal": _binary(_equal),
    "Neg": lambda call: -call[0], "Abs": _number(np.abs), "Sqrt": _number(np.sqrt), "Exp": _number(np.exp),
    "Log": _number(np.log), "Reciprocal": _number(np.reciprocal), "Not": _number(np.logical_not),
    "Floor": _rounding(np.floor, floor), "Ceil": _rounding(np.ceil, ceil), "Round": _number(np.rint),
    "Min": _least(np.minimum), "Max": _least(np.maximum), "Where": _where, "Cast": _cast,
    "ReduceProd": _reduce(np.prod, 18), "ReduceSum": _reduce(np.sum, 13), "ReduceMean": _reduce(np.mean, 18),
    "ReduceMax": _reduce(np.max, 18), "ReduceMin": _reduce(np.min, 18),
}
