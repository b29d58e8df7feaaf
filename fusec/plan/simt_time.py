"""The time model's part for CUDA cores: what one stage asks of a multiprocessor, for many tiles at once.

In: extents of a stage, arrays of N. Out: a `Demand`: cycles of its units, and of one block alone for each number of threads.
Which block of registers a thread gets follows the estimate of the mapping, simplified; nothing here decides it.

The constants are instructions and cycles of the generated code, fitted with those of `timing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusec.plan.counting import Ints

Floats = NDArray[np.float64]

WARP = 32
LINE = 32  # words of four bytes that travel together
SCHEDULERS = 4  # warp instructions a multiprocessor issues per cycle
THREADS = np.array([[t] for t in (64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024)], dtype=np.float64)  # of a block

# which registers a thread takes
MOST_SUMS, MOST_COLUMNS, MOST_CHANNELS = 64, 14, 16
WIDTHS = (1, 2, 4)  # how many times as many blocks side by side as the widest make
CHANNEL_BLOCKS = 5  # of the divisors of a layer's channels, the largest
TYPICAL_THREADS, TYPICAL_BLOCKS = 192.0, 2.0  # for which blocks of registers are chosen
OWN_REGISTERS, LINEAR_REGISTERS = 40.0, 128.0  # of a thread, besides sums, inputs and weights; of a thread of a linear layer
WIDE_KERNEL = 12  # columns from which inputs are read once for each product
UNROLLED_WEIGHTS, UNROLLED_SUMS = 144, 600  # up to which a loop over kernel rows is unrolled

# what instructions cost
PRODUCT = 1.3  # instructions issued for each of the inner loops
GUARDED_READ = 4.4  # for a read of device memory with its border test
STORE = 8.4  # to finish one output of a convolution
OTHER = 104.0  # to place and store one output of any other layer, on top of one per value read
EXTRA = 2.5  # for each of an epilogue
SCRATCH_READ = 0.18  # cycles for a warp's read of scratch, for each time a bank is asked again
LINE_READ = 0.32  # cycles for each line of device memory that a warp reads
LINE_WRITE = 2.5  # and for each that it writes: those of different instructions are not put together
SERIAL = 0.7  # cycles from one instruction of a warp to its next
SCRATCH_LATENCY = 38.9  # cycles until values of scratch are there
GLOBAL_LATENCY = 186.0  # cycles until values of device memory are there


@dataclass(frozen=True, eq=False)
class Access:
    """How a stage moves through a tensor of device memory: (N,) columns of its box, whether these are whole rows, and the
    columns at multiples of which boxes begin."""

    columns: Ints
    whole: NDArray[np.bool_]
    aligned: Ints
    words: int = 1  # of four bytes, from one column to the next


@dataclass(frozen=True, eq=False)
class Demand:
    """Cycles of the schedulers, of scratch and the first-level cache, and of stores to device memory, (N,) each; cycles of one
    block alone, (T, N) for each of `THREADS`; registers a thread wants, (N,); and by what the mapping chooses the threads:
    its own estimate of the cycles of all units, (N,), and of one block alone, (T, N)."""

    issue: Floats
    reads: Floats
    writes: Floats
    path: Floats
    units: Floats
    alone: Floats
    registers: Floats | float = OWN_REGISTERS


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution stage; (N,) arrays, then what its layer says. With a merged pool the extents are the convolution's."""

    images: Ints
    channels: Ints
    rows: Ints
    columns: Ints
    together: int  # output channels of which a block must be part: those of one group
    inputs: int
    kernel: tuple[int, int]
    stride: int
    pool: tuple[int, int]
    extra: float


@dataclass(frozen=True, eq=False)
class Counts:
    """What one pass of a convolution does, (N,) each, with the block of registers that suits its extents best."""

    warps: Floats
    items: Floats  # blocks of registers
    across: Floats  # of them side by side
    columns: Floats  # of one, of the convolution
    sums: Floats
    loops: int  # turns of a thread's loop over input channels and kernel rows
    unrolled: Floats  # of them whose loads are under way together
    products: Floats  # instructions of one turn
    values: Floats  # inputs read in one turn
    conflicts: Floats  # accesses of scratch one turn makes: its inputs, as often as their banks are asked
    weights: Floats  # the same of its weights
    registers: Floats
    units: Floats  # the mapping's estimate, as in `Demand`
    alone: Floats


