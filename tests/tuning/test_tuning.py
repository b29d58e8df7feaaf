"""Tuning with machines whose times are known: the fastest is found, nothing is measured twice, interruptions lose nothing."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusec import pipeline
from fusec.errors import AccuracyError, MissingError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.pipeline import Plan
from fusec.plan.cost import Nominal
from fusec.plan.lock import Decision
from fusec.plan.partition import Seconds
from fusec.runtime.elements import offered, widened
from fusec.runtime.workload import arrange
from fusec.schedule.ir import Chain, Tile
from fusec.targets.device import DEVICES, Device, generic_host, host, in_precision
from fusec.tuning import candidates as module
from fusec.tuning import tune, whole
from fusec.tuning.candidates import Job, Survey, Trial, jobs, survey, trials
from fusec.tuning.choose import choose
from fusec.tuning.inputs import random_inputs
from fusec.tuning.kernels import generate_all, inputs, single
from fusec.tuning.log import Log
from fusec.tuning.measure import Bench, Measured, Turn
from fusec.tuning.timing import Timed
from fusec.tuning.tune import SINGLE, TUNED, UNTUNED, decide, measure_all
from fusec.tuning.whole import Entrant, time_plans, winner
from tests.small_networks import conv, max_pool, network

CPU = generic_host()
NET = network(L.Input(2, 8, 8), a=conv(4), b=conv(4), pool=max_pool(2, 2), c=conv(3), d=L.Relu())


@cache
def surveyed(batches: tuple[int, ...] = (8, 1), graph: LayerGraph = NET, device: Device = CPU) -> Survey:
    return survey(pipeline.plan(graph, device).simplified.graph, device, Nominal(batches))


def ignore(done: int, total: int) -> None:
    """A progress that nobody looks at."""


class Machine:
    """Measures at once, by a table of seconds; counts what it is asked, and is interrupted when told to be."""

    def __init__(self, seconds: Callable[[Job, Trial], Seconds], survey: Survey, interrupt: int | None = None) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._seconds, self._survey, self._interrupt = seconds, survey, interrupt

    def __call__(self, job: Job) -> Sequence[Measured]:
        if len(self.asked) == self._interrupt:
            raise KeyboardInterrupt
        self.asked.append(job.chain.names)
        found = trials(job.chain, self._survey.device, self._survey.nominal)
        return tuple(Measured(job.chain, c, self._seconds(job, c)) for c in found)


# ---- what is tried


def test_the_favourites_come_first_then_the_layers_then_what_has_a_chance() -> None:
    known = surveyed()
    order = [job.chain.names for job in jobs(known)]
    assert len(order) == len(set(order))
    favourites = [known.chain(i).names for i in known.favourites]
    assert order[:len(favourites)] == favourites
    singles = [(n,) for n in known.order]
    assert set(order[:len(favourites) + len(singles)]) >= set(singles)
    assert set(order) <= {known.chain(i).names for i in known.prices}


def test_chains_without_a_chance_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model says of the others: one interval is made the best there is, then the worst."""
    known = surveyed()

    def tried(factor: float) -> list[tuple[str, ...]]:
        prices = {i: tuple(factor * s for s in p) if i == (0, 3) else p for i, p in known.prices.items()}
        return [job.chain.names for job in jobs(replace(known, prices=prices, favourites=known.singles))]

    assert known.chain((0, 3)).names in tried(0.01)
    assert known.chain((0, 3)).names not in tried(100)
    monkeypatch.setattr(module, "CHANCE", math.inf)
    assert len(tried(100)) == len(set(known.keys.values()))


def test_equal_chains_are_tried_once() -> None:
    """Layers at the ends are not equal to those between: the network's own tensors have a layout of their own."""
    known = surveyed(graph=network(L.Input(4, 8, 8), a=conv(4), b=conv(4), c=conv(4), d=conv(4)))
    tried = [job.chain.names for job in jobs(known)]
    assert [names for names in tried if len(names) == 1] == [("a",), ("b",), ("d",)]


def test_what_is_measured_of_one_chain_serves_its_equals() -> None:
    """Their inputs have other names."""
    known = surveyed(graph=network(L.Input(4, 8, 8), a=conv(4), b=conv(4), c=conv(4), d=conv(4)))
    machine = Machine(lambda job, c: (1.0 / c.decision.tile.height,) * 2 if len(job.chain.names) == 1 else (9.0, 9.0), known)
    chosen = choose(known, measure_all(known, machine, lambda: False, ignore).results)
    assert ("c",) not in machine.asked
    made = {item.chain.output: [Decision.of(v.schedule) for v in item.variants] for item in chosen}
    assert [d.tile for d in made["c"]] == [d.tile for d in made["b"]]
    assert [d.staged for d in made["c"]] == [("b",)] * len(made["c"])


