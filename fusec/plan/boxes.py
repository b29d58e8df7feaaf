"""The boxes of one chain's tensors for many tiles at once, as integer arrays.

In: a schedule, or a chain whose tile is still being searched. Out: `Boxes`, what the time model reads. Footprints come from
`footprint.pyramid` alone. `Family` uses that they are linear: a tensor that moves by `scale` positions per output position has
extent(T) = extent(g) + scale * (T - g) for all tile extents T that are multiples of the granularity g, because each rule of
`read_box` (stride, dilation, upsampling, unions) keeps that form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.plan.counting import Ints, covered
from fusec.plan.footprint import Pyramid, granularity, line_buffers, pyramid
from fusec.schedule.ir import Affine, Chain, Schedule, Tile

Size = tuple[int, int, int]  # channels, height, width
AXES = ("c", "y", "x")


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of T tensors (the chain's inputs, then its nodes) for N tiles.

    Attributes
    ----------
    extent
        (3, T, N) channels, rows and columns of each box, borders ignored; of a strip, what is held in one step.
    covered
        (3, T, N) positions inside the image along each axis, summed over all tiles along that axis.
    grid
        (3, N) tiles along each axis of the output.
    images
        (N,) images of a tile.
    size
        (3, T) extents of the tensors.
    batch
        Images in all.
    steps
        (N,) steps of a tile; 1 where overlap along y is recomputed.
    steps_y
        (N,) steps of all tiles along y together; those below the image are not taken.
    warm_up
        (N,) steps above a strip.
    fresh
        (T, N) rows of each box that are made, or read, in a step.
    early
        (T, N) rows that are made, or read, in the warm-up of a strip.
    folded
        The tensors with rows that the next step needs again.
    """

    index: Mapping[str, int]
    extent: Ints
    covered: Ints
    grid: Ints
    images: Ints
    size: Ints
    batch: int
    steps: Ints
    steps_y: Ints
    warm_up: Ints
    fresh: Ints
    early: Ints
    folded: frozenset[str] = frozenset()

    @property
    def tiles(self) -> Ints:
        return np.asarray(self.grid[0] * self.grid[1] * self.grid[2] * -(-self.batch // self.images))

    @cached_property
    def inside(self) -> Ints:
        """(3, T, N) extents of the largest clipped box: no box holds more of an axis than there is."""
        return np.minimum(self.extent, self.size[:, :, None])

    @cached_property
    def rows(self) -> Ints:
        """(T, N) rows of a box made, or read, at a time: in a step of a strip, or in a whole tile."""
        return np.asarray(np.minimum(self.inside[1], self.fresh))

    @cached_property
    def passes(self) -> NDArray[np.float64]:
        """(T, N) times as many rows that a tile makes, or reads, in all: the warm-up of a strip is part of them."""
        return self.steps + self.early / self.fresh

    @cached_property
    def share(self) -> NDArray[np.float64]:
        """(T, N) of the rows of all tiles' boxes, those that lie inside the image and the batch."""
        images = -(-self.batch // self.images) * self.images
        return np.asarray(np.minimum(1.0, self.covered[1] / (self.grid[1] * self.passes * self.rows)) * self.batch / images)

    @cached_property
    def last(self) -> Ints:
        """(T, N) columns of the last of the tiles side by side."""
        columns = self.inside[2]
        return np.asarray(np.clip(self.covered[2] - (self.grid[2] - 1) * columns, 1, columns))


def boxes_of(schedule: Schedule, sizes: Mapping[str, tuple[int, int]], batch: int) -> Boxes:
    """The boxes of a finished schedule (N = 1) when tensors have `sizes` and there are `batch` images."""
    chain, tile = schedule.chain, schedule.tile
    boxes = {r.buffer.tensor: r.buffer.footprint for s in schedule.stages for r in s.reads}
    boxes[chain.output] = schedule.stages[-1].writes.footprint
    full = tensor_sizes(chain, sizes)
    names = (*chain.inputs, *chain.names)
    extents = (tile.channels, tile.height, tile.width)
    tables = [_Table.of([getattr(boxes[t], a) for t in names], [full[t][i] for t in names], [extents[i]], full[chain.output][i])
              for i, a in enumerate(AXES)]
    if schedule.step is not None:
        whole = pyramid(chain, replace(tile, height=schedule.step))
        tables[1] = _strips([whole.tensors[t].y for t in names], [boxes[t].y for t in names], [full[t][1] for t in names],
                            [tile.height], [schedule.step], full[chain.output][1])
    zero = np.zeros(1, dtype=np.int64)
    folded = frozenset(b.tensor for b in schedule.buffers if b.fold is not None)
    return _join(names, tables, [zero] * 3, zero + tile.images, full, batch, folded)


def tensor_sizes(chain: Chain, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Size]:
    """Channels, height and width of every tensor of the chain."""
    return {t: (shape.channels, *sizes[t]) for t, shape in chain.shapes.items()}


@dataclass(frozen=True, eq=False)
class _Table:
    """One axis: arrays (T, candidates), or (candidates,); their names are those of `Boxes`."""

    extent: Ints
    covered: Ints
    tiles: Ints
    steps: Ints
    steps_all: Ints
    warm_up: Ints
    fresh: Ints
    early: Ints

    @staticmethod
    def of(parts: Sequence[Affine], sizes: Sequence[int], tiles: Sequence[int], size: int, base: int | None = None) -> _Table:
        """From footprints computed for a tile extent of `base` (or for the one extent given), for all extents `tiles`."""
        extents = np.array(tiles, dtype=np.int64)
        count = -(-size // extents)
        numerator = np.array([p.scale.numerator for p in parts], dtype=np.int64)[:, None]
        denominator = np.array([p.scale.denominator for p in parts], dtype=np.int64)[:, None]
        offset = np.array([p.offset for p in parts], dtype=np.int64)[:, None]
        full = np.array(sizes, dtype=np.int64)[:, None]
        known = np.array([s if p.extent is None else p.extent for p, s in zip(parts, sizes, strict=True)])[:, None]
        grown = np.zeros_like(extents) if base is None else extents - base
        extent = known + numerator * grown // denominator
        inside = covered(numerator * extents // denominator, offset, extent, full, count)
        one = np.ones_like(count)
        return _Table(extent, inside, count, one, count, 0 * one, extent, 0 * extent)

    def __or__(self, other: _Table) -> _Table:
        return _Table(*(np.hstack([getattr(self, f.name), getattr(other, f.name)]) for f in fields(_Table)))


def _join(names: Sequence[str], tables: Sequence[_Table], picks: Sequence[Ints], images: Ints, full: Mapping[str, Size],
          batch: int, folded: frozenset[str]) -> Boxes:
    y, pick = tables[1], picks[1]
    return Boxes({t: i for i, t in enumerate(names)},
                 np.stack([t.extent[:, p] for t, p in zip(tables, picks, strict=True)]),
                 np.stack([t.covered[:, p] for t, p in zip(tables, picks, strict=True)]),
                 np.stack([t.tiles[p] for t, p in zip(tables, picks, strict=True)]),
                 images, np.array([full[t] for t in names], dtype=np.int64).T, batch, y.steps[pick], y.steps_all[pick],
                 y.warm_up[pick], y.fresh[:, pick], y.early[:, pick], folded)


def _strips(whole: Sequence[Affine], held: Sequence[Affine], sizes: Sequence[int], heights: Sequence[int],
            steps: Sequence[int], size: int, base: int | None = None) -> _Table:
    """Rows of strips of `heights`, walked down in `steps`: from the pyramid of a step of `base` rows, and what that holds."""
    strip, step = np.array(heights, dtype=np.int64), np.array(steps, dtype=np.int64)
    strips, turns = -(-size // strip), -(-size // step)
    grown = step - (step if base is None else base)
    scale, below = (np.array([getattr(p.scale, name) for p in whole], dtype=np.int64)[:, None]
                    for name in ("numerator", "denominator"))
    full, start = (np.array(v, dtype=np.int64)[:, None] for v in (sizes, [p.offset for p in whole]))
    reach, extent = (np.array([p.extent or 0 for p in parts])[:, None] + scale * grown // below for parts in (whole, held))
    moved, apart = scale * step // below, scale * strip // below
    fresh, end = np.minimum(extent, moved), start + reach
    warm_up = np.max(-(-(reach - moved) // moved), axis=0)
    early, inside = np.zeros_like(reach), covered(moved, end - fresh, fresh, full, turns)
    for k in range(1, int(warm_up.max(initial=0)) + 1):  # the rows of the k-th step above the strip, as far as it needs them
        first = np.maximum(start, end - k * moved - fresh)
        rows = np.maximum(0, end - k * moved - first)
        early, inside = early + rows, inside + covered(apart, first, rows, full, strips)
    return _Table(extent, inside, strips, np.minimum(strip // step, turns), turns, warm_up, fresh, early)


class Family:
    """All tiles of one chain: the pyramids from which the boxes of any tile follow.

    Parameters
    ----------
    sizes
        (height, width) of every tensor, the run-time ones as planned for.

    Raises
    ------
    Infeasible
        No tile whatever can be computed by independent blocks.
    """

    def __init__(self, chain: Chain, sizes: Mapping[str, tuple[int, int]]) -> None:
        self.chain = chain
        self.names = (*chain.inputs, *chain.names)
        self.full = tensor_sizes(chain, sizes)
        self.size = self.full[chain.output]
        shape = chain.shapes[chain.output]
        self.pinned = (True, shape.height is not None, shape.width is not None)
        self.granularity = (1, granularity(chain, L.Axis.Y), granularity(chain, L.Axis.X))
        self._whole = self._pyramid(whole=True)
        self._moving = self._pyramid(whole=False)
        if self._whole is None and self._moving is None:
            raise self._reason
        self._split = self._split_channels()
        self._tables: dict[tuple[object, ...], _Table] = {}  # every batch size and coarse grid asks for the same ones

    def _sides(self, whole: bool) -> list[int]:
        """(height, width) of the tile that covers each pinned axis, or of the smallest tile that moves."""
        return [self.size[a] if whole and self.pinned[a] else self.granularity[a] for a in (1, 2)]

    def _pyramid(self, whole: bool) -> Pyramid | None:
        """Footprints of that tile with all channels."""
        sides = self._sides(whole)
        if whole and not any(self.pinned[1:]):
            return None
        try:
            return pyramid(self.chain, Tile(1, self.size[0], *sides))
        except Infeasible as error:
            self._reason = error
            return None

    def _split_channels(self) -> Pyramid | None:
        """Footprints of a tile of one channel, or None where the chain's last layers need them all at once."""
        if self.size[0] < 2 or not isinstance(self.chain.nodes[-1].layer, L.Windowed | L.GlobalPool2d):
            return None
        try:
            return pyramid(self.chain, Tile(1, 1, *self._sides(self._whole is not None)))
        except Infeasible:
            return None

    def allows(self, axis: int, extent: int) -> bool:
        """Whether tiles may have `extent` along `axis` (0 channels, 1 rows, 2 columns)."""
        if self.pinned[axis] and extent >= self.size[axis]:
            return axis == 0 or self._whole is not None
        if axis == 0:
            return self._split is not None
        return self._moving is not None and extent % self.granularity[axis] == 0

    @cached_property
    def folded(self) -> frozenset[str]:
        """The tensors of which each step of a strip needs rows of the step before; none where strips cannot be walked down.

        A box has as many rows more than it moves by, however long the step.
        """
        return frozenset() if self._held is None else line_buffers(self._held, self.granularity[1])

    @cached_property
    def _held(self) -> Pyramid | None:
        """What a step of the smallest strip holds; None where there is nothing to walk down."""
        if self._moving is None or any(box.y.scale == 0 for box in self._moving.tensors.values()):
            return None
        return pyramid(self.chain, Tile(1, self.size[0], *self._sides(whole=False)), fresh=True)

    def boxes(self, extents: Sequence[Sequence[int]], picks: Sequence[Ints], images: Ints, batch: int,
              steps: Sequence[int] | None = None) -> Boxes:
        """Boxes of N tiles: `extents` lists tile extents per axis, ascending; `picks`, three of (N,), which each tile has.

        With `steps`, as many as there are extents along y, tiles are strips; they need not ascend.
        """
        tables = [self._known(a, extents[a], steps if a == 1 else None) for a in range(3)]
        return _join(self.names, tables, picks, images, self.full, batch, frozenset() if steps is None else self.folded)

    def _known(self, axis: int, extents: Sequence[int], steps: Sequence[int] | None) -> _Table:
        key = axis, tuple(extents), None if steps is None else tuple(steps)
        if key not in self._tables:
            self._tables[key] = self._table(axis, extents) if steps is None else self._strips(extents, steps)
        return self._tables[key]

    def _strips(self, heights: Sequence[int], steps: Sequence[int]) -> _Table:
        assert self._moving is not None and self._held is not None
        whole, held = ([p.tensors[t].y for t in self.names] for p in (self._moving, self._held))
        return _strips(whole, held, [self.full[t][1] for t in self.names], heights, steps, self.size[1], self.granularity[1])

    def _table(self, axis: int, extents: Sequence[int]) -> _Table:
        """`extents` ascending: those that move, then at most one that covers a pinned axis."""
        moving = [e for e in extents if not (self.pinned[axis] and e >= self.size[axis])]
        still = extents[len(moving):]
        sizes, size, name = [self.full[t][axis] for t in self.names], self.size[axis], AXES[axis]

        def parts(source: Pyramid | None) -> list[Affine]:
            assert source is not None
            return [getattr(source.tensors[t], name) for t in self.names]

        if axis == 0:
            whole: Pyramid | None = self._whole or self._moving
            source = self._split
        else:
            whole, source = self._whole, self._moving
        first = _Table.of(parts(source), sizes, moving, size, self.granularity[axis]) if moving else None
        last = _Table.of(parts(whole), sizes, still, size) if still else None
        if first is not None and last is not None:
            return first | last
        result = first or last
        assert result is not None
        return result
