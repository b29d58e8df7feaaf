"""Pyramid footprints: what a tile of the output needs of every tensor of a chain, walked backwards.

In: a chain and a tile. Out: for every tensor the union of what its readers need, and for every read its own box. Padding,
stride and dilation appear in `read_box` alone. The rule for fused windows is that of Alwani et al., "Fused-layer CNN
accelerators", MICRO 2016, section III; unions over several readers carry it to DAGs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, lcm

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.graph.shapes import Shape, sized_by
from fusec.plan.merge import merged_pools
from fusec.schedule.ir import WHOLE, Affine, Chain, Footprint, Tile


@dataclass(frozen=True)
class Pyramid:
    """Footprints of one chain and tile: per tensor (what its producer computes), and per (node, input position)."""

    tensors: Mapping[str, Footprint]
    reads: Mapping[tuple[str, int], Footprint]


def pyramid(chain: Chain, tile: Tile, *, fresh: bool = False) -> Pyramid:
    """Walk from the output tile back to the chain's inputs.

    Parameters
    ----------
    fresh
        For one step of a strip, whose rows are the tile's: what must be there when every stage makes only the rows that the
        step before did not. A box is then as high as its slowest reader asks for; its last rows are the ones that are new. A
        convolution's box in registers stays that of its pool's.

    Raises
    ------
    Infeasible
        The tile cannot be computed by independent blocks: a layer needs all channels or a whole image that is not known.
    """
    merged = merged_pools(chain) if fresh else {}
    needs: dict[str, list[Footprint]] = {chain.output: [tile_footprint(tile, chain.shapes[chain.output])]}
    tensors: dict[str, Footprint] = {}
    reads: dict[tuple[str, int], Footprint] = {}
    for node in reversed(chain.nodes):
        if node.name not in needs:
            raise Infeasible(f"'{node.name}' is not read inside the chain {chain}")
        out = tensors[node.name] = _union(needs[node.name], node.name)
        if out.y.extent is None or out.x.extent is None:
            raise Infeasible(f"'{node.name}' is read as a whole image, whose size is only known at run time")
        for position, tensor in enumerate(node.inputs):
            made = new_rows(out, tile.height) if fresh and tensor not in merged else out
            box = reads[node.name, position] = read_box(node, position, made, chain.graph.input_shapes(node))
            needs.setdefault(tensor, []).append(box)
    for tensor in chain.inputs:
        tensors[tensor] = _union(needs[tensor], tensor)
    return Pyramid(tensors, reads)


def new_rows(box: Footprint, step: int) -> Footprint:
    """The last rows of a box that moves by `step` rows of the output: those it did not have a step before."""
    y, moved = box.y, int(box.y.scale * step)
    if y.extent is None or y.extent <= moved:
        return box
    return replace(box, y=Affine(y.scale, y.offset + y.extent - moved, moved))


def line_buffers(boxes: Pyramid, step: int) -> frozenset[str]:
    """The tensors with rows that are kept from one step of `step` rows to the next; `boxes` are those of a step."""
    return frozenset(t for t, box in boxes.tensors.items() if box.y.extent is not None and box.y.extent > box.y.scale * step)


def warm_up(whole: Pyramid, step: int) -> int:
    """Steps above a strip after which every row is there that its first step needs: `whole` is the pyramid of that step."""
    reaches = [(box.y.extent or 0, box.y.scale * step) for box in whole.tensors.values()]
    return max(ceil((reach - moved) / moved) for reach, moved in reaches)


def tile_footprint(tile: Tile, shape: Shape) -> Footprint:
    """The tile itself as a footprint; an axis covered by one tile does not move (scale 0)."""

    def axis(extent: int, size: int | None) -> Affine:
        if size is not None and extent >= size:
            return Affine(Fraction(0), 0, size)
        return Affine(Fraction(1), 0, extent)

    return Footprint(axis(tile.channels, shape.channels), axis(tile.height, shape.height), axis(tile.width, shape.width))


def granularity(chain: Chain, axis: L.Axis) -> int:
    """Tile extents along `axis` must be multiples of this, so that every tensor's origin is a whole position."""
    scales: dict[str, Fraction] = {chain.output: Fraction(1)}
    for node in reversed(chain.nodes):
        scale, shapes = scales[node.name], chain.graph.input_shapes(node)
        for position, tensor in enumerate(node.inputs):
            rate = Fraction(0) if _is_spread(node.layer, position, shapes) else _scale(node.layer, axis)
            scales.setdefault(tensor, scale * rate)
    return lcm(*(s.denominator for s in scales.values()))


