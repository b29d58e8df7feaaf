"""Labels cover nothing they must not."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from fusec.explain.labels import Box, along, around, place

FRAME = Box(0, 0, 400, 300)
POINTS = st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), max_size=25)


@given(POINTS, st.data())
def test_labels_keep_clear(points: list[tuple[float, float]], data: st.DataObject) -> None:
    wanted = [(p, data.draw(st.sampled_from(["1", "12 conv1_2", "3 a somewhat longer name"]))) for p in points]
    taken = [around(p, 4) for p in points] + along((0, 150), (400, 100))
    placed = place(wanted, taken, FRAME, 11, 4)
    assert all(label.box.within(FRAME) for label in placed)
    assert not any(label.box.meets(box) for label in placed for box in taken)
    assert not any(a.box.meets(b.box) for a, b in combinations(placed, 2))
    for label in placed:
        others = [other.box for other in placed if other is not label]
        assert not any(part.meets(box) for part in (along(*label.leader, 0.1) if label.leader else []) for box in others)


def test_where_there_is_room_a_label_stands_to_the_right() -> None:
    [label] = place([((100, 100), "name")], [], FRAME, 11, 4)
    assert label.leader is None
    assert label.at[0] > 104
    assert label.box.left < 112


def test_a_label_without_room_is_left_out() -> None:
    assert place([((100, 100), "name")], [FRAME], FRAME, 11, 4) == []
