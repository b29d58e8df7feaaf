"""The time model: seconds of one kernel for many tiles at once.

In: the boxes of a chain's tensors for N tiles, which inputs are staged, scratch bytes, a Device. Out: `Timing`, arrays of N.
The model only has to rank schedules and partitions. It is monotone: more work, more traffic or more scratch never costs less.

The constants are estimates, none is a vendor's figure. Those for CUDA were fitted to kernels measured on an H200
(`benchmarks/calibrate.py`: chains of lenet5, mnist4, alexnet, vgg_e, resnet18, mobilenet_v2, artcnn_c4f16 and fsrcnn_x2 with
several tiles each): they minimise how much slower the model's choice is than the best one measured. Those for CPUs are set by
the times of single stages on one core of an AVX-512 server (`benchmarks/stages.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.plan.boxes import Boxes
from fusec.plan.construct import layout_of
from fusec.plan.counting import BYTES, Ints, inputs_per_output, weight_bytes
from fusec.plan.matrix_time import Convolution, cycles
from fusec.plan.merge import merged_pools
from fusec.plan.scratch import resident_bytes
from fusec.schedule.ir import Chain
from fusec.targets.device import Device

Floats = NDArray[np.float64]

WALKED = 1.05  # CUDA: strips against tiles, beyond what is counted; not yet measured
OVERLAP_LOSS = {"cuda": 0.6, "cpu": 0.9}  # share of the shorter of compute and memory time the longer one does not hide
FUNCTION_COST = 38.0  # instructions of an exponential, a power or a division per output
ACTIVATION_COST = 1.2  # instructions of an epilogue's step per output

# CUDA: one block of THREADS computes one stage after the other
THREADS = 320
REGISTERS = 96  # per thread
BLOCK_RESERVE = 1024  # scratch bytes the driver keeps for itself per block
WARP = 32
SCRATCH_READS = 0.96  # warp-wide scratch reads a core can serve per cycle
REGISTER_TILES = ((8, 7), (8, 4), (8, 2), (8, 1), (4, 4), (4, 1), (1, 4), (1, 1))  # output channels x pixels of one thread
DEPTHWISE_TILES = ((1, 7), (1, 4), (1, 1))
GUARDED_READ = 1.58  # a read of device memory with its border test, against a read of scratch
MERGED = 1.1  # a convolution merged with a pool has smaller blocks: it reads its weights, and device memory, more often
STAGED_WEIGHTS = 4096  # weights up to which it does not, since they are copied into scratch
ROW_STALL = 15.0  # cycles per filter row and input channel that one warp cannot hide
CUDA_OUTPUT = 7.8  # instructions to place and store one output of a convolution
CUDA_OTHER = 4.9  # and of any other layer, on top of one per value read
CUDA_EFFICIENCY = 0.38  # of the inner loops, against their bound by issue slots
WAITING = 8.0  # how well co-resident blocks hide each other's waiting: 1 not at all, large perfectly
STAGE_LATENCY = 257.0  # cycles: barrier, address set-up, filling the pipelines
GLOBAL_LATENCY = 1330.0  # cycles until the first value from device memory is there
BLOCK_LATENCY = 360.0  # cycles to start a block

# CPU: one core computes one tile after the other, blocks of pixels x vectors of output channels in registers
VECTOR_REGISTERS = {16: 32, 8: 16, 4: 16}  # by the floats each holds
SPARE_REGISTERS = 4  # of those, not used for sums and weights
VECTOR_BLOCKS = (4, 3, 2, 1)  # vectors of a block: the first that divides them
IMAGE_BLOCKS = (8, 4, 2, 1)  # images of a block: the first for which there is room
LOADS_PER_CYCLE = 2.0
LEVEL1, WEIGHT_RATE = 32 * 1024, 46.0  # bytes of weights that stay near, and bytes per cycle of those that do not
SUM_LATENCY = 4.0  # cycles between two additions to one sum
BLOCK_COST = 1.0  # cycles to begin a block and to end it, and for each of its vectors
POOL_COST = 3.0  # cycles to compare a vector of sums with the largest so far, where a pool takes them from registers
MAX_READ = 5.0  # cycles to read a vector and compare it, in a max pool; 1 for what only reads it
CPU_EFFICIENCY = 0.98  # of the inner loops, against their bound by issue slots
ROW_COST = 6.0  # cycles per row of a stage
CPU_OTHER = 1.5  # instructions of a vector of outputs of a layer without multiply-adds, on top of one per vector read
CPU_STAGE = 65.0  # cycles per stage and tile
TRANSPOSE_COST = 1.0  # cycles per element of an image loaded whose channels do not fill a vector
WEIGHTS_SEEN = 0.35  # of the time in which weights come from the shared cache again, that which computing does not hide
CACHE_SHARE = 0.4  # of the shared cache in which a kernel's tensors stay from launch to launch
KEPT = 0.67  # share of a core's own cache in which scratch stays; what is beyond it moves to and from the shared cache


@dataclass(frozen=True, eq=False)
class Timing:
    """Arrays of N: seconds and what they are made of."""

    compute: Floats
    memory: Floats
    overlap_loss: float
    launch: float
    blocks_per_core: Ints
    waves: Ints

    @property
    def seconds(self) -> Floats:
        return np.maximum(self.compute, self.memory) + self.overlap_loss * np.minimum(self.compute, self.memory) + self.launch


@dataclass(frozen=True, eq=False)
class Work:
    """One stage's loops for one tile. All arrays are of N; `inputs` and the kernel are of one multiply-add group."""

    images: Ints
    box: Ints  # (3, N) channels, rows and columns made at a time: the new rows of a step of a strip, or the whole box of a tile
    passes: Floats  # (N,) times as many rows a tile makes in all
    share: Floats  # (N,) of the rows of all tiles' boxes, those that lie inside the image and the batch
    across: Ints  # (N,) tiles side by side
    last: Ints  # (N,) columns of the last of them
    reads: float | Floats  # values read per output by layers without multiply-adds
    extra: float  # further instructions per output
    single: bool = False  # one value after the other, on a CPU too
    read_cost: float = 1.0  # cycles of a vector read, on a CPU
    inputs: int = 0  # input channels per output; 0 when the layer has no multiply-adds
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    depthwise: bool = False
    grouped: bool = False
    together: int = 1  # values a thread moves at once
    direct: bool = False  # reads device memory
    pool: tuple[int, int] = (1, 1)  # the window of the pool in registers into which its output goes

    @property
    def merged(self) -> bool:
        return self.pool != (1, 1)

    @property
    def rows(self) -> Ints:
        return np.asarray(self.images * self.box[1])

    @property
    def columns(self) -> Floats:
        """Columns of a row, of all tiles side by side on average."""
        return np.asarray(self.box[2] - (self.box[2] - self.last) / self.across)

    @property
    def outputs(self) -> Floats:
        return np.asarray(self.images * self.box[0] * self.box[1] * self.box[2], dtype=np.float64)


