"""Executes a schedule tile by tile in NumPy, with one flat scratch array that is addressed as a kernel would address it.

In: a Schedule and the chain's input arrays. Out: the chain's output array. Scratch is NaN before every tile and every element
remembers the buffer, and the row of its tensor, that was written there last, so that a wrong footprint, pitch, offset, lifetime
or a row overwritten too early shows as an error instead of as luck. What a stage leaves in registers is a flat array of its own
that the next stage alone finds, without anything outside the image. What a layer needs is worked out from the layer itself
(`compute`), never from what the planner claims.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fusec.errors import InputError, InternalError
from fusec.graph.graph import Array
from fusec.graph.layers import Axis
from fusec.graph.shapes import size_rule
from fusec.schedule.box import Box, Extents, box_at
from fusec.schedule.compute import compute, input_window
from fusec.schedule.ir import Buffer, Chain, Execution, Read, Schedule, Space, Stage
from fusec.schedule.taps import repeats_edge, wanted_outside

NOBODY = -1
ROWS = 1 << 32  # an owner is the number of a buffer times this, plus a row of its tensor shifted by half of it


def interpret(schedule: Schedule, inputs: Mapping[str, Array], *, order_seed: int | None = None) -> Array:
    """Run one schedule.

    Parameters
    ----------
    schedule
        The schedule of one chain.
    inputs
        For every input of the chain an array (images, channels, height, width), all of one float dtype and batch.
    order_seed
        Runs the tiles in an order shuffled by this seed; in the order of `Schedule.tiles` when left out.

    Returns
    -------
    Array
        The chain's output, (images, channels, height, width) in the inputs' dtype.

    Raises
    ------
    InternalError
        The schedule is wrong: a stage needs what its buffer does not hold, or an output is not written exactly once.
    InputError
        The arrays do not fit the chain.
    """
    machine = _Machine(schedule, inputs)
    batch, _, height, width = machine.output.shape
    origins = list(schedule.tiles(batch, height, width))
    if order_seed is not None:
        random.Random(order_seed).shuffle(origins)
    for origin in origins:
        machine.run_tile(origin)
    if (machine.written != 1).any():
        where = tuple(int(i) for i in np.argwhere(machine.written != 1)[0])
        raise InternalError(f"{schedule.chain}: output element {where} was written {machine.written[where]} times")
    return machine.output


def interpret_graph(schedules: Sequence[Schedule], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run the schedules of a network one after another.

    Parameters
    ----------
    schedules
        In an order in which every chain comes after those that make its inputs.
    inputs
        The network's inputs by name, as for `interpret`.

    Returns
    -------
    dict
        The output of every chain, by the tensor's name.
    """
    tensors = dict(inputs)
    for schedule in schedules:
        tensors[schedule.chain.output] = interpret(schedule, {t: tensors[t] for t in schedule.chain.inputs})
    return {s.chain.output: tensors[s.chain.output] for s in schedules}


def run_time_extents(chain: Chain, inputs: Mapping[str, Array]) -> dict[str, Extents]:
    """Channels, height and width of every tensor of the chain for these arrays; InputError where they do not fit."""
    extents: dict[str, Extents] = {}
    for tensor in chain.inputs:
        shape = chain.shapes[tensor]
        if tensor not in inputs:
            raise InputError(f"input '{tensor}' is missing", str(chain))
        _, *actual = inputs[tensor].shape
        if any(w is not None and w != a for w, a in zip((shape.channels, shape.height, shape.width), actual, strict=True)):
            raise InputError(f"input '{tensor}' expects {shape}, not {'x'.join(map(str, actual))}", str(chain))
        extents[tensor] = (actual[0], actual[1], actual[2])
    for node in chain.nodes:
        _, *size = extents[chain.graph.sized_by(node)[0]]
        height, width = (size_rule(node.layer, a)(size[a.value]) for a in Axis)
        extents[node.name] = (chain.shapes[node.name].channels, height, width)
    return extents


class _Flat:
    """Memory with an address per element: the values, and who wrote each last."""

    def __init__(self, size: int, dtype: np.dtype[np.floating]) -> None:
        self.values: Array = np.full(size, np.nan, dtype)
        self.owner = np.full(size, NOBODY, np.int64)

    def clear(self) -> None:
        self.values.fill(np.nan)
        self.owner.fill(NOBODY)


