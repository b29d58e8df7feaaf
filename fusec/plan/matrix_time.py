"""The time model's part for matrix instructions: cycles of one convolution for many tiles at once.

In: extents of a convolution, arrays of N. Out: cycles. The blocks of fragments that the mapping would choose are tried, and the
best counts. The constants are the sizes of units and the instructions of the generated code; none has been measured yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusec.plan.counting import Ints

Floats = NDArray[np.float64]

WARPS = 8  # of a block
FEW_CHANNELS = 4  # input channels up to which taps and channels are one axis of products
BLOCKS = ((1, 8, 2), (1, 4, 4), (2, 4, 2), (1, 4, 2), (2, 2, 4), (1, 2, 8), (1, 4, 1), (1, 2, 4), (1, 1, 8), (1, 1, 4),
          (1, 1, 2), (1, 1, 1))  # fragments side by side, rows, groups of eight channels of a warp
PRODUCT = 1.8  # cycles of a multiprocessor for an m16n8k16 product
FRAGMENT_LOAD, WEIGHT_LOAD = 4.0, 2.0  # cycles of scratch bandwidth
GATHER, GATHER_LOAD = 26.0, 8.0  # instructions, and cycles of scratch bandwidth, of a fragment collected value by value
DIRECT = 60.0  # instructions of a fragment read from device memory, with its border tests
STORE = 9.0  # instructions of a pair of outputs
TASK = 40.0  # instructions of a task besides
LATENCY = 40.0  # cycles from the loads of a step to its first product


@dataclass(frozen=True, eq=False)
class Convolution:
    """Extents of what a convolution makes at a time, (N,) each, and its layer's."""

    columns: Ints  # of all images
    rows: Ints
    channels: Ints
    inputs: int
    kernel: tuple[int, int]
    stride: int
    extra: float  # instructions of the epilogue per output
    direct: bool  # reads device memory
    pool: tuple[int, int] = (1, 1)


def cycles(c: Convolution) -> tuple[Floats, Floats]:
    """(busy, path) cycles: of the units of a multiprocessor, and of one block alone."""
    fragments, rows, groups = (np.array(v, dtype=np.float64)[:, None] for v in zip(*BLOCKS, strict=True))
    turns = np.ones_like(rows)
    made = -(-c.channels // 8)
    groups = np.minimum(groups, made)
    height = c.rows / c.pool[0]
    columns = 16.0 * fragments
    if c.pool != (1, 1):
        fragments, columns = np.full_like(rows, -(-c.pool[1] // 2)), np.full_like(rows, 8.0 * c.pool[1])
        turns, rows = np.ceil(c.pool[0] / rows), np.minimum(rows, c.pool[0])
    else:
        rows = np.minimum(rows, c.rows)
    few = c.inputs <= FEW_CHANNELS
    steps = np.ceil(c.inputs * c.kernel[0] * c.kernel[1] / 16) if few else c.kernel[1] * np.ceil(c.inputs / 8) / 2
    filter_rows = 1 if few else c.kernel[0]
    lines = rows if few else np.minimum((rows - 1) * c.stride + c.kernel[0], rows * c.kernel[0])
    tasks = np.ceil(c.columns / columns) * np.ceil(height / np.where(turns > 1, 1, rows / c.pool[0])) * np.ceil(made / groups)
    products = steps * filter_rows * rows * fragments * groups * turns
    loads, weights = steps * lines * fragments * turns, steps * filter_rows * groups * turns
    gathered = few or c.direct
    sums = fragments * rows * groups * turns
    collecting = DIRECT if c.direct else GATHER if few else 2.0
    instructions = products + loads * collecting + 1.5 * weights + (STORE + 2 * c.extra) * 2 * sums + TASK
    scratch = loads * (GATHER_LOAD if gathered else FRAGMENT_LOAD) + weights * WEIGHT_LOAD + 2 * sums
    busy = tasks * np.maximum(np.maximum(products * PRODUCT, scratch), instructions / 4)
    active = np.minimum(tasks, WARPS)
    alone = products * PRODUCT * 4 / np.clip(active, 1, 4) + instructions + steps * turns * LATENCY
    shared = np.maximum(np.ceil(active / 4) * np.maximum(products * PRODUCT * 4, instructions), active * scratch)
    path = np.ceil(tasks / WARPS) * np.maximum(alone, shared)
    best = np.argmin(np.maximum(busy, path / 2), axis=0)[None]
    return np.take_along_axis(busy, best, 0)[0], np.take_along_axis(path, best, 0)[0]
