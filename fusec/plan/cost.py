"""What a schedule costs: exact counts of work and traffic, and the time the model expects.

In: a schedule, a device, the sizes planned for. Out: a `Cost`. All counts are exact for those sizes, clipped at the image's
borders; only the seconds are a model (`timing`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.plan.boxes import boxes_of, tensor_sizes
from fusec.plan.counting import Ints, inputs_per_output, taps, weight_bytes
from fusec.plan.timing import time_of, weight_traffic
from fusec.schedule.ir import Affine, Schedule, Stage
from fusec.targets.device import Device

OPEN_HEIGHT, OPEN_WIDTH = 1088, 1920  # planned for where the image size is open: a full-HD frame, a multiple of 64
CLASSIFIER_SIDE = 224  # planned for where it is open and the network ends in one pixel
SMALL_IMAGE = 64 * 64  # pixels up to which large batches are usual
LARGE_BATCH, LARGE_IMAGE_BATCH = 1024, 32


@dataclass(frozen=True)
class Nominal:
    """The sizes a plan is made for; kernels run at any other size too.

    Attributes
    ----------
    batches
        Numbers of images, the largest first. A plan has to serve all of them.
    height, width
        Pixels of the inputs whose size is open; None when none is.
    """

    batches: tuple[int, ...] = (1,)
    height: int | None = None
    width: int | None = None

    @property
    def batch(self) -> int:
        """The batch reports are made for."""
        return self.batches[0]

    def at(self, batch: int) -> Nominal:
        """The same image size for one batch alone."""
        return replace(self, batches=(batch,))


def nominal_for(graph: LayerGraph, shape: tuple[int, int, int, int] | None = None) -> Nominal:
    """The sizes to plan for: those of `shape` (batch, channels, height, width), or usual ones.

    Raises
    ------
    InputError
        `shape` does not fit the network's first input, or the network cannot take that size.
    """
    if shape is not None:
        _check_shape(graph, shape)
        nominal = Nominal((shape[0],), shape[2], shape[3])
    elif all(graph.shapes[n.name].pinned for n in graph.inputs):
        pixels = max(graph.shapes[n.name].elements // graph.shapes[n.name].channels for n in graph.inputs)
        nominal = Nominal((LARGE_BATCH if pixels <= SMALL_IMAGE else LARGE_IMAGE_BATCH, 1))
    elif all((graph.shapes[o].height, graph.shapes[o].width) == (1, 1) for o in graph.outputs):
        nominal = Nominal((LARGE_IMAGE_BATCH, 1), CLASSIFIER_SIDE, CLASSIFIER_SIDE)
    else:
        nominal = Nominal((1,), OPEN_HEIGHT, OPEN_WIDTH)
    sizes_of(graph, nominal)
    return nominal


def _check_shape(graph: LayerGraph, shape: tuple[int, int, int, int]) -> None:
    source = graph.inputs[0]
    wanted = graph.shapes[source.name]
    for what, given, want in zip(("batch", "channels", "height", "width"), shape,
                                 (None, wanted.channels, wanted.height, wanted.width), strict=True):
        if given < 1:
            raise InputError(f"{what} must be at least 1, not {given}")
        if want is not None and given != want:
            raise InputError(f"input '{source.name}' has {what} {want}, not {given}")


@lru_cache(maxsize=8)
def sizes_of(graph: LayerGraph, nominal: Nominal) -> Mapping[str, tuple[int, int]]:
    """(height, width) of every tensor at the nominal size."""
    return graph.sizes(nominal.height, nominal.width)


@dataclass(frozen=True)
class StageCost:
    """Counts of one stage over all tiles. Positions are output elements inside the image; loads have no multiply-adds."""

    name: str
    positions: int
    multiply_adds: int
    unfused_multiply_adds: int


@dataclass(frozen=True)
class Cost:
    """Counts of one launch, in multiply-adds and bytes, and the expected time in seconds.

    Attributes
    ----------
    multiply_adds_tile
        Of the first tile, which starts in the image's corner.
    bytes_read
        Tensors read from device memory, each tile its clipped footprint: what tiles share counts for each of them. A strip
        that reads an input without a line buffer asks for some of its rows again, and the cache has them.
    boundary_bytes
        The same tensors and the output once each: what no schedule of the chain can avoid.
    weight_traffic
        Weights read by all tiles together, through the shared cache.
    unfused_bytes
        Each layer on its own reading its inputs once, writing its output once; weights not included.
    """

    stages: tuple[StageCost, ...]
    multiply_adds: int
    multiply_adds_tile: int
    unfused_multiply_adds: int
    bytes_read: int
    bytes_written: int
    boundary_bytes: int
    weight_bytes: int
    weight_traffic: int
    unfused_bytes: int
    scratch_bytes: int
    tiles: int
    blocks_per_core: int
    waves: int
    compute: float
    memory: float
    launch: float
    seconds: float

    @property
    def extra(self) -> int:
        """Multiply-adds done more than once."""
        return self.multiply_adds - self.unfused_multiply_adds

    @property
    def bytes_moved(self) -> int:
        """Tensors read and written, and the weights once."""
        return self.bytes_read + self.bytes_written + self.weight_bytes


def cost(schedule: Schedule, device: Device, nominal: Nominal) -> Cost:
    """What one launch of `schedule` costs for the nominal image size and the largest nominal batch."""
    chain, graph = schedule.chain, schedule.chain.graph
    sizes = sizes_of(graph, nominal)
    boxes = boxes_of(schedule, sizes, nominal.batch)
    full = {t: math.prod(s) * nominal.batch * device.element for t, s in tensor_sizes(chain, sizes).items()}
    staged = {s.writes.tensor for s in schedule.stages if s.node is None}
    scratch = schedule.scratch_bytes
    timing = time_of(chain, boxes, staged, np.array([scratch], dtype=np.int64), device)
    stages = tuple(_stage_cost(schedule, s, sizes, nominal.batch) for s in schedule.stages)
    return Cost(
        stages=stages,
        multiply_adds=sum(s.multiply_adds for s in stages),
        multiply_adds_tile=sum(_multiply_adds(schedule, n, sizes, nominal.batch, first=True) for n in chain.nodes),
        unfused_multiply_adds=sum(s.unfused_multiply_adds for s in stages),
        bytes_read=sum(math.prod(map(int, boxes.covered[:, boxes.index[t], 0])) * nominal.batch * device.element
                       for t in chain.inputs),
        bytes_written=full[chain.output],
        boundary_bytes=sum(full[t] for t in (*chain.inputs, chain.output)),
        weight_bytes=sum(weight_bytes(graph, n, device.element) for n in chain.nodes),
        weight_traffic=int(weight_traffic(chain, boxes, device.element).sum()),
        unfused_bytes=sum(full[n.name] + sum(full[t] for t in dict.fromkeys(n.inputs)) for n in chain.nodes),
        scratch_bytes=scratch,
        tiles=int(boxes.tiles[0]),
        blocks_per_core=int(timing.blocks_per_core[0]),
        waves=int(timing.waves[0]),
        compute=float(timing.compute[0]),
        memory=float(timing.memory[0]),
        launch=timing.launch,
        seconds=float(timing.seconds[0]),
    )


def layer_multiply_adds(graph: LayerGraph, node: Node, size: tuple[int, int], batch: int) -> int:
    """Multiply-adds of one layer computed once over an output of `size` (height, width)."""
    whole = [taps(node.layer, a, np.zeros(1, dtype=np.int64), np.array([size[a.value]], dtype=np.int64)) for a in L.Axis]
    return inputs_per_output(graph, node) * graph.shapes[node.name].channels * math.prod(whole) * batch


def _stage_cost(schedule: Schedule, stage: Stage, sizes: Mapping[str, tuple[int, int]], batch: int) -> StageCost:
    positions = batch * math.prod(int((end - start).sum()) for start, end in _spans(schedule, stage, sizes))
    if stage.node is None:
        return StageCost(stage.name, positions, 0, 0)
    return StageCost(stage.name, positions, _multiply_adds(schedule, stage.node, sizes, batch),
                     layer_multiply_adds(schedule.chain.graph, stage.node, sizes[stage.node.name], batch))


def _multiply_adds(schedule: Schedule, node: Node, sizes: Mapping[str, tuple[int, int]], batch: int,
                   first: bool = False) -> int:
    """Multiply-adds of a node over all tiles, or over the first one."""
    inputs = inputs_per_output(schedule.chain.graph, node)
    if not inputs:
        return 0
    stage = next(s for s in schedule.stages if s.node is node)
    (c_start, c_end), *rest = _spans(schedule, stage, sizes, first)
    images = min(schedule.tile.images, batch) if first else batch
    counts = [taps(node.layer, a, *span) for a, span in zip(L.Axis, rest, strict=True)]
    return images * inputs * int((c_end - c_start).sum()) * math.prod(counts)


Span = tuple[Ints, Ints]


def _spans(schedule: Schedule, stage: Stage, sizes: Mapping[str, tuple[int, int]], first: bool = False) -> list[Span]:
    """(start, end) of what a stage makes for each tile, or for the first one, along channels, rows and columns.

    Along y these are the rows of each step of a strip, those of its warm-up included.
    """
    chain, tile, box, tensor = schedule.chain, schedule.tile, stage.footprint, stage.writes.tensor
    out, size = (tensor_sizes(chain, sizes)[t] for t in (chain.output, tensor))
    height = min(tile.height, out[1]) if first else out[1]
    (c0, c1), (x0, x1) = (ends_at(part, np.arange(0, min(step, o) if first else o, step, dtype=np.int64), n)
                          for part, step, o, n in ((box.c, tile.channels, out[0], size[0]),
                                                   (box.x, tile.width, out[2], size[2])))
    turns = [(strip, step) for strip in range(0, height, tile.height) for step in schedule.steps(strip, height)]
    strips, steps = np.array(turns, dtype=np.int64).T
    y0, y1 = ends_at(box.y, steps, size[1])
    if stage.start is not None:
        begun = strips * box.y.scale.numerator // box.y.scale.denominator + stage.start
        y0 = np.minimum(np.maximum(y1 - schedule.fresh(stage), begun), y1)
        y1 = np.maximum(y0, y1)
    return [(np.clip(start, 0, n), np.clip(end, 0, n))
            for start, end, n in zip((c0, y0, x0), (c1, y1, x1), size, strict=True)]


def ends_at(part: Affine, origins: Ints, size: int) -> Span:
    """(start, end) of one axis of a footprint at each origin, borders ignored."""
    start = origins * part.scale.numerator // part.scale.denominator + part.offset
    return start, start + (size if part.extent is None else part.extent)