@pytest.mark.parametrize("device", [CPU, DEVICES["h200"]], ids=lambda d: d.name)
def test_trials_of_a_chain(device: Device) -> None:
    known = surveyed(device=device)
    chain = known.chain((0, 3))
    found = trials(chain, device, known.nominal)
    assert len(found) == len(set(found)) > 2
    schedules = [c.decision.schedule(chain, device) for c in found]  # none is infeasible
    assert [Decision.of(s).tile for s in schedules] == [c.decision.tile for c in found]
    plan = pipeline.plan(NET, device, "all", (8, 2, 8, 8))
    alone = trials(plan.chains[0].chain, device, plan.nominal)
    assert Decision.of(plan.chains[0].variants[0].schedule) == alone[0].decision  # the planner's own choice is the first


# ---- what is chosen


def intervals(count: int) -> Iterator[list[tuple[int, int]]]:
    """Every partition of `count` layers."""
    for cuts in itertools.product((False, True), repeat=count - 1):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [count]
        yield list(zip([0, *ends], ends, strict=False))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), batches=st.sampled_from([(8, 1), (4,)]))
def test_the_true_optimum_is_found(seed: int, batches: tuple[int, ...]) -> None:
    """Every chain and tile has a time of its own: what is chosen is the best of all partitions and trials."""
    known = surveyed(batches)

    def seconds(job: Job, trial: Trial) -> Seconds:
        drawn = random.Random(repr((seed, job.chain.names, trial)))
        return tuple(len(job.chain.names) * drawn.uniform(0.5, 1.5) for _ in batches)

    found = measure_all(known, Machine(seconds, known), lambda: False, ignore)
    assert (found.done, found.interrupted) == (found.total, False)
    best = {k: tuple(map(min, zip(*(m.seconds for m in ms), strict=True))) for k, ms in found.results.items()}
    singles = [best[known.keys[i, i + 1]] for i in range(len(known.order))]
    totals = [sum(column) for column in zip(*singles, strict=True)]

    def price(parts: list[tuple[int, int]]) -> float:
        sums = []
        for s, e in parts:
            seconds = best.get(known.keys.get((s, e)))
            if seconds is None or any(t > sum(c) for t, c in zip(seconds, zip(*singles[s:e], strict=True), strict=True)):
                return math.inf
            sums.append(seconds)
        return sum(sum(column) / total for column, total in zip(zip(*sums, strict=True), totals, strict=True))

    chosen = choose(known, found.results)
    cuts = list(itertools.accumulate((len(c.chain.names) for c in chosen), initial=0))
    assert price(list(itertools.pairwise(cuts))) == pytest.approx(min(price(p) for p in intervals(len(known.order))))
    for item in chosen:
        measured = found.results[next(known.keys[i] for i in known.prices if known.chain(i).names == item.chain.names)]
        fastest = [min(measured, key=lambda m: m.seconds[i]).trial for i in range(len(batches))]
        made = [Trial(Decision.of(v.schedule), v.tiles) for v in item.variants]
        assert set(made) <= set(fastest)
        assert len(made) == len(set(fastest)) or len(made) == 1
        assert [v.min_blocks == 0 for v in item.variants] == [False] * (len(made) - 1) + [True]


def measured(tile: Tile, *seconds: float) -> Measured:
    return Measured(Chain(NET, ("a",)), Trial(Decision(tile, ("x",)), None), seconds)


@pytest.mark.parametrize(("large", "small", "batch"), [
    ((10.0, 4.0), (18.0, 2.0), 3),  # 8 ahead at 8, 2 behind at 1: even after a fifth of the way
    ((10.0, 2.5), (10.5, 2.0), 5), ((1.0, 2.0), (1.0, 1.0), 8)])
def test_the_variant_is_chosen_by_where_the_times_meet(large: Seconds, small: Seconds, batch: int) -> None:
    known = surveyed()
    results = {key: (measured(Tile(1, 4, 4, 4), *large), measured(Tile(1, 4, 8, 8), *small))
               for interval, key in known.keys.items() if interval == (0, 1)}
    first = choose(replace(known, favourites=known.singles), results)[0]
    assert [(str(v.schedule.tile), v.min_blocks) for v in first.variants] == [("1x4x4x4", 4 * batch), ("1x4x8x8", 0)]


