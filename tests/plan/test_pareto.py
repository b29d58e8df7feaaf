"""Partitions of tables of groups: counting, listing and dynamic programming against their definitions."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.plan.groups import GroupFigures, Interval
from fusec.plan.pareto import (
    Partition,
    count,
    every,
    front,
    front_of_all,
    largest_buffer,
    least_bytes,
    total_bytes,
    total_extra,
)

Table = dict[Interval, GroupFigures]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, int]:
    """Few different figures, so that many partitions tie; every layer alone is legal, other groups at times."""
    layers = draw(st.integers(1, 8))
    small = st.integers(0, 4)
    made = {}
    for first, end in combinations(range(layers + 1), 2):
        if end == first + 1 or draw(st.integers(0, 4)):
            made[first, end] = GroupFigures(first, end - 1, draw(small), draw(small), 0, 0, draw(small), 1)
    return made, layers


def key(partition: Partition) -> tuple[int, int, int, int]:
    return total_bytes(partition), largest_buffer(partition), total_extra(partition), len(partition)


@given(case=tables())
def test_every_partition_comes_once(case: tuple[Table, int]) -> None:
    table, layers = case
    found = list(every(table, layers))
    wanted = []
    for cuts in (c for n in range(layers) for c in combinations(range(1, layers), n)):
        parts = list(zip((0, *cuts), (*cuts, layers), strict=True))
        if all(p in table for p in parts):
            wanted.append(tuple(table[p] for p in parts))
    assert len(found) == len(wanted) == count(table, layers)
    assert set(found) == set(wanted)


@given(case=tables())
def test_the_front_by_its_definition(case: tuple[Table, int]) -> None:
    table, layers = case
    partitions = list(every(table, layers))
    found = [partitions[i] for i in front(partitions)]
    pairs = {key(p)[:2] for p in partitions}
    undominated = {a for a in pairs if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in pairs)}
    assert {key(p)[:2] for p in found} == undominated
    assert len(found) == len(undominated)
    assert [key(p) for p in found] == sorted(min(k for k in map(key, partitions) if k[:2] == pair) for pair in undominated)


@settings(max_examples=200)
@given(case=tables())
def test_dynamic_programming_finds_the_same_front(case: tuple[Table, int]) -> None:
    table, layers = case
    partitions = list(every(table, layers))
    assert [key(p) for p in front_of_all(table, layers)] == [key(partitions[i]) for i in front(partitions)]


@settings(max_examples=200)
@given(case=tables(), limit=st.integers(-1, 5))
def test_least_bytes_within_a_limit(case: tuple[Table, int], limit: int) -> None:
    table, layers = case
    within = [(total_bytes(p), total_extra(p), len(p)) for p in every(table, layers) if largest_buffer(p) <= limit]
    found = least_bytes(table, layers, limit)
    assert (None if found is None else (total_bytes(found), total_extra(found), len(found))) == min(within, default=None)
    assert found is None or found in set(every(table, layers))
