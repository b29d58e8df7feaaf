"""What the mappings of all targets share: stages that compute one output at a time, buffers, calls, parameters.

In: a Schedule and a Device. Out (through a subclass): a MappedKernel. A target adds its convolutions, the types of its buffers,
and how many threads do the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import Array
from fusec.graph.shapes import Shape, sized_by
from fusec.schedule.ir import Buffer, Execution, Read, Schedule, Space, Stage
from fusec.targets import geometry as G
from fusec.targets.base import BufferCode, Call, MappedKernel, Packer, Struct
from fusec.targets.device import Device
from fusec.targets.epilogue import beyond_core, epilogue, literal

# Library functions of the elementwise layers; C++ has some of their kinds' names for its own.
ELEMENTWISE: dict[type[L.Elementwise], str] = {
    L.Add: "add", L.Sub: "subtract", L.Mul: "multiply", L.Div: "divide", L.Min: "minimum", L.Max: "maximum"}


class Mapper(ABC):
    """Maps one schedule. Subclasses set the class attributes and provide the abstract methods."""

    libraries: dict[str, str]  # library function -> file
    needs: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # file -> those it stands on
    core: tuple[str, ...]  # the files every kernel needs
    activations: str  # the file of the activations that are not in them
    align: int  # elements every weight array starts at a multiple of

    def __init__(self, schedule: Schedule, device: Device) -> None:
        self.schedule, self.device = schedule, device
        self.packer = Packer(self.align)
        self.names = {b: f"b{i}" for i, b in enumerate(schedule.buffers)}
        self.sizes, self.size_index = G.open_sizes(schedule)

    def kernel(self, threads: int, blocks_per_core: int) -> MappedKernel:
        """Map every stage; to be called once."""
        schedule, chain = self.schedule, self.schedule.chain
        calls = tuple(self.all_calls())
        if schedule.execution is Execution.IN_SPACE:  # nothing that is made in a step is read in it
            calls = tuple(replace(c, barrier=i == len(calls) - 1) for i, c in enumerate(calls))
        elif schedule.step is None:  # else the next step writes what this one's last call may still read
            calls = (*calls[:-1], replace(calls[-1], barrier=False))
        more = (self.activations,) if any(beyond_core(s.node) for s in schedule.stages) else ()
        buffers = [b for b in schedule.buffers if b.space is not Space.REGISTER and not self.is_needless(b)]
        files = (self.libraries[c.function] for c in calls)
        needed = (f for file in (*files, *self.more_files()) for f in (*self.needs.get(file, ()), file))
        libraries = tuple(dict.fromkeys((*self.core, *more, *needed)))
        tiles_c = -(-chain.shapes[chain.output].channels // schedule.tile.channels)
        return MappedKernel(schedule, self.device, threads, blocks_per_core, schedule.scratch_elements,
                            tuple(f"in{i}" for i in range(len(chain.inputs))), self.sizes, tiles_c,
                            (*(self.buffer(b) for b in buffers), *self.more_buffers()), calls, libraries, self.packer.packs)

    def all_calls(self) -> Iterator[Call]:
        """The calls of all stages in order; a convolution that stays in registers is one call with the pool behind it."""
        merged: Stage | None = None
        for index, stage in enumerate(self.schedule.stages):
            if stage.writes.space is Space.REGISTER:
                merged = stage
            elif merged is not None:
                yield from self.preparing(index - 1, merged)
                yield self.conv_pool(index, merged, stage)
                merged = None
            elif not self.is_needless(stage.writes):
                yield from self.preparing(index, stage)
                yield from self.stage(index, stage)

    def preparing(self, index: int, stage: Stage) -> tuple[Call, ...]:
        """Calls that a stage wants before its own."""
        return ()

    def is_needless(self, buffer: Buffer) -> bool:
        """Whether a buffer has no reader left, because all take what it would hold from elsewhere."""
        return False

    def more_files(self) -> tuple[str, ...]:
        """Library files that the calls need besides those of their functions."""
        return ()

    def more_buffers(self) -> tuple[BufferCode, ...]:
        """Buffers that the mapping adds to those of the schedule."""
        return ()

    @abstractmethod
    def conv(self, index: int, stage: Stage) -> Call: ...

    @abstractmethod
    def conv_pool(self, index: int, conv: Stage, pool: Stage) -> Call:
        """The convolution before stage `index`, and that stage, a pool that reads it from registers."""

    @abstractmethod
    def conv_transpose(self, index: int, stage: Stage) -> Call: ...

    @abstractmethod
    def buffer_type(self, buffer: Buffer, written: bool) -> str: ...

    @abstractmethod
    def channel_parameter(self, offset: int) -> str:
        """Expression for the element of channel `c` of the per-channel array at `offset`."""

    def shape(self, buffer: Buffer) -> Shape:
        return self.schedule.chain.shapes[buffer.tensor]

    def input_channels(self, stage: Stage) -> int:
        return self.shape(stage.reads[0].buffer).channels

    def buffer(self, b: Buffer) -> BufferCode:
        """The variable of one buffer."""
        box, index, chain = b.footprint, self.size_index[b.tensor], self.schedule.chain
        written = b.tensor == chain.output
        pointer = "scratch" if b.space is Space.SCRATCH else "out" if written else f"in{chain.inputs.index(b.tensor)}"
        return BufferCode(self.names[b], self.buffer_type(b, written), pointer, G.axis_code("tile_c", box.c),
                          G.axis_code("tile_y", box.y), G.axis_code("tile_x", box.x), f"h{index}", f"w{index}",
                          self._walk(b))

    def _walk(self, b: Buffer) -> tuple[str, ...]:
        """In a strip, the first row made in step number `step`; of a line buffer also the row in which its box starts."""
        stage = next((s for s in self.schedule.stages if s.writes is b and s.start is not None), None)
        if stage is None or stage.start is None:
            return ()
        box, fresh = b.footprint.y, self.schedule.fresh(stage)
        held, scale = box.extent or 0, box.scale
        first = f"most({held - fresh}, (strip - tile_y) * {scale.numerator} / {scale.denominator} + {stage.start - box.offset})"
        return (first,) if b.fold is None else (first, f"step * {fresh} % {held}")

    def ring(self, b: Buffer) -> str:
        """The rows of a line buffer as a further argument of its type."""
        return "" if b.fold is None else f", {b.footprint.y.extent}"

    def stage(self, index: int, stage: Stage) -> tuple[Call, ...]:
        """The library calls that compute one stage."""
        if stage.node is None:
            return (self.call(index, stage, "copy", {}, self.shifted(stage)),)
        match stage.node.layer:
            case L.Conv2d():
                return (self.conv(index, stage),)
            case L.ConvTranspose2d():
                return (self.conv_transpose(index, stage),)
            case L.MaxPool2d() | L.AvgPool2d() as layer:
                return (self.pool(index, stage, layer),)
            case L.GlobalPool2d() as layer:
                return (self.call(index, stage, layer.kind, {}, (self.read(stage),)),)
            case L.Softmax() | L.LogSoftmax() as layer:
                return (self.call(index, stage, layer.kind, {"DEPTH": self.input_channels(stage)}, self.shifted(stage)),)
            case L.LocalResponseNorm() as layer:
                return (self.response_norm(index, stage, layer),)
            case L.Upsample() as layer:
                return (self.upsample(index, stage, layer),)
            case L.DepthToSpace() as layer:
                return (self.depth_to_space(index, stage, layer),)
            case L.SpaceToDepth() as layer:
                numbers = G.shrunk_numbers(stage, stage.reads[0], layer.block) | {"DEPTH": self.input_channels(stage)}
                return (self.call(index, stage, layer.kind, numbers, (self.read(stage),)),)
            case L.SliceChannels() as layer:
                numbers = {"START": layer.start, "STEP": layer.step}
                return (self.call(index, stage, layer.kind, numbers, self.shifted(stage)),)
            case L.Pad() as layer:
                return (self.pad(index, stage, layer),)
            case L.Flatten():
                return (self.flatten(index, stage),)
            case L.Concat():
                return self.concat(index, stage)
            case L.Elementwise() as layer:
                return (self.call(index, stage, ELEMENTWISE[type(layer)], {}, self.operands(stage, layer)),)
            case L.Activation() | L.Crop():
                return (self.call(index, stage, "copy", {}, self.shifted(stage)),)
            case layer:
                raise InternalError(f"no stage for {layer.kind}: simplify should have removed it")

    def call(self, index: int, stage: Stage, function: str, numbers: G.Numbers, reads: Sequence[str]) -> Call:
        """A call with the stage's region, its own numbers and its epilogue."""
        return Call(function, (self.struct(index, stage, numbers),), (self.names[stage.writes], "params", *reads))

    def struct(self, index: int, stage: Stage, numbers: G.Numbers) -> Struct:
        """The stage's region, its own numbers and its epilogue."""
        values = G.region_numbers(stage, self.shape(stage.writes), self.schedule.fresh(stage)) | numbers
        statements = epilogue(stage.node, self.shape(stage.writes).channels, self.packer, self.channel_parameter)
        return Struct(f"Stage{index}", f"stage {index}: {G.comment(stage.node, stage)}", tuple(values.items()), statements)

    def pool_struct(self, index: int, stage: Stage) -> Struct:
        """A pool without overlap or padding that reads its input from registers."""
        assert stage.node is not None
        layer = stage.node.layer
        assert isinstance(layer, L.MaxPool2d | L.AvgPool2d)
        return self.struct(index, stage, {"KERNEL_Y": layer.kernel[0], "KERNEL_X": layer.kernel[1],
                                          "MEAN": str(isinstance(layer, L.AvgPool2d)).lower()})

    def conv_layer(self, stage: Stage) -> L.Conv2d:
        """The layer of a convolution stage."""
        if stage.node is None or not isinstance(stage.node.layer, L.Conv2d):
            raise InternalError(f"stage {stage.name} is no convolution")
        return stage.node.layer

    def transposed_layer(self, stage: Stage) -> L.ConvTranspose2d:
        """The layer of a transposed convolution's stage."""
        if stage.node is None or not isinstance(stage.node.layer, L.ConvTranspose2d):
            raise InternalError(f"stage {stage.name} is no transposed convolution")
        return stage.node.layer

    def weight(self, stage: Stage) -> Array:
        """A convolution's weights in PyTorch's order."""
        if stage.node is None or "weight" not in stage.node.params:
            raise InternalError(f"stage {stage.name} has no weights")
        return stage.node.params["weight"]

    def read(self, stage: Stage) -> str:
        return self.names[stage.reads[0].buffer]

    def shifted(self, stage: Stage) -> tuple[str, ...]:
        """The reads of a stage that keeps positions, as buffers asked in the stage's own positions."""
        return tuple(self.shift(stage, r) for r in stage.reads)

    def shift(self, stage: Stage, read: Read) -> str:
        y, x = G.shift(stage, read)
        return f"shifted<{y}, {x}>({self.names[read.buffer]})"

    def operands(self, stage: Stage, layer: L.Elementwise) -> tuple[str, ...]:
        """The reads of an elementwise layer: as `shifted`, or one channel or pixel for all of the stage's."""
        shapes = [self.shape(r.buffer) for r in stage.reads]
        sized, channels = sized_by(layer, shapes), self.shape(stage.writes).channels

        def operand(position: int, read: Read) -> str:
            spread = (shapes[position].channels < channels, position not in sized)
            if not any(spread):
                return self.shift(stage, read)
            channel, pixel = (str(s).lower() for s in spread)
            y, x = (0, 0) if spread[1] else G.shift(stage, read)
            return f"spread<{channel}, {pixel}, {y}, {x}>({self.names[read.buffer]})"

        return tuple(operand(i, read) for i, read in enumerate(stage.reads))

    def pool(self, index: int, stage: Stage, layer: L.MaxPool2d | L.AvgPool2d) -> Call:
        small = layer.kernel[0] * layer.kernel[1] <= 25
        numbers = G.window_numbers(stage, stage.reads[0]) | {
            "GUARDED": str(stage.reads[0].guarded).lower(), "UNROLL_Y": layer.kernel[0] if small else 1,
            "UNROLL_X": layer.kernel[1] if small else 1}
        if isinstance(layer, L.AvgPool2d):
            numbers["PADDING_COUNTS"] = str(layer.count_include_pad).lower()
        return self.call(index, stage, layer.kind, numbers, (self.read(stage),))

    def response_norm(self, index: int, stage: Stage, layer: L.LocalResponseNorm) -> Call:
        numbers: G.Numbers = {"DEPTH": self.input_channels(stage), "SIZE": layer.size, "BEFORE": layer.size // 2,
                              "ALPHA": literal(layer.alpha), "BETA": literal(layer.beta), "K": literal(layer.k)}
        return self.call(index, stage, layer.kind, numbers, self.shifted(stage))

    def upsample(self, index: int, stage: Stage, layer: L.Upsample) -> Call:
        numbers = G.enlarged_numbers(stage, stage.reads[0], layer.factor)
        if not layer.linear:
            return self.call(index, stage, layer.kind, numbers, (self.read(stage),))
        half = layer.coordinates == "half_pixel"
        numbers |= {f"CENTRE_{a.name}": 1 - layer.factor[a.value] if half else 0 for a in L.Axis}
        return self.call(index, stage, "upsample_linear", numbers, (self.read(stage),))

    def pad(self, index: int, stage: Stage, layer: L.Pad) -> Call:
        y, x = G.shift(stage, stage.reads[0])
        numbers: G.Numbers = {"OFFSET_Y": y, "OFFSET_X": x, "VALUE": literal(layer.value)}
        return self.call(index, stage, layer.kind, numbers, (self.read(stage),))

    def depth_to_space(self, index: int, stage: Stage, layer: L.DepthToSpace) -> Call:
        channels, dcr = self.shape(stage.writes).channels, layer.order is L.DepthToSpaceOrder.DCR
        numbers = G.enlarged_numbers(stage, stage.reads[0], (layer.block, layer.block)) | {
            "PLACE_PITCH": channels if dcr else 1, "CHANNEL_PITCH": 1 if dcr else layer.block**2}
        return self.call(index, stage, layer.kind, numbers, (self.read(stage),))

    def flatten(self, index: int, stage: Stage) -> Call:
        shape = self.shape(stage.reads[0].buffer)
        return self.call(index, stage, "flatten", {"HEIGHT": shape.height or 0, "WIDTH": shape.width or 0},
                         (self.read(stage),))

    def concat(self, index: int, stage: Stage) -> tuple[Call, ...]:
        """One call per operand; they write different channels, so only the last needs a barrier."""
        calls, first = [], 0
        for i, read in enumerate(stage.reads):
            channels = self.shape(read.buffer).channels
            call = self.call(index, stage, "concat", {"FIRST": first, "CHANNELS": channels}, (self.shift(stage, read),))
            calls.append(replace(call, structs=(replace(call.structs[0], name=f"Stage{index}_{i}"),),
                                 barrier=i == len(stage.reads) - 1))
            first += channels
        return tuple(calls)

    def bias(self, stage: Stage, room: int = 0) -> int | None:
        """Offset of the stage's bias, `room` zeros after it; None without one."""
        assert stage.node is not None
        if "bias" not in stage.node.params:
            return None
        bias = np.asarray(stage.node.params["bias"], np.float32)
        return self.packer.add(bias.size + room, lambda: np.pad(bias, (0, room)))
