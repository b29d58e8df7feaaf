"""An ONNX file as a protobuf message, and its tensors as arrays; every size is checked before anything is allocated.

In: a file's path or bytes. Out: a `ModelProto` whose opset fusec reads, and NumPy arrays of its tensors. Data outside the file
is read from the file's own folder only, links followed. The message itself is the onnx package's; nothing else in it is run.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from fusec.errors import InputError
from fusec.graph.onnx.refusal import Refusal
from fusec.graph.weights import MAX_ELEMENTS
from fusec.graph.yaml_tree import show

MAX_FILE = (1 << 31) - 1  # bytes; protobuf itself takes no more
MAX_NODES = 10_000
MAX_RANK = 8
OLDEST = 7  # opset: broadcasting as in NumPy begins here
DOMAINS = ("", "ai.onnx")

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}  # of images; all are computed in float32
_TYPES = {
    TensorProto.FLOAT: "<f4", TensorProto.DOUBLE: "<f8", TensorProto.FLOAT16: "<f2", TensorProto.BFLOAT16: "<u2",
    TensorProto.INT8: "i1", TensorProto.INT16: "<i2", TensorProto.INT32: "<i4", TensorProto.INT64: "<i8",
    TensorProto.UINT8: "u1", TensorProto.UINT16: "<u2", TensorProto.UINT32: "<u4", TensorProto.UINT64: "<u8",
    TensorProto.BOOL: "?",
}
_FIELDS = {  # where numbers stand that are not in raw_data
    TensorProto.FLOAT: "float_data", TensorProto.DOUBLE: "double_data", TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data", TensorProto.UINT64: "uint64_data",
}


def read_model(path: Path) -> Any:
    """The file as a `ModelProto`.

    Raises
    ------
    InputError
        There is no such file, it is larger than protobuf can be, or is no ONNX model.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise InputError(f"the file has {size:,} bytes, over protobuf's limit of {MAX_FILE:,}", str(path),
                             "onnx.save(..., save_as_external_data=True) puts the weights beside it")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror or error}", str(path)) from None
    return parse_model(data, str(path))


def parse_model(data: bytes, where: str) -> Any:
    """The bytes as a `ModelProto`; InputError when they are none."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError, RecursionError):
        raise InputError("not a readable ONNX file", where, "it may be truncated, or of another kind") from None
    if not model.HasField("graph"):
        raise InputError("this ONNX file holds no graph", where, "it may be truncated, or of another kind")
    if not _all_text(model):
        raise InputError("this ONNX file has names that are no UTF-8", where, "the file is damaged")
    return model


def _all_text(message: Any) -> bool:
    """Whether all strings of a message are text: protobuf hands out bytes where they are not."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        parts = (value,) if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value
        if not all(isinstance(part, str) if field.type == field.TYPE_STRING else _all_text(part) for part in parts):
            return False
    return True


def opset_of(model: Any, where: str) -> int:
    """The version of the standard's operators; InputError when it is none that fusec reads."""
    versions = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1:
        raise InputError("the file names no version of the standard operators" if not versions else
                         f"the file names several versions of the standard operators: {sorted(versions)}", where)
    (version,) = versions
    if not OLDEST <= version <= newest:
        way = "onnx.version_converter.convert_version may help" if version < OLDEST else "a newer onnx package may know it"
        raise InputError(f"opset {version} is not read; {OLDEST} to {newest} are", where, way)
    return int(version)


def to_array(tensor: Any, folder: Path | None) -> NDArray[Any]:
    """The values of a `TensorProto`; bfloat16 as float32.

    Parameters
    ----------
    folder
        Where files with external data may lie; None where there is no such folder.

    Raises
    ------
    Refusal
        The type is none that fusec reads, the data are not as many as the shape wants, or lie outside the folder.
    """
    dims = tuple(tensor.dims)
    kind = _TYPES.get(tensor.data_type)
    if kind is None:
        raise Refusal(f"tensor {show(tensor.name)} holds {type_name(tensor.data_type)}", "float, integer and bool are read")
    if len(dims) > MAX_RANK or any(d < 0 for d in dims) or math.prod(dims) > MAX_ELEMENTS:
        raise Refusal(f"tensor {show(tensor.name)} has a shape of {list(dims)[:MAX_RANK + 1]}",
                      f"0 to {MAX_RANK} axes and up to {MAX_ELEMENTS:,} elements are read")
    count = math.prod(dims)
    if tensor.data_location == TensorProto.EXTERNAL:
        values = np.frombuffer(_external(tensor, folder, count * np.dtype(kind).itemsize), kind)
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * np.dtype(kind).itemsize:
            raise _miscounted(tensor, count * np.dtype(kind).itemsize, len(tensor.raw_data), "bytes")
        values = np.frombuffer(tensor.raw_data, kind)
    else:
        field = _FIELDS.get(tensor.data_type, "int32_data")
        have = len(getattr(tensor, field))
        if have != count:
            raise _miscounted(tensor, count, have, "values")
        return _widened(numpy_helper.to_array(tensor)).reshape(dims)
    if tensor.data_type == TensorProto.BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return _widened(values).reshape(dims)


def type_name(data_type: int) -> str:
    """A type's word in ONNX."""
    names = dict(zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True))
    return str(names.get(data_type, f"the unknown type {data_type}")).lower()


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    """Types that NumPy has no name for as float32."""
    return values if values.dtype.kind in "fiub" else values.astype(np.float32)


def _miscounted(tensor: Any, wanted: int, have: int, what: str) -> Refusal:
    return Refusal(f"tensor {show(tensor.name)} of shape {list(tensor.dims)} has {have:,} {what} instead of {wanted:,}",
                   "the file is damaged")


def _external(tensor: Any, folder: Path | None, size: int) -> bytes:
    """The bytes of a tensor that lies in another file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise Refusal(f"tensor {show(tensor.name)} lies in another file, {show(location)}", "read the model from its file")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        path = (folder / location).resolve()
        inside = bool(location) and path.is_relative_to(folder.resolve()) and not Path(location).is_absolute()
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise Refusal(f"the data of tensor {show(tensor.name)} lie in {show(location)}, outside the model's folder",
                      "links are followed; copy the file into the model's folder")
    if length != size or offset < 0:
        raise _miscounted(tensor, size, length, "bytes")
    try:
        if not path.is_file():
            raise Refusal(f"the file {show(location)} with tensor {show(tensor.name)} does not exist",
                          "it belongs beside the model")
        if path.stat().st_size < offset + size:
            raise Refusal(f"the file {show(location)} ends before tensor {show(tensor.name)} does", "it may be truncated")
        with path.open("rb") as file:
            file.seek(offset)
            return bytes(file.read(size))
    except OSError as error:
        raise Refusal(f"the file {show(location)} cannot be read: {error.strerror or error}") from None
