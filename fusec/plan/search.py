"""Which tile a chain gets, how its overlap is treated, which inputs are copied into scratch: the fastest by the time model.

In: a chain, a device, the sizes planned for. Out: a Schedule, or two of them for different batch sizes. Candidates are judged
many at a time (`boxes.Family`, `timing`): first a coarse grid of tile extents, then the neighbourhood of its best; tiles whose
overlap is recomputed, and strips that a block walks down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from types import UnionType
from typing import Any

import numpy as np

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.limits import MAX_EXTENT
from fusec.plan.boxes import Boxes, Family
from fusec.plan.construct import construct
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.counting import Ints
from fusec.plan.placement import lives
from fusec.plan.scratch import peak_stage, resident_bytes, scratch_elements
from fusec.plan.timing import time_of
from fusec.schedule.ir import Chain, Layout, Schedule, Tile
from fusec.targets.device import Device

LARGEST_SIDE = 256  # pixels of a tile along an axis whose size is open
CHANNEL_TILES = (8, 16, 32, 64, 128, 256)
IMAGE_TILES = (1, 2, 4, 8, 16, 32)
LONGEST_STEP = 32  # rows of a step
STRIPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # of an image, one above the other
POINTWISE = (L.GlobalPool2d, L.Flatten, L.Activation, L.Elementwise, L.Concat, L.SpaceToDepth, L.SliceChannels, L.Crop, L.Pad)
REFINED = 1.3  # a coarse grid whose best takes as many times that of the other kind's, tiles or strips, is not made finer
KIB = 1024


@dataclass(frozen=True, eq=False)
class Planned:
    """A schedule, the number of tiles from which on it is the one to run, and the number it was planned for (None: many)."""

    schedule: Schedule
    min_blocks: int = 0
    tiles: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A tile, and the rows of a step where it is a strip."""

    tile: Tile
    step: int | None = None


@dataclass(frozen=True)
class Choice:
    """The best candidate found, its staged inputs, and the seconds the model expects."""

    candidate: Candidate
    staged: tuple[str, ...]
    seconds: float

    @property
    def decision(self) -> tuple[Candidate, tuple[str, ...]]:
        """All that makes the schedule."""
        return self.candidate, self.staged


def plan(chain: Chain, device: Device, nominal: Nominal) -> Schedule:
    """The fastest schedule of `chain` by the time model, for the largest nominal batch.

    Raises
    ------
    Infeasible
        No tile fits; names the tightest limit.
    """
    return _schedule(chain, device, Search(chain, device, nominal).best(nominal.batch))


def _schedule(chain: Chain, device: Device, choice: Choice) -> Schedule:
    return construct(chain, choice.candidate.tile, device, choice.staged, choice.candidate.step)


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
    new = [i for i, c in enumerate(choices) if c.decision not in [d.decision for d in choices[:i]]]
    kept = [choices[i] for i in new]
    limits = [*(_min_blocks(search, a, b, nominal.batch) for a, b in pairwise(kept)), 0]
    many = len(nominal.batches) > 1  # then the first one serves every larger batch too
    return tuple(Planned(_schedule(chain, device, c), n, None if many and i == 0 else search.tiles(c, nominal.batches[i]))
                 for i, c, n in zip(new, kept, limits, strict=True))


