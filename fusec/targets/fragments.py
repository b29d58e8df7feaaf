"""Blocks of fragments: what a warp of a matrix kernel computes at once, for each convolution, and how many threads there are.

In: the extents of a kernel's convolutions. Out: a block for each and threads per block. The cycles estimated here rank blocks
alone; time models of whole kernels are the planner's, and `plan/matrix_time.py` follows every change made here. Constants began
as estimates from the instruction set and the sizes of the units; those of waiting were fitted to eight kernels at four numbers
of threads each, on an H200.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, gcd

from fusec.targets.blocking import registers_left, resident_blocks
from fusec.targets.device import MOST_HELD

THREADS = (128, 192, 256, 384, 512)
MOST_SUMS = 96  # accumulators of a lane
MOST_WEIGHTS = 64  # registers of weights held for all filter rows
OTHER = 44  # registers besides sums, weights and a fragment
UNROLLED = 192  # products a loop body may hold
PRODUCT = 1.76  # cycles a multiprocessor takes for an m16n8k16 product
FRAGMENT_LOAD, WEIGHT_LOAD = 4.0, 2.0  # cycles of scratch bandwidth: 512 and 256 bytes at 128 a cycle
GATHER = 26.0  # instructions that collect a fragment of taps
STORE = 9.0  # instructions of a pair of outputs: epilogue, rounding, place, store
LATENCY = 61.0  # cycles from the loads of a step to its first product
BARRIER = 60.0
ISSUE = 2.5  # cycles from one instruction of a warp to its next
POSITION, POSITION_LATENCY = 38.0, 25.0  # instructions of an output of another stage, and cycles a thread takes for it
WAITING = 1.5  # exponent: 1 if blocks' waiting adds to the units' time, more if that hides it in part


@dataclass(frozen=True)
class Work:
    """Extents of one convolution as far as fragments go. With a merged pool, columns and rows are the pool's."""

    columns: int  # of all images of the tile
    rows: int
    groups: int  # of eight output channels
    inside: int  # the same of what reads the same input channels: a block must stay inside one
    depth: int  # input channels per output
    kernel_y: int
    kernel_x: int
    stride_y: int
    dilation_y: int
    gathered: bool  # fragments are collected value by value, or pair by pair from device memory
    pool_y: int = 1
    pool_x: int = 1

    @property
    def pooled(self) -> bool:
        return self.pool_y * self.pool_x > 1

    @property
    def steps(self) -> int:
        """Turns of the outer loop."""
        return self.kernel_x * ceil(self.depth / 16)


@dataclass(frozen=True)
class Block:
    """Fragments side by side, rows (of the convolution) and groups of eight channels that a warp computes at once.

    `reused`: an input row is loaded once for all filter rows, whose weights wait in registers. `held`: all weights stay there
    from one task to the next.
    """

    fragments: int
    rows: int
    groups: int
    reused: bool
    held: bool = False

    @property
    def sums(self) -> int:
        return 4 * self.fragments * self.rows * self.groups