def time_of(chain: Chain, boxes: Boxes, staged: Collection[str], scratch: Ints, device: Device) -> Timing:
    """Seconds of one launch of `chain` over all tiles; `scratch` (N,) in bytes per block."""
    works = list(works_of(chain, boxes, staged, device).values())
    memory = _memory(chain, boxes, staged, scratch, device)
    if device.target == "cuda":
        taken = scratch + resident_bytes(chain, device) + BLOCK_RESERVE
        per_core = np.minimum(device.scratch_per_core // taken, device.max_threads_per_core // THREADS)
        blocks = np.maximum(1, np.minimum(per_core, device.registers_per_core // (REGISTERS * THREADS)))
        compute = _cuda(works, boxes.tiles, boxes.steps + boxes.warm_up, blocks, device) * (WALKED if boxes.folded else 1.0)
    else:
        blocks = np.ones_like(boxes.tiles)
        compute = cpu_seconds(works, boxes.tiles, boxes.steps + boxes.warm_up, device)
    waves = -(-boxes.tiles // (device.cores * blocks))
    return Timing(compute, memory, OVERLAP_LOSS[device.target], device.launch, blocks, waves)


def works_of(chain: Chain, boxes: Boxes, staged: Collection[str], device: Device) -> dict[str, Work]:
    """The work of every stage by its tensor, in the order they run; a convolution that a pool takes from registers is one."""
    pools = merged_pools(chain)
    loads = {t: Work(*_made(boxes, t), 1.0, 0.0, direct=True, together=layout_of(device, chain.shapes[t].channels).block)
             for t in chain.inputs if t in staged}
    nodes = [n for n in chain.nodes if n.inputs[0] not in pools]
    return loads | {n.name: _work(chain, boxes, n, staged, pools.get(n.name)) for n in nodes}


def _made(boxes: Boxes, tensor: str) -> tuple[Ints, Ints, Floats, Floats, Ints, Ints]:
    """The first fields of `Work`; the rows a tile makes in all include the warm-up of a strip."""
    i = boxes.index[tensor]
    channels, rows, columns = boxes.inside[:, i]
    fresh, passes = np.minimum(rows, boxes.fresh[i]), boxes.steps + boxes.early[i] / boxes.fresh[i]
    _, down, across = boxes.grid
    images = -(-boxes.batch // boxes.images) * boxes.images
    share = np.minimum(1.0, boxes.covered[1, i] / (down * passes * fresh)) * boxes.batch / images
    last = np.clip(boxes.covered[2, i] - (across - 1) * columns, 1, columns)
    return boxes.images, np.stack([channels, fresh, columns]), passes, share, across, last


def _work(chain: Chain, boxes: Boxes, node: Node, staged: Collection[str], pool: Node | None) -> Work:
    """The work of `node`, and of the `pool` that takes its output from registers: no stage of its own, a step per value."""
    layer, first = node.layer, node.inputs[0]
    direct = any(t in chain.inputs and t not in staged for t in node.inputs)
    made = _made(boxes, node.name)
    inputs = inputs_per_output(chain.graph, node)
    extra = ACTIVATION_COST * len(node.epilogue)
    if pool is not None and isinstance(pool.layer, L.Windowed):
        extra += ACTIVATION_COST * len(pool.epilogue) / (pool.layer.kernel[0] * pool.layer.kernel[1])
    if not inputs:
        reads = _reads(layer, node, boxes.inside[:, boxes.index[first]])
        function = FUNCTION_COST if isinstance(layer, L.LocalResponseNorm | L.Softmax | L.Sigmoid | L.Tanh | L.Silu) else 0.0
        single = function > 0 or isinstance(layer, L.DepthToSpace | L.Flatten)
        return Work(*made, reads, extra + function, single, MAX_READ if isinstance(layer, L.MaxPool2d) else 1.0, direct=direct)
    depthwise = isinstance(layer, L.Conv2d) and layer.groups == layer.out_channels == chain.graph.shapes[first].channels
    grouped = not isinstance(layer, L.Conv2d) or layer.groups > 1
    kernel, stride = (1, 1), 1
    if isinstance(layer, L.Conv2d):
        kernel, stride = layer.kernel, layer.stride[1]
    elif isinstance(layer, L.ConvTranspose2d):  # only every stride-th tap meets an input
        kernel = (-(-layer.kernel[0] // layer.stride[0]), -(-layer.kernel[1] // layer.stride[1]))
    window = pool.layer.kernel if pool is not None and isinstance(pool.layer, L.Windowed) else (1, 1)
    return Work(*made, 0.0, extra, inputs=inputs, kernel=kernel, stride=stride, depthwise=depthwise, grouped=grouped,
                direct=direct, pool=window)


def _reads(layer: L.Layer, node: Node, read: Ints) -> float | Floats:
    """Values a layer without multiply-adds reads per output."""
    if isinstance(layer, L.Windowed):
        return float(layer.kernel[0] * layer.kernel[1])
    if isinstance(layer, L.GlobalAvgPool2d):
        return np.asarray(read[1] * read[2], dtype=np.float64)
    if isinstance(layer, L.LocalResponseNorm):
        return float(layer.size)
    if isinstance(layer, L.Softmax):
        return 3.0  # maximum, sum, result
    return float(len(node.inputs)) if isinstance(layer, L.Add | L.Mul) else 1.0


def _memory(chain: Chain, boxes: Boxes, staged: Collection[str], scratch: Ints, device: Device) -> Floats:
    """Seconds of traffic: tensors and weights once from where they live, what blocks read again from the shared cache."""
    edge = [boxes.index[t] for t in (*chain.inputs, chain.output)]
    once = float(np.prod(boxes.size[:, edge], axis=0).sum()) * boxes.batch * device.element
    read = np.prod(boxes.covered[:, edge], axis=0).astype(np.float64)
    for i, t in enumerate(chain.inputs):
        if t in boxes.folded and t not in staged:  # each step of a strip asks for the rows again that a line buffer would keep
            read[i] *= boxes.extent[1, boxes.index[t]] / boxes.fresh[boxes.index[t]]
    again = read.sum(axis=0) * boxes.batch * device.element
    weights = float(sum(weight_bytes(chain.graph, n, device.element) for n in chain.nodes))
    streamed = weight_traffic(chain, boxes, device.element).sum(axis=0).astype(np.float64)
    if device.target == "cpu":  # a core keeps the weights in its own cache where they fit
        streamed = np.where(weights <= device.scratch_per_core / 2, np.minimum(streamed, weights * device.cores), streamed)
        streamed = weights + WEIGHTS_SEEN * np.maximum(streamed - weights, 0) + _spilled(chain, boxes, staged, scratch, device)
    room = device.cache * (CACHE_SHARE if device.target == "cpu" else 1.0)
    home = device.cache_bandwidth if once + weights <= room else device.bandwidth
    return np.asarray((once + weights) / home + np.maximum(again - once + streamed - weights, 0) / device.cache_bandwidth)


def _spilled(chain: Chain, boxes: Boxes, staged: Collection[str], scratch: Ints, device: Device) -> Floats:
    """Bytes of scratch that do not stay in a core's own cache: the share of it that has no room, written once and read once."""
    kept = [boxes.index[t] for t in (*staged, *chain.names[:-1])]
    made = np.prod(boxes.covered[:, kept], axis=0).sum(axis=0).astype(np.float64) * boxes.batch * BYTES
    beyond = np.maximum(0, 1 - KEPT * device.scratch_per_core / np.maximum(scratch, 1))
    return np.asarray(2 * made * beyond)


def weight_traffic(chain: Chain, boxes: Boxes, element: int) -> Ints:
    """(nodes, N) bytes of weights that all tiles read together: each step of a tile those of the channels it computes."""
    nodes = [boxes.index[n] for n in chain.names]
    early = -(-boxes.early[nodes] // boxes.fresh[nodes]) * boxes.grid[1]
    elsewhere = (boxes.steps_y + early) * boxes.grid[2] * -(-boxes.batch // boxes.images)
    per_channel = [weight_bytes(chain.graph, n, element) // chain.graph.shapes[n.name].channels for n in chain.nodes]
    return np.stack([b * boxes.covered[0, i] * e for b, i, e in zip(per_channel, nodes, elsewhere, strict=True)])


def _cuda(works: list[Work], tiles: Ints, steps: Ints, blocks: Ints, device: Device) -> Floats:
    """Throughput of a core over its share of the tiles, or the critical path of its rounds of blocks, whichever is longer."""
    busy, path = np.zeros(len(tiles)), np.full(len(tiles), BLOCK_LATENCY)
    for work in works:
        b, p = (_matrix(work) if device.matrix and not work.grouped else _cuda_dense(work, device)) if work.inputs \
            else _cuda_other(work, device)
        busy, path = busy + b * work.passes, path + np.maximum(b, p) * work.passes + STAGE_LATENCY * steps
    per_core, rounds = -(-tiles // device.cores), -(-tiles // (device.cores * blocks))
    together = (per_core * busy) ** WAITING + (rounds * path) ** WAITING
    return np.asarray(together ** (1 / WAITING) / (device.clock * CUDA_EFFICIENCY))


def _matrix(work: Work) -> tuple[Floats, Floats]:
    """(busy, path) cycles of a convolution by matrix instructions, in those of the inner loops of the others."""
    busy, path = cycles(Convolution(work.images * work.box[2], work.box[1], work.box[0], work.inputs, work.kernel, work.stride,
                                    work.extra, work.direct, work.pool))
    return busy * CUDA_EFFICIENCY, path * CUDA_EFFICIENCY


def _cuda_dense(work: Work, device: Device) -> tuple[Floats, Floats]:
    """(busy, path) cycles of a convolution: the register tile that suits its extents best."""
    shapes = DEPTHWISE_TILES if work.depthwise else REGISTER_TILES
    channel, pixel = (np.array(v, dtype=np.float64)[:, None] for v in zip(*shapes, strict=True))
    items = np.ceil(work.box[0] / channel) * work.rows * np.ceil(work.box[2] / pixel)
    rows, columns = work.inputs * work.kernel[0], work.kernel[1]
    values = ((pixel - 1) * work.stride + columns) * (GUARDED_READ if work.direct else 1.0)
    weights = columns * np.ceil(channel / 4)
    products = columns * channel * pixel + (work.extra + CUDA_OUTPUT) * channel * pixel / rows
    cycles = np.maximum(products * WARP / device.lanes, (values + weights) / SCRATCH_READS)
    many = work.inputs * work.kernel[0] * work.kernel[1] * work.box[0] > STAGED_WEIGHTS
    slower = np.where(many, MERGED, 1.0) if work.merged and work.direct else 1.0
    busy = np.ceil(items / WARP) * rows * cycles * slower
    path = np.ceil(items / THREADS) * rows * (products + values + weights + ROW_STALL) * slower
    best = np.argmin(np.maximum(busy, path), axis=0)[None]
    return np.take_along_axis(busy, best, 0)[0], np.take_along_axis(path, best, 0)[0]


def _cuda_other(work: Work, device: Device) -> tuple[Floats, Floats]:
    """(busy, path) cycles of a load or a layer without multiply-adds: one output per thread and turn."""
    reads = work.reads * (GUARDED_READ if work.direct else 1.0)
    cycles = np.maximum(reads / SCRATCH_READS, (reads + work.extra + CUDA_OTHER) * WARP / device.lanes)
    busy = np.ceil(work.outputs / work.together / WARP) * cycles
    path = np.ceil(work.outputs / work.together / THREADS) * (reads + work.extra + CUDA_OTHER)
    return busy, path + (GLOBAL_LATENCY if work.direct else 0.0)


def cpu_seconds(works: Collection[Work], tiles: Ints, steps: Ints, device: Device) -> Floats:
    """Cycles of all stages of a tile, those at the borders being smaller, times the tiles of the busiest core."""
    cycles = np.zeros(len(tiles))
    for work in works:
        inner = _cpu_dense(work, device) if work.inputs else _cpu_other(work, device)
        cycles = cycles + (inner / CPU_EFFICIENCY + ROW_COST * work.rows) * work.passes * work.share + CPU_STAGE * steps
    return np.asarray(-(-tiles // device.cores) * cycles / device.clock)


def _cpu_dense(work: Work, device: Device) -> Floats:
    """Blocks of pixels x vectors of output channels; narrow layers leave lanes empty, narrow tiles wait for their sums."""
    vectors = np.ceil(work.box[0] / device.vector).astype(np.int64)
    taps = work.inputs * work.kernel[0] * work.kernel[1]
    ends = (work.extra + (POOL_COST if work.merged else 0.0)) * work.box[0] * work.rows * work.columns / device.vector
    if work.depthwise:  # every product loads its own value and its own weight
        pixels = work.rows * work.columns * vectors
        return np.asarray(pixels * (2 * taps / LOADS_PER_CYCLE + BLOCK_COST / 4) + ends)
    group = np.select([vectors % v == 0 for v in VECTOR_BLOCKS], VECTOR_BLOCKS)
    room = np.maximum(1, (VECTOR_REGISTERS[device.vector] - SPARE_REGISTERS) // group - 1)
    rows, window = work.pool
    wide = work.box[2] // window
    across = -(-wide // np.maximum(1, room // (rows * window)))
    block = -(-wide // across)
    across = across + (-(-(work.last // window) // block) - across) / work.across  # the last tile has fewer blocks
    pixels = block * window * rows
    images = np.select([(work.images >= n) & (n * pixels <= room) for n in IMAGE_BLOCKS], IMAGE_BLOCKS, 1)
    pixels = pixels * images
    streamed = group * device.vector * BYTES  # for each product, from the second level where all of them do not fit the first
    bounds = (pixels * group * (device.vector / device.lanes), (pixels + group) / LOADS_PER_CYCLE,
              np.where(taps * streamed > LEVEL1, streamed / WEIGHT_RATE, 0.0))
    cycles = np.maximum(np.maximum.reduce(bounds), SUM_LATENCY)
    blocks = -(-work.images // images) * -(-work.box[1] // rows) * across * (vectors // group)
    return np.asarray(blocks * (taps * cycles + BLOCK_COST * (1 + pixels * group / 4)) + ends)


def _cpu_other(work: Work, device: Device) -> Floats:
    """Vectors of channels, or one value after the other; an image that is loaded is turned from NCHW."""
    places = work.rows * work.columns
    if work.direct and not work.extra:
        narrow = np.where((work.box[0] > 1) & (work.box[0] < device.vector), TRANSPOSE_COST * work.box[0] * places, 0.0)
        return np.asarray(np.maximum(places * np.ceil(work.box[0] / device.vector) * work.reads, narrow))
    pieces = work.box[0] if work.single else np.ceil(work.box[0] / device.vector)
    each = work.extra * work.box[0] * places / (2 if work.single else device.vector)
    return np.asarray(places * pieces * (work.reads * work.read_cost + CPU_OTHER) + each)
