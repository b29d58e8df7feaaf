"""ONNX files on the command line: every command takes them, whole or a part, and says at once what is not supported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fusec
from tests.cli.harness import invoke, invoke_json, run
from tests.onnx_models import by_onnxruntime, model, node, normal, saved

SMALL = model([node("Conv", ["x", "w", "b"], ["conv"], pads=[1, 1, 1, 1], name="first"), node("Relu", ["conv"], ["relu"]),
               node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]), node("Add", ["pool", "pool"], ["y"])],
              {"w": normal(4, 3, 3, 3), "b": normal(4)})
HALF = model([node("Conv", ["x", "w"], ["conv"], name="first"), node("Erf", ["conv"], ["e"], name="middle"),
              node("Relu", ["e"], ["relu"]), node("Loop", ["", "", "relu"], ["y"], name="last")], {"w": normal(4, 3, 1, 1)})
CPU = ("--target", "cpu")


@pytest.fixture
def net(tmp_path: Path) -> str:
    np.save(tmp_path / "x.npy", normal(2, 3, 8, 10))
    return str(saved(SMALL, tmp_path))


@pytest.fixture
def half(tmp_path: Path) -> str:
    return str(saved(HALF, tmp_path, "half.onnx"))


def test_every_command_takes_a_file(net: str, tmp_path: Path) -> None:
    shape = ("--shape", "1x3x8x10")
    assert invoke_json("plan", net, *shape, "--device", "cpu")["network"] == "net"
    invoke("explain", net, *shape, "--device", "cpu", "-o", tmp_path / "page.html")
    assert invoke_json("compile", net, *CPU, *shape, "-o", tmp_path / "built")["random_weights"] is None
    invoke("run", net, tmp_path / "x.npy", *CPU, "-o", tmp_path / "y.npy")
    assert invoke_json("bench", net, *CPU, *shape, "--repeat", 2)["equal"] is True
    assert invoke_json("compare", net, *CPU, *shape)["first_over"] is None
    invoke("tune", net, *CPU, *shape, "--time-limit", 0, "-o", tmp_path / "net.lock")
    x = np.load(tmp_path / "x.npy")
    (wanted,) = by_onnxruntime(SMALL, x)
    for made in (np.load(tmp_path / "y.npy"), fusec.load(tmp_path / "built")(x), fusec.compile(net, target="cpu")(x)):
        assert np.allclose(made, wanted, atol=1e-5)


def test_a_part_of_a_network(net: str, tmp_path: Path) -> None:
    assert len(invoke_json("plan", net, "--device", "cpu", "--from", "conv", "--to", "pool")["chains"]) >= 1
    invoke("run", net, tmp_path / "x.npy", *CPU, "--to", "relu", "-o", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").shape == (2, 4, 8, 10)
    result = invoke("plan", net, "--to", "rellu", code=3)
    assert "--to names 'rellu', which is no tensor of the network (did you mean 'relu'?)" in result.stderr
    assert "only a network in an ONNX file can be cut" in invoke("plan", "lenet5", "--to", "conv1", code=3).stderr


def test_a_compiled_folder_takes_no_part(net: str, tmp_path: Path) -> None:
    invoke("compile", net, *CPU, "-o", tmp_path / "built")
    assert "--to can be given with a network only" in invoke("run", tmp_path / "built", tmp_path / "x.npy", "--to", "a",
                                                             code=2).stderr


def test_plan_lists_every_node_that_is_not_supported(half: str) -> None:
    result = invoke("plan", half, code=3)
    lines = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert {"middle", "last"} <= set(lines)
    assert "2 nodes of 4 not supported" in result.stderr
    assert "--to    conv, relu" in result.stdout
    assert "--from  e" in result.stdout
    made = json.loads(invoke("plan", half, "--json", code=3).stdout)
    assert [(n["node"], n["operator"]) for n in made["unsupported"]] == [("middle", "Erf"), ("last", "Loop")]
    assert (made["nodes"], made["to"], made["from"]) == (4, ["conv", "relu"], ["e"])
    assert invoke_json("plan", half, "--from", "e", "--to", "relu")["totals"]["layers"] == 1


def test_compile_names_them_too_and_writes_nothing(half: str, tmp_path: Path) -> None:
    result = invoke("compile", half, *CPU, "-o", tmp_path / "built", code=3)
    assert result.stderr.count("error: ") == 2
    assert f"{half}: node 'middle' (Erf): " in result.stderr
    assert not (tmp_path / "built").exists()


def test_compare_against_onnxruntime(net: str, tmp_path: Path) -> None:
    made = invoke_json("compare", net, *CPU, "--input", tmp_path / "x.npy", "--against", "onnxruntime")
    assert made["against"] == "onnxruntime"
    assert [x["tensor"] for x in made["layers"]] == ["relu", "pool", "y", "y"]
    assert all(x["own"] is None and x["relative"] < 1e-5 for x in made["layers"])
    part = invoke_json("compare", net, *CPU, "--shape", "1x4x8x8", "--from", "relu", "--against", "onnxruntime")
    assert [x["tensor"] for x in part["layers"]] == ["pool", "y", "y"]
    result = invoke("compare", net, *CPU, "--input", tmp_path / "x.npy", "--against", "onnxruntime", "--tolerance", 0, code=4)
    assert "over the tolerance of 0; the first is" in result.stderr


def test_an_output_by_another_name_is_compared_too(tmp_path: Path) -> None:
    """Behind a flatten it is not the tensor that has the file's name here."""
    scores = model([node("Conv", ["x", "w"], ["conv"]), node("GlobalAveragePool", ["conv"], ["mean"]),
                    node("Flatten", ["mean"], ["flat"]), node("Softmax", ["flat"], ["y"])], {"w": normal(4, 3, 1, 1)})
    net = saved(scores, tmp_path, "scores.onnx")
    compared = invoke_json("compare", net, *CPU, "--shape", "2x3x4x4", "--against", "onnxruntime")["layers"]
    assert [x["layer"] for x in compared][-1].startswith("output ")
    invoke("compare", net, *CPU, "--shape", "2x3x4x4", "--against", "onnxruntime", "--tolerance", 0, code=4)