def test_batches_that_make_the_same_tiles_get_one_variant() -> None:
    known = surveyed()
    results = {known.keys[0, 1]: (measured(Tile(8, 4, 8, 8), 1.0, 9.0), measured(Tile(1, 4, 8, 8), 8.0, 1.0))}
    first = choose(replace(known, favourites=known.singles), results)[0]
    assert [(str(v.schedule.tile), v.min_blocks) for v in first.variants] == [("1x4x8x8", 0)]  # 8 + 1 beats 1 + 9


def test_without_measurements_the_planner_decides() -> None:
    plan = pipeline.plan(NET, CPU)
    known = survey(plan.simplified.graph, CPU, plan.nominal)
    assert pipeline.to_lock(replace(plan, chains=choose(known, {}))) == pipeline.to_lock(plan)


def test_the_favourites_stand_until_all_layers_are_known() -> None:
    known = surveyed()
    machine = Machine(lambda job, c: (1.0, 1.0) if len(job.chain.names) == 1 else (99.0, 99.0), known)
    todo = len(known.favourites)
    part = measure_all(known, machine, lambda: len(machine.asked) >= todo, ignore)
    assert [c.chain.names for c in choose(known, part.results)] == [known.chain(i).names for i in known.favourites]
    whole = measure_all(known, machine, lambda: False, ignore)
    assert [c.chain.names for c in choose(known, whole.results)] == [(n,) for n in known.order]


# ---- stopping and going on


def test_an_interruption_keeps_what_was_found() -> None:
    """After any job; and a whole network comes of it, however little is known."""
    known = surveyed()
    total = len(list(jobs(known)))
    assert total > len(known.order)
    for count in range(total):
        machine = Machine(lambda job, c: (1.0, 1.0), known, interrupt=count)
        found = measure_all(known, machine, lambda: False, ignore)
        assert (found.done, found.interrupted) == (count, True)
        layers = [n for item in choose(known, found.results) for n in item.chain.names]
        assert sorted(layers) == sorted(known.order)


class Stopwatch:
    """Times calls without calling them: a thousandth of a second more for each; interrupted after some turns."""

    def __init__(self, interrupt: int | None = None) -> None:
        self.timed = self.turns = 0
        self._interrupt = interrupt

    def __call__(self, calls: Sequence[Turn]) -> Sequence[Timed]:
        if self.turns == self._interrupt:
            raise KeyboardInterrupt
        self.turns += 1
        self.timed += len(calls)
        return [Timed((1e-3 * (self.timed + i),), 1) for i in range(len(calls))]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan for this machine, whose kernels go to a folder of the test."""
    monkeypatch.setenv("FUSEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "PER_BATCH", 1)
    graph = network(L.Input(1, 6, 6), a=conv(2), b=conv(2))
    return pipeline.plan(graph, host(), shape=(2, 1, 6, 6))


def test_a_second_run_measures_only_what_is_missing(small: Plan, tmp_path: Path) -> None:
    known = survey(small.simplified.graph, small.device, small.nominal)
    everything = Stopwatch()
    whole = measure_all(known, Bench(small, Log(tmp_path / "other"), everything), lambda: False, ignore)
    first = Stopwatch(interrupt=1)
    part = measure_all(known, Bench(small, Log(tmp_path), first), lambda: False, ignore)
    assert (part.done, part.interrupted) == (1, True)
    second = Stopwatch()
    bench = Bench(small, Log(tmp_path), second)
    rest = measure_all(known, bench, lambda: False, ignore)
    assert rest.done == whole.done == rest.total > 2
    assert first.timed + second.timed == everything.timed
    assert (bench.known, bench.measured) == (first.timed, second.timed)
    third = Stopwatch()
    again = measure_all(known, Bench(small, Log(tmp_path), third), lambda: False, ignore)
    assert third.timed == 0
    assert [[(m.trial, m.seconds) for m in ms] for ms in again.results.values()] == \
        [[(m.trial, m.seconds) for m in ms] for ms in rest.results.values()]
    fresh = Stopwatch()
    measure_all(known, Bench(small, Log(tmp_path, fresh=True), fresh), lambda: False, ignore)
    assert fresh.timed == everything.timed


def test_a_measurement_is_of_one_kernel_machine_and_size(small: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, watch = Log(tmp_path), Stopwatch()
    job = next(iter(jobs(survey(small.simplified.graph, small.device, small.nominal))))
    Bench(small, log, watch)(job)
    before = watch.timed
    monkeypatch.setenv("FUSEC_THREADS", "1")
    Bench(small, log, watch)(job)
    monkeypatch.setenv("FUSEC_THREADS", "2")
    larger = replace(small, nominal=Nominal((3,)))
    Bench(larger, log, watch)(replace(job, expected=job.expected))
    assert watch.timed == 3 * before


def test_a_kernel_is_timed_as_often_as_it_runs(small: Plan, tmp_path: Path) -> None:
    """The clock's calls run the kernel for real, several times each; the log has the seconds of one launch."""
    log = Log(tmp_path)
    known = survey(small.simplified.graph, small.device, small.nominal)
    [found] = Bench(small, log)(next(iter(jobs(known))))
    [row] = [json.loads(line) for line in log.path.read_text("utf-8").splitlines()]
    assert row["seconds"] == found.seconds[0]
    assert row["rounds"] >= 3
    assert row["launches"] * row["seconds"] > 1e-3
    assert 0 < row["seconds"] < 0.01


