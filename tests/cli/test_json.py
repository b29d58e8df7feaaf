"""`--json`: one object on standard output, with the keys that docs/commands.md lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.harness import SMALL, invoke_json, write
from tests.cli.test_help import ALL

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def documented() -> dict[str, set[str]]:
    """The keys of the table of each command's section."""
    sections = re.split(r"^###? fusec (.*)$", PAGE, flags=re.MULTILINE)[1:]
    tables = {}
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        first_cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
        tables[name] = set(re.findall(r"`(\w+)`", " ".join(first_cells)))
    return tables


@pytest.fixture
def net(tmp_path: Path) -> str:
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 12, 12), np.float32))
    return write(tmp_path, SMALL)


def test_the_page_has_every_command() -> None:
    assert documented().keys() == {*ALL, "plan --explore"}


def test_compile(net: str, tmp_path: Path) -> None:
    made = invoke_json("compile", net, "--target", "cpu", "--random-weights", 1, "-o", tmp_path / "out")
    assert made.keys() == documented()["compile"]
    assert (made["network"], made["target"], made["dtype"], made["fuse"]) == ("small", "cpu", "float32", "auto")
    assert made["directory"] == str(tmp_path / "out")
    assert [name for chain in made["chains"] for name in chain["layers"]] == ["conv1", "pool1", "conv2", "fc"]
    kernels = {k for chain in made["chains"] for k in chain["kernels"]}
    assert len(kernels) == made["kernels"]
    assert {p.stem for p in (tmp_path / "out" / "src").iterdir()} == kernels | {"fusec_pool"}
    assert set(made["seconds"]) == {"plan", "generate", "build", "total"}


def test_run(net: str, tmp_path: Path) -> None:
    made = invoke_json("run", net, tmp_path / "x.npy", "--target", "cpu", "--random-weights", 1)
    assert made.keys() == documented()["run"]
    [output] = made["outputs"]
    assert (output["name"], output["shape"], made["file"]) == ("fc", [2, 7], None)
    assert [len(row) for row in output["top"]] == [5, 5]
    assert output["top"][0][0]["score"] == output["max"]


def test_plan(net: str) -> None:
    made = invoke_json("plan", net, "--device", "h200")
    assert made.keys() == documented()["plan"]
    assert (made["device"], made["target"], made["arch"]) == ("h200", "cuda", "sm_90")
    assert sum(len(c["layers"]) for c in made["chains"]) == made["totals"]["layers"] == 4
    for chain in made["chains"]:
        assert {"tile", "stages", "extra", "scratch_bytes", "bytes_fused", "bytes_unfused", "seconds"} <= chain.keys()
        assert all({"footprint", "held", "fresh", "shared", "extra"} <= stage.keys() for stage in chain["stages"])


def test_plan_explore(net: str) -> None:
    made = invoke_json("plan", net, "--device", "h200", "--explore")
    assert made.keys() == documented()["plan --explore"]
    assert made["layers"] == ["conv1", "pool1", "conv2", "fc"]
    assert made["partitions"] == len(made["points"]) == 8
    for point in (*made["points"], *made["ends"].values()):
        assert point.keys() == {"groups", "bytes_moved", "buffer_bytes", "inner_buffer_bytes", "edge_buffer_bytes",
                                "extra_multiply_adds", "pareto"}


def test_explain(net: str, tmp_path: Path) -> None:
    made = invoke_json("explain", net, "--device", "h200", "-o", tmp_path / "page.html", "--svg", tmp_path / "figures")
    assert made.keys() == documented()["explain"]
    assert (made["network"], made["device"], made["target"], made["arch"]) == ("small", "h200", "cuda", "sm_90")
    assert made["file"] == str(tmp_path / "page.html")
    assert sorted(made["figures"]) == sorted(map(str, (tmp_path / "figures").iterdir()))


def test_bench(net: str) -> None:
    made = invoke_json("bench", net, "--target", "cpu", "--batch", 2, "--repeat", 3)
    assert made.keys() == documented()["bench"]
    times = {result["name"]: result for result in made["results"]}
    assert {"fused", "layer by layer", "reference"} <= times.keys()
    assert made["ratio"] == pytest.approx(times["layer by layer"]["median"] / times["fused"]["median"])
    assert made["inputs"] == {"picture": [2, 1, 12, 12]}
    assert made["equal"] is True
    assert 0 <= made["reference_difference"] < 1e-5
    assert made["random_weights"] == 0
    assert all(r["fastest"] <= r["median"] <= r["slowest"] and r["rounds"] == 3 for r in times.values())
    assert times["layer by layer"]["chains"] == 4


def test_compare(net: str) -> None:
    made = invoke_json("compare", net, "--target", "cpu", "--random-weights", 1)
    assert made.keys() == documented()["compare"]
    assert [x["layer"] for x in made["layers"]] == ["conv1+relu1", "pool1", "conv2", "fc", "output fc"]
    assert made["first_over"] is None
    assert made["tolerance"] == 1e-5
    judged = [x["relative"] if x["own"] is None else x["own"] for x in made["layers"]]
    assert max(judged) <= made["smallest_tolerance"] <= max(1.11 * max(judged), 1e-30)


def test_convert(net: str, tmp_path: Path) -> None:
    made = invoke_json("convert", "lenet5", tmp_path / "copy.yaml")
    assert made.keys() == documented()["convert"]
    assert made == {"network": "lenet5", "layers": 12, "file": str(tmp_path / "copy.yaml"),
                    "weights": str(tmp_path / "copy.safetensors"), "changed": {}}


def test_doctor() -> None:
    made = invoke_json("doctor")
    assert made.keys() == documented()["doctor"]
    for part in ("cpu", "cache", "cuda"):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{part}` |"))
        assert set(re.findall(r"`(\w+)`", row)) - {part} == made[part].keys()
    assert made["numpy"] == np.__version__
    assert "cpu" in made["usable"]


def test_cache(tmp_path: Path, environment: pytest.MonkeyPatch, net: str) -> None:
    environment.setenv("FUSEC_CACHE", str(tmp_path / "kept"))
    invoke_json("run", net, tmp_path / "x.npy", "--target", "cpu", "--random-weights", 1)
    listed: dict[str, Any] = invoke_json("cache", "ls")
    assert listed.keys() == documented()["cache ls"]
    assert listed["folder"] == str(tmp_path / "kept")
    assert listed["bytes"] == sum(e["bytes"] for e in listed["entries"]) > 0
    checked = invoke_json("cache", "verify")
    assert checked.keys() == documented()["cache verify"]
    assert (checked["checked"], checked["damaged"]) == (len(listed["entries"]), [])
    cleared = invoke_json("cache", "clear")
    assert cleared.keys() == documented()["cache clear"]
    assert cleared["removed"] == len(listed["entries"])
    assert invoke_json("cache", "ls")["entries"] == []
