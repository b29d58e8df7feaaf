"""Blocks of columns of stages that go by planes: how many columns of eight channels a thread computes at once.

In: the extents of a depthwise convolution. Out: its block. The cycles estimated here rank blocks alone; instructions are
counted in the generated code, scratch serves 128 bytes a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd

MOST_COLUMNS = 8
WIDEST = 7  # columns of a kernel up to which a row of weights is kept in registers
OTHER = 48  # registers besides sums and weights: addresses, values under way
UNROLLED = 640  # multiply-adds a loop body may hold
LOAD, OUTPUT, POSITION = 9.0, 34.0, 60.0  # instructions: eight values as floats, an epilogue with its store, a block besides
LATENCY = 60.0  # cycles from a load to its use


@dataclass(frozen=True)
class Work:
    """Extents of a depthwise convolution."""

    images: int
    planes: int
    rows: int
    columns: int
    kernel_y: int
    kernel_x: int
    stride_x: int
    dilation_x: int

    @property
    def wide(self) -> bool:
        return self.kernel_x > WIDEST

    @property
    def positions(self) -> int:
        """Values written, in those of a layer that loads and stores one value at a time and step."""
        taps = self.kernel_y * self.kernel_x
        return ceil(self.images * self.planes * 8 * self.rows * self.columns * (1.5 * taps + 5) / 5)


def registers(work: Work, columns: int) -> int:
    """Registers a thread with blocks of `columns` will want."""
    return OTHER + 8 * (columns + (1 if work.wide else work.kernel_x))


def _loads(work: Work, columns: int) -> int:
    """Values of a row under a block."""
    if work.wide:
        return work.kernel_x * columns
    return len({p * work.stride_x + k * work.dilation_x for p in range(columns) for k in range(work.kernel_x)})


def _cycles(work: Work, columns: int, threads: int) -> float:
    """Cycles of all blocks on one multiprocessor that has nothing else to do."""
    items = ceil(work.columns / columns) * work.rows * work.planes * work.images
    loads, taps = work.kernel_y * _loads(work, columns), work.kernel_y * work.kernel_x
    instructions = LOAD * loads + (8 * columns + 2) * taps + OUTPUT * columns + POSITION
    conflict = gcd(8, columns * work.stride_x)  # eight lanes share a wavefront: their addresses lie so many pixels apart
    wavefronts = 4.0 * conflict * loads + 2 * taps
    warps, active = ceil(items / 32), min(threads, items) / 32
    busy = warps * max(instructions / 4, wavefronts)
    return float(max(busy, ceil(items / threads) * (max(instructions, active * wavefronts) + LATENCY * work.kernel_y)))


@lru_cache(maxsize=4096)
def best_columns(work: Work, threads: int, room: int) -> int:
    """The columns with the least time among those that fit in `room` registers; 1 always does."""
    fitting = [c for c in range(1, min(work.columns, MOST_COLUMNS) + 1) if c == 1 or registers(work, c) <= room]
    return min(fitting, key=lambda c: (_cycles(work, c, threads), c))


def unroll_y(work: Work, columns: int) -> int:
    """Kernel rows unrolled: all of them while the loop's body stays small."""
    return work.kernel_y if 8 * columns * work.kernel_x * work.kernel_y <= UNROLLED else 1
