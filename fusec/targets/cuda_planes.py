"""Stages of tensors in planes of eight channels, moved and computed eight channels at a time.

In: a Schedule (planes of eight channels) and a Device. Out: calls of the library for stages whose boxes are whole planes; the
others are left to the mapping shared with float32. Both add in the same order, so that bits do not depend on boxes.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from fusec.graph import layers as L
from fusec.schedule.ir import Buffer, Layout, Schedule, Space, Stage
from fusec.targets import geometry as G
from fusec.targets import octets
from fusec.targets.base import Call
from fusec.targets.cuda_simt import CudaMapper, is_conv
from fusec.targets.device import FEW_CHANNELS, Device
from fusec.targets.packing import depthwise, round_up


class PlanesMapper(CudaMapper):
    """What needs no matrix instructions; `cuda_mma` adds convolutions that do."""

    libraries = CudaMapper.libraries | {"copy_planes": "planes.cuh", "sum_planes": "planes.cuh", "sum_rows": "rows.cuh",
                                        "upsample_rows": "rows.cuh", "depth_to_space_rows": "rows.cuh",
                                        "upsample_planes": "planes.cuh", "concat_planes": "planes.cuh",
                                        "max_pool2d_planes": "pool_planes.cuh", "avg_pool2d_planes": "pool_planes.cuh",
                                        "depthwise_planes": "depthwise_planes.cuh"}

    needs = MappingProxyType({"pool_planes.cuh": ("pool.cuh",)})

    def __init__(self, schedule: Schedule, device: Device) -> None:
        super().__init__(schedule, device)
        self.core = ("ptx.cuh", f"{device.dtype}.cuh", "core.cuh", "planes.cuh")
        self.columns: dict[Stage, int] = {}

    def is_dense(self, stage: Stage) -> bool:
        return False

    def is_simt(self, stage: Stage) -> bool:
        return is_conv(stage) and not self.is_depthwise(stage)

    def is_whole(self, buffer: Buffer) -> bool:
        """Whether a buffer's box is whole planes of eight channels."""
        c, chain, step = buffer.footprint.c, self.schedule.chain, self.schedule.tile.channels
        even = step == chain.shapes[chain.output].channels or (c.scale * step) % 8 == 0
        return buffer.layout is Layout.NC8HW8 and buffer.space is not Space.REGISTER and c.offset % 8 == 0 and even

    def is_depthwise(self, stage: Stage) -> bool:
        """Whether a stage is a depthwise convolution of whole planes."""
        if not is_conv(stage):
            return False
        layer = self.conv_layer(stage)
        return (layer.groups == layer.out_channels == self.input_channels(stage) and self.is_whole(stage.writes)
                and self.is_whole(stage.reads[0].buffer))

    def depthwise_works(self) -> dict[Stage, octets.Work]:
        """Extents of every depthwise convolution of whole planes."""
        return {s: self._depthwise_work(s) for s in self.schedule.stages if self.is_depthwise(s)}

    def _depthwise_work(self, stage: Stage) -> octets.Work:
        w = self.work(stage)
        return octets.Work(w.images, -(-w.channels // 8), w.rows, w.columns, w.kernel_y, w.kernel_x, w.stride_x, w.dilation_x)

    def conv(self, index: int, stage: Stage) -> Call:
        return self._depthwise(index, stage) if self.is_depthwise(stage) else super().conv(index, stage)

    def _depthwise(self, index: int, stage: Stage) -> Call:
        layer, work, columns = self.conv_layer(stage), self._depthwise_work(stage), self.columns[stage]
        kernel, given, pitch = layer.kernel, self.weight(stage), round_up(layer.out_channels, 8)
        weights = self.packer.add(kernel[0] * kernel[1] * pitch, lambda: depthwise(given, kernel, pitch, 0))
        bias = self.bias(stage, room=pitch - layer.out_channels)
        numbers: G.Numbers = G.window_numbers(stage, stage.reads[0]) | {
            "BLOCK_X": columns, "UNROLL_Y": octets.unroll_y(work, columns), "WIDE": str(work.wide).lower(),
            "WEIGHTS": weights, "WEIGHT_PITCH": pitch, "BIAS": -1 if bias is None else bias}
        return self.call(index, stage, "depthwise_planes", numbers, (self.read(stage),))

    def stage(self, index: int, stage: Stage) -> tuple[Call, ...]:
        if stage.node is None and self._copies_planes(stage):
            call = self.call(index, stage, "copy_planes", {}, (self.read(stage),))
            return (replace(call, arguments=(self.names[stage.writes], self.read(stage))),)
        if self._sums_planes(stage):
            return (self.call(index, stage, "sum_planes", {}, self.shifted(stage)),)
        if self._sums(stage) and stage.writes.layout is Layout.NCHW:
            return (self.call(index, stage, "sum_rows", self._run(stage), self.shifted(stage)),)
        calls = super().stage(index, stage)
        if stage.writes.layout is Layout.NCHW and calls[0].function in ("upsample", "depth_to_space"):
            return (self._with(calls[0], f"{calls[0].function}_rows", self._run(stage)),)
        if self.is_whole(stage.writes) and calls[0].function in ("upsample", "max_pool2d", "avg_pool2d", "concat"):
            return tuple(self._with(c, f"{c.function}_planes", {}) if self._moves_planes(stage, i) else c
                         for i, c in enumerate(calls))
        return calls

    def _moves_planes(self, stage: Stage, operand: int) -> bool:
        """Whether an operand's eights of channels become eights of the output, each by one thread."""
        channels = [self.shape(r.buffer).channels for r in stage.reads]
        last = operand == len(channels) - 1
        aligned = sum(channels[:operand]) % 8 == 0 and (last or channels[operand] % 8 == 0)
        return aligned and self._is_eights(stage.reads[operand].buffer)

    def _run(self, stage: Stage) -> G.Numbers:
        """Columns of a row that a thread takes: four, as long as all threads find some."""
        made = G.region(stage, self.shape(stage.writes), self.schedule.fresh(stage))
        rows, columns = made.rows * made.channels * stage.writes.images, made.columns
        fitting = (c for c in (4, 2) if c <= columns and rows * -(-columns // c) >= self.threads)
        return {"BLOCK_X": next(fitting, 1)}

    @staticmethod
    def _with(call: Call, function: str, numbers: G.Numbers) -> Call:
        """A call of another function with further constants."""
        struct = replace(call.structs[0], constants=(*call.structs[0].constants, *numbers.items()))
        return replace(call, function=function, structs=(struct,))

    def _sums(self, stage: Stage) -> bool:
        """Whether a stage copies tensors, adds some of one size, or changes one value by value."""
        if stage.node is None:
            return True
        alike = self.schedule.chain.graph.sized_by(stage.node) == stage.node.inputs  # none is one pixel for all
        channels = len({self.shape(r.buffer).channels for r in stage.reads}) == 1
        return isinstance(stage.node.layer, L.Add | L.Activation) and alike and channels

    def _sums_planes(self, stage: Stage) -> bool:
        """Whether a stage does so by eights of the same channels, in planes or between them and device memory without."""
        buffers = [stage.writes, *(r.buffer for r in stage.reads)]
        eights = all(self._is_eights(b) and b.footprint.c == stage.footprint.c for b in buffers)
        return self._sums(stage) and eights and len({self.shape(b).channels for b in buffers}) == 1

    def _is_eights(self, buffer: Buffer) -> bool:
        """Whether a buffer's box is whole planes, or would be if its tensor had some."""
        many = buffer.space is Space.GLOBAL and self.shape(buffer).channels > FEW_CHANNELS
        return self.is_whole(buffer) or (many and self.is_whole(replace(buffer, layout=Layout.NC8HW8)))

    def _copies_planes(self, stage: Stage) -> bool:
        """Whether a load moves whole planes from device memory into scratch, zeros outside the image."""
        source, target = stage.reads[0].buffer, stage.writes
        return (self.is_whole(source) and self.is_whole(target) and target.padding_value == 0.0
                and G.shift(stage, stage.reads[0]) == (0, 0))
