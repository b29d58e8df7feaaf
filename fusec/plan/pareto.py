"""Partitions of layers into groups: counted, listed, or the best ones found without listing.

In: a table of the groups that are legal, by their layers; each layer alone is one. Out: partitions as tuples of groups, each
behind those it reads. A partition moves the bytes of its groups together and needs the buffers of the largest one. Counting and
dynamic programming are for tables of intervals.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from fusec.plan.groups import GroupFigures, Members

Table = Mapping[Members, GroupFigures]
Partition = tuple[GroupFigures, ...]


def total_bytes(partition: Partition) -> int:
    return sum(g.bytes_moved for g in partition)


def total_extra(partition: Partition) -> int:
    return sum(g.extra_multiply_adds for g in partition)


def largest_buffer(partition: Partition) -> int:
    return max(g.buffer_bytes for g in partition)


def count(table: Table, layers: int) -> int:
    """How many partitions into intervals there are: 2 ** (layers - 1) where every interval is legal."""
    ways, ending = [1], _by_last(table)
    for last in range(layers):
        ways.append(sum(ways[group.first] for group in ending[last]))
    return ways[-1]


def every(table: Table, layers: int) -> Iterator[Partition]:
    """All partitions, of any groups: the last layer that is left can only be the last of its group."""
    ending = {last: [(group, frozenset(group.layers)) for group in found] for last, found in _by_last(table).items()}
    partial: list[tuple[frozenset[int], Partition]] = [(frozenset(range(layers)), ())]
    while partial:
        left, groups = partial.pop()
        if not left:
            yield groups
            continue
        partial += [(left - members, (group, *groups)) for group, members in ending[max(left)] if members <= left]


def _by_last(table: Table) -> Mapping[int, list[GroupFigures]]:
    """The groups by their last layer."""
    ending = defaultdict(list)
    for group in table.values():
        ending[group.last].append(group)
    return ending


def front(partitions: Sequence[Partition]) -> list[int]:
    """Indices of the partitions of the Pareto front, by bytes moved: no other moves fewer bytes without larger buffers.

    Of several with the same two figures it is the one with the least extra work, then the fewest groups, then the first.
    """
    keys = [(total_bytes(p), largest_buffer(p), total_extra(p), len(p), i) for i, p in enumerate(partitions)]
    found: list[int] = []
    least: int | None = None
    for _, buffer, _, _, index in sorted(keys):
        if least is None or buffer < least:
            found.append(index)
            least = buffer
    return found


def least_bytes(table: Table, layers: int, limit: int) -> Partition | None:
    """The partition into intervals that moves the fewest bytes with buffers up to `limit`; None where there is none.

    Of several, the one with the least extra work, then the fewest groups. By dynamic programming.
    """
    best: list[tuple[tuple[int, int, int], int] | None] = [((0, 0, 0), 0)]  # bytes, extra, groups up to an end; the last start
    ending = _by_last(table)
    for last in range(layers):
        options = []
        for group in ending[last]:
            before = best[group.first]
            if before is not None and group.buffer_bytes <= limit:
                moved, extra, groups = before[0]
                options.append(((moved + group.bytes_moved, extra + group.extra_multiply_adds, groups + 1), group.first))
        best.append(min(options, default=None))
    groups_found: list[GroupFigures] = []
    end = layers
    while end:
        step = best[end]
        if step is None:
            return None
        groups_found.append(table[tuple(range(step[1], end))])
        end = step[1]
    return tuple(reversed(groups_found))


def front_of_all(table: Table, layers: int) -> list[Partition]:
    """The Pareto front of all partitions into intervals without listing them, by bytes moved.

    The largest buffer of a partition is that of one of its groups, so only those limits matter; the bytes fall as they rise.
    """
    limits = sorted({g.buffer_bytes for g in table.values()})
    found: list[Partition] = []
    while limits and (best := least_bytes(table, layers, limits[-1])) is not None:
        least = total_bytes(best)

        def reaches(limit: int, least: int = least) -> bool:
            within = least_bytes(table, layers, limit)
            return within is not None and total_bytes(within) == least

        enough = bisect_left(limits, True, key=reaches)
        tightest = least_bytes(table, layers, limits[enough])
        assert tightest is not None
        found.append(tightest)
        limits = limits[:enough]
    return found
