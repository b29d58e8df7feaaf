"""The function `apply`, with which the other modules here register one function per kind of layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import numpy as np

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import Array, Params


@singledispatch
def apply(layer: L.Layer, params: Params, inputs: Sequence[Array]) -> Array:
    """Evaluate one layer.

    Parameters
    ----------
    layer
        Any layer but an `Input`.
    params
        The layer's weights, named and shaped as `shapes.param_shapes` says; cast to the inputs' dtype.
    inputs
        Arrays (images, channels, height, width) of one float dtype; float32 is computed in float32.

    Returns
    -------
    Array
        (images, channels, height, width) in the inputs' dtype.

    Raises
    ------
    InputError
        The image is too small for the layer's window.
    """
    raise InternalError(f"the reference does not know the layer kind '{layer.kind}'")


def per_channel(values: Array, x: Array) -> Array:
    """Weights (channels,) or (1,) shaped and cast to go with `x`."""
    return np.asarray(values, dtype=x.dtype).reshape(1, -1, 1, 1)
