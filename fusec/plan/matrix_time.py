"""The time model's part for half precision on CUDA, where convolutions go through matrix instructions.

In: what each stage makes, arrays of N tiles. Out: seconds of the whole kernel, and blocks that share a multiprocessor. A stage
asks for time of the units, and makes its block wait. Which blocks of fragments and how many threads a kernel gets is worked out
as the mapping does it (`targets/fragments.py`, simplified: fewer blocks of fragments, chosen for a few numbers of blocks that
share a multiprocessor), with the mapping's own estimate; what the kernel then takes, with constants fitted to kernels measured
on an H200 (`benchmarks/calibrate.py`, target half). They are instructions and cycles of the generated code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum, auto
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fusec.plan.counting import Filters, Ints
from fusec.targets.device import MOST_HELD, Device

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

WARP = 32

# what the mapping chooses from, and its estimate
SETTINGS = np.array([(128, 1), (128, 2), (128, 3), (128, 4), (192, 1), (192, 2), (256, 1), (256, 2), (384, 1), (512, 1)],
                    dtype=np.float64)  # threads of a block, and blocks that share a multiprocessor, for a choice of fragments
THREADS, RESIDENTS = SETTINGS[:, :1], SETTINGS[:, 1:]
LONE = np.searchsorted(THREADS[:, 0], THREADS[:, 0])  # the setting of as many threads with one block
MORE = np.append(np.where(LONE[1:] == LONE[:-1], RESIDENTS[1:, 0], np.inf), np.inf)[:, None]  # blocks from which the next is it
BLOCKS = ((1, 1, 4), (1, 2, 4), (1, 4, 4), (1, 3, 2), (1, 5, 2), (1, 6, 2), (1, 7, 2), (1, 8, 2), (1, 1, 16), (1, 2, 16),
          (1, 3, 16), (2, 2, 2), (2, 3, 2), (2, 6, 1), (2, 8, 1))  # fragments side by side, rows, groups of channels at most
MOST_SUMS, MOST_WEIGHTS, UNROLLED = 96, 64, 192  # registers of sums, of weights for all filter rows; products of a loop body
MAPPED_PRODUCT, MAPPED_GATHER, MAPPED_STORE, MAPPED_TASK, MAPPED_LATENCY, MAPPED_BARRIER = 1.76, 26.0, 9.0, 40.0, 61.0, 60.0
MAPPED_LOAD, MAPPED_GATHER_LOAD, MAPPED_WEIGHT = 4.0, 8.0, 2.0
MAPPED_ISSUE, MAPPED_POSITION, MAPPED_POSITION_LATENCY, MAPPED_WAITING = 2.5, 38.0, 25.0, 1.5
MOST_RESIDENTS = 16
OTHER_REGISTERS = 44.0  # of a lane, besides sums, weights and fragments
COLUMNS_REGISTERS, COLUMNS = 48.0, 5  # of a lane of a depthwise convolution, besides eight for each filter column and these

# cycles and instructions of a task: a block of fragments
PRODUCT = 1.36  # cycles of a multiprocessor for an m16n8k16 product
SERIAL_PRODUCT = 5.87  # cycles of a warp for one, by itself
ISSUE = 1.77  # cycles of a warp from one instruction to its next
FRAGMENT_LOAD, WEIGHT_LOAD = 3.03, 1.74  # cycles of scratch or of the first-level cache
FRAGMENT_ISSUE, WEIGHT_ISSUE = 2.42, 0.123  # instructions
PAIRED, PAIRED_LOAD = 1.01, 6.52  # instructions, cycles of scratch: rows in pairs
GATHER, GATHER_LOAD, GATHER_LATENCY = 80.0, 14.0, 300.0  # the same and waiting: few channels without such rows, value by value
DIRECT, DIRECT_LOAD = 103.0, 5.02  # of a fragment read from device memory
DIRECT_LATENCY = 3.44  # cycles
LATENCY = 7.89  # cycles from the loads of a step to its first product
WEIGHT_LATENCY = 18.8  # more of them where weights are not in scratch
STORE_MATRIX = 2.29  # instructions of a pair of outputs, into planes in scratch
STORE_PIXEL = 7.26  # into planes in device memory
STORE_ROW = 32.9  # into rows there, four columns at a time
STORE = 48.6  # value by value, and into rows in scratch
STORE_POOL = 0.788  # into a pool in registers, its share of the pool's own store with it
EPILOGUE = 10.1  # for each instruction of an epilogue's step on one value, unless rounding does a lone relu
TASK = 52.9  # instructions of a task besides

# other stages
COPY, COPY_ONE = 26.2, 163.0  # instructions of a thread to copy 16 bytes, and one value
ROW_PIXEL, ROW_VALUE = 47.6, 3.59  # instructions of a pixel copied into rows in pairs, and of each of its values
ROW_LATENCY = 417.0  # cycles of a turn of those copies, of as many values of a thread:
ROW_BATCH = 8
ARRIVAL = 30.8  # bytes that a multiprocessor receives per cycle
OUTPUT, READ = 79.1, 23.0  # instructions for an output of a layer without multiply-adds, and for each value read
EIGHT, EIGHT_READ = 73.9, 20.7  # the same for eight channels at a time
DEPTHWISE_LOAD, DEPTHWISE_OUTPUT = 28.0, 153.0  # instructions of a depthwise convolution for eight channels
DEPTHWISE_LINES, DEPTHWISE_LATENCY = 132.0, 47.5  # of one from device memory: cycles of a warp's load, of a filter row
SPREAD, SPREAD_LINE = 5.44, 5.55  # eights of channels into rows: instructions of a value, cycles of a warp's row
CONFLICT, CONFLICT_DIRECT = 1.63, 3.22  # cycles for a warp's values of planes in scratch, in device memory
GROUPED_PRODUCT = 1.99  # instructions for a product without matrix instructions
ARRIVAL_LATENCY = 1.25  # cycles until a copy of many pieces begins to arrive
GLOBAL_LATENCY, COPY_LATENCY, READ_LATENCY = 512.0, 12.9, 1.18  # for each output: reads of device memory, copies, of scratch

# a kernel
WALKED = 1.12  # strips against tiles, beyond what is counted: rows of line buffers are found again in each step
UNITS_LOSS = 0.114  # share of the other units' time that the busiest one does not hide
WAITING = 1.29  # how well blocks hide each other's waiting: 1 not at all, large perfectly
STAGE_LATENCY = 335.0  # cycles: barrier, address set-up
BLOCK_LATENCY = 3.14  # cycles to start a block
OVERLAP_LOSS = 0.6  # share of the shorter of compute and memory time that the longer one does not hide
CLOCK = 0.886  # of the device's clock, under load


class Source(Enum):
    """Where a convolution's fragments come from."""

    PLANES = auto()  # in scratch
    DEVICE = auto()  # planes in device memory
    PAIRED = auto()  # rows in pairs
    VALUES = auto()  # few channels, value by value


