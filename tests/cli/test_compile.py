"""`fusec compile`: the folder it writes, names of anybody's in it, dumps, and two processes at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusec
from fusec.errors import InputError
from fusec.graph import reference
from fusec.graph.read_yaml import read_yaml
from tests.cli.harness import OPEN, SMALL, invoke, invoke_json, run, start, write

CPU = ("--target", "cpu", "--random-weights", 1)
HOSTILE = ('"; system("x"); //', "*/ #include <evil> /*", "{{ 7*7 }}{% raw %}", "[red]${IFS}`id`[/red]", "../../../up",
           "%s%n\\")


@pytest.fixture
def net(tmp_path: Path) -> str:
    return write(tmp_path, SMALL)


def test_the_folder_runs_with_and_without_fusec(net: str, tmp_path: Path) -> None:
    invoke("compile", net, *CPU, "-o", tmp_path / "built")
    x = np.random.default_rng(0).random((3, 1, 12, 12), np.float32)
    made = fusec.load(tmp_path / "built")(x)
    [wanted] = reference.run(read_yaml(Path(net), random_weights=1), x).values()
    assert np.allclose(made, wanted.reshape(3, 7), rtol=1e-4, atol=1e-5)
    np.save(tmp_path / "x.npy", x)
    program = ("import sys, numpy; sys.modules['fusec'] = None; import built\n"
               "numpy.save('y.npy', built.model(numpy.load('x.npy')))")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), made)


def test_what_is_printed(net: str, tmp_path: Path) -> None:
    text = invoke("compile", net, *CPU, "--fuse", "none", "-o", tmp_path / "built").stdout
    assert "target       cpu (" in text
    assert "dtype        float32" in text
    assert "4 layers in 4 chains, " in text
    assert "\n  nothing is fused: as asked\n  conv1+relu1\n" in text
    assert f"written  {tmp_path / 'built'}\n" in text


def test_a_shape_is_planned_for_and_others_run(tmp_path: Path) -> None:
    net, shape = write(tmp_path, OPEN % (3, 4)), ("--shape", "2x3x40x56")
    assert "planned for  1 image of 1088x1920\n" in invoke("compile", net, *CPU, "-o", tmp_path / "usual").stdout
    assert "planned for  2 images of 40x56\n" in invoke("compile", net, *CPU, *shape, "-o", tmp_path / "built").stdout
    made = invoke_json("compile", net, *CPU, *shape, "-o", tmp_path / "built")
    assert (made["batches"], made["height"], made["width"]) == ([2], 40, 56)
    planned = invoke_json("plan", net, "--target", "cpu", *shape)
    assert [c["tiles"] for c in made["chains"]] == [[c["tile"]] for c in planned["chains"]]
    x = np.random.default_rng(0).random((1, 3, 61, 9), np.float32)
    in_memory = fusec.compile(net, target="cpu", random_weights=1, shape=(2, 3, 40, 56))
    assert [v.tile for launch in in_memory.program.launches for v in launch.variants] == [tuple(made["chains"][0]["tiles"][0])]
    assert np.array_equal(fusec.load(tmp_path / "built")(x), fusec.load(tmp_path / "usual")(x))
    assert np.array_equal(in_memory(x), fusec.load(tmp_path / "usual")(x))


@pytest.mark.parametrize(("shape", "said"), [
    ((1, 3), r"\(batch, channels, height, width\), not \(1, 3\)"),
    ("1x1x12x12", "not '1x1x12x12'"),
    ((1, 1, 12, 12.0), "width must be a whole number"),
    ((0, 1, -1, 12), "batch must be 1 to .*\n.*height must be 1 to"),
    ((1, 1, 12, 13), "has width 12, not 13"),
])
def test_shapes_that_cannot_be_planned_for(net: str, shape: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fusec.compile(net, target="cpu", random_weights=1, shape=shape)


def test_the_manifest_has_the_plan_in_words(net: str, tmp_path: Path) -> None:
    invoke("compile", net, *CPU, "--fuse", "conv1..pool1", "-o", tmp_path / "built")
    plan = json.loads((tmp_path / "built" / "manifest.json").read_text("utf-8"))["plan"]
    assert [line.partition(";")[0] for line in plan] == ["0: conv1+relu1 pool1", "1: conv2", "2: fc"]


def test_the_folder_is_named_after_the_network_when_none_is_given(net: str, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("compile", net, *CPU)
    assert (tmp_path / "build" / "net" / "manifest.json").is_file()
    invoke("compile", net, *CPU, "--fuse", "none")  # takes the place of the first
    assert len(json.loads((tmp_path / "build" / "net" / "manifest.json").read_text("utf-8"))["program"]["launches"]) == 4


def test_a_network_without_weights_gets_random_ones_and_that_is_said(net: str, tmp_path: Path) -> None:
    result = invoke("compile", net, "--target", "cpu", "-o", tmp_path / "built", "--json")
    assert result.stderr == f"note: {net} has no weights: random ones of seed 0 are used\n"
    assert json.loads(result.stdout)["random_weights"] == 0
    assert json.loads((tmp_path / "built" / "manifest.json").read_text("utf-8"))["random_weights"] == 0
    x = np.random.default_rng(0).random((2, 1, 12, 12), np.float32)
    np.save(tmp_path / "x.npy", x)
    assert invoke_json("run", tmp_path / "built", tmp_path / "x.npy")["random_weights"] == 0
    seeded = fusec.compile(net, target="cpu", random_weights=0)
    assert np.array_equal(fusec.load(tmp_path / "built")(x), seeded(x))
    ran = invoke("run", net, tmp_path / "x.npy", "--target", "cpu", "-o", tmp_path / "y.npy")
    assert "random ones of seed 0" in ran.stderr
    assert np.array_equal(np.load(tmp_path / "y.npy"), seeded(x))
    with pytest.raises(InputError, match=r"no weights.*random_weights=SEED"):
        fusec.compile(net, target="cpu")


def test_weights_of_the_network_are_used_in_silence(tmp_path: Path) -> None:
    result = invoke("compile", "lenet5", "--target", "cpu", "-o", tmp_path / "built", "--json")
    assert (result.stderr, json.loads(result.stdout)["random_weights"]) == ("", None)
    assert json.loads((tmp_path / "built" / "manifest.json").read_text("utf-8"))["random_weights"] is None


def test_cuda_is_compiled_without_a_gpu(net: str, tmp_path: Path) -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    made = invoke_json("compile", net, "--target", "cuda", "--arch", "sm_90", "--random-weights", 1, "-o", tmp_path / "built")
    assert (made["target"], made["arch"]) == ("cuda", "sm_90")
    assert {p.suffix for p in (tmp_path / "built" / "lib").iterdir()} == {".cubin"}
    assert invoke_json("compile", net, "--arch", "sm_80", "--random-weights", 1, "-o", tmp_path / "other")["arch"] == "sm_80"


def test_names_never_reach_the_source(tmp_path: Path) -> None:
    quoted = [json.dumps(name) for name in HOSTILE]
    text = (f"name: {quoted[0]}\ninput: {{name: {quoted[1]}, channels: 1, height: 12, width: 12}}\nlayers:\n"
            f"  - {{name: {quoted[2]}, type: conv2d, out_channels: 4, kernel: 3}}\n"
            f"  - {{name: {quoted[3]}, type: relu}}\n"
            f"  - {{name: {quoted[5]}, type: max_pool2d, kernel: 2}}\n"
            f"  - {{name: {quoted[4]}, type: conv2d, out_channels: 3, kernel: 3}}\n")
    net = write(tmp_path, text)
    made = invoke("compile", net, *CPU, "-o", tmp_path / "built").stdout
    assert HOSTILE[2] + "+" + HOSTILE[3] in made
    sources = [p for folder in ("src", "_fusec") for p in (tmp_path / "built" / folder).rglob("*") if p.is_file()]
    sources.append(tmp_path / "built" / "__init__.py")
    assert len([p for p in sources if p.suffix == ".cpp"]) >= 2
    for path in sources:
        content = path.read_text("utf-8")
        assert [name for name in HOSTILE if name in content] == [], path
    assert invoke("plan", net, "--target", "cpu").stdout.count(HOSTILE[3]) >= 1
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 12, 12), np.float32))
    invoke("run", tmp_path / "built", tmp_path / "x.npy", "-o", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as results:
        assert results.files == ["output_0"]  # its name has a path's separators


def test_two_processes_at_once(net: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    processes = [start("compile", net, *CPU, "-o", tmp_path / f"built{i}", FUSEC_CACHE=str(cache)) for i in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    x = np.ones((2, 1, 12, 12), np.float32)
    assert np.array_equal(fusec.load(tmp_path / "built0")(x), fusec.load(tmp_path / "built1")(x))
    run("cache", "verify", FUSEC_CACHE=str(cache))


def test_dumps_of_every_step(net: str, tmp_path: Path) -> None:
    run("compile", net, *CPU, "-o", tmp_path / "built", FUSEC_DUMP=str(tmp_path / "dump"))
    names = sorted(p.name for p in (tmp_path / "dump").iterdir())
    assert names[:6] == ["00-graph.txt", "01-simplified.txt", "02-partition.txt", "03-schedule.txt", "04-mapping.txt",
                         "05-program.json"]
    assert names[6].startswith("06-kernel-")
    assert names[6].endswith(".cpp")
    assert all((tmp_path / "dump" / name).stat().st_size for name in names)


STEPS = ["read", "simplify", "partition", "plan", "verify", "map", "emit", "build", "link"]
DUMPS = ["00-graph.txt", "01-simplified.txt", "02-partition.txt", "03-schedule.txt", "04-mapping.txt", "05-program.json",
         "06-kernel-0000.cpp", "07-compiler-fusec_pool.txt"]


@pytest.mark.parametrize(("level", "shown"), [(0, 0), (1, 0), (2, 3), (3, 5), (4, 7), (5, 8)])
def test_each_level_adds_to_the_one_before(net: str, tmp_path: Path, environment: pytest.MonkeyPatch, level: int,
                                           shown: int) -> None:
    environment.setenv("FUSEC_DEBUG", str(level))
    told = invoke("compile", net, *CPU, "-o", tmp_path / "built").stderr
    assert re.findall(r"^(\w+) +\d+\.\d ms$", told, re.MULTILINE) == (STEPS if level else [])
    assert [name for name in DUMPS if f"== {name}\n" in told] == DUMPS[:shown]


def test_the_compiler_is_heard_when_it_is_asked(net: str, tmp_path: Path) -> None:
    for said in ("compiled without a warning", "not compiled: the cache has it"):
        run("compile", net, *CPU, "-o", tmp_path / "built", FUSEC_DUMP=str(tmp_path / "dump"),
            FUSEC_CACHE=str(tmp_path / "cache"))
        assert (tmp_path / "dump" / "07-compiler-fusec_pool.txt").read_text() == f"{said}\n"
