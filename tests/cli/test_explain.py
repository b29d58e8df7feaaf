"""`fusec explain` and `fusec plan --explore --html`: files that are written, and what cannot be."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.harness import SMALL, invoke, invoke_json, write


def test_a_page_and_its_figures(tmp_path: Path) -> None:
    page, folder = tmp_path / "small.html", tmp_path / "figures"
    text = invoke("explain", write(tmp_path, SMALL), "--device", "h200", "--fuse", "conv1..conv2", "-o", page,
                  "--svg", folder).stdout
    assert str(page) in text
    assert "5 files" in text
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>\n")
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["bytes-all.svg", "pareto.svg", "pyramid-00-conv1-conv2.svg", "pyramid-01-fc.svg", "roofline.svg"]
    for name in names:
        ElementTree.parse(folder / name)


def test_the_page_and_the_plan_say_the_same(tmp_path: Path) -> None:
    """The share saved and the baseline of the headline are those that `fusec plan` prints."""
    page, words = tmp_path / "page.html", ("lenet5", "--device", "h200")
    printed = invoke("plan", *words).stdout
    found = re.search(r"^moved +(.*); layer by layer at least (.*) \((.*) saved\)$", printed, re.MULTILINE)
    assert found is not None
    moved, least, saved = found.groups()
    invoke("explain", *words, "-o", page)
    html = page.read_text(encoding="utf-8")
    assert f"<dt>{saved} less moved</dt>" in html
    assert f"{moved} go to and from memory, and layer by layer at least {least}." in html


def test_where_the_page_goes_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = write(tmp_path, SMALL, "little.yaml")
    monkeypatch.chdir(tmp_path)
    made = invoke_json("explain", net, "--device", "t4", "--shape", "2x1x12x12")
    assert made["file"] == str(Path("build") / "little.html")
    assert made["figures"] == []
    assert "2 images" in (tmp_path / "build" / "little.html").read_text(encoding="utf-8")


def test_a_page_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    net, page = write(tmp_path, SMALL), tmp_path / "page.html"
    page.write_text("old", encoding="utf-8")
    (tmp_path / "mine.svg").write_text("mine", encoding="utf-8")
    invoke("explain", net, "--device", "h200", "-o", page, "--svg", tmp_path)
    assert "old" not in page.read_text(encoding="utf-8")[:100]
    assert (tmp_path / "mine.svg").read_text(encoding="utf-8") == "mine"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("option", ["-o", "--svg"])
def test_a_place_that_cannot_be_written(tmp_path: Path, option: str) -> None:
    net, taken = write(tmp_path, SMALL), tmp_path / "taken"
    taken.write_text("a file", encoding="utf-8")
    place = taken / "page.html" if option == "-o" else taken
    error = invoke("explain", net, "--device", "h200", option, place, *(() if option == "-o" else ("-o", tmp_path / "p.html")),
                   code=3).stderr
    assert ("its folder does not exist" if option == "-o" else "this is no directory") in error
    assert taken.read_text(encoding="utf-8") == "a file"
    assert not (tmp_path / "p.html").exists()


def test_the_page_is_no_folder(tmp_path: Path) -> None:
    said = invoke("explain", write(tmp_path, SMALL), "--device", "h200", "-o", tmp_path, code=3).stderr
    assert "this is a directory" in said


WRITERS = [("explain", "--device", "h200", "-o"), ("explain", "--device", "h200", "--svg"),
           ("plan", "--device", "h200", "--explore", "--html"), ("tune", "--target", "cpu", "-o"), ("run", "-o")]


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
@pytest.mark.parametrize("place", ["pipe", "link", "none/file"])
def test_what_is_no_regular_file_is_left_alone(tmp_path: Path, words: tuple[str, ...], place: str) -> None:
    """A pipe, a link to one, and a file whose folder is missing, for each option that names a file or a folder."""
    ending = {"tune": ".lock", "run": ".npy"}.get(words[0], "")
    net, pipe, path = write(tmp_path, SMALL), tmp_path / f"pipe{ending}", tmp_path / f"{place}{ending}"
    os.mkfifo(pipe)
    (tmp_path / f"link{ending}").symlink_to(pipe)
    before = sorted(tmp_path.iterdir())
    command, *options = words
    inputs = [tmp_path / "x.npy"] if command == "run" else []
    error = invoke(command, net, *inputs, *options, path, code=3).stderr
    said = "its folder does not exist" if place == "none/file" else "is left alone"
    assert f"{path}: " in error
    assert said in error
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("old", encoding="utf-8")
    link.symlink_to(page)
    invoke("explain", write(tmp_path, SMALL), "--device", "h200", "-o", link)
    assert link.is_symlink()
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_an_exploration_as_a_page(tmp_path: Path) -> None:
    page = tmp_path / "explored.html"
    words = ("plan", write(tmp_path, SMALL), "--device", "h200", "--explore", "--layers", "conv1..conv2")
    assert invoke(*words, "--html", page).stdout == invoke(*words).stdout
    html = page.read_text(encoding="utf-8")
    assert "<h1>Every way to cut conv1..conv2 of small</h1>" in html
    assert "As planned for h200, " in html
    assert "3 layers can be cut in 4 ways" in html
    assert html.count("<tr>") > 4
    made = invoke_json(*words, "--html", page)
    assert made["partitions"] == 4


def test_a_network_too_long_to_explore_has_a_page_all_the_same(tmp_path: Path) -> None:
    layers = "".join(f"  - {{name: p{i}, type: max_pool2d, kernel: 1}}\n" for i in range(130))
    net = write(tmp_path, f"name: long\ninput: {{name: x, channels: 1, height: 8, width: 8}}\nlayers:\n{layers}")
    page = tmp_path / "long.html"
    invoke("explain", net, "--device", "h200", "--fuse", "none", "-o", page)
    assert "130 layers are too many to explore" in page.read_text(encoding="utf-8")