@dataclass(frozen=True)
class Layer:
    """What all tiles have in common of a convolution by matrix instructions."""

    filters: Filters
    stride: int
    source: Source
    resident: bool  # its weights are in scratch, unless held in registers
    pool: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class Demand:
    """What a stage asks for: cycles of matrix units, of schedulers, of scratch and the first-level cache, cycles of one block
    alone, registers of a lane; and by what the mapping chooses: its estimate of cycles of all units and of one block alone.
    (S, N) each, for every setting, or what broadcasts to it."""

    products: Floats
    issue: Floats
    loads: Floats
    path: Floats
    registers: Floats
    units: Floats
    alone: Floats


NOTHING = Demand(*[np.zeros((1, 1))] * len(fields(Demand)))


def either(first: Flags, a: Demand, b: Demand) -> Demand:
    """`a` of the (N,) tiles that are `first`, `b` of the others."""
    return Demand(*(np.where(first, getattr(a, f.name), getattr(b, f.name)) for f in fields(Demand)))


def convolution(columns: Ints, rows: Ints, channels: Ints, store: Floats, layer: Layer) -> Demand:
    """A convolution whose tiles make `columns` of all images, `rows` and `channels` at a time, (N,) each.

    A pair of outputs takes so many instructions to `store`, epilogue included. What it was asked before is remembered: chains
    that end alike have the same boxes.
    """
    return _convolution(columns.tobytes(), rows.tobytes(), channels.tobytes(), store.tobytes(), layer)


