"""Schedules in half precision: most convolutions by matrix instructions, all else by whole planes (`cuda_planes`) or as in
float32, inside the same kernels.

In: a Schedule (planes of eight channels) and a Device. Out: a MappedKernel for `templates/cuda`. Whether a convolution goes
through matrix instructions is decided by its layer alone; a block of fragments for each (`fragments`) by its extents.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fusec.schedule.ir import Buffer, Schedule, Space, Stage
from fusec.targets import fragments as F
from fusec.targets import geometry as G
from fusec.targets import octets
from fusec.targets.base import Call, MappedKernel, Staging
from fusec.targets.blocking import best_block, registers_left
from fusec.targets.cuda_planes import PlanesMapper
from fusec.targets.cuda_simt import is_conv
from fusec.targets.device import Device
from fusec.targets.packing import channel_fragments, tap_fragments

FEW_CHANNELS = 4  # input channels up to which taps and channels are one axis of products
COLUMNS = 5  # of a depthwise convolution, for which a thread is to have registers
STAGED = 64 * 1024  # bytes of weights copied into scratch, at most


def map_schedule(schedule: Schedule, device: Device, *, tiles: int | None = None) -> MappedKernel:
    """Map `schedule` to warps and threads; `tiles` is how many are expected, None more than the device has room for."""
    mapper = _MatrixMapper(schedule, device)
    matrix, plain, planes = mapper.matrix_works(), mapper.works(), mapper.depthwise_works()
    others = [s for s in schedule.stages if s not in matrix and s not in planes]
    positions = sum(s.writes.images * s.footprint.elements * schedule.fresh(s) // (s.footprint.y.extent or 1) for s in others)
    positions += sum(w.positions for w in planes.values())
    scratch = mapper.stage_fragments(tuple(matrix))
    choice = F.choose(tuple(matrix.values()), scratch_bytes=device.element * scratch, scratch_per_core=device.scratch_per_core,
                      registers=device.registers_per_core, threads_per_core=device.max_threads_per_core, positions=positions,
                      least=max((octets.registers(w, min(w.columns, COLUMNS)) for w in planes.values()), default=0),
                      share=device.max_threads_per_core if tiles is None else -(-tiles // device.cores))
    mapper.fragments = dict(zip(matrix, choice.blocks, strict=True))
    room = registers_left(device.registers_per_core, choice.threads, choice.blocks_per_core)
    mapper.columns = {s: octets.best_columns(w, choice.threads, room) for s, w in planes.items()}
    mapper.blocks = {s: best_block(w, choice.threads, choice.blocks_per_core)[0] for s, w in plain.items()}
    mapper.threads = choice.threads
    kernel = mapper.kernel(choice.threads, choice.blocks_per_core)
    return replace(kernel, scratch=mapper.scratch, staging=tuple(mapper.staging))


class _MatrixMapper(PlanesMapper):
    libraries = PlanesMapper.libraries | {"conv2d_mma": "conv2d_mma.cuh", "conv2d_mma_pool": "conv2d_mma.cuh"}

    def __init__(self, schedule: Schedule, device: Device) -> None:
        super().__init__(schedule, device)
        self.fragments: dict[Stage, F.Block] = {}
        self._resident: frozenset[Stage] = frozenset()

    def is_matrix(self, stage: Stage) -> bool:
        """Whether a stage goes through matrix instructions: a property of its layer alone."""
        if not is_conv(stage):
            return False
        layer = self.conv_layer(stage)
        sizes = self.input_channels(stage) // layer.groups, layer.out_channels // layer.groups
        return layer.groups == 1 or all(size % 8 == 0 for size in sizes)

    def is_few(self, stage: Stage) -> bool:
        return self.input_channels(stage) <= FEW_CHANNELS

    def is_simt(self, stage: Stage) -> bool:
        return super().is_simt(stage) and not self.is_matrix(stage)

    def buffer_type(self, buffer: Buffer, written: bool) -> str:
        block = buffer.layout.block
        if buffer.space is Space.SCRATCH:
            bits = int(np.float32(buffer.padding_value).view(np.uint32))
            ring = 0 if buffer.fold is None else buffer.footprint.y.extent
            return (f"Scratch<{buffer.offset}, {buffer.image_pitch}, {buffer.channel_pitch}, {buffer.row_pitch}, {bits:#x}u, "
                    f"{ring}, {block}, {buffer.footprint.c.extent}>")
        return f"Global<{'value_t' if written else 'const value_t'}, {self.shape(buffer).channels}, {block}>"

    def matrix_works(self) -> dict[Stage, F.Work]:
        """Extents of every convolution that goes through matrix instructions."""
        found: dict[Stage, F.Work] = {}
        for stage, after in zip(self.schedule.stages, (*self.schedule.stages[1:], None), strict=True):
            if self.is_matrix(stage):
                found[stage] = self._matrix_work(stage, after if stage.writes.space is Space.REGISTER else None)
        return found

    def _matrix_work(self, stage: Stage, pool: Stage | None) -> F.Work:
        w = self.work(stage, pool)
        layer = self.conv_layer(stage)
        groups, inside = -(-w.channels // 8), -(-layer.out_channels // layer.groups // 8)
        return F.Work(w.images * w.columns, w.rows, groups, groups if layer.groups == 1 else inside, w.depth,
                      w.kernel_y, w.kernel_x, w.stride_y, layer.dilation[0], self.is_few(stage),
                      stage.reads[0].buffer.space is Space.GLOBAL, w.pool_y, w.pool_x)

    def stage_fragments(self, convolutions: tuple[Stage, ...]) -> int:
        """Choose the convolutions whose weights lie in scratch: all of them, where there is room. Returns its elements."""
        words = sum(self._words(s) for s in convolutions)
        room = self.device.scratch_per_block // self.device.element - self.scratch - 8
        if 4 * words <= STAGED and 4 * words // self.device.element <= room:
            self._resident = frozenset(convolutions)
            self.scratch = -(-self.scratch // 8) * 8
            return self.scratch + 4 * words // self.device.element
        return self.scratch

    def _words(self, stage: Stage) -> int:
        """32-bit words of a convolution's packed weights."""
        layer, few = self.conv_layer(stage), self.is_few(stage)
        depth, (height, width) = self.input_channels(stage) // layer.groups, layer.kernel
        steps = -(-depth * height * width // 16) if few else width * -(-depth // 16) * height
        return steps * -(-layer.out_channels // 8) * 64

    def conv(self, index: int, stage: Stage) -> Call:
        if not self.is_matrix(stage):
            return super().conv(index, stage)
        numbers, pointers = self._fragment_numbers(stage)
        return self.call(index, stage, "conv2d_mma", numbers, (*pointers, self.read(stage)))

    def conv_pool(self, index: int, conv: Stage, pool: Stage) -> Call:
        if not self.is_matrix(conv):
            return super().conv_pool(index, conv, pool)
        numbers, pointers = self._fragment_numbers(conv)
        return Call("conv2d_mma_pool", (self.struct(index - 1, conv, numbers), self.pool_struct(index, pool)),
                    (self.names[pool.writes], "params", *pointers, self.read(conv)))

    def _fragment_numbers(self, stage: Stage) -> tuple[G.Numbers, tuple[str, str]]:
        """A convolution's constants, and where its weights and bias are."""
        layer, block, given = self.conv_layer(stage), self.fragments[stage], self.weight(stage)
        name, dtype, words, few = stage.name, self.device.dtype, self._words(stage), self.is_few(stage)
        pack = tap_fragments if few else channel_fragments
        weights = self.packer.add(words, lambda: pack(given, dtype, name))
        groups = -(-layer.out_channels // 8)
        bias = self.bias(stage, room=8 * groups - layer.out_channels)
        work = self._matrix_work(stage, None)
        body = (1 if few else work.kernel_y) * block.fragments * block.rows * block.groups
        numbers: G.Numbers = G.window_numbers(stage, stage.reads[0]) | {
            "GROUPS": layer.groups, "GROUP_IN": work.depth, "GROUP_OUT": layer.out_channels // layer.groups,
            "FRAGMENTS": block.fragments, "BLOCK_Y": block.rows,
            "BLOCK_C": block.groups, "WEIGHT_PITCH": 32 * groups, "UNROLL": F.unrolled(work.steps, body),
            "REUSED": str(block.reused).lower(), "FEW": str(few).lower(), "BIAS": str(bias is not None).lower()}
        home = f"params + {weights}"
        if stage in self._resident:
            home = f"scratch + {self.scratch}"
            self.staging.append(Staging(self.scratch, weights, words))
            self.scratch += 4 * words // self.device.element
        return numbers, (f"reinterpret_cast<const uint2*>({home})", f"params + {bias or 0}")
