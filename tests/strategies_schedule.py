"""Hypothesis strategies for chains of a graph, for schedules of a chain, and for cutting a whole graph into chains.

Legal by construction, but otherwise as the planner would never choose them: odd tiles, any subset of the inputs staged, every
device's layout, channel tiles wherever they are possible.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import reject
from hypothesis import strategies as st

from fusec.errors import Infeasible
from fusec.graph.graph import LayerGraph
from fusec.graph.layers import Axis
from fusec.plan.construct import check_walk, construct
from fusec.plan.footprint import granularity, pyramid
from fusec.schedule.ir import Chain, Execution, Schedule, Tile
from fusec.targets.device import DEVICES, Device, generic_host, in_precision

H200 = DEVICES["h200"]
PLANNED = (Execution.IN_TIME,)  # what the planner chooses from: costs and locks know no other
PLANNED_DEVICES = (H200, generic_host(4), generic_host(8), generic_host(16), in_precision(H200, "float16"))


def windows(graph: LayerGraph, start: int) -> list[Chain]:
    """The chains of consecutive layers from number `start` on, shortest first, that have their last node as only output."""
    names = [n.name for n in graph.layers]
    found = []
    for stop in range(start + 1, len(names) + 1):
        inside = set(names[start:stop])
        kept = (n not in graph.outputs and {c.name for c in graph.consumers(n)} <= inside for n in names[start:stop - 1])
        if all(kept):
            found.append(Chain(graph, tuple(names[start:stop])))
    return found


@st.composite
def chains(draw: st.DrawFn, graph: LayerGraph) -> Chain:
    """One chain of `graph` that some tile can compute, every length as likely as any other; shrinks to a single layer."""
    found = [c for start in range(len(graph.layers)) for c in windows(graph, start) if computable(c)]
    length = draw(st.sampled_from(sorted({len(c.names) for c in found})), label="chain length")
    return draw(st.sampled_from([c for c in found if len(c.names) == length]), label="chain")


@st.composite
def partitions(draw: st.DrawFn, graph: LayerGraph) -> tuple[Chain, ...]:
    """The whole of `graph` as chains of consecutive layers, each of which some tile can compute."""
    parts: list[Chain] = []
    done = 0
    while done < len(graph.layers):
        parts.append(draw(st.sampled_from([c for c in windows(graph, done) if computable(c)]), label="chain"))
        done += len(parts[-1].names)
    return tuple(parts)


def computable(chain: Chain) -> bool:
    """Whether one tile, as large as can be, computes the chain."""
    return possible(chain, covering(chain))


def covering(chain: Chain) -> Tile:
    """A tile that covers the image wherever its size is known, else the smallest."""
    shape = chain.shapes[chain.output]
    height, width = (shape.along(a) or granularity(chain, a) for a in Axis)
    return Tile(1, shape.channels, height, width)


def possible(chain: Chain, tile: Tile) -> bool:
    try:
        pyramid(chain, tile)
    except Infeasible:
        return False
    return True


@st.composite
def tiles(draw: st.DrawFn, chain: Chain, block: int = 1) -> Tile:
    """A tile the chain can be computed by: spatial extents up to 12 or covering, multiples of the granularity.

    Its channels are all, or a divisor of all where the chain allows it, made of whole blocks of `block`.
    """
    full = covering(chain)
    images = draw(st.integers(1, 4), label="images")
    extents = []
    for axis in Axis:
        grain = granularity(chain, axis)
        extents.append(grain * draw(st.integers(1, max(1, 12 // grain)), label=f"tile {axis.name}"))
    divisors = [c for c in range(full.channels, 0, -1) if full.channels % c == 0 and (c == full.channels or c % block == 0)]
    channels = draw(st.sampled_from(divisors), label="tile channels")
    choices = (Tile(images, channels, extents[0], extents[1]), Tile(images, full.channels, extents[0], extents[1]),
               Tile(images, full.channels, full.height, extents[1]), Tile(images, full.channels, extents[0], full.width),
               Tile(images, full.channels, full.height, full.width))
    for tile in choices:
        if possible(chain, tile):
            return tile
    return reject()


@st.composite
def schedules(draw: st.DrawFn, chain: Chain, devices: tuple[Device, ...] = PLANNED_DEVICES,
              executions: tuple[Execution, ...] = tuple(Execution)) -> Schedule:
    """A schedule of `chain` for one of `devices`, either policy along y, strips' stages in time or in space.

    Rejects chains no tile can compute.
    """
    device = draw(st.sampled_from(devices), label="device")
    tile = draw(tiles(chain, device.layout.block), label="tile")
    step = draw(steps(chain, tile), label="step")
    if step is not None and draw(st.booleans(), label="longer strip"):
        tile = replace(tile, height=tile.height * draw(st.integers(2, 4)))
    boxes = pyramid(chain, tile if step is None else replace(tile, height=step))
    small = [t for t in chain.inputs if boxes.tensors[t].y.extent is not None and boxes.tensors[t].x.extent is not None]
    staged = [t for t in small if draw(st.booleans(), label=f"stage {t}")]
    execution = draw(st.sampled_from(executions if step is not None else [Execution.IN_TIME]), label="execution")
    try:
        return construct(chain, tile, device, staged, step, execution)
    except Infeasible:  # windows that leave out rows
        return construct(chain, tile, device, staged, step)


def steps(chain: Chain, tile: Tile) -> st.SearchStrategy[int | None]:
    """Rows of a step in which the tile can be walked down, or None: overlap recomputed."""
    grain = granularity(chain, Axis.Y)
    return st.sampled_from([None, *(s for s in range(grain, tile.height + 1, grain)
                                    if tile.height % s == 0 and walkable(chain, tile, s))])


def walkable(chain: Chain, tile: Tile, step: int) -> bool:
    try:
        check_walk(chain, pyramid(chain, replace(tile, height=step)), tile, step)
    except Infeasible:
        return False
    return True