def forget() -> None:
    """To be called when a constant has changed."""
    _convolution.cache_clear()


@lru_cache(maxsize=256)
def _convolution(columns: bytes, rows: bytes, channels: bytes, store: bytes, layer: Layer) -> Demand:
    """What the blocks of fragments chosen ask for, for each setting."""
    task, units, path = _blocks(columns, rows, channels, layer)
    collect, load, wait = _collecting(layer)
    products = task.products * layer.filters.part
    issue = products + task.values * collect + task.weights * WEIGHT_ISSUE + 2 * task.sums * np.frombuffer(store) + TASK
    waiting = wait + np.where(task.held | layer.resident, 0.0, WEIGHT_LATENCY)
    alone = products * SERIAL_PRODUCT + issue * ISSUE + task.waits * waiting
    loads = task.values * load + task.weights * WEIGHT_LOAD + 2 * task.sums
    once = task.held * (GLOBAL_LATENCY + layer.filters.steps * layer.filters.kernel[0] * layer.filters.groups)
    return Demand(task.count * products * PRODUCT, task.count * issue / 4, task.count * loads,
                  np.ceil(task.count * (WARP / THREADS)) * alone + once, task.registers, units, path)


@lru_cache(maxsize=256)
def _blocks(columns: bytes, rows: bytes, channels: bytes, layer: Layer) -> tuple[Tasks, Floats, Floats]:
    """For each setting the tasks of the block of fragments that the mapping chooses, and its estimate: (S, N) each."""
    extents = (np.frombuffer(v, dtype=np.int64).astype(np.float64) for v in (columns, rows, channels))
    task = _tasks(layer, *extents)
    shape = task.count.shape
    least = np.where(task.fits, task.registers, np.inf).min(axis=0)
    estimates = {threads: _mapped(task, layer, threads / WARP) for threads in np.unique(THREADS)}
    found, costs = [], []
    for threads, residents in SETTINGS:
        units, path = estimates[threads]
        room = np.maximum(_registers_left(threads, residents), least)
        cycles = units**MAPPED_WAITING + (path / residents)**MAPPED_WAITING
        best = np.argmin(np.where(task.fits & (task.registers <= room), cycles, np.inf), axis=0), np.arange(shape[1])
        found.append(best[0])
        costs.append((units[best], path[best]))
    chosen = np.stack(found), np.arange(shape[1])
    units, path = (np.stack(cost) for cost in zip(*costs, strict=True))
    return Tasks(*(np.broadcast_to(getattr(task, f.name), shape)[chosen] for f in fields(Tasks))), units, path


@dataclass(frozen=True, eq=False)
class Tasks:
    """Pieces of a stage for each block of fragments, (B, N), or for the one chosen, (S, N): their count, and what one does."""

    count: Floats
    products: Floats  # those of half a step as whole ones
    values: Floats  # fragments loaded
    weights: Floats  # groups of weights loaded
    sums: Floats  # fragments of outputs
    waits: Floats  # times that loads are waited for
    turns: Floats  # of the outer loop, all rows of a pool's window together
    registers: Floats
    held: Flags  # weights stay in registers
    fits: Flags


