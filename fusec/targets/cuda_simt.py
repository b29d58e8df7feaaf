"""Schedules on the CUDA cores, fp32: every stage by all threads of the block, one after another, with barriers between.

In: a Schedule (NCHW) and a Device. Out: a MappedKernel for `templates/cuda`. Convolutions get a register tile (`blocking`);
every other stage computes one output per thread and step.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from fusec.graph import layers as L
from fusec.schedule.ir import Buffer, Read, Schedule, Space, Stage
from fusec.targets import geometry as G
from fusec.targets.base import Call, MappedKernel
from fusec.targets.blocking import Block, Work, choose
from fusec.targets.device import Device
from fusec.targets.mapper import FloatArray, Mapper

_LIBRARIES = {"conv2d": "conv2d.cuh", "dense": "dense.cuh", "conv_transpose2d": "conv_transpose2d.cuh", "max_pool2d": "pool.cuh",
              "avg_pool2d": "pool.cuh", "global_avg_pool2d": "reduce.cuh", "softmax": "reduce.cuh", "copy": "pointwise.cuh",
              "concat": "pointwise.cuh", "add": "pointwise.cuh", "mul": "pointwise.cuh", "upsample": "pointwise.cuh",
              "depth_to_space": "pointwise.cuh", "flatten": "pointwise.cuh", "local_response_norm": "pointwise.cuh"}


DENSE_DEPTH = 64  # products per output from which on a linear layer's sum is shared among a warp


def map_schedule(schedule: Schedule, device: Device, *, small_grid: bool = False) -> MappedKernel:
    """Map `schedule` to threads.

    Parameters
    ----------
    small_grid
        Whether the grid will not fill the device, so that a block has a multiprocessor to itself.
    """
    mapper = _CudaMapper(schedule, device)
    works = {s: mapper.work(s) for s in schedule.stages
             if s.node is not None and isinstance(s.node.layer, L.Conv2d) and not mapper.is_dense(s)}
    positions = max((s.writes.images * s.footprint.elements for s in schedule.stages if s not in works), default=32)
    blocking = choose(tuple(works.values()), scratch_bytes=4 * schedule.scratch_elements,
                      scratch_per_core=device.scratch_per_core, registers=device.registers_per_core,
                      max_threads=min(1024, device.max_threads_per_core), positions=positions, alone=small_grid)
    mapper.blocks = dict(zip(works, blocking.blocks, strict=True))
    return mapper.kernel(blocking.threads, blocking.blocks_per_core)


class _CudaMapper(Mapper):
    libraries = _LIBRARIES
    core = "core.cuh"
    align = 4  # 16 bytes, for float4 loads

    blocks: dict[Stage, Block]

    def buffer_type(self, buffer: Buffer, written: bool) -> str:
        if buffer.space is Space.SCRATCH:
            bits = int(np.float32(buffer.padding_value).view(np.uint32))
            return f"Scratch<{buffer.offset}, {buffer.image_pitch}, {buffer.channel_pitch}, {buffer.row_pitch}, {bits:#x}u>"
        return f"Global<{'float' if written else 'const float'}, {self.shape(buffer).channels}>"

    def channel_parameter(self, offset: int) -> str:
        return f"__ldg(params + {offset} + c)"

    def work(self, stage: Stage) -> Work:
        """Extents of a convolution stage."""
        assert stage.node is not None
        layer = stage.node.layer
        assert isinstance(layer, L.Conv2d)
        r = G.region(stage, self.shape(stage.writes))
        y, x = layer.window(L.Axis.Y), layer.window(L.Axis.X)
        return Work(stage.writes.images, r.channels, gcd(layer.out_channels // layer.groups, r.channels), r.rows, r.columns,
                    self.input_channels(stage) // layer.groups, y.size, x.size, x.stride, x.dilation)

    def is_dense(self, stage: Stage) -> bool:
        """Whether a convolution is a linear layer large enough to share each sum among a warp. A property of the layer alone,
        so that every schedule adds in the same order."""
        assert stage.node is not None
        layer, shape = stage.node.layer, self.shape(stage.writes)
        assert isinstance(layer, L.Conv2d)
        depth = self.input_channels(stage) * layer.kernel[0] * layer.kernel[1]
        return (shape.height, shape.width, layer.groups) == (1, 1, 1) and depth >= DENSE_DEPTH and not layer.padding

    def _dense(self, index: int, stage: Stage, layer: L.Conv2d) -> Call:
        assert stage.node is not None
        read, params = stage.reads[0], stage.node.params
        depth = self.input_channels(stage) * layer.kernel[0] * layer.kernel[1]
        pitch = -(-depth // 128) * 128

        def packed() -> FloatArray:  # (output channel, input channel x kernel row x kernel column)
            return np.pad(np.asarray(params["weight"], np.float32).reshape(layer.out_channels, depth), ((0, 0), (0, pitch - depth)))

        images = max(n for n in (1, 2, 4) if stage.writes.images % n == 0)
        channels = 16 // images if (stage.footprint.c.extent or 1) >= 16 // images else 4
        numbers = G.window_numbers(stage, read) | {
            "BLOCK_C": min(channels, 8), "BLOCK_N": images, "DEPTH": depth, "WEIGHTS": self.packer.add(layer.out_channels * pitch, packed),
            "WEIGHT_PITCH": pitch, "BIAS": self._bias_offset(stage), "UNROLL": min(4, pitch // 128),
            "FLAT": str(_flat(read, layer)).lower()}
        return self.call(index, stage, "dense", numbers, (self.read(stage),))

    def _bias_offset(self, stage: Stage) -> int:
        bias = self.bias(stage)
        return -1 if bias is None else bias

    def conv(self, index: int, stage: Stage) -> Call:
        assert stage.node is not None
        if self.is_dense(stage):
            assert isinstance(stage.node.layer, L.Conv2d)
            return self._dense(index, stage, stage.node.layer)
        layer, block, work = stage.node.layer, self.blocks[stage], self.work(stage)
        assert isinstance(layer, L.Conv2d)
        pitch = -(-layer.out_channels // 4) * 4
        params = stage.node.params

        def packed() -> FloatArray:  # (input channel of the group, kernel row, kernel column, output channel)
            w = np.zeros((work.depth, work.kernel_y, work.kernel_x, pitch), np.float32)
            w[..., :layer.out_channels] = np.transpose(params["weight"], (1, 2, 3, 0))
            return w

        size = work.depth * work.kernel_y * work.kernel_x * pitch
        numbers = G.window_numbers(stage, stage.reads[0]) | self._grouping(stage, layer) | {
            "BLOCK_C": block.channels, "BLOCK_X": block.columns, "BLOCK_N": block.images,
            "WEIGHTS": self.packer.add(size, packed), "WEIGHT_PITCH": pitch,
            "UNROLL_Y": _unroll(work, block), "WIDE": str(work.wide).lower()}
        return self.call(index, stage, "conv2d", numbers, (self.read(stage),))

    def conv_transpose(self, index: int, stage: Stage) -> Call:
        assert stage.node is not None
        layer, params, inputs = stage.node.layer, stage.node.params, self.input_channels(stage)
        assert isinstance(layer, L.ConvTranspose2d)
        group_in, group_out = inputs // layer.groups, layer.out_channels // layer.groups

        def packed() -> FloatArray:  # (input channel of the group, kernel row, kernel column, output channel)
            w = np.asarray(params["weight"], np.float32).reshape(layer.groups, group_in, group_out, *layer.kernel)
            return np.ascontiguousarray(np.transpose(w, (1, 3, 4, 0, 2)))

        size = group_in * layer.kernel[0] * layer.kernel[1] * layer.out_channels
        channels = gcd(group_out, G.region(stage, self.shape(stage.writes)).channels)
        numbers = G.transposed_numbers(stage, stage.reads[0]) | self._grouping(stage, layer) | {
            "BLOCK_C": max(d for d in range(1, 9) if channels % d == 0), "WEIGHTS": self.packer.add(size, packed),
            "WEIGHT_PITCH": layer.out_channels}
        return self.call(index, stage, "conv_transpose2d", numbers, (self.read(stage),))

    def _grouping(self, stage: Stage, layer: L.Conv2d | L.ConvTranspose2d) -> G.Numbers:
        return {"GROUP_IN": self.input_channels(stage) // layer.groups, "GROUP_OUT": layer.out_channels // layer.groups,
                "BIAS": self._bias_offset(stage)}


def _flat(read: Read, layer: L.Conv2d) -> bool:
    """Whether the values a linear layer reads lie one after another in scratch, at multiples of 16 bytes."""
    b, box = read.buffer, read.buffer.footprint
    dense = (b.column_pitch, b.row_pitch, b.channel_pitch) == (1, layer.kernel[1], layer.kernel[0] * layer.kernel[1])
    return (b.space is Space.SCRATCH and dense and layer.dilation == (1, 1) and box == read.footprint
            and b.offset % 4 == 0 and b.image_pitch % 4 == 0)


def _unroll(work: Work, block: Block) -> int:
    """Kernel rows unrolled: all of them while the body stays a few hundred multiply-adds."""
    return work.kernel_y if work.kernel_y * work.kernel_x * block.sums <= 600 else 1
