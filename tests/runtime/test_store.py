"""Built kernels on the disk: kept once, whole, by several processes, and when the folder cannot be written."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from fusec.errors import InternalError, MissingError
from fusec.runtime import store as store_module
from fusec.runtime.cache import Cache
from fusec.runtime.store import Store, digest, whole

KEY = digest("a", "b")


def test_digest_tells_parts_apart() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", ""), digest(b"abc", "", "")}) == 5
    assert digest("x") == hashlib.sha256((1).to_bytes(8, "little") + b"x").hexdigest()


@pytest.mark.parametrize("kind", [Store, Cache])
def test_built_once_and_found_again(kind: type[Store], tmp_path: Path) -> None:
    calls: list[int] = []

    def build() -> bytes:
        calls.append(1)
        return b"library"
    for _ in range(3):
        path = kind(tmp_path / "deep" / "er").get_or_build(KEY, ".so", build)
        assert path.read_bytes() == b"library"
        assert path.suffix == ".so"
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["content", "sum", "no sum", "gone", "binary sum"])
def test_what_is_damaged_is_built_again(damage: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = cache.get_or_build(KEY, ".so", lambda: b"one")
    beside = path.with_name(path.name + store_module.SUM)
    {"content": lambda: path.write_bytes(b"on"), "sum": lambda: beside.write_text("0"), "no sum": beside.unlink,
     "gone": path.unlink, "binary sum": lambda: beside.write_bytes(b"\xff\xfe")}[damage]()
    assert not whole(path)
    assert cache.get_or_build(KEY, ".so", lambda: b"two").read_bytes() == b"two"
    assert whole(path)


def test_an_error_of_the_build_passes_and_leaves_nothing(tmp_path: Path) -> None:
    def build() -> bytes:
        raise InternalError("no")
    with pytest.raises(InternalError, match="no"):
        Cache(tmp_path).get_or_build(KEY, ".so", build)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_costs_one_warning_and_no_second_build(
        number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = store_module.write_atomically, []

    def write(path: Path, data: bytes) -> None:
        if path.is_relative_to(tmp_path):
            raise OSError(number, "cannot")
        real(path, data)
    monkeypatch.setattr(store_module, "write_atomically", write)
    cache = Cache(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for key in (KEY, digest("other"), KEY):
            path = cache.get_or_build(key, ".so", lambda: calls.append(1) or b"library")  # type: ignore[func-returns-value]
            assert path.read_bytes() == b"library"
            assert not path.is_relative_to(tmp_path)
    assert len(caught) == 1 and "cannot keep compiled kernels in" in str(caught[0].message)
    assert len(calls) == 2


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    with pytest.warns(RuntimeWarning, match="cannot keep"):
        assert Cache(tmp_path / "cache").get_or_build(KEY, ".so", lambda: b"x").read_bytes() == b"x"
    assert (tmp_path / "cache").read_text() == "mine"


def test_no_room_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(store_module, "write_atomically", write)
    with pytest.warns(RuntimeWarning), pytest.raises(MissingError, match=r"neither to .*No space left.*TMPDIR"):
        Cache(tmp_path).get_or_build(KEY, ".so", lambda: b"x")


def test_a_binary_without_room_for_its_digest_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store_module.write_atomically

    def write(path: Path, data: bytes) -> None:
        if path.parent == tmp_path and path.suffix == store_module.SUM:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)
    monkeypatch.setattr(store_module, "write_atomically", write)
    with pytest.warns(RuntimeWarning, match="cannot keep"):
        assert Cache(tmp_path).get_or_build(KEY, ".so", lambda: b"x").read_bytes() == b"x"
    assert [p for p in tmp_path.iterdir() if p.stat().st_size] == []


def test_a_kept_kernel_is_used_from_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Cache(tmp_path).get_or_build(KEY, ".so", lambda: b"x")
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: pytest.fail("wrote"))
    assert Cache(tmp_path).get_or_build(KEY, ".so", lambda: pytest.fail("built")) == path


def build_slowly(folder: Path, log: Any) -> None:
    def build() -> bytes:
        log.put(1)
        time.sleep(0.3)
        return b"library"
    assert Cache(folder).get_or_build(KEY, ".so", build).read_bytes() == b"library"


def test_several_processes_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = context.Queue()
    children = [context.Process(target=build_slowly, args=(tmp_path, log)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert log.get(timeout=5) == 1
    assert log.empty()


def test_listed_verified_cleared_and_nothing_else_touched(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.list() == () and cache.clear() == 0
    paths = [cache.get_or_build(digest(name), ".so", lambda: b"12345") for name in "abc"]
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / f".{KEY}.so.1.draft").write_text("left by a process that was killed")
    assert {e.path for e in cache.list()} == set(paths)
    assert sum(e.bytes for e in cache.list()) == 15
    assert cache.verify() == ()
    paths[1].write_bytes(b"54321")
    assert [e.path for e in cache.verify()] == [paths[1]]
    assert cache.clear() == 3
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    assert Cache(tmp_path / "never").list() == ()


def test_the_folder_by_default_is_the_platform_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().folder.name == "fusec"
    assert not Cache().folder.exists()