_known: dict[tuple[object, ...], Counts] = {}
KNOWN = 4096  # convolutions remembered


def convolution(work: Convolution, read: Access | None, written: Access | None) -> Demand:
    """What a convolution asks for; `read` and `written` where its input and output are in device memory."""
    n = counts(work, read is not None)
    turns = n.warps * n.loops
    values = turns * n.values
    lines: Floats | float = n.conflicts * SCRATCH_READ
    if read is not None:
        lines = n.values * LINE_READ * touched(read, n.columns * work.stride, n.across)
    ends = n.warps * n.sums * (STORE + EXTRA * work.extra)
    issue = turns * n.products * PRODUCT + values * (GUARDED_READ if read else 1.0) + ends
    stores = np.zeros_like(issue)
    if written is not None:
        pooled = n.sums / work.pool[1]
        stores = LINE_WRITE * n.warps * pooled * touched(written, n.columns / work.pool[1], n.across)
    turn = SERIAL * (n.products + n.values * (2 if read else 1)) + (GLOBAL_LATENCY if read else SCRATCH_LATENCY) / n.unrolled
    path = np.ceil(n.items / THREADS) * n.loops * turn
    return Demand(issue / SCHEDULERS, turns * (lines + n.weights * SCRATCH_READ), stores, path, n.units, n.alone,
                  n.registers)


def touched(place: Access, step: Floats | float, across: Floats | Ints) -> Floats:
    """Lines that one access of a warp touches: lanes `step` columns apart, `across` of them in a row of the box."""
    lanes = np.where(place.whole, WARP, np.minimum(across, WARP))
    span = lanes * step * place.words
    most = np.maximum(1.0, (span + LINE - np.minimum(LINE, place.aligned * place.words)) / LINE)
    return np.asarray(np.minimum(lanes, most) * WARP / lanes)


