"""docs/architecture.md names the modules, the IR's fields and the pipeline's functions as they are in the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from fusec import pipeline
from fusec.schedule import ir

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
IR = (ir.Affine, ir.Footprint, ir.Tile, ir.Buffer, ir.Read, ir.Stage, ir.Chain, ir.Schedule)
ELSEWHERE = ("src/", "lib/", "_fusec/")  # in an artefact


def block(heading: str) -> list[str]:
    """The lines of the first code block under a heading."""
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("```\n", 2)[1].splitlines()


def named_modules() -> list[str]:
    """Paths in the module map: a line without indentation is a folder, an indented one begins with names of its modules."""
    found, folder = [], ""
    for line in block("Modules"):
        if not line.startswith(" "):
            folder = line.split()[0]
        else:
            found += [folder + name for name in re.match(r"((?: +\w+\.py)+)", line)[1].split()]  # type: ignore[index]
    return found


def has_code(path: Path) -> bool:
    """Whether a module holds more than its docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def test_the_map_names_every_module_once_and_no_other() -> None:
    modules = [p.relative_to(ROOT).as_posix() for p in (ROOT / "fusec").rglob("*.py") if has_code(p)]
    assert sorted(named_modules()) == sorted(modules)


def test_every_path_of_the_page_exists() -> None:
    """Paths in backticks stand from the top of the repository, from fusec/ or from tests/."""
    prose = re.sub(r"^```\n.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    paths = [p for p in re.findall(r"`([\w./]+/[\w./]*)`", prose) if not p.startswith(ELSEWHERE) and "NAME" not in p]
    assert len(paths) > 20
    assert [p for p in paths if not any((ROOT / top / p).exists() for top in ("", "fusec", "tests"))] == []


@pytest.mark.parametrize("kind", IR, ids=lambda kind: kind.__name__)
def test_the_ir_has_the_fields_it_is_said_to_have(kind: type) -> None:
    """A line is a name, fields and, after two spaces, words; indented lines go on with the fields of the name above."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in block("The IR"):
        words = re.split(r" {2,}", line.strip())
        if not line.startswith(" "):
            name = words.pop(0)
        fields.setdefault(name, []).extend(words[0].split())
    assert list(fields) == [k.__name__ for k in IR]
    assert sorted(fields[kind.__name__]) == sorted(f.name for f in dataclasses.fields(kind))


def test_the_functions_of_the_pipeline_are_called_as_it_says() -> None:
    for line in block("The pipeline"):
        name, parameters, result = re.match(r"(\w+)\((.*)\) -> (\w+)", line).groups()  # type: ignore[union-attr]
        real = inspect.signature(getattr(pipeline, name))
        said = [p.split("=")[0] for p in parameters.split(", ") if p != "*"]
        assert said == list(real.parameters)[:len(said)], name
        for word in parameters.split(", "):
            if "=" in word:
                assert repr(real.parameters[word.split("=")[0]].default) == word.split("=")[1].replace('"', "'"), word
        assert result == real.return_annotation, name


def test_every_step_is_timed_by_its_name() -> None:
    steps = re.findall(r"^\| (\w+) \| .+ -> ", PAGE, re.MULTILINE)
    timed = re.findall(r'debug\.timed\("(\w+)"\)', (ROOT / "fusec" / "pipeline.py").read_text(encoding="utf-8"))
    assert steps == [s for s in timed if s != "verify"]
    assert len(steps) == 8
