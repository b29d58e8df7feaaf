"""Places in scratch: which tensors of a chain have one, for how long, and where it is.

In: a chain and its staged inputs; sizes, for one tile or for many at once. Out: lives, counted in phases, and offsets in
elements. A phase is what runs between two barriers: a stage, or a convolution and the pool that takes its output from
registers. What the convolution reads is still read while the pool writes, so both live through the whole phase. A line buffer
lives from first to last. `construct` and `scratch` share this, the verifier works it out again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fusec.plan.counting import Ints
from fusec.plan.merge import merged_pools
from fusec.schedule.ir import Chain

ALIGN = 64  # bytes every buffer starts at a multiple of: a cache line, and any vector
NOWHERE = np.iinfo(np.int64).max  # higher than any place


@dataclass(frozen=True)
class Life:
    """A tensor in scratch, with the phase that makes it and the last one that reads it."""

    tensor: str
    first: int
    last: int

    def meets(self, other: Life) -> bool:
        return self.first <= other.last and other.first <= self.last


def phases(chain: Chain, staged: Collection[str]) -> list[tuple[str, ...]]:
    """The tensors made in each phase, staged inputs just before their first reader."""
    kept = merged_pools(chain)
    found: list[tuple[str, ...]] = []
    loaded: set[str] = set()
    for node in chain.nodes:
        for tensor in dict.fromkeys(node.inputs):
            if tensor in staged and tensor not in loaded:
                loaded.add(tensor)
                found.append((tensor,))
        if node.inputs[0] in kept:
            found[-1] = (*found[-1], node.name)
        else:
            found.append((node.name,))
    return found


def lives(chain: Chain, staged: Collection[str], folded: Collection[str] = ()) -> list[Life]:
    """Every tensor that has a place in scratch, in the order they are made; `folded` ones keep theirs all the time."""
    order = phases(chain, staged)
    made = {tensor: i for i, phase in enumerate(order) for tensor in phase}
    last = {t: made[n.name] for n in chain.nodes for t in n.inputs}  # nodes are in order: the last reader wins
    kept = merged_pools(chain)
    return [Life(t, 0, len(order) - 1) if t in folded else Life(t, i, last[t])
            for t, i in made.items() if t != chain.output and t not in kept]


def offsets(lives: Sequence[Life], sizes: Sequence[Ints], element: int) -> list[Ints]:
    """Where each tensor lies, for N tiles at once, each tile on its own.

    The best of three rules. First fit in the order of birth; where that takes more than what is alive at once, also from the
    two ends in turns, which for a plain sequence of layers is the optimum, and first fit in the reverse order. The first of
    equals is taken.

    Parameters
    ----------
    lives
        In the order of birth.
    sizes
        Elements of each tensor, (N,).
    element
        Bytes of one.

    Returns
    -------
    list
        For each tensor (N,) offsets in elements, multiples of `ALIGN` bytes.
    """
    if not lives:
        return []
    align = ALIGN // element
    taken = np.stack([-(-s // align) * align for s in sizes])
    forwards = range(len(lives))
    best = _fit(lives, taken, forwards)
    height = _height(best, taken)
    least = np.max([taken[[x.first <= life.first <= x.last for x in lives]].sum(axis=0) for life in lives], axis=0)
    for order, from_both_ends in ((forwards, True), (forwards[::-1], False)):
        wasteful = np.flatnonzero(height > least)
        if not wasteful.size:
            break
        part = taken[:, wasteful]
        other = _fit(lives, part, order, least[wasteful] if from_both_ends else None)
        lower = _height(other, part)
        won = lower < height[wasteful]
        best[:, wasteful[won]], height[wasteful[won]] = other[:, won], lower[won]
    return list(best)


def _height(places: Ints, taken: Ints) -> Ints:
    """(N,) elements in all; more than anything else where a place is below 0, that is, where a tensor found none."""
    return np.where((places < 0).any(axis=0), NOWHERE, (places + taken).max(axis=0))


def _fit(lives: Sequence[Life], taken: Ints, order: Iterable[int], height: Ints | None = None) -> Ints:
    """(L, N) offsets: one tensor after the other takes the lowest place free during its life.

    With a `height` (N,) each keeps away from the one placed last of those it meets: if that is at the low end of the space, it
    takes the highest place free below `height`. It is put at -1 where there is none.
    """
    places, high = np.zeros_like(taken), [False] * len(lives)
    done: list[int] = []
    for i in order:
        rivals = [j for j in done if lives[j].meets(lives[i])]
        done.append(i)
        if not rivals:
            continue
        high[i] = height is not None and not high[rivals[-1]]
        places[i] = _slot(taken[i], places[rivals], places[rivals] + taken[rivals], height if high[i] else None)
    return places


def _slot(size: Ints, starts: Ints, ends: Ints, height: Ints | None) -> Ints:
    """(N,) the lowest place from 0 on, or the highest below `height`, clear of what lies from `starts` to `ends`, (R, N)."""
    if len(starts) == 1 and height is None:  # the most frequent cases by far: it lies to one side of the only other
        return np.asarray(np.where(size <= starts[0], 0, ends[0]))
    if len(starts) == 1 and height is not None:
        top = height - size
        return np.asarray(np.maximum(starts[0] - size, np.where((top >= ends[0]) | (height <= starts[0]), top, -1)))
    options = np.vstack([np.zeros_like(size), ends] if height is None else [height - size, starts - size])
    free = ((options[:, None] + size <= starts) | (options[:, None] >= ends)).all(axis=1)
    if height is None:
        return np.asarray(np.where(free, options, NOWHERE).min(axis=0))
    return np.asarray(np.where(free, options, -1).max(axis=0))
