"""Good descriptions and what the reader makes of them; where weights come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.read_yaml import read_description, read_yaml
from fusec.graph.weights import random_weights, save_weights
from tests.descriptions import CONV, marked, network, write


def read(folder: Path, text: str) -> LayerGraph:
    return read_description(write(folder, text)).graph


def test_layers_follow_each_other_unless_they_say_otherwise(tmp_path: Path) -> None:
    graph = read(tmp_path, network("{name: a, type: relu}", "{name: b, type: tanh}", "{name: c, type: add, inputs: [b, image]}",
                                   "{name: d, type: sigmoid, inputs: a}", rest="outputs: [d, c]"))
    assert {n.name: n.inputs for n in graph.layers} == {"a": ("image",), "b": ("a",), "c": ("b", "image"), "d": ("a",)}
    assert graph.outputs == ("d", "c")


def test_layers_may_be_read_before_they_stand(tmp_path: Path) -> None:
    graph = read(tmp_path, network("{name: a, type: add, inputs: [b, image]}", "{name: b, type: relu, inputs: image}"))
    assert [n.name for n in graph.layers] == ["b", "a"]


def test_several_inputs_with_open_sizes(tmp_path: Path) -> None:
    graph = read(tmp_path, "name: n\n"
                           "inputs: [{name: i, channels: 1, height: 5}, {name: j, channels: 2, height: 5, width: null}]\n"
                           "layers: [{name: a, type: concat, inputs: [i, j]}]")
    assert str(graph.shapes["a"]) == "3x5x?"


LAYERS = {
    "conv2d, out_channels: 6, kernel: 3": L.Conv2d((3, 3), out_channels=6),
    "conv2d, out_channels: 6, kernel: [1, 3], stride: [2, 1], dilation: 2, padding: [1, 2], groups: 3, bias: false":
        L.Conv2d((1, 3), (2, 1), (2, 2), L.Padding(1, 1, 2, 2), 6, 3, False),
    "conv2d, out_channels: 6, kernel: [3, 4], dilation: [1, 2], padding: same":
        L.Conv2d((3, 4), (1, 1), (1, 2), L.Padding(1, 1, 3, 3), 6),
    "conv2d, out_channels: 6, kernel: [2, 1], padding: same": L.Conv2d((2, 1), padding=L.Padding(0, 1, 0, 0), out_channels=6),
    "conv2d, out_channels: 6, kernel: 3, padding: {top: 1, right: 2}":
        L.Conv2d((3, 3), padding=L.Padding(1, 0, 0, 2), out_channels=6),
    "conv_transpose2d, out_channels: 6, kernel: 4, stride: 2, dilation: 3, padding: 1, output_padding: [0, 2], groups: 3, "
    "bias: false": L.ConvTranspose2d((4, 4), (2, 2), (3, 3), L.Padding(1, 1, 1, 1), 6, 3, (0, 2), False),
    "max_pool2d, kernel: [2, 3]": L.MaxPool2d((2, 3), (2, 3)),
    "max_pool2d, kernel: 3, stride: 2, dilation: 2, padding: 1, ceil_mode: true":
        L.MaxPool2d((3, 3), (2, 2), (2, 2), L.Padding(1, 1, 1, 1), True),
    "avg_pool2d, kernel: 3, stride: 1, padding: 1, ceil_mode: true, count_include_pad: false":
        L.AvgPool2d((3, 3), (1, 1), (1, 1), L.Padding(1, 1, 1, 1), True, False),
    "avg_pool2d, kernel: 2": L.AvgPool2d((2, 2), (2, 2)),
    "leaky_relu": L.LeakyRelu(0.01),
    "leaky_relu, slope: 2e-1": L.LeakyRelu(0.2),
    "clip, low: -1, high: 1.5": L.Clip(-1.0, 1.5),
    "relu6": L.Clip(0.0, 6.0),
    "elu": L.Elu(1.0), "elu, alpha: 0.5": L.Elu(0.5),
    "selu": L.Selu(), "selu, alpha: 1.5, gamma: 2": L.Selu(1.5, 2.0),
    "hard_sigmoid": L.HardSigmoid(0.2, 0.5), "hard_sigmoid, alpha: 0.25, beta: 1": L.HardSigmoid(0.25, 1.0),
    "gelu": L.Gelu("none"), "gelu, approximate: tanh": L.Gelu("tanh"),
    "pow, exponent: 2.5": L.Power(2.5),
    "hard_swish": L.HardSwish(), "softplus": L.Softplus(), "mish": L.Mish(), "neg": L.Neg(), "abs": L.Abs(),
    "sqrt": L.Sqrt(), "exp": L.Exp(), "channel_affine": L.ChannelAffine(),
    "batch_norm": L.BatchNorm(),
    "batch_norm, eps: 0.001": L.BatchNorm(0.001),
    "local_response_norm, size: 5": L.LocalResponseNorm(5),
    "local_response_norm, size: 3, alpha: 0.1, beta: 0.5, k: 2": L.LocalResponseNorm(3, 0.1, 0.5, 2.0),
    "linear, out_features: 7, bias: false": L.Linear(7, False),
    "upsample, factor: [2, 3]": L.Upsample((2, 3)),
    "upsample, factor: 2, mode: linear": L.Upsample((2, 2), "linear"),
    "upsample, factor: [1, 4], mode: linear, coordinates: asymmetric": L.Upsample((1, 4), "linear", "asymmetric"),
    "space_to_depth, block: 1": L.SpaceToDepth(1),
    "slice_channels, stop: 1": L.SliceChannels(0, 1), "slice_channels, start: 0, stop: 1, step: 2": L.SliceChannels(0, 1, 2),
    "crop, top: 1, right: 2": L.Crop(1, 0, 0, 2),
    "pad, padding: [1, 2]": L.Pad(L.Padding(1, 1, 2, 2)), "pad, padding: {left: 3}, value: -1": L.Pad(L.Padding(left=3), -1.0),
    "log_softmax": L.LogSoftmax(),
    "depth_to_space, block: 1": L.DepthToSpace(1),
    "depth_to_space, block: 1, order: CRD": L.DepthToSpace(1, L.DepthToSpaceOrder.CRD),
    "relu": L.Relu(), "prelu": L.PRelu(), "sigmoid": L.Sigmoid(), "tanh": L.Tanh(), "silu": L.Silu(), "flatten": L.Flatten(),
    "global_avg_pool2d": L.GlobalAvgPool2d(), "softmax": L.Softmax(), "identity": L.Identity(), "dropout": L.Identity(),
    "concat": L.Concat(), "add, inputs: [image, image]": L.Add(), "mul, inputs: [image, image]": L.Mul(),
    "sub, inputs: [image, image]": L.Sub(), "div, inputs: [image, image]": L.Div(), "min, inputs: [image, image]": L.Min(),
    "max, inputs: [image, image]": L.Max(), "global_max_pool2d": L.GlobalMaxPool2d(),
}


@pytest.mark.parametrize("written", LAYERS)
def test_every_layer(written: str, tmp_path: Path) -> None:
    graph = read(tmp_path, network(f"{{name: a, type: {written}}}"))
    assert graph["a"].layer == LAYERS[written]


@pytest.mark.parametrize("name", ['"; system("x"); //', "été 雨", "{{ 7*7 }}", "../../etc", "a.b", "null"])
def test_hostile_names_are_only_text(name: str, tmp_path: Path) -> None:
    graph = read(tmp_path, network(f"{{name: '{name}', type: relu}}"))
    assert graph.layers[0].name == name


# weights


def test_the_three_sources_of_weights(tmp_path: Path) -> None:
    path = write(tmp_path, network(CONV))
    seeded = read_yaml(path, random_weights=3)
    save_weights(seeded, tmp_path / "w.safetensors")
    given_file = read_yaml(path, weights=tmp_path / "w.safetensors")
    named = read_yaml(write(tmp_path, network(CONV, rest="weights: w.safetensors")))
    for graph in (given_file, named):
        assert (graph["a"].params["weight"] == seeded["a"].params["weight"]).all()


def test_no_weights_says_the_three_ways_out(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_yaml(write(tmp_path, network(CONV)))
    assert all(way in caught.value.problems[0].hint for way in ("weights:", "weights=FILE", "random_weights=SEED"))


def test_a_network_without_parameters_needs_no_weights(tmp_path: Path) -> None:
    assert len(read_yaml(write(tmp_path, network("{name: a, type: relu}"))).layers) == 1


def test_two_sources_of_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both given"):
        read_yaml(write(tmp_path, network(CONV)), weights=tmp_path / "w.safetensors", random_weights=1)


def test_a_named_weights_file_that_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path, network(CONV, rest="weights: net.safetensors"))
    save_weights(random_weights(read_description(path).graph, 1), tmp_path / "met.safetensors")
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert caught.value.problems[0].where == f"{path}:5:10"
    assert "'met.safetensors'" in caught.value.problems[0].hint


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"")
    (tmp_path / "in" / "w.safetensors").symlink_to(tmp_path / "secret.safetensors")
    found, places = marked(tmp_path / "in", network(CONV, rest="weights: §w.safetensors"))
    assert [p.where for p in found] == places
    assert "out of the description's folder" in found[0].what
