"""`fusec plan`: what it shows, for any device, without weights, compiler or GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.graph.locate import shipped_graphs
from fusec.pipeline import read
from fusec.runtime.cuda import gpu
from fusec.targets.device import DEVICES
from tests.cli.harness import OPEN, SMALL, invoke, invoke_json, write


def test_the_tables(tmp_path: Path) -> None:
    lines = invoke("plan", write(tmp_path, SMALL), "--device", "h200", "--fuse", "conv1..conv2").stdout.splitlines()
    header = next(line for line in lines if line.startswith("chain  ") and "tile" in line)
    assert " ".join(header.split()) == "chain layers tile overlap tiles multiply-adds extra scratch fused unfused time"
    row = next(line for line in lines if line.startswith("0 conv1..conv2"))
    assert row.split()[2] == "3"
    stages = [line.split() for line in lines if line.startswith("0  ")]
    assert [s[1] for s in stages if s[1] != "load"] == ["conv1+relu1", "pool1", "conv2"]
    assert "4 layers in 2 chains" in "\n".join(lines)


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
    assert first["overlap"] == 8 * ((height + 2) * (width + 2) - height * width)
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


def test_an_unknown_device_has_a_nearest(tmp_path: Path) -> None:
    assert "did you mean 'h200'?" in invoke("plan", write(tmp_path, SMALL), "--device", "h20", code=3).stderr


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(gpu, "available", lambda: False)
    result = invoke("plan", write(tmp_path, SMALL), "--target", "cuda")
    assert "there is no GPU here; planned for h200" in result.stderr
    assert "planned for h200" in result.stdout


def test_a_shape_the_network_does_not_take(tmp_path: Path) -> None:
    assert "has channels 1, not 3" in invoke("plan", write(tmp_path, SMALL), "--shape", "1x3x12x12", code=3).stderr
