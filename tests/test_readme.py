"""What the README promises in code blocks is tried here where the gate does not already run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from fusec.cli import cli
from fusec.graph.locate import shipped_graphs
from fusec.graph.read_yaml import read_description
from tests.onnx_models import model, node, saved

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The contents of the README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_description_can_be_read(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    (tmp_path / "block.yaml").write_text(text, encoding="utf-8")
    graph = read_description(tmp_path / "block.yaml").graph
    assert graph.outputs == ("pool",)
    assert graph.sizes(480, 640)["pool"] == (240, 320)
    assert str(graph.shapes["pool"]) == "16x?x?"


def test_the_commands_work_on_the_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as they stand, in a folder with an ONNX file, and the description under the name its first line says."""
    [text] = blocks("yaml")
    name = text.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEC_CACHE", str(tmp_path / "cache"))
    commands = [line.split()[1:] for block in blocks("sh") for line in block.splitlines() if line.startswith("fusec ")]
    saved(model([node("Relu", ["x"], ["y"])]), tmp_path, "model.onnx")
    assert [words[:2] for words in commands] == [["plan", name], ["compile", name], ["compile", "model.onnx"]]
    for words in commands:
        result = CliRunner().invoke(cli, words, prog_name="fusec")
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "build" / "block" / "manifest.json").is_file()


def test_the_python_is_python() -> None:
    for text in blocks("python"):
        compile(text, "README.md", "exec")


def test_every_shipped_network_is_named() -> None:
    assert [name for name in shipped_graphs() if f"`{name}`" not in README] == []
