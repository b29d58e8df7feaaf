"""Places in scratch: which tensors of a chain have one, for how long, and where it is.

In: a chain and its staged inputs; sizes, for one tile or for many at once. Out: lives, counted in steps, and offsets in
elements. A step is what runs between two barriers: a stage, or a convolution and the pool that takes its output from registers.
What the convolution reads is still read while the pool writes, so both live through the whole step. `construct` and `scratch`
share this, the verifier works it out again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from fusec.plan.counting import Ints
from fusec.plan.merge import merged_pools
from fusec.schedule.ir import Chain

ALIGN = 16  # elements (64 bytes) every buffer starts at a multiple of: a cache line, and any vector


@dataclass(frozen=True)
class Life:
    """A tensor in scratch, with the step that makes it and the last one that reads it."""

    tensor: str
    first: int
    last: int

    def meets(self, other: Life) -> bool:
        return self.first <= other.last and other.first <= self.last


def steps(chain: Chain, staged: Collection[str]) -> list[tuple[str, ...]]:
    """The tensors made in each step, staged inputs just before their first reader."""
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


def lives(chain: Chain, staged: Collection[str]) -> list[Life]:
    """Every tensor that has a place in scratch, in the order they are made."""
    made = {tensor: i for i, step in enumerate(steps(chain, staged)) for tensor in step}
    last = {t: made[n.name] for n in chain.nodes for t in n.inputs}  # nodes are in order: the last reader wins
    kept = merged_pools(chain)
    return [Life(t, i, last[t]) for t, i in made.items() if t != chain.output and t not in kept]


def offsets(lives: Sequence[Life], sizes: Sequence[Ints]) -> list[Ints]:
    """First fit for N tiles together: in the order of birth, each at the lowest place free during its life.

    Parameters
    ----------
    sizes
        Elements of each tensor, (N,); all tiles are placed independently.

    Returns
    -------
    list
        For each tensor (N,) offsets, multiples of `ALIGN`.
    """
    taken = [-(-s // ALIGN) * ALIGN for s in sizes]
    found: list[Ints] = []
    for i, life in enumerate(lives):
        rivals = [j for j in range(i) if lives[j].meets(life)]
        best = np.full_like(taken[i], np.iinfo(np.int64).max)
        for place in (np.zeros_like(taken[i]), *(found[j] + taken[j] for j in rivals)):
            free = np.ones(len(place), dtype=np.bool_)
            for j in rivals:
                free &= (place + taken[i] <= found[j]) | (place >= found[j] + taken[j])
            best = np.where(free, np.minimum(best, place), best)
        found.append(best)
    return found
