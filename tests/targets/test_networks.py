"""Shipped networks as the planner fuses them: however the layers are cut into kernels, a target gives the same bits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fusec.cli.tolerances import CLOSE
from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.reference import run
from fusec.pipeline import Plan, compile_network, plan, read
from tests.harness import Cpu, Floats, Machine, Runner, assert_same_bits
from tests.small_networks import conv, image_of
from tests.small_networks import network as network_of

IMAGES = {"lenet5": (3, 1, 28, 28), "mnist4": (2, 1, 28, 28), "fsrcnn_x2": (1, 1, 13, 17), "artcnn_c4f16": (2, 1, 19, 11)}


@cache
def network(name: str) -> LayerGraph:
    return read(name, missing="random")


def image(name: str) -> Floats:
    return np.random.default_rng(4).random(IMAGES[name], np.float32)


def outputs(target: Runner, planned: Plan, images: dict[str, Floats], variant: int) -> dict[str, Floats]:
    """What the network returns when every chain runs its first or its last schedule."""
    results = dict(images)
    for item in planned.chains:
        chosen = item.variants[variant]
        machine = Machine(planned.device, small_grid=variant != 0 and len(item.variants) > 1)
        results |= target.run_graph([chosen.schedule], results, machine)
    return {o: results[t] for o, t in planned.simplified.output_names.items()}


@pytest.mark.parametrize("name", IMAGES)
def test_fused_or_not_the_same_bits(generated: Runner, name: str) -> None:
    check(generated, name)


@pytest.mark.parametrize("name", ["lenet5", "fsrcnn_x2"])
def test_the_runtimes_own_optimization_keeps_the_bits(name: str) -> None:
    """Other tests of C++ are built with -O1, to be quick; whether a product and a sum are rounded once may depend on it."""
    check(Cpu(optimize="-O3"), name)


def test_a_squeezed_branch_goes_with_images_of_any_size() -> None:
    """From the description to the model: the size of a product is that of its large operand, whichever comes first."""
    graph = network_of(L.Input(3), a=conv(6), g=L.GlobalAvgPool2d(), h=conv(6, 1), i=L.Sigmoid(), m=(L.Mul(), "i", "a"),
                       c=(conv(1, 1), "m"), d=(L.Sub(), "c", "m"), u=L.Upsample((2, 2), "linear"), v=L.Crop(1, 0, 0, 1))
    models = [compile_network(graph, target="cpu", fuse=fuse) for fuse in ("none", "all")]
    for height, width in ((9, 7), (20, 33), (1, 1)):
        x = image_of(graph, height, width, 2)
        one, other = (model(x) for model in models)
        assert_same_bits(one, other)
        np.testing.assert_allclose(one, run(graph, x)["v"], rtol=1e-4, atol=1e-4)


def test_a_size_that_is_one_pixel_by_chance_goes_with_no_other() -> None:
    graph = LayerGraph("two", [Node("a", L.Input(2)), Node("b", L.Input(2)), Node("s", L.Add(), ("a", "b"))])
    with pytest.raises(InputError, match="would read 4x4 and 1x1 pixels"):
        compile_network(graph, target="cpu")(np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 2, 1, 1), np.float32))


def check(target: Runner, name: str) -> None:
    graph = network(name)
    images = {graph.inputs[0].name: image(name)}
    wanted = run(graph, images)
    results = []
    for fuse in ("none", "auto", "all"):
        planned = plan(graph, target.device, fuse)
        results += [outputs(target, planned, images, variant) for variant in (0, -1)]
    for output, values in wanted.items():
        own = 1e-5 if target.dtype == "float32" else CLOSE[target.dtype]
        np.testing.assert_allclose(results[0][output], values, rtol=1e-3, atol=own * np.abs(values).max())
        for other in results[1:]:
            assert_same_bits(results[0][output], other[output])
