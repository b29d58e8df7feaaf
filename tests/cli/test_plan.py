"""`fusec plan`: what it shows, for any device, without weights, compiler or GPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fusec.graph.locate import shipped_graphs
from fusec.pipeline import read
from fusec.plan import partition
from fusec.runtime.cuda import gpu
from fusec.targets.device import DEVICES
from tests.cli.harness import OPEN, SMALL, invoke, invoke_json, write
from tests.cli.test_json import PAGE

GRAPHS = Path(__file__).parents[2] / "graphs"


def test_the_tables(tmp_path: Path) -> None:
    lines = invoke("plan", write(tmp_path, SMALL), "--device", "h200", "--fuse", "conv1..conv2").stdout.splitlines()
    header = next(line for line in lines if line.startswith("chain  ") and "tile" in line)
    assert " ".join(header.split()) == "chain layers tile overlap tiles multiply-adds extra scratch fused unfused time"
    row = next(line for line in lines if line.startswith("0 conv1..conv2"))
    assert row.split()[2] == "3"
    stages = [line.split() for line in lines if line.startswith("0  ")]
    assert [s[1] for s in stages if s[1] != "load"] == ["conv1+relu1", "pool1", "conv2"]
    assert "4 layers in 2 chains" in "\n".join(lines)


def test_rows_of_a_strip_are_shown_as_they_are_held(tmp_path: Path) -> None:
    words = ("plan", write(tmp_path, OPEN % (3, 3)), "--device", "t4")
    lines = invoke(*words).stdout.splitlines()
    assert " ".join(next(i for i in lines if "footprint" in i).split()) == \
        "chain stage kind footprint shared multiply-adds extra extra part"
    words = ("plan", "resnet18", "--device", "cpu", "--shape", "1x3x224x224")
    chains = invoke_json(*words)["chains"]
    lines = invoke(*words).stdout.splitlines()
    rows = lines[next(i for i, row in enumerate(lines) if "footprint" in row) + 1:]
    expected = [[f"{s['held']} row{'s' * (s['held'] > 1)}, {s['fresh']} new"] if c["step"] else []
                for c in chains for s in c["stages"]]
    assert [re.findall(r"\d+ rows?, \d+ new", row) for row in rows] == expected
    assert any(expected) and not all(expected)


def test_overlap_and_extra_work_are_counted(tmp_path: Path) -> None:
    """Tiles of two convolutions in one chain: the first computes a border of one pixel again, no more and no less."""
    net = write(tmp_path, "name: n\ninput: {name: x, channels: 1}\nlayers:\n"
                + "".join(f"  - {{name: c{i}, type: conv2d, out_channels: 8, kernel: 3, padding: 1}}\n" for i in range(2)))
    made = invoke_json("plan", net, "--device", "t4", "--fuse", "all", "--shape", "1x1x512x512")
    [chain] = made["chains"]
    _, channels, height, width = chain["tile"]
    first = next(stage for stage in chain["stages"] if stage["name"] == "c0")
    assert channels == 8
    assert first["footprint"] == [8, height + 2, width + 2]
    assert first["shared"] == 8 * ((height + 2) * (width + 2) - height * width)
    assert chain["extra"] == first["extra"] > 0
    assert chain["bytes_fused"] < chain["bytes_unfused"]
    assert (made["batch"], made["height"], made["width"]) == (1, 512, 512)


@pytest.mark.parametrize("name", shipped_graphs())
def test_weights_are_not_needed(name: str) -> None:
    graph = read(name, missing="blank")
    assert all(not value.any() for node in graph.layers for key, value in node.params.items() if key != "running_var")


@pytest.mark.parametrize("device", [*DEVICES, "cpu", "sm_90"])
def test_any_device(tmp_path: Path, device: str) -> None:
    assert "expected" in invoke("plan", write(tmp_path, OPEN % (3, 3)), "--device", device).stdout


EXPLORE = ("--device", "h200", "--explore")


def test_every_partition_of_the_vgg_prefix() -> None:
    """The figures of Alwani et al., MICRO 2016; tests/plan/test_explore.py derives them."""
    made = invoke_json("plan", GRAPHS / "vgg_e.yaml", "--layers", "conv1_1..conv3_1", *EXPLORE)
    ends = made["ends"]
    assert (made["partitions"], len(made["points"]), made["left_out"]) == (64, 64, 0)
    assert round(ends["layer by layer"]["bytes_moved"] / 2**20, 2) == 86.32
    assert round(ends["all fused"]["bytes_moved"] / 2**20, 3) == 3.637
    assert round(ends["all fused"]["buffer_bytes"] / 2**10) == 362
    [b] = [p for p in made["points"] if p["groups"] == [[0, 1, 2], [3], [4, 5], [6]]]
    assert (round(b["bytes_moved"] / 2**20, 2), round(b["buffer_bytes"] / 2**10), b["pareto"]) == (25.07, 118, True)
    ratios = {w["side"]: w["ratio"] for w in made["by_tile"]}
    assert [float(f"{ratios[side]:.3g}") for side in (1, 7, 14, 28)] == [13.9, 1.76, 1.3, 1.09]


def test_every_partition_of_the_alexnet_prefix() -> None:
    made = invoke_json("plan", GRAPHS / "alexnet_prefix.yaml", *EXPLORE)
    ends = made["ends"]
    assert round(ends["layer by layer, pools merged"]["bytes_moved"] / 2**10, 1) == 961.7
    assert round(ends["all fused"]["bytes_moved"] / 2**10, 1) == 688.4
    assert round(ends["all fused"]["extra_multiply_adds"] / 1e6, 1) == 678.2
    assert made["partitions"] == 8
    assert invoke_json("plan", "alexnet", "--layers", "conv1..pool5", *EXPLORE)["partitions"] == 128


def test_exploring_shows_what_is_planned(tmp_path: Path) -> None:
    net = write(tmp_path, SMALL)
    text = invoke("plan", net, "--fuse", "conv1..pool1", *EXPLORE).stdout
    rows = {line[:28].strip(): line.split()[-1] for line in text.splitlines() if line}
    assert rows["as planned for h200"] == "conv1..pool1"
    assert rows["layer by layer"] == "none"
    assert rows["all fused"] == "conv1..fc"
    made = invoke_json("plan", net, "--fuse", "conv1..pool1", "--tile", "2X3", *EXPLORE)
    assert made["points"][made["chosen"]]["groups"] == [[0, 1], [2], [3]]
    assert made["points"][made["chosen"]]["bytes_moved"] == made["planned"]["bytes_moved"]
    assert made["tile"] == [2, 3]


def test_the_table_of_partitions_is_not_too_wide() -> None:
    said = invoke("plan", "resnet18", *EXPLORE).stdout.splitlines()
    assert max(len(line.rstrip()) for line in said) <= 160
    assert any(re.search(r"\.\.\w+,… \d+ more …,\w", line) for line in said)
    assert not [line for line in said if line.startswith("counted")]
    assert any(line.startswith("counted") and "norm1, norm2, prob with" in line
               for line in invoke("plan", "alexnet", *EXPLORE).stdout.splitlines())


def test_a_size_that_the_network_fixes_is_not_called_open() -> None:
    for words in ((), ("--explore",)):
        said = invoke("plan", "lenet5", "--shape", "4x1x28x28", "--device", "h200", *words).stdout
        assert "open" not in said
        [line] = [line for line in said.splitlines() if line.startswith("planned for")]
        assert " of 28x28" in line


def test_the_example_of_the_page_is_what_is_printed() -> None:
    [example] = re.findall(r"^```text\n\$ fusec (.*)\n(?s:(.*?))^```$", PAGE, re.MULTILINE)
    printed = invoke(*example[0].split()).stdout
    assert [line.rstrip() for line in printed.splitlines()] == example[1].splitlines()


def test_a_range_of_unknown_layers(tmp_path: Path) -> None:
    error = invoke("plan", write(tmp_path, SMALL), "--layers", "conv1..conv3", *EXPLORE, code=3).stderr
    assert "layers: unknown layer 'conv3' (did you mean" in error


def test_an_unknown_device_has_a_nearest(tmp_path: Path) -> None:
    net = write(tmp_path, SMALL)
    for word, meant in (("h20", "h200"), ("CPU", "cpu"), ("sm90", "sm_90"), ("SM_90", "sm_90")):
        assert f"did you mean '{meant}'?" in invoke("plan", net, "--device", word, code=3).stderr


@pytest.mark.parametrize(("word", "hint"), [
    ("sm90", "did you mean 'sm_90'?"), ("compute_75", "did you mean 'sm_75'?"), ("9.0", "did you mean 'sm_90'?"),
    ("H100", "did you mean 'sm_90'?"), ("sm_91", "one of sm_75, "), ("sm_100", "one of sm_75, "), ("", "one of sm_75, "),
])
def test_an_unknown_architecture_is_told_what_may_be_meant(word: str, hint: str) -> None:
    assert f"unknown architecture '{word}' ({hint}" in invoke("compile", "lenet5", "--arch", word, code=3).stderr


def test_a_network_without_anything_to_compute(tmp_path: Path) -> None:
    net = write(tmp_path, "name: same\ninput: {name: x, channels: 1}\nlayers: [{name: y, type: identity}]")
    for words in ((), ("--explore",)):
        said = invoke("plan", net, *words, code=3).stderr
        assert said == "error: same: the network only passes its input on: there is nothing to plan\n"
    compiled = invoke("compile", net, "--target", "cpu", "-o", tmp_path / "built")
    assert "nothing is fused: no layer computes anything" in compiled.stdout


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(gpu, "available", lambda: False)
    result = invoke("plan", write(tmp_path, SMALL), "--target", "cuda")
    assert "there is no GPU here; planned for h200" in result.stderr
    assert "planned for h200" in result.stdout


def test_a_shape_the_network_does_not_take(tmp_path: Path) -> None:
    assert "has channels 1, not 3" in invoke("plan", write(tmp_path, SMALL), "--shape", "1x3x12x12", code=3).stderr


TWO_OUTPUTS = """name: both
input: {name: picture, channels: 1, height: 8, width: 8}
layers: [{name: first, type: relu}, {name: second, type: softmax}]
outputs: [first, second]
"""
ONE_LAYER = "name: one\ninput: {name: picture, channels: 1}\nlayers: [{name: only, type: relu}]"


@pytest.mark.parametrize(("net", "fuse", "reason"), [
    (SMALL, "auto", "the time model expects no chain to be faster than its layers one by one"),
    (TWO_OUTPUTS, "auto", "no chain of two layers or more is legal and fits"),
    (TWO_OUTPUTS, "all", "no chain of two layers or more is legal and fits"),
    (SMALL, "none", "as asked"),
    (SMALL, "conv1", "as asked"),
    (ONE_LAYER, "none", "there is one layer"),
    (SMALL, "all", None),
])
def test_where_nothing_is_fused_it_says_why(net: str, fuse: str, reason: str | None, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "doubt_of", lambda device: 1e9)  # no chain promises that much
    said = invoke("plan", write(tmp_path, net), "--device", "t4", "--fuse", fuse).stdout.splitlines()
    assert [line for line in said if "is fused" in line] == ([] if reason is None else [f"nothing is fused: {reason}"])
