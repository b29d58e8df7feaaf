"""A GPU's stand-in for models of any type: NumPy computes each layer in float64, and rounds its weights and its values once.

The commands and `Model` are the real ones, as are plan and source; what is replaced is what kernels would do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fusec import pipeline
from fusec.graph import reference
from fusec.runtime import interop
from fusec.runtime.cuda import gpu, nvrtc
from fusec.runtime.elements import BFLOAT16, HELD, Bfloat16, as_type_of, rounded, widened
from fusec.runtime.model import Model
from fusec.runtime.workload import Workload
from fusec.targets.device import DTYPES
from fusec.tuning import measure, whole
from fusec.tuning.timing import wall_clock

Spoil = Callable[[str, np.ndarray], np.ndarray]  # what a layer of this name makes instead


@dataclass
class RoundingRunner:
    """Fills the outputs of a network; of a single kernel on its own, with zeros."""

    plan: pipeline.Plan
    workload: Workload
    spoil: Spoil

    def __call__(self, arrays: Mapping[str, Any]) -> None:
        graph, dtype = self.plan.simplified.graph, self.plan.device.dtype
        if arrays.keys() != {*(n.name for n in graph.inputs), *graph.outputs}:
            for array in arrays.values():
                array[...] = 0
            return
        tensors = {n.name: numbers(arrays[n.name], dtype) for n in graph.inputs}
        for node in graph.layers:
            params = {k: numbers(rounded(v, dtype), dtype) if k == "weight" else v for k, v in node.params.items()}
            exact = reference.apply_node(replace(node, params=params), [tensors[i] for i in node.inputs])
            held = rounded(self.spoil(node.name, exact), dtype)
            tensors[node.name] = numbers(held, dtype)
            if node.name in arrays:
                arrays[node.name][...] = held.reshape(arrays[node.name].shape)


def numbers(held: np.ndarray, dtype: str) -> np.ndarray:
    return widened(Bfloat16(held) if dtype == BFLOAT16 else held).astype(np.float64)


class RoundingEngine:
    """As much of an engine as `Model` uses, on NumPy arrays."""

    def __init__(self, plan: pipeline.Plan, spoil: Spoil) -> None:
        self.plan, self.spoil = plan, spoil

    def scope(self, values: Sequence[Any]) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def accept(self, value: Any, name: str) -> Any:
        return interop.host_array(value, name)

    accept_out = accept

    def dense(self, array: Any) -> Any:
        return np.ascontiguousarray(array)

    def empty(self, shape: tuple[int, ...]) -> Any:
        return np.empty(shape, HELD[self.plan.device.dtype])

    def pointer(self, array: Any) -> int:
        return int(array.ctypes.data)

    def give(self, array: Any, like: Any) -> Any:
        return as_type_of(like, array)

    def prepare(self, workload: Workload) -> RoundingRunner:
        return RoundingRunner(self.plan, workload, self.spoil)


def untouched(name: str, exact: np.ndarray) -> np.ndarray:
    return exact


def stand_in(monkeypatch: pytest.MonkeyPatch, spoil: Spoil = untouched, only: Sequence[str] = DTYPES) -> None:
    """Let this machine have an H200 that computes so, spoilt in `only` these types."""
    def linked(made: pipeline.Generated, progress: object = None) -> Model:
        wrong = spoil if made.program.dtype in only else untouched
        return Model(made.program, RoundingEngine(made.plan, wrong), made.sources, {}, made.weights)

    for module in (pipeline, measure, whole):
        monkeypatch.setattr(module, "build_and_link", linked)
    monkeypatch.setattr(measure, "build_kernels", lambda made, store: {})
    monkeypatch.setattr(gpu, "identity", lambda: ("NVIDIA H200", "sm_90", 132))
    monkeypatch.setattr(gpu, "available", lambda: True)
    monkeypatch.setattr(gpu, "to_device", lambda array: array)
    monkeypatch.setattr(gpu, "timed", wall_clock)
    monkeypatch.setattr(nvrtc, "identity", lambda: "none")


