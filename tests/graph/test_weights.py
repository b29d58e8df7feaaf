"""Weights: files that fit, files that do not, and random ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fusec.errors import InputError, Problem
from fusec.graph import layers as L
from fusec.graph.graph import Array, LayerGraph, Node
from fusec.graph.weights import MAX_LISTED, load_weights, random_weights, save_weights, weight_shapes


def network(*extra: Node) -> LayerGraph:
    return LayerGraph("net", [
        Node("image", L.Input(2, 4, 4)),
        Node("conv1", L.Conv2d((3, 3), out_channels=6, groups=2), ("image",)),
        Node("bn", L.BatchNorm(), ("conv1",)),
        Node("slope", L.PRelu(), ("bn",)),
        Node("up", L.ConvTranspose2d((2, 2), (2, 2), out_channels=3), ("slope",)),
        Node("fc", L.Linear(5, bias=False), ("up",)),
        *extra,
    ])


def arrays() -> dict[str, Array]:
    """Fitting values of every weight of `network`."""
    return {k: np.arange(1, 1 + np.prod(s), dtype=np.float32).reshape(s) for k, s in weight_shapes(network()).items()}


def problems(path: Path, graph: LayerGraph | None = None) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        load_weights(path, graph or network())
    assert all(p.where == str(path) for p in caught.value.problems)
    return caught.value.problems


def saved(folder: Path, values: dict[str, Array]) -> Path:
    path = folder / "net.safetensors"
    safetensors.numpy.save_file(values, path)
    return path


def test_shapes_and_keys() -> None:
    assert weight_shapes(network()) == {
        "conv1.weight": (6, 1, 3, 3), "conv1.bias": (6,), "bn.weight": (6,), "bn.bias": (6,), "bn.running_mean": (6,),
        "bn.running_var": (6,), "slope.weight": (6,), "up.weight": (6, 3, 2, 2), "up.bias": (3,), "fc.weight": (5, 48)}


def test_a_file_round_trip_is_exact(tmp_path: Path) -> None:
    graph = random_weights(network(), 7)
    save_weights(graph, tmp_path / "w.safetensors")
    again = load_weights(tmp_path / "w.safetensors", network())
    assert [n.name for n in again.nodes] == [n.name for n in graph.nodes]
    for node in graph.layers:
        assert node.params.keys() == again[node.name].params.keys()
        for param, value in node.params.items():
            np.testing.assert_array_equal(again[node.name].params[param], value)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_other_float_types_are_converted(dtype: type, tmp_path: Path) -> None:
    graph = load_weights(saved(tmp_path, {k: v.astype(dtype) for k, v in arrays().items()}), network())
    for key, value in arrays().items():
        node, param = key.split(".")
        loaded = graph[node].params[param]
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, value)


def raw_file(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """A safetensors file written by hand, for the types NumPy does not have."""
    header, body = {}, b""
    for key, (dtype, shape, data) in tensors.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_bfloat16_is_converted(tmp_path: Path) -> None:
    graph = LayerGraph("n", [Node("i", L.Input(1, 1, 2)), Node("fc", L.Linear(2), ("i",))])
    weight = struct.pack("<4H", 0x3F80, 0xC000, 0x3E80, 0x0000)  # 1, -2, 0.25, 0
    path = raw_file(tmp_path / "b.safetensors", {"fc.weight": ("BF16", (2, 2), weight),
                                                 "fc.bias": ("BF16", (2,), struct.pack("<2H", 0x4040, 0xBF00))})
    loaded = load_weights(path, graph)["fc"].params
    np.testing.assert_array_equal(loaded["weight"], [[1, -2], [0.25, 0]])
    np.testing.assert_array_equal(loaded["bias"], [3, -0.5])


def test_one_slope_for_all_channels(tmp_path: Path) -> None:
    graph = load_weights(saved(tmp_path, arrays() | {"slope.weight": np.array([0.5], np.float32)}), network())
    assert graph["slope"].params["weight"].shape == (1,)


def test_everything_wrong_is_listed_at_once(tmp_path: Path) -> None:
    values = arrays()
    values["conv_1.weight"] = values.pop("conv1.weight")
    values["extra"] = np.zeros(1, np.float32)
    values["fc.weight"] = values["fc.weight"].T.copy()
    values["conv1.bias"] = np.array([1, np.nan, 3, np.inf, 5, 6], np.float32)
    values["bn.running_var"] = -values["bn.running_var"]
    values["bn.bias"] = np.zeros(6, np.int32)
    values["bn.weight"] = np.ones((1,), np.float32)
    values["up.bias"] = np.full(3, 1e300)
    found = {p.what: p.hint for p in problems(saved(tmp_path, values))}
    assert len(found) == 9
    assert "'conv_1.weight'" in found["'conv1.weight' is missing"]
    assert "'conv1.weight'" in found["'conv_1.weight' is not a weight of this network"]
    assert "'extra' is not a weight of this network" in found
    assert "swapped" in found["'fc.weight' has shape 48x5, but the network wants 5x48"]
    assert "'bn.weight' has shape 1, but the network wants 6" in found
    assert "2 of the 6 values of 'conv1.bias' are NaN or infinite" in found
    assert "3 of the 3 values of 'up.bias' are too large for float32" in found
    assert "'bn.running_var' has a variance below zero" in found
    assert "float32" in found["'bn.bias' holds I32"]


def test_surplus_tensors_are_counted_not_listed_without_end(tmp_path: Path) -> None:
    extra = {f"x{i}": np.zeros(1, np.float32) for i in range(MAX_LISTED + 50)}
    found = problems(saved(tmp_path, arrays() | extra))
    assert len(found) == MAX_LISTED + 1
    assert "50 more" in found[-1].what


@pytest.mark.parametrize("keep", [0, 3, 8, 100, -1])
def test_a_truncated_file(keep: int, tmp_path: Path) -> None:
    path = saved(tmp_path, arrays())
    path.write_bytes(path.read_bytes()[:keep])
    assert "truncated" in problems(path)[0].hint


@pytest.mark.parametrize("content", [
    b"PK\x03\x04" + bytes(100), struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", 2) + b"[]",
    struct.pack("<Q", 4) + b"\xff" * 4,
    struct.pack("<Q", 60) + b'{"fc.weight":{"dtype":"F32","shape":[5,48],"data_offsets":[0' + bytes(20)])
def test_a_file_of_another_kind(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert "not a readable safetensors file" in problems(path)[0].what


def test_files_that_are_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path, arrays())
    for name in ("nett.safetensors", "net", "NET.safetensors", "net.pt"):
        assert problems(tmp_path / name)[0].hint == "did you mean 'net.safetensors'?"
    assert problems(tmp_path / "trained.safetensors")[0].hint == "there is 'net.safetensors'"
    assert problems(tmp_path / "none" / "net.safetensors")[0].hint == f"there is no folder '{tmp_path / 'none'}'"
    path.rename(tmp_path / "net.pt")
    assert problems(path)[0].hint == "name a .safetensors file, or give a seed of random weights instead"
    (tmp_path / "net.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "save_file" in problems(tmp_path / "net.pt")[0].hint
    assert "directory" in problems(tmp_path)[0].what


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 36)  # sparse: takes no room
    assert "larger than" in problems(path)[0].what


def test_too_many_weights_are_refused_before_anything_is_made() -> None:
    graph = LayerGraph("n", [Node("i", L.Input(1, 1024, 1024)), Node("small", L.Linear(3), ("i",)),
                             Node("big", L.Linear(1 << 19), ("i",))])
    with pytest.raises(InputError) as caught:
        random_weights(graph, 0)
    assert caught.value.problems[0].where == "big"


def test_random_weights_depend_on_seed_name_and_shape_only() -> None:
    one = random_weights(network(), 1)
    more = random_weights(network(Node("first", L.Conv2d((1, 1), out_channels=9), ("image",))), 1)
    for node in one.layers:
        for param, value in node.params.items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(more[node.name].params[param], value)
    other = random_weights(network(), 2)
    assert not np.array_equal(one["fc"].params["weight"], other["fc"].params["weight"])
    assert not np.array_equal(one["bn"].params["bias"], one["bn"].params["running_mean"])


def test_random_weights_are_scaled_and_mild() -> None:
    graph = random_weights(LayerGraph("n", [
        Node("i", L.Input(32, 8, 8)), Node("c", L.Conv2d((3, 3), out_channels=64), ("i",)), Node("b", L.BatchNorm(), ("c",)),
        Node("p", L.PRelu(), ("b",))]), 5)
    assert graph["c"].params["weight"].std() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    assert 0.5 <= graph["b"].params["running_var"].min() <= graph["b"].params["running_var"].max() <= 1.5
    assert abs(graph["b"].params["weight"].mean() - 1) < 0.1
    assert (graph["p"].params["weight"] >= 0).all()


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="0 or more"):
        random_weights(network(), -1)


def test_a_graph_without_weights_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'conv1\.weight' has no value"):
        save_weights(network(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="cannot be written"):
        save_weights(random_weights(network(), 0), tmp_path / "nowhere" / "w.safetensors")
    assert not list(tmp_path.iterdir())
