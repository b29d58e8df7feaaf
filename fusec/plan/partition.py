"""Which layers share a kernel: the network cut into chains.

In: a simplified graph, how to cut it, a device, the sizes planned for. Out: chains in an order they can run in. A chain is
legal when only its last tensor leaves it; with that it is convex too, since a path that leaves it leaves from its end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import networkx as nx

from fusec.errors import Infeasible, InputError, Problem, nearest
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.search import Search
from fusec.schedule.ir import Chain
from fusec.targets.device import Device

# What a fused chain has to promise against its layers one by one. Predictions for CUDA in float32 are off by 15 % either way
# (standard deviation, chains of the H200 data): a smaller promise was often an error that happened to look good. On a server's
# CPU two chains that promised 5 and 8 % lost 10 (`benchmarks/results/cpu-chosen.json`).
DOUBT, CPU_DOUBT, CUDA_DOUBT = 1.03, 1.09, 1.12
LONGEST_CHAIN = 24  # nodes of a chain that "auto" considers
MODES = ("none", "all", "auto")
HOPELESS = 3.0  # a chain this many times slower than its layers one by one will not win by growing at its start

Seconds = tuple[float, ...]  # one for each nominal batch
Price = Callable[[int, int], Seconds | None]


def partition(graph: LayerGraph, fuse: str, device: Device, *, nominal: Nominal,
              absorbed: Mapping[str, str] | None = None) -> tuple[Chain, ...]:
    """Cut `graph` into chains.

    Parameters
    ----------
    fuse
        "none": every layer alone. "all": chains as long as they fit. "auto": what the cost model finds fastest, and never
        slower, for any nominal batch, than layer by layer. Or the chains themselves, "conv1..pool2,conv3..conv5", as ranges
        of the description's order; layers not mentioned stay alone.
    absorbed
        Names of the description to the nodes of `graph` that took them in.

    Raises
    ------
    InputError
        `fuse` names unknown layers, or ranges that overlap or make no legal chain: all of them in one error.
    Infeasible
        A range asked for does not fit the device.
    """
    if fuse not in MODES:
        return _as_asked(graph, fuse, device, nominal, absorbed or {})
    order = depth_first(graph)
    ends = list(range(1, len(order) + 1))
    if fuse == "all":
        ends = _greedy(graph, order, device, nominal)
    elif fuse == "auto":
        ends = cheapest(len(order), Prices(graph, order, device, nominal))
    return tuple(Chain(graph, order[start:end]) for start, end in zip([0, *ends], ends, strict=False))


def is_chain(graph: LayerGraph, names: Collection[str]) -> str | None:
    """Why `names` cannot be one chain, or None when they can: the last one (in the graph's order) makes its only output."""
    inside = set(names)
    ordered = [n.name for n in graph.layers if n.name in inside]
    strange = sorted(inside - set(ordered))
    if strange or not ordered:
        return f"'{strange[0]}' is no layer of the network" if strange else "it has no layers"
    last = ordered[-1]
    for name in ordered[:-1]:
        readers = list(graph.digraph.successors(name))
        outside = next((r for r in readers if r not in inside), None)
        if outside is not None:
            back = nx.has_path(graph.digraph, outside, last)
            return f"tensor '{name}' leaves it, read by '{outside}'" + (f", which '{last}' needs in turn" if back else "")
        if name in graph.outputs:
            return f"tensor '{name}' leaves it, as an output of the network"
        if not readers:
            return f"'{name}' is needed by no other layer of it"
    return None


def depth_first(graph: LayerGraph) -> tuple[str, ...]:
    """A topological order in which every layer follows closely on what only it needs, so that branches stay together."""
    order: dict[str, None] = {}
    roots = [*graph.outputs, *(n.name for n in graph.layers if graph.digraph.out_degree(n.name) == 0)]
    stack = [(name, False) for name in reversed(roots)]
    while stack:
        name, ready = stack.pop()
        if name in order or isinstance(graph[name].layer, L.Input):
            continue
        if ready:
            order[name] = None
            continue
        stack.append((name, True))
        stack += [(tensor, False) for tensor in reversed(graph[name].inputs)]
    return tuple(order)


def cheapest(count: int, price: Price) -> list[int]:
    """The ends of the intervals that cut [0, count) at the least price, by dynamic programming.

    `price(i, j)` is what [i, j) takes for each batch, or None when it is no chain; [i, i + 1) always has one. Prices are
    weighed by the layer-by-layer total, so that each batch counts alike. An interval slower than its members one by one for
    any batch is never used: so the result is not slower than layer by layer for any batch.
    """
    singles = [price(i, i + 1) or () for i in range(count)]
    totals = [sum(column) for column in zip(*singles, strict=True)]

    def weigh(seconds: Seconds) -> float:
        return math.fsum(s / t for s, t in zip(seconds, totals, strict=True))

    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, count + 1):
        options = [(best[end - 1][0] + weigh(singles[end - 1]), end - 1)]
        for start in range(end - 2, -1, -1):
            seconds = price(start, end)
            if seconds is not None and _never_slower(seconds, singles[start:end]):
                options.append((best[start][0] + weigh(seconds), start))
        best.append(min(options))
    ends = [count] if count else []
    while ends and best[ends[-1]][1]:
        ends.append(best[ends[-1]][1])
    return ends[::-1]


