"""Who may import whom, read from the syntax tree of every module in fusec/ (docs/architecture.md says why)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

PACKAGE = Path(__file__).parent.parent / "fusec"

# What the modules below each name may import of fusec, itself included; `fusec.errors` and `fusec.version` are open to all.
MAY_IMPORT = {
    "fusec.errors": (),
    "fusec.version": (),
    "fusec.debug": (),
    "fusec.graph": ("fusec.graph",),
    "fusec.schedule": ("fusec.schedule", "fusec.graph"),
    "fusec.plan": ("fusec.plan", "fusec.schedule", "fusec.graph", "fusec.targets.device"),
    "fusec.targets": ("fusec.targets", "fusec.schedule", "fusec.graph"),
    "fusec.emit": ("fusec.emit", "fusec.targets", "fusec.runtime.program"),
    "fusec.explain": ("fusec.explain", "fusec.plan", "fusec.targets.device", "fusec.emit.environment", "fusec.words"),
    "fusec.words": (),
    "fusec.runtime": ("fusec.runtime",),  # copied into artefacts, which run without the rest
    "fusec.program": ("fusec.graph", "fusec.schedule", "fusec.plan.search", "fusec.targets", "fusec.runtime.program"),
    "fusec.pipeline": ("fusec.program", "fusec.graph", "fusec.plan", "fusec.schedule", "fusec.targets", "fusec.emit",
                       "fusec.runtime", "fusec.debug"),
    "fusec.onnx_backend": ("fusec.pipeline", "fusec.graph", "fusec.runtime"),
    "fusec.tuning": ("fusec.tuning", "fusec.pipeline", "fusec.plan", "fusec.schedule", "fusec.graph", "fusec.targets.device",
                     "fusec.runtime", "fusec.debug"),
    "fusec.cli": ("fusec",),
}

CUDA_PACKAGES = ("cupy", "cupy_backends", "cupyx", "cuda")


def within(module: str, parents: tuple[str, ...]) -> bool:
    """Whether `module` is one of `parents` or lies below one."""
    return any(module == p or module.startswith(p + ".") for p in parents)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(p): ast.parse(p.read_text(encoding="utf-8"), str(p)) for p in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {module_name(p) for p in PACKAGE.rglob("__init__.py")}


def imports(name: str, tree: ast.AST, is_package: bool, known: set[str]) -> Iterator[str]:
    """Absolute names of all modules imported anywhere in `tree`, inside functions and by importlib too.

    `from a import b` is `a.b` where that is a module of ours, else `a`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = name.split(".")
                base = parts[:len(parts) - node.level + is_package]
                source = ".".join([*base, source] if source else base)
            yield from (f"{source}.{a.name}" if f"{source}.{a.name}" in known else source for a in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


IMPORTS = {name: set(imports(name, tree, name in PACKAGES, set(TREES))) for name, tree in TREES.items()}


def environment_reads(tree: ast.AST) -> list[int]:
    """The lines that name os.environ, os.environb or os.getenv, however imported."""
    words = {"environ", "environb", "getenv", "getenvb"}
    return sorted(
        node.lineno for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in words)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and any(a.name in words for a in node.names)))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    allowed = (*MAY_IMPORT[package], "fusec.errors", "fusec.version")
    wrong = [f"{name} imports {target}" for name in IMPORTS if within(name, (package,))
             for target in sorted(IMPORTS[name]) if within(target, ("fusec",)) and not within(target, allowed)]
    assert wrong == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_permission_is_used(package: str) -> None:
    used = set[str]().union(*(targets for name, targets in IMPORTS.items() if within(name, (package,))))
    assert [allowed for allowed in MAY_IMPORT[package] if not any(within(t, (allowed,)) for t in used)] == []


def test_every_module_has_its_rule() -> None:
    """But for the two that the user imports."""
    assert [name for name in TREES if not within(name, tuple(MAY_IMPORT))] == ["fusec", "fusec.__main__"]


def test_only_the_cuda_runtime_imports_cuda_packages() -> None:
    users = [name for name, targets in IMPORTS.items() if any(within(t, CUDA_PACKAGES) for t in targets)]
    assert [u for u in users if not within(u, ("fusec.runtime.cuda",))] == []


def test_nothing_imports_the_command_line() -> None:
    users = [name for name, targets in IMPORTS.items() if any(within(t, ("fusec.cli",)) for t in targets)]
    assert [u for u in users if not within(u, ("fusec.cli", "fusec.__main__"))] == []


def test_interpreter_and_planner_share_no_footprints() -> None:
    """Nor through a third module: one mistake must not hide in both."""
    digraph = import_graph()
    start, forbidden = "fusec.schedule.interpret", "fusec.plan.footprint"
    assert start in digraph
    assert forbidden in digraph
    assert forbidden not in nx.descendants(digraph, start)


def test_only_debug_reads_the_environment() -> None:
    wrong = [f"{name}:{line}" for name, tree in TREES.items() if name != "fusec.debug" for line in environment_reads(tree)]
    assert wrong == []


def test_no_import_cycles() -> None:
    assert [sorted(group) for group in nx.strongly_connected_components(import_graph()) if len(group) > 1] == []
    assert list(nx.selfloop_edges(import_graph())) == []


def import_graph() -> nx.DiGraph[str]:
    digraph: nx.DiGraph[str] = nx.DiGraph()
    digraph.add_nodes_from(TREES)
    digraph.add_edges_from((name, t) for name, targets in IMPORTS.items() for t in targets if t in TREES)
    return digraph


def test_the_reader_sees_every_form_of_import() -> None:
    source = """
import os.path, cupy as cp
from fusec.graph import layers as L, Something
from . import ir
from ..plan.footprint import f
def later():
    from .. import errors
    importlib.import_module("cuda.core")
    __import__("cupy_backends")
"""
    known = {"fusec.graph", "fusec.graph.layers", "fusec.schedule.ir", "fusec.plan.footprint", "fusec.errors"}
    assert set(imports("fusec.schedule.x", ast.parse(source), False, known)) == {
        "os.path", "cupy", "fusec.graph.layers", "fusec.graph", "fusec.schedule.ir", "fusec.plan.footprint", "fusec.errors",
        "cuda.core", "cupy_backends"}
    assert set(imports("fusec.schedule", ast.parse("from . import ir"), True, known)) == {"fusec.schedule.ir"}


def test_the_reader_sees_the_environment() -> None:
    assert environment_reads(ast.parse("import os\nos.environ['A']\nfrom os import getenv\nos.getenv('B')")) == [2, 3, 4]
    assert environment_reads(ast.parse("import os\nos.cpu_count()\nenvironment = 1")) == []
