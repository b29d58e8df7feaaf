"""Scratch taken by many tiles at once: what `construct` would place, without constructing.

In: the boxes of N tiles and the inputs to be staged. Out: elements of scratch. Lives and places are those of `placement`, as in
`construct`; only the sizes are worked out here, for all tiles together.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.shapes import param_shapes
from fusec.plan.boxes import Boxes
from fusec.plan.construct import channels_held, layout_of
from fusec.plan.counting import Ints
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
    """Bytes of weights that a block keeps in scratch beside its buffers: those of matrix instructions, where they are few."""
    if not device.matrix:
        return 0
    convolutions = [n for n in chain.nodes if isinstance(n.layer, L.Conv2d) and n.layer.groups == 1]
    taken = sum(-(-_weights(chain, n) * device.element // 8) * 8 for n in convolutions)
    return taken if taken <= RESIDENT_WEIGHTS else 0


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
