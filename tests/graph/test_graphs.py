"""The shipped descriptions: they read, have the published sizes, and are found; docs/networks.md tells the truth."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.locate import find_graph, graphs_folder, shipped_graphs
from fusec.graph.read_yaml import read_description, read_yaml
from fusec.graph.weights import weight_shapes
from fusec.graph.yaml_reference import BEGIN, END, insert, reference
from fusec.graph.yaml_schema import LAYER_SPECS

# learnable parameters, batch norms' scales and shifts included, their statistics not
PUBLISHED = {
    "lenet5": 61_706,
    "mnist4": (9 + 1) * 6 + (54 + 1) * 16 + (144 + 1) * 8 + (72 + 1) * 4 + (484 + 1) * 10,
    "alexnet": 60_965_224,  # the Caffe model with two groups
    "alexnet_prefix": (363 + 1) * 48 + (1200 + 1) * 128,
    "vgg_e": 143_667_240,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "resnet18": 11_689_512,
    "artcnn_c4f16": 12_340,
    "artcnn_c4f32": 47_716,
    "fsrcnn_x2": 8_497 + 3,  # published with one number for the four biases of the tail
}

# tensor: shape at the usual image size
SHAPES = {
    "lenet5": {"pool1": "6x14x14", "pool2": "16x5x5", "fc3": "10x1x1"},
    "mnist4": {"conv2": "16x13x13", "conv4": "4x11x11", "fc": "10x1x1"},
    "alexnet": {"conv1": "96x55x55", "pool2": "256x13x13", "pool5": "256x6x6", "prob": "1000x1x1"},
    "alexnet_prefix": {"conv1": "48x55x55", "pool1": "48x27x27", "pool2": "128x13x13"},
    "vgg_e": {"pool1": "64x112x112", "conv3_1": "256x56x56", "pool5": "512x7x7", "prob": "1000x1x1"},
    "mobilenet_v1": {"conv0": "32x?x?", "pw13": "1024x?x?", "fc": "1000x1x1"},
    "mobilenet_v2": {"project1": "16x?x?", "head": "1280x?x?", "fc": "1000x1x1"},
    "resnet18": {"conv1": "64x?x?", "block5_2_relu": "512x?x?", "fc": "1000x1x1"},
    "artcnn_c4f16": {"skip_add": "16x?x?", "clip": "1x?x?"},
    "artcnn_c4f32": {"skip_add": "32x?x?", "clip": "1x?x?"},
    "fsrcnn_x2": {"conv2": "12x?x?", "depth_to_space": "1x?x?"},
}

# tensor: (height, width) for an open input of 224x224, and of 48x64
SIZES = {
    "mobilenet_v1": {"pw6": ((14, 14), (3, 4)), "pw13": ((7, 7), (2, 2))},
    "mobilenet_v2": {"conv0": ((112, 112), (24, 32)), "head": ((7, 7), (2, 2))},
    "resnet18": {"pool1": ((56, 56), (12, 16)), "block5_2_relu": ((7, 7), (2, 2))},
    "artcnn_c4f16": {"clip": ((448, 448), (96, 128))},
    "artcnn_c4f32": {"clip": ((448, 448), (96, 128))},
    "fsrcnn_x2": {"depth_to_space": ((448, 448), (96, 128))},
}

DOCS = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


def test_all_networks_are_shipped() -> None:
    assert set(shipped_graphs()) == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name: str) -> None:
    graph = read_description(find_graph(name)).graph
    shapes = {k: s for k, s in weight_shapes(graph).items() if not k.endswith((".running_mean", ".running_var"))}
    assert sum(map(math.prod, shapes.values())) == PUBLISHED[name]
    comment = find_graph(name).read_text(encoding="utf-8").split("\nname:")[0]
    assert f"{PUBLISHED[name]:,} parameters" in comment


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    graph = read_description(find_graph(name)).graph
    assert graph.name == name
    assert [i.name for i in graph.inputs] == ["image"]
    assert {tensor: str(graph.shapes[tensor]) for tensor in SHAPES[name]} == SHAPES[name]
    assert graph.outputs == (tuple(SHAPES[name])[-1],)


@pytest.mark.parametrize("name", SIZES)
def test_open_sizes(name: str) -> None:
    graph = read_description(find_graph(name)).graph
    for which, (height, width) in enumerate([(224, 224), (48, 64)]):
        sizes = graph.sizes(height, width)
        assert {t: sizes[t] for t in SIZES[name]} == {t: both[which] for t, both in SIZES[name].items()}


def test_the_names_of_lenet5() -> None:
    names = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten", "fc1", "relu3", "fc2", "relu4", "fc3"]
    assert [n.name for n in read_description(find_graph("lenet5")).graph.layers] == names


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_that_are_named_are_there_and_fit(name: str) -> None:
    description = read_description(find_graph(name))
    graph = read_yaml(find_graph(name), random_weights=None if description.weights else 0)
    assert all(n.params.keys() == {k.rsplit(".", 1)[1] for k in weight_shapes(graph) if k.rsplit(".", 1)[0] == n.name}
               for n in graph.layers)


# finding them


@pytest.mark.parametrize("word", ["lenet5", "lenet5.yaml"])
def test_a_name_finds_the_shipped_file(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lenet5").mkdir()  # a folder of that name, such as a build, does not stand in the way
    assert find_graph(word) == graphs_folder() / "lenet5.yaml"


def test_an_own_file_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lenet5.yaml").write_text("name: mine", encoding="utf-8")
    assert find_graph("lenet5.yaml").resolve() == tmp_path / "lenet5.yaml"
    assert find_graph(tmp_path / "lenet5.yaml") == tmp_path / "lenet5.yaml"


@pytest.mark.parametrize(("word", "hint"), [
    ("lenet", "did you mean 'lenet5'?"), ("mobilenetv2.yaml", "'mobilenet_v2'"), ("./lenet6.yaml", "'lenet5'"),
    ("zzz", "shipped: alexnet"), ("zz.yaml", "shipped: alexnet"), ("nets/lenet6.yaml", "there is no folder 'nets'"),
    ("nets/artcnn_c4f16.yaml", "the shipped network is 'artcnn_c4f16', without folder or ending"),
    ("./mine.yml", "'mine.yaml'"), ("a\0b", ""), ("x" * 5000, ""), (".", "name a .yaml")])
def test_a_wrong_name_is_told_the_nearest(word: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("name: mine", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        find_graph(word)
    assert hint in caught.value.problems[0].hint


# the page


def test_the_reference_is_that_of_the_schema() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert insert(text) == text, "run: python -m fusec.graph.yaml_reference docs/networks.md"
    assert text.index(BEGIN) < text.index(END)


def test_the_reference_has_every_key_with_its_words() -> None:
    text = reference()
    for kind, model in LAYER_SPECS.items():
        assert f"### {kind}\n" in text
        assert all(field.title and field.description for field in model.model_fields.values()), kind
    assert set(LAYER_SPECS) == set(L.LAYER_KINDS) - {"input"} | {"relu6", "dropout"}


def test_the_page_names_the_shipped_networks() -> None:
    opening = DOCS.read_text(encoding="utf-8").split("\n## ")[0]
    assert all(f"`{name}`" in opening for name in shipped_graphs())


def test_the_example_reads(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(example) == 1
    path = tmp_path / "example.yaml"
    path.write_text(example[0], encoding="utf-8")
    graph = read_yaml(path, random_weights=1)
    assert graph.sizes(30, 50)["sum"] == (15, 25)
    assert graph.outputs == ("prob",)