def test_onnxruntime_runs_onnx_files_alone() -> None:
    assert "onnxruntime runs ONNX files" in invoke("compare", "lenet5", *CPU, "--against", "onnxruntime", code=3).stderr


def test_convert(net: str, tmp_path: Path) -> None:
    invoke("convert", net, tmp_path / "out.yaml")
    x = np.load(tmp_path / "x.npy")
    assert np.allclose(fusec.compile(tmp_path / "out.yaml", target="cpu")(x), by_onnxruntime(SMALL, x)[0], atol=1e-5)
    assert "- {name: relu, type: relu}" in (tmp_path / "out.yaml").read_text()
    assert "ends in .yaml" in invoke("convert", net, tmp_path / "out.onnx", code=3).stderr


def test_a_name_that_is_nearly_that_of_a_file(net: str) -> None:
    assert "did you mean 'net.onnx'?" in invoke("plan", net.replace("net.onnx", "nett.onnx"), code=3).stderr


def test_in_a_process_of_its_own(half: str) -> None:
    out, err = run("plan", half, code=3)
    assert "middle" in out
    assert "Traceback" not in err


def test_plan_says_what_else_is_wrong_too(tmp_path: Path) -> None:
    proto = model([node("Add", ["x", "z"], ["a"]), node("Loop", ["", "", "a"], ["y"], name="last")],
                  inputs={"x": ("N", "C", "H", "W"), "z": ("N", 3, "H", "W")})
    result = invoke("plan", saved(proto, tmp_path), code=3)
    assert "input 'x': 'x' has an open number of channels" in result.stderr
    assert "last" in result.stdout
