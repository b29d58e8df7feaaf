"""`fusec bench`: what it compares and checks, and the timing it does that with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusec import pipeline
from fusec.cli import bench
from fusec.tuning import timing
from fusec.tuning.timing import Call, alternate
from tests.cli.harness import NO_WEIGHTS, SMALL, invoke, invoke_json, write

CPU = ("--target", "cpu", "--repeat", 2)


@pytest.fixture
def net(tmp_path: Path) -> str:
    return write(tmp_path, SMALL)


def test_the_table(net: str) -> None:
    result = invoke("bench", net, *CPU, "--batch", 3)
    assert "input    3x1x12x12" in result.stdout
    assert "equal bit for bit, within " in result.stdout
    rows = {line.split("  ")[0] for line in result.stdout.splitlines()}
    assert {"fused", "layer by layer", "reference"} <= rows
    assert "times as fast as layer by layer" in result.stdout.splitlines()[-1]
    assert "random ones of seed 0" in result.stderr


def test_weights_of_the_network_are_used() -> None:
    made = invoke_json("bench", "lenet5", *CPU, "--batch", 2)
    assert made["random_weights"] is None


def test_ways_that_are_the_same_are_timed_once(tmp_path: Path) -> None:
    made = invoke_json("bench", write(tmp_path, NO_WEIGHTS), *CPU, "--shape", "1x2x8x8")
    assert [r["name"] for r in made["results"]] == ["fused", "layer by layer", "reference"]
    assert made["inputs"] == {"picture": [1, 2, 8, 8]}


def test_a_slow_reference_is_left_out(net: str, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(bench, "REFERENCE_SECONDS", 0.0)
    made = invoke_json("bench", net, *CPU, "--batch", 2)
    assert "left out" in made["reference_skipped"]
    assert made["reference_difference"] is None
    assert "reference" not in [r["name"] for r in made["results"]]
    assert "note: the reference is left out" in invoke("bench", net, *CPU, "--batch", 2).stderr


def spoil(environment: pytest.MonkeyPatch, wanted: Callable[[pipeline.Plan], bool], factor: float) -> None:
    """Let all weights be off by `factor` wherever `wanted` says so of the plan."""
    real = pipeline.generate

    def generate(planned: pipeline.Plan) -> pipeline.Generated:
        made = real(planned)
        if not wanted(planned):
            return made
        return replace(made, weights={k: v * np.float32(factor) for k, v in made.weights.items()})

    environment.setattr(pipeline, "generate", generate)


def test_schedules_that_differ_by_a_bit_are_found(net: str, environment: pytest.MonkeyPatch) -> None:
    spoil(environment, lambda p: len(p.chains) == 4, 1 + 2**-20)
    message = invoke("bench", net, *CPU, "--batch", 2, code=4).stderr.splitlines()[-1]
    assert message.startswith("error: 'fc' differs between fused and layer by layer in ")


def test_schedules_that_agree_on_something_wrong_are_found(net: str, environment: pytest.MonkeyPatch) -> None:
    spoil(environment, lambda p: True, 1.5)
    message = invoke("bench", net, *CPU, "--batch", 2, code=4).stderr.splitlines()[-1]
    assert "differ from the reference by" in message


# ---- timing


class Machine:
    """Calls that take known times on a clock of their own."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now = 0.0

    def call(self, name: str, seconds: float) -> Call:
        def run() -> None:
            self.log.append(name)
            self.now += seconds
        return run

    def clock(self, call: Call, times: int) -> float:
        began = self.now
        for _ in range(times):
            call()
        return self.now - began


def test_all_take_turns() -> None:
    machine, seen = Machine(), []
    slow, quick = machine.call("s", 0.5), machine.call("q", 0.25)
    times = alternate([(slow, machine.clock, None), (quick, machine.clock, 2)], 3, lambda *done: seen.append(done))
    assert "".join(machine.log) == "ssqq" + "sq" + "qs" + "s"  # once unseen, once to measure; then rounds, every other reversed
    assert [t.samples for t in times] == [(0.5,) * 3, (0.25,) * 2]
    assert [t.median for t in times] == [0.5, 0.25]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_short_calls_are_repeated_in_a_sample() -> None:
    machine = Machine()
    [timed] = alternate([(machine.call("a", 2**-10), machine.clock, None)], 2, lambda *done: None)
    assert timed.calls == 6  # of 1 / 1024 second, for 5 ms
    assert timed.samples == (2**-10,) * 2


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5, 10), (0.001, timing.MOST), (100.0, timing.FEWEST)])
def test_rounds_fill_the_budget(seconds: float, rounds: int) -> None:
    machine: Any = Machine()
    calls = [(machine.call("a", seconds), machine.clock, None), (machine.call("rare", 50.0), machine.clock, 1)]
    assert len(alternate(calls, None, lambda *done: None)[0].samples) == rounds
