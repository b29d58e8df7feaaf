"""From a chain and a tile to a complete schedule: stages in order, buffers with their place in scratch.

In: a chain, a tile and the few facts of a Device that shape memory (layout, vector width). Out: a Schedule whose every number
`fusec.schedule.verify` computes again. Nothing is chosen here; `search` chooses. A convolution's output that a pool can take
from registers (`merge`) always stays there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.plan.footprint import Pyramid, line_buffers, pyramid, warm_up
from fusec.plan.lag import behind
from fusec.plan.merge import merged_pools
from fusec.plan.placement import lives, offsets
from fusec.schedule.ir import Buffer, Chain, Execution, Footprint, Layout, Overlap, Read, Schedule, Space, Stage, Tile
from fusec.targets.device import FEW_CHANNELS, Device


def construct(chain: Chain, tile: Tile, device: Device, staged: Collection[str], step: int | None = None,
              execution: Execution = Execution.IN_TIME) -> Schedule:
    """The schedule that computes `tile`.

    Parameters
    ----------
    staged
        The chain inputs copied into scratch by a load stage; the others are read from device memory directly.
    step
        Rows a block walks down the tile at a time, reusing overlap along y. Overlap is recomputed when left out.
    execution
        Stages side by side (in space) are for strips.

    Raises
    ------
    Infeasible
        The pyramid's reasons, channels that the tile's do not divide, a staged input of which a tile needs a whole image of
        open size, or a tile that cannot be walked down in such steps.
    """
    channels = chain.shapes[chain.output].channels
    if channels % tile.channels or (tile.channels < channels and tile.channels % device.layout.block):
        blocks = f" into blocks of {device.layout.block}" if device.layout.block > 1 else ""
        raise Infeasible(f"a tile of {tile.channels} channels does not divide the {channels} of '{chain.output}'{blocks}")
    rows = tile if step is None else replace(tile, height=step)
    boxes = whole = pyramid(chain, rows)
    if execution is Execution.IN_SPACE and step is None:
        raise Infeasible("stages side by side need a strip to walk down: say its step")
    if step is not None:
        check_walk(chain, whole, tile, step)
        boxes = pyramid(chain, rows, fresh=True)
        if execution is Execution.IN_SPACE:
            boxes = behind(chain, boxes, staged, step)
    for tensor in staged:
        if boxes.tensors[tensor].y.extent is None or boxes.tensors[tensor].x.extent is None:
            raise Infeasible(f"'{tensor}' is read as a whole image of open size, which has no place in scratch")
    folded = frozenset() if step is None else line_buffers(boxes, step)
    if execution is Execution.IN_SPACE:
        folded = frozenset(boxes.tensors) - {chain.output}
    buffers = _buffers(chain, boxes, tile.images, device, staged, folded)
    outside = {t: _global(chain, t, boxes.tensors[t], tile.images, device) for t in (*chain.inputs, chain.output)}
    def start(tensor: str) -> int | None:
        return None if step is None else whole.tensors[tensor].y.offset

    stages: list[Stage] = []
    loaded: set[str] = set()
    for node in chain.nodes:
        for tensor in dict.fromkeys(node.inputs):
            if tensor in staged and tensor not in loaded:
                loaded.add(tensor)
                source = Read(outside[tensor], boxes.tensors[tensor], guarded=True)
                stages.append(Stage(f"load {tensor}", None, (source,), buffers[tensor], start(tensor)))
        reads = tuple(_read(node, i, buffers.get(t) or outside[t], boxes) for i, t in enumerate(node.inputs))
        writes = outside[node.name] if node.name == chain.output else buffers[node.name]
        stages.append(Stage(node.name, node, reads, writes, start(node.name)))
    overlap = _overlap(boxes.tensors[chain.output], step)
    early = 0 if step is None else warm_up(whole, step)
    return Schedule(chain, tile, tuple(stages), overlap, execution, step=step, warm_up=early, element=device.element)


def check_walk(chain: Chain, boxes: Pyramid, tile: Tile, step: int) -> None:
    """Infeasible where blocks cannot walk down `tile` in steps of `step` rows with these boxes."""
    if tile.height % step:
        raise Infeasible(f"steps of {step} rows do not divide a strip of {tile.height}")
    still = next((t for t, box in boxes.tensors.items() if box.y.scale == 0), None)
    if still is not None:
        raise Infeasible(f"'{still}' is needed as a whole by every step: there is nothing to walk down in chain {chain}")


def _overlap(output: Footprint, step: int | None) -> dict[L.Axis, Overlap]:
    reused = {L.Axis.Y: step is not None, L.Axis.X: step is not None and output.x.scale == 0}
    return {axis: Overlap.REUSE if r else Overlap.RECOMPUTE for axis, r in reused.items()}


def _read(node: Node, position: int, buffer: Buffer, boxes: Pyramid) -> Read:
    layer = node.layer
    shared = buffer.space is Space.SCRATCH and isinstance(layer, L.MaxPool2d) and buffer.padding_value == 0
    looks = isinstance(layer, L.Pad) or (isinstance(layer, L.Upsample) and layer.linear)  # these test the border themselves
    return Read(buffer, boxes.reads[node.name, position], guarded=buffer.space is Space.GLOBAL or shared or looks)


def _global(chain: Chain, tensor: str, box: Footprint, images: int, device: Device) -> Buffer:
    """A chain's input or output. Tensors between kernels have the device's layout; the network's own are NCHW."""
    graph = chain.graph
    public = tensor in graph.outputs or isinstance(graph[tensor].layer, L.Input)
    layout = Layout.NCHW if public else layout_of(device, chain.shapes[tensor].channels)
    return Buffer(f"{tensor}@global", tensor, Space.GLOBAL, layout, images, box)


