"""Beyond the range of a half type: infinities where a layer's values leave it, NaN that stays NaN, as in a rounding reference.

Kernels fill fragments up with zeros, whose products with infinities would be NaN: none of them may reach a real value.
"""

from __future__ import annotations

import numpy as np
import pytest

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.simplify import simplify
from fusec.plan.construct import construct
from fusec.schedule.ir import Tile
from fusec.targets.device import DEVICES, in_precision
from tests.harness import EmulatedCuda, Floats, chain_reference, graph_reference
from tests.small_networks import conv, image_of, max_pool, network, whole_chain

HALVES = ("float16", "bfloat16")
NAN, INFINITY = np.nan, np.inf
LARGEST = np.float32(65504)


@pytest.fixture(scope="module", params=HALVES)
def half(request: pytest.FixtureRequest) -> EmulatedCuda:
    return EmulatedCuda(dtype=request.param)


def ones(graph: LayerGraph, weight: float = 1.0) -> LayerGraph:
    """The network with all weights alike and no biases, as few zeros as can be."""
    return LayerGraph(graph.name, [Node(n.name, n.layer, n.inputs, {k: np.full_like(v, weight if k == "weight" else 0)
                                                                   for k, v in n.params.items()}) for n in graph.nodes])


def check(runner: EmulatedCuda, graph: LayerGraph, x: Floats, *, step: int | None = None) -> Floats:
    """Fused, staged or not, against the reference; returns the result."""
    graph = simplify(graph).graph
    chain = whole_chain(graph)
    with np.errstate(invalid="ignore"):
        wanted = chain_reference(chain, {"x": x}, runner.dtype)[chain.output]
    tile = Tile(1, chain.shapes[chain.output].channels, 4, 8)
    for staged in ((), ("x",)):
        result = runner.run(construct(chain, tile, runner.device, staged, step), {"x": x})
        np.testing.assert_array_equal(result, wanted)
    return result


SPOTS = {(0, 0): NAN, (0, 3): INFINITY, (2, 9): -INFINITY, (4, 4): LARGEST}


@pytest.mark.parametrize("channels", [1, 3, 5, 12, 17])
def test_what_is_no_number_reaches_where_it_is_read_and_no_further(half: EmulatedCuda, channels: int) -> None:
    """Through both kinds of fragments, of which 16 channels or products are filled up with zeros."""
    x = np.ones((2, channels, 6, 11), np.float32)
    for (row, column), value in SPOTS.items():
        x[0, channels - 1, row, column] = value
    result = check(half, ones(network(L.Input(channels), a=conv(9), b=conv(3, 1))), x)
    assert np.isfinite(result[1]).all()
    assert np.isnan(result[0, :, :2, :2]).all()
    assert np.isfinite(result[0, :, :, 6:8]).all()


LAYERS = {"relu": L.Relu(), "leaky_relu": L.LeakyRelu(0.5), "clip": L.Clip(-3, 3), "max_pool": max_pool(3, 1, pad=1),
          "avg_pool": L.AvgPool2d((2, 2), (2, 2)), "merged max_pool": max_pool(2, 2), "depthwise": conv(10, groups=10),
          "grouped": conv(10, groups=5), "upsample": L.Upsample((2, 2)),
          "transposed": L.ConvTranspose2d((2, 2), (2, 2), out_channels=10)}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_what_is_no_number(half: EmulatedCuda, name: str) -> None:
    x = np.ones((1, 10, 6, 12), np.float32)
    for (row, column), value in SPOTS.items():
        x[0, 7, row, column] = value
    result = check(half, ones(network(L.Input(10), a=conv(10, 1), b=LAYERS[name], c=conv(10, 1))), x)
    assert np.isnan(result).any()
    assert np.isfinite(result).any()


@pytest.mark.parametrize("step", [None, 2], ids=["tile", "strip"])
def test_what_leaves_the_range_inside_a_chain_is_infinite(step: int | None) -> None:
    """A layer's value beyond 65,504 becomes infinite where it is stored, in scratch too; bfloat16 holds it."""
    graph = ones(network(L.Input(6), a=conv(12), b=conv(12), s=(L.Add(), "a", "b"), c=conv(5, 1)), 3.0)
    x = np.full((1, 6, 7, 9), 70.0, np.float32)
    in_float16 = check(EmulatedCuda(dtype="float16"), graph, x, step=step)
    in_bfloat16 = check(EmulatedCuda(dtype="bfloat16"), graph, x, step=step)
    exact = graph_reference(graph, {"x": x})
    assert exact["a"].max() <= LARGEST < exact["b"].min()
    assert (in_float16 == INFINITY).all()
    np.testing.assert_allclose(in_bfloat16, exact["c"], rtol=0.02)


def test_sums_leave_the_range_on_their_way_and_come_back() -> None:
    """They are float32: only what is stored is rounded."""
    graph = ones(network(L.Input(20), a=conv(8, 1)), 4.0)
    x = np.full((1, 20, 3, 4), 60000.0, np.float32)
    x[:, 1::2] = -59968.0
    result = check(EmulatedCuda(dtype="float16"), graph, x)
    assert (result == 4 * 32 * 10).all()


def test_the_largest_value_stays_and_the_next_does_not() -> None:
    """65,519 rounds to 65,504; 65,520, half way to the next power of two, does not. Biases are float32; ties go to even."""
    graph = ones(network(L.Input(5), a=conv(6, 1)))
    graph["a"].params["bias"][...] = (15.0, 15.96875, 16.0, -48.0, 16.5, 0.0)  # type: ignore[index]
    x = np.zeros((1, 5, 2, 3), np.float32)
    x[:, 2] = LARGEST
    result = check(EmulatedCuda(dtype="float16"), graph, x)
    assert result[0, :, 0, 0].tolist() == [LARGEST, LARGEST, INFINITY, 65472.0, INFINITY, LARGEST]


@pytest.mark.parametrize("channels", [2, 6])
def test_a_weight_beyond_the_range_names_its_layer(channels: int) -> None:
    graph = network(L.Input(channels), first=conv(5), second=conv(7))
    graph["second"].params["weight"][3, 1, 0, 2] = -1e6  # type: ignore[index]
    chain = whole_chain(graph)
    x = image_of(graph, 4, 4)
    for dtype in HALVES:
        device = in_precision(DEVICES["h200"], dtype)
        runner = EmulatedCuda(dtype=dtype)
        schedule = construct(chain, Tile(1, 7, 4, 4), device, ())
        if dtype == "bfloat16":
            assert np.isfinite(runner.run(schedule, {"x": x})).all()
            continue
        with pytest.raises(InputError, match=r"second: a weight of -1e\+06 is beyond the range of float16, 65504"):
            runner.run(schedule, {"x": x})
