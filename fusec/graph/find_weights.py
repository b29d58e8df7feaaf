"""Which weights a network gets: a file's, random ones of a seed, its own, or none that mean anything.

In: a network without its weights, or a graph with them, and what the caller asks for. Out: a `LayerGraph` with checked float32
weights. The one place that decides; `weights.py` does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fusec.errors import InputError, nearest_file
from fusec.graph.graph import LayerGraph
from fusec.graph.weights import SUFFIX, blank_weights, check_params, has_weights, load_weights, weight_shapes
from fusec.graph.weights import random_weights as seeded
from fusec.graph.yaml_tree import show

SEED = 0  # of weights nobody asked for

Missing = Literal["refuse", "random", "blank"]


@dataclass(frozen=True)
class Description:
    """A network and the weights file it names, with the place where it does; `where` is the whole of it."""

    graph: LayerGraph
    weights: Path | None
    weights_where: str
    where: str


def with_weights(described: Description, *, weights: Path | None = None, random_weights: int | None = None,
                 missing: Missing = "refuse", drawn: Callable[[int], None] | None = None) -> LayerGraph:
    """The network with its weights.

    Parameters
    ----------
    weights
        A safetensors file to use in place of any other weights.
    random_weights
        Seed of random weights to use in place of any other.
    missing
        What becomes of a network that wants weights and has none: "refuse" is an InputError, "random" draws those of `SEED`.
        "blank" gives every network zeros and reads no file: enough for plans.
    drawn
        Called with `SEED` when random weights were drawn that nobody asked for.

    Raises
    ------
    InputError
        The weights do not fit, cannot be read, are asked for in two ways, or there are none.
    """
    graph = described.graph
    if weights is not None and random_weights is not None:
        raise InputError("a weights file and a seed of random weights were both given", hint="give one of them")
    if missing == "blank":
        return blank_weights(graph)
    if random_weights is not None:
        return seeded(graph, random_weights)
    if weights is not None:
        return load_weights(weights, graph)
    if described.weights is not None:
        return load_weights(_there(described.weights, described.weights_where), graph)
    if has_weights(graph) or not weight_shapes(graph):
        return check_params(graph)
    if missing == "random":
        if drawn is not None:
            drawn(SEED)
        return seeded(graph, SEED)
    raise InputError("the network has no weights", described.where, "name a file with 'weights:' in the description, or put "
                     "arrays into the graph's nodes; or give weights=FILE, or random_weights=SEED for random ones")


def _there(path: Path, where: str) -> Path:
    if not path.exists():
        raise InputError(f"the weights file {show(path.name)} does not exist", where,
                         nearest_file(path, SUFFIX) or "or give a weights file, or a random seed")
    return path
