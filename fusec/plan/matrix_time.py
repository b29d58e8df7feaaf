"""The time model's part for half precision on CUDA, where convolutions go through matrix instructions.

In: what each stage makes, arrays of N tiles. Out: seconds of the whole kernel, and blocks that share a multiprocessor. A stage
asks for time of the units, and makes its block wait. Which blocks of fragments and how many threads a kernel gets is worked out
as the mapping does it (`targets/fragments.py`, simplified: fewer blocks, and a typical number of residents for each number of
threads), with the mapping's own estimate; what the kernel then takes, with constants fitted to kernels measured on an H200
(`benchmarks/calibrate.py`, target half). They are instructions and cycles of the generated code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fusec.plan.counting import Ints
from fusec.targets.device import FEW_CHANNELS, Device

Floats = NDArray[np.float64]

WARP = 32

# what the mapping chooses from, and its estimate
THREADS = np.array([[128.0], [192.0], [256.0], [384.0], [512.0]])  # of a block
TYPICAL = (3.0, 2.0, 2.0, 1.0, 1.0)  # blocks of as many threads for which blocks of fragments are chosen
BLOCKS = ((1, 1, 4), (1, 2, 4), (1, 4, 4), (1, 5, 2), (1, 6, 2), (1, 7, 2), (1, 8, 2), (1, 1, 16), (1, 2, 16), (1, 3, 16),
          (2, 2, 2), (2, 6, 1), (2, 8, 1))  # fragments side by side, rows, groups of eight channels of a warp at most
MOST_SUMS, MOST_WEIGHTS, UNROLLED = 96, 64, 192  # registers of sums, of weights for all filter rows; products of a loop body
MAPPED_PRODUCT, MAPPED_GATHER, MAPPED_STORE, MAPPED_TASK, MAPPED_LATENCY, MAPPED_BARRIER = 1.8, 26.0, 9.0, 40.0, 40.0, 60.0
MAPPED_LOAD, MAPPED_GATHER_LOAD, MAPPED_WEIGHT = 4.0, 8.0, 2.0
OTHER_REGISTERS = 44.0  # of a lane, besides sums, weights and fragments

# cycles and instructions of a task: a block of fragments
PRODUCT = 1.55  # cycles of a multiprocessor for an m16n8k16 product
SERIAL_PRODUCT = 5.2  # cycles of a warp for one, by itself
FRAGMENT_LOAD, WEIGHT_LOAD = 4.0, 2.0  # cycles of scratch or of the first-level cache
FRAGMENT_ISSUE, WEIGHT_ISSUE = 2.0, 0.9  # instructions
GATHER, GATHER_LOAD, GATHER_LATENCY = 29.0, 10.9, 129.0  # instructions, cycles of scratch, waiting: taps one by one
DIRECT, DIRECT_LOAD = 62.0, 13.8  # the same of a fragment read from device memory
DIRECT_TAPS = 116.0  # instructions of one whose taps are collected there
DIRECT_LATENCY = 562.0  # cycles
LATENCY = 35.0  # cycles from the loads of a step to its first product
WEIGHT_LATENCY = 19.0  # more of them where weights are not in scratch
STORE = 32.0  # instructions of a pair of outputs
TASK = 24.0  # instructions of a task besides

# other stages
COPY, COPY_ONE = 21.0, 61.0  # instructions of a thread to copy 16 bytes, and one value
ARRIVAL = 38.0  # bytes that a multiprocessor receives per cycle
OUTPUT, READ = 31.0, 5.8  # instructions for an output of a layer without multiply-adds, and for each value read
EIGHT, EIGHT_READ = 22.0, 18.0  # the same for eight channels at a time; fitted to sums of two tensors alone
CONFLICT, CONFLICT_DIRECT = 21.0, 4.4  # cycles for a warp's values of planes in scratch, in device memory
GROUPED_PRODUCT = 4.0  # instructions for a product without matrix instructions
ARRIVAL_LATENCY = 630.0  # cycles until a copy of many pieces begins to arrive
GLOBAL_LATENCY, COPY_LATENCY, READ_LATENCY = 515.0, 274.0, 36.0  # for each output: reads of device memory, copies, of scratch

# a kernel
UNITS_LOSS = 0.11  # share of the other units' time that the busiest one does not hide
WAITING = 1.52  # how well blocks hide each other's waiting: 1 not at all, large perfectly
STAGE_LATENCY = 184.0  # cycles: barrier, address set-up
BLOCK_LATENCY = 455.0  # cycles to start a block
OVERLAP_LOSS = 0.84  # share of the shorter of compute and memory time that the longer one does not hide
CLOCK = 0.886  # of the device's clock, under load


@dataclass(frozen=True)
class Layer:
    """What all tiles have in common of a convolution by matrix instructions."""

    inputs: int  # channels
    kernel: tuple[int, int]
    stride: int
    extra: float  # instructions of the epilogue per output
    direct: bool  # reads device memory
    resident: bool  # its weights are in scratch
    pool: tuple[int, int] = (1, 1)

    @property
    def few(self) -> bool:
        return self.inputs <= FEW_CHANNELS

    @property
    def steps(self) -> float:
        """Turns of the outer loop; half ones are of eight channels, or products."""
        if self.few:
            return -(-self.inputs * self.kernel[0] * self.kernel[1] // 8) / 2
        return self.kernel[1] * -(-self.inputs // 8) / 2


@dataclass(frozen=True, eq=False)
class Demand:
    """What a stage asks for: cycles of matrix units, of schedulers, of scratch and the first-level cache, cycles of one block
    alone, registers of a lane; and by what the mapping chooses: its estimate of cycles of all units and of one block alone.
    (T, N) each, for every number of threads, or what broadcasts to it."""

    products: Floats
    issue: Floats
    loads: Floats
    path: Floats
    registers: Floats
    units: Floats
    alone: Floats


def convolution(columns: Ints, rows: Ints, channels: Ints, layer: Layer) -> Demand:
    """A convolution whose tiles make `columns` of all images, `rows` and `channels` at a time, (N,) each.

    What it was asked before is remembered: chains that end alike have the same boxes.
    """
    return _convolution(columns.tobytes(), rows.tobytes(), channels.tobytes(), layer)


def forget() -> None:
    """To be called when a constant has changed."""
    _convolution.cache_clear()


@lru_cache(maxsize=256)
def _convolution(columns: bytes, rows: bytes, channels: bytes, layer: Layer) -> Demand:
    """A block of fragments for each number of threads."""
    task = _tasks(layer, *(np.frombuffer(v, dtype=np.int64).astype(np.float64) for v in (columns, rows, channels)))
    collect, load, wait = _collecting(layer)
    stores = 2 * task.sums * (STORE + 2 * layer.extra)
    issue = task.products + task.values * collect + task.weights * WEIGHT_ISSUE + stores + TASK
    alone = task.products * SERIAL_PRODUCT + issue + task.waits * (wait + (0 if layer.resident else WEIGHT_LATENCY))
    loads = task.values * load + task.weights * WEIGHT_LOAD + 2 * task.sums
    columns_ = np.arange(task.count.shape[1])
    found = []
    for threads, blocks in zip(THREADS[:, 0], TYPICAL, strict=True):
        units, path = _mapped(task, layer, threads / WARP)
        best = np.argmin(np.where(task.fits, units**2 + (path / blocks) ** 2, np.inf), axis=0), columns_
        count = task.count[best]
        found.append([count * task.products[best] * PRODUCT, count * issue[best] / 4, count * loads[best],
                      np.ceil(count * (WARP / threads)) * alone[best], task.registers[best], units[best], path[best]])
    return Demand(*(np.stack(rows) for rows in zip(*found, strict=True)))


@dataclass(frozen=True, eq=False)
class Tasks:
    """Pieces of a stage for each of `BLOCKS`, (B, N): their count, and what one does."""

    count: Floats
    products: Floats
    values: Floats  # fragments loaded
    weights: Floats  # groups of weights loaded
    sums: Floats  # fragments of outputs
    waits: Floats  # times that loads are waited for
    turns: Floats  # of the outer loop, all rows of a pool's window together
    registers: Floats
    fits: NDArray[np.bool_]


def _tasks(c: Layer, columns: Floats, rows: Floats, channels: Floats) -> Tasks:
    fragments, block, most = (np.array(v, dtype=np.float64)[:, None] for v in zip(*BLOCKS, strict=True))
    made = np.ceil(channels / 8)
    groups = _divisors(int(made.max()))[most.astype(np.int64), made.astype(np.int64)]
    pooled, rounds = c.pool != (1, 1), np.ones_like(block)
    if pooled:
        fragments, block = np.full_like(fragments, -(-c.pool[1] // 2)), np.minimum(block, c.pool[0])
        rounds = np.ceil(c.pool[0] / block)
        pieces = np.ceil(columns / c.pool[1] / 8) * np.ceil(rows / c.pool[0])
    else:
        block = np.minimum(block, rows)
        pieces = np.ceil(columns / (16 * fragments)) * np.ceil(rows / block)
    filter_rows = 1 if c.few else c.kernel[0]
    reused = (filter_rows * groups * 2 <= MOST_WEIGHTS) & (filter_rows * fragments * block * groups <= UNROLLED) & (not c.few)
    apart = block * filter_rows
    lines = np.where(reused, np.minimum((block - 1) * c.stride + filter_rows, apart), apart)
    turns, sums = np.ceil(c.steps) * rounds, fragments * block * groups
    held = np.where(reused, 2 * filter_rows, 4) * groups + (2 * groups if pooled else 0)
    registers = np.minimum(255, OTHER_REGISTERS + 4 * sums + held + 8 * fragments)
    return Tasks(pieces * made / groups, c.steps * rounds * filter_rows * sums, turns * lines * fragments,
                 turns * filter_rows * groups, sums * rounds, turns * np.where(reused, 1, filter_rows), turns, registers,
                 (4 * sums <= MOST_SUMS) | (sums == sums.min(axis=0)))


@lru_cache(maxsize=8)
def _divisors(most: int) -> Ints:
    """[cap, n]: the largest divisor of n up to cap, of n up to `most`."""
    table = np.ones((17, most + 1), dtype=np.int64)
    for cap in range(1, 17):
        table[cap] = np.where(np.arange(most + 1) % cap == 0, cap, table[cap - 1])
    return table


def _mapped(task: Tasks, c: Layer, warps: float) -> tuple[Floats, Floats]:
    """The mapping's estimate: cycles of the units for a stage, and of one block of so many warps."""
    gathered = c.few or c.direct
    values, load = (MAPPED_GATHER, MAPPED_GATHER_LOAD) if gathered else (2.0, MAPPED_LOAD)
    issue = task.products + task.values * values + 1.5 * task.weights + 2 * MAPPED_STORE * task.sums + MAPPED_TASK
    scratch = task.values * load + task.weights * MAPPED_WEIGHT + 2 * task.sums
    products = task.products * MAPPED_PRODUCT
    active = np.minimum(task.count, warps)
    alone = products * 4 / np.clip(active, 1, 4) + issue + task.turns * MAPPED_LATENCY
    shared = np.maximum(np.ceil(active / 4) * np.maximum(products * 4, issue), active * scratch)
    units = task.count * np.maximum(np.maximum(products, scratch), issue / 4)
    return units, np.ceil(task.count / warps) * np.maximum(alone, shared) + MAPPED_BARRIER


