"""Which tile a chain gets, and which of its inputs are copied into scratch: the fastest by the time model.

In: a chain, a device, the sizes planned for. Out: a Schedule, or two of them for different batch sizes. Candidates are judged
many at a time (`boxes.Family`, `timing`): first a coarse grid of tile extents, then the neighbourhood of its best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from types import UnionType

import numpy as np

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.plan.boxes import Boxes, Family
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.counting import BYTES, Ints
from fusec.plan.scratch import peak_stage, scratch_elements
from fusec.plan.timing import time_of
from fusec.schedule.ir import Chain, Layout, Schedule, Tile
from fusec.targets.device import Device

LARGEST_SIDE = 256  # pixels of a tile along an axis whose size is open
CHANNEL_TILES = (8, 16, 32, 64, 128, 256)
IMAGE_TILES = (1, 2, 4, 8, 16, 32)
POINTWISE = (L.GlobalAvgPool2d, L.Flatten, L.Activation, L.Add, L.Mul, L.Concat)
KIB = 1024


@dataclass(frozen=True, eq=False)
class Planned:
    """A schedule, the number of tiles from which on it is the one to run, and the number it was planned for (None: many)."""

    schedule: Schedule
    min_blocks: int = 0
    tiles: int | None = None


@dataclass(frozen=True)
class Choice:
    """The best tile found, its staged inputs, and the seconds the model expects."""

    tile: Tile
    staged: tuple[str, ...]
    seconds: float


def plan(chain: Chain, device: Device, nominal: Nominal) -> Schedule:
    """The fastest schedule of `chain` by the time model, for the largest nominal batch.

    Raises
    ------
    Infeasible
        No tile fits; names the tightest limit.
    """
    choice = Search(chain, device, nominal).best(nominal.batch)
    return construct(chain, choice.tile, device, choice.staged)


def variants(chain: Chain, device: Device, nominal: Nominal) -> tuple[Planned, ...]:
    """The best schedule for each nominal batch, the one for the largest batch first, without repetition.

    A caller runs the first one whose `min_blocks` its own number of tiles reaches; the last one's is 0. The number is that of
    the smallest batch from which on the model prefers the schedule to the next.

    Raises
    ------
    Infeasible
        No tile fits; names the tightest limit.
    """
    search = Search(chain, device, nominal)
    choices = [search.best(batch) for batch in nominal.batches]
    new = [i for i, c in enumerate(choices) if all((c.tile, c.staged) != (d.tile, d.staged) for d in choices[:i])]
    kept = [choices[i] for i in new]
    limits = [*(_min_blocks(search, a, b, nominal.batch) for a, b in pairwise(kept)), 0]
    many = len(nominal.batches) > 1  # then the first one serves every larger batch too
    return tuple(Planned(construct(chain, c.tile, device, c.staged), n,
                         None if many and i == 0 else search.tiles(c, nominal.batches[i]))
                 for i, c, n in zip(new, kept, limits, strict=True))


def _min_blocks(search: Search, large: Choice, small: Choice, most: int) -> int:
    """Tiles of `large` at the smallest batch (a power of two) from which on it is not slower than `small`."""
    batch = most
    while batch > 1 and search.seconds(large, batch // 2) <= search.seconds(small, batch // 2):
        batch //= 2
    return search.tiles(large, batch)


class Search:
    """All candidates of one chain on one device.

    Raises
    ------
    Infeasible
        No tile whatever can be computed by independent blocks.
    """

    def __init__(self, chain: Chain, device: Device, nominal: Nominal) -> None:
        self.chain, self.device = chain, device
        self.family = Family(chain, sizes_of(chain.graph, nominal))
        self.staging = staging_options(chain, device)
        self.limit = device.scratch_per_block
        self.hard = device.target != "cpu" or len(chain.names) > 1  # on a CPU scratch is memory, only slower beyond the cache

    def best(self, batch: int) -> Choice:
        """The fastest candidate for `batch` images; Infeasible when none fits."""
        sides = [self._coarse(axis) for axis in (1, 2)]
        found = self._fastest(self._channel_tiles(), sides, IMAGE_TILES, batch)
        if found is None:
            raise Infeasible(self._tightest(batch))
        tile = found.tile
        sides = [self._fine(axis, side) for axis, side in ((1, tile.height), (2, tile.width))]
        finer = self._fastest((tile.channels,), sides, (tile.images,), batch)
        return finer if finer is not None and finer.seconds < found.seconds else found

    def seconds(self, choice: Choice, batch: int) -> float:
        """What the model expects of a candidate at another batch size."""
        boxes = self._boxes([choice.tile], batch)
        scratch = BYTES * scratch_elements(self.chain, boxes, choice.staged, self.device)
        return float(time_of(self.chain, boxes, choice.staged, scratch, self.device).seconds[0])

    def tiles(self, choice: Choice, batch: int) -> int:
        """Blocks a candidate makes at another batch size."""
        return int(self._boxes([choice.tile], batch).tiles[0])

    def feasible(self) -> bool:
        """Whether any of the coarse candidates fits, without asking how fast it is."""
        boxes = self._boxes(list(self._tiles(self._channel_tiles(), [self._coarse(1)[:2], self._coarse(2)[:2]], (1,))), 1)
        return any(bool(self._fits(BYTES * scratch_elements(self.chain, boxes, s, self.device)).any()) for s in self.staging) \
            if len(boxes.images) else False

    def _fits(self, scratch: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray(scratch <= self.limit) if self.hard else np.ones(len(scratch), dtype=np.bool_)

    def _fastest(self, channels: Sequence[int], sides: Sequence[Sequence[int]], images: Sequence[int],
                 batch: int) -> Choice | None:
        candidates = list(self._tiles(channels, sides, tuple(n for n in images if n <= batch) or (1,)))
        best: Choice | None = None
        if not candidates:
            return None
        boxes = self._boxes(candidates, batch)
        for staged in self.staging:
            scratch = BYTES * scratch_elements(self.chain, boxes, staged, self.device)
            seconds = np.where(self._fits(scratch), time_of(self.chain, boxes, staged, scratch, self.device).seconds, np.inf)
            i = int(np.argmin(seconds))
            if np.isfinite(seconds[i]) and (best is None or seconds[i] < best.seconds):
                best = Choice(candidates[i], staged, float(seconds[i]))
        return best

    def _tiles(self, channels: Iterable[int], sides: Sequence[Sequence[int]], images: Sequence[int]) -> Iterable[Tile]:
        """Several images share a tile only when it covers the whole of a pinned image."""
        for c, y, x in product(channels, *sides):
            whole = all(self.family.pinned[a] and e >= self.family.size[a] for a, e in ((1, y), (2, x)))
            for n in images if whole else (1,):
                yield Tile(n, c, y, x)

    def _boxes(self, tiles: Sequence[Tile], batch: int) -> Boxes:
        """Boxes of many tiles; each axis is worked out once per extent."""
        columns = [[t.channels for t in tiles], [t.height for t in tiles], [t.width for t in tiles]]
        extents = [sorted(set(c)) for c in columns]
        picks = [np.searchsorted(np.array(e), np.array(c)) for e, c in zip(extents, columns, strict=True)]
        images = np.minimum(np.array([t.images for t in tiles], dtype=np.int64), batch)
        return self.family.boxes(extents, picks, images, batch)

    def _channel_tiles(self) -> tuple[int, ...]:
        """All channels, and the largest divisors up to some powers of two: tiles of a channel axis are equal."""
        size = self.family.size[0]
        parts = dict.fromkeys(max(c for c in range(1, min(most, size) + 1) if size % c == 0) for most in CHANNEL_TILES)
        return (size, *(c for c in parts if 4 <= c < size and self.family.allows(0, c)))

    def _coarse(self, axis: int) -> list[int]:
        """Powers of two, halves and thirds of the size (all multiples of the granularity), and a pinned axis as a whole."""
        size, g = self.family.size[axis], self.family.granularity[axis]
        powers = [g << k for k in range(9) if (g << k) < size + g]
        parts = [-(-size // (g * n)) * g for n in (1, 2, 3, 4)]
        return self._allowed(axis, [*powers, *parts, size])

    def _fine(self, axis: int, side: int) -> list[int]:
        """Eighths around `side`, and the extents that divide the axis into equal tiles there."""
        size, g = self.family.size[axis], self.family.granularity[axis]
        eighths = [max(1, round(side * k / 8 / g)) * g for k in (5, 6, 7, 8, 9, 10, 12, 14)]
        count = -(-size // side)
        parts = [-(-size // (g * n)) * g for n in range(max(1, count - 2), count + 3)]
        return self._allowed(axis, [*eighths, *parts, side])

    def _allowed(self, axis: int, extents: Iterable[int]) -> list[int]:
        size, pinned = self.family.size[axis], self.family.pinned[axis]
        kept = {min(e, size) if pinned else e for e in extents}
        most = size if pinned else max(LARGEST_SIDE, self.family.granularity[axis])
        return sorted(e for e in kept if e <= most and self.family.allows(axis, e))

    def _tightest(self, batch: int) -> str:
        """The message of an infeasible chain: what its smallest tile would take."""
        tiles = list(self._tiles(self._channel_tiles(), [self._coarse(1), self._coarse(2)], (1,)))
        if not tiles:
            return f"no tile of chain {self.chain} has whole origins"
        boxes = self._boxes(tiles, batch)
        options = [(int(taken.min()), int(taken.argmin()), staged) for staged in self.staging
                   for taken in (scratch_elements(self.chain, boxes, staged, self.device),)]
        least, i, staged = min(options, key=lambda o: o[0])
        where = peak_stage(self.chain, self._boxes([tiles[i]], batch), staged, self.device)
        return (f"scratch {-(-least * BYTES // KIB)} KiB > {self.limit // KIB} KiB at {where}: "
                f"the smallest tile of chain {self.chain} does not fit {self.device.name}")


def staging_options(chain: Chain, device: Device) -> list[tuple[str, ...]]:
    """Sets of chain inputs worth copying into scratch.

    A tensor whose whole image is read and whose size is open cannot be copied. With NHWC scratch every other input is,
    unless all its readers take each value once; with NCHW the choice is all, those read by windows, or none.
    """
    readers = {t: [n.layer for n in chain.nodes if t in n.inputs] for t in chain.inputs}
    def any_of(tensor: str, kinds: type[L.Layer] | UnionType) -> bool:
        return any(isinstance(r, kinds) for r in readers[tensor])

    allowed = [t for t in chain.inputs if chain.shapes[t].pinned or not any_of(t, L.GlobalAvgPool2d | L.Flatten)]
    if device.layout is Layout.NHWC:
        return [tuple(t for t in allowed if not all(isinstance(r, POINTWISE) for r in readers[t]))]
    windowed = tuple(t for t in allowed if any_of(t, L.Windowed))
    return list(dict.fromkeys(((), windowed, tuple(allowed))))
