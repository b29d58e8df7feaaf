"""The simplify pass: equal outputs on random networks, and the exact nodes and names it leaves in small ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node, Pointwise
from fusec.graph.reference import run
from fusec.graph.simplify import Simplified, simplify
from tests.strategies import float_graphs, float_images, integer_graphs, integer_images

RNG = np.random.default_rng(5)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def conv(name: str, source: str, channels: int, out: int, **hyper: Any) -> Node:
    layer = L.Conv2d((3, 3), padding=L.Padding(1, 1, 1, 1), out_channels=out, **hyper)
    params = {"weight": normal(out, channels // layer.groups, 3, 3)} | ({"bias": normal(out)} if layer.bias else {})
    return Node(name, layer, (source,), params)


def batch_norm(name: str, source: str, channels: int) -> Node:
    params = {k: normal(channels) for k in ("weight", "bias", "running_mean")}
    return Node(name, L.BatchNorm(), (source,), params | {"running_var": np.abs(normal(channels)) + np.float32(0.1)})


def linear(name: str, source: str, features: int, out: int) -> Node:
    return Node(name, L.Linear(out), (source,), {"weight": normal(out, features), "bias": normal(out)})


def node(name: str, layer: L.Layer, *sources: str) -> Node:
    return Node(name, layer, sources)


def net(*nodes: Node, outputs: list[str] | None = None, size: int | None = 6) -> LayerGraph:
    return LayerGraph("net", [Node("in", L.Input(2, size, size)), *nodes], outputs)


def in_double(graph: LayerGraph) -> LayerGraph:
    """The same network with float64 weights, so that folding rounds to float64."""
    nodes = (replace(n, params={k: v.astype(np.float64) for k, v in n.params.items()}) for n in graph.nodes)
    return LayerGraph(graph.name, nodes, graph.outputs)


def assert_same_outputs(graph: LayerGraph, simplified: Simplified, inputs: Any, tolerance: float) -> None:
    """Relative to the largest value of each output; 0 asks for equal bits."""
    before, after = run(graph, inputs), run(simplified.graph, inputs)
    assert list(simplified.output_names) == list(graph.outputs)
    assert set(simplified.output_names.values()) == set(after)
    for name, tensor in simplified.output_names.items():
        np.testing.assert_allclose(after[tensor], before[name], rtol=0, atol=tolerance * float(np.abs(before[name]).max()),
                                   err_msg=name)


# ---- any network


@given(st.data(), integer_graphs(max_layers=8))
def test_integer_networks_keep_every_bit(data: st.DataObject, graph: LayerGraph) -> None:
    simplified = simplify(graph)
    assert_same_outputs(graph, simplified, data.draw(integer_images(graph)), 0)


@given(st.data(), float_graphs(max_layers=8))
def test_float_networks_stay_equal_up_to_rounding(data: st.DataObject, graph: LayerGraph) -> None:
    double = in_double(graph)
    assert_same_outputs(double, simplify(double), data.draw(float_images(graph)), 1e-9)


@given(st.one_of(integer_graphs(max_layers=8), float_graphs(max_layers=8)))
def test_what_is_left_and_where_the_rest_went(graph: LayerGraph) -> None:
    simplified = simplify(graph)
    left = simplified.graph
    assert not [n for n in left.nodes if isinstance(n.layer, L.Identity | L.BatchNorm | L.Linear)]
    assert set(simplified.absorbed) == {n.name for n in graph.nodes}
    assert set(simplified.absorbed.values()) == {n.name for n in left.nodes}
    for survivor in left.nodes:
        assert simplified.absorbed[survivor.name] == survivor.name
        assert all(simplified.absorbed[p.name] == survivor.name for p in survivor.epilogue)
    for activation in left.nodes:
        if isinstance(activation.layer, L.Activation):
            (source,) = activation.inputs
            alone = len(left.consumers(source)) == 1 and source not in left.outputs
            assert isinstance(left[source].layer, L.Input) or not alone
    assert [n.name for n in left.inputs] == [n.name for n in graph.inputs]


@given(integer_graphs(max_layers=8))
def test_simplifying_twice_changes_nothing(graph: LayerGraph) -> None:
    once = simplify(graph).graph
    twice = simplify(once)
    assert [(n.label, n.layer, n.inputs) for n in twice.graph.nodes] == [(n.label, n.layer, n.inputs) for n in once.nodes]
    assert all(k == v for k, v in (twice.absorbed | twice.output_names).items())


@given(integer_graphs(max_layers=8))
def test_the_original_is_left_as_it_was(graph: LayerGraph) -> None:
    before = [(n, {k: v.copy() for k, v in n.params.items()}) for n in graph.nodes]
    simplify(graph)
    assert graph.nodes == tuple(n for n, _ in before)
    for kept, params in before:
        for name, values in params.items():
            np.testing.assert_array_equal(kept.params[name], values)


# ---- padding


def pad(name: str, source: str, *edges: int, value: float = 0.0) -> Node:
    return node(name, L.Pad(L.Padding(*edges), value), source)


def test_zeros_become_padding() -> None:
    """Through several pads, and beside readers that take none; the pads that nobody reads are gone."""
    pool = L.AvgPool2d((3, 3), (2, 2), padding=L.Padding(1, 0, 0, 1))
    graph = net(pad("p", "in", 1, 2, 0, 1), pad("q", "p", 0, 1, 2, 0), conv("c", "q", 2, 3), node("a", pool, "p"),
                node("m", L.MaxPool2d((2, 2)), "p"), pad("r", "c", 3), conv("d", "r", 3, 2))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["p", "c", "a", "m", "d"]
    assert simplified.absorbed["q"] == "c"
    assert simplified.absorbed["r"] == "d"
    assert {n.name: n.inputs[0] for n in simplified.graph.layers} == {"p": "in", "c": "in", "a": "in", "m": "p", "d": "c"}
    assert simplified.graph["a"].layer.padding == L.Padding(2, 2, 0, 2)  # type: ignore[attr-defined]
    assert simplified.graph["c"].layer.padding == L.Padding(2, 4, 3, 2)  # type: ignore[attr-defined]
    assert simplified.graph["d"].layer.padding == L.Padding(4, 1, 1, 1)  # type: ignore[attr-defined]
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 0)


def test_zeros_become_a_pools_padding() -> None:
    graph = net(pad("p", "in", 1, 1, 1, 1), pad("q", "p", 1), node("a", L.AvgPool2d((3, 3), (2, 2)), "q"))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["a"]
    assert simplified.graph["a"].layer.padding == L.Padding(2, 1, 1, 1)  # type: ignore[attr-defined]
    assert simplified.absorbed == {"in": "in", "p": "a", "q": "a", "a": "a"}
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 0)


@pytest.mark.parametrize(("padding", "reader"), [
    (pad("p", "in", 1, value=1.0), conv("r", "p", 2, 3)),
    (pad("p", "in", 3), node("r", L.AvgPool2d((3, 3)), "p")),
    (pad("p", "in", 1), node("r", L.AvgPool2d((3, 3), ceil_mode=True), "p")),
    (pad("p", "in", 1), node("r", L.AvgPool2d((3, 3), count_include_pad=False), "p")),
    (pad("p", "in", 1), node("r", L.MaxPool2d((3, 3)), "p")),
    (replace(pad("p", "in", 1), epilogue=(Pointwise("e", L.Exp()),)), conv("r", "p", 2, 3)),
], ids=str)
def test_pads_that_are_no_padding_stay(padding: Node, reader: Node) -> None:
    graph = net(padding, reader)
    simplified = simplify(graph)
    assert [n.name for n in simplified.graph.layers] == ["p", "r"]
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 0)


def test_a_pad_that_is_seen_stays_and_pads_nothing_else() -> None:
    graph = net(pad("p", "in", 1), conv("r", "p", 2, 3), node("none", L.Crop(), "r"), node("zero", L.Pad(L.Padding()), "none"),
                outputs=["p", "zero"])
    simplified = simplify(graph)
    assert [(n.name, n.inputs) for n in simplified.graph.layers] == [("p", ("in",)), ("r", ("in",))]
    assert simplified.output_names == {"p": "p", "zero": "r"}
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 0)


# ---- names


def test_a_block_becomes_one_node() -> None:
    graph = net(conv("conv1", "in", 2, 4, bias=False), batch_norm("bn1", "conv1", 4), node("drop", L.Identity(), "bn1"),
                node("relu1", L.Relu(), "drop"), node("clip1", L.Clip(0, 1), "relu1"))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["conv1+relu1+clip1"]
    assert simplified.absorbed == {"in": "in"} | dict.fromkeys(("conv1", "bn1", "drop", "relu1", "clip1"), "conv1")
    assert simplified.output_names == {"clip1": "conv1"}
    assert simplified.graph.outputs == ("conv1",)
    (folded,) = simplified.graph.layers
    assert isinstance(folded.layer, L.Conv2d)
    assert folded.layer.bias
    assert {v.dtype for v in folded.params.values()} == {np.dtype(np.float32)}
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 1e-6)


def test_identities_that_are_outputs_hand_over_to_their_input() -> None:
    graph = net(node("first", L.Identity(), "in"), conv("conv1", "first", 2, 3), node("second", L.Identity(), "conv1"),
                node("third", L.Identity(), "second"), outputs=["third", "first", "conv1"])
    simplified = simplify(graph)
    assert simplified.output_names == {"third": "conv1", "first": "in", "conv1": "conv1"}
    assert simplified.graph.outputs == ("conv1", "in")
    assert simplified.absorbed == {"in": "in", "first": "in", "conv1": "conv1", "second": "conv1", "third": "conv1"}
    assert_same_outputs(graph, simplified, normal(1, 2, 6, 6), 0)


@pytest.mark.parametrize("outputs", [["relu1", "conv1"], ["relu1", "other"]])
def test_an_activation_stays_where_its_input_is_seen(outputs: list[str]) -> None:
    graph = net(conv("conv1", "in", 2, 3), node("relu1", L.Relu(), "conv1"), node("other", L.Tanh(), "conv1"), outputs=outputs)
    assert [n.label for n in simplify(graph).graph.layers] == ["conv1", "relu1", "other"]


def test_an_activation_behind_an_input_stays_and_takes_the_next() -> None:
    simplified = simplify(net(node("relu1", L.Relu(), "in"), node("tanh1", L.Tanh(), "relu1")))
    assert [n.label for n in simplified.graph.layers] == ["relu1+tanh1"]
    assert simplified.output_names == {"tanh1": "relu1"}


def test_a_residual_block() -> None:
    graph = net(conv("conv1", "in", 2, 2), node("relu1", L.Relu(), "conv1"), conv("conv2", "relu1", 2, 2),
                batch_norm("bn2", "conv2", 2), node("sum", L.Add(), "relu1", "bn2"), node("relu2", L.Relu(), "sum"), size=None)
    simplified = simplify(graph)
    assert [(n.label, n.inputs) for n in simplified.graph.layers] == [
        ("conv1+relu1", ("in",)), ("conv2", ("conv1",)), ("sum+relu2", ("conv1", "conv2"))]
    assert_same_outputs(graph, simplified, normal(2, 2, 7, 5), 1e-6)


# ---- batch norm


def test_a_batch_norm_nobody_can_take_becomes_a_channel_affine() -> None:
    graph = net(batch_norm("bn0", "in", 2), conv("conv1", "bn0", 2, 3), node("relu1", L.Relu(), "conv1"),
                batch_norm("bn1", "relu1", 3), conv("conv2", "bn1", 3, 3), batch_norm("bn2", "conv2", 3),
                node("sum", L.Add(), "conv2", "bn2"))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["bn0", "conv1+relu1+bn1", "conv2", "bn2", "sum"]
    assert isinstance(simplified.graph["bn0"].layer, L.ChannelAffine)
    assert isinstance(simplified.graph["conv1"].epilogue[1].layer, L.ChannelAffine)
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 1e-5)
    assert_same_outputs(in_double(graph), simplify(in_double(graph)), normal(2, 2, 6, 6), 1e-12)


def test_constants_of_each_channel_fold_as_batch_norms_do() -> None:
    def affine(name: str, source: str, channels: int) -> Node:
        return Node(name, L.ChannelAffine(), (source,), {"scale": normal(channels), "shift": normal(channels)})

    graph = net(affine("first", "in", 2), conv("conv1", "first", 2, 3), affine("a", "conv1", 3), affine("b", "a", 3),
                node("relu1", L.Relu(), "b"), affine("c", "relu1", 3))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["first", "conv1+relu1+c"]
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 1e-5)
    assert_same_outputs(in_double(graph), simplify(in_double(graph)), normal(2, 2, 6, 6), 1e-12)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_folds_into_every_weighted_layer(groups: int, bias: bool) -> None:
    convolution = conv("a", "wide", 6, 12, groups=groups, bias=bias)
    transposed = L.ConvTranspose2d((2, 3), (2, 1), out_channels=12, groups=groups, bias=bias)
    params = {"weight": normal(12, 12 // groups, 2, 3)} | ({"bias": normal(12)} if bias else {})
    graph = in_double(net(
        conv("wide", "in", 2, 6), convolution, batch_norm("bna", "a", 12), Node("b", transposed, ("bna",), params),
        batch_norm("bnb", "b", 12), linear("c", "bnb", 12 * 12 * 8, 4), batch_norm("bnc", "c", 4),
        batch_norm("again", "bnc", 4)))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["wide", "a", "b", "c"]
    assert simplified.absorbed["again"] == "c"
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 1e-12)


def test_epilogues_that_came_with_the_graph_stay_in_their_place() -> None:
    """Nothing is folded or moved across an epilogue, and a dropped node hands its own on."""
    relu, tanh = Pointwise("relu", L.Relu()), Pointwise("tanh", L.Tanh())
    graph = net(replace(conv("a", "in", 2, 3), epilogue=(relu,)), batch_norm("bna", "a", 3), conv("b", "bna", 3, 3),
                replace(batch_norm("bnb", "b", 3), epilogue=(tanh,)), Node("id", L.Identity(), ("bnb",), {}, (relu,)),
                Node("flat", L.Flatten(), ("id",), {}, (tanh,)), linear("fc", "flat", 108, 4),
                Node("sigmoid", L.Sigmoid(), ("fc",), {}, (tanh,)))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["a+relu+bna", "b+tanh", "id+relu", "flat+tanh", "fc+sigmoid+tanh"]
    assert_same_outputs(graph, simplified, normal(2, 2, 6, 6), 1e-5)


def test_folding_rounds_once() -> None:
    """The float32 weights are the float64 products rounded, not products of rounded factors."""
    graph = net(conv("conv1", "in", 2, 3), batch_norm("bn", "conv1", 3))
    bn = {k: v.astype(np.float64) for k, v in graph["bn"].params.items()}
    scale = bn["weight"] / np.sqrt(bn["running_var"] + 1e-5)
    original, folded = graph["conv1"].params, simplify(graph).graph["conv1"].params
    np.testing.assert_array_equal(folded["weight"], (original["weight"] * scale[:, None, None, None]).astype(np.float32))
    shift = bn["bias"] - bn["running_mean"] * scale + original["bias"] * scale
    np.testing.assert_array_max_ulp(folded["bias"], shift.astype(np.float32), 1)


def test_a_variance_that_cannot_be_is_refused() -> None:
    graph = net(conv("conv1", "in", 2, 2), batch_norm("bn", "conv1", 2))
    graph["bn"].params["running_var"][1] = -2
    with pytest.raises(InputError, match=r"bn: running_var \+ eps is -1.99999 for channel 1"):
        simplify(graph)


# ---- linear layers


def test_flatten_and_linear_become_a_convolution_over_the_image() -> None:
    graph = net(conv("conv1", "in", 2, 3), node("flat", L.Flatten(), "conv1"), node("drop", L.Identity(), "flat"),
                linear("fc1", "drop", 3 * 36, 5), node("relu", L.Relu(), "fc1"), node("flat2", L.Flatten(), "relu"),
                linear("fc2", "flat2", 5, 4))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["conv1", "fc1+relu", "fc2"]
    assert simplified.graph["fc1"].layer == L.Conv2d((6, 6), out_channels=5)
    assert simplified.graph["fc2"].layer == L.Conv2d((1, 1), out_channels=4)
    assert simplified.absorbed == {"in": "in", "conv1": "conv1", "flat": "fc1", "drop": "fc1", "fc1": "fc1", "relu": "fc1",
                                   "flat2": "fc1", "fc2": "fc2"}
    assert_same_outputs(graph, simplified, normal(3, 2, 6, 6), 1e-12)


def test_a_linear_layer_needs_no_flatten() -> None:
    graph = net(linear("fc", "in", 72, 5))
    simplified = simplify(graph)
    assert simplified.graph["fc"].layer == L.Conv2d((6, 6), out_channels=5)
    assert_same_outputs(graph, simplified, normal(3, 2, 6, 6), 1e-12)


def test_a_flatten_read_by_linear_layers_alone_disappears() -> None:
    graph = net(node("flat", L.Flatten(), "in"), linear("left", "flat", 72, 5), linear("right", "flat", 72, 5),
                node("sum", L.Add(), "left", "right"))
    simplified = simplify(graph)
    assert [n.name for n in simplified.graph.layers] == ["left", "right", "sum"]
    assert simplified.absorbed["flat"] == "left"
    assert_same_outputs(graph, simplified, normal(3, 2, 6, 6), 1e-12)


@pytest.mark.parametrize("as_output", [True, False])
def test_a_flatten_with_other_readers_stays(as_output: bool) -> None:
    other = [] if as_output else [node("softmax", L.Softmax(), "flat")]
    graph = net(node("flat", L.Flatten(), "in"), linear("fc", "flat", 72, 5), *other,
                outputs=["fc", "flat" if as_output else "softmax"])
    simplified = simplify(graph)
    assert [n.name for n in simplified.graph.layers][:2] == ["flat", "fc"]
    assert simplified.graph["fc"].layer == L.Conv2d((1, 1), out_channels=5)
    assert simplified.absorbed["flat"] == "flat"
    assert_same_outputs(graph, simplified, normal(3, 2, 6, 6), 1e-12)


def test_an_activation_between_flatten_and_linear() -> None:
    graph = net(node("flat", L.Flatten(), "in"), node("relu", L.Relu(), "flat"), linear("fc", "relu", 72, 5))
    simplified = simplify(graph)
    assert [n.label for n in simplified.graph.layers] == ["flat+relu", "fc"]
    assert simplified.graph["fc"].layer == L.Conv2d((1, 1), out_channels=5)
    assert_same_outputs(graph, simplified, normal(3, 2, 6, 6), 1e-12)


def test_a_flatten_of_one_pixel_disappears() -> None:
    graph = net(node("pool", L.GlobalAvgPool2d(), "in"), node("flat", L.Flatten(), "pool"), size=None)
    simplified = simplify(graph)
    assert [n.name for n in simplified.graph.layers] == ["pool"]
    assert simplified.output_names == {"flat": "pool"}
    assert simplified.absorbed["flat"] == "pool"
