"""The schedule: what is computed, where it is kept and in which order, for one chain on one tile.

A `Schedule` knows layers and geometry; it knows nothing of threads. The planner makes it, `verify` checks it, `interpret` runs
it, the targets map it to a machine. All values are frozen; a pass makes new ones.

A tile is a box of the chain's output. Everything a tile needs of another tensor is affine in the tile's origin and constant
in extent: `Affine`. Sizes of images are chosen at run time, so the image's border clips boxes only when a kernel runs (or the
planner counts).

Where overlap along y is reused, a tile is a strip: a block walks down it in steps of `step` rows. All boxes are then those of
one step, whose origin takes the tile's place. A stage makes the last rows of its box, those that are new, and a buffer that is
folded keeps the ones before them: row r of the tensor lies in row r modulo extent of the buffer. The walk begins `warm_up`
steps above the strip, where a stage makes nothing above the first row that the strip needs of it. So no step makes more than
another, and nothing is computed twice along y within a strip.

In time, the stages of a step run one after another. In space they run side by side: each works on what those it reads from
have made in the steps before, so its boxes lie as many steps higher, and the walk goes on `drain` rows below the strip until
the last stage has come to its end. All buffers in scratch are line buffers then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property

from fusec.graph.graph import LayerGraph, Node
from fusec.graph.layers import Axis
from fusec.graph.shapes import Shape


class Space(Enum):
    """Where a buffer lives: device memory, per-block scratch, or the registers of the thread that made it.

    In registers lies only what a convolution hands to the very next stage, a pool with windows side by side inside the image
    (stride = kernel, no dilation, padding or ceil mode), its only reader: each window's pixels stay with one thread. The two
    stages run as one step, without a barrier between them, so what the first reads must not lie where the second writes.
    """

    GLOBAL = "global"
    SCRATCH = "scratch"
    REGISTER = "registers"


class Layout(Enum):
    """Order of a buffer's axes, slowest first; NC8HW8 has planes of eight channels, whose pixels hold all eight."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    NC8HW8 = "NC8HW8"

    @property
    def block(self) -> int:
        """Neighbouring channels that lie side by side within one step of the channels' pitch."""
        return 8 if self is Layout.NC8HW8 else 1


class Overlap(Enum):
    """What happens to the footprint that neighbours share along an axis: tiles, or the steps of a strip.

    Along x it is reused only where the strip covers the image's whole width, so that there are no neighbours.
    """

    RECOMPUTE = "recompute"
    REUSE = "reuse"


class Execution(Enum):
    """Stages of a tile or a step one after another, or those of a step side by side, each behind those it reads from."""

    IN_TIME = "in time"
    IN_SPACE = "in space"


@dataclass(frozen=True, order=True)
class Affine:
    """One axis of a footprint: for the output tile with origin o, positions [scale * o + offset, scale * o + offset + extent).

    `extent` None is the whole axis, however long it turns out at run time (scale and offset are then 0).
    """

    scale: Fraction
    offset: int
    extent: int | None

    def start(self, origin: int) -> int:
        """First position for a tile at `origin`; the origin must make it whole."""
        start = self.scale * origin
        if start.denominator != 1:
            raise ValueError(f"origin {origin} gives a fractional footprint {start}")
        return int(start) + self.offset

    def __str__(self) -> str:
        if self.extent is None:
            return "all"
        return f"{self.scale}*o{self.offset:+d} [{self.extent}]"


WHOLE = Affine(Fraction(0), 0, None)


@dataclass(frozen=True)
class Footprint:
    """The box of a tensor that a tile needs: channels, rows and columns, each affine in the tile's origin on that axis."""

    c: Affine
    y: Affine
    x: Affine

    def along(self, axis: Axis) -> Affine:
        return self.y if axis is Axis.Y else self.x

    @property
    def elements(self) -> int:
        """Elements of the box for one image (the whole-axis extent counts as 1)."""
        return (self.c.extent or 1) * (self.y.extent or 1) * (self.x.extent or 1)


@dataclass(frozen=True)
class Tile:
    """The box of the chain's output one block owns, in images, channels and pixels."""

    images: int
    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.images}x{self.channels}x{self.height}x{self.width}"


