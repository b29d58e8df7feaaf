"""The whole of tuning: what the model proposes is measured, the best is put together, and has to win against the untuned plan.

In: a network, a device, a way to measure. Out: `Found`, then `Tuned`. Measuring may stop after any job, at the end of its
time or by the user's interruption: what is known by then is used, and the log has it for the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fusec.pipeline import Plan, to_lock
from fusec.runtime.build import Progress
from fusec.tuning.candidates import Job, Survey, jobs
from fusec.tuning.choose import choose
from fusec.tuning.measure import Measured
from fusec.tuning.whole import Entrant, time_plans, winner

TUNED, UNTUNED, SINGLE = "tuned", "untuned", "layer by layer"

Measure = Callable[[Job], Sequence[Measured]]


@dataclass(frozen=True, eq=False)
class Found:
    """What measuring found: by each chain's key its trials with their times. `total` is how many chains there are."""

    results: Mapping[object, Sequence[Measured]]
    total: int
    interrupted: bool

    @property
    def done(self) -> int:
        """Chains measured."""
        return len(self.results)


@dataclass(frozen=True, eq=False)
class Tuned:
    """Whole plans that were timed, by name, and the name of the one to keep."""

    entrants: Mapping[str, Entrant]
    chosen: str

    @property
    def plan(self) -> Plan:
        return self.entrants[self.chosen].plan


def measure_all(survey: Survey, measure: Measure, enough: Callable[[], bool], progress: Progress) -> Found:
    """Measure the survey's chains, the most promising first, until all are done, `enough` says so, or the user interrupts."""
    todo = list(jobs(survey))
    results: dict[object, Sequence[Measured]] = {}
    try:
        for done, job in enumerate(todo):
            progress(done, len(todo))
            if enough():
                break
            results[job.key] = measure(job)
    except KeyboardInterrupt:
        return Found(results, len(todo), interrupted=True)
    return Found(results, len(todo), interrupted=False)


def decide(untuned: Plan, single: Plan, survey: Survey, found: Found, progress: Progress) -> Tuned:
    """Time the plan that measuring suggests against the untuned one and layer by layer, and keep the fastest.

    After an interruption layer by layer is left out, since its kernels may all have to be built yet. Plans that are the same
    are timed once.
    """
    tuned = replace(untuned, chains=choose(survey, found.results))
    ways = {UNTUNED: untuned, TUNED: tuned} | ({} if found.interrupted else {SINGLE: single})
    distinct: dict[str, Plan] = {}
    for name, plan in ways.items():
        if to_lock(plan) not in map(to_lock, distinct.values()):
            distinct[name] = plan
    entrants = time_plans(distinct, progress)
    return Tuned(entrants, winner(entrants, UNTUNED))