def _collecting(c: Layer) -> tuple[float, float, float]:
    """Instructions of a fragment, cycles of scratch or cache, and of waiting."""
    if c.direct:
        return DIRECT_TAPS if c.few else DIRECT, DIRECT_LOAD, DIRECT_LATENCY
    return (GATHER, GATHER_LOAD, GATHER_LATENCY) if c.few else (FRAGMENT_ISSUE, FRAGMENT_LOAD, LATENCY)


def copy(values: Floats, together: int, element: int) -> Demand:
    """A load of (N,) `values` from device memory into scratch, `together` at a time; of several at once none waits."""
    loads, items = values * (element / ARRIVAL), values / together
    return _plain(items, COPY, loads, 0.0, ARRIVAL_LATENCY) if together > 1 else _plain(items, COPY_ONE, loads, COPY_LATENCY)


def other(outputs: Floats, reads: float | Floats, extra: float, direct: bool) -> Demand:
    """A layer without multiply-adds that reads as many values for each of (N,) `outputs`, one after the other."""
    loads = outputs * reads / WARP * (CONFLICT_DIRECT if direct else CONFLICT)
    return _plain(outputs, OUTPUT + READ * reads + extra, loads, GLOBAL_LATENCY if direct else READ_LATENCY)


def planes(outputs: Floats, reads: float | Floats, extra: float, direct: bool) -> Demand:
    """A layer, or a depthwise convolution, that reads as many pixels for each of (N,) `outputs`, eight channels at a time."""
    items = outputs / 8
    return _plain(items, EIGHT + EIGHT_READ * reads + 8 * extra, items * reads * (8 / WARP),
                  GLOBAL_LATENCY if direct else READ_LATENCY)


