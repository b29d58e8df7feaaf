"""Shipped networks as the planner fuses them: however the layers are cut into kernels, a target gives the same bits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fusec.cli.tolerances import CLOSE
from fusec.graph.graph import LayerGraph
from fusec.graph.reference import run
from fusec.pipeline import Plan, plan, read
from tests.harness import Cpu, Floats, Machine, Runner, assert_same_bits

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
