"""Arrays to run a whole network on: seeded, so that every run has the same.

In: a network, the sizes of a run, the type of its tensors. Out: one array per input.
"""

from __future__ import annotations

import numpy as np

from fusec.errors import InputError
from fusec.graph.find_weights import SEED
from fusec.graph.graph import LayerGraph
from fusec.graph.shapes import Shape
from fusec.plan.cost import Nominal
from fusec.runtime.elements import offered, widened
from fusec.runtime.weights import Floats


def random_inputs(graph: LayerGraph, sizes: Nominal, dtype: str) -> dict[str, Floats]:
    """A float32 array (batch, channels, height, width) for every input, of values from 0 to 1 that `dtype` has too, the same in
    every run."""
    generator = np.random.default_rng(SEED)
    arrays = {}
    for node in graph.inputs:
        shape = _image(graph.shapes[node.name], sizes)
        try:
            arrays[node.name] = widened(offered(generator.random((sizes.batch, *shape), np.float32), dtype))
        except (MemoryError, ValueError):
            raise InputError(f"an input of {sizes.batch}x{'x'.join(map(str, shape))} does not fit into memory", node.name,
                             "give a smaller batch or shape") from None
    return arrays


def _image(shape: Shape, sizes: Nominal) -> tuple[int, int, int]:
    return shape.channels, shape.height or sizes.height or 1, shape.width or sizes.width or 1
