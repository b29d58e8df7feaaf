"""Register tiles for the CUDA cores: how many channels, columns and images one thread computes, and how many threads share a block.

In: the extents of a kernel's convolutions. Out: a `Block` for each and the number of threads. The choice changes speed alone:
the sum of one output runs in the same order whatever the block.

The estimate counts, for one streaming multiprocessor, multiply-adds (4 warp instructions a cycle), scratch wavefronts (one a
cycle, more with bank conflicts) and weight loads, and the latency of a warp that has to do its items one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd

MAX_SUMS = 64  # accumulators a thread may hold
MAX_VALUES = 112  # accumulators, window and weights together
THREADS = (64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
WIDE_KERNEL = 12  # columns from which a window is not kept in registers


@dataclass(frozen=True)
class Work:
    """Extents of one convolution stage, as far as blocking goes."""

    images: int
    channels: int  # computed per image
    group_channels: int  # a block of channels must stay inside a group
    rows: int
    columns: int
    depth: int  # input channels per group
    kernel_y: int
    kernel_x: int
    stride_x: int
    dilation_x: int

    @property
    def wide(self) -> bool:
        return self.kernel_x >= WIDE_KERNEL


@dataclass(frozen=True)
class Block:
    """Channels, columns and images one thread computes at once."""

    channels: int = 1
    columns: int = 1
    images: int = 1

    @property
    def sums(self) -> int:
        return self.channels * self.columns * self.images


@dataclass(frozen=True)
class Estimate:
    """Cycles of one stage on one multiprocessor: what its units need at least, and what one block alone takes."""

    throughput: float
    latency: float


def _divisors(n: int, most: int) -> list[int]:
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


@lru_cache(maxsize=65536)
def candidates(work: Work) -> tuple[Block, ...]:
    """Blocks that fit the registers."""
    span = (work.kernel_x - 1) * work.dilation_x + 1
    blocks = []
    for c in _divisors(work.group_channels, 16):
        if work.channels % c:
            continue
        for x in range(1, min(work.columns, 8) + 1):
            for n in _divisors(work.images, 8):
                window = n if work.wide else n * ((x - 1) * work.stride_x + span)
                if c * x * n <= MAX_SUMS and c * x * n + window + c <= MAX_VALUES:
                    blocks.append(Block(c, x, n))
    return tuple(blocks)


@lru_cache(maxsize=262144)
def estimate(work: Work, block: Block, threads: int) -> Estimate:
    """Cycles of one stage of one block of threads."""
    x_blocks = ceil(work.columns / block.columns)
    items = x_blocks * work.rows * (work.channels // block.channels) * (work.images // block.images)
    warps = ceil(items / 32)
    rows = work.depth * work.kernel_y
    span = (block.columns - 1) * work.stride_x + (work.kernel_x - 1) * work.dilation_x + 1
    reads = block.images * (work.kernel_x * block.columns if work.wide else min(span, work.kernel_x * block.columns))
    lane_step = block.columns * work.stride_x if x_blocks > 1 else work.columns
    conflicts = gcd(lane_step, 32) if x_blocks * work.rows > 1 else 1
    width = 4 if block.channels % 4 == 0 else 2 if block.channels % 2 == 0 else 1
    same_weights = x_blocks * work.rows >= 32
    weights = work.kernel_x * block.channels / width
    sums = work.kernel_x * block.sums
    wavefronts = reads * min(conflicts, 8) + weights * (1 if same_weights else min(width, 2))
    instructions = sums + reads + weights + 6
    throughput = warps * rows * max(instructions / 4, wavefronts)
    rounds = ceil(items / threads)
    stall = max(1.0, 4.0 / min(block.sums, 8))
    latency = rounds * (rows * (sums * stall + reads + weights + 30 / (1 + block.sums / 8)) + 60) + 40
    return Estimate(throughput, latency)


def block_step(work: Work) -> int:
    return work.stride_x


def best_block(work: Work, threads: int, blocks_per_core: int) -> tuple[Block, Estimate]:
    """The block with the least time when `blocks_per_core` blocks share a multiprocessor."""
    scored = [(max(e.throughput, e.latency / blocks_per_core), b.sums, b, e)
              for b in candidates(work) for e in (estimate(work, b, threads),)]
    _, _, block, least = min(scored, key=lambda s: s[:2])
    return block, least


@dataclass(frozen=True)
class Blocking:
    """Threads per block, blocks expected to share a multiprocessor, and the register tile of every convolution."""

    threads: int
    blocks_per_core: int
    blocks: tuple[Block, ...]
    cycles: float


def choose(works: Sequence[Work], *, scratch_bytes: int, scratch_per_core: int, registers: int, max_threads: int,
           positions: int, alone: bool) -> Blocking:
    """Threads and register tiles for a kernel.

    Parameters
    ----------
    works
        The kernel's convolutions, in order.
    positions
        Largest number of outputs of a stage that is no convolution, so that those find enough threads.
    alone
        Plan for a grid with no more than one block per multiprocessor.
    """
    best: Blocking | None = None
    for threads in THREADS:
        if threads > max_threads:
            continue
        residents = 1 if alone else max(1, min(max_threads // threads, 8, registers // (threads * 64),
                                               scratch_per_core // (scratch_bytes + 1024)))
        chosen = [best_block(w, threads, residents) for w in works]
        other = positions / threads * 12
        throughput = sum(e.throughput for _, e in chosen) + positions / 32 * 3
        latency = sum(e.latency for _, e in chosen) + other + threads * 0.2
        cycles = max(throughput, latency / residents)
        if best is None or cycles < best.cycles * 0.98:
            sums = max((b.sums for b, _ in chosen), default=1)
            wanted = min(255, 40 + sums + sums // 2)
            residents = max(1, min(residents, registers // (threads * wanted)))
            best = Blocking(threads, residents, tuple(b for b, _ in chosen), cycles)
    assert best is not None
    return best
