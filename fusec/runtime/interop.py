"""Arrays of other libraries: in without a copy, out as the same kind.

In: whatever a caller passes to a model. Out: a NumPy array over the same memory (`host_array`), and the way back (`returner`).
Works through DLPack and the array interfaces, and imports no other library: one that made a tensor is loaded already. Elements
are held as `elements` has it: those of bfloat16 as 16-bit words.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError, MissingError
from .elements import is_bfloat16, shareable, words_of

CPU_DEVICES = (1, 3, 11, 13)  # DLPack: host memory, pinned for CUDA or ROCm, managed
CUDA_DEVICES = (2, 13)


def dlpack_device(value: Any) -> int | None:
    """The DLPack device type of a value's memory; None when it does not speak DLPack."""
    ask = getattr(value, "__dlpack_device__", None)
    return None if ask is None else int(ask()[0])


def on_cuda(value: Any) -> bool:
    """Whether a value's data are in the memory of an NVIDIA GPU (managed memory counts as the host's)."""
    device = dlpack_device(value)
    return hasattr(value, "__cuda_array_interface__") if device is None else device == CUDA_DEVICES[0]


def host_array(value: Any, name: str) -> np.ndarray[Any, Any]:
    """`value` as a NumPy array over the same memory; InputError when it is no array or not in host memory."""
    held = words_of(value)
    if isinstance(held, np.ndarray):
        return held
    if on_cuda(value):
        raise InputError(f"'{name}' is in GPU memory, but this model was compiled for the CPU",
                         hint="move it yourself (.cpu() or .get()), or compile with target 'cuda'")
    device = dlpack_device(value)
    if device is not None and device not in CPU_DEVICES:
        raise InputError(f"'{name}' is in memory of DLPack device type {device}, which is not the host's")
    try:
        if device is not None:
            return np.from_dlpack(shareable(value))
        if hasattr(value, "__array_interface__"):
            return np.asarray(value)
    except MemoryError as error:
        raise MissingError(f"not enough memory for '{name}': {error}") from None
    except Exception as error:  # any library's own complaint, said in its words
        raise exchange_failed(name, error) from None
    raise InputError(f"'{name}' is no array but {type(value).__name__}", hint="pass numpy.asarray of it, of the model's type")


def writable_array(value: Any, name: str) -> np.ndarray[Any, Any]:
    """As `host_array`, but to write into; InputError when `value` cannot be written."""
    array = host_array(value, name)
    if not array.flags.writeable and array is not value and hasattr(value, "__array__") and not is_bfloat16(value):
        # Older DLPack does not say whether memory may be written, and NumPy then assumes not; the library's own way may say.
        other = np.asarray(value)
        if other.ctypes.data == array.ctypes.data and other.shape == array.shape:
            array = other
    if not array.flags.writeable:
        raise InputError(f"'{name}' cannot be written")
    return array


def exchange_failed(name: str, error: Exception) -> InputError:
    """The error for a tensor whose library will not share it."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    hint = "pass .detach() of it: models have no gradients" if "grad" in reason else ""
    return InputError(f"'{name}' cannot be shared: {reason}", hint=hint)


def returner(value: Any) -> Callable[[Any], Any] | None:
    """`from_dlpack` of the library that made `value`; None when it is NumPy's, or when that library has none.

    A subclass of a library's tensor counts as that library's.
    """
    for cls in type(value).__mro__[:-1]:
        root = sys.modules.get(cls.__module__.partition(".")[0])
        if root is np:
            return None
        for home in (root, getattr(root, "dlpack", None)):
            found = getattr(home, "from_dlpack", None)
            if callable(found):
                return found  # type: ignore[no-any-return]
    return None
