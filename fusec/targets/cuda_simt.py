"""Schedules on the CUDA cores, fp32: every stage by all threads of the block, one after another, with barriers between.

In: a Schedule (NCHW) and a Device. Out: a MappedKernel for `templates/cuda`. Convolutions get a register tile (`blocking`);
every other stage computes one output per thread and step.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

import numpy as np

from fusec.graph import layers as L
from fusec.schedule.ir import Buffer, Read, Schedule, Space, Stage
from fusec.targets import geometry as G
from fusec.targets.base import Call, MappedKernel, Staging
from fusec.targets.blocking import UNROLLED_SUMS, UNROLLED_WEIGHTS, Block, Work, choose, unroll_y
from fusec.targets.device import Device
from fusec.targets.mapper import ELEMENTWISE, Mapper
from fusec.targets.packing import by_rows, by_taps, round_up, transposed_by_taps

_LIBRARIES = {"conv2d": "conv2d.cuh", "conv2d_pool": "conv2d.cuh", "dense": "dense.cuh", "conv_transpose2d":
              "conv_transpose2d.cuh", "max_pool2d": "pool.cuh", "avg_pool2d": "pool.cuh", "global_avg_pool2d": "reduce.cuh",
              "global_max_pool2d": "reduce.cuh", "softmax": "reduce.cuh", "copy": "pointwise.cuh", "concat": "pointwise.cuh",
              "upsample": "pointwise.cuh", "depth_to_space": "pointwise.cuh", "flatten": "pointwise.cuh",
              "local_response_norm": "pointwise.cuh", "log_softmax": "reduce.cuh", "upsample_linear": "resize.cuh",
              "space_to_depth": "moves.cuh", "slice_channels": "moves.cuh", "pad": "moves.cuh"}
_LIBRARIES |= dict.fromkeys(ELEMENTWISE.values(), "elementwise.cuh")

OTHER_REGISTERS = 40  # a thread of a stage without multiply-adds wants
DENSE_REGISTERS = 128  # a thread of a linear layer wants, with two steps of weights and inputs under way
STAGED, STAGED_ALONE = 4096, 12288  # weights and biases copied into scratch, at most; for a block among many, and alone
DENSE_DEPTH = 64  # products per output from which on a linear layer's sum is shared among a warp


def map_schedule(schedule: Schedule, device: Device, *, tiles: int | None = None) -> MappedKernel:
    """Map `schedule` to threads.

    Parameters
    ----------
    tiles
        How many tiles are expected, so that few blocks get many threads each; None is more than the device has room for.
    """
    mapper = CudaMapper(schedule, device)
    works = mapper.works()
    dense = any(mapper.is_dense(s) for s in schedule.stages)
    positions = sum(s.writes.images * s.footprint.elements * schedule.fresh(s) // (s.footprint.y.extent or 1)
                    for s in schedule.stages if s not in works)
    scratch = mapper.stage_weights(tuple(works), alone=tiles is not None and tiles <= device.cores)
    blocking = choose(tuple(works.values()), scratch_bytes=4 * scratch, scratch_per_core=device.scratch_per_core,
                      registers=device.registers_per_core, threads_per_core=device.max_threads_per_core, positions=positions,
                      least=DENSE_REGISTERS if dense else OTHER_REGISTERS,
                      share=device.max_threads_per_core if tiles is None else -(-tiles // device.cores))
    mapper.blocks, mapper.threads = dict(zip(works, blocking.blocks, strict=True)), blocking.threads
    kernel = mapper.kernel(blocking.threads, blocking.blocks_per_core)
    return replace(kernel, scratch=mapper.scratch, staging=tuple(mapper.staging))


class CudaMapper(Mapper):
    """Every convolution through a register tile per thread; `cuda_mma` overrides who does which."""

    libraries = _LIBRARIES
    core: tuple[str, ...] = ("float32.cuh", "core.cuh")
    activations = "activations.cuh"
    align = 4  # 16 bytes, for float4 loads

    def __init__(self, schedule: Schedule, device: Device) -> None:
        super().__init__(schedule, device)
        self.blocks: dict[Stage, Block] = {}
        self.threads = 32
        self.staging: list[Staging] = []
        self.scratch = schedule.scratch_elements
        self._staged: frozenset[Stage] = frozenset()

    def works(self) -> dict[Stage, Work]:
        """Extents of every convolution stage with register tiles."""
        found: dict[Stage, Work] = {}
        for stage, after in zip(self.schedule.stages, (*self.schedule.stages[1:], None), strict=True):
            if self.is_simt(stage):
                found[stage] = self.work(stage, after if stage.writes.space is Space.REGISTER else None)
        return found

    def is_simt(self, stage: Stage) -> bool:
        """Whether a stage is a convolution whose outputs are shared out among threads in blocks."""
        return is_conv(stage) and not self.is_dense(stage)

    def stage_weights(self, convolutions: tuple[Stage, ...], *, alone: bool) -> int:
        """Choose the convolutions whose weights are copied into scratch once per block: all, or none when they are many.

        A block alone on its multiprocessor otherwise waits for each weight's first load. Returns the elements of scratch that
        the kernel will take at most."""
        sizes = [sum(self._parameter_sizes(s)) for s in convolutions]
        limit = STAGED_ALONE if alone else STAGED
        if sum(sizes) <= limit and 4 * (self.scratch + 4 + sum(sizes)) <= self.device.scratch_per_block:
            self._staged = frozenset(convolutions)
            self.scratch = -(-self.scratch // 4) * 4
            return self.scratch + sum(sizes)
        return self.scratch

    def _parameter_sizes(self, stage: Stage) -> tuple[int, int]:
        """Elements of a convolution's packed weights and bias, each with its alignment."""
        layer = self.conv_layer(stage)
        pitch = round_up(layer.out_channels, 4)
        depth = self.input_channels(stage) // layer.groups
        return depth * layer.kernel[0] * layer.kernel[1] * pitch, pitch

    def buffer_type(self, buffer: Buffer, written: bool) -> str:
        if buffer.space is Space.SCRATCH:
            bits = int(np.float32(buffer.padding_value).view(np.uint32))
            return (f"Scratch<{buffer.offset}, {buffer.image_pitch}, {buffer.channel_pitch}, {buffer.row_pitch}, {bits:#x}u"
                    f"{self.ring(buffer)}>")
        return f"Global<{'value_t' if written else 'const value_t'}, {self.shape(buffer).channels}>"

    def channel_parameter(self, offset: int) -> str:
        return f"__ldg(params + {offset} + c)"

    def work(self, stage: Stage, pool: Stage | None = None) -> Work:
        """Extents of a convolution stage, and of the pool it is merged with."""
        layer, read = self.conv_layer(stage), stage.reads[0].buffer
        last = pool or stage
        r = G.region(last, self.shape(last.writes), self.schedule.fresh(last))
        pool_y, pool_x = (1, 1) if pool is None or pool.node is None else _kernel(pool.node.layer)
        y, x = layer.window(L.Axis.Y), layer.window(L.Axis.X)
        return Work(stage.writes.images, r.channels, gcd(layer.out_channels // layer.groups, r.channels), r.rows, r.columns,
                    self.input_channels(stage) // layer.groups, y.size, x.size, y.stride, x.stride, x.dilation,
                    read.row_pitch if read.space is Space.SCRATCH else 0, read.image_pitch, pool_y, pool_x)

    def is_dense(self, stage: Stage) -> bool:
        """Whether a stage is a linear layer large enough to share each sum among a warp.

        A property of the layer alone, so that every schedule adds in the same order."""
        if not is_conv(stage):
            return False
        layer, shape = self.conv_layer(stage), self.shape(stage.writes)
        depth = self.input_channels(stage) * layer.kernel[0] * layer.kernel[1]
        return (shape.height, shape.width, layer.groups) == (1, 1, 1) and depth >= DENSE_DEPTH and not layer.padding

    def _dense(self, index: int, stage: Stage) -> Call:
        layer, read, weight = self.conv_layer(stage), stage.reads[0], self.weight(stage)
        depth = self.input_channels(stage) * layer.kernel[0] * layer.kernel[1]
        pitch = round_up(depth, 128)
        images = max(n for n in (1, 2, 4) if stage.writes.images % n == 0)
        groups, outputs = stage.writes.images // images, stage.footprint.c.extent or 1
        # blocks of many channels read less, blocks of few keep every warp busy
        channels = next((c for c in (8, 4, 2) if -(-outputs // c) * groups >= self.threads // 32), 1)
        numbers = G.window_numbers(stage, read) | {
            "BLOCK_C": channels, "BLOCK_N": images, "DEPTH": depth,
            "WEIGHTS": self.packer.add(layer.out_channels * pitch, lambda: by_rows(weight, pitch)), "WEIGHT_PITCH": pitch,
            "BIAS": self._bias_offset(stage), "UNROLL": min(2 if channels * images <= 16 else 1, pitch // 128),
            "FLAT": str(_flat(read, layer)).lower(), "WHOLE": str(self._reads_whole_image(read, layer)).lower()}
        return self.call(index, stage, "dense", numbers, (self.read(stage),))

    def _reads_whole_image(self, read: Read, layer: L.Conv2d) -> bool:
        """Whether a linear layer reads an image in device memory from its first value to its last."""
        shape = self.shape(read.buffer)
        return (read.buffer.space is Space.GLOBAL and layer.kernel == (shape.height, shape.width) and layer.dilation == (1, 1))

    def _bias_offset(self, stage: Stage) -> int:
        bias = self.bias(stage)
        return -1 if bias is None else bias

    def conv(self, index: int, stage: Stage) -> Call:
        if self.is_dense(stage):
            return self._dense(index, stage)
        numbers, pointers = self._conv_numbers(stage)
        return self.call(index, stage, "conv2d", numbers, (*pointers, self.read(stage)))

    def conv_pool(self, index: int, conv: Stage, pool: Stage) -> Call:
        numbers, pointers = self._conv_numbers(conv)
        return Call("conv2d_pool", (self.struct(index - 1, conv, numbers), self.pool_struct(index, pool)),
                    (self.names[pool.writes], "params", *pointers, self.read(conv)))

    def _conv_numbers(self, stage: Stage) -> tuple[G.Numbers, tuple[str, str]]:
        """A convolution's constants, and where its weights and bias are."""
        layer, block, work, given = self.conv_layer(stage), self.blocks[stage], self.work(stage), self.weight(stage)
        pitch, (size, _) = round_up(layer.out_channels, 4), self._parameter_sizes(stage)
        weights = self.packer.add(size, lambda: by_taps(given, pitch))
        bias = self.bias(stage)
        rows = unroll_y(work, block)
        numbers: G.Numbers = G.window_numbers(stage, stage.reads[0]) | {
            "GROUP_IN": work.depth, "GROUP_OUT": layer.out_channels // layer.groups,
            "BLOCK_C": block.channels, "BLOCK_X": block.columns, "BLOCK_N": block.images, "WEIGHT_PITCH": pitch,
            "WEIGHT_ALIGN": 4 if block.channels == layer.out_channels else gcd(4, block.channels),
            "UNROLL_Y": rows, "UNROLL_C": _unroll_channels(work, block, rows),
            "WIDE": str(work.wide).lower(), "BIAS": str(bias is not None).lower()}
        home, first = "params", 0
        if stage in self._staged:
            count = sum(self._parameter_sizes(stage)) if bias is not None else self._parameter_sizes(stage)[0]
            self.staging.append(Staging(self.scratch, weights, count))
            home, first = "scratch", self.scratch - weights
            self.scratch += count
        return numbers, (f"{home} + {weights + first}", f"{home} + {(weights if bias is None else bias) + first}")

    def conv_transpose(self, index: int, stage: Stage) -> Call:
        layer, weight = self.transposed_layer(stage), self.weight(stage)
        group_in, group_out = self.input_channels(stage) // layer.groups, layer.out_channels // layer.groups
        size = group_in * layer.kernel[0] * layer.kernel[1] * layer.out_channels
        channels = gcd(group_out, stage.footprint.c.extent or group_out)
        numbers = G.transposed_numbers(stage, stage.reads[0]) | self._grouping(stage, layer) | {
            "BLOCK_C": max(d for d in range(1, 9) if channels % d == 0), "WEIGHT_PITCH": layer.out_channels,
            "WEIGHTS": self.packer.add(size, lambda: transposed_by_taps(weight, layer.groups))}
        return self.call(index, stage, "conv_transpose2d", numbers, (self.read(stage),))

    def _grouping(self, stage: Stage, layer: L.Conv2d | L.ConvTranspose2d) -> G.Numbers:
        return {"GROUP_IN": self.input_channels(stage) // layer.groups, "GROUP_OUT": layer.out_channels // layer.groups,
                "BIAS": self._bias_offset(stage)}


def is_conv(stage: Stage) -> bool:
    return stage.node is not None and isinstance(stage.node.layer, L.Conv2d)


def _flat(read: Read, layer: L.Conv2d) -> bool:
    """Whether the values a linear layer reads lie one after another in scratch, at multiples of 16 bytes."""
    b, box = read.buffer, read.buffer.footprint
    dense = (b.column_pitch, b.row_pitch, b.channel_pitch) == (1, layer.kernel[1], layer.kernel[0] * layer.kernel[1])
    return (b.space is Space.SCRATCH and dense and layer.dilation == (1, 1) and box == read.footprint
            and b.offset % 4 == 0 and b.image_pitch % 4 == 0)


def _unroll_channels(work: Work, block: Block, rows: int) -> int:
    """Input channels unrolled, so that a small body has several loads under way."""
    body, weights = rows * work.kernel_x * block.sums, rows * work.kernel_x * block.channels
    most = max(1, min(UNROLLED_SUMS // (4 * body), UNROLLED_WEIGHTS // weights)) if rows == work.kernel_y else 1
    return max(u for u in (1, 2, 4, 8) if u <= most and u <= work.depth)


def _kernel(layer: L.Layer) -> L.Pair:
    assert isinstance(layer, L.Windowed)
    return layer.kernel
