"""Finding a C++ compiler, and building with it."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import pytest

from fusec.errors import InternalError, MissingError
from fusec.runtime import cpu
from fusec.runtime.build import build
from fusec.runtime.program import Source
from fusec.runtime.store import Store
from tests.hand_programs import POOL, compiler

ANSWER = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }'


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty folder, and no zig."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cpu.importlib.util, "find_spec", lambda name: None)
    return tmp_path


def test_a_source_becomes_a_library(tmp_path: Path) -> None:
    library = tmp_path / "answer.so"
    binary, said = cpu.build(Source("answer", ANSWER, "cpp"), compiler())
    library.write_bytes(binary)
    assert ctypes.CDLL(str(library)).answer() == 42
    assert said == ""


def test_warnings_are_handed_out_without_the_temporary_folder() -> None:
    said = cpu.build(Source("odd", f"{ANSWER}\nstatic int unused;\n", "cpp"), compiler())[1]
    assert said.startswith("odd.cpp:2:") and "unused" in said


def test_the_pool_has_no_warnings_in_any_compiler_here(tmp_path: Path) -> None:
    import shutil
    import subprocess
    (tmp_path / "pool.cpp").write_text(POOL.text)
    names = [name for name in cpu.CANDIDATES if shutil.which(name)]
    assert names
    for name in names:
        command = [name, *cpu.FLAGS, "-Wextra", "-Werror", "-o", str(tmp_path / "pool.so"), str(tmp_path / "pool.cpp")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")


def test_no_compiler(bare: Path) -> None:
    with pytest.raises(MissingError, match=r"no C\+\+ compiler found \(c\+\+, g\+\+, clang\+\+\).*install g\+\+.*fusec\[cc\]"):
        cpu.find_compiler()


def test_the_order_of_candidates_and_broken_ones(bare: Path) -> None:
    script(bare, "clang++", "echo clang 1")
    assert cpu.find_compiler().command == (str(bare / "clang++"),)
    script(bare, "c++", "exit 1")
    assert cpu.find_compiler().version == "clang 1"
    script(bare, "g++", "echo gcc 2; echo more")
    assert str(cpu.find_compiler()) == f"{bare}/g++ (gcc 2)"


def test_zig_is_the_last_resort(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.importlib.util, "find_spec", lambda name: name == "ziglang")
    monkeypatch.setattr(cpu, "_version", lambda command: "zig's clang" if command[1:] == ("-m", "ziglang", "c++") else None)
    assert cpu.find_compiler().command == (sys.executable, "-m", "ziglang", "c++")


def test_the_preferred_compiler_is_used_with_its_options_or_not_at_all(bare: Path) -> None:
    script(bare, "g++", "echo gcc 2")
    mine = script(bare, "mine", "echo mine")
    assert cpu.find_compiler(f"{mine} -m64").command == (str(mine), "-m64")
    for wrong in ("no-such-compiler", "'unbalanced", "  ", str(bare)):
        with pytest.raises(MissingError, match="from CXX"):
            cpu.find_compiler(wrong)


def test_identity_changes_with_version_and_options() -> None:
    texts = {cpu.Compiler(c, v).identity for c, v in ((("g++",), "1"), (("g++",), "2"), (("g++", "-m64"), "1"))}
    assert len(texts) == 3
    assert "-O3" in texts.pop() and "-ffast-math" not in cpu.FLAGS


def test_rejected_source_is_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InternalError) as caught:
        cpu.build(Source("k_7", "int a;\nint b = undeclared;\n", "cpp"), compiler())
    text = str(caught.value)
    assert "k_7.cpp:2:" in text and "undeclared" in text
    kept = re.search(r"kept as (\S+):", text)
    assert kept is not None and Path(kept[1]).read_text().endswith("undeclared;\n")
    assert Path(kept[1]).is_relative_to(tmp_path)


def test_a_compiler_that_fails_by_itself_is_the_machine_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = script(tmp_path, "broken", "echo 'ld: error: cannot find crti.o' >&2; exit 1")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(cpu.tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(MissingError, match=r"failed on k_7\.cpp[\s\S]*crti\.o[\s\S]*CXX"):
        cpu.build(Source("k_7", ANSWER, "cpp"), cpu.Compiler((str(broken),), "1"))
    with pytest.raises(MissingError, match="No such file"):
        cpu.build(Source("k_7", ANSWER, "cpp"), cpu.Compiler((str(tmp_path / "gone"),), "1"))
    with pytest.raises(MissingError, match=r"not through the source itself[\s\S]*no-such-header"):
        cpu.build(Source("k_7", "#include <no-such-header>\n", "cpp"), compiler())
    full = script(tmp_path, "full", "echo 'k_7.cpp:9:1: fatal error: x.s: No space left on device' >&2; exit 1")
    with pytest.raises(MissingError, match=r"No space left on device\n.*make room"):
        cpu.build(Source("k_7", ANSWER, "cpp"), cpu.Compiler((str(full),), "1"))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu.tempfile, "tempdir", str(tmp_path / "no" / "such"))
    with pytest.raises(MissingError, match="TMPDIR"):
        cpu.build(Source("k_7", ANSWER, "cpp"), compiler())


def test_the_signature_is_stable_and_names_the_machine() -> None:
    assert cpu.signature() == cpu.signature()
    assert re.fullmatch(r"[a-z0-9]+-\w+-[0-9a-f]{12}", cpu.signature())


def test_equal_sources_are_built_once_and_progress_is_told(tmp_path: Path) -> None:
    counted = script(tmp_path, "counted", f'echo x >> {tmp_path}/log; exec {compiler().command[0]} "$@"')
    source = Source("answer", ANSWER, "cpp")
    told: list[tuple[int, int]] = []
    said: list[tuple[str, str | None]] = []
    sources = [source, source, Source("other", ANSWER + "\n// other\n", "cpp")]
    chosen = cpu.Compiler((str(counted),), "1")
    for _ in range(2):
        paths = build("cpu", cpu.signature(), sources, Store(tmp_path / "store"), chosen, lambda *counts: told.append(counts),
                      lambda *words: said.append(words))
    assert (tmp_path / "log").read_text() == "x\nx\n"
    assert told == [(0, 2), (1, 2), (2, 2)] * 2
    assert sorted(said[:2]) == [("answer", ""), ("other", "")]
    assert sorted(said[2:]) == [("answer", None), ("other", None)]  # the store had them
    assert sorted(paths) == ["answer", "other"] and paths["answer"] != paths["other"]
