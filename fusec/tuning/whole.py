"""Whole networks against each other: the tuned plan has to win before it is kept.

In: plans of one network. Out: seconds of a call for each nominal batch, from rounds in which all take turns, and the plan that
is to be locked. Results are compared bit for bit first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.errors import AccuracyError
from fusec.graph.graph import LayerGraph
from fusec.pipeline import Plan, build_and_link, generate
from fusec.plan.cost import Nominal
from fusec.plan.partition import Seconds
from fusec.runtime.build import Progress
from fusec.runtime.elements import offered, widened, words_of
from fusec.runtime.model import Model
from fusec.runtime.weights import Floats
from fusec.tuning.inputs import random_inputs
from fusec.tuning.measure import on_device, timed_call
from fusec.tuning.timing import alternate

TIE = 1.01  # times the time of the untuned plan: what repeats of one measurement differ by
BUDGET = 2.0  # seconds for the rounds of one batch


@dataclass(frozen=True, eq=False)
class Entrant:
    """A plan and its median seconds of a call for each nominal batch."""

    plan: Plan
    seconds: Seconds


def time_plans(plans: Mapping[str, Plan], progress: Progress) -> dict[str, Entrant]:
    """Build and time plans of one network for the same sizes; AccuracyError when their results differ."""
    models = {name: build_and_link(generate(plan), progress) for name, plan in plans.items()}
    first = next(iter(plans.values()))
    columns = [_times(models, first.original, first.nominal.at(batch), progress) for batch in first.nominal.batches]
    return {name: Entrant(plan, tuple(column[name] for column in columns)) for name, plan in plans.items()}


def _times(models: Mapping[str, Model], graph: LayerGraph, sizes: Nominal, progress: Progress) -> dict[str, float]:
    arrays = list(random_inputs(graph, sizes, next(iter(models.values())).program.dtype).values())
    check_equal(graph.outputs, {name: results_of(model, arrays) for name, model in models.items()})
    calls = []
    for model in models.values():
        given = on_device(model, arrays)
        calls.append((*timed_call(model, given, model(*given)), None))
    timed = alternate(calls, None, progress, budget=BUDGET)
    return {name: t.median for name, t in zip(models, timed, strict=True)}


def winner(entrants: Mapping[str, Entrant], untuned: str) -> str:
    """The fastest over all batches, each counting alike, of those that are not slower than `untuned` for any."""
    base = entrants[untuned].seconds
    ratios = {name: [s / b for s, b in zip(e.seconds, base, strict=True)] for name, e in entrants.items()}
    fair = [name for name in entrants if name == untuned or max(ratios[name]) <= TIE]
    return min(fair, key=lambda name: math.fsum(ratios[name]))


def results_of(model: Model, arrays: Sequence[Floats]) -> tuple[Any, ...]:
    """A model's result or results for numbers, in its own type."""
    made = model(*(offered(a, model.program.dtype) for a in arrays))
    return made if isinstance(made, tuple) else (made,)


def check_equal(outputs: Sequence[str], results: Mapping[str, Sequence[Any]]) -> None:
    """AccuracyError unless all results are the same bits; they are named as the ways they were made."""
    first, *others = results.items()
    for (name, made), (base, wanted) in ((other, first) for other in others):
        for output, one, other in zip(outputs, wanted, made, strict=True):
            bits = _bits(one)
            differ = np.flatnonzero(bits != _bits(other))
            if differ.size:
                place = np.unravel_index(differ[0], bits.shape)
                raise AccuracyError(f"'{output}' differs between {base} and {name} in {differ.size} of {bits.size} values, "
                                    f"first at {tuple(map(int, place))}: {widened(one)[place]} and {widened(other)[place]}")


def _bits(result: Any) -> NDArray[Any]:
    words = words_of(result)
    return np.asarray(words.view(f"u{words.itemsize}"))
