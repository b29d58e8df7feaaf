"""`fusec compare`: it finds the layer that is wrong, wherever that is, and does not blame others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusec import pipeline
from fusec.cli.compare import _verdict
from fusec.cli.differences import Difference, Tolerance, difference_of, distances, tolerance_for
from fusec.cli.layerwise import layerwise, tensor_of
from fusec.graph.read_yaml import read_yaml
from fusec.targets.device import generic_host
from tests.cli.harness import SMALL, invoke, invoke_json, write

CPU = ("--target", "cpu", "--random-weights", 1)
BRANCHED = """name: branched
input: {name: picture, channels: 2}
layers:
  - {name: stem, type: conv2d, out_channels: 4, kernel: 3, padding: 1, bias: false}
  - {name: norm, type: batch_norm}
  - {name: relu, type: relu}
  - {name: drop, type: dropout}
  - {name: left, type: conv2d, out_channels: 4, kernel: 3, padding: 1}
  - {name: sum, type: add, inputs: [left, drop]}
  - {name: pool, type: max_pool2d, kernel: 2}
outputs: [sum, pool]
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    return write(tmp_path, SMALL)


@pytest.mark.parametrize("fuse", ["none", "all", "conv1..pool1"])
def test_sound_kernels_pass(net: str, fuse: str) -> None:
    made = invoke_json("compare", net, *CPU, "--fuse", fuse, "--batch", 3)
    assert made["first_over"] is None
    last = invoke("compare", net, *CPU, "--fuse", fuse, "--batch", 3).stdout.splitlines()[-1]
    assert last == "all 4 layers and 1 output are within the tolerance of 1e-05"
    assert made["inputs"] == {"picture": [3, 1, 12, 12]}
    assert {x["chain"] for x in made["layers"]} >= {"none": {"conv1", "pool1", "conv2", "fc"}, "all": {"conv1..fc"},
                                                    "conv1..pool1": {"conv1..pool1", "conv2", "fc"}}[fuse]


def test_names_of_the_description(tmp_path: Path) -> None:
    made = invoke_json("compare", write(tmp_path, BRANCHED), *CPU, "--shape", "1x2x9x14")
    tensors = {x["layer"]: x["tensor"] for x in made["layers"]}
    assert tensors == {"stem+relu": "drop", "left": "left", "sum": "sum", "pool": "pool", "output sum": "sum",
                       "output pool": "pool"}
    assert made["first_over"] is None
    assert {tuple(x["shape"][2:]) for x in made["layers"]} == {(9, 14), (4, 7)}


def test_open_sizes_get_a_small_image(tmp_path: Path) -> None:
    assert invoke_json("compare", write(tmp_path, BRANCHED), *CPU)["inputs"] == {"picture": [1, 2, 160, 240]}


def test_inputs_of_the_user(net: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((1, 1, 12, 12), np.nan, np.float32))
    made = invoke_json("compare", net, *CPU, "--input", tmp_path / "x.npy")
    assert made["inputs"] == {"picture": [1, 1, 12, 12]}
    assert all(x["relative"] == 0 for x in made["layers"] if x["layer"] == "fc")  # no number on both sides


@pytest.mark.parametrize(("chain", "layer"), [(0, "conv1+relu1"), (2, "conv2"), (3, "fc")])
def test_the_wrong_layer_is_found(net: str, environment: pytest.MonkeyPatch, chain: int, layer: str) -> None:
    real = pipeline.generate

    def generate(planned: pipeline.Plan) -> pipeline.Generated:
        made = real(planned)
        wrong = f"chain_{chain:04}"
        return replace(made, weights={k: v * np.float32(1.001 if k == wrong else 1) for k, v in made.weights.items()})

    environment.setattr(pipeline, "generate", generate)
    made = invoke_json("compare", net, *CPU, "--fuse", "none", code=4)
    assert made["first_over"] == layer
    over = [x["layer"] for x in made["layers"] if (x["relative"] if x["own"] is None else x["own"]) > 1e-5]
    assert over == [layer, "output fc"]
    assert 1e-4 < made["smallest_tolerance"] < 1e-2
    result = invoke("compare", net, *CPU, "--fuse", "none", code=4)
    assert f"the first is {layer}, which adds" in result.stderr
    assert result.stdout.count("  first over\n") == 1
    assert result.stdout.splitlines()[-1] == f"first over the tolerance of 1e-05: {layer}"
    assert invoke_json("compare", net, *CPU, "--fuse", "none", "--tolerance", 0.01)["first_over"] is None


