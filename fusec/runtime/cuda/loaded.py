"""A program's kernels and weights in the memory of one GPU.

In: cubins and packed weights. Out: the driver's handles of kernels, and the addresses of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..program import Program
from ..weights import Floats
from .gpu import enough_memory

ALIGNMENT = 64  # 32-bit words, of each launch's weights on the device


class Loaded:
    """The kernels and weights of a program on one GPU."""

    def __init__(self, cupy: Any, program: Program, cubins: Mapping[str, Path], weights: Mapping[str, Floats]) -> None:
        from cupy_backends.cuda.api import driver
        self._modules = []
        self.kernels: dict[str, int] = {}
        for variant in {v.entry: v for launch in program.launches for v in launch.variants}.values():
            module = cupy.cuda.function.Module()
            module.load(cubins[variant.entry].read_bytes())
            kernel = module.get_function(variant.entry).ptr
            driver.funcSetAttribute(kernel, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    program.element * variant.scratch)
            self._modules.append(module)
            self.kernels[variant.entry] = kernel
        starts, total = {}, 0
        for key, array in weights.items():
            starts[key] = total
            total += -(-array.size // ALIGNMENT) * ALIGNMENT
        with enough_memory():
            packed = np.zeros(max(total, 1), np.float32)
            for key, array in weights.items():
                packed[starts[key]:starts[key] + array.size] = array
            self._weights = cupy.asarray(packed)
        self.params = {"": 0, **{key: self._weights.data.ptr + 4 * start for key, start in starts.items()}}