def read_box(node: Node, position: int, out: Footprint, shapes: Sequence[Shape]) -> Footprint:
    """What `node` reads of its input number `position` to make the box `out`; `shapes` are those of all inputs."""
    layer, shape = node.layer, shapes[position]
    if isinstance(layer, L.GlobalPool2d | L.Flatten | L.Linear) or _is_spread(layer, position, shapes):
        y, x = (WHOLE if (n := shape.along(a)) is None else Affine(Fraction(0), 0, n) for a in L.Axis)
        return Footprint(_channels(node, out.c, shape), y, x)
    y, x = (_spatial(layer, a, out.along(a)) for a in L.Axis)
    return Footprint(_channels(node, out.c, shape), y, x)


def _is_spread(layer: L.Layer, position: int, shapes: Sequence[Shape]) -> bool:
    """Whether the one pixel of an input goes with every pixel of the others."""
    return position not in sized_by(layer, shapes)


def _scale(layer: L.Layer, axis: L.Axis) -> Fraction:
    """Input pixels per output pixel."""
    if isinstance(layer, L.ConvTranspose2d):
        return Fraction(1, layer.stride[axis.value])
    if isinstance(layer, L.Windowed):
        return Fraction(layer.stride[axis.value])
    if isinstance(layer, L.Upsample):
        return Fraction(1, layer.factor[axis.value])
    if isinstance(layer, L.DepthToSpace):
        return Fraction(1, layer.block)
    if isinstance(layer, L.SpaceToDepth):
        return Fraction(layer.block)
    if isinstance(layer, L.GlobalPool2d | L.Flatten | L.Linear):
        return Fraction(0)
    return Fraction(1)


def _spatial(layer: L.Layer, axis: L.Axis, out: Affine) -> Affine:
    assert out.extent is not None, "only inputs are whole axes"
    scale = _scale(layer, axis)
    first, last = out.offset, out.offset + out.extent - 1
    if isinstance(layer, L.ConvTranspose2d):
        w = layer.window(axis)
        start = ceil(Fraction(first + w.before - w.span + 1, w.stride))
        end = max(floor(Fraction(last + w.before, w.stride)), start)
    elif isinstance(layer, L.Windowed):
        w = layer.window(axis)
        start, end = first * w.stride - w.before, last * w.stride - w.before + w.span - 1
    elif isinstance(layer, L.Crop | L.Pad):
        moved = layer.along(axis)[0] if isinstance(layer, L.Crop) else -layer.padding.along(axis)[0]
        start, end = first + moved, last + moved
    elif isinstance(layer, L.SpaceToDepth):
        start, end = first * layer.block, (last + 1) * layer.block - 1
    elif isinstance(layer, L.Upsample) and layer.linear:  # the pixels before and behind where a position lies
        centre = (scale - 1) / 2 if layer.coordinates == "half_pixel" else Fraction(0)
        start, end = floor(first * scale + centre), ceil(last * scale + centre)
    else:
        start, end = floor(first * scale), floor(last * scale)
    return Affine(out.scale * scale, start, end - start + 1)


def _channels(node: Node, out: Affine, shape: Shape) -> Affine:
    """Channels read: the same ones for layers that work channel by channel, all of them otherwise."""
    layer, whole = node.layer, Affine(Fraction(0), 0, shape.channels)
    if isinstance(layer, L.Conv2d | L.ConvTranspose2d):
        depthwise = layer.groups == layer.out_channels == shape.channels
        return out if depthwise else whole
    if isinstance(layer, L.LocalResponseNorm | L.Softmax | L.LogSoftmax | L.SpaceToDepth | L.SliceChannels):
        return whole
    if isinstance(layer, L.Elementwise) and shape.channels == 1:
        return whole
    if isinstance(layer, L.Concat | L.DepthToSpace | L.Flatten | L.Linear):
        if out.scale != 0:
            raise Infeasible(f"'{node.name}' mixes channels: its tile has to hold all of them")
        return whole
    return out


def _union(boxes: list[Footprint], tensor: str) -> Footprint:
    return Footprint(*(_union_axis([getattr(b, a) for b in boxes], tensor) for a in ("c", "y", "x")))


def _union_axis(parts: list[Affine], tensor: str) -> Affine:
    if len({p.scale for p in parts}) > 1:
        raise Infeasible(f"the readers of '{tensor}' move over it at different rates")
    if any(p.extent is None for p in parts):
        return WHOLE
    start = min(p.offset for p in parts)
    end = max(p.offset + p.extent for p in parts if p.extent is not None)
    return Affine(parts[0].scale, start, end - start)