@dataclass(frozen=True, eq=False)
class Buffer:
    """A box of one tensor, kept somewhere while a tile is computed.

    Pitches and `offset` are in elements and mean something for scratch only: element (n, c, y, x) of the box is at `offset +
    n * image_pitch + c // b * channel_pitch + c % b + y * row_pitch + x * column_pitch`, b the layout's `block`. A GLOBAL
    buffer has the dense pitches of its layout at run time, a REGISTER buffer those of its box (for who stores it as an array; a
    kernel has none) and offset 0. Scratch positions outside the image hold `padding_value`; in registers they hold nothing that
    is ever used. `fold` Y makes it a line buffer: the tensor's row r lies in row r modulo the box's rows, and stays there from
    step to step.
    """

    name: str
    tensor: str
    space: Space
    layout: Layout
    images: int
    footprint: Footprint
    padding_value: float = 0.0
    offset: int = 0
    image_pitch: int = 0
    channel_pitch: int = 0
    row_pitch: int = 0
    column_pitch: int = 0
    fold: Axis | None = None

    @property
    def size(self) -> int:
        """Scratch elements taken."""
        return self.images * self.image_pitch if self.space is Space.SCRATCH else 0


@dataclass(frozen=True, eq=False)
class Read:
    """A stage's use of one input: the buffer, the box it needs of it, and whether the reader must check the image's border.

    A read is guarded when positions outside the image may be asked for and the buffer does not hold what this reader wants
    there (always so for GLOBAL buffers).
    """

    buffer: Buffer
    footprint: Footprint
    guarded: bool


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer's work for one tile. `node` None is a load: a copy of a chain input from GLOBAL into scratch.

    `start` is for strips: a strip that begins in row o of the output needs rows of this stage from scale * o + start on.
    """

    name: str
    node: Node | None
    reads: tuple[Read, ...]
    writes: Buffer
    start: int | None = None

    @property
    def footprint(self) -> Footprint:
        """The box this stage computes."""
        return self.writes.footprint

    @property
    def kind(self) -> str:
        return "load" if self.node is None else self.node.layer.kind


@dataclass(frozen=True, eq=False)
class Chain:
    """The layers of one kernel: a small DAG in topological order with named inputs and one output."""

    graph: LayerGraph
    names: tuple[str, ...]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.graph[n] for n in self.names)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Tensors made elsewhere, in the order of first use."""
        inside = set(self.names)
        return tuple(dict.fromkeys(i for n in self.nodes for i in n.inputs if i not in inside))

    @property
    def output(self) -> str:
        return self.names[-1]

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        return {t: self.graph.shapes[t] for t in (*self.inputs, *self.names)}

    def __str__(self) -> str:
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]}..{self.names[-1]}"


@dataclass(frozen=True, eq=False)
class Schedule:
    """How one chain is computed: the tile, the stages in order, and the buffers between them."""

    chain: Chain
    tile: Tile
    stages: tuple[Stage, ...]
    overlap: Mapping[Axis, Overlap] = field(
        default_factory=lambda: {Axis.Y: Overlap.RECOMPUTE, Axis.X: Overlap.RECOMPUTE})
    execution: Execution = Execution.IN_TIME
    step: int | None = None  # rows of the output made at a time, where a tile is a strip that a block walks down
    warm_up: int = 0  # steps taken above a strip
    element: int = 4  # bytes of an element of its buffers

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """Every buffer once, in the order of first use."""
        return tuple(dict.fromkeys(b for s in self.stages for b in (*(r.buffer for r in s.reads), s.writes)))

    @cached_property
    def scratch_elements(self) -> int:
        """Scratch elements one block needs: the end of the last buffer."""
        return max((b.offset + b.size for b in self.buffers if b.space is Space.SCRATCH), default=0)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of scratch one block needs."""
        return self.scratch_elements * self.element

    @property
    def rows(self) -> int:
        """Rows of the output that are made at a time: those of a step, or of the whole tile."""
        return self.tile.height if self.step is None else self.step

    @property
    def drain(self) -> int:
        """Rows of the output by which the last stage lies behind: what a strip is walked down below its end."""
        return -self.stages[-1].footprint.y.offset if self.execution is Execution.IN_SPACE else 0

    def steps(self, y: int, height: int) -> range:
        """First rows of the steps that the tile at row `y` of an output of `height` rows takes, warm-up and drain included."""
        return range(y - self.warm_up * self.rows, min(y + self.tile.height, height) + self.drain, self.rows)

    def fresh(self, stage: Stage) -> int:
        """Rows that a stage makes in a step, the last ones of its box: of a tile all of them."""
        box = stage.footprint.y
        rows = box.extent or 1
        if stage.writes.space is Space.REGISTER:  # those under the windows of the pool that reads them
            pool = self.stages[self.stages.index(stage) + 1]
            return rows * self.fresh(pool) // (pool.footprint.y.extent or 1)
        return rows if stage.writes.fold is None else int(box.scale * self.rows)

    def tiles(self, batch: int, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
        """Origins (image, channel, row, column) of all tiles of an output of `height` x `width` pixels."""
        channels = self.chain.shapes[self.chain.output].channels
        for n in range(0, batch, self.tile.images):
            for c in range(0, channels, self.tile.channels):
                for y in range(0, height, self.tile.height):
                    for x in range(0, width, self.tile.width):
                        yield n, c, y, x
