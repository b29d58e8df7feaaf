"""Packed weights on the disk, in the safetensors format: eight bytes of header length, a JSON header, raw little-endian data.

In: one-dimensional float32 arrays by name. Out: a file, and the same arrays again, mapped instead of read where their place in
the file allows it. They may hold pairs of 16-bit weights: bits are copied, no number is ever made of them. An own reader of a
few lines, so that artefacts need NumPy alone.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Floats = NDArray[np.float32]

ALIGNMENT = 64  # bytes: of the data's start in the file, and of every array handed out
MAX_HEADER = 16 << 20


def write(path: Path, weights: Mapping[str, Floats]) -> None:
    """Write `weights` (float32, one axis each); OSError when the file cannot be written.

    Arrays of a whole number of cache lines come first: they can then be mapped where they lie.
    """
    names = sorted(weights, key=lambda name: (weights[name].nbytes % ALIGNMENT != 0, name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        start, end = end, end + weights[name].nbytes
        header[name] = {"dtype": "F32", "shape": [weights[name].size], "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(weights[name], dtype="<f4").data)


def read(path: Path) -> dict[str, Floats]:
    """The arrays of a file that `write` made, read-only, aligned to 64 bytes; InputError when it is damaged or unreadable."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            data: bytes | mmap.mmap = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise InputError(f"the weights cannot be read: {error.strerror or error}", where=str(path)) from None
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise InputError(f"the weights are damaged: {error}", where=str(path), hint="compile the network again") from None


def _parse(data: bytes | mmap.mmap) -> dict[str, Floats]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise ValueError("the file ends before its header does")
    body = memoryview(data)[8 + length:]
    arrays: dict[str, Floats] = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        if entry["dtype"] != "F32" or not 0 <= start <= end <= len(body) or math.prod(entry["shape"]) * 4 != end - start:
            raise ValueError(f"{name!r} has a wrong type, shape or place")
        arrays[name] = aligned(np.frombuffer(body[start:end], dtype="<f4"))
    return arrays


def aligned(array: Floats) -> Floats:
    """`array` itself when its data start at a multiple of 64 bytes, else a copy that does."""
    if array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous:
        return array
    copy = empty_aligned(array.size)
    copy[:] = array.reshape(-1)
    return copy


def empty_aligned(elements: int) -> Floats:
    """An uninitialised float32 array of one axis whose data start at a multiple of 64 bytes; MemoryError without room."""
    room = np.empty(elements * 4 + ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start:start + elements * 4].view(np.float32)