def _never_slower(seconds: Seconds, singles: list[Seconds]) -> bool:
    return all(s <= sum(alone) for s, alone in zip(seconds, zip(*singles, strict=True), strict=True))


class Prices:
    """What the intervals of an order cost on a device; equal chains are planned once."""

    def __init__(self, graph: LayerGraph, order: tuple[str, ...], device: Device, nominal: Nominal) -> None:
        self.graph, self.order, self.device, self.nominal = graph, order, device, nominal
        self._known: dict[object, Seconds | None] = {}
        self._first: dict[int, int] = {}  # end -> no interval that ends there and starts before this one is worth a look

    def __call__(self, start: int, end: int) -> Seconds | None:
        """Seconds of the chain [start, end) for each nominal batch; None when it is illegal, too long or does not fit.

        Intervals of one end are asked for with falling starts: once one does not fit, or is hopelessly slow, longer ones are
        not looked at.
        """
        names = self.order[start:end]
        if len(names) > LONGEST_CHAIN or start < self._first.get(end, 0) or not closed(self.graph, names):
            return None
        seconds = self._seconds(Chain(self.graph, names))
        if seconds is None or (len(names) > 1 and self._hopeless(seconds, start, end)):
            self._first[end] = start
        return seconds

    def _hopeless(self, seconds: Seconds, start: int, end: int) -> bool:
        singles = [self(i, i + 1) or () for i in range(start, end)]
        return all(s > HOPELESS * sum(alone) for s, alone in zip(seconds, zip(*singles, strict=True), strict=True))

    def _seconds(self, chain: Chain) -> Seconds | None:
        key = signature(chain, self.nominal)
        if key not in self._known:
            try:
                search = Search(chain, self.device, self.nominal)
                doubt = doubt_of(self.device) if len(chain.names) > 1 else 1.0
                self._known[key] = tuple(search.best(batch).seconds * doubt for batch in self.nominal.batches)
            except Infeasible:
                if len(chain.names) == 1:
                    raise
                self._known[key] = None
        return self._known[key]


def doubt_of(device: Device) -> float:
    """The factor by which fusing has to pay on a device."""
    if device.matrix:
        return DOUBT
    return CUDA_DOUBT if device.target == "cuda" else CPU_DOUBT


def signature(chain: Chain, nominal: Nominal) -> object:
    """All that planning depends on: two chains of one signature get the same schedule."""
    sizes = sizes_of(chain.graph, nominal)
    number = {t: i for i, t in enumerate((*chain.inputs, *chain.names))}
    inputs = tuple((chain.shapes[t], sizes[t]) for t in chain.inputs)
    return inputs, tuple((n.layer, tuple(number[t] for t in n.inputs), tuple(p.layer for p in n.epilogue)) for n in chain.nodes)


def closed(graph: LayerGraph, names: tuple[str, ...]) -> bool:
    """Whether an interval of a topological order is a chain; the quick form of `is_chain`."""
    inside = set(names)
    return all(graph.digraph.out_degree(n) and n not in graph.outputs and inside.issuperset(graph.digraph.successors(n))
               for n in names[:-1])


def _greedy(graph: LayerGraph, order: tuple[str, ...], device: Device, nominal: Nominal) -> list[int]:
    """Ends of the longest chains that fit, one after the other."""
    fits = partial(_fits, graph, device=device, nominal=nominal)
    ends: list[int] = []
    while (start := ends[-1] if ends else 0) < len(order):
        best = start + 1
        for end in range(start + 2, len(order) + 1):
            if not closed(graph, order[start:end]):
                continue
            if not fits(order[start:end]):
                break
            best = end
        ends.append(best)
    return ends


