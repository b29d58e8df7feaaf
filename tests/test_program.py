"""The program of a network: which of its outputs are vectors to the user, and how tensors between kernels lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.errors import InternalError
from fusec.graph.layers import Input
from fusec.graph.read_yaml import read_yaml
from fusec.graph.simplify import simplify
from fusec.pipeline import plan
from fusec.program import layouts_of, make_program
from fusec.targets.device import DEVICES, generic_host, in_precision
from tests.descriptions import network, write
from tests.small_networks import conv
from tests.small_networks import network as small

IMAGE = "{name: p, type: max_pool2d, kernel: 2}"
VECTOR = "{name: v, type: linear, out_features: 4}"


def vectors(folder: Path, *layers: str) -> list[str]:
    """The outputs that are vectors."""
    graph = read_yaml(write(folder, network(*layers)), random_weights=0)
    return [port.name for port in make_program(graph, simplify(graph), generic_host(), "none", (), {}).outputs if port.flat]


@pytest.mark.parametrize(("layer", "of_images", "of_vectors"), [
    ("{name: o, type: flatten}", ["o"], ["o"]),
    ("{name: o, type: linear, out_features: 3}", ["o"], ["o"]),
    ("{name: o, type: relu}", [], ["o"]),
    ("{name: o, type: batch_norm}", [], ["o"]),
    ("{name: o, type: softmax}", [], ["o"]),
    ("{name: o, type: dropout}", [], ["o"]),
    ("{name: o, type: conv2d, out_channels: 2, kernel: 1}", [], []),
    ("{name: o, type: global_avg_pool2d}", [], []),
    ("{name: o, type: upsample, factor: 2}", [], []),
])
def test_what_makes_a_vector_and_what_keeps_one(layer: str, of_images: list[str], of_vectors: list[str],
                                                tmp_path: Path) -> None:
    assert vectors(tmp_path, IMAGE, layer) == of_images
    assert vectors(tmp_path, VECTOR, layer) == of_vectors


@pytest.mark.parametrize("kind", ["add", "mul", "concat"])
def test_one_image_among_the_inputs_makes_an_image(kind: str, tmp_path: Path) -> None:
    other, image = "{name: w, type: tanh}", "{name: g, type: conv2d, out_channels: 4, kernel: 8, inputs: image}"
    assert vectors(tmp_path, VECTOR, other, f"{{name: o, type: {kind}, inputs: [v, w]}}") == ["o"]
    assert vectors(tmp_path, VECTOR, image, f"{{name: o, type: {kind}, inputs: [v, g]}}") == []


def test_long_and_branching_tails_take_no_time(tmp_path: Path) -> None:
    doubled = [f"{{name: d{i}, type: add, inputs: [{source}, {source}]}}" for i, source in
               enumerate(["v", *(f"d{i}" for i in range(1500))])]
    assert vectors(tmp_path, VECTOR, *doubled) == ["d1500"]


def test_layouts_are_those_of_the_kernels_buffers() -> None:
    """Tensors of few channels and the network's own stay NCHW; kernels that disagree are a fault of ours."""
    graph = small(Input(3, 8, 8), a=conv(12), few=conv(4), b=conv(20), y=conv(12))
    half = in_precision(DEVICES["h200"], "float16")
    wide, narrow = ([v.schedule for c in plan(graph, device, "none", (1, 3, 8, 8)).chains for v in c.variants]
                    for device in (half, generic_host()))
    assert layouts_of(wide) == {"a": "NC8HW8", "b": "NC8HW8"}
    assert layouts_of(narrow) == {"a": "NHWC", "b": "NHWC", "few": "NHWC"}
    with pytest.raises(InternalError, match="'a' is NC8HW8 to one kernel and NHWC to another"):
        layouts_of([wide[0], *(s for s in narrow if s.chain.inputs == ("a",))])