def _tasks(c: Layer, columns: Floats, rows: Floats, channels: Floats) -> Tasks:
    made, filters = np.ceil(channels / 8), c.filters
    holding = (False, True) if filters.may_be_held(int(made.min())) else (False,)
    choices = [(*block, held) for held in holding for block in BLOCKS]
    fragments, block, most, flag = (np.array(v, dtype=np.float64)[:, None] for v in zip(*choices, strict=True))
    held = flag > 0
    groups = _divisors(int(made.max()))[most.astype(np.int64), made.astype(np.int64)]
    pooled, rounds = c.pool != (1, 1), np.ones_like(block)
    if pooled:
        fragments, block = np.full_like(fragments, -(-c.pool[1] // 2)), _divisors(c.pool[0])[block.astype(np.int64), c.pool[0]]
        rounds = c.pool[0] / block
        pieces = np.ceil(columns / c.pool[1] / 8) * np.ceil(rows / c.pool[0])
    else:
        block = np.minimum(block, rows)
        pieces = np.ceil(columns / (16 * fragments)) * np.ceil(rows / block)
    down, steps = filters.kernel[0], filters.steps
    sums = fragments * block * groups
    reused = (down * groups * 2 <= MOST_WEIGHTS) & (down * sums <= UNROLLED)
    apart = block * down
    lines = np.where(reused, np.minimum((block - 1) * c.stride + down, apart), apart)
    turns = steps * rounds
    weights = np.where(held, 2 * steps * down, np.where(reused, 2 * down, 4)) * groups + (2 * groups if pooled else 0)
    registers = np.minimum(255, OTHER_REGISTERS + 4 * sums + weights + 8 * fragments)
    may = reused & (groups == made) & (2 * steps * down * groups <= MOST_HELD) & (steps * down * sums <= UNROLLED)
    return Tasks(pieces * made / groups, turns * down * sums, turns * lines * fragments,
                 np.where(held, 0.0, turns * down * groups), sums * rounds, turns * np.where(reused, 1, down), turns, registers,
                 held & may, ((4 * sums <= MOST_SUMS) | (sums == sums.min(axis=0))) & (~held | may))


@lru_cache(maxsize=8)
def _divisors(most: int) -> Ints:
    """[cap, n]: the largest divisor of n up to cap, of n up to `most`."""
    table = np.ones((17, most + 1), dtype=np.int64)
    for cap in range(1, 17):
        table[cap] = np.where(np.arange(most + 1) % cap == 0, cap, table[cap - 1])
    return table


def _mapped(task: Tasks, c: Layer, warps: float) -> tuple[Floats, Floats]:
    """The mapping's estimate: cycles of the units for a stage, and of one block of so many warps."""
    gathered = c.source in (Source.DEVICE, Source.VALUES)
    values, load = (MAPPED_GATHER, MAPPED_GATHER_LOAD) if gathered else (2.0, MAPPED_LOAD)
    issue = task.products + task.values * values + 1.5 * task.weights + 2 * MAPPED_STORE * task.sums + MAPPED_TASK
    scratch = task.values * load + task.weights * MAPPED_WEIGHT + 2 * task.sums * c.filters.steps / task.turns
    products = task.products * MAPPED_PRODUCT
    active = np.minimum(task.count, warps)
    first = task.held * (MAPPED_LATENCY + c.filters.steps * c.filters.kernel[0] * c.filters.groups)
    alone = products * 4 / np.clip(active, 1, 4) + issue * MAPPED_ISSUE + task.turns * MAPPED_LATENCY
    shared = np.maximum(np.ceil(active / 4) * np.maximum(products * 4, issue), active * scratch)
    units = task.count * np.maximum(np.maximum(products, scratch), issue / 4)
    return units, first + np.ceil(task.count / warps) * np.maximum(alone, shared) + MAPPED_BARRIER


def _registers_left(threads: float, residents: float) -> float:
    """Of a lane where so many blocks share a multiprocessor of four partitions, each with 16 K registers."""
    return float(512 // np.ceil(residents * threads / (4 * WARP)) // 8 * 8)


def _collecting(c: Layer) -> tuple[float, float, float]:
    """Instructions of a fragment, cycles of scratch or cache, and of waiting."""
    part = c.filters.part
    return {Source.PLANES: (FRAGMENT_ISSUE, FRAGMENT_LOAD * part, LATENCY),
            Source.DEVICE: (DIRECT * part, DIRECT_LOAD * part, DIRECT_LATENCY),
            Source.PAIRED: (PAIRED * part, PAIRED_LOAD * part, LATENCY),
            Source.VALUES: (GATHER * part, GATHER_LOAD * part, GATHER_LATENCY)}[c.source]


def copy(values: Floats, together: int, element: int) -> Demand:
    """A load of (N,) `values` from device memory into scratch, `together` at a time; of several at once none waits."""
    loads, items = values * (element / ARRIVAL), values / together
    if together > 1:
        return _plain(values, items, COPY, loads, 0.0, ARRIVAL_LATENCY)
    return _plain(values, items, COPY_ONE, loads, COPY_LATENCY)


def pair_rows(pixels: Ints, channels: int, element: int, direct: bool) -> Demand:
    """Rows of few channels copied into pairs, several loads under way; the mapping's choice knows nothing of them."""
    values, each = pixels * channels, ROW_PIXEL + ROW_VALUE * channels
    loads = 2 * values / WARP + (values * (element / ARRIVAL) if direct else values / WARP)
    wait = ROW_LATENCY if direct else READ_LATENCY
    path = np.ceil(pixels / THREADS) * each + np.ceil(values / (ROW_BATCH * THREADS)) * wait
    none = np.zeros((1, 1))
    return Demand(none, (pixels * each)[None] / (4 * WARP), loads[None], path, none, none, none)


def other(outputs: Floats, together: int, reads: float | Floats, extra: float, direct: bool) -> Demand:
    """A layer without multiply-adds that reads as many values for each of (N,) `outputs`, one after the other."""
    items = outputs / together
    loads = items * reads / WARP * (CONFLICT_DIRECT if direct else CONFLICT)
    return _plain(outputs, items, OUTPUT + READ * reads + extra * together, loads, GLOBAL_LATENCY if direct else READ_LATENCY)


def planes(outputs: Floats, reads: float | Floats, extra: float, direct: bool) -> Demand:
    """A layer that reads as many pixels for each of (N,) `outputs`, eight channels at a time."""
    items = outputs / 8
    return _plain(outputs, items, EIGHT + EIGHT_READ * reads + 8 * extra, items * reads * (8 / WARP),
                  GLOBAL_LATENCY if direct else READ_LATENCY)


def spread(made: Demand, outputs: Floats, columns: Ints) -> Demand:
    """A layer's demand whose eights of channels go into rows of a network's output: value by value, a line for each row."""
    lines = np.maximum(1.0, WARP / columns)
    path = made.path + np.ceil(outputs / (8 * THREADS)) * (8 * SPREAD)
    return replace(made, issue=made.issue + outputs * (SPREAD / (4 * WARP)), path=path,
                   loads=made.loads + outputs / WARP * lines * SPREAD_LINE)


def depthwise(outputs: Floats, kernel: tuple[int, int], stride: int, extra: float, direct: bool) -> Demand:
    """A depthwise convolution, eight channels of some columns at a time, which wait for each filter row."""
    taps, loads = kernel[0] * kernel[1], kernel[0] * ((COLUMNS - 1) * stride + kernel[1])
    items = outputs / (8 * COLUMNS)
    each = DEPTHWISE_LOAD * loads + 8 * COLUMNS * taps + COLUMNS * (DEPTHWISE_OUTPUT + 8 * extra)
    lines = DEPTHWISE_LINES if direct else 4.0 * math.gcd(8, COLUMNS * stride)
    wait = kernel[0] * (DEPTHWISE_LATENCY if direct else READ_LATENCY)
    made = _plain(outputs, items, each, items / WARP * loads * lines, wait)
    more = (1.5 * taps + 5) / 5  # positions, as the mapping counts them
    registers = np.full((1, 1), COLUMNS_REGISTERS + 8 * (COLUMNS + kernel[1]))
    return replace(made, units=made.units * more, alone=made.alone * more, registers=registers)


def grouped(outputs: Floats, products: int, extra: float, direct: bool) -> Demand:
    """A convolution without matrix instructions: so many products for each of (N,) `outputs`."""
    each = OUTPUT + products * GROUPED_PRODUCT + extra
    return _plain(outputs, outputs, each, 0 * outputs, GLOBAL_LATENCY if direct else READ_LATENCY)


def _plain(outputs: Floats, items: Floats, instructions: float | Floats, loads: Floats, wait: float,
           once: float = 0.0) -> Demand:
    """A stage of (N,) items, each of so many instructions of a thread, which waits for each, and cycles of loads in all."""
    path = np.ceil(items / THREADS) * (instructions + wait) + once
    none = np.zeros((1, 1))
    return Demand(none, (items * instructions)[None] / (4 * WARP), loads[None], path, none,
                  outputs[None] * (MAPPED_POSITION / (4 * WARP)), outputs / THREADS * MAPPED_POSITION_LATENCY)


def _units(products: Floats, issue: Floats, loads: Floats) -> Floats:
    """Cycles of the units: those of the busiest, and of the others what it does not hide."""
    most = np.maximum(np.maximum(products, issue), loads)
    return np.asarray(most + UNITS_LOSS * (products + issue + loads - most))


def together(busy: Floats, waiting: Floats) -> Floats:
    """Cycles of units and of waiting, which blocks that share a multiprocessor hide in part."""
    return np.asarray((busy**WAITING + waiting**WAITING) ** (1 / WAITING))


def kernel(stages: Sequence[tuple[Demand, Floats]], barriers: Ints, tiles: Ints, scratch: Ints,
           device: Device) -> tuple[Floats, Ints]:
    """Seconds of all stages over all tiles, and blocks that share a core, (N,) each, with the threads that suit them best.

    Parameters
    ----------
    stages
        Each with how many times a block goes through it.
    barriers
        (N,) stages that a block goes through in all its steps, the warm-up of a strip included.
    scratch
        (N,) bytes of a block.
    """
    shape = len(SETTINGS), len(tiles)
    sums = [np.zeros(shape) for _ in range(6)]
    registers = np.full(shape, OTHER_REGISTERS)
    for stage, passes in stages:
        for total, part in zip(sums, (stage.products, stage.issue, stage.loads, stage.path, stage.units, stage.alone),
                               strict=True):
            total += part * passes
        registers = np.maximum(registers, stage.registers)
    products, issue, loads, path, units, alone = sums
    path += STAGE_LATENCY * barriers
    share = -(-tiles // device.cores)
    room = np.maximum(1, np.minimum(np.minimum(device.scratch_per_core // scratch, share), MOST_RESIDENTS))
    blocks = _residents(registers[LONE], room, device)
    alone += 0.2 * THREADS + MAPPED_POSITION_LATENCY
    estimate = units**MAPPED_WAITING + (alone / np.maximum(blocks, 1))**MAPPED_WAITING
    best = _chosen(estimate ** (1 / MAPPED_WAITING), (blocks >= RESIDENTS) & (blocks < MORE)), np.arange(len(tiles))
    blocks = blocks[best]
    rounds = np.ceil(tiles / (device.cores * blocks))
    cycles = together(share * _units(products[best], issue[best], loads[best]), rounds * (path[best] + BLOCK_LATENCY))
    return cycles / (device.clock * CLOCK), blocks.astype(np.int64)


def _residents(registers: Floats, room: Ints, device: Device) -> Floats:
    """(S, N) blocks that share a multiprocessor, of which there is `room` for (N,); 0 where threads get too few registers.

    The fewest threads get what there is."""
    lanes = device.registers_per_core // (4 * WARP)  # registers of one lane in each of four partitions
    fit = np.floor(lanes // (np.ceil(registers / 8) * 8) * 4 * WARP / THREADS)
    fit = np.where(THREADS[0] == THREADS, np.maximum(fit, 1), fit)
    return np.minimum(np.minimum(fit, device.max_threads_per_core // THREADS), room)


def _chosen(cycles: Floats, able: Flags) -> Ints:
    """(N,) the setting chosen, of those that are able: more threads only where that is clearly faster."""
    chosen, least = np.zeros(cycles.shape[1], dtype=np.int64), np.full(cycles.shape[1], np.inf)
    for i in range(len(cycles)):
        better = able[i] & (cycles[i] < 0.98 * least)
        chosen, least = np.where(better, i, chosen), np.where(better, cycles[i], least)
    return chosen
