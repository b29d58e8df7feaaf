"""Descriptions for the tests of the reader: short ones written on the spot, and marks that say where a complaint belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.errors import InputError, Problem
from fusec.graph.read_yaml import read_description

MARK = "§"  # stands in front of the place a complaint must name; taken out before the file is written


def write(folder: Path, text: str) -> Path:
    path = folder / "net.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        read_description(path)
    return caught.value.problems


def marked(folder: Path, text: str) -> tuple[tuple[Problem, ...], list[str]]:
    """The problems of `text` without its marks, and the places the marks stood at."""
    places = []
    for number, line in enumerate(text.split("\n"), 1):
        pieces = line.split(MARK)
        places += [f"{folder / 'net.yaml'}:{number}:{len(''.join(pieces[:i + 1])) + 1}" for i in range(len(pieces) - 1)]
    return problems(write(folder, text.replace(MARK, ""))), places


def network(*layers: str, image: str = "{name: image, channels: 3, height: 8, width: 8}", rest: str = "") -> str:
    lines = ["name: net", f"input: {image}", "layers:", *(f"  - {layer}" for layer in layers), rest]
    return "\n".join(lines)


CONV = "{name: a, type: conv2d, out_channels: 4, kernel: 3}"
