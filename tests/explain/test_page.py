"""The page: whole, the same every time, dependent on nothing, and harmless whatever the names are."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fusec import pipeline
from fusec.cli.building import report_of
from fusec.cli.exploring import explored
from fusec.explain.page import Explained, Subject, explain, explore_page
from fusec.explain.style import DARK, LIGHT
from tests.cli.harness import write
from tests.explain.reports import H200, subject

EMPTY = {"meta", "link"}
NAMES = ("<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "../../etc/passwd", "{{ 7 * 7 }}", "]]><!--",
         "名前" * 20, "url(http://example.com)", "&amp;", "</style>", "a" * 100)
HOSTILE = {"name": "</title><script>alert(0)</script>", "input": {"name": "<b>", "channels": 3, "height": 24, "width": 24},
           "layers": [{"name": n, "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1} for n in NAMES]}


class Reader(HTMLParser):
    """Elements as they open and close; every one that opens has to close in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


@pytest.fixture(params=["lenet5", "vgg_e", "artcnn_c4f16", "resnet18"])
def page(request: pytest.FixtureRequest) -> Explained:
    return explain(subject(request.param))


def hostile(folder: Path, fuse: str) -> Subject:
    graph = pipeline.read(write(folder, json.dumps(HOSTILE)), missing="blank")
    planned = pipeline.plan(graph, H200, fuse)
    return Subject(report_of(planned), report_of(pipeline.plan(graph, H200, "none")), H200, explored(planned, None, (1, 1)))


def check(html: str) -> Reader:
    """Well formed, without scripts, handlers or references to anything outside."""
    read = Reader(html)
    assert read.open == []
    kinds = {tag for tag, _ in read.tags}
    assert not kinds & {"script", "img", "iframe", "object", "embed", "use", "image", "base", "form", "b"}
    attributes = [(name, value or "") for tag, found in read.tags for name, value in found.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name in ("src", "style", "xlink:href")]
    assert [value for name, value in attributes if name == "href"] == ["data:,"]
    references = [value for name, value in attributes if name not in ("data-name",) and "url(" in value]
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {re.fullmatch(r"url\(#(.*)\)", r)[1] for r in references} <= set(ids)  # type: ignore[index]
    for tag, found in read.tags:
        if tag == "svg":
            assert set((found["aria-labelledby"] or "").split()) <= set(ids)
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "url(" not in styles and "@import" not in styles
    assert "default-src 'none'" in html
    return read


def test_a_page_stands_alone(page: Explained) -> None:
    read = check(page.html)
    assert [tag for tag, _ in read.tags].count("h1") == 1
    assert [c for c in page.html if not c.isprintable() and c != "\n"] == []


def test_every_figure_is_an_svg_file(page: Explained) -> None:
    for name, figure in page.figures.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name)
        root = ElementTree.fromstring(figure.standalone())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert [child.tag.split("}")[1] for child in root][:3] == ["title", "desc", "style"]
        style = root[2].text or ""
        assert "\ufffd" not in style and "@media" not in style and "var(" not in style
        used = {c for e in root.iter() for c in (e.get("class") or "").split()} - {"figure", "wide"}
        assert [c for c in used if f".{c} " not in style] == []
    assert {"bytes-all", "roofline", "pareto"} <= page.figures.keys()


def test_the_same_plan_gives_the_same_page() -> None:
    given = subject("vgg_e")
    assert explain(given).html == explain(given).html


@pytest.mark.parametrize("fuse", ["all", "none"])
def test_names_of_any_kind_are_harmless(tmp_path: Path, fuse: str) -> None:
    given = hostile(tmp_path, fuse)
    page = explain(given)
    said = "".join(check(page.html).said)
    assert "<script>alert(1)</script>" in said  # as text
    assert "{{ 7 * 7 }}" in said
    for name, figure in page.figures.items():
        assert not set(name) & set("/\\.<>\"'")
        ElementTree.fromstring(figure.standalone())
    assert given.exploration is not None
    check(explore_page(given.exploration, given.device))


def test_a_network_that_cannot_be_explored_says_why() -> None:
    given = subject("lenet5")
    page = explain(Subject(given.report, given.layerwise, given.device, None, "It has <too> many layers."))
    assert "It has &lt;too&gt; many layers." in page.html
    assert "pareto" not in page.figures
    check(page.html)


def test_the_numbers_of_the_summary() -> None:
    given = subject("lenet5", "all")
    html = explain(given).html
    totals, single = given.report.totals, given.layerwise.totals
    assert f"{1 - totals.bytes_fused / totals.bytes_unfused:.0%} less moved" in html
    assert f"{single.seconds / totals.seconds:.2f} times as fast" in html
    assert "7 layers, 1 kernel" in html
    [chain] = given.report.chains
    assert f'<td class="number">{chain.multiply_adds:,}</td>' in html
    assert f'<td class="number">{chain.bytes_unfused:,}</td>' in html


def test_chains_of_one_layer_are_folded_away_where_they_are_many() -> None:
    assert "22 chains of one layer" in explain(subject("vgg_e")).html
    assert "chains of one layer" not in explain(subject("artcnn_c4f16", "all")).html


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_words_can_be_read_and_shapes_be_seen(palette) -> None:  # type: ignore[no-untyped-def]
    for ground in (palette.page, palette.card):
        assert all(contrast(words, ground) >= 4.5 for words in (palette.ink, palette.muted, palette.accent, palette.hatch))
    assert contrast(palette.tile, palette.card) >= 3
    assert contrast(palette.card, palette.tile) >= 4.5  # the number on a bar
    assert contrast(palette.hatch, palette.hatch_ground) >= 3
    assert contrast(palette.kept, palette.kept_ground) >= 3
