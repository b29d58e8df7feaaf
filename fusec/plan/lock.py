"""What a plan has decided, as data that a lockfile can hold, and the same plan made of it again.

In: the chains of a plan with their schedules; or a `Lock` and the network it was made for. Out: a `Lock`; or chains and
schedules equal to those locked, found without a search or a time model: it stands in for `partition` and `search`. The text of
a lock is `lock_file`'s business. A lock may have been edited by hand, so everything it says is checked, and every schedule
verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from fusec.errors import Infeasible, InputError, InternalError, Problem, nearest
from fusec.graph.graph import LayerGraph
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.partition import is_chain
from fusec.plan.search import Choice, Planned
from fusec.schedule.ir import Chain, Schedule, Tile
from fusec.schedule.verify import verify
from fusec.targets.device import Device
from fusec.version import VERSION

LARGEST = 1 << 28  # elements of a box or of a block's scratch: a gibibyte, whose offsets fit 32 bits
WAY_OUT = "`fusec tune` makes a lockfile for what is here"
Locked = tuple[Chain, tuple[Planned, ...]]


@dataclass(frozen=True)
class Decision:
    """All that `construct` is told of a chain: two equal decisions make equal schedules."""

    tile: Tile
    staged: tuple[str, ...]
    step: int | None = None

    @staticmethod
    def of(schedule: Schedule) -> Decision:
        """What `schedule` was made from."""
        return Decision(schedule.tile, tuple(s.writes.tensor for s in schedule.stages if s.node is None), schedule.step)

    @staticmethod
    def chosen(choice: Choice) -> Decision:
        """What the planner's search has found."""
        return Decision(choice.candidate.tile, choice.staged, choice.candidate.step)

    def moved(self, source: Chain, target: Chain) -> Decision:
        """The same for an equal chain, whose inputs have other names."""
        names = dict(zip(source.inputs, target.inputs, strict=True))
        return replace(self, staged=tuple(names[t] for t in self.staged))

    def schedule(self, chain: Chain, device: Device) -> Schedule:
        """The schedule of `chain`; Infeasible as `construct` raises it."""
        return construct(chain, self.tile, device, self.staged, self.step)


