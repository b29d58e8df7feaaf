"""Elements, widths of text and scales."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fusec.explain.svg import Scale, clean, element, number, round_step, shortened, text_width

POSITIVE = st.floats(1e-3, 1e12)


@given(st.text())
def test_any_text_survives_the_way_through_xml(words: str) -> None:
    made = element("text", words, data_name=words)
    again = ElementTree.fromstring(ElementTree.tostring(made, encoding="unicode"))
    assert (again.text or "") == clean(words)
    assert again.get("data-name", "") == clean(words)


def test_control_characters_are_replaced() -> None:
    assert clean("a\x00b\x1b\n\ud800é") == "a\ufffdb\ufffd\ufffd\ufffdé"


@pytest.mark.parametrize(("value", "words"), [
    (1.0, "1"), (-0.001, "0"), (12.346, "12.35"), (0.5, "0.5"), (100, "100"), ("x", "x")])
def test_numbers_are_short(value: str | float, words: str) -> None:
    assert number(value) == words


@given(st.text(min_size=1, max_size=80), st.floats(20, 400))
def test_shortened_text_fits(words: str, width: float) -> None:
    short = shortened(words, width)
    assert text_width(short) <= width
    assert short == words or "…" in short


@given(POSITIVE, POSITIVE, st.booleans(), st.floats(0, 1))
def test_scales_keep_order_and_ends(one: float, other: float, logarithmic: bool, share: float) -> None:
    assume(abs(one - other) > 1e-6 * max(one, other))
    low, high = sorted((one, other))
    scale = Scale(low, high, 40, 740, logarithmic)
    middle = low + share * (high - low)
    assert scale(low) == pytest.approx(40)
    assert scale(high) == pytest.approx(740)
    assert 40 - 1e-6 <= scale(middle) <= 740 + 1e-6


def test_equal_steps_are_equally_long() -> None:
    even, powers = Scale(0, 10, 0, 100), Scale(1, 1000, 0, 300, True)
    assert even(5) - even(3) == pytest.approx(even(9) - even(7))
    assert powers(100) - powers(10) == pytest.approx(powers(1000) - powers(100)) == pytest.approx(100)


@given(st.floats(1, 1e6), st.floats(1.5, 1e6), st.booleans(), st.integers(2, 9))
def test_ticks_lie_within_and_are_few(low: float, factor: float, logarithmic: bool, most: int) -> None:
    scale = Scale(low, low * factor, 0, 1, logarithmic)
    ticks = scale.ticks(most)
    assert len(ticks) <= most + 1
    assert all(low * (1 - 1e-6) <= t <= low * factor * (1 + 1e-6) for t in ticks)


@given(st.floats(1e-3, 1e15), st.sampled_from([10.0, 1024.0]))
def test_steps_are_round_and_just_large_enough(least: float, base: float) -> None:
    step = round_step(least, base)
    factor = step / base ** math.floor(math.log(step, base) + 1e-9)
    assert any(math.isclose(factor, f) for f in ((1, 2, 5) if base == 10 else [2 ** i for i in range(10)]))
    assert least * (1 - 1e-6) <= step < least * 2.6
