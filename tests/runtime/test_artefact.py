"""The directory of a generated model: written whole or not at all, loaded with and without fusec, damage noticed."""

from __future__ import annotations

import errno
import gc
import json
import shutil
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusec.errors import InputError, MissingError
from fusec.runtime import artefact, cpu
from fusec.runtime import save as saving
from fusec.runtime.artefact import load
from fusec.runtime.model import Model
from fusec.runtime.program import Port, Program
from fusec.runtime.save import save
from tests.hand_programs import chain, chain_reference, linked, scale

X = np.arange(2 * 2 * 5 * 6, dtype=np.float32).reshape(2, 2, 5, 6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return linked(scale(), tmp_path_factory.mktemp("store"))


def save_model(model: Model, folder: Path, program: Program | None = None) -> Path:
    return save(folder, program or model.program, model.sources, model.binaries, model.weights, "one kernel\nthree steps")


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "build" / "tripled")


def run_alone(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python where `folder` is on the path and neither fusec nor the packages it needs beside NumPy can be imported."""
    numpy = Path(np.__file__).parent
    site = folder / "site"
    site.mkdir(exist_ok=True)
    for found in (numpy, numpy.parent / "numpy.libs"):
        if found.exists() and not (site / found.name).exists():
            (site / found.name).symlink_to(found)
    prologue = f"import sys\nsys.path[:0] = [{str(folder)!r}, {str(site)!r}]\n"
    return subprocess.run([sys.executable, "-I", "-S", "-c", prologue + textwrap.dedent(code)], capture_output=True, text=True,
                          check=False, cwd=folder, timeout=120)


def test_what_is_saved_is_loaded(saved: Path) -> None:
    model = load(saved)
    assert np.array_equal(model(X), 3 * X)
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["plan"] == ["one kernel", "three steps"]
    assert manifest["versions"]["fusec"] == "0.0.test"
    assert manifest["program"]["target"] == "cpu"
    written = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert written == {"manifest.json", *manifest["files"]}
    assert {"__init__.py", "weights.safetensors", "src/k_0.cpp", "src/fusec_pool.cpp", "_fusec/errors.py",
            "_fusec/runtime/model.py"} <= written
    assert [p.name for p in saved.parent.iterdir()] == ["tripled"]


def test_imported_where_fusec_is_not(saved: Path) -> None:
    result = run_alone(saved.parent, """
        import importlib.util
        import numpy as np
        import tripled
        assert importlib.util.find_spec("fusec") is None and importlib.util.find_spec("filelock") is None
        assert tripled.__all__ == ["model"] and "model" in dir(tripled)
        assert "x  Nx2xHxW" in tripled.__doc__ and "y  Nx2x?x?" in tripled.__doc__, tripled.__doc__
        x = np.ones((1, 2, 3, 3), np.float32)
        assert (tripled.model(x) == 3).all() and tripled.model is tripled.model
        from tripled import model
        print(model)
        try:
            tripled.mode
        except AttributeError as error:
            print(error)
        try:
            model(x[0])
        except ValueError.__mro__[1] as error:
            print(type(error).__module__, error)
    """)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("<fusec model 'scale' for cpu")
    assert lines[1] == "module 'tripled' has no attribute 'mode'"
    assert lines[2].startswith("tripled._fusec.errors 'x' has 3 axes instead of 4")


def test_several_outputs_and_names_nobody_would_choose(tmp_path: Path) -> None:
    program, sources, weights = chain()
    hostile = '"""; import os; os.abort() #\n\u202e\\'
    program = replace(program, name=hostile, inputs=(Port(hostile, "a"), Port("b", "b")))
    model = linked((program, sources, weights), tmp_path / "store")
    folder = save_model(model, tmp_path / "chain")
    a = np.ones((1, 3, 4, 4), np.float32)
    for got in (load(folder)(a, a), load(str(folder))(b=a, **{hostile: a})):
        assert all(np.array_equal(g, r) for g, r in zip(got, chain_reference(a, a), strict=True))
    result = run_alone(tmp_path, "import chain; assert chain.model; print(len(chain.__doc__) > 9)")
    assert (result.stdout, result.stderr) == ("True\n", "")
    assert (folder / "__init__.py").read_text() == saving.INIT


@pytest.mark.parametrize("victim", ["lib/k_0.*.so", "lib/fusec_pool.*.so", "weights.safetensors", "src/k_0.cpp"])
@pytest.mark.parametrize("how", ["changed", "missing", "cut"])
def test_damage_is_noticed_before_anything_is_loaded(saved: Path, victim: str, how: str) -> None:
    path = next(saved.glob(victim))
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=rf"damaged: {path.relative_to(saved)} is (missing|not what was written)"):
        load(saved)


def change(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))