def layout_of(device: Device, channels: int) -> Layout:
    """The layout of a tensor of `channels` channels inside the network: few channels do not fill planes of eight."""
    return Layout.NCHW if device.layout is Layout.NC8HW8 and channels <= FEW_CHANNELS else device.layout


def _buffers(chain: Chain, boxes: Pyramid, images: int, device: Device, staged: Collection[str],
             folded: Collection[str]) -> dict[str, Buffer]:
    """The buffers of the staged inputs and of all tensors made on the way, in registers or at their place in scratch."""
    registers = {t: _buffer(chain, t, boxes.tensors[t], images, device, Space.REGISTER) for t in merged_pools(chain)}
    kept = lives(chain, staged, folded)
    scratch = [_buffer(chain, life.tensor, boxes.tensors[life.tensor], images, device, Space.SCRATCH) for life in kept]
    scratch = [replace(b, fold=L.Axis.Y) if b.tensor in folded else b for b in scratch]
    places = offsets(kept, [np.array([b.size], dtype=np.int64) for b in scratch], device.element)
    return registers | {b.tensor: replace(b, offset=int(place[0])) for b, place in zip(scratch, places, strict=True)}


def _buffer(chain: Chain, tensor: str, box: Footprint, images: int, device: Device, space: Space) -> Buffer:
    """A buffer for the box of `tensor` with the device's layout, at offset 0; in registers it is dense."""
    channels, height, width = (a.extent or 0 for a in (box.c, box.y, box.x))
    readers = [n for n in chain.nodes if tensor in n.inputs]
    masked = space is Space.SCRATCH and readers and all(isinstance(n.layer, L.MaxPool2d) for n in readers)
    layout = layout_of(device, chain.shapes[tensor].channels)
    if layout is Layout.NHWC:
        column = channels_held(channels, layout, device) if space is Space.SCRATCH else channels
        row, image, channel = column * width, column * width * height, 1
    else:
        column = layout.block
        row, channel = column * width, column * width * height
        image = channels_held(channels, layout, device) // layout.block * channel
    return Buffer(tensor, tensor, space, layout, images, box, float("-inf") if masked else 0.0, 0, image, channel, row, column)


def channels_held(channels: int, layout: Layout, device: Device) -> int:
    """Channels rounded up to what lies in scratch: whole planes of eight or, side by side, whole vectors from 4 channels on."""
    if layout is Layout.NHWC and channels >= 4:
        lanes = min(device.vector, 1 << (channels - 1).bit_length())
        return -(-channels // lanes) * lanes
    return -(-channels // layout.block) * layout.block
