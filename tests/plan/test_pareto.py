"""Partitions of tables of groups: counting, listing and dynamic programming against their definitions."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.plan.groups import GroupFigures, Members
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

Table = dict[Members, GroupFigures]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, int]:
    """Few different figures, so that many partitions tie; every layer alone is legal, other intervals at times."""
    layers = draw(st.integers(1, 8))
    small = st.integers(0, 4)
    made = {}
    for first, end in combinations(range(layers + 1), 2):
        if end == first + 1 or draw(st.integers(0, 4)):
            group = tuple(range(first, end))
            made[group] = GroupFigures(group, draw(small), draw(small), 0, 0, draw(small), 1)
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
        groups = [tuple(range(*p)) for p in parts]
        if all(g in table for g in groups):
            wanted.append(tuple(table[g] for g in groups))
    assert len(found) == len(wanted) == count(table, layers)
    assert set(found) == set(wanted)


@given(legal=st.integers(1, 5).flatmap(lambda n: st.tuples(
    st.just(n), st.sets(st.frozensets(st.integers(0, n - 1), min_size=1)))))
def test_every_partition_into_any_groups(legal: tuple[int, set[frozenset[int]]]) -> None:
    """Against all ways to give each layer the number of a group."""
    layers, sets = legal
    sets = sets | {frozenset([i]) for i in range(layers)}
    table = {g: GroupFigures(g, 0, 0, 0, 0, 0, 1) for g in (tuple(sorted(s)) for s in sets)}
    found = [frozenset(frozenset(g.layers) for g in p) for p in every(table, layers)]
    ways = ({frozenset(i for i in range(layers) if numbers[i] == n) for n in numbers}
            for numbers in product(range(layers), repeat=layers))
    assert len(found) == len(set(found))
    assert set(found) == {frozenset(groups) for groups in ways if groups <= sets}


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