def test_directories_that_are_no_model(saved: Path, tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(InputError) as caught:
            load(folder)
        return str(caught.value)
    assert "no such directory" in said(tmp_path / "gone")
    assert "is no directory" in said(saved / "manifest.json")
    assert "has no manifest.json" in said(tmp_path)
    for text, reason in (("{", "damaged: its manifest is no JSON"), ("[" * 10**5, "damaged: its manifest is no JSON"),
                         ("[]", "another kind"), ('{"kind": "x"}', "another kind"), ('{"kind": "fusec model"}', "incomplete")):
        (tmp_path / "manifest.json").write_text(text)
        assert reason in said(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff")
    assert "no JSON" in said(tmp_path)
    change(saved, kernels={"k_0": {}})
    assert "its manifest lacks 'source'" in said(saved)
    change(saved, kernels={"k_0": {"source": "../../secret.cpp", "binary": "x"}})
    assert "'../../secret.cpp' is outside it" in said(saved)
    change(saved, kernels={"k_0": {"source": "/etc/passwd", "binary": "x"}})
    assert "'/etc/passwd' is outside it" in said(saved)
    change(saved, program={"format": 7})
    assert "manifest format 7" in said(saved)


def for_another_cpu(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(folder, program={**manifest["program"], "arch": "linux-vax-000000000000"})
    for library in (folder / "lib").iterdir():
        library.write_bytes(b"code of another CPU")


def test_built_anew_on_another_cpu_and_only_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for_another_cpu(saved)
    code = "import tripled, numpy as np; print(tripled.model(np.ones((1, 2, 1, 1), np.float32)).sum())"
    result = run_alone(saved.parent, code)
    assert (result.stdout, result.stderr) == ("6.0\n", "")
    monkeypatch.setattr(cpu, "build", lambda *a, **k: pytest.fail("built again"))
    model = load(saved)
    assert np.array_equal(model(X), 3 * X)
    assert model.program.arch == cpu.signature()  # or a copy of it would be taken for one of the other CPU


def test_another_cpu_and_no_compiler(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for_another_cpu(saved)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(cpu.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"built for another CPU \(linux-vax.*no C\+\+ compiler found"):
        load(saved)


def test_a_model_is_replaced_and_the_new_one_loaded_in_the_same_process(saved: Path, tmp_path: Path) -> None:
    old = load(saved)
    program, sources, _ = scale()
    sources[0] = replace(sources[0], text=sources[0].text.replace("at(0) * params[0]", "at(0) + params[0]"))
    save_model(linked((program, sources, {"w": np.float32([5])}), tmp_path / "store"), saved)
    assert np.array_equal(load(saved)(X), X + 5)
    assert np.array_equal(old(X), 3 * X)
    assert [p.name for p in saved.parent.iterdir()] == ["tripled"]


def test_an_empty_directory_and_a_rebuilt_model_may_be_used(model: Model, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert np.array_equal(load(save_model(model, tmp_path / "empty"))(X), 3 * X)
    for_another_cpu(saved)
    load(saved)
    shutil.copytree(saved / "_fusec", saved / "__pycache__")
    assert np.array_equal(load(save_model(model, saved))(X), 3 * X)


def test_a_model_that_no_cache_could_keep_is_saved_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(RuntimeWarning, match="cannot keep"):
        model = linked(scale(), tmp_path / "cache")
    gc.collect()
    assert np.array_equal(load(save_model(model, tmp_path / "model"))(X), 3 * X)


def test_nothing_else_is_overwritten(model: Model, saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("mine")
    (saved / "notes.txt").write_text("mine too")
    for folder, reason in ((other, "holds something else"), (other / "chapter1.txt", "there is a file"),
                           (Path("/"), "holds something else"),
                           (saved, "has a file that fusec did not write: notes.txt")):
        with pytest.raises(InputError, match=reason):
            save_model(model, folder)
    assert (other / "chapter1.txt").read_text() == "mine"
    assert (saved / "notes.txt").read_text() == "mine too"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["build", "thesis"]


@pytest.mark.parametrize("step", ["_write_package", "weights_file.write", "shutil.copyfile", "_move"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_failure_leaves_the_old_model_and_nothing_half_written(
        model: Model, saved: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, "cannot")
    before = {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()}
    home, _, name = step.rpartition(".")
    monkeypatch.setattr(getattr(saving, home) if home else saving, name, fail)
    for place in (saved, saved.parent / "new"):
        with pytest.raises(MissingError, match=f"cannot write the model to {place}: cannot"):
            save_model(model, place)
    assert {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["tripled"]


def test_a_failed_exchange_puts_the_old_model_back(model: Model, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == saved:
            raise OSError(errno.EIO, "cannot")
        return real(self, target)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(MissingError):
        save_model(model, saved)
    assert np.array_equal(load(saved)(X), 3 * X)
    assert [p.name for p in saved.parent.iterdir()] == ["tripled"]


def test_several_at_once_take_turns(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        time.sleep(0.002)  # long enough for the others
        return real(self, target)
    monkeypatch.setattr(Path, "rename", rename)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(save_model, model, tmp_path / "build" / "tripled") for _ in range(24)]:
            done.result()
    assert [p.name for p in (tmp_path / "build").iterdir()] == ["tripled"]
    assert np.array_equal(load(tmp_path / "build" / "tripled")(X), 3 * X)


def test_a_file_in_the_way_of_the_parent(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MissingError, match="cannot write the model to"):
        save_model(model, tmp_path / "file" / "model")


def test_the_copied_runtime_needs_only_numpy_and_cupy() -> None:
    import ast
    allowed = {*sys.stdlib_module_names, "numpy", "cupy", "cupy_backends"}
    for path in Path(artefact.__file__).parent.glob("*.py"):
        if path.name in saving.NOT_COPIED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert all(a.name.partition(".")[0] in allowed for a in node.names), path
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module] if node.module else [a.name for a in node.names]
                assert node.level or (node.module or "").partition(".")[0] in allowed, path
                assert not node.level or not {f"{m}.py" for m in modules} & set(saving.NOT_COPIED), path
