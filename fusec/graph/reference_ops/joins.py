"""Layers of several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from fusec.graph import layers as L
from fusec.graph.graph import Array, Params
from fusec.graph.reference_ops.dispatch import apply


@apply.register
def _add(layer: L.Add, params: Params, inputs: Sequence[Array]) -> Array:
    return reduce(np.add, inputs)


@apply.register
def _mul(layer: L.Mul, params: Params, inputs: Sequence[Array]) -> Array:
    return reduce(np.multiply, inputs)


@apply.register
def _sub(layer: L.Sub, params: Params, inputs: Sequence[Array]) -> Array:
    return np.subtract(*inputs)


@apply.register
def _div(layer: L.Div, params: Params, inputs: Sequence[Array]) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(*inputs)


@apply.register
def _min(layer: L.Min, params: Params, inputs: Sequence[Array]) -> Array:
    return reduce(np.minimum, inputs)


@apply.register
def _max(layer: L.Max, params: Params, inputs: Sequence[Array]) -> Array:
    return reduce(np.maximum, inputs)


@apply.register
def _concat(layer: L.Concat, params: Params, inputs: Sequence[Array]) -> Array:
    return np.concatenate(inputs, axis=1)
