"""Pages in a real browser: nothing is requested, nothing complained about, no words on one another, at any width."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.harness import invoke, write
from tests.explain.browser import Page, chromium
from tests.explain.test_page import HOSTILE

pytestmark = pytest.mark.slow

OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
# Texts of one drawing whose boxes meet by more than a pixel, and texts that leave it; turned ones are left out.
COLLISIONS = """
[...document.querySelectorAll('svg.figure')].filter(svg => svg.getBoundingClientRect().width > 0).flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text:not([transform])')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const out = texts.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1
                                      || b.bottom > frame.bottom + 1).map(([t]) => svg.id + ' leaves: ' + t);
  for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
    const [s, a] = texts[i], [t, b] = texts[j];
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
      out.push(s + ' | ' + t);
  }
  return out;
})
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.mark.parametrize("words", [
    ("explain", "vgg_e", "-o"), ("explain", "resnet18", "-o"), ("explain", "artcnn_c4f16", "--fuse", "all", "-o"),
    ("plan", "alexnet_prefix", "--explore", "--html")], ids=["vgg_e", "resnet18", "artcnn", "explore"])
def test_a_page(browser: Page, tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "page.html"
    invoke(*words, path, "--device", "h200")
    for width, scheme in ((360, "light"), (800, "dark"), (1600, "light")):
        browser.open(path, width, scheme)
        assert browser.value(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
        shot = Image.open(io.BytesIO(browser.screenshot()))
        assert shot.width == width
        assert len(shot.convert("RGB").getcolors(1 << 24) or []) > 50
        browser.value(OPEN_ALL)
        assert browser.value("document.scrollingElement.scrollWidth") == width
        assert browser.value(COLLISIONS) == []
        assert browser.requests == [path.as_uri()]
        assert browser.complaints == []


def test_a_page_with_names_of_any_kind(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    invoke("explain", write(tmp_path, json.dumps(HOSTILE)), "--device", "h200", "--fuse", "all", "-o", path)
    for width in (360, 1200):
        browser.open(path, width)
        browser.value(OPEN_ALL)
        assert browser.value("document.scrollingElement.scrollWidth") == width
        assert browser.value(COLLISIONS) == []
        assert browser.value("document.scripts.length") == 0
        assert (browser.requests, browser.complaints) == ([path.as_uri()], [])


def test_the_browser_would_tell(browser: Page, tmp_path: Path) -> None:
    """A page that does what ours must not."""
    path = tmp_path / "bad.html"
    path.write_text("<!DOCTYPE html><img src='http://127.0.0.1:9/x.png'><script>throw new Error('boom')</script>"
                    "<svg class='figure'><text x='0' y='20'>one</text><text x='4' y='22'>two</text></svg>", encoding="utf-8")
    browser.open(path, 400)
    assert browser.requests == [path.as_uri(), "http://127.0.0.1:9/x.png"]
    assert any("boom" in complaint for complaint in browser.complaints)
    assert browser.value(COLLISIONS) == ["two | one"]