def _min_blocks(search: Search, large: Choice, small: Choice, most: int) -> int:
    """Tiles of `large` at the smallest batch (a power of two) from which on it is not slower than `small`."""
    batch = most
    while batch > 1 and search.seconds(large, batch // 2) <= search.seconds(small, batch // 2):
        batch //= 2
    return search.tiles(large, batch)


def _improved(found: list[Choice], finer: list[Choice]) -> list[Choice]:
    """`found` with the best of a finer grid before it, where that is faster."""
    return [*finer, *found] if finer and finer[0].seconds < found[0].seconds else found


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
        self.limit, self.resident = device.scratch_per_block, resident_bytes(chain, device)
        self.hard = device.target != "cpu" or len(chain.names) > 1  # on a CPU scratch is memory, only slower beyond the cache

    def best(self, batch: int) -> Choice:
        """The fastest candidate for `batch` images; Infeasible when none fits."""
        return self.ranked(batch, 1)[0]

    def ranked(self, batch: int, count: int) -> tuple[Choice, ...]:
        """The fastest candidates for `batch` images, `count` in all; Infeasible when none fits.

        The best tile and the best strip come first, then others of the coarse grids: those are far enough apart to be worth
        trying where the model may err, and neighbours of the best are not.
        """
        tiles, strips = self._coarse_tiles(batch, count), self._coarse_strips(batch, count)
        limit = REFINED * min((c[0].seconds for c in (tiles, strips) if c), default=0.0)
        if tiles and tiles[0].seconds <= limit:
            tiles = _improved(tiles, self._finer_tiles(tiles[0].candidate.tile, batch))
        if strips and strips[0].seconds <= limit:
            strips = _improved(strips, self._finer_strips(strips[0].candidate, batch))
        found = [c for c in (tiles, strips) if c]
        if not found:
            raise Infeasible(self._tightest(batch))
        first, rest = [c[0] for c in found], [c for choices in found for c in choices[1:]]
        return tuple(c for choices in (first, rest) for c in sorted(choices, key=lambda c: c.seconds))[:count]

    def _coarse_tiles(self, batch: int, count: int) -> list[Choice]:
        images = tuple(n for n in IMAGE_TILES if n <= batch) or (1,)
        return self._fastest(self._tiles(self._channel_tiles(), [self._coarse(axis) for axis in (1, 2)], images), batch, count)

    def _finer_tiles(self, tile: Tile, batch: int) -> list[Choice]:
        """The fastest tile in the neighbourhood of `tile`."""
        sides = [self._fine(axis, side) for axis, side in ((1, tile.height), (2, tile.width))]
        return self._fastest(self._tiles((tile.channels,), sides, (tile.images,)), batch)

    def _coarse_strips(self, batch: int, count: int) -> list[Choice]:
        """The fastest strips; none where nothing is gained by walking, whatever the steps."""
        grain = self.family.granularity[1]
        steps = [grain << k for k in range(6) if grain << k <= max(LONGEST_STEP, grain)]
        return self._fastest(self._strips(steps, STRIPS, self._coarse(2)), batch, count)

    def _finer_strips(self, best: Candidate, batch: int) -> list[Choice]:
        """The fastest strip in the neighbourhood of `best`."""
        grain, tile, step = self.family.granularity[1], best.tile, best.step
        assert step is not None
        strips = -(-self.family.size[1] // tile.height)
        steps = [step * k // 8 // grain * grain for k in (5, 6, 7, 8, 10, 12)]
        return self._fastest(self._strips(steps, range(max(1, strips - 2), strips + 3), self._fine(2, tile.width)), batch)

    def seconds(self, choice: Choice, batch: int) -> float:
        """What the model expects of a candidate at another batch size."""
        boxes = self._boxes([choice.candidate], batch)
        scratch = self._scratch(boxes, choice.staged)
        return float(time_of(self.chain, boxes, choice.staged, scratch, self.device).seconds[0])

    def tiles(self, choice: Choice, batch: int) -> int:
        """Blocks a candidate makes at another batch size."""
        return int(self._boxes([choice.candidate], batch).tiles[0])

    def feasible(self) -> bool:
        """Whether any of the coarse candidates fits, without asking how fast it is."""
        return any(bool(self._fits(self._scratch(boxes, staged)).any())
                   for boxes, staged in self._smallest(1))

    def _smallest(self, batch: int) -> Iterator[tuple[Boxes, tuple[str, ...]]]:
        """Small tiles, then small strips, with every choice of staged inputs."""
        tiles = list(self._tiles(self._channel_tiles(), [self._coarse(1)[:2], self._coarse(2)[:2]], (1,)))
        strips = list(self._strips([self.family.granularity[1]], (1,), self._coarse(2)[:2]))
        for candidates in (c for c in (tiles, strips) if c):
            boxes = self._boxes(candidates, batch)
            yield from ((boxes, staged) for staged in self.staging)

    def _scratch(self, boxes: Boxes, staged: Collection[str], limit: int | None = None) -> Ints:
        """(N,) bytes of scratch one block needs for its buffers; beyond the limit at least so many."""
        element = self.device.element
        return element * scratch_elements(self.chain, boxes, staged, self.device, None if limit is None else limit // element)

    def _fits(self, scratch: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray(scratch + self.resident <= self.limit) if self.hard else np.ones(len(scratch), dtype=np.bool_)

    def _fastest(self, tried: Iterable[Candidate], batch: int, count: int = 1) -> list[Choice]:
        """The `count` fastest of some tiles, or of some strips, with their choices of staged inputs, the fastest first."""
        candidates = list(tried)
        found: list[Choice] = []
        if not candidates:
            return found
        boxes = self._boxes(candidates, batch)
        for staged in self.staging:
            if boxes.folded and not self._keeps_rows(boxes.folded, staged):
                continue
            scratch = self._scratch(boxes, staged, self.limit if self.hard else None)
            fits = self._fits(scratch)
            if not fits.any():
                continue
            seconds = np.where(fits, time_of(self.chain, boxes, staged, scratch, self.device).seconds, np.inf)
            order = np.argsort(seconds, kind="stable")[:count]
            found += [Choice(candidates[i], staged, float(seconds[i])) for i in order if np.isfinite(seconds[i])]
        return sorted(found, key=lambda c: c.seconds)[:count]

    def _keeps_rows(self, folded: Collection[str], staged: Collection[str]) -> bool:
        """Whether anything in scratch is kept from one step of a strip to the next."""
        return any(life.tensor in folded for life in lives(self.chain, staged))

    def _tiles(self, channels: Iterable[int], sides: Sequence[Sequence[int]], images: Sequence[int]) -> Iterator[Candidate]:
        """Several images share a tile only when it covers the whole of a pinned image."""
        for c, y, x in product(channels, *sides):
            whole = all(self.family.pinned[a] and e >= self.family.size[a] for a, e in ((1, y), (2, x)))
            for n in images if whole else (1,):
                yield Candidate(Tile(n, c, y, x))

    def _strips(self, steps: Iterable[int], counts: Iterable[int], widths: Sequence[int]) -> Iterator[Candidate]:
        """Strips of all channels, of which `counts` make up an image's height, where they can be walked down."""
        size, grain = self.family.size[1], self.family.granularity[1]
        if not self.family.folded:
            return
        for step in sorted({s for s in steps if grain <= s < size}):
            for height in sorted({-(-size // (n * step)) * step for n in counts}):
                if step < height <= MAX_EXTENT:
                    yield from (Candidate(Tile(1, self.family.size[0], height, width), step) for width in widths)

    def _boxes(self, candidates: Sequence[Candidate], batch: int) -> Boxes:
        """Boxes of many tiles, or of many strips; each axis is worked out once per extent."""
        tiles = [c.tile for c in candidates]
        rows = [(c.tile.height, c.step or c.tile.height) for c in candidates]
        columns: list[list[Any]] = [[t.channels for t in tiles], rows, [t.width for t in tiles]]
        extents = [sorted(set(c)) for c in columns]
        places = [{e: i for i, e in enumerate(found)} for found in extents]
        picks = [np.array([place[e] for e in c]) for place, c in zip(places, columns, strict=True)]
        heights, steps = ([r[i] for r in extents[1]] for i in (0, 1))
        images = np.minimum(np.array([t.images for t in tiles], dtype=np.int64), batch)
        walked = candidates[0].step is not None
        return self.family.boxes([extents[0], heights, extents[2]], picks, images, batch, steps if walked else None)

    def _channel_tiles(self) -> tuple[int, ...]:
        """All channels, and the largest divisors up to some powers of two: tiles of a channel axis are equal."""
        size, block = self.family.size[0], self.device.layout.block
        parts = dict.fromkeys(max(c for c in range(1, min(most, size) + 1) if size % c == 0) for most in CHANNEL_TILES)
        return (size, *(c for c in parts if 4 <= c < size and c % block == 0 and self.family.allows(0, c)))

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
        options = [(int(taken.min()), int(taken.argmin()), boxes, staged) for boxes, staged in self._smallest(batch)
                   for taken in (self._scratch(boxes, staged),)]
        if not options:
            return f"no tile of chain {self.chain} has whole origins"
        least, i, boxes, staged = min(options, key=lambda o: o[0])
        where = peak_stage(self.chain, boxes, staged, self.device, i)
        return (f"scratch {-(-least // KIB)} KiB > {self.limit // KIB} KiB at {where}: "
                f"the smallest tile of chain {self.chain} does not fit {self.device.name}")


def staging_options(chain: Chain, device: Device) -> list[tuple[str, ...]]:
    """Sets of chain inputs worth copying into scratch.

    A tensor whose whole image is read and whose size is open cannot be copied. With NHWC scratch every other input is,
    unless all its readers take each value once; with NCHW the choice is all, those read by windows, or none.
    """
    readers = {t: [n.layer for n in chain.nodes if t in n.inputs] for t in chain.inputs}
    def any_of(tensor: str, kinds: type[L.Layer] | UnionType) -> bool:
        return any(isinstance(r, kinds) for r in readers[tensor])

    allowed = [t for t in chain.inputs if chain.shapes[t].pinned or not any_of(t, L.GlobalPool2d | L.Flatten)]
    if device.layout is Layout.NHWC:
        return [tuple(t for t in allowed if not all(isinstance(r, POINTWISE) for r in readers[t]))]
    windowed = tuple(t for t in allowed if any_of(t, L.Windowed))
    return list(dict.fromkeys(((), windowed, tuple(allowed))))
