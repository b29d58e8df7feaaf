"""Places in scratch: never on top of each other, as low as what is alive wherever layers follow one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.graph import layers as L
from fusec.plan.placement import ALIGN as ALIGN_BYTES
from fusec.plan.placement import Life, lives, offsets, phases
from fusec.schedule.ir import Chain
from fusec.schedule.verify import verify
from fusec.targets.device import DEVICES, generic_host
from tests.plan.networks import vgg_prefix
from tests.small_networks import conv, max_pool, network, schedule_of, whole_chain

ALIGN = ALIGN_BYTES // 4  # elements of float32


def up(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def placed(spans: Sequence[Life], sizes: Sequence[int]) -> list[int]:
    return [int(o[0]) for o in offsets(spans, [np.array([s], dtype=np.int64) for s in sizes], 4)]


def height(spans: Sequence[Life], sizes: Sequence[int]) -> int:
    return max(o + up(s) for o, s in zip(placed(spans, sizes), sizes, strict=True))


def alive(spans: Sequence[Life], sizes: Sequence[int]) -> int:
    """What no placement can do without."""
    return max(sum(up(s) for life, s in zip(spans, sizes, strict=True) if life.first <= step <= life.last)
               for step in range(1 + max(life.last for life in spans)))


def first_fit(spans: Sequence[Life], sizes: Sequence[int]) -> int:
    """The lowest address free, one after the other, tried one by one."""
    taken: list[range] = []
    for i, (life, size) in enumerate(zip(spans, sizes, strict=True)):
        rivals = [taken[j] for j in range(i) if spans[j].first <= life.last and life.first <= spans[j].last]
        start = next(o for o in range(0, 1 << 20, ALIGN) if all(o + up(size) <= r.start or r.stop <= o for r in rivals))
        taken.append(range(start, start + up(size)))
    return max(r.stop for r in taken)


@st.composite
def spans_and_sizes(draw: st.DrawFn) -> tuple[list[Life], list[list[int]]]:
    """Lives in the order of birth, one or two born in a step, and three sizes for each."""
    found: list[Life] = []
    for step in range(draw(st.integers(1, 8))):
        for _ in range(draw(st.integers(1, 2))):
            found.append(Life(f"t{len(found)}", step, step + draw(st.sampled_from((0, 1, 1, 1, 2, 4)))))
    n = len(found)
    return found, [draw(st.lists(st.integers(1, 300), min_size=n, max_size=n)) for _ in range(3)]


@given(case=spans_and_sizes())
def test_places_are_right_and_never_worse_than_first_fit(case: tuple[list[Life], list[list[int]]]) -> None:
    spans, columns = case
    for sizes in columns:
        places = placed(spans, sizes)
        assert all(p >= 0 and p % ALIGN == 0 for p in places)
        for j, (life, place, size) in enumerate(zip(spans, places, sizes, strict=True)):
            for other, start, length in list(zip(spans, places, sizes, strict=True))[:j]:
                apart = life.first > other.last or other.first > life.last
                assert apart or place + size <= start or start + length <= place
        assert alive(spans, sizes) <= height(spans, sizes) <= first_fit(spans, sizes)


@given(case=spans_and_sizes())
def test_many_tiles_are_placed_one_by_one(case: tuple[list[Life], list[list[int]]]) -> None:
    spans, columns = case
    together = offsets(spans, [np.array(s, dtype=np.int64) for s in zip(*columns, strict=True)], 4)
    for k, sizes in enumerate(columns):
        assert [int(o[k]) for o in together] == placed(spans, sizes)


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=12))
def test_a_sequence_of_layers_takes_what_is_alive(sizes: list[int]) -> None:
    """Each is read by the next alone, whatever the sizes: two lie at the two ends in turns."""
    spans = [Life(f"t{i}", i, i + 1) for i in range(len(sizes))]
    assert height(spans, sizes) == alive(spans, sizes)


def test_tensors_that_grow() -> None:
    """First fit would put the third on top of the second, as the place of the first is too small for it."""
    spans, sizes = [Life("a", 0, 1), Life("b", 1, 2), Life("c", 2, 3)], [16, 32, 48]
    assert first_fit(spans, sizes) == 96
    assert height(spans, sizes) == 80


def test_no_tensor_at_all() -> None:
    assert offsets([], [], 4) == []


@pytest.mark.parametrize("device", [DEVICES["h200"], generic_host(8)], ids=["NCHW", "NHWC"])
def test_schedules_of_growing_layers(device) -> None:  # type: ignore[no-untyped-def]
    graph = network(L.Input(4), a=conv(8), b=conv(16), c=conv(32), d=conv(48), e=conv(8))
    schedule = schedule_of(graph, 8, 8, device=device)
    verify(schedule)
    c, d = (b.size for b in schedule.buffers if b.name in "cd")
    assert schedule.scratch_bytes == 4 * (c + d)


def test_steps_and_lives() -> None:
    """A convolution and the pool behind it share a step; what the first reads lives through it, as what the second makes."""
    graph = network(L.Input(3), a=conv(4), p=max_pool(2, 2), b=conv(4), s=(L.Add(), "p", "b"))
    chain = whole_chain(graph)
    assert phases(chain, ("x",)) == [("x",), ("a", "p"), ("b",), ("s",)]
    assert lives(chain, ("x",)) == [Life("x", 0, 1), Life("p", 1, 3), Life("b", 2, 3)]
    assert phases(chain, ()) == [("a", "p"), ("b",), ("s",)]
    assert lives(chain, ()) == [Life("p", 0, 2), Life("b", 1, 2)]


def test_one_stage_has_nothing_to_place() -> None:
    assert lives(Chain(vgg_prefix(), ("conv1_1",)), ()) == []
