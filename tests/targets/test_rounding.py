"""Sums round the same way wherever a schedule keeps their terms, and stay exact enough on large images."""

from __future__ import annotations

import numpy as np
import pytest

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import simplify
from fusec.plan.construct import construct
from fusec.schedule.ir import Chain, Tile
from tests.harness import Runner, assert_same_bits, rounded
from tests.small_networks import conv, network, whole_chain

ACTIVATIONS = (L.Silu(), L.Sigmoid(), L.Tanh(), L.LeakyRelu(0.3), L.PRelu(), L.Clip(-0.4, 0.7), L.Elu(), L.Selu(),
               L.HardSigmoid(), L.HardSwish(), L.Softplus(), L.Gelu(), L.Gelu("tanh"), L.Mish(), L.Power(3), L.Exp())


def alone(graph: LayerGraph, runner: Runner, x: np.ndarray) -> np.ndarray:
    """Layer by layer, in tiles of another size than the fused chain's."""
    chains = [Chain(graph, (n.name,)) for n in graph.layers]
    schedules = [construct(c, Tile(1, c.shapes[c.output].channels, 4, 4), runner.device, c.inputs) for c in chains]
    return runner.run_graph(schedules, {"x": x})[graph.outputs[0]]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_a_mean_of_activations_is_the_same_from_registers(generated: Runner, activation: L.Activation) -> None:
    graph = simplify(network(L.Input(3, None, None), a=conv(5), b=activation, p=L.AvgPool2d((2, 2), (2, 2)))).graph
    x = np.random.default_rng(1).standard_normal((2, 3, 20, 26)).astype(np.float32)
    fused = construct(whole_chain(graph), Tile(1, 5, 6, 8), generated.device, ("x",))
    assert_same_bits(generated.run(fused, {"x": x}), alone(graph, generated, x))


@pytest.mark.parametrize(("size", "value"), [((2100, 2048), 0.1), ((1, 5000), 0.3), ((4500, 3), 0.7)])
def test_a_global_mean_of_a_large_image(generated: Runner, size: tuple[int, int], value: float) -> None:
    graph = network(L.Input(1, None, None), g=L.GlobalAvgPool2d())
    x = np.full((1, 1, *size), value, np.float32)
    schedule = construct(whole_chain(graph), Tile(1, 1, 1, 1), generated.device, ())
    np.testing.assert_allclose(generated.run(schedule, {"x": x}), rounded(np.float32([value]), generated.dtype)[0], rtol=2e-6)
