"""The pyramid is drawn to scale: what the report says in pixels is in the drawing in units."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from fusec.explain.pyramid import COLUMNS, ROWS, bands, cut_axis, pyramid, skips
from fusec.plan.cost import Nominal
from fusec.plan.report import ChainReport, report
from tests.explain.reports import H200, drawings, parts, span, subject
from tests.plan.test_report import two_convolutions


def chain_of_two(*staged: str, step: int | None = None) -> ChainReport:
    """8x8 output of two 3x3 convolutions in tiles of 4x4, or strips of that height."""
    (chain,) = report([two_convolutions(*staged, step=step)], H200, Nominal((1,))).chains
    return chain


NETWORKS = (("vgg_e", "auto"), ("vgg_e", "all"), ("resnet18", "auto"), ("artcnn_c4f16", "all"), ("lenet5", "auto"),
            ("alexnet_prefix", "all"), ("fsrcnn_x2", "all"),
            pytest.param("mobilenet_v2", "auto", marks=pytest.mark.thorough))  # takes long to plan
every_chain = pytest.mark.parametrize(("network", "fuse"), NETWORKS)


@every_chain
def test_every_bar_is_to_scale(network: str, fuse: str) -> None:
    for chain in subject(network, fuse).report.chains:
        axis, found = cut_axis(chain), list(bands(chain))
        for drawing in drawings(pyramid(chain, "p")):
            footprints = [span(r) for r in parts(drawing, "footprint")]
            owned = [span(r) for r in parts(drawing, "owned")]
            longest, (_, length) = max(zip(found, footprints, strict=True), key=lambda pair: pair[0].footprint[axis])
            unit = length / longest.footprint[axis]
            for band, (start, width), (begin, own) in zip(found, footprints, owned, strict=True):
                assert width == pytest.approx(max(band.footprint[axis] * unit, 1.5), abs=0.02)
                assert own == pytest.approx(max(band.owned[axis] * unit, 1.5), abs=0.02)
                assert begin - start == pytest.approx((width - own) / (2 if chain.step is None else 1), abs=0.02)


@every_chain
def test_what_is_marked_as_shared_is_what_two_footprints_have_in_common(network: str, fuse: str) -> None:
    for chain in subject(network, fuse).report.chains:
        axis, found = cut_axis(chain), list(bands(chain))
        several = chain.step is not None or chain.grid[1 + axis] > 1
        for drawing in drawings(pyramid(chain, "p")):
            check_shared(drawing, [b.footprint[axis] > b.owned[axis] for b in found], several)


def check_shared(drawing: ElementTree.Element, larger: list[bool], several: bool) -> None:
    """Against the places of a drawing's footprints, one in each of the bands, of which some are larger than what is owned."""
    neighbours = [span(r) for r in parts(drawing, "neighbour")]
    assert len(neighbours) == (len(larger) if several else 0)
    shared = [span(r) for r in parts(drawing, "shared")]
    expected = []
    for (start, width), (other, length) in zip([span(r) for r in parts(drawing, "footprint")], neighbours, strict=several):
        if start + width - other > 0.01:
            expected.append((other, start + width - other))
        assert length == width
    assert [s for s, _ in shared] == pytest.approx([s for s, _ in expected], abs=0.02)
    assert [w for _, w in shared] == pytest.approx([w for _, w in expected], abs=0.02)
    assert len(shared) == (sum(larger) if several else 0)


def test_the_bands_of_a_chain_worked_out_by_hand() -> None:
    image, first, last = bands(chain_of_two())
    assert [b.tensor for b in (image, first, last)] == ["image", "conv1", "conv2"]
    assert [b.footprint for b in (image, first, last)] == [(3, 8, 8), (4, 6, 6), (5, 4, 4)]
    assert (image.price, image.kept) == ("75% shared", "not kept")
    assert (first.price, first.kept) == ("56.2% extra work", "kept in scratch")
    assert (last.price, last.kept) == ("no extra work", "written to memory")
    loaded, *_ = bands(chain_of_two("image"))
    assert (loaded.detail, loaded.kept) == ("copied from memory · 3x8x8", "kept in scratch")


def fills(chain: ChainReport) -> list[str]:
    return [r.get("fill", "") for r in parts(pyramid(chain, "p").wide, "shared")]


def test_rows_that_are_kept_look_different_from_work_done_twice() -> None:
    strip = chain_of_two("image", step=1)
    assert cut_axis(strip) == ROWS
    image, first, last = bands(strip)
    assert [b.footprint for b in (image, first, last)] == [(3, 3, 8), (4, 3, 6), (5, 1, 4)]
    assert [b.owned for b in (image, first, last)] == [(3, 1, 4), (4, 1, 4), (5, 1, 4)]
    assert [b.kept for b in (image, first, last)] == ["2 rows of 3 kept", "2 rows of 3 kept", "written to memory"]
    assert fills(strip) == ["url(#p-wide-dots)"] * 2
    assert fills(chain_of_two("image")) == ["url(#p-wide-hatch)"] * 2
    image, *_ = bands(chain_of_two(step=1))  # read from memory as it is needed
    assert (image.footprint, image.kept, image.reused) == ((3, 1, 8), "not kept", False)


def test_work_done_again_by_strips_side_by_side_is_said_and_seen() -> None:
    """Two strips of 4 columns: of the first layer each makes 6, though the drawing is cut along the height."""
    strip = chain_of_two("image", step=1)
    assert strip.grid[2:] == (2, 2)
    image, first, last = bands(strip)
    assert (image.across, last.across) == ("", "")
    assert first.across == "along both axes"
    wide = pyramid(strip, "p").wide
    words = ["".join(e.itertext()) for e in wide.iter("text")]
    assert "along both axes" in words
    assert "needed by both: done twice" in words
    assert len(parts(wide, "again")) == 2 * 2  # both sides of two bands
    alone = dataclasses.replace(strip, grid=(1, 1, 2, 1))
    assert [b.across for b in bands(alone)] == ["", "along the height", ""]
    assert not parts(pyramid(alone, "p").wide, "again")


def test_what_no_neighbour_needs_is_not_called_shared() -> None:
    chain = dataclasses.replace(chain_of_two(), grid=(1, 1, 1, 1))
    assert next(b.price for b in bands(chain)) == "nothing shared"
    chain = dataclasses.replace(chain_of_two(), grid=(1, 1, 2, 1))
    assert next(b.price for b in bands(chain)) == "50% shared"


def test_the_cut_is_where_tiles_have_neighbours() -> None:
    chain = chain_of_two()
    assert cut_axis(chain) == COLUMNS
    strip = dataclasses.replace(chain, grid=(1, 1, 2, 1), direct=tuple(
        dataclasses.replace(i, owned=(3, 4, 8)) for i in chain.direct), stages=tuple(
        dataclasses.replace(s, owned=(s.owned[0], s.owned[1], s.footprint[2])) for s in chain.stages))
    assert cut_axis(strip) == ROWS


def test_a_skip_goes_around_the_bands_between() -> None:
    [chain] = subject("artcnn_c4f16", "all").report.chains
    found = tuple(bands(chain))
    [(start, end)] = skips(found)
    assert (found[start].tensor, found[end].tensor) == ("conv0", "skip_add")
    for drawing in drawings(pyramid(chain, "p")):
        [line] = [e for e in drawing.iter() if e.get("class") == "skip"]
        points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
        assert all(0 < x <= min(span(r)[0] for r in parts(drawing, "footprint")[start:end + 1]) for x, _ in points[1:3])
