"""Timing several ways of computing the same, side by side.

In: calls, and a clock that times a number of them. Out: seconds per call of each, from rounds in which all take turns, so that
a machine that slows down slows them all.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Call = Callable[[], object]
Clock = Callable[[Call, int], float]  # seconds that a number of calls take

SAMPLE = 5e-3  # seconds a sample should last, so that the clock's own resolution does not matter
BUDGET = 5.0  # seconds for all rounds, where their number is left open
FEWEST, MOST = 5, 101  # rounds then
MOST_CALLS = 10_000  # of one sample


@dataclass(frozen=True)
class Timed:
    """Seconds per call, one value a round; `calls` is how many calls make a value."""

    samples: tuple[float, ...]
    calls: int

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def fastest(self) -> float:
        return min(self.samples)

    @property
    def slowest(self) -> float:
        return max(self.samples)


def wall_clock(call: Call, times: int) -> float:
    """Seconds by the system's clock: for calls that return when they are done."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - began


def alternate(calls: Sequence[tuple[Call, Clock, int | None]], rounds: int | None,
              progress: Callable[[int, int], None], *, budget: float = BUDGET, fewest: int = FEWEST) -> list[Timed]:
    """Time calls in turn.

    Parameters
    ----------
    calls
        What to call, the clock for it, and the most rounds it takes part in (None is all). Each is called once before, so that
        nothing is timed that happens only the first time.
    rounds
        How many; None is as many as take about `budget` seconds, within `fewest` and `MOST`.
    """
    repeats, round_seconds = [], 0.0
    for call, clock, most in calls:
        call()
        times, seconds = _sample(call, clock)
        repeats.append(times)
        round_seconds += 0.0 if most else seconds
    wanted = rounds or max(fewest, min(MOST, int(budget / max(round_seconds, 1e-9))))
    samples: list[list[float]] = [[] for _ in calls]
    for done in range(wanted):
        order = range(len(calls)) if done % 2 == 0 else reversed(range(len(calls)))
        for i in order:
            call, clock, most = calls[i]
            if most is None or done < most:
                samples[i].append(clock(call, repeats[i]) / repeats[i])
        progress(done + 1, wanted)
    return [Timed(tuple(s), r) for s, r in zip(samples, repeats, strict=True)]


def _sample(call: Call, clock: Clock) -> tuple[int, float]:
    """How many calls last `SAMPLE`, and the seconds they took. It is tried, since a second call may be slower than the rest."""
    times, seconds = 1, clock(call, 1)
    while seconds < SAMPLE and times < MOST_CALLS:
        times = min(MOST_CALLS, max(times + 1, math.ceil(times * SAMPLE / max(seconds, 1e-9))))
        seconds = clock(call, times)
    return times, seconds