def grouped(outputs: Floats, products: int, extra: float, direct: bool) -> Demand:
    """A convolution without matrix instructions: so many products for each of (N,) `outputs`."""
    each = OUTPUT + products * GROUPED_PRODUCT + extra
    return _plain(outputs, each, 0 * outputs, GLOBAL_LATENCY if direct else READ_LATENCY)


def _plain(items: Floats, instructions: float | Floats, loads: Floats, wait: float, once: float = 0.0) -> Demand:
    """A stage of (N,) items, each of so many instructions of a thread, which waits for each, and cycles of loads in all."""
    path = np.ceil(items / THREADS) * (instructions + wait) + once
    none = np.zeros((1, 1))
    return Demand(none, (items * instructions)[None] / (4 * WARP), loads[None], path, none, items[None] * (5 / WARP),
                  items / THREADS * 20)


def _units(products: Floats, issue: Floats, loads: Floats) -> Floats:
    """Cycles of the units: those of the busiest, and of the others what it does not hide."""
    most = np.maximum(np.maximum(products, issue), loads)
    return np.asarray(most + UNITS_LOSS * (products + issue + loads - most))


def together(busy: Floats, waiting: Floats) -> Floats:
    """Cycles of units and of waiting, which blocks that share a multiprocessor hide in part."""
    return np.asarray((busy**WAITING + waiting**WAITING) ** (1 / WAITING))