@dataclass(frozen=True)
class LockedVariant:
    """One schedule of a chain and when it runs (see `Planned`); `where` is its place in the lockfile."""

    decision: Decision
    min_blocks: int = 0
    tiles: int | None = None
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class LockedChain:
    """The layers of one kernel in the order they are computed, and its variants, the one for many tiles first."""

    layers: tuple[str, ...]
    variants: tuple[LockedVariant, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Scope:
    """What a lock is for. It is obeyed only where all of this agrees; the network's name is for readers.

    Attributes
    ----------
    fusec
        The version.
    signature
        Of the simplified network's structure, see `signature_of`.
    device, arch
        Name of the planner's device; GPU architecture or the CPU's signature.
    machine, cores
        What it is exactly: a GPU's own name, or a CPU's caches (`Device.machine`); and how many cores. Where a GPU is only
        named, as for its architecture, `machine` is "" and agrees with any.
    """

    fusec: str
    network: str
    signature: str
    target: str
    device: str
    machine: str
    cores: int
    arch: str
    dtype: str


@dataclass(frozen=True)
class Lock:
    """A whole plan. `places` has the place in the lockfile of each thing it is for, and of the file itself as ""."""

    scope: Scope
    nominal: Nominal
    chains: tuple[LockedChain, ...]
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    def check(self, here: Scope) -> None:
        """InputError with every difference between what is locked and what is `here`."""
        digits = _digits(self.scope.signature, here.signature)
        problems = [Problem(f"the lockfile is for {_told(self.scope, name, digits)}, but here is {_told(here, name, digits)}",
                            self.places.get(name, self.places.get("", "")), WAY_OUT)
                    for name, value in vars(self.scope).items() if _differ(name, value, getattr(here, name))]
        if problems:
            raise InputError(problems)


def _differ(name: str, locked: object, here: object) -> bool:
    """Whether a fact forbids to obey a lock: networks have a signature for that, and a GPU may be named without being there."""
    return locked != here and name != "network" and not (name == "machine" and "" in (locked, here))


def _digits(one: str, other: str) -> int:
    """How many digits of two signatures to show, at least 12, so that those shown differ if the signatures do."""
    alike = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return max(12, alike + 1)


def _told(scope: Scope, name: str, digits: int) -> str:
    """One fact of a scope in words."""
    value = getattr(scope, name)
    if name == "signature":
        return f"network '{scope.network}' of structure {value[:digits]}"
    return f"a device of {value} cores" if name == "cores" else f"{name} {value}"


def scope_of(graph: LayerGraph, device: Device, arch: str, dtype: str) -> Scope:
    """What a plan of the simplified `graph` is for."""
    return Scope(VERSION, graph.name, signature_of(graph), target=device.target, device=device.name, machine=device.machine,
                 cores=device.cores, arch=arch, dtype=dtype)


def signature_of(graph: LayerGraph) -> str:
    """SHA-256 of a network's structure: layers with their parameters and connections, not their weights or names."""
    number = {n.name: i for i, n in enumerate(graph.nodes)}
    rows = [(repr(n.layer), [number[t] for t in n.inputs], [repr(p.layer) for p in n.epilogue]) for n in graph.nodes]
    return hashlib.sha256(repr((rows, [number[o] for o in graph.outputs])).encode()).hexdigest()


def lock_of(scope: Scope, nominal: Nominal, chains: Iterable[tuple[Chain, Sequence[Planned]]]) -> Lock:
    """The decisions of a plan."""
    return Lock(scope, nominal, tuple(
        LockedChain(chain.names, tuple(LockedVariant(Decision.of(v.schedule), v.min_blocks, v.tiles) for v in variants))
        for chain, variants in chains))


def unlock(lock: Lock, graph: LayerGraph, device: Device) -> tuple[Locked, ...]:
    """The plan that was locked.

    Parameters
    ----------
    graph
        The simplified network; what the lock is for has been checked.

    Raises
    ------
    InputError
        Unknown or missing layers, layers that cannot share a kernel, chains in an order they cannot run in, illegal tiles: all
        problems of one of these stages, each at its place.
    """
    for problems in (_sizes(lock, graph), _layers(lock, graph), _order(lock, graph)):
        if found := list(problems):
            raise InputError(found)
    made = [(Chain(graph, locked.layers), locked) for locked in lock.chains]
    plans = [(chain, [_planned(chain, variant, device) for variant in locked.variants]) for chain, locked in made]
    found = [*(p for _, locked in made for p in _limits(locked)), *(v for _, vs in plans for v in vs if isinstance(v, Problem))]
    if found:
        raise InputError(found)
    return tuple((chain, tuple(v for v in variants if isinstance(v, Planned))) for chain, variants in plans)


def _sizes(lock: Lock, graph: LayerGraph) -> Iterator[Problem]:
    try:
        sizes_of(graph, lock.nominal)
    except InputError as error:
        yield from (Problem(f"the sizes it was made for do not fit: {p.what}", lock.places.get("height", ""), p.hint)
                    for p in error.problems)


def _layers(lock: Lock, graph: LayerGraph) -> Iterator[Problem]:
    """Every layer of the network belongs to one chain."""
    known = [n.name for n in graph.layers]
    first: dict[str, str] = {}
    for chain in lock.chains:
        for name in chain.layers:
            if name not in known:
                yield Problem(f"the network has no layer '{name}'", chain.where, nearest(name, known))
            elif name in first:
                yield Problem(f"layer '{name}' has a chain already", chain.where, f"it is in that of {first[name]}")
            first.setdefault(name, chain.where or str(Chain(graph, chain.layers)))
    if missing := [name for name in known if name not in first]:
        yield Problem(f"layer '{missing[0]}'{f' and {len(missing) - 1} more' * (len(missing) > 1)} is in no chain",
                      lock.places.get("chains", ""), "give it one of its own")


def _order(lock: Lock, graph: LayerGraph) -> Iterator[Problem]:
    """Each chain is one, and whatever a layer reads comes before it."""
    made = {n.name for n in graph.inputs}
    for chain in lock.chains:
        if reason := is_chain(graph, chain.layers):
            yield Problem(f"{', '.join(chain.layers)} cannot be one chain: {reason}", chain.where)
        for name in chain.layers:
            if late := [t for t in graph[name].inputs if t not in made]:
                yield Problem(f"'{name}' comes before '{late[0]}', which it reads", chain.where, "change their order")
            made.add(name)


def _limits(locked: LockedChain) -> Iterator[Problem]:
    """The last variant, and no other, runs for any number of tiles, and each wants fewer than the one before: the first variant
    whose number is reached is taken, so one that wants as many may never run."""
    for before, variant in pairwise(locked.variants):
        if variant.min_blocks >= before.min_blocks > 0:
            yield Problem(f"min_blocks is {variant.min_blocks} behind a variant with {before.min_blocks}: it may never run",
                          variant.where, "let the numbers of a chain's variants fall")
    for i, variant in enumerate(locked.variants):
        last = i == len(locked.variants) - 1
        if last != (variant.min_blocks == 0):
            yield Problem(f"min_blocks is {variant.min_blocks} in {'the last' if last else 'an earlier'} variant of a chain",
                          variant.where, "0 in the last one, which runs when no other does, and above 0 in the others")


def _planned(chain: Chain, variant: LockedVariant, device: Device) -> Planned | Problem:
    """The variant's verified schedule, or why there is none."""
    decision = variant.decision
    if strange := [t for t in decision.staged if t not in chain.inputs]:
        return Problem(f"'{strange[0]}' cannot be staged: chain {chain} does not read it from outside", variant.where,
                       nearest(strange[0], chain.inputs) or f"it reads {', '.join(chain.inputs)}")
    try:
        schedule = decision.schedule(chain, device)
        verify(schedule, device if device.target == "cuda" else None)
    except (Infeasible, InternalError) as error:
        return Problem(f"tile {decision.tile} of chain {chain} is illegal: {error}", variant.where)
    boxes = [schedule.tile.images * b.footprint.elements for b in schedule.buffers]
    if max(*boxes, schedule.scratch_elements) >= LARGEST:
        return Problem(f"tile {decision.tile} of chain {chain} is too large: it needs {LARGEST:,} elements or more at once",
                       variant.where)
    return Planned(schedule, variant.min_blocks, variant.tiles)
