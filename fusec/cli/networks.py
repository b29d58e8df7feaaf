"""From what a user calls a network to a graph, and to the sizes of a run.

In: NET, --weights, --random-weights, --batch, --shape. Out: a `LayerGraph` with the weights a command needs, and sizes to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fusec import pipeline
from fusec.cli.options import Shape4
from fusec.cli.output import note
from fusec.graph.graph import LayerGraph
from fusec.graph.locate import find_graph
from fusec.graph.onnx.cut import Cut
from fusec.graph.simplify import simplify
from fusec.plan.cost import Nominal, nominal_for
from fusec.plan.lock_file import SUFFIX
from fusec.program import make_program
from fusec.runtime.elements import offered
from fusec.runtime.model import check_inputs
from fusec.targets.device import DTYPES, Device


def read_network(network: str, weights: Path | None, random_weights: int | None,
                 cut: Cut) -> tuple[LayerGraph, int | None]:
    """The network, or a part of it, with random weights, and a note, where it has none; the seed where they are random."""
    drawn: list[int] = []
    graph = pipeline.read(network, weights=weights, random_weights=random_weights, missing="random", drawn=drawn.append,
                          cut=cut)
    for seed in drawn:
        note(f"{network} has no weights: random ones of seed {seed} are used")
        return graph, seed
    return graph, random_weights


def sizes_to_run(graph: LayerGraph, batch: int | None, shape: Shape4 | None, nominal: Nominal) -> Nominal:
    """The batch and image size of a run: as asked, else those of `nominal`; InputError when the network cannot take them."""
    if shape is not None:
        return nominal_for(graph, shape)
    return nominal.at(batch or nominal.batch)


def shape_to_plan(graph: LayerGraph, batch: int | None, shape: Shape4 | None) -> Shape4 | None:
    """The shape of the first input to plan for: as asked, the usual image of a batch asked for, or None for the usual sizes."""
    if shape is not None or batch is None:
        return shape
    usual, image = nominal_for(graph), graph.shapes[graph.inputs[0].name]
    return batch, image.channels, image.height or usual.height or 1, image.width or usual.width or 1


def default_lock(network: str, device: Device) -> Path:
    """Where the lockfile of a network is when nothing else is said: beside its description, or here for a shipped network."""
    path = find_graph(network)
    kind = device.target if device.dtype == DTYPES[0] else f"{device.target}.{device.dtype}"
    return (path.parent if Path(network).is_file() else Path()) / f"{path.stem}.{kind}{SUFFIX}"


def check_fit(graph: LayerGraph, device: Device, arrays: Sequence[NDArray[Any]]) -> None:
    """InputError unless the network's model will take these numbers, an array per input: said before anything is built."""
    program = make_program(graph, simplify(graph), device, device.arch, (), {})
    check_inputs(program, [offered(array, device.dtype) for array in arrays])
