"""Schedules in half precision: most convolutions by matrix instructions, all else by whole planes (`cuda_planes`) or as in
float32, inside the same kernels.

In: a Schedule (planes of eight channels) and a Device. Out: a MappedKernel for `templates/cuda`. Whether a convolution goes
through matrix instructions is decided by its layer alone; a block of fragments for each (`fragments`) by its extents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from fusec.graph import layers as L
from fusec.graph.graph import Array
from fusec.schedule.ir import Buffer, Execution, Layout, Schedule, Space, Stage
from fusec.targets import fragments as F
from fusec.targets import geometry as G
from fusec.targets import octets
from fusec.targets.base import BufferCode, Call, MappedKernel, Staging, Struct
from fusec.targets.blocking import best_block, registers_left
from fusec.targets.cuda_planes import PlanesMapper
from fusec.targets.cuda_simt import is_conv
from fusec.targets.device import FEW_CHANNELS, RESIDENT_WEIGHTS, Device
from fusec.targets.packing import by_columns, by_phases, channel_fragments, round_up, starting_sums
from fusec.targets.paired_rows import PairedRows, place_rows

COLUMNS = 5  # of a depthwise convolution, for which a thread is to have registers


def map_schedule(schedule: Schedule, device: Device, *, tiles: int | None = None) -> MappedKernel:
    """Map `schedule` to warps and threads; `tiles` is how many are expected, None more than the device has room for."""
    mapper = _MatrixMapper(schedule, device)
    mapper.pair_rows()
    matrix, plain, planes = mapper.matrix_works(), mapper.works(), mapper.depthwise_works()
    others = [s for s in schedule.stages if s not in matrix and s not in planes]
    positions = sum(s.writes.images * s.footprint.elements * schedule.fresh(s) // (s.footprint.y.extent or 1) for s in others)
    positions += sum(w.positions for w in planes.values())
    scratch = mapper.stage_fragments(tuple(s for s, w in matrix.items() if not F.may_be_held(w)))
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


@dataclass(frozen=True)
class _Filters:
    """What a stage multiplies, as one ordinary convolution."""

    outputs: int
    depth: int  # input channels per output
    kernel: L.Pair

    @property
    def groups(self) -> int:
        """Of eight output channels."""
        return -(-self.outputs // 8)

    @property
    def steps(self) -> int:
        """Turns of the outer loop over products: filter columns and channels by sixteens."""
        return self.kernel[1] * -(-self.depth // 16)

    @property
    def words(self) -> int:
        """32-bit words of the packed weights."""
        return self.steps * self.kernel[0] * self.groups * 64


class _MatrixMapper(PlanesMapper):
    libraries = PlanesMapper.libraries | {"conv2d_mma": "conv2d_mma.cuh", "conv2d_mma_pool": "conv2d_mma_pool.cuh",
                                          "conv_transpose2d_mma": "conv_transpose2d_mma.cuh", "pair_rows": "paired_rows.cuh"}
    needs = MappingProxyType({**PlanesMapper.needs, "conv2d_mma.cuh": ("fragments.cuh", "store_sums.cuh"),
                              **dict.fromkeys(("conv2d_mma_pool.cuh", "conv_transpose2d_mma.cuh", "paired_rows.cuh",
                                               "gathered.cuh"), ("fragments.cuh",))})

    def __init__(self, schedule: Schedule, device: Device) -> None:
        super().__init__(schedule, device)
        self.fragments: dict[Stage, F.Block] = {}
        self.paired: dict[Stage, PairedRows] = {}
        self._resident: frozenset[Stage] = frozenset()
        self._dealt = 0  # tasks of the stages before that run side by side with the next

    def is_matrix(self, stage: Stage) -> bool:
        """Whether a stage goes through matrix instructions: a property of its layer alone."""
        if not is_conv(stage):
            return self.is_phased(stage)
        layer = self.conv_layer(stage)
        sizes = self.input_channels(stage) // layer.groups, layer.out_channels // layer.groups
        return layer.groups == 1 or all(size % 8 == 0 for size in sizes)

    def is_phased(self, stage: Stage) -> bool:
        """Whether a stage is a transposed convolution whose phases are made by one convolution."""
        if stage.node is None or not isinstance(stage.node.layer, L.ConvTranspose2d):
            return False
        layer = stage.node.layer
        return layer.groups == 1 and layer.dilation == (1, 1) and self.input_channels(stage) > FEW_CHANNELS

    def is_few(self, stage: Stage) -> bool:
        """Whether a convolution by matrix instructions has so few input channels that filter columns count as more of them."""
        return is_conv(stage) and self.is_matrix(stage) and self.input_channels(stage) <= FEW_CHANNELS

    def pair_rows(self) -> None:
        """Find places for the rows of convolutions with few input channels: each a part of scratch that is free then.

        Stages side by side have no barrier between the making and the use of rows, and collect values one by one."""
        if self.schedule.execution is Execution.IN_SPACE:
            return
        for stage, after in zip(self.schedule.stages, (*self.schedule.stages[1:], None), strict=True):
            if self.is_few(stage):
                pool = after if stage.writes.space is Space.REGISTER else None
                last = pool or stage
                made = G.region(last, self.shape(last.writes), self.schedule.fresh(last))
                found = place_rows(self.schedule, stage, pool, made, self.device)
                if found is not None:
                    self.paired[stage] = found
        self.scratch = max([self.scratch, *(rows.end for rows in self.paired.values())])

    def preparing(self, index: int, stage: Stage) -> tuple[Call, ...]:
        if stage not in self.paired:
            return ()
        rows = self.paired[stage]
        struct = Struct(f"Rows{index}", f"rows in pairs for stage {index}", rows.constants, ())
        return (Call("pair_rows", (struct,), (self._rows(stage), self.names[rows.source])),)

    def is_needless(self, buffer: Buffer) -> bool:
        loaded = any(s.writes is buffer and s.node is None for s in self.schedule.stages)
        readers = [s for s in self.schedule.stages for r in s.reads if r.buffer is buffer]
        return loaded and all(s in self.paired for s in readers)

    def more_files(self) -> tuple[str, ...]:
        few = {s for s in self.schedule.stages if self.is_few(s)}
        return ("gathered.cuh",) if few - self.paired.keys() else ()

    def more_buffers(self) -> tuple[BufferCode, ...]:
        return tuple(replace(self.buffer(s.reads[0].buffer), name=self._rows(s), type=rows.type, pointer="scratch", walk=())
                     for s, rows in self.paired.items())

    def _rows(self, stage: Stage) -> str:
        return f"rows{self.schedule.stages.index(stage)}"

    def read(self, stage: Stage) -> str:
        return self._rows(stage) if stage in self.paired else super().read(stage)

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
        if self.is_phased(stage):
            return self._phased_work(stage)
        w = self.work(stage, pool)
        layer = self.conv_layer(stage)
        groups, inside = -(-w.channels // 8), -(-layer.out_channels // layer.groups // 8)
        filters, direct = self._filters(stage), self.is_few(stage) or stage.reads[0].buffer.space is Space.GLOBAL
        return F.Work(w.images * w.columns, w.rows, groups, groups if layer.groups == 1 else inside, filters.depth,
                      *filters.kernel, w.stride_y, layer.dilation[0], direct and stage not in self.paired, w.pool_y, w.pool_x)

    def _phased_work(self, stage: Stage) -> F.Work:
        """Extents of the convolution that makes all phases of a transposed one."""
        layer, made, filters = self.transposed_layer(stage), self.made(stage), self._filters(stage)
        numbers, read = G.phase_numbers(stage, stage.reads[0], made, _together(layer)), stage.reads[0].buffer
        rows, columns = int(numbers["COUNT_Y"]), int(numbers["COUNT_X"])
        planes = filters.groups if layer.out_channels <= FEW_CHANNELS else -(-made.channels // 8)
        groups = filters.groups if layer.out_channels <= FEW_CHANNELS else planes * layer.stride[0] * layer.stride[1]
        return F.Work(stage.writes.images * columns, rows, groups, planes, filters.depth, *filters.kernel, 1, 1,
                      read.space is Space.GLOBAL)

    def made(self, stage: Stage) -> G.Region:
        return G.region(stage, self.shape(stage.writes), self.schedule.fresh(stage))

    def _filters(self, stage: Stage) -> _Filters:
        """What a convolution multiplies, as an ordinary one."""
        if not self.is_phased(stage):
            layer, depth = self.conv_layer(stage), self.input_channels(stage)
            if self.is_few(stage):
                return _Filters(layer.out_channels, depth * layer.kernel[1], (layer.kernel[0], 1))
            return _Filters(layer.out_channels, depth // layer.groups, layer.kernel)
        up = self.transposed_layer(stage)
        kernel = -(-up.kernel[0] // up.stride[0]), -(-up.kernel[1] // up.stride[1]) + _together(up) - 1
        return _Filters(_phase_channels(up) * up.stride[0] * up.stride[1] * _together(up), self.input_channels(stage), kernel)

    def stage_fragments(self, convolutions: tuple[Stage, ...]) -> int:
        """Choose the convolutions whose weights lie in scratch: all of them, where there is room. Returns its elements."""
        words = sum(self._filters(s).words for s in convolutions)
        room = self.device.scratch_per_block // self.device.element - self.scratch - 8
        if 4 * words <= RESIDENT_WEIGHTS and 4 * words // self.device.element <= room:
            self._resident = frozenset(convolutions)
            self.scratch = -(-self.scratch // 8) * 8
            return self.scratch + 4 * words // self.device.element
        return self.scratch

    def conv(self, index: int, stage: Stage) -> Call:
        if not self.is_matrix(stage):
            return super().conv(index, stage)
        numbers, pointers = self._matrix_numbers(stage)
        return self.call(index, stage, "conv2d_mma", numbers, (*pointers, self.read(stage)))

    def conv_pool(self, index: int, conv: Stage, pool: Stage) -> Call:
        if not self.is_matrix(conv):
            return super().conv_pool(index, conv, pool)
        numbers, pointers = self._matrix_numbers(conv)
        return Call("conv2d_mma_pool", (self.struct(index - 1, conv, numbers), self.pool_struct(index, pool)),
                    (self.names[pool.writes], "params", *pointers, self.read(conv)))

    def conv_transpose(self, index: int, stage: Stage) -> Call:
        if not self.is_phased(stage):
            return super().conv_transpose(index, stage)
        layer, filters, given, made = self.transposed_layer(stage), self._filters(stage), self.weight(stage), self.made(stage)
        together, channels, few = _together(layer), _phase_channels(layer), layer.out_channels <= FEW_CHANNELS
        phases = layer.stride[0] * layer.stride[1] * together
        numbers, home = self._fragment_numbers(stage, lambda: by_phases(given, layer.stride, channels, together))
        bias = self._phase_bias(stage, phases, channels)
        numbers |= G.phase_numbers(stage, stage.reads[0], made, together) | {
            "FEW_OUT": str(few).lower(), "OUT_PLANES": channels // 8, "BIAS": str(bias is not None).lower(), "GROUPS": 1,
            "GROUP_OUT": filters.outputs, "PHASE_CHANNELS": filters.outputs if few else round_up(made.channels, 8) * phases}
        return self.call(index, stage, "conv_transpose2d_mma", numbers, (home, f"params + {bias or 0}", self.read(stage)))

    def _phase_bias(self, stage: Stage, phases: int, channels: int) -> int | None:
        """Offset of the bias of all phases' channels, in the order of `by_phases`; None without one."""
        assert stage.node is not None
        if "bias" not in stage.node.params:
            return None
        given = np.asarray(stage.node.params["bias"], np.float32)
        full = np.pad(given, (0, channels - given.size))
        every = np.tile(full, phases) if channels >= 8 else np.repeat(full, phases)
        return self._start(every)

    def _start(self, bias: Array) -> int:
        """Offset of a bias as the sums that products are added to, four of each lane of a quarter of a warp."""
        return self.packer.add(2 * round_up(bias.size, 8), lambda: starting_sums(bias))

    def _matrix_numbers(self, stage: Stage) -> tuple[G.Numbers, tuple[str, str]]:
        """A convolution's constants, and where its weights and bias are."""
        layer, given = self.conv_layer(stage), self.weight(stage)
        few = self.is_few(stage)
        numbers, home = self._fragment_numbers(stage, lambda: by_columns(given) if few else given)
        assert stage.node is not None
        bias = self._start(np.asarray(stage.node.params["bias"], np.float32)) if "bias" in stage.node.params else None
        numbers |= G.window_numbers(stage, stage.reads[0]) | {
            "GROUPS": layer.groups, "GROUP_OUT": layer.out_channels // layer.groups, "BIAS": str(bias is not None).lower(),
            "CLAMPED": "false", "BOX_Y": 0, "BOX_X": 0}
        if few:
            numbers |= {"KERNEL_X": 1, "DEEP": self.input_channels(stage)}
        if stage in self.paired:
            numbers |= self.paired[stage].window | {"PAIRED": "true"}
        return numbers, (home, f"params + {bias or 0}")

    def _fragment_numbers(self, stage: Stage, weight: Callable[[], Array]) -> tuple[G.Numbers, str]:
        """Constants of fragments and weights, and where the weights are."""
        block, filters, name, dtype = self.fragments[stage], self._filters(stage), stage.name, self.device.dtype
        words, steps = filters.words, filters.steps
        weights = self.packer.add(words, lambda: channel_fragments(weight(), dtype, name))
        body = filters.kernel[0] * block.fragments * block.rows * block.groups
        numbers: G.Numbers = {
            "GROUP_IN": filters.depth, "FRAGMENTS": block.fragments, "BLOCK_Y": block.rows, "BLOCK_C": block.groups,
            "WEIGHT_PITCH": 32 * filters.groups, "STEPS": steps, "UNROLL": steps if block.held else F.unrolled(steps, body),
            "TURN": self._deal(stage), "RELU": str(self._is_relu(stage)).lower(),
            "BY_MATRIX": str(self._stores_matrices(stage)).lower(), "REUSED": str(block.reused).lower(),
            "HELD": str(block.held).lower(), "FEW": str(self.is_few(stage)).lower(), "PAIRED": "false"}
        home = f"params + {weights}"
        if stage in self._resident:
            home = f"scratch + {self.scratch}"
            self.staging.append(Staging(self.scratch, weights, words))
            self.scratch += 4 * words // self.device.element
        return numbers, f"reinterpret_cast<const uint2*>({home})"

    @staticmethod
    def _is_relu(stage: Stage) -> bool:
        """Whether a stage's epilogue is a relu and nothing else."""
        return stage.node is not None and [type(p.layer) for p in stage.node.epilogue] == [L.Relu]

    def _stores_matrices(self, stage: Stage) -> bool:
        """Whether a convolution stores whole matrices: there are instructions for it into scratch."""
        planes = stage.writes.space is Space.SCRATCH and stage.writes.layout is Layout.NC8HW8
        return planes and self.device.stores_matrices and not self.is_phased(stage)

    def _deal(self, stage: Stage) -> int:
        """Where a stage's tasks begin among those of the stages that run side by side with it."""
        if self.schedule.execution is Execution.IN_TIME:
            return 0
        turn = self._dealt % (self.threads // 32)
        after = self.schedule.stages[self.schedule.stages.index(stage) + 1:][:1]
        pool = after[0] if stage.writes.space is Space.REGISTER else None
        self._dealt += F.tasks(self._matrix_work(stage, pool), self.fragments[stage])
        return turn


def _together(layer: L.ConvTranspose2d) -> int:
    """Neighbouring columns whose phases are made as one, so that all phases of a few channels fill a group of eight."""
    return max(1, 8 // (layer.out_channels * layer.stride[0] * layer.stride[1]))


def _phase_channels(layer: L.ConvTranspose2d) -> int:
    """Channels of a phase: a few, or whole planes."""
    return layer.out_channels if layer.out_channels <= FEW_CHANNELS else round_up(layer.out_channels, 8)