def _fits(graph: LayerGraph, names: tuple[str, ...], device: Device, nominal: Nominal) -> bool:
    try:
        return Search(Chain(graph, names), device, nominal).feasible()
    except Infeasible:
        return False


def _as_asked(graph: LayerGraph, fuse: str, device: Device, nominal: Nominal, absorbed: Mapping[str, str]) -> tuple[Chain, ...]:
    order = tuple(n.name for n in graph.layers)
    ranges = _parse(graph, fuse, absorbed, {name: i for i, name in enumerate(order)})
    chains = {r.start: Chain(graph, order[r.start:r.stop]) for r in ranges}
    taken = {i for r in ranges for i in r}
    chains |= {i: Chain(graph, (name,)) for i, name in enumerate(order) if i not in taken}
    for chain in chains.values():
        if len(chain.names) > 1:
            _check_fits(chain, device, nominal)
    return tuple(chains[i] for i in sorted(chains))


def _check_fits(chain: Chain, device: Device, nominal: Nominal) -> None:
    """Infeasible, with the reason and the nearest cut that fits, where no tile computes the chain."""
    try:
        Search(chain, device, nominal).best(nominal.batch)
    except Infeasible as error:
        ends = _greedy(chain.graph, chain.names, device, nominal)
        parts = (Chain(chain.graph, chain.names[start:end]) for start, end in zip([0, *ends], ends, strict=False))
        raise Infeasible(f"{error}; what fits, whatever it costs, is '{','.join(map(str, parts))}'") from None


def _parse(graph: LayerGraph, fuse: str, absorbed: Mapping[str, str], position: Mapping[str, int]) -> list[range]:
    """Positions of each range of a `--fuse` string; every problem of the string in one InputError."""
    problems: list[Problem] = []
    ranges: list[range] = []
    words: dict[int, str] = {}
    order = list(position)
    for part in (p.strip() for p in fuse.split(",")):
        places = [_position(graph, name.strip(), absorbed, position, problems) for name in part.split("..")]
        if len(places) > 2:
            problems.append(Problem(f"'{part}' is no range", "fuse", "write first..last"))
        if len(places) > 2 or None in places:
            continue
        first, last = (p for p in (places[0], places[-1]) if p is not None)
        if first > last:
            problems.append(Problem(f"'{part}' runs backwards", "fuse", f"write {order[last]}..{order[first]}"))
            continue
        found = range(first, last + 1)
        clash = next((w for i, w in words.items() if i in found), None)
        reason = is_chain(graph, order[first:last + 1])
        if clash is not None:
            problems.append(Problem(f"'{part}' and '{clash}' overlap", "fuse", "a layer belongs to one chain"))
        elif reason is not None:
            problems.append(Problem(f"'{part}' cannot be one chain: {reason}", "fuse"))
        words |= dict.fromkeys(found, part)
        ranges.append(found)
    if problems:
        raise InputError(problems)
    return ranges


def _position(graph: LayerGraph, name: str, absorbed: Mapping[str, str], position: Mapping[str, int],
              problems: list[Problem]) -> int | None:
    """Position of the node that holds layer `name`, or None and a problem."""
    node = absorbed.get(name, name)
    if node in position:
        return position[node]
    if not name:
        problems.append(Problem("a name is missing", "fuse", "write first..last,first..last, or none, all, auto"))
    elif node in graph:
        problems.append(Problem(f"'{name}' is an input of the network, not a layer", "fuse"))
    else:
        known = [*position, *absorbed]
        problems.append(Problem(f"unknown layer '{name}'", "fuse", layer_hint(name, known, MODES)))
    return None


def layer_hint(word: str, known: Sequence[str], others: Sequence[str] = ()) -> str:
    """A hint for what is no layer: a range in other words, the nearest layer or other word, or where layers begin and end."""
    return _range_hint(word, known) or nearest(word, [*known, *others]) or f"the layers are {known[0]} to {known[-1]}"


def _range_hint(word: str, known: Collection[str]) -> str:
    """A hint for a range that is written in another way, such as "conv1-pool1" or "conv1:pool1"."""
    for first in (name for name in known if word.startswith(name)):
        last = re.sub(r"^[^0-9A-Za-z_]+", "", word[len(first):])
        if last in known and len(first) + len(last) < len(word):
            return f"ranges are written first..last: {first}..{last}"
    return ""
