"""Measuring the kernels of one chain side by side.

In: a `Job`. Out: seconds of one launch of each of its trials, for each nominal batch: medians of rounds in which all take
turns. Every measurement is logged as soon as it is there, and what the log knows is not measured again. Caches are warm: a
kernel finds its tensors where its last launch left them, as it finds in a network what the kernel before has just written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fusec import debug
from fusec.pipeline import Generated, Plan, build_and_link, build_kernels, choose_device
from fusec.plan.partition import Seconds
from fusec.runtime import cpu
from fusec.runtime.cache import Cache
from fusec.runtime.cuda import gpu, nvrtc
from fusec.runtime.elements import rounded, typed
from fusec.runtime.model import Model
from fusec.runtime.program import POOL
from fusec.runtime.store import digest
from fusec.runtime.weights import Floats
from fusec.schedule.ir import Chain, Schedule
from fusec.targets.device import Device
from fusec.tuning.candidates import Job, Trial, trials
from fusec.tuning.kernels import generate_all, inputs, single
from fusec.tuning.log import Log
from fusec.tuning.timing import Call, Clock, Timed, alternate, wall_clock

CALL = 1e-3  # seconds that the launches of one call should take, so that the call itself does not count
MOST_LAUNCHES = 32  # of one call
BUDGET = 1.0  # seconds for the rounds of one job
FEWEST = 3  # rounds

Turn = tuple[Call, Clock, int | None]  # as `timing.alternate` takes it
Turns = Callable[[Sequence[Turn]], Sequence[Timed]]


@dataclass(frozen=True)
class Measured:
    """A trial for a chain, and the seconds of one launch for each nominal batch."""

    chain: Chain
    trial: Trial
    seconds: Seconds

    def schedule(self, chain: Chain, device: Device) -> Schedule:
        """The schedule that was measured, of an equal chain."""
        return self.trial.decision.moved(self.chain, chain).schedule(chain, device)


def take_turns(calls: Sequence[Turn]) -> Sequence[Timed]:
    """The rounds of one job."""
    return alternate(calls, None, lambda done, total: None, budget=BUDGET, fewest=FEWEST)


class Bench:
    """Measures chains of one network on this machine.

    Parameters
    ----------
    plan
        Any plan of the network: its graph, device and nominal sizes are used.
    log
        Where measurements are kept.
    turns
        Times several calls in turn.
    """

    def __init__(self, plan: Plan, log: Log, turns: Turns = take_turns) -> None:
        self.plan, self.log = plan, log
        self._store = Cache(debug.cache_folder())
        self.measured = self.known = 0  # measurements made, and those the log had
        self._turns = turns
        here = choose_device(plan.device.target)  # a plan may be for a device that is only named
        tool = nvrtc.identity() if here.target == "cuda" else cpu.find_compiler(debug.compiler()).identity
        self._machine = (here.target, here.machine, str(here.cores), tool)

    def __call__(self, job: Job) -> tuple[Measured, ...]:
        """Seconds of the job's trials; MissingError as building and running raise it."""
        plan, batches = self.plan, self.plan.nominal.batches
        tried = trials(job.chain, plan.device, plan.nominal)
        made = generate_all(plan, job.chain, tried)
        keys = [[self._key(made, i, batch) for batch in batches] for i in range(len(tried))]
        places = {key: (i, b) for i, row in enumerate(keys) for b, key in enumerate(row)}  # equal kernels have one key
        missing = {key: place for key, place in places.items() if self.log.get(key) is None}
        self.known += len(places) - len(missing)
        if missing:
            self._measure(made, missing, job)
        return tuple(Measured(job.chain, trial, tuple(self.log.get(key) or math.inf for key in row))
                     for trial, row in zip(tried, keys, strict=True))

    def _key(self, made: Generated, index: int, batch: int) -> str:
        """All that the time depends on: the kernel, the machine, and the sizes of all tensors."""
        [launch], [item] = made.program.launches, made.plan.chains
        entry = launch.variants[index].entry
        text = next(s.text for s in made.sources if s.entry == entry)
        sizes = item.chain.graph.sizes(made.plan.nominal.height, made.plan.nominal.width)
        return digest(*self._machine, made.program.arch, text, str(batch), *(str(sizes[t]) for t in launch.sizes))

    def _measure(self, made: Generated, missing: Mapping[str, tuple[int, int]], job: Job) -> None:
        """Build and time the kernels that are missing, and log them."""
        [launch] = made.program.launches
        entries = {launch.variants[i].entry for i, _ in missing.values()} | {POOL}
        build_kernels(replace(made, sources=tuple(s for s in made.sources if s.entry in entries)), self._store)
        calls: list[Turn] = []
        repeats = [max(1, min(MOST_LAUNCHES, math.ceil(CALL / max(job.expected[b], 1e-9)))) for _, b in missing.values()]
        shared: dict[int, tuple[list[Any], Any]] = {}  # arrays and results for each batch
        for (index, b), times in zip(missing.values(), repeats, strict=True):
            model = build_and_link(single(made, index, times))
            if b not in shared:
                arrays = on_device(model, inputs(made, self.plan.nominal.batches[b]))
                shared[b] = arrays, model(*arrays)
            calls.append((*timed_call(model, *shared[b]), None))
        for (key, (index, b)), times, timed in zip(missing.items(), repeats, self._turns(calls), strict=True):
            self.log.add(key, timed.median / times, kernel=launch.variants[index].entry, arch=made.program.arch,
                         dtype=made.program.dtype, batch=self.plan.nominal.batches[b],
                         rounds=len(timed.samples), launches=timed.calls * times)
            self.measured += 1


def on_device(model: Model, arrays: Iterable[Floats]) -> list[Any]:
    """Numbers in the type and the memory that the model computes in, so that no copy is timed."""
    dtype, cuda = model.program.dtype, model.program.target == "cuda"
    held = (rounded(a, dtype) for a in arrays)
    return [typed(gpu.to_device(a) if cuda else a, dtype) for a in held]


def timed_call(model: Model, arrays: Sequence[Any], out: Any) -> tuple[Call, Clock]:
    """A call with arrays and results in place, and the clock that times it."""
    return (lambda: model(*arrays, out=out)), (gpu.timed if model.program.target == "cuda" else wall_clock)