@pytest.mark.parametrize("device", [CPU, DEVICES["h200"]], ids=lambda d: d.name)
def test_a_single_kernel_is_a_program_of_its_own(device: Device) -> None:
    """It has the text it has in the network, and the sizes of the chain's tensors, on both targets."""
    plan = pipeline.plan(NET, device, "a..b", (4, 2, 8, 8))
    [pair, *_] = plan.chains
    wanted = pipeline.generate(plan).program.launches[0].variants[0].entry
    made = generate_all(plan, pair.chain, trials(pair.chain, device, plan.nominal))
    assert made.program.launches[0].variants[0].entry == wanted
    for index, variant in enumerate(made.program.launches[0].variants):
        alone = single(made, index, 3)
        assert {s.entry for s in alone.sources} - {"fusec_pool"} == {variant.entry}
        arrays = inputs(made, 4)
        work = arrange(alone.program, 4, tuple(a.shape[2:] for a in arrays))
        assert [a.shape for a in arrays] == [(4, 2, 8, 8)]
        assert [step.variant.entry for step in work.steps] == [variant.entry] * 3
        assert work.shapes["b"] == (4, 4, 8, 8)
        assert work.arena == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_single_kernel_reads_and_writes_whole_planes(dtype: str) -> None:
    """Of a tensor between kernels its arrays have every channel that the kernel touches; it makes no more tiles for that."""
    device = in_precision(DEVICES["h200"], dtype)
    plan = pipeline.plan(network(L.Input(3, 8, 8), a=conv(12), b=conv(20), c=conv(6)), device, "none", (4, 3, 8, 8))
    stored = {}
    for item in plan.chains:
        made = generate_all(plan, item.chain, trials(item.chain, device, plan.nominal))
        for index, variant in enumerate(made.program.launches[0].variants):
            program = single(made, index, 2).program
            work = arrange(program, 4, ((8, 8),))
            [array] = inputs(made, 4)
            assert array.shape == work.shapes[item.chain.inputs[0]]
            tiles = -(-item.chain.shapes[item.chain.output].channels // variant.tile[1])
            images, rows, columns = (-(-e // t) for e, t in zip((4, 8, 8), (variant.tile[0], *variant.tile[2:]), strict=True))
            assert [step.tiles for step in work.steps] == [images * tiles * rows * columns] * 2
            stored |= {t: shape[1] for t, shape in work.shapes.items()}
    assert stored == {"x": 3, "a": 16, "b": 24, "c": 6}
    whole_network = pipeline.generate(plan).program
    assert whole_network.layouts == {"a": "NC8HW8", "b": "NC8HW8"}
    assert arrange(whole_network, 4, ((8, 8),)).arena == 4 * (16 + 24) * 8 * 8


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_inputs_are_numbers_of_the_type(dtype: str) -> None:
    [array] = random_inputs(NET, Nominal((3,)), dtype).values()
    assert array.dtype == np.float32
    assert np.array_equal(widened(offered(array, dtype)), array)
    assert 0 <= array.min() < array.max() <= 1
    assert np.array_equal(array, random_inputs(NET, Nominal((3,)), dtype)["x"])


# ---- the log


def test_the_log_keeps_what_is_whole(tmp_path: Path) -> None:
    log = Log(tmp_path / "deep")
    assert log.get("a") is None
    log.add("a", 0.5, kernel="k")
    log.add("b", 0.25)
    log.add("a", 0.125)
    with log.path.open("a", encoding="utf-8") as file:
        file.write('[]\n{"key": "b"}\n{"key": "b", "seconds": "x"}\n{"key": "b", "seconds": -1.0}\n{"key": "c", "sec')
    again = Log(tmp_path / "deep")
    assert [again.get(k) for k in "abc"] == [0.125, 0.25, None]
    again.add("c", 2.0)  # on a line of its own
    assert Log(tmp_path / "deep").get("c") == 2.0
    assert Log(tmp_path / "deep", fresh=True).get("c") is None


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingError, match="measurements"):
        Log(tmp_path / "file").add("a", 1.0)


# ---- whole networks


def entrants(small: Plan, **seconds: Seconds) -> dict[str, Entrant]:
    return {name: Entrant(small, s) for name, s in seconds.items()}


@pytest.mark.parametrize(("tuned", "wins"), [
    ((0.5, 1.0), True), ((1.0, 1.0), False), ((0.5, 1.5), False), ((1.005, 0.9), True)])
def test_the_tuned_plan_has_to_win(tuned: Seconds, wins: bool, small: Plan) -> None:
    """At one batch it may be a tie, but never slower."""
    chosen = winner(entrants(small, untuned=(1.0, 1.0), tuned=tuned, single=(3.0, 2.0)), "untuned")
    assert (chosen == "tuned") is wins


def test_the_whole_networks_are_timed(small: Plan) -> None:
    single = pipeline.plan(small.original, small.device, "none", (2, 1, 6, 6))
    made = time_plans({"one": small, "other": single}, ignore)
    assert all(0 < e.seconds[0] < 0.1 and len(e.seconds) == 1 for e in made.values())


def test_plans_that_disagree_are_found(small: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    single = pipeline.plan(small.original, small.device, "none", (2, 1, 6, 6))
    real = pipeline.generate

    def generate(plan: Plan) -> pipeline.Generated:
        made = real(plan)
        return replace(made, weights={k: 2 * v for k, v in made.weights.items()}) if plan is single else made

    monkeypatch.setattr(whole, "generate", generate)
    with pytest.raises(AccuracyError, match="'b' differs between one and other"):
        time_plans({"one": small, "other": single}, ignore)


@pytest.mark.parametrize(("planned", "fastest", "interrupted", "compared"), [
    ("none", "single", False, {UNTUNED}), ("none", "single", True, {UNTUNED}),  # all three are the same plan
    ("none", "pair", False, {UNTUNED, TUNED}), ("none", "pair", True, {UNTUNED, TUNED}),
    ("all", "single", False, {UNTUNED, TUNED}), ("all", "single", True, {UNTUNED, TUNED}),
    ("all", "pair", False, {UNTUNED, SINGLE}), ("all", "pair", True, {UNTUNED}),
    ("all", "other tiles", False, {UNTUNED, TUNED, SINGLE}), ("all", "other tiles", True, {UNTUNED, TUNED})])
def test_what_is_compared(planned: str, fastest: str, interrupted: bool, compared: set[str], small: Plan,
                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Each plan once, by its first name; layer by layer is left out after an interruption."""
    monkeypatch.setattr(tune, "time_plans", lambda plans, progress: {n: Entrant(p, (len(n),)) for n, p in plans.items()})
    untuned, single = (pipeline.plan(small.original, small.device, fuse, (2, 1, 6, 6)) for fuse in (planned, "none"))
    known = replace(survey(untuned.simplified.graph, untuned.device, untuned.nominal), favourites=())
    own = [Decision.of(c.variants[0].schedule) for c in single.chains]

    def seconds(job: Job, trial: Trial) -> Seconds:
        wins = {"single": len(job.chain.names) == 1, "pair": len(job.chain.names) == 2,
                "other tiles": len(job.chain.names) == 1 and trial.decision not in own}
        return (1.0,) if wins[fastest] else (9.0,)

    monkeypatch.setattr(module, "CHANCE", math.inf)
    monkeypatch.setattr(module, "PER_BATCH", 2)
    found = replace(measure_all(known, Machine(seconds, known), lambda: False, ignore), interrupted=interrupted)
    assert set(decide(untuned, single, known, found, ignore).entrants) == compared
