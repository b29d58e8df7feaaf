"""From a chain and a tile to a complete schedule: stages in order, buffers with their place in scratch.

In: a chain, a tile and the few facts of a Device that shape memory (layout, vector width). Out: a Schedule whose every number
`fusec.schedule.verify` computes again. Nothing is chosen here; `search` chooses.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.plan.footprint import Pyramid, pyramid
from fusec.schedule.ir import Buffer, Chain, Footprint, Layout, Read, Schedule, Space, Stage, Tile
from fusec.targets.device import Device


def construct(chain: Chain, tile: Tile, device: Device, staged: Collection[str]) -> Schedule:
    """The schedule that computes `tile` with every stage in time and overlap recomputed.

    Parameters
    ----------
    staged
        The chain inputs copied into scratch by a load stage; the others are read from device memory directly.

    Raises
    ------
    Infeasible
        The pyramid's reasons, channels that the tile's do not divide, or a staged input of which a tile needs a whole image
        of open size.
    """
    channels = chain.shapes[chain.output].channels
    if channels % tile.channels:
        raise Infeasible(f"a tile of {tile.channels} channels does not divide the {channels} of '{chain.output}'")
    boxes = pyramid(chain, tile)
    for tensor in staged:
        if boxes.tensors[tensor].y.extent is None or boxes.tensors[tensor].x.extent is None:
            raise Infeasible(f"'{tensor}' is read as a whole image of open size, which has no place in scratch")
    buffers = {t: _buffer(chain, t, boxes.tensors[t], tile.images, device) for t in (*chain.inputs, *chain.names[:-1])
               if t in staged or t in chain.names}
    outside = {t: _global(chain, t, boxes.tensors[t], tile.images, device) for t in (*chain.inputs, chain.output)}
    stages: list[Stage] = []
    loaded: set[str] = set()
    for node in chain.nodes:
        for tensor in dict.fromkeys(node.inputs):
            if tensor in staged and tensor not in loaded:
                loaded.add(tensor)
                whole = Read(outside[tensor], boxes.tensors[tensor], guarded=True)
                stages.append(Stage(f"load {tensor}", None, (whole,), buffers[tensor]))
        reads = tuple(_read(node, i, buffers.get(t) or outside[t], boxes) for i, t in enumerate(node.inputs))
        stages.append(Stage(node.name, node, reads, outside[node.name] if node.name == chain.output else buffers[node.name]))
    return Schedule(chain, tile, _place(stages))


def _read(node: Node, position: int, buffer: Buffer, boxes: Pyramid) -> Read:
    guarded = buffer.space is Space.GLOBAL or (isinstance(node.layer, L.MaxPool2d) and buffer.padding_value == 0)
    return Read(buffer, boxes.reads[node.name, position], guarded)


def _global(chain: Chain, tensor: str, box: Footprint, images: int, device: Device) -> Buffer:
    """A chain's input or output. Tensors between kernels have the device's layout; the network's own are NCHW."""
    graph = chain.graph
    public = tensor in graph.outputs or isinstance(graph[tensor].layer, L.Input)
    return Buffer(f"{tensor}@global", tensor, Space.GLOBAL, Layout.NCHW if public else device.layout, images, box)


def _buffer(chain: Chain, tensor: str, box: Footprint, images: int, device: Device) -> Buffer:
    """A scratch buffer for the box of `tensor`, with the device's layout; its offset is set by `_place`."""
    channels, height, width = (a.extent or 0 for a in (box.c, box.y, box.x))
    readers = [n for n in chain.nodes if tensor in n.inputs]
    padding = float("-inf") if readers and all(isinstance(n.layer, L.MaxPool2d) for n in readers) else 0.0
    if device.layout is Layout.NHWC:
        column = channel_pitch(channels, device.vector)
        row, image, channel = column * width, column * width * height, 1
    else:
        column, row, channel = 1, width, width * height
        image = channel * channels
    return Buffer(tensor, tensor, Space.SCRATCH, device.layout, images, box, padding, 0, image, channel, row, column)


def channel_pitch(channels: int, vector: int) -> int:
    """Channels of a pixel rounded up, so that vector stores stay inside the pixel; up to 3 channels are kept dense."""
    if channels < 4:
        return channels
    lanes = min(vector, 1 << (channels - 1).bit_length())
    return -(-channels // lanes) * lanes


ALIGN = 16  # elements (64 bytes) every buffer starts at a multiple of: a cache line, and any vector


def _place(stages: list[Stage]) -> tuple[Stage, ...]:
    """Give every scratch buffer an offset: first fit, largest lifetime conflicts respected, in the order of first use."""
    last_use: dict[Buffer, int] = {}
    for i, stage in enumerate(stages):
        for buffer in (*(r.buffer for r in stage.reads), stage.writes):
            last_use[buffer] = i
    placed: dict[Buffer, Buffer] = {}
    live: list[tuple[int, int, int]] = []  # (offset, end, last use)
    for i, stage in enumerate(stages):
        live = [x for x in live if x[2] >= i]
        buffer = stage.writes
        if buffer.space is Space.SCRATCH:
            size = -(-buffer.size // ALIGN) * ALIGN
            offset = _first_gap(sorted(live), size)
            live.append((offset, offset + size, last_use[buffer]))
            placed[buffer] = replace(buffer, offset=offset)
    return tuple(Stage(s.name, s.node, tuple(Read(placed.get(r.buffer, r.buffer), r.footprint, r.guarded) for r in s.reads),
                       placed.get(s.writes, s.writes)) for s in stages)


def _first_gap(taken: list[tuple[int, int, int]], size: int) -> int:
    offset = 0
    for start, end, _ in taken:
        if offset + size <= start:
            break
        offset = max(offset, end)
    return offset