def test_a_fault_outside_the_kernels_shows_at_the_output(net: str, environment: pytest.MonkeyPatch) -> None:
    """Weights that were wrong before they got to the kernels: no layer computes them badly."""
    from fusec.graph import simplify

    real = simplify.simplify

    def wrong(graph: object) -> simplify.Simplified:
        made = real(graph)  # type: ignore[arg-type]
        nodes = [replace(n, params={k: v * np.float32(1.001) for k, v in n.params.items()}) if n.name == "conv2" else n
                 for n in made.graph.nodes]
        return replace(made, graph=type(made.graph)(made.graph.name, nodes, made.graph.outputs))

    environment.setattr(pipeline, "simplify", wrong)
    message = invoke("compare", net, *CPU, code=4).stderr
    assert "output fc differs by" in message
    assert "conv2 is the first whose whole difference is over" in message


def test_every_layer_has_a_kernel_and_chains_stay_fused(tmp_path: Path) -> None:
    graph = read_yaml(Path(write(tmp_path, BRANCHED)), random_weights=1)
    planned = pipeline.plan(graph, generic_host(), "stem..sum")
    opened = layerwise(planned)
    assert [c.chain.names for c in opened.chains] == [("stem",), ("stem", "left"), ("stem", "left", "sum"), ("pool",)]
    assert opened.simplified.graph.outputs == ("stem", "left", "sum", "pool")
    assert [tensor_of(planned, name) for name in opened.simplified.graph.outputs] == ["drop", "left", "sum", "pool"]


# ---- differences


def test_differences_are_by_the_largest_value() -> None:
    wanted = np.array([[0.0, -4.0], [1.0, 2.0]]).reshape(1, 1, 2, 2)
    found = difference_of("a", "t", "c", (wanted + np.array([[0.0, 0.5], [0.0, -1.0]])).astype(np.float32), wanted, 0.25)
    assert (found.peak, found.absolute, found.relative, found.own, found.place) == (4.0, 1.0, 0.25, 0.0625, (0, 0, 1, 1))
    zero = difference_of("a", "t", "c", np.full((1, 2), 0.5), np.zeros((1, 2, 1, 1)))
    assert (zero.peak, zero.relative, zero.own) == (0.0, 0.5, None)


def test_infinities_and_no_numbers() -> None:
    inf, nan = np.inf, np.nan
    assert distances(np.array([inf, -inf, nan, nan, inf, 1.0]), np.array([inf, -inf, nan, 1.0, -inf, inf])).tolist() == [
        0, 0, 0, inf, inf, inf]


@pytest.mark.parametrize(("relative", "rounded"), [(0.0, 0.0), (1.2e-6, 1.2e-6), (1.21e-6, 1.3e-6), (9.91e-7, 1e-6), (3.0, 3.0),
                                                    (np.inf, np.inf)])
def test_the_smallest_tolerance_has_two_digits(relative: float, rounded: float) -> None:
    assert tolerance_for(relative) == rounded >= relative


def test_the_verdict_says_whose_fault_it_is() -> None:
    def row(layer: str, relative: float, own: float | None) -> Difference:
        return Difference(layer, layer, "", (1,), 1.0, relative, relative, (0,), own)

    allowed = Tolerance(0.01, 0.01)
    rows = [row("a", 0.001, 0.001), row("b", 0.02, 0.015), row("output b", 0.02, None)]
    assert "2 tensors over the tolerance of 0.01; the first is b" in _verdict(rows, rows[1:], allowed, "float32")
    beyond = [*rows[:2], replace(row("c", np.inf, np.inf), beyond=1e5), row("output c", np.inf, None)]
    assert _verdict(beyond, beyond[1:], Tolerance(0.01, 0.02), "float16") == (
        "3 tensors over the tolerance of 0.01 for a layer, 0.02 for an output; activation beyond float16's range at layer c: "
        "peak 1e+05")


def test_outputs_have_a_tolerance_of_their_own() -> None:
    layer, output = (Difference("a", "a", "", (1,), 1.0, 0.005, 0.005, (0,), own) for own in (0.005, None))
    assert not layer.within(Tolerance(0.002, 0.01))
    assert output.within(Tolerance(0.002, 0.01))
