"""Line buffers under reuse: what a tile leaves on chip for the tiles beside and below it, so that nothing is computed twice.

In: a chain, the pyramid of its tile, the sizes of its tensors. Out: elements kept of each tensor. Tiles run from left to right,
then from top to bottom. Where a window of K rows moves by S, K - S rows of its input are kept over the width of the image, and
K - S columns over the height of the tile: the buffers BT and BL of Alwani et al., "Fused-layer CNN accelerators", MICRO 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.plan.footprint import Pyramid, read_box
from fusec.schedule.ir import Chain, Footprint
from fusec.schedule.taps import READS_WHOLE_IMAGE


@dataclass(frozen=True)
class Kept:
    """Elements kept of one tensor of one image: whole rows for the tiles below, parts of columns for the tile to the right."""

    rows: int
    columns: int


def kept(chain: Chain, pyramid: Pyramid, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Kept]:
    """What is kept of every tensor that the chain reads.

    The first row of tiles computes the whole pyramid, so columns are kept over its height, without the rows that are kept
    anyway. The image's padding is not stored. The tile being worked on is not counted, nor is a left edge where the tile is as
    wide as the image.
    """
    tiled = pyramid.tensors[chain.output].x.extent
    one_column = tiled is not None and tiled >= sizes[chain.output][1]
    result = {}
    for tensor in (*chain.inputs, *chain.names[:-1]):
        readers = [n for n in chain.nodes if tensor in n.inputs]
        height, width = sizes[tensor]
        rows, columns = (_overlap(chain, pyramid, tensor, readers, axis, sizes) for axis in L.Axis)
        extent = pyramid.tensors[tensor].y.extent
        tall = height if extent is None else min(extent, height)
        channels = chain.shapes[tensor].channels
        result[tensor] = Kept(channels * rows * width, 0 if one_column else channels * columns * max(tall - rows, 0))
    return result


def _overlap(chain: Chain, pyramid: Pyramid, tensor: str, readers: list[Node], axis: L.Axis,
             sizes: Mapping[str, tuple[int, int]]) -> int:
    """Positions of a tensor along `axis`, already there for one tile, that its readers need for the next one too.

    From where the slowest reader goes on to where the tensor ends: K - S for a single window, and more where another branch
    makes a reader wait.
    """
    size = sizes[tensor][axis.value]
    readers = [r for r in readers if not isinstance(r.layer, READS_WHOLE_IMAGE)]  # K = S: they need nothing twice
    if not readers:
        return 0
    made = pyramid.tensors[tensor].along(axis)
    if made.extent is None:
        return size
    needed = min(read_box(r, r.inputs.index(tensor), _next(pyramid.tensors[r.name]), chain.graph.input_shapes(r))
                 .along(axis).offset for r in readers)
    return min(max(made.offset + made.extent - needed, 0), size)


def _next(box: Footprint) -> Footprint:
    """The first row and column behind a box that has not been computed."""
    y, x = (replace(a, offset=a.offset + (a.extent or 0), extent=1) for a in (box.y, box.x))
    return Footprint(box.c, y, x)
