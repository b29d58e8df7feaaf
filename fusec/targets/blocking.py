"""Register tiles for the CUDA cores: channels, columns and images one thread computes, and the threads that share a block.

In: the extents of a kernel's convolutions. Out: a `Block` for each and the number of threads. The choice changes speed alone:
the sum of one output runs in the same order whatever the block.

The estimate counts, for one streaming multiprocessor, warp instructions (4 a cycle) and scratch wavefronts (one a cycle, more
with bank conflicts), and follows the slowest warp of a block from barrier to barrier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

MAX_SUMS = 64  # accumulators a thread may hold
MAX_VALUES = 112  # accumulators, window and weights together
THREADS = (64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
WIDE_KERNEL = 12  # columns from which a window is not kept in registers
BANKS = 32
LATENCY = 60  # cycles from a load of scratch, or of the first-level cache, to its use, with what queues before it
GLOBAL_LATENCY = 100  # the same for device memory, mostly found in the caches
LONE_WARP = 1.0  # cycles per instruction of a warp that has a scheduler to itself
OVERLAP = 1.5  # how well co-resident blocks hide each other's waiting: 1 not at all, large perfectly
REGISTERS = 128  # a thread is taken to want before its blocks are known
UNROLLED_SUMS = 600  # multiply-adds a loop body may hold
OTHER = 40  # registers a thread wants besides sums, inputs and weights
HELD_WEIGHTS = 32  # weights under way at once, at most
UNROLLED_WEIGHTS = 144  # weights of one input channel a thread may hold when the kernel's rows are unrolled
BARRIER = 60  # cycles from the last warp's arrival at a barrier to the first instruction behind it


@dataclass(frozen=True)
class Work:
    """Extents of one convolution stage, as far as blocking goes. With a merged pool, rows and columns are the pool's."""

    images: int
    channels: int  # computed per image
    group_channels: int  # a block of channels must stay inside a group
    rows: int
    columns: int
    depth: int  # input channels per group
    kernel_y: int
    kernel_x: int
    stride_y: int
    stride_x: int
    dilation_x: int
    row_pitch: int  # of the buffer that is read; 0 for device memory
    image_pitch: int
    pool_y: int = 1
    pool_x: int = 1

    @property
    def wide(self) -> bool:
        return self.kernel_x >= WIDE_KERNEL


@dataclass(frozen=True)
class Block:
    """Channels, columns (of the convolution) and images one thread computes at once."""

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


def _window(work: Work, block: Block) -> int:
    """Input values of one row a thread keeps for one image."""
    if work.wide:
        return 1
    return (block.columns - 1) * work.stride_x + (work.kernel_x - 1) * work.dilation_x + 1


