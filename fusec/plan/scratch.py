"""Scratch taken by many tiles at once: what `construct` would place, without constructing.

In: the boxes of N tiles and the inputs to be staged. Out: elements of scratch. Lives and places are those of `placement`, as in
`construct`; only the sizes are worked out here, for all tiles together.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.shapes import param_shapes
from fusec.plan.boxes import Boxes
from fusec.plan.construct import channels_held, layout_of
from fusec.plan.counting import Ints, matrix_filters
from fusec.plan.placement import Life, lives, offsets, phases
from fusec.schedule.ir import Chain, Layout
from fusec.targets.device import RESIDENT_WEIGHTS, Device

MOST_COPIED = 16 * 1024  # bytes of weights that a block copies into scratch where there is room, for other kernels


def scratch_elements(chain: Chain, boxes: Boxes, staged: Collection[str], device: Device, limit: int | None = None) -> Ints:
    """(N,) elements of scratch one block needs.

    Parameters
    ----------
    limit
        Where a block needs more than that, whatever the places, what is alive at once will do.
    """
    kept = lives(chain, staged, boxes.folded)
    if not kept:
        return np.zeros(len(boxes.images), dtype=np.int64)
    sizes = np.stack([_size(boxes, life.tensor, device) for life in kept])
    if limit is None:
        return _taken(kept, sizes, device)
    most = np.max([sizes[[x.first <= life.first <= x.last for x in kept]].sum(axis=0) for life in kept], axis=0)
    fits = np.flatnonzero(most <= limit)
    if fits.size:
        most[fits] = _taken(kept, sizes[:, fits], device)
    return np.asarray(most)


def _taken(kept: list[Life], sizes: Ints, device: Device) -> Ints:
    """(N,) elements up to the end of the last buffer."""
    return np.asarray(np.max(np.stack(offsets(kept, list(sizes), device.element)) + sizes, axis=0))


def resident_bytes(chain: Chain, device: Device) -> int:
    """Bytes of weights that a block keeps in scratch beside its buffers: those of matrix instructions, where they are few.

    Those that a warp may hold in registers are not among them, in whichever blocks of fragments.
    """
    if not device.matrix:
        return 0
    filters = (matrix_filters(chain.graph, n) for n in chain.nodes)
    taken = sum(f.packed_bytes for f in filters if f is not None and not f.may_be_held(f.groups))
    return taken if taken <= RESIDENT_WEIGHTS else 0


@dataclass(frozen=True, eq=False)
class PairedRows:
    """What one convolution reads of a tensor with few channels, copied into scratch for it alone, (N,) each.

    Attributes
    ----------
    pixels
        Copied in a step.
    fits
        Whether scratch has room for them beside what is alive in that phase, wherever it lies: else there is no copy.
    end
        Bytes of scratch up to their end where all that is alive lies below; 0 where they do not fit.
    """

    tensor: str
    pixels: Ints
    fits: NDArray[np.bool_]
    end: Ints


def paired_rows(chain: Chain, boxes: Boxes, staged: Collection[str], device: Device) -> dict[str, PairedRows]:
    """The rows in pairs of every convolution that wants some, by its tensor."""
    wanted = [n for n in chain.nodes if (f := matrix_filters(chain.graph, n)) is not None and f.few] if device.matrix else []
    if not wanted:
        return {}
    kept = lives(chain, staged, boxes.folded)
    phase = {tensor: i for i, made in enumerate(phases(chain, staged)) for tensor in made}
    found = {}
    for node in wanted:
        i, (tensor,) = phase[node.name], node.inputs
        alive = sum((_size(boxes, life.tensor, device) for life in kept if life.first <= i <= life.last), 0 * boxes.images)
        rows, columns = _reach(boxes, node)
        channels, layer = chain.shapes[tensor].channels, node.layer
        assert isinstance(layer, L.Conv2d)
        pitch = -(-(columns * channels + -(channels * layer.kernel[1]) % 16) // 2) * 2
        end = device.element * (alive + 2 * boxes.images * rows * pitch)
        apart = (layer.dilation[1] > 1 and layer.kernel[1] > 1) or (tensor in boxes.folded and tensor not in chain.inputs)
        fits = (end <= device.scratch_per_block) & (not apart)
        found[node.name] = PairedRows(tensor, boxes.images * rows * columns, fits, np.where(fits, end, 0))
    return found


def _reach(boxes: Boxes, node: Node) -> tuple[Ints, Ints]:
    """(N,) rows and columns under what a convolution makes in a step."""
    assert isinstance(node.layer, L.Conv2d)
    i = boxes.index[node.name]
    made = np.minimum(boxes.inside[1, i], boxes.fresh[i]), boxes.inside[2, i]
    windows = (node.layer.window(axis) for axis in L.Axis)
    rows, columns = ((n - 1) * w.stride + (w.size - 1) * w.dilation + 1 for n, w in zip(made, windows, strict=True))
    return rows, columns


def copied_bytes(chain: Chain, device: Device) -> int:
    """Bytes of weights that a block copies into scratch beside its buffers when many share a core; buffers come first."""
    if device.matrix:
        return 0
    taken = device.element * sum(_weights(chain, n) for n in chain.nodes if isinstance(n.layer, L.Conv2d))
    return taken if taken <= MOST_COPIED else 0


def _weights(chain: Chain, node: Node) -> int:
    """Elements of a convolution's weights, its bias apart."""
    return math.prod(param_shapes(node.layer, chain.graph.input_shapes(node))["weight"])


def peak_stage(chain: Chain, boxes: Boxes, staged: Collection[str], device: Device, tile: int = 0) -> str:
    """The stage at which most scratch is alive, for number `tile` of the tiles.

    Of strips, whose line buffers are always there, it is the one that makes the largest buffer.
    """
    sizes = {life: int(_size(boxes, life.tensor, device)[tile]) for life in lives(chain, staged, boxes.folded)}
    made = phases(chain, staged)
    alive = [sum(size for life, size in sizes.items() if life.first <= i <= life.last) for i in range(len(made))]
    tensor = max(sizes, key=lambda life: sizes[life]).tensor if boxes.folded else made[alive.index(max(alive))][0]
    return f"load {tensor}" if tensor in chain.inputs else tensor


def _size(boxes: Boxes, tensor: str, device: Device) -> Ints:
    channels, height, width = boxes.extent[:, boxes.index[tensor]]
    layout = layout_of(device, int(boxes.size[0, boxes.index[tensor]]))
    if layout is Layout.NC8HW8:
        channels = -(-channels // layout.block) * layout.block
    elif layout is not Layout.NCHW:
        values, where = np.unique(channels, return_inverse=True)
        channels = np.array([channels_held(int(c), layout, device) for c in values], dtype=np.int64)[where]
    return np.asarray(boxes.images * channels * height * width)
