"""Bars, roofline and Pareto front: lengths and places are those of the numbers."""

from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree

import pytest

from fusec.explain.bars import bars, rows_of
from fusec.explain.pareto import pareto, stairs
from fusec.explain.roofline import marks, peak, roofline
from fusec.targets.device import Device, in_precision
from tests.explain.reports import H200, drawings, parts, span, subject

LONG = pytest.param("mobilenet_v2", marks=pytest.mark.thorough)  # takes long to plan


def circles(drawing: ElementTree.Element, style: str) -> list[tuple[float, float]]:
    """Centres of the circles of a class, those of the legend left out."""
    plot = max(float(e.get("y1", 0)) for e in drawing.iter() if e.get("class") == "axis")
    found = [(float(e.get("cx", "")), float(e.get("cy", ""))) for e in drawing.iter("circle") if e.get("class") == style]
    return [(x, y) for x, y in found if y <= plot]


@pytest.mark.parametrize(("network", "most"), [("lenet5", None), ("vgg_e", None), ("vgg_e", 14), ("alexnet", 3)])
def test_bars_are_as_long_as_the_bytes(network: str, most: int | None) -> None:
    given = subject(network)
    rows = rows_of(given.report.chains, given.layerwise, most)
    assert len(rows) == min(len(given.report.chains), math.inf if most is None else most + 1)
    assert sum(r.fused for r in rows) == given.report.totals.bytes_fused
    assert sum(r.apart for r in rows) == given.layerwise.totals.bytes_fused
    assert sum(r.least for r in rows) == given.report.totals.bytes_unfused
    for drawing in drawings(bars(given.report, given.layerwise, "b", most)):
        drawn = {(int(e.get("data-bytes", 0)), span(e)[1]) for e in drawing.iter() if e.get("data-bytes")}
        assert {value for value, _ in drawn} == {v for r in rows for v in (r.fused, r.least)}
        value, length = max(drawn)
        assert all(width == pytest.approx(max(v * length / value, 1), abs=0.02) for v, width in drawn)


def test_a_rest_is_summed_up() -> None:
    given = subject("vgg_e")
    *named, rest = rows_of(given.report.chains, given.layerwise, 5)
    assert rest.name == f"the other {len(given.report.chains) - 5} chains"
    assert rest.least < given.report.totals.bytes_unfused
    assert rest.apart <= given.layerwise.totals.bytes_fused
    assert [int(r.name.split()[0]) for r in named] == sorted(int(r.name.split()[0]) for r in named)
    every = rows_of(given.report.chains, given.layerwise, None)
    assert min(r.least for r in named) >= max(r.least for r in every if r not in named)


@pytest.mark.parametrize("device", [H200, in_precision(H200, "float16")], ids=lambda d: d.dtype)
@pytest.mark.parametrize("network", ["lenet5", "vgg_e", LONG, "artcnn_c4f16"])
def test_no_chain_is_above_the_roof(network: str, device: Device) -> None:
    """Nor above the slope of the cache, which is the fastest that memory can be. In half precision it is that of the matrix
    units."""
    given = subject(network, device=device)
    found = marks(given.report, given.layerwise)
    assert [m.index for m in found] == [i for i, c in enumerate(given.report.chains) if c.multiply_adds]
    for mark in found:
        for intensity, rate in (mark.fused, mark.unfused):
            assert 0 < rate <= min(peak(device), intensity * device.cache_bandwidth)
        if mark.alone:
            assert mark.fused == pytest.approx(mark.unfused)
    assert peak(H200) == pytest.approx(66.9e12, rel=0.01)
    assert 5 * peak(H200) < peak(in_precision(H200, "float16")) < 989e12  # the data sheet's, dense


@pytest.mark.parametrize("network", ["lenet5", "vgg_e", LONG, "resnet18"])
def test_the_roofline_is_logarithmic_on_both_axes(network: str) -> None:
    given = subject(network)
    found = marks(given.report, given.layerwise)
    for drawing in drawings(roofline(given.report, given.layerwise, H200, "r")):
        drawn = circles(drawing, "dot")
        assert len(drawn) == len(found)
        for axis in (0, 1):
            for (one, at), (other, there) in itertools.combinations([(math.log10(m.fused[axis]), p[axis])
                                                                     for m, p in zip(found, drawn, strict=True)], 2):
                scale = abs(there - at) / abs(other - one) if abs(other - one) > 0.3 else None
                assert scale is None or scale == pytest.approx(_decade(drawing, axis), rel=0.01)
        assert len(circles(drawing, "dot-plain")) == sum(not m.alone for m in found)


def _decade(drawing: ElementTree.Element, axis: int) -> float:
    """Units between the ridge's corner and the end of the roof, by the powers of ten between them."""
    grid = sorted({float(e.get(("x1", "y1")[axis], "")) for e in drawing.iter("line") if e.get("class") == "grid"
                   and e.get(("x1", "y1")[axis]) == e.get(("x2", "y2")[axis])})
    return min(b - a for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize(("network", "fuse"), [("lenet5", "auto"), ("alexnet_prefix", "all"), ("vgg_e", "auto"),
                                               ("artcnn_c4f16", "all"), ("resnet18", "auto")])
def test_the_front_and_the_choice_lie_where_they_are(network: str, fuse: str) -> None:
    given = subject(network, fuse).exploration
    assert given is not None
    front = sorted(given.front, key=lambda p: p.buffer_bytes)
    for drawing in drawings(pareto(given, "p")):
        drawn = circles(drawing, "dot")
        assert len(drawn) == len(front)
        x = [(p.buffer_bytes, at[0]) for p, at in zip(front, drawn, strict=True)]
        y = [(p.bytes_moved, at[1]) for p, at in zip(front, drawn, strict=True)]
        for values in (x, y):
            (low, start), (high, end) = min(values), max(values)
            steps = [start + (end - start) * (value - low) / max(high - low, 1) for value, _ in values]
            assert [at for _, at in values] == pytest.approx(steps, abs=0.05)
        assert given.planned is not None
        [ring] = parts(drawing, "chosen")
        place = (given.planned.buffer_bytes, given.planned.bytes_moved)
        for (value, values), name in zip(zip(place, (x, y), strict=True), ("cx", "cy"), strict=True):
            (low, start), (high, end) = min(values), max(values)
            if high > low:
                assert float(ring.get(name, "")) == pytest.approx(start + (end - start) * (value - low) / (high - low), abs=0.5)


def test_the_planners_own_partition_has_its_figures_listed_or_not() -> None:
    listed, long = subject("lenet5").exploration, subject("vgg_e").exploration
    assert listed is not None and listed.chosen is not None
    assert listed.planned == listed.points[listed.chosen]
    assert long is not None and long.chosen is None and long.planned is not None
    chains = [c for c in subject("vgg_e").report.chains if c.output != "prob"]  # counted with the layer before
    assert len(long.planned.groups) == len(chains)
    assert [g.multiply_adds * 32 for g in long.planned.groups] == [c.multiply_adds - c.extra for c in chains]  # 32 images
    assert long.planned.buffer_bytes <= long.all_fused.buffer_bytes  # type: ignore[union-attr]
    assert long.planned.bytes_moved == sum(g.bytes_moved for g in long.planned.groups) < long.layer_by_layer.bytes_moved


def test_stairs_go_right_and_down() -> None:
    assert stairs([(1, 10), (4, 7), (9, 2)]) == [(1, 10), (4, 10), (4, 7), (9, 7), (9, 2)]
    assert stairs([]) == []
