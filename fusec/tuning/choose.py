"""From measured kernels to the fastest partition and its schedules.

In: a `Survey` and what has been measured of it. Out: chains with their schedules. Until all layers and all the model's
favourites are measured the model's partition stands, with the schedules that measured best; from then on dynamic programming
over measured times cuts the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fusec.pipeline import PlannedChain
from fusec.plan.boxes import boxes_of
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.partition import Seconds, cheapest
from fusec.plan.search import Planned, variants
from fusec.schedule.ir import Chain, Schedule
from fusec.tuning.candidates import Interval, Survey
from fusec.tuning.measure import Measured

Results = Mapping[object, Sequence[Measured]]  # by a chain's key


def choose(survey: Survey, results: Results) -> tuple[PlannedChain, ...]:
    """The network as the fastest chains known, each with its fastest schedules."""
    made = []
    for interval in _partition(survey, results):
        chain, found = survey.chain(interval), results.get(survey.keys[interval], ())
        planned = _variants(chain, found, survey) if found else variants(chain, survey.device, survey.nominal)
        made.append(PlannedChain(chain, planned))
    return tuple(made)


def _partition(survey: Survey, results: Results) -> tuple[Interval, ...]:
    if not all(results.get(survey.keys[i]) for i in (*survey.favourites, *survey.singles)):
        return survey.favourites

    def price(start: int, end: int) -> Seconds | None:
        found = results.get(survey.keys.get((start, end)), ())
        return tuple(map(min, zip(*(m.seconds for m in found), strict=True))) if found else None

    ends = cheapest(len(survey.order), price)
    return tuple(zip([0, *ends], ends, strict=False))


def _variants(chain: Chain, found: Sequence[Measured], survey: Survey) -> tuple[Planned, ...]:
    """The best schedule for each nominal batch, as `search.variants` has them, but by measured times."""
    nominal = survey.nominal
    best = [min(found, key=lambda m: m.seconds[i]) for i in range(len(nominal.batches))]
    made: list[tuple[Measured, Schedule]] = []
    limits: list[int] = []
    for i, measured in enumerate(best):
        if measured in [m for m, _ in made]:
            continue
        schedule = measured.schedule(chain, survey.device)
        if made:
            limit = _limit(*made[-1], measured, i, nominal)
            if limit is None:  # no number of tiles tells the batches apart: one schedule has to serve both
                made[-1] = min(made[-1], (measured, schedule), key=lambda item: _weighed(item[0], best))
                continue
            limits.append(limit)
        made.append((measured, schedule))
    return tuple(Planned(schedule, limit, measured.trial.tiles)
                 for (measured, schedule), limit in zip(made, [*limits, 0], strict=True))


def _weighed(measured: Measured, best: Sequence[Measured]) -> float:
    """How many times the best time it takes, summed over the batches."""
    return math.fsum(s / b.seconds[i] for i, (s, b) in enumerate(zip(measured.seconds, best, strict=True)))


def _limit(large: Measured, schedule: Schedule, small: Measured, i: int, nominal: Nominal) -> int | None:
    """Tiles of `large` from which on it is at least as fast as `small`, which is the best for batch number `i`.

    Between that batch and the one before, times are taken to grow evenly with the batch. None where `large` makes as many
    tiles of either batch.
    """
    most, least = nominal.batches[i - 1], nominal.batches[i]
    lead, lag = (max(0.0, small.seconds[i - 1] - large.seconds[i - 1]), max(0.0, large.seconds[i] - small.seconds[i]))
    batch = least + math.ceil((most - least) * lag / (lead + lag)) if lead + lag > 0 else most
    from_batch, from_most, from_least = (_tiles(schedule, n, nominal) for n in (batch, most, least))
    return None if from_most == from_least else max(from_batch, from_least + 1)


def _tiles(schedule: Schedule, batch: int, nominal: Nominal) -> int:
    return int(boxes_of(schedule, sizes_of(schedule.chain.graph, nominal), batch).tiles[0])
