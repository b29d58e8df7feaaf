"""Boxes of a tensor as plain ranges: what a footprint is for one tile, once its origin and the image's size are known.

In: a footprint, a tile's origin, a tensor's extents. Out: a `Box`. `verify` and `interpret` work on these.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusec.schedule.ir import Affine, Footprint

Extents = tuple[int, int, int]  # channels, height, width of one tensor, all known
AXES = ("c", "y", "x")


@dataclass(frozen=True)
class Box:
    """Channels, rows and columns [start, stop) of a tensor; positions outside the image are allowed."""

    c: range
    y: range
    x: range

    @property
    def ranges(self) -> tuple[range, range, range]:
        return self.c, self.y, self.x

    @property
    def shape(self) -> Extents:
        return len(self.c), len(self.y), len(self.x)

    @property
    def empty(self) -> bool:
        return 0 in self.shape

    def clip(self, extents: Extents) -> Box:
        """The part inside a tensor of `extents`."""
        return self.intersect(Box(*(range(n) for n in extents)))

    def intersect(self, other: Box) -> Box:
        """The common part; an axis without one is empty and starts where `self` starts or later."""
        return Box(*(_overlap(a, b) for a, b in zip(self.ranges, other.ranges, strict=True)))

    def covers(self, other: Box) -> bool:
        """Whether every position of `other` is one of this box."""
        return other.empty or all(within(b, a) for a, b in zip(self.ranges, other.ranges, strict=True))

    def slices(self, part: Box) -> tuple[slice, slice, slice]:
        """Where `part`, a box inside this one, lies in an array that holds this one."""
        c, y, x = (slice(p.start - r.start, p.stop - r.start) for p, r in zip(part.ranges, self.ranges, strict=True))
        return c, y, x

    def __str__(self) -> str:
        return ", ".join(f"{name} {r.start}..{r.stop - 1}" for name, r in zip(AXES, self.ranges, strict=True))


def box_at(footprint: Footprint, origin: Extents, extents: Extents) -> Box:
    """The box `footprint` covers for the tile whose first channel, row and column are `origin`.

    Raises
    ------
    ValueError
        The origin does not make the box whole.
    """
    return Box(*(span_at(getattr(footprint, a), o, n) for a, o, n in zip(AXES, origin, extents, strict=True)))


def span_at(affine: Affine, origin: int, extent: int) -> range:
    """One axis of `box_at`; a whole axis is [0, extent)."""
    if affine.extent is None:
        return range(extent)
    start = affine.start(origin)
    return range(start, start + affine.extent)


def within(part: range, whole: range) -> bool:
    """Whether every position of `part`, which is not empty, is one of `whole`; both have step 1."""
    return whole.start <= part.start and part.stop <= whole.stop


def _overlap(a: range, b: range) -> range:
    start = max(a.start, b.start)
    return range(start, max(start, min(a.stop, b.stop)))
