"""Descriptions that are written are read back as the same network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.locate import find_graph, shipped_graphs
from fusec.graph.read_yaml import read_description, read_yaml
from fusec.graph.weights import random_weights
from fusec.graph.write_yaml import LONGEST, with_plain_names, write_yaml
from tests.strategies import float_graphs


def assert_same(one: LayerGraph, other: LayerGraph) -> None:
    assert [(n.name, n.layer, n.inputs) for n in one.nodes] == [(n.name, n.layer, n.inputs) for n in other.nodes]
    assert one.outputs == other.outputs
    for a, b in zip(one.nodes, other.nodes, strict=True):
        assert all(np.array_equal(a.params[key], b.params[key]) for key in a.params)


@pytest.mark.parametrize("name", [n for n in shipped_graphs() if n not in ("vgg_e", "alexnet")])
def test_shipped_networks(name: str, tmp_path: Path) -> None:
    graph = random_weights(read_description(find_graph(name)).graph, 1)
    assert write_yaml(graph, tmp_path / "net.yaml") == {}
    assert_same(graph, read_yaml(tmp_path / "net.yaml"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.safetensors", "net.yaml"]


@settings(max_examples=60)
@given(graph=float_graphs())
def test_random_networks(graph: LayerGraph, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("written") / "net.yaml"
    changed = write_yaml(graph, path)
    read = read_yaml(path)
    assert [n.layer for n in graph.nodes] == [n.layer for n in read.nodes]
    if not changed:
        assert_same(graph, read)


@pytest.mark.parametrize("name", ["/block/conv_1", "true", "null", "1e5", "a: b", "# c", "ä 中", "- x", "'quoted\"", "{x}", "~",
                                  "no"])
def test_names_that_yaml_could_take_for_something_else(name: str, tmp_path: Path) -> None:
    graph = LayerGraph("net", [Node("x", L.Input(1)), Node(name, L.Relu(), ("x",)), Node("y", L.Sigmoid(), (name,))])
    assert write_yaml(graph, tmp_path / "net.yaml") == {}
    assert_same(graph, read_yaml(tmp_path / "net.yaml"))


def test_names_that_a_description_cannot_have(tmp_path: Path) -> None:
    long, odd = "n" * 300, "line\nbreak"
    nodes = [Node("x", L.Input(1)), Node(long, L.Relu(), ("x",)),
             Node("n" * 299, L.Relu(), (long,)), Node(odd, L.Relu(), ("n" * 299,))]
    graph = LayerGraph("net", nodes, [odd])
    changed = write_yaml(graph, tmp_path / "net.yaml")
    assert changed.keys() == {long, "n" * 299, odd}
    assert len(set(changed.values())) == 3
    assert all(len(new) <= LONGEST and new.isprintable() for new in changed.values())
    assert_same(with_plain_names(graph)[0], read_yaml(tmp_path / "net.yaml"))


def test_what_a_description_cannot_say_leaves_nothing_behind(tmp_path: Path) -> None:
    wide = L.Conv2d((2000, 1), out_channels=1, bias=False)
    graph = random_weights(LayerGraph("net", [Node("x", L.Input(1)), Node("y", wide, ("x",))]), 1)
    with pytest.raises(InputError):
        write_yaml(graph, tmp_path / "net.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    graph = LayerGraph("net", [Node("x", L.Input(1)), Node("y", L.Relu(), ("x",))])
    with pytest.raises(InputError, match="cannot be written"):
        write_yaml(graph, tmp_path / "none" / "net.yaml")