@lru_cache(maxsize=65536)
def candidates(work: Work) -> tuple[Block, ...]:
    """Blocks that fit the registers."""
    blocks = []
    for c in _divisors(work.group_channels, 16):
        if work.channels % c:
            continue
        for x in range(1, min(work.columns, 14 // work.pool_x) + 1):
            for n in _divisors(work.images, 8):
                block = Block(c, x * work.pool_x, n)
                kept = block.sums + n * _window(work, block) + c + (c * x * n if work.pool_x * work.pool_y > 1 else 0)
                if block.sums <= MAX_SUMS and (kept <= MAX_VALUES or block.sums == work.pool_x):
                    blocks.append(block)
    return tuple(blocks)


@lru_cache(maxsize=65536)
def _wavefronts(work: Work, block: Block) -> int:
    """Wavefronts of one load of an input value by a warp: the most addresses that fall into one bank."""
    x_blocks = ceil(work.columns * work.pool_x / block.columns)
    c_blocks = work.channels // block.channels
    addresses = set()
    for lane in range(32):
        x, rest = lane % x_blocks, lane // x_blocks
        y, n = rest % work.rows, rest // (work.rows * c_blocks)
        pitch = work.row_pitch or work.columns * work.stride_x * work.pool_x
        addresses.add(n * block.images * work.image_pitch + y * work.stride_y * work.pool_y * pitch
                      + x * block.columns * work.stride_x)
    if work.row_pitch == 0:
        return len({a // 32 for a in addresses})
    return max(Counter(a % BANKS for a in addresses).values())


@lru_cache(maxsize=262144)
def estimate(work: Work, block: Block, threads: int) -> Estimate:
    """Cycles of one stage of one block of threads."""
    x_blocks = ceil(work.columns * work.pool_x / block.columns)
    items = x_blocks * work.rows * (work.channels // block.channels) * (work.images // block.images)
    warps = ceil(items / 32)
    rows = work.depth * work.kernel_y * work.pool_y
    span = _window(work, block)
    reads = block.images * (work.kernel_x * block.columns if work.wide else min(span, work.kernel_x * block.columns))
    width = 4 if block.channels % 4 == 0 or block.channels == work.group_channels else 2 if block.channels % 2 == 0 else 1
    weights = work.kernel_x * ceil(block.channels / width)
    instructions = work.kernel_x * block.sums + reads * (1 if work.row_pitch else 2) + weights + 8
    wavefronts = reads * _wavefronts(work, block) + weights * (1 if x_blocks * work.rows >= 32 else 2)
    tail = block.sums * (5 if work.row_pitch else 8) + 60  # epilogue, store, position
    throughput = warps * max((rows * instructions + tail) / 4, rows * wavefronts)
    rounds = ceil(items / threads)
    active = min(warps, threads // 32)
    unrolled = unroll_y(work, block)
    latency = LATENCY if work.row_pitch else GLOBAL_LATENCY
    waiting = instructions * LONE_WARP + latency / unrolled + work.kernel_x * max(0, 4 - block.sums)
    round_cycles = rows * max(ceil(active / 4) * instructions, active * wavefronts, waiting) + tail
    return Estimate(throughput, rounds * round_cycles + BARRIER)


def best_block(work: Work, threads: int, blocks_per_core: int) -> tuple[Block, Estimate]:
    """The block with the least time when `blocks_per_core` blocks share a multiprocessor."""
    scored = [(_together(e.throughput, e.latency / blocks_per_core), b.sums, b, e)
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


def choose(works: Sequence[Work], *, scratch_bytes: int, scratch_per_core: int, registers: int, threads_per_core: int,
           positions: int, least: int, share: int) -> Blocking:
    """Threads and register tiles for a kernel.

    Parameters
    ----------
    works
        The kernel's convolutions, in order.
    positions
        Outputs of all stages that are no convolutions, so that those find enough threads.
    least
        Registers a thread wants for the stages that are no convolutions.
    share
        Blocks there will be for each multiprocessor, at most.
    """
    best: Blocking | None = None
    for threads in reversed(THREADS):  # of equals the larger block: it loses less when there are fewer tiles than planned for
        if threads > threads_per_core:
            continue
        limit = max(1, min(share, threads_per_core // threads, 16, scratch_per_core // (scratch_bytes + 1024)))
        residents = min(limit, resident_blocks(registers, threads, max(least, REGISTERS)))
        chosen = [best_block(w, threads, residents) for w in works]
        wanted = max(least, _registers(works, [b for b, _ in chosen]))
        if registers_left(registers, threads, 1) < wanted and threads > THREADS[0]:
            continue
        residents = min(limit, resident_blocks(registers, threads, wanted))
        throughput = sum(e.throughput for _, e in chosen) + positions / 32 * 5
        latency = sum(e.latency for _, e in chosen) + (positions / threads + 1) * 20 + threads * 0.2
        cycles = _together(throughput, latency / residents)
        if best is None or cycles < best.cycles * 0.96:
            best = Blocking(threads, residents, tuple(b for b, _ in chosen), cycles)
    assert best is not None
    return best


def _together(throughput: float, latency: float) -> float:
    """Time of blocks that share a multiprocessor: the units' time and the waiting overlap, but not perfectly."""
    return float((throughput**OVERLAP + latency**OVERLAP) ** (1 / OVERLAP))


def _registers(works: Sequence[Work], blocks: Sequence[Block]) -> int:
    """Registers a thread will want, from its largest block; the compiler is held to what this leaves room for."""
    wanted = [40]
    for work, block in zip(works, blocks, strict=True):
        pooled = block.sums // work.pool_x if work.pool_x * work.pool_y > 1 else 0
        inputs = 3 * block.images * _window(work, block) // 2 + (0 if work.row_pitch else 16)
        weights = min(2 * block.channels, HELD_WEIGHTS)
        wanted.append(OTHER + block.sums + pooled + inputs + weights)
    return min(255, max(wanted))


def resident_blocks(registers: int, threads: int, wanted: int) -> int:
    """Blocks that share a multiprocessor of four partitions when a thread takes `wanted` registers; at least one."""
    blocks = 1
    while registers_left(registers, threads, blocks + 1) >= wanted:
        blocks += 1
    return blocks


def registers_left(registers: int, threads: int, blocks: int) -> int:
    """Registers a thread may have when `blocks` blocks share a multiprocessor's four partitions."""
    return registers // 4 // 32 // ceil(blocks * ceil(threads / 32) / 4) // 8 * 8


def unroll_y(work: Work, block: Block) -> int:
    """Kernel rows unrolled: all of them while the weights of one input channel fit in registers, else one."""
    taps = work.kernel_y * work.kernel_x
    return work.kernel_y if taps * block.channels <= UNROLLED_WEIGHTS and taps * block.sums <= UNROLLED_SUMS else 1
