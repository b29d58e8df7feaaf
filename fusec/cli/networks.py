"""From what a user calls a network to a graph, and to arrays to run it on.

In: NET, --weights, --random-weights, --batch, --shape. Out: a `LayerGraph` with the weights a command needs, and seeded inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec import pipeline
from fusec.cli.options import Shape4
from fusec.cli.output import note
from fusec.errors import InputError
from fusec.graph.find_weights import SEED
from fusec.graph.graph import LayerGraph
from fusec.graph.shapes import Shape
from fusec.graph.simplify import simplify
from fusec.plan.cost import Nominal, nominal_for
from fusec.program import make_program
from fusec.runtime.model import check_inputs
from fusec.targets.device import Device

Floats = NDArray[np.float32]


def read_network(network: str, weights: Path | None, random_weights: int | None) -> tuple[LayerGraph, int | None]:
    """The network, with random weights, and a note, where it has none; the seed where they are random."""
    drawn: list[int] = []
    graph = pipeline.read(network, weights=weights, random_weights=random_weights, missing="random", drawn=drawn.append)
    for seed in drawn:
        note(f"{network} has no weights: random ones of seed {seed} are used")
        return graph, seed
    return graph, random_weights


def sizes_to_run(graph: LayerGraph, batch: int | None, shape: Shape4 | None, nominal: Nominal) -> Nominal:
    """The batch and image size of a run: as asked, else those of `nominal`; InputError when the network cannot take them."""
    if shape is not None:
        return nominal_for(graph, shape)
    return nominal.at(batch or nominal.batch)


def check_fit(graph: LayerGraph, device: Device, arrays: Sequence[NDArray[Any]]) -> None:
    """InputError unless the network's model will take these arrays, one per input: said before anything is built."""
    check_inputs(make_program(graph, simplify(graph), device, device.arch, ()), arrays)


def random_inputs(graph: LayerGraph, sizes: Nominal) -> dict[str, Floats]:
    """An array (batch, channels, height, width) of values from 0 to 1 for every input, the same in every run."""
    generator = np.random.default_rng(SEED)
    arrays = {}
    for node in graph.inputs:
        shape = _image(graph.shapes[node.name], sizes)
        try:
            arrays[node.name] = generator.random((sizes.batch, *shape), np.float32)
        except (MemoryError, ValueError):
            raise InputError(f"an input of {sizes.batch}x{'x'.join(map(str, shape))} does not fit into memory", node.name,
                             "give a smaller batch or shape") from None
    return arrays


def _image(shape: Shape, sizes: Nominal) -> tuple[int, int, int]:
    return shape.channels, shape.height or sizes.height or 1, shape.width or sizes.width or 1
