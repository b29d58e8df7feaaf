"""What a model needs of a machine.

An engine takes the caller's arrays in, gives memory out, and runs workloads. `cpu_engine` and `cuda.engine` implement it;
`model` knows no more of them than this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .workload import Workload


class Runner(Protocol):
    """A workload made ready: called with the arrays of one call, by the names of the tensors they hold."""

    workload: Workload

    def __call__(self, arrays: Mapping[str, Any]) -> None: ...


class Engine(Protocol):
    """A loaded model on one kind of device. Arrays are NumPy's or CuPy's, whichever the engine computes on, of
    `elements.HELD`."""

    def scope(self, values: Sequence[Any]) -> contextlib.AbstractContextManager[object]:
        """Entered around a call: the device and the stream that belong to the caller's arrays."""

    def accept(self, value: Any, name: str) -> Any:
        """The caller's value as an array over the same memory (or a copy on the device).

        InputError when it is no array, MissingError when there is no memory for the copy.
        """

    def accept_out(self, value: Any, name: str) -> Any:
        """The caller's array for a result, over the same memory; InputError when it cannot be written there."""

    def dense(self, array: Any) -> Any:
        """The array itself, or a copy, such that its elements follow each other in memory; MissingError when there is none."""

    def empty(self, shape: tuple[int, ...]) -> Any:
        """An uninitialised array of the program's type; MissingError when there is no memory."""

    def pointer(self, array: Any) -> int:
        """Address of the first element."""

    def give(self, array: Any, like: Any) -> Any:
        """A result as the kind of array that `like`, the caller's first input, is."""

    def prepare(self, workload: Workload) -> Runner:
        """Make a workload ready to run."""
