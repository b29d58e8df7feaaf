"""A host emulator for generated CUDA C++ kernels: no GPU, no CUDA; a C++17 compiler is enough.

In: the text of a kernel file, its entry and NumPy arrays. Out: the arrays as the kernel left them, or an `EmulatorError` that
says what the kernel did wrong. Stands beside the `cuda` target in the tests; nothing in the package uses it. How it works and
what it cannot do stands at the top of `cuda_emulator.hpp`.
"""

from .arguments import Value
from .build import BuildError, EmulatorError, can_sanitize, find_compiler
from .emulator import ORDERS, EmulatedKernel, RaceError, SanitizerError

__all__ = [
    "ORDERS",
    "BuildError",
    "EmulatedKernel",
    "EmulatorError",
    "RaceError",
    "SanitizerError",
    "Value",
    "can_sanitize",
    "find_compiler",
]