def linear(outputs: Floats, images: Ints, channels: Ints, depth: int, extra: float) -> Demand:
    """A linear layer, whose sums a warp shares: blocks of up to eight channels and four images, 128 products a step."""
    share = np.select([images % n == 0 for n in (4, 2)], (4.0, 2.0), 1.0)
    block = np.minimum(channels, 8.0)
    tasks, steps = np.ceil(channels / block) * (images / share), -(-depth // 128)
    step = 4 * block * share + 2 * (block + share)
    issue = tasks * (steps * step * PRODUCT + block * share * (12 + EXTRA * extra))
    path = np.ceil(tasks * WARP / THREADS) * (steps * (SERIAL * step + GLOBAL_LATENCY) + GLOBAL_LATENCY)
    return Demand(issue / SCHEDULERS, tasks * steps * (block + share), LINE_WRITE * outputs / 8, path, outputs / WARP * 5,
                  outputs / THREADS * 20, LINEAR_REGISTERS)


def pointwise(outputs: Floats, reads: Floats | float, extra: float, step: Floats | float, read: Access | None,
              written: Access | None) -> Demand:
    """A load or a layer without multiply-adds: one output per thread and turn; `step` columns of its input for each."""
    warps = np.ceil(outputs / WARP)
    lines: Floats | float = SCRATCH_READ if read is None else LINE_READ * touched(read, step, read.columns / step)
    issue = warps * (OTHER + EXTRA * extra + reads * (GUARDED_READ if read else 1.0))
    stores = LINE_WRITE * warps * touched(written, 1, written.columns) if written is not None else 0.0 * warps
    path = np.ceil(outputs / THREADS) * (SERIAL * (reads + extra) + (GLOBAL_LATENCY if read else SCRATCH_LATENCY))
    return Demand(issue / SCHEDULERS, np.asarray(warps * reads * lines), stores, path, outputs / WARP * 5,
                  outputs / THREADS * 20)


def counts(work: Convolution, direct: bool) -> Counts:
    """The counts of a convolution; of the many chains and choices that make the same boxes of it, worked out once."""
    arrays = [np.ascontiguousarray(a) for a in (work.images, work.channels, work.rows, work.columns)]
    key = (*(a.tobytes() for a in arrays), work.together, work.inputs, work.kernel, work.stride, work.pool, direct)
    found = _known.get(key)
    if found is None:
        if len(_known) >= KNOWN:
            _known.clear()
        found = _known[key] = _counts(work, direct)
    return found


def _counts(work: Convolution, direct: bool) -> Counts:
    """Every block that may be chosen, and the one that lets two blocks of threads end first."""
    channels, columns, pooled = _blocks(work)
    down, across = work.kernel
    high, wide = work.pool
    side = np.ceil(pooled * wide / columns)
    rows = work.rows // high
    items = side * rows * (work.channels / channels) * work.images
    warps, loops = np.ceil(items / WARP), work.inputs * down * high
    span = (columns - 1) * work.stride + across if across < WIDE_KERNEL else across * columns
    values = np.minimum(span, across * columns)
    sums = channels * columns
    loaded = np.select([(channels % 4 == 0) | (channels == work.together), channels % 2 == 0], (4, 2), 1)
    weights = across * np.ceil(channels / loaded)
    products = across * sums + weights + 8
    unrolled = np.where((down * across * channels <= UNROLLED_WEIGHTS) & (down * across * sums <= UNROLLED_SUMS), down, 1)
    lanes = np.minimum(side, WARP)
    banks = np.gcd((columns * work.stride).astype(np.int64), WARP)
    conflicts = values * np.where(side >= WARP, banks, np.ceil(lanes * banks / WARP) + 0.7)
    again = weights * np.where(side * rows >= WARP, 1.0, 2.0)
    accesses = (values * np.clip(pooled * wide * work.stride / side, 1, WARP) if direct else conflicts) + again
    instructions = products + values * (2 if direct else 1)
    tail = sums * (8 if direct else 5) + 60
    busy = warps * np.maximum((loops * instructions + tail) / SCHEDULERS, loops * accesses)
    waiting = instructions + (100.0 if direct else 60.0) / unrolled + across * np.maximum(0, 4 - sums)

    def alone(items: Floats, warps: Floats, threads: Floats | float, turn: tuple[Floats, ...]) -> Floats:
        """Cycles of one block of so many threads."""
        instructions, accesses, waiting, tail = turn
        active = np.minimum(warps, threads / WARP)
        longest = np.maximum(np.maximum(np.ceil(active / SCHEDULERS) * instructions, active * accesses), waiting)
        return np.asarray(np.ceil(items / threads) * (loops * longest + tail))

    turn = instructions, accesses, waiting, tail
    typical = alone(items, warps, TYPICAL_THREADS, turn)
    held = np.where(across < WIDE_KERNEL, span, 1)
    fits = (work.channels % channels == 0) & ((held + sums + channels <= 112) | (sums == wide))
    best = np.argmin(np.where(fits, busy**1.5 + (typical / TYPICAL_BLOCKS) ** 1.5, np.inf), axis=0)
    place = np.arange(len(best))
    registers = OWN_REGISTERS + sums + (sums / wide if high * wide > 1 else 0) + 1.5 * held + np.minimum(2 * channels, 32) \
        + (16 if direct else 0)

    def chosen(values: Floats | Ints) -> Floats:
        return np.asarray(values[best, place], dtype=np.float64)

    turn = chosen(instructions), chosen(accesses), chosen(waiting), chosen(tail)
    return Counts(chosen(warps), chosen(items), chosen(side), chosen(columns), chosen(sums), loops, chosen(unrolled),
                  chosen(products), chosen(values), chosen(conflicts), chosen(again), np.minimum(255, chosen(registers)),
                  chosen(busy), alone(chosen(items), chosen(warps), THREADS, turn))


def _blocks(work: Convolution) -> tuple[Floats, Floats, Ints]:
    """(K, N) channels and columns of blocks of registers, and (N,) columns of the output or of the pool behind it.

    A layer's channels are cut into equal parts, and so are its columns.
    """
    parts = [c for c in range(min(MOST_CHANNELS, work.together), 0, -1) if work.together % c == 0][:CHANNEL_BLOCKS]
    wide = work.pool[1]
    pooled = np.maximum(1, work.columns // wide)
    blocks = []
    for c in parts if 1 in parts else (*parts, 1):
        most = max(1, min(MOST_COLUMNS // wide, MOST_SUMS // (c * wide)))
        widest = -(-pooled // most)
        blocks += [(c, -(-pooled // np.minimum(pooled, widest * n)) * wide) for n in WIDTHS]
    channels = np.array([c for c, _ in blocks], dtype=np.float64)[:, None] * np.ones_like(pooled)
    return channels, np.stack([x for _, x in blocks]).astype(np.float64), pooled