def tasks(work: Work, block: Block) -> int:
    """Pieces of the stage, one for a warp at a time."""
    columns, rows = (8, 1) if work.pooled else (16 * block.fragments, block.rows)
    return ceil(work.columns / columns) * ceil(work.rows / rows) * (work.groups // block.groups)


def _divisors(n: int, most: int) -> list[int]:
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


@lru_cache(maxsize=4096)
def candidates(work: Work) -> tuple[Block, ...]:
    """Blocks that fit the registers; the smallest one always."""
    found = []
    fragments = (ceil(work.pool_x / 2),) if work.pooled else (1, 2)
    rows = _divisors(work.pool_y, 8) if work.pooled else range(1, min(work.rows, 8) + 1)
    for f in fragments:
        for r in rows:
            for g in _divisors(gcd(work.groups, work.inside), 16):
                reused = work.kernel_y * g * 2 <= MOST_WEIGHTS and work.kernel_y * f * r * g <= UNROLLED
                block = Block(f, r, g, reused)
                if block.sums <= MOST_SUMS or (r == g == 1 and f == fragments[0]):
                    found.append(block)
                    if _may_be_held(work, block):
                        found.append(replace(block, held=True))
    return tuple(found)


def may_be_held(work: Work) -> bool:
    """Whether a warp can keep all weights that any of its tasks wants."""
    return work.groups == work.inside and 2 * work.steps * work.kernel_y * work.groups <= MOST_HELD


def _may_be_held(work: Work, block: Block) -> bool:
    """Whether that is so with this block, in a loop that can be unrolled."""
    products = work.steps * work.kernel_y * block.fragments * block.rows * block.groups
    return may_be_held(work) and block.groups == work.groups and block.reused and products <= UNROLLED


def _rows_loaded(work: Work, block: Block) -> int:
    """Input rows loaded for each filter column and group of channels."""
    if not block.reused:
        return block.rows * work.kernel_y
    return len({r * work.stride_y + k * work.dilation_y for r in range(block.rows) for k in range(work.kernel_y)})


@dataclass(frozen=True)
class Estimate:
    """Cycles of one stage on one multiprocessor: what its units need at least, and what one block alone takes."""

    throughput: float
    latency: float


@lru_cache(maxsize=65536)
def estimate(work: Work, block: Block, threads: int) -> Estimate:
    """Cycles of one stage of one block of threads."""
    turns = work.pool_y // block.rows if work.pooled else 1  # of a task
    count = tasks(work, block)
    loads = work.steps * _rows_loaded(work, block) * block.fragments * turns
    weights = 0 if block.held else work.steps * work.kernel_y * block.groups * turns
    products = work.steps * work.kernel_y * block.rows * block.fragments * block.groups * turns
    instructions = products + loads * (GATHER if work.gathered else 2.0) + 1.5 * weights + STORE * block.sums / 2 * turns + 40
    scratch = loads * (8.0 if work.gathered else FRAGMENT_LOAD) + weights * WEIGHT_LOAD + block.sums / 2
    throughput = count * max(products * PRODUCT, scratch, instructions / 4)
    warps = threads // 32
    active, rounds = min(count, warps), ceil(count / warps)
    first = LATENCY + work.steps * work.kernel_y * block.groups if block.held else 0.0
    alone = products * PRODUCT * 4 / max(1, min(4, active)) + instructions * ISSUE + work.steps * turns * LATENCY
    shared = max(ceil(active / 4) * max(products * PRODUCT * 4, instructions), active * scratch)
    return Estimate(throughput, first + rounds * max(alone, shared) + BARRIER)


def best_block(work: Work, threads: int, residents: int, room: int) -> Block:
    """The block with the least time when `residents` blocks of threads share a multiprocessor.

    Of those whose lanes get by with `room` registers, or of those with the fewest where none does."""
    least = min(registers_of(work, block) for block in candidates(work))
    fitting = (block for block in candidates(work) if registers_of(work, block) <= max(room, least))
    return min(fitting, key=lambda block: _cycles(estimate(work, block, threads), residents))


@dataclass(frozen=True)
class Choice:
    """Threads per block, blocks expected to share a multiprocessor, and a block of fragments for every convolution."""

    threads: int
    blocks_per_core: int
    blocks: tuple[Block, ...]
    cycles: float


def choose(works: Sequence[Work], *, scratch_bytes: int, scratch_per_core: int, registers: int, threads_per_core: int,
           positions: int, least: int, share: int) -> Choice:
    """Threads and blocks of fragments for a kernel.

    Parameters
    ----------
    works
        The kernel's convolutions by matrix instructions, in order.
    positions
        Outputs of all other stages.
    least
        Registers a thread wants for those.
    share
        Blocks there will be for each multiprocessor, at most.
    """
    best: Choice | None = None
    for threads in THREADS:
        if threads > threads_per_core:
            continue
        chosen = [best_block(w, threads, 1, registers_left(registers, threads, 1)) for w in works]
        wanted = max([OTHER, least, *(registers_of(w, b) for w, b in zip(works, chosen, strict=True))])
        if registers_left(registers, threads, 1) < wanted and threads > THREADS[0]:
            continue
        limit = max(1, min(share, threads_per_core // threads, 16, scratch_per_core // (scratch_bytes + 1024)))
        residents = min(limit, resident_blocks(registers, threads, wanted))
        chosen = [best_block(w, threads, residents, registers_left(registers, threads, residents)) for w in works]
        estimates = [estimate(w, b, threads) for w, b in zip(works, chosen, strict=True)]
        total = Estimate(sum(e.throughput for e in estimates) + positions / 128 * POSITION,
                         sum(e.latency for e in estimates) + (positions / threads + 1) * POSITION_LATENCY + threads * 0.2)
        cycles = _cycles(total, residents)
        if best is None or cycles < best.cycles * 0.98:
            best = Choice(threads, residents, tuple(chosen), cycles)
    assert best is not None
    return best


def _cycles(e: Estimate, residents: int) -> float:
    """Time of blocks that share a multiprocessor: the units' time and the waiting overlap, but not perfectly."""
    return float((e.throughput**WAITING + (e.latency / residents)**WAITING) ** (1 / WAITING))


def registers_of(work: Work, block: Block) -> int:
    """Registers a lane will want."""
    weights = work.kernel_y * block.groups * 2 if block.reused else 4 * block.groups
    if block.held:
        weights = work.steps * work.kernel_y * block.groups * 2
    pooled = 2 * block.groups if work.pooled else 0
    return min(255, OTHER + block.sums + weights + pooled + 8 * block.fragments)


def unrolled(steps: int, body: int) -> int:
    """Turns of the outer loop unrolled: all of a few, else some, so that loads of the next are under way during products."""
    most = max(1, UNROLLED // body)
    return steps if steps <= min(3, most) else min(2, most)