def kernel(stages: Sequence[tuple[Demand, Floats]], steps: Ints, tiles: Ints, scratch: Ints,
           device: Device) -> tuple[Floats, Ints]:
    """Seconds of all stages over all tiles, and blocks that share a core, (N,) each, with the threads that suit them best.

    Parameters
    ----------
    stages
        Each with how many times a block goes through it.
    steps
        (N,) of a block, the warm-up of a strip included.
    scratch
        (N,) bytes of a block.
    """
    shape = len(THREADS), len(tiles)
    sums = [np.zeros(shape) for _ in range(6)]
    registers = np.full(shape, OTHER_REGISTERS)
    for stage, passes in stages:
        path = stage.path * passes + STAGE_LATENCY * steps
        for total, part in zip(sums, (stage.products * passes, stage.issue * passes, stage.loads * passes, path, stage.units,
                                      stage.alone), strict=True):
            total += part
        registers = np.maximum(registers, stage.registers)
    products, issue, loads, path, units, alone = sums
    share = -(-tiles // device.cores)
    blocks = _residents(registers, np.minimum(device.scratch_per_core // scratch, share), device)
    estimate = np.sqrt(units**2 + ((alone + 0.2 * THREADS + 20) / np.maximum(blocks, 1)) ** 2)
    best = _threads(estimate, blocks), np.arange(len(tiles))
    blocks = np.maximum(blocks[best], 1)
    rounds = np.ceil(tiles / (device.cores * blocks))
    cycles = together(share * _units(products[best], issue[best], loads[best]), rounds * (path[best] + BLOCK_LATENCY))
    return cycles / (device.clock * CLOCK), blocks.astype(np.int64)


def _residents(registers: Floats, room: Ints, device: Device) -> Floats:
    """(T, N) blocks that share a multiprocessor, of which there is `room` for (N,); 0 where threads get too few registers."""
    lanes = device.registers_per_core // (4 * WARP)  # registers of one lane in each of four partitions
    fit = np.floor(lanes // (np.ceil(registers / 8) * 8) * 4 * WARP / THREADS)
    return np.where(fit < 1, 0, np.minimum(np.minimum(fit, device.max_threads_per_core // THREADS), np.maximum(room, 1)))


def _threads(cycles: Floats, blocks: Floats) -> Ints:
    """(N,) the number of threads chosen: more only where that is clearly faster."""
    chosen, least = np.zeros(cycles.shape[1], dtype=np.int64), cycles[0]
    for i in range(1, len(cycles)):
        better = (blocks[i] >= 1) & (cycles[i] < 0.98 * least)
        chosen, least = np.where(better, i, chosen), np.where(better, cycles[i], least)
    return chosen
