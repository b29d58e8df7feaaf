"""Which weights a network gets, whether a graph is made in Python or read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node, Pointwise
from fusec.graph.weights import check_params, random_weights, save_weights, weight_shapes
from fusec.pipeline import read

CONV = {"weight": np.ones((2, 1, 3, 3), np.float32), "bias": np.zeros(2, np.float32)}
NORM = {"weight": np.ones(2), "bias": np.zeros(2), "running_mean": np.zeros(2), "running_var": np.ones(2)}
SLOPE = {"weight": np.ones(1, np.float32)}


def graph(conv: Mapping[str, Any] = CONV, norm: Mapping[str, Any] = NORM, slope: Mapping[str, Any] = SLOPE) -> LayerGraph:
    taken = Pointwise("slope", L.PRelu(), slope)
    return LayerGraph("made", [Node("x", L.Input(1, 6, 6)), Node("conv", L.Conv2d((3, 3), out_channels=2), ("x",), conv),
                               Node("norm", L.BatchNorm(), ("conv",), norm, (taken,))])


BARE = graph({}, {}, {})


def same(one: LayerGraph, other: LayerGraph) -> bool:
    return all(np.array_equal(one[n.name].params[p], v) for n in other.nodes for p, v in n.params.items())


def test_the_graphs_own_weights_are_taken_as_float32() -> None:
    made = read(graph())
    assert same(made, graph())
    assert all(v.dtype == np.float32 for n in made.nodes for v in n.params.values())
    assert made["norm"].epilogue[0].params["weight"] is SLOPE["weight"]
    assert read(made) is made  # nothing to convert
    assert graph()["norm"].params["weight"].dtype == np.float64  # the caller's graph is left as it was


WRONG: dict[str, tuple[Callable[[], LayerGraph], str]] = {
    "missing": (lambda: graph({"weight": CONV["weight"]}), "'conv.bias' is missing"),
    "misspelt": (lambda: graph({"weight": CONV["weight"], "bais": CONV["bias"]}), "is it meant by 'conv.bais'"),
    "surplus": (lambda: graph(CONV | {"scale": CONV["bias"]}), "'conv.scale' is not a weight of this network"),
    "on the input": (lambda: LayerGraph("n", [Node("x", L.Input(1), (), {"weight": np.ones(1)})]), "'x.weight' is not a"),
    "shape": (lambda: graph(CONV | {"weight": np.ones((1, 2, 3, 3))}), "shape 1x2x3x3, but the network wants 2x1x3x3.*swapped"),
    "NaN": (lambda: graph(CONV | {"bias": np.array([1, np.nan])}), "1 of the 2 values of 'conv.bias' are NaN"),
    "too large": (lambda: graph(CONV | {"bias": np.array([1, 1e300])}), "too large for float32"),
    "whole numbers": (lambda: graph(CONV | {"bias": np.array([1, 2])}), "'conv.bias' holds int64.*float32"),
    "a list": (lambda: graph(CONV | {"bias": [1.0, 2.0]}), "'conv.bias' is no NumPy array but list"),
    "variance": (lambda: graph(norm=NORM | {"running_var": -np.ones(2)}), "'norm.running_var' has a variance below zero"),
    "epilogue": (lambda: graph(slope={"weight": np.ones(3)}), "'slope.weight' has shape 3, but the network wants 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_that_do_not_fit(name: str) -> None:
    make, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        read(make())


def test_all_problems_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check_params(graph({"weight": np.full((2, 1, 3, 3), np.inf)}, slope={}))
    assert len(caught.value.problems) == 3


def test_none_are_refused_with_the_ways_out() -> None:
    with pytest.raises(InputError, match=r"made: the network has no weights.*weights=FILE.*random_weights=SEED"):
        read(BARE)


def test_asked_for_they_replace_those_that_are_there(tmp_path: Path) -> None:
    seeded = random_weights(BARE, 3)
    assert seeded["norm"].epilogue[0].params["weight"].shape == (2,)
    save_weights(seeded, tmp_path / "w.safetensors")
    for given in (BARE, graph()):
        assert same(read(given, random_weights=3), seeded)
        assert same(read(given, weights=tmp_path / "w.safetensors"), seeded)
    with pytest.raises(InputError, match="both given"):
        read(BARE, weights=tmp_path / "w.safetensors", random_weights=3)


def test_random_ones_where_that_is_wanted_and_only_there() -> None:
    drawn: list[int] = []
    assert same(read(BARE, missing="random", drawn=drawn.append), random_weights(BARE, 0))
    assert drawn == [0]
    assert same(read(graph(), missing="random", drawn=drawn.append), graph())
    read(BARE, random_weights=4, missing="random", drawn=drawn.append)
    read(LayerGraph("n", [Node("x", L.Input(1)), Node("y", L.Relu(), ("x",))]), missing="random", drawn=drawn.append)
    assert drawn == [0]


def test_blank_ones_have_the_shapes() -> None:
    blank = read(graph(), missing="blank")
    assert {f"{n.name}.{p}": v.shape for n in blank.nodes for p, v in n.params.items()} | {"slope.weight": (2,)} \
        == weight_shapes(BARE)
    assert not blank["conv"].params["weight"].any()
    assert (blank["norm"].params["running_var"] == 1).all()
