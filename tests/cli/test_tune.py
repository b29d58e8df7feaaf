"""`fusec tune` and `fusec compile --locked`, end to end on the CPU."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import fusec
from fusec.plan import timing
from fusec.plan.lock_file import read_lock
from fusec.tuning import candidates, measure, whole
from tests.cli.harness import OPEN, SMALL, invoke, invoke_json, start, write
from tests.cli.test_json import documented

CPU = ("--target", "cpu")


@pytest.fixture(autouse=True)
def quick(environment: pytest.MonkeyPatch) -> None:
    """Fewer candidates and rounds than a user gets."""
    environment.setattr(candidates, "PER_BATCH", 2)
    environment.setattr(whole, "BUDGET", 0.2)
    environment.setattr(measure, "BUDGET", 0.1)


@pytest.fixture
def net(tmp_path: Path) -> str:
    return write(tmp_path, SMALL)


def sources(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "src").iterdir())}


@pytest.mark.parametrize(("name", "layers"), [("lenet5", 7), ("mnist4", 5)])
def test_a_shipped_network(name: str, layers: int, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.chdir(tmp_path)
    made = invoke_json("tune", name, *CPU, "--time-limit", 3)
    assert made.keys() == documented()["tune"]
    assert (made["network"], made["target"], made["file"]) == (name, "cpu", f"{name}.cpu.lock")
    assert (made["batches"], made["interrupted"]) == ([1024, 1], False)
    assert 0 < made["chains_measured"] <= made["chains_promising"]
    assert made["measured"] > 0
    results = {r["name"]: r for r in made["results"]}
    assert {"untuned", "layer by layer"} <= results.keys() <= {"untuned", "layer by layer", "tuned"}
    assert results["layer by layer"]["chains"] == layers
    assert results[made["chosen"]]["ratios"] == [1.0, 1.0]
    assert min(results["untuned"]["ratios"]) >= 1 / 1.01  # never slower than untuned
    lock = read_lock(tmp_path / made["file"])
    assert sorted(n for c in lock.chains for n in c.layers) == sorted({n for c in lock.chains for n in c.layers})
    assert len(lock.chains) == results[made["chosen"]]["chains"]
    compiled = invoke_json("compile", name, *CPU, "--locked", "-o", tmp_path / "built")
    assert compiled["locked"] == made["file"]
    assert [c["layers"] for c in compiled["chains"]] == [list(c.layers) for c in lock.chains]


def test_a_lockfile_is_obeyed_byte_for_byte(net: str, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """Twice, and by a planner that has changed its mind; the results are those of any other build."""
    made = invoke_json("tune", net, *CPU, "--time-limit", 2, "--batch", 3, "--random-weights", 1)
    assert made["file"] == str(tmp_path / "net.cpu.lock")
    assert made["batches"] == [3]
    kept = Path(made["file"]).read_bytes()
    compile_it = ("compile", net, *CPU, "--random-weights", 1, "--locked")
    invoke(*compile_it, "-o", tmp_path / "one")
    invoke(*compile_it, made["file"], "-o", tmp_path / "two")
    environment.setattr(timing, "CPU_EFFICIENCY", 1e-3)
    environment.setattr(timing, "CPU_STAGE", 1e6)
    invoke(*compile_it, "-o", tmp_path / "three")
    wanted = sources(tmp_path / "one")
    assert sources(tmp_path / "two") == wanted
    assert sources(tmp_path / "three") == wanted
    model = fusec.compile(net, target="cpu", random_weights=1, locked=made["file"])
    assert {s.filename: s.text.encode() for s in model.sources} == wanted
    x = np.random.default_rng(0).random((3, 1, 12, 12), np.float32)
    assert np.array_equal(model(x), fusec.compile(net, target="cpu", random_weights=1)(x))
    assert Path(made["file"]).read_bytes() == kept


def test_another_run_goes_on(net: str, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FUSEC_CACHE", str(tmp_path / "cache"))
    first = invoke_json("tune", net, *CPU, "--time-limit", 0, "--batch", 2)
    assert (first["measured"], first["known"], first["chains_measured"]) == (0, 0, 0)
    second = invoke_json("tune", net, *CPU, "--batch", 2)
    assert second["known"] == 0
    assert second["chains_measured"] == second["chains_promising"] == first["chains_promising"]
    third = invoke_json("tune", net, *CPU, "--batch", 2)
    assert (third["measured"], third["known"]) == (0, second["measured"])
    fourth = invoke_json("tune", net, *CPU, "--batch", 2, "--fresh", "--time-limit", 1)
    assert (fourth["measured"] > 0, fourth["known"]) == (True, 0)


def test_what_is_printed(net: str, tmp_path: Path) -> None:
    said = invoke("tune", net, *CPU, "--time-limit", 1, "-o", tmp_path / "a.lock").stdout
    rows = [line.split("  ")[0] for line in said.splitlines()]
    assert {"untuned", "layer by layer"} <= set(rows)
    place, chosen = said.splitlines()[-1].removeprefix("written to ").split(": ")
    assert place == str(tmp_path / "a.lock")
    for name in {"untuned", "layer by layer"} - {chosen}:
        ratio = r"\d+\.\d\d times as fast at batch"
        assert re.search(rf"^{chosen} against {name}: {ratio} 1024, {ratio} 1$", said, re.MULTILINE)
    assert "# " in (tmp_path / "a.lock").read_text("utf-8")


def test_open_sizes(tmp_path: Path) -> None:
    net = write(tmp_path, OPEN % (2, 3))
    made = invoke_json("tune", net, *CPU, "--time-limit", 1, "--shape", "2x2x16x20")
    assert (made["batches"], made["height"], made["width"]) == ([2], 16, 20)
    lock = read_lock(Path(made["file"]))
    assert (lock.nominal.batches, lock.nominal.height, lock.nominal.width) == ((2,), 16, 20)
    invoke("compile", net, *CPU, "--locked", "-o", tmp_path / "built")


def test_an_interruption_of_planning_says_that_nothing_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fusec.cli.tune.survey", interrupt)
    path = tmp_path / "n.lock"
    said = invoke("tune", write(tmp_path, SMALL), *CPU, "-o", path, code=130).stderr
    assert "interrupted while planning: nothing was measured" in said
    assert not path.exists()


@pytest.mark.slow
def test_an_interruption_keeps_the_best(tmp_path: Path) -> None:
    """SIGINT to the process itself, as a terminal sends it, once the log has something."""
    process = start("tune", "lenet5", *CPU, "-o", tmp_path / "lenet5.lock", "--json", FUSEC_CACHE=str(tmp_path / "cache"))
    log, deadline = tmp_path / "cache" / "measurements.jsonl", time.monotonic() + 120
    while not log.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "note: interrupted" in err
    made = json.loads(out)
    assert made["interrupted"] is True
    assert made["chains_measured"] < made["chains_promising"]
    assert made["measured"] == len(log.read_text("utf-8").splitlines()) > 0
    assert read_lock(tmp_path / "lenet5.lock").chains
    assert "layer by layer" not in [r["name"] for r in made["results"]]


@pytest.mark.parametrize(("words", "said"), [
    (["-o", "x.yaml"], "a lockfile's name ends in .lock (write -o x.lock)"),
    (["-o", "none/x.lock"], "its folder does not exist"),
    (["--shape", "1x3x12x12"], "input 'picture' has channels 1, not 3"),
])
def test_bad_input_is_said_before_anything_is_measured(words: list[str], said: str, net: str, tmp_path: Path,
                                                       environment: pytest.MonkeyPatch) -> None:
    environment.chdir(tmp_path)
    assert said in invoke("tune", net, *CPU, *words, code=3).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.yaml"]


def test_refusals_of_compile(net: str, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.chdir(tmp_path)
    assert "net.cpu.lock: there is no such lockfile" in invoke("compile", net, *CPU, "--locked", code=3).stderr
    made = invoke_json("tune", net, *CPU, "--time-limit", 0, "--shape", "1x1x12x12")
    assert "--fuse and --locked exclude" in invoke("compile", net, *CPU, "--fuse", "all", "--locked", code=2).stderr
    text = Path(made["file"]).read_text("utf-8")
    edited = tmp_path / "edited.lock"
    edited.write_text(text.replace("tile: [1, ", "tile: [0, "), encoding="utf-8")
    assert re.search(r"edited\.lock:\d+:\d+: 'tile'", invoke("compile", net, *CPU, "--locked", edited, code=3).stderr)
    other = invoke("compile", "mnist4", *CPU, "--locked", made["file"], code=3).stderr
    assert re.search(r"net\.cpu\.lock:\d+:1: the lockfile is for network 'small' .*, but here is network 'mnist4'", other)
    assert not (tmp_path / "build").exists()
