"""Schedules on a CPU, fp32: one thread per tile, the lanes of a vector on output channels.

In: a Schedule (NHWC scratch) and a Device. Out: a MappedKernel for `templates/cpu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from fusec.graph import layers as L
from fusec.schedule.ir import Buffer, Layout, Schedule, Space, Stage
from fusec.targets import geometry as G
from fusec.targets.base import Call, MappedKernel, Struct
from fusec.targets.device import Device
from fusec.targets.mapper import ELEMENTWISE, Mapper
from fusec.targets.packing import by_groups, depthwise, round_up

_LIBRARIES = {"conv2d": "conv2d.hpp", "conv2d_pool": "conv2d.hpp", "depthwise_conv2d": "conv2d.hpp", "conv_transpose2d":
              "conv_transpose2d.hpp", "max_pool2d": "pool.hpp", "avg_pool2d": "pool.hpp", "global_avg_pool2d": "reduce.hpp",
              "global_max_pool2d": "reduce.hpp", "softmax": "reduce.hpp", "copy": "pointwise.hpp", "concat": "pointwise.hpp",
              "upsample": "pointwise.hpp", "depth_to_space": "pointwise.hpp", "flatten": "pointwise.hpp",
              "local_response_norm": "pointwise.hpp", "log_softmax": "reduce.hpp", "upsample_linear": "resize.hpp",
              "space_to_depth": "moves.hpp", "slice_channels": "moves.hpp", "pad": "moves.hpp"}
_LIBRARIES |= dict.fromkeys(ELEMENTWISE.values(), "elementwise.hpp")

_REGISTERS = {16: 32, 8: 16, 4: 16}  # vector registers of AVX-512, AVX2, and SSE or NEON


def map_schedule(schedule: Schedule, device: Device, *, tiles: int | None = None) -> MappedKernel:
    """Map `schedule` to vectors; their number changes nothing here, since a tile always has a core to itself."""
    del tiles
    return _CpuMapper(schedule, device).kernel(threads=1, blocks_per_core=1)


@dataclass(frozen=True)
class Lanes:
    """How output channels fill vectors: `lanes` of a vector, `unit` channels that share a row of weights, `vectors` a block."""

    lanes: int
    unit: int
    vectors: int

    @property
    def step(self) -> int:
        return self.lanes * self.vectors


def fill_lanes(vector: int, group: int, channels: int, whole: bool) -> Lanes:
    """Vectors for `channels` outputs in groups of `group`.

    Where a tile holds whole groups the last vector may be partly filled; a slice of a group needs vectors that divide it, since
    the lanes behind it belong to another tile.
    """
    if whole:
        unit = group
        lanes = min(vector, 1 << (unit - 1).bit_length()) if unit > 1 else 1
    else:
        unit = gcd(group, channels)
        lanes = gcd(unit, vector)
    full = -(-unit // lanes)
    vectors = next(v for v in (4, 3, 2, 1) if full % v == 0)
    return Lanes(lanes, unit, vectors)


def moving_lanes(vector: int, channels: int) -> int:
    """Lanes for layers that do little more than move values: what is left over from whole vectors moves one by one."""
    return min((1 << k for k in range(vector.bit_length())), key=lambda n: (channels // n + channels % n, -n))


class _CpuMapper(Mapper):
    libraries = _LIBRARIES
    core = ("core.hpp",)
    activations = "activations.hpp"
    align = 16  # a cache line

    def buffer_type(self, buffer: Buffer, written: bool) -> str:
        if buffer.space is Space.SCRATCH:
            bits = int(np.float32(buffer.padding_value).view(np.uint32))
            return (f"Scratch<{buffer.offset}, {buffer.image_pitch}, {buffer.channel_pitch}, {buffer.row_pitch}, "
                    f"{buffer.column_pitch}, {bits:#x}u{self.ring(buffer)}>")
        last = str(buffer.layout is Layout.NHWC).lower()
        return f"Global<{'float' if written else 'const float'}, {self.shape(buffer).channels}, {last}>"

    def channel_parameter(self, offset: int) -> str:
        return f"load<V>(params + {offset} + c)"

    def struct(self, index: int, stage: Stage, numbers: G.Numbers) -> Struct:
        """Layers that are no convolutions take channels by vectors too; the last one may be partly filled."""
        channels = int(numbers.get("CHANNELS", stage.footprint.c.extent or 1))
        windowed = stage.node is not None and isinstance(stage.node.layer, L.Windowed)
        lanes: G.Numbers = {"LANES": fill_lanes(self.device.vector, channels, channels, True).lanes if windowed
                            else moving_lanes(self.device.vector, channels)}
        return super().struct(index, stage, lanes | numbers)

    def conv(self, index: int, stage: Stage) -> Call:
        layer = self.conv_layer(stage)
        if layer.groups == layer.out_channels == self.input_channels(stage):
            return self._depthwise(index, stage, layer)
        return self.call(index, stage, "conv2d", self._conv_numbers(stage, self._columns(stage), (1, 1)), (self.read(stage),))

    def conv_pool(self, index: int, conv: Stage, pool: Stage) -> Call:
        assert pool.node is not None
        layer = pool.node.layer
        assert isinstance(layer, L.Windowed)
        numbers = self._conv_numbers(conv, self._columns(pool), layer.kernel)
        return Call("conv2d_pool", (self.struct(index - 1, conv, numbers), self.pool_struct(index, pool)),
                    (self.names[pool.writes], "params", self.read(conv)))

    def _columns(self, stage: Stage) -> int:
        """Columns of a row of a stage, where it is known that no row has more."""
        columns = G.region(stage, self.shape(stage.writes), self.schedule.fresh(stage)).columns
        return min(columns, self.shape(stage.writes).width or columns)

    def _conv_numbers(self, stage: Stage, columns: int, pool: L.Pair) -> G.Numbers:
        """Constants of a convolution whose blocks share a row of `columns` outputs of the pool (of its own without one).

        A block holds whole windows of the pool."""
        lanes, numbers = self._vectors(stage, self.conv_layer(stage), max_vectors=4)
        room = max(1, (_REGISTERS[self.device.vector] - 4) // lanes.vectors - 1)
        block = _even_split(columns, max(1, room // (pool[0] * pool[1]))) * pool[1]
        images = max(n for n in (1, 2, 4, 8) if n == 1 or (n <= stage.writes.images and n * block * pool[0] <= room))
        return numbers | G.window_numbers(stage, stage.reads[0]) | {"BLOCK_X": block, "BLOCK_N": images}

    def conv_transpose(self, index: int, stage: Stage) -> Call:
        _, numbers = self._vectors(stage, self.transposed_layer(stage), max_vectors=1)
        numbers |= G.transposed_numbers(stage, stage.reads[0])
        return self.call(index, stage, "conv_transpose2d", numbers, (self.read(stage),))

    def _depthwise(self, index: int, stage: Stage, layer: L.Conv2d) -> Call:
        weight, channels, room = self.weight(stage), layer.out_channels, self.device.vector
        tile = stage.footprint.c.extent or channels
        lanes = fill_lanes(self.device.vector, tile, tile, tile == channels).lanes
        pitch = round_up(channels, fill_lanes(self.device.vector, channels, channels, whole=True).lanes)
        size = layer.kernel[0] * layer.kernel[1] * pitch + room
        numbers = G.window_numbers(stage, stage.reads[0]) | {
            "LANES": lanes, "WEIGHTS": self.packer.add(size, lambda: depthwise(weight, layer.kernel, pitch, room)),
            "WEIGHT_PITCH": pitch, "BIAS": self._bias_or_zeros(stage, channels)}
        return self.call(index, stage, "depthwise_conv2d", numbers, (self.read(stage),))

    def _vectors(self, stage: Stage, layer: L.Conv2d | L.ConvTranspose2d, max_vectors: int) -> tuple[Lanes, G.Numbers]:
        """Lanes of a convolution and the numbers of its weights: (group, vector, kernel row, kernel column, input, lane).

        The vectors are those of the whole layer, the same for every schedule, so that all variants of a chain share one block
        of parameters; a narrow slice of channels takes a part of one."""
        weight, inputs, groups = self.weight(stage), self.input_channels(stage), layer.groups
        group_in, group_out = inputs // groups, layer.out_channels // groups
        channels = stage.footprint.c.extent or layer.out_channels
        lanes = fill_lanes(self.device.vector, group_out, channels, channels % group_out == 0)
        lanes = Lanes(lanes.lanes, lanes.unit, min(lanes.vectors, max_vectors))
        packed = fill_lanes(self.device.vector, group_out, group_out, whole=True).lanes
        transposed = isinstance(layer, L.ConvTranspose2d)
        vector_size, room = layer.kernel[0] * layer.kernel[1] * group_in * packed, 4 * self.device.vector
        group_size = -(-group_out // packed) * vector_size
        numbers: G.Numbers = {
            "LANES": lanes.lanes, "BLOCK_V": lanes.vectors, "UNIT": lanes.unit, "GROUP_IN": group_in, "GROUP_OUT": group_out,
            "GROUP_SIZE": group_size, "VECTOR_SIZE": vector_size, "WEIGHT_LANES": packed,
            "WEIGHTS": self.packer.add(groups * group_size + room,
                                       lambda: by_groups(weight, groups, transposed, packed, room)),
            "BIAS": self._bias_or_zeros(stage, layer.out_channels)}
        return lanes, numbers

    def _bias_or_zeros(self, stage: Stage, channels: int) -> int:
        """Offset of the bias with room for a whole block behind it; zeros without one, so that kernels need no test."""
        room = 4 * self.device.vector
        bias = self.bias(stage, room)
        return self.packer.add(channels + room, lambda: np.zeros(channels + room, np.float32)) if bias is None else bias


def _even_split(extent: int, most: int) -> int:
    """Columns per block, at most `most`, so that blocks of a row are nearly equal."""
    blocks = -(-extent // most)
    return -(-extent // blocks)
