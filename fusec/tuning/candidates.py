"""What is worth measuring: which intervals of layers, with which tiles, and in which order.

In: a simplified graph, a device, the sizes planned for. Out: a `Survey` of what the time model expects of every interval, and
`Job`s, the most promising first, so that measuring may stop after any of them. Between planning and measuring: the model only
proposes here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.plan.cost import Nominal
from fusec.plan.lock import Decision
from fusec.plan.partition import Prices, Seconds, cheapest, depth_first, signature
from fusec.plan.search import Search
from fusec.schedule.ir import Chain
from fusec.targets.device import Device

PER_BATCH = 4  # trials of a chain for each nominal batch
CHANCE = 0.5  # a chain is tried if the best partition with it loses, by the model, at most this share of the chain's own time

Interval = tuple[int, int]  # positions in the order, the second one left out


@dataclass(frozen=True)
class Trial:
    """One kernel to measure: what it is made from, and the number of tiles its mapping is told (see `Planned.tiles`)."""

    decision: Decision
    tiles: int | None


@dataclass(frozen=True, eq=False)
class Survey:
    """What the time model expects of the intervals of a network.

    Attributes
    ----------
    order
        The layers; an interval of them is a chain where it has a price.
    prices
        Seconds of every interval that can be a chain, for each nominal batch.
    keys
        Of every such interval: equal chains, which need measuring once, have equal keys.
    favourites
        The intervals of the model's own partition.
    """

    graph: LayerGraph
    device: Device
    nominal: Nominal
    order: tuple[str, ...]
    prices: Mapping[Interval, Seconds]
    keys: Mapping[Interval, object]
    favourites: tuple[Interval, ...]

    @property
    def singles(self) -> tuple[Interval, ...]:
        """The layers one by one."""
        return tuple((i, i + 1) for i in range(len(self.order)))

    def chain(self, interval: Interval) -> Chain:
        return Chain(self.graph, self.order[slice(*interval)])


@dataclass(frozen=True, eq=False)
class Job:
    """A chain to measure, and the seconds the model expects of its best schedule for each nominal batch."""

    key: object
    chain: Chain
    expected: Seconds


def survey(graph: LayerGraph, device: Device, nominal: Nominal) -> Survey:
    """Ask the time model for every interval; Infeasible when a single layer does not fit the device."""
    order = depth_first(graph)
    known = Prices(graph, order, device, nominal)
    prices: dict[Interval, Seconds] = {}
    for end in range(1, len(order) + 1):  # in the order in which `Prices` wants to be asked
        for start in range(end - 1, -1, -1):
            if (seconds := known(start, end)) is not None:
                prices[start, end] = seconds
    ends = cheapest(len(order), lambda start, end: prices.get((start, end)))
    keys = {i: chain_key(Chain(graph, order[slice(*i)]), nominal) for i in prices}
    return Survey(graph, device, nominal, order, prices, keys, tuple(zip([0, *ends], ends, strict=False)))


def chain_key(chain: Chain, nominal: Nominal) -> object:
    """All that the kernels of a chain depend on but its weights: its signature, and which tensors are the network's own, since
    those have their layout."""
    graph = chain.graph
    public = tuple(t in graph.outputs or isinstance(graph[t].layer, L.Input) for t in (*chain.inputs, chain.output))
    return signature(chain, nominal), public


def jobs(survey: Survey) -> Iterator[Job]:
    """The model's favourites, then single layers, then the other promising intervals, each chain once."""
    seen = set()
    for interval in (*survey.favourites, *survey.singles, *_promising(survey)):
        key = survey.keys[interval]
        if key not in seen:
            seen.add(key)
            yield Job(key, survey.chain(interval), survey.prices[interval])


def trials(chain: Chain, device: Device, nominal: Nominal) -> tuple[Trial, ...]:
    """Kernels of one chain: the best by the model for each nominal batch in turn, without repetition."""
    search, many = Search(chain, device, nominal), len(nominal.batches) > 1
    ranked = [[Trial(Decision.chosen(c), None if many and i == 0 else search.tiles(c, batch))
               for c in search.ranked(batch, PER_BATCH)] for i, batch in enumerate(nominal.batches)]
    return tuple(dict.fromkeys(c for rank in zip_longest(*ranked) for c in rank if c is not None))


def _promising(survey: Survey) -> list[Interval]:
    """Intervals that have a chance, by what the best partition through each of them would lose, the least first."""
    count = len(survey.order)
    weights = _weights(survey)
    before, behind = [0.0] + [math.inf] * count, [math.inf] * count + [0.0]
    for (start, end), weight in sorted(weights.items(), key=lambda item: item[0][1]):
        before[end] = min(before[end], before[start] + weight)
    for (start, end), weight in sorted(weights.items(), key=lambda item: -item[0][0]):
        behind[start] = min(behind[start], behind[end] + weight)
    losses = {(s, e): before[s] + weight + behind[e] - before[count] for (s, e), weight in weights.items()}
    return sorted((i for i in losses if losses[i] <= CHANCE * weights[i]), key=lambda i: (losses[i], i))


def _weights(survey: Survey) -> dict[Interval, float]:
    """One price for all batches: each counts alike, as in `partition.cheapest`."""
    totals = [math.fsum(column) for column in zip(*(survey.prices[i] for i in survey.singles), strict=True)]
    return {i: math.fsum(s / t for s, t in zip(seconds, totals, strict=True)) for i, seconds in survey.prices.items()}