class _Machine:
    """The memory a schedule runs on: device memory by tensor, scratch as one flat array, and counts of what was stored.

    `registers` are those of the stage that ran last: what it left there for the next one, and for no other.
    """

    def __init__(self, schedule: Schedule, inputs: Mapping[str, Array]) -> None:
        chain = self.chain = schedule.chain
        self.schedule = schedule
        self.extents = run_time_extents(chain, inputs)
        arrays = [inputs[t] for t in chain.inputs]
        if len({(a.dtype, len(a)) for a in arrays}) != 1 or arrays[0].dtype.kind != "f":
            raise InputError("the inputs must be arrays of one float dtype and one number of images", str(chain))
        self.dtype, self.batch = arrays[0].dtype, len(arrays[0])
        self.memory = {t: inputs[t] for t in chain.inputs}
        self.output: Array = np.full((self.batch, *self.extents[chain.output]), np.nan, self.dtype)
        self.written = np.zeros(self.output.shape, np.int64)
        self.scratch = _Flat(schedule.scratch_elements, self.dtype)
        self.registers: dict[Buffer, _Flat] = {}
        self.numbers = {buffer: i for i, buffer in enumerate(schedule.buffers)}

    def run_tile(self, tile: tuple[int, int, int, int]) -> None:
        """Run all stages for the tile at origin (image, channel, row, column), in each of its steps."""
        self.image, channel, row, column = tile
        self.images = min(self.schedule.tile.images, self.batch - self.image)
        self.scratch.clear()
        self.registers = {}
        for y in self.schedule.steps(row, self.output.shape[2]):
            self.origin: Extents = (channel, y, column)
            for stage in self._stages(y):
                self._run_stage(stage, row)

    def _stages(self, y: int) -> Sequence[Stage]:
        """The stages in an order they may run in: side by side this is any, so both ways are taken, in turns."""
        stages = self.schedule.stages
        if self.schedule.execution is Execution.IN_TIME or y // self.schedule.rows % 2:
            return stages
        kept = [b.space is Space.REGISTER for b in (s.writes for s in stages)]
        turned = sorted(range(len(stages)), key=lambda i: (-(i + kept[i]), i))  # a pool stays behind its convolution
        return [stages[i] for i in turned]

    def _run_stage(self, stage: Stage, row: int) -> None:
        """Run a stage for one step of the tile at `row`."""
        box = self._box(stage.writes)
        if stage.start is not None:
            first = int(stage.footprint.y.scale * row) + stage.start
            box = Box(box.c, range(max(first, box.y.stop - self.schedule.fresh(stage)), box.y.stop), box.x)
            if box.empty:
                return
        extents = self.extents[stage.writes.tensor]
        inside = box.clip(extents)
        values = np.full((self.images, *box.shape), stage.writes.padding_value, self.dtype)
        if not inside.empty:
            values[(slice(None), *box.slices(inside))] = self._values(stage, inside)
        self._store(stage, box, inside, values)

    def _values(self, stage: Stage, box: Box) -> Array:
        """What a stage makes on a box inside the image."""
        node = stage.node
        if node is None:
            return self._gather(stage, stage.reads[0], box)
        if tuple(r.buffer.tensor for r in stage.reads) != node.inputs:
            raise InternalError(f"{stage.name}: reads {[r.buffer.tensor for r in stage.reads]}, not {list(node.inputs)}")
        shapes = self.chain.graph.input_shapes(node)
        windows = [input_window(node, box, i, shapes, self.extents[t]) for i, t in enumerate(node.inputs)]
        patches = [self._gather(stage, r, w) for r, w in zip(stage.reads, windows, strict=True)]
        return compute(node, box, windows, patches, shapes[0], self.extents[node.inputs[0]])

    def _gather(self, stage: Stage, read: Read, window: Box) -> Array:
        """The values of a window of an input, padding included."""
        layer = stage.node.layer if stage.node else None
        patch = np.full((self.images, *window.shape), wanted_outside(layer), self.dtype)
        inside = window.clip(self.extents[read.buffer.tensor])
        if inside != window and not read.guarded:  # the buffer itself has to hold the padding
            if read.buffer.space is Space.GLOBAL:
                raise InternalError(f"{stage.name}: reads {window} of {read.buffer.name} unguarded, outside the image")
            inside = window
        if not inside.empty:
            patch[(slice(None), *window.slices(inside))] = self._load(stage, read.buffer, inside)
        return self._edges_repeated(patch, window, inside) if repeats_edge(layer) and read.guarded else patch

    def _edges_repeated(self, patch: Array, window: Box, inside: Box) -> Array:
        """The patch of a window with what lies outside the image taken from the nearest position inside."""
        borders = [(part.start - whole.start, whole.stop - part.stop)
                   for whole, part in zip(window.ranges, inside.ranges, strict=True)]
        return np.pad(patch[(slice(None), *window.slices(inside))], ((0, 0), *borders), mode="edge")

    def _load(self, stage: Stage, buffer: Buffer, part: Box) -> Array:
        box = self._box(buffer)
        if not box.covers(part) or self.images > buffer.images:
            raise InternalError(f"{stage.name}: needs {part} of {buffer.name}, which holds {box}")
        if buffer.space is Space.GLOBAL:
            if buffer.tensor not in self.memory:
                raise InternalError(f"{stage.name}: {buffer.tensor} is not in device memory when it is read")
            c, y, x = (slice(r.start, r.stop) for r in part.ranges)
            return self.memory[buffer.tensor][self.image: self.image + self.images, c, y, x]
        flat = self._flat(stage, buffer)
        where = self._addresses(buffer, part, len(flat.values))
        strangers = flat.owner[where] != self._owners(buffer, part)
        if strangers.any():
            first = np.argwhere(strangers)[0]
            raise InternalError(f"{stage.name}: reads element {tuple(map(int, first))} of {part} of {buffer.name}, "
                                f"where {self._writer(int(flat.owner[where[tuple(first)]]))} was written last")
        return flat.values[where]

    def _owners(self, buffer: Buffer, part: Box) -> NDArray[np.int64]:
        """Who writes a part of a buffer, (1, 1, rows, 1)."""
        rows = np.arange(part.y.start, part.y.stop, dtype=np.int64) + ROWS // 2
        return np.asarray(self.numbers[buffer] * ROWS + rows).reshape(1, 1, -1, 1)

    def _writer(self, owner: int) -> str:
        if owner == NOBODY:
            return "nothing"
        number, row = divmod(owner, ROWS)
        return f"row {row - ROWS // 2} of {self.schedule.buffers[number].name}"

    def _store(self, stage: Stage, box: Box, inside: Box, values: Array) -> None:
        """Store a box into scratch, or its part inside the image into registers or device memory."""
        buffer = stage.writes
        self.registers = {buffer: _Flat(buffer.images * buffer.image_pitch, self.dtype)} \
            if buffer.space is Space.REGISTER else {}
        if buffer.space is not Space.GLOBAL:
            flat, part = self._flat(stage, buffer), box if buffer.space is Space.SCRATCH else inside
            where = self._addresses(buffer, part, len(flat.values))
            flat.values[where] = values[(slice(None), *box.slices(part))]
            flat.owner[where] = self._owners(buffer, part)
            return
        if buffer.tensor != self.chain.output:
            raise InternalError(f"{stage.name}: writes {buffer.tensor}, which is not the output of {self.chain}")
        target = (slice(self.image, self.image + self.images), *(slice(r.start, r.stop) for r in inside.ranges))
        self.output[target] = values[(slice(None), *box.slices(inside))]
        self.written[target] += 1

    def _flat(self, stage: Stage, buffer: Buffer) -> _Flat:
        """Where a buffer that is not in device memory lies."""
        if buffer.space is Space.SCRATCH:
            return self.scratch
        if buffer not in self.registers:
            raise InternalError(f"{stage.name}: {buffer.name} is no longer, or not yet, in registers")
        return self.registers[buffer]

    def _addresses(self, buffer: Buffer, part: Box, size: int) -> NDArray[np.int64]:
        """Addresses (images, channels, rows, columns), below `size`, of a part of a buffer's box."""
        box = self._box(buffer)
        rows = np.arange(part.y.start, part.y.stop)
        rows = rows - box.y.start if buffer.fold is None else rows % len(box.y)
        channels, block = np.arange(len(part.c)) + part.c.start - box.c.start, buffer.layout.block
        columns = np.arange(len(part.x)) + part.x.start - box.x.start
        places = (np.arange(self.images) * buffer.image_pitch, channels // block * buffer.channel_pitch + channels % block,
                  rows * buffer.row_pitch, columns * buffer.column_pitch)
        where = np.asarray(buffer.offset + sum(np.ix_(*places)), np.int64)
        if where.size and not 0 <= where.min() <= where.max() < size:
            raise InternalError(f"{buffer.name}: element {int(where.max())} is outside the {size} of {buffer.space.value}")
        return where

    def _box(self, buffer: Buffer) -> Box:
        try:
            return box_at(buffer.footprint, self.origin, self.extents[buffer.tensor])
        except ValueError as error:
            raise InternalError(f"{buffer.name}: {error}") from None
