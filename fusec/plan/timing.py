"""The time model: seconds of one kernel for many tiles at once.

In: the boxes of a chain's tensors for N tiles, which inputs are staged, scratch bytes, a Device. Out: `Timing`, arrays of N.
The model only has to rank schedules and partitions. All that a kernel does adds to its time, and nothing takes from it; but on
a GPU the time also follows the mapping, which gives other blocks of registers and other threads to boxes of other sizes.

The constants are estimates, none is a vendor's figure. Those for CUDA were fitted to kernels measured on an H200
(`benchmarks/calibrate.py`: chains of lenet5, mnist4, alexnet, vgg_e, resnet18, mobilenet_v2, artcnn_c4f16 and fsrcnn_x2 with
several tiles each): they minimise how much slower the model's choice is than the best one measured. Those for CPUs are set by
the times of single stages on one core of an AVX-512 server (`benchmarks/stages.py`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.shapes import Shape
from fusec.plan import matrix_time
from fusec.plan.boxes import Boxes
from fusec.plan.construct import layout_of
from fusec.plan.counting import BYTES, Filters, Ints, inputs_per_output, matrix_filters, weight_bytes
from fusec.plan.merge import merged_pools
from fusec.plan.scratch import PairedRows, copied_bytes, paired_rows, resident_bytes
from fusec.plan.simt_time import LINE, SCHEDULERS, THREADS, WARP, Access, Convolution, Demand, convolution, linear, pointwise
from fusec.schedule.ir import Chain
from fusec.targets.device import FEW_CHANNELS, Device

Floats = NDArray[np.float64]

WALKED = 1.0  # CUDA: strips against tiles, beyond what is counted
OVERLAP_LOSS = {"cuda": 0.35, "cpu": 0.9}  # share of the shorter of compute and memory time the longer one does not hide
FUNCTION_COST = 38.0  # instructions of an exponential, a power or a division per output
FUNCTIONS = (L.LocalResponseNorm, L.Softmax, L.LogSoftmax, L.Sigmoid, L.Tanh, L.Silu, L.Elu, L.Selu, L.Softplus, L.Gelu, L.Mish,
             L.Power, L.Sqrt, L.Exp, L.Div)  # the layers that take one
ACTIVATION_COST = 1.2  # instructions of an epilogue's step per output

# CUDA: blocks compute one stage after the other; what a stage asks for is in `simt_time`
BLOCK_RESERVE = 1024  # scratch bytes the driver keeps for itself per block
UNITS_LOSS = 0.35  # share of the other units' time that the busiest one of a multiprocessor does not hide
WAITING_LOSS = 0.96  # the same of units and waiting
LINEAR_DEPTH = 64  # products of an output from which on a warp shares the sum
PLANES_TOGETHER, ROW_TOGETHER = 4, 3  # values moved in the time of one, by eight channels and by four columns: generated code
STAGE_LATENCY = 216.0  # cycles: barrier, address set-up, filling the pipelines
BLOCK_LATENCY = 765.0  # cycles to start a block

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
    reads: float | Floats = 0.0  # values read per output by layers without multiply-adds
    extra: float = 0.0  # further instructions per output
    single: bool = False  # one value after the other, on a CPU too
    read_cost: float = 1.0  # cycles of a vector read, on a CPU
    inputs: int = 0  # input channels per output; 0 when the layer has no multiply-adds
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    outputs_together: int = 1  # output channels of a group
    linear: bool = False  # a large sum for each output of an image of one pixel
    filters: Filters | None = None  # by matrix instructions
    store: Floats | None = None  # (N,) instructions of a pair of outputs by those, epilogue included
    depthwise: bool = False
    phases: tuple[int, int] = (1, 1)  # of a transposed convolution made as an ordinary one, whose channels its phases are
    together: int = 1  # values a thread moves in the time of one
    spread: bool = False  # its channels go into rows of a network's output
    direct: bool = False  # reads device memory
    source: Access | None = None  # on a GPU, how it moves through an input there
    target: Access | None = None  # and through its output there
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
    stages = works_of(chain, boxes, staged, device)
    works = list(stages.values())
    memory = _memory(chain, boxes, staged, scratch, device)
    loss = OVERLAP_LOSS[device.target]
    if device.matrix:
        compute, blocks = _matrix(chain, stages, boxes, paired_rows(chain, boxes, staged, device), scratch, device)
        compute, loss = compute * (matrix_time.WALKED if boxes.folded else 1.0), matrix_time.OVERLAP_LOSS
    elif device.target == "cuda":
        taken = scratch + copied_bytes(chain, device) + BLOCK_RESERVE
        compute, blocks = _cuda(works, boxes.tiles, boxes.steps + boxes.warm_up, device.scratch_per_core // taken, device)
        compute = compute * (WALKED if boxes.folded else 1.0)
    else:
        blocks = np.ones_like(boxes.tiles)
        compute = cpu_seconds(works, boxes.tiles, boxes.steps + boxes.warm_up, device)
    waves = -(-boxes.tiles // (device.cores * blocks))
    return Timing(compute, memory, loss, device.launch, blocks, waves)


def works_of(chain: Chain, boxes: Boxes, staged: Collection[str], device: Device) -> dict[str, Work]:
    """The work of every stage by its tensor, in the order they run; a convolution that a pool takes from registers is one."""
    pools = merged_pools(chain)
    loads = {t: _load(chain, boxes, t, device) for t in chain.inputs if t in staged}
    nodes = [n for n in chain.nodes if n.inputs[0] not in pools]
    return loads | {n.name: _work(chain, boxes, n, staged, pools.get(n.name), device) for n in nodes}


def _load(chain: Chain, boxes: Boxes, tensor: str, device: Device) -> Work:
    """The copy of a staged input into scratch."""
    block = layout_of(device, chain.shapes[tensor].channels).block
    return Work(*_made(boxes, tensor), reads=1.0, direct=True, together=max(block, ROW_TOGETHER if device.matrix else 1),
                source=_access(chain, boxes, tensor, device))


def _made(boxes: Boxes, tensor: str) -> tuple[Ints, Ints, Floats, Floats, Ints, Ints]:
    """The first fields of `Work`; the rows a tile makes in all include the warm-up of a strip."""
    i = boxes.index[tensor]
    channels, _, columns = boxes.inside[:, i]
    return (boxes.images, np.stack([channels, boxes.rows[i], columns]), boxes.passes[i], boxes.share[i], boxes.grid[2],
            boxes.last[i])


def _work(chain: Chain, boxes: Boxes, node: Node, staged: Collection[str], pool: Node | None, device: Device) -> Work:
    """The work of `node`, and of the `pool` that takes its output from registers: no stage of its own, a step per value."""
    layer, first = node.layer, node.inputs[0]
    far = [t for t in node.inputs if t in chain.inputs and t not in staged]
    extra = ACTIVATION_COST * len(node.epilogue)
    window = pool.layer.kernel if pool is not None and isinstance(pool.layer, L.Windowed) else (1, 1)
    if pool is not None:
        extra += ACTIVATION_COST * len(pool.epilogue) / (window[0] * window[1])
    made = Work(*_made(boxes, node.name), extra=extra, direct=bool(far), pool=window, spread=node.name in chain.graph.outputs,
                source=_access(chain, boxes, far[0], device) if far else None,
                target=_access(chain, boxes, chain.output, device) if chain.output in (node.name, pool and pool.name) else None)
    inputs = inputs_per_output(chain.graph, node)
    filters = matrix_filters(chain.graph, node) if device.matrix else None
    if filters is not None:
        made = replace(made, filters=filters, store=_store(chain, made, node, pool, device))
    if not inputs:
        function = FUNCTION_COST if isinstance(layer, FUNCTIONS) else 0.0
        return replace(made, reads=_reads(layer, node, boxes.inside[:, boxes.index[first]]), extra=extra + function,
                       together=_together(layer, chain.shapes[node.name].channels, device),
                       single=function > 0 or isinstance(layer, L.DepthToSpace | L.Flatten),
                       read_cost=MAX_READ if isinstance(layer, L.MaxPool2d) else 1.0)
    if not isinstance(layer, L.Conv2d):
        kernel, phases = (1, 1), (1, 1)
        if isinstance(layer, L.ConvTranspose2d):  # only every stride-th tap meets an input
            kernel = (-(-layer.kernel[0] // layer.stride[0]), -(-layer.kernel[1] // layer.stride[1]))
            phases = layer.stride if filters is not None else (1, 1)
        return replace(made, inputs=inputs, kernel=kernel, phases=phases, outputs_together=chain.shapes[node.name].channels)
    depthwise = layer.groups == layer.out_channels == chain.graph.shapes[first].channels
    return replace(made, inputs=inputs, kernel=layer.kernel, stride=layer.stride[1], depthwise=depthwise,
                   outputs_together=layer.out_channels // layer.groups,
                   linear=_is_linear(layer, chain.shapes[node.name], inputs))


def _together(layer: L.Layer, channels: int, device: Device) -> int:
    """Values that a thread moves in the time of one, where it takes eight channels or four columns at once."""
    if not device.matrix:
        return 1
    if channels > FEW_CHANNELS:
        pools = L.MaxPool2d | L.AvgPool2d
        return PLANES_TOGETHER if isinstance(layer, L.Add | L.Activation | L.Upsample | L.Concat | pools) else 1
    return ROW_TOGETHER if isinstance(layer, L.Add | L.Activation | L.Upsample | L.DepthToSpace) else 1


def _is_linear(layer: L.Conv2d, shape: Shape, inputs: int) -> bool:
    """Whether a warp shares each sum of a convolution."""
    one = (shape.height, shape.width, layer.groups) == (1, 1, 1) and not layer.padding
    return one and inputs * layer.kernel[0] * layer.kernel[1] >= LINEAR_DEPTH


def _access(chain: Chain, boxes: Boxes, tensor: str, device: Device) -> Access | None:
    """How stages without matrix instructions move through a chain's input or output in a GPU's memory."""
    if device.target != "cuda" or device.matrix:
        return None
    i, tile = boxes.index[tensor], boxes.extent[2, boxes.index[chain.output]]
    columns, size = boxes.inside[2, i], int(boxes.size[2, i])
    words = max(1, layout_of(device, chain.shapes[tensor].channels).block * device.element // BYTES)
    aligned = np.where(columns == np.minimum(tile, size), np.gcd(tile, math.gcd(size, LINE)), 1)
    return Access(columns, columns >= size, aligned, words)


def _reads(layer: L.Layer, node: Node, read: Ints) -> float | Floats:
    """Values a layer without multiply-adds reads per output."""
    if isinstance(layer, L.Windowed):
        return float(layer.kernel[0] * layer.kernel[1])
    if isinstance(layer, L.GlobalPool2d):
        return np.asarray(read[1] * read[2], dtype=np.float64)
    if isinstance(layer, L.LocalResponseNorm):
        return float(layer.size)
    if isinstance(layer, L.Softmax | L.LogSoftmax):
        return 3.0  # maximum, sum, result
    if isinstance(layer, L.Upsample) and layer.linear:
        return 4.0
    return float(len(node.inputs)) if isinstance(layer, L.Elementwise) else 1.0


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


def _cuda(works: list[Work], tiles: Ints, steps: Ints, most: Ints, device: Device) -> tuple[Floats, Ints]:
    """Seconds of the busiest core, and the blocks that share one: `most` at most.

    A core takes its tiles in rounds of as many blocks. A round lasts as long as its units are busy or as one block alone takes,
    whichever is longer, and a little more.
    """
    demands = [(_demand(work), work.passes) for work in works]
    issue, reads, writes = (np.sum([getattr(d, unit) * n for d, n in demands], axis=0) for unit in ("issue", "reads", "writes"))
    path = BLOCK_LATENCY + STAGE_LATENCY * steps * len(works) + np.sum([d.path * n for d, n in demands], axis=0)
    longest = np.maximum(np.maximum(issue, reads), writes)
    busy = longest + UNITS_LOSS * (issue + reads + writes - longest)
    per_core = -(-tiles // device.cores)
    blocks, best = _threads([d for d, _ in demands], np.minimum(most, per_core), device)
    path = path[best, np.arange(len(best))]
    full, rest = per_core // blocks, per_core % blocks
    cycles = full * _overlapped(blocks * busy, path) + np.where(rest > 0, _overlapped(rest * busy, path), 0.0)
    return np.asarray(cycles / device.clock), blocks


def _threads(demands: list[Demand], most: Ints, device: Device) -> tuple[Ints, Ints]:
    """(N,) blocks that share a core, and (N,) the place in `THREADS` of the threads of one, both as the mapping chooses."""
    wanted = np.maximum.reduce([np.broadcast_to(d.registers, most.shape) for d in demands])
    warps = device.registers_per_core // WARP // SCHEDULERS // (-(-wanted // 8) * 8)  # of one scheduler
    room = SCHEDULERS * warps // (THREADS / WARP)
    blocks = np.maximum(1, np.minimum(np.minimum(room, device.max_threads_per_core // THREADS), most))
    units = np.sum([d.units for d in demands], axis=0)
    alone = (np.sum([d.alone for d in demands], axis=0) + 20 + THREADS / 5) / blocks
    estimate = np.where((room >= 1) | (THREADS[0] == THREADS), units * np.sqrt(units) + alone * np.sqrt(alone), np.inf)
    near = estimate * 0.94 <= estimate.min(axis=0)
    best = len(THREADS) - 1 - np.argmax(near[::-1], axis=0)  # of equals the largest
    return blocks[best, np.arange(len(best))].astype(np.int64), best


def _overlapped(busy: Floats, waiting: Floats) -> Floats:
    return np.asarray(np.maximum(busy, waiting) + WAITING_LOSS * np.minimum(busy, waiting))


def _demand(work: Work) -> Demand:
    """What one pass of a stage asks of a multiprocessor."""
    channels, rows, columns = work.box
    if not work.inputs:
        step = 1.0 if work.source is None else np.maximum(1.0, work.source.columns / np.maximum(columns, 1))
        return pointwise(work.outputs / work.together, work.reads, work.extra * work.together, step, work.source, work.target)
    if work.linear:
        return linear(work.outputs, work.images, channels, work.inputs * work.kernel[0] * work.kernel[1], work.extra)
    return convolution(Convolution(work.images, channels, rows, columns, work.outputs_together, work.inputs, work.kernel,
                                   work.stride, work.pool, work.extra), work.source, work.target)


def _store(chain: Chain, made: Work, node: Node, pool: Node | None, device: Device) -> Floats:
    """Instructions of a pair of outputs by matrix instructions, by where they go; rounding does a lone relu."""
    graph, columns = chain.graph, made.box[2]
    channels, outside, none = graph.shapes[node.name].channels, node.name == chain.output, np.zeros(len(columns))
    extra = 0.0 if pool is None and [type(p.layer) for p in node.epilogue] == [L.Relu] else matrix_time.EPILOGUE * made.extra
    if pool is not None:
        return none + matrix_time.STORE_POOL + extra
    rows = channels <= FEW_CHANNELS or (outside and node.name in graph.outputs)
    if isinstance(node.layer, L.ConvTranspose2d) or (not outside and (rows or not device.stores_matrices)):
        return none + matrix_time.STORE + extra
    if not rows:
        return none + (matrix_time.STORE_PIXEL if outside else matrix_time.STORE_MATRIX) + extra
    width = np.asarray(made.last) + (made.across - 1) * columns  # of the image
    return np.where((columns % 4 == 0) & (width % 4 == 0), matrix_time.STORE_ROW, matrix_time.STORE) + extra


def _matrix(chain: Chain, works: Mapping[str, Work], boxes: Boxes, rows: Mapping[str, PairedRows], scratch: Ints,
            device: Device) -> tuple[Floats, Ints]:
    """Seconds of the busiest core in half precision, and the blocks that share one."""
    resident, steps = resident_bytes(chain, device), boxes.steps + boxes.warm_up
    stages, barriers = [], 0 * steps
    for tensor, work in works.items():
        if tensor in chain.inputs:  # no copy where all that read it make rows in pairs for themselves
            wanted = np.any([~rows[n.name].fits if n.name in rows else np.ones_like(steps, dtype=np.bool_)
                             for n in chain.nodes if tensor in n.inputs], axis=0)
            demand = matrix_time.copy(work.outputs, work.together, device.element)
            stages.append((matrix_time.either(wanted, demand, matrix_time.NOTHING), work.passes))
            barriers += steps * wanted
            continue
        if tensor in rows:
            made = rows[tensor]
            demand = matrix_time.pair_rows(made.pixels, chain.shapes[made.tensor].channels, device.element,
                                           made.tensor in chain.inputs)
            stages.append((matrix_time.either(made.fits, demand, matrix_time.NOTHING), work.passes))
            barriers += steps * made.fits
        stages.append((_matrix_demand(work, rows.get(tensor), resident > 0), work.passes))
        barriers += steps
    taken = np.max([scratch, *(r.end for r in rows.values())], axis=0) + resident + BLOCK_RESERVE
    return matrix_time.kernel(stages, barriers, boxes.tiles, taken, device)


def _matrix_demand(work: Work, rows: PairedRows | None, resident: bool) -> matrix_time.Demand:
    """What one pass of a stage asks for in half precision; `resident`: weights are in scratch."""
    if work.filters is not None:
        if rows is None:
            return _fragments(work, matrix_time.Source.DEVICE if work.direct else matrix_time.Source.PLANES, resident)
        paired = _fragments(work, matrix_time.Source.PAIRED, resident)
        if rows.fits.all():
            return paired
        return matrix_time.either(rows.fits, paired, _fragments(work, matrix_time.Source.VALUES, resident))
    if not work.inputs:
        if work.together == PLANES_TOGETHER:
            return _spread(work, matrix_time.planes(work.outputs, work.reads, work.extra, work.direct))
        return matrix_time.other(work.outputs, work.together, work.reads, work.extra, work.direct)
    if work.depthwise:
        return _spread(work, matrix_time.depthwise(work.outputs, work.kernel, work.stride, work.extra, work.direct))
    return matrix_time.grouped(work.outputs, work.inputs * work.kernel[0] * work.kernel[1], work.extra, work.direct)


def _spread(work: Work, made: matrix_time.Demand) -> matrix_time.Demand:
    return matrix_time.spread(made, work.outputs, work.box[2]) if work.spread else made


def _fragments(work: Work, source: matrix_time.Source, resident: bool) -> matrix_time.Demand:
    """The same of a convolution by matrix instructions."""
    assert work.filters is not None and work.store is not None
    (channels, rows, columns), (y, x) = work.box, work.phases
    layer = matrix_time.Layer(work.filters, work.stride, source, resident, work.pool)
    return matrix_time.convolution(work.images * -(-columns // x), -(-rows // y), channels * y * x, work.store, layer)


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
