"""Built kernels in a folder, by content.

In: a key (the digest of all that a binary depends on) and a way to build it. Out: the path of a binary known to be whole. Used
by `build`; an artefact keeps what it had to rebuild in a `Store` of its own, fusec itself uses the subclass `cache.Cache`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from ..errors import MissingError

SUM = ".sha256"  # suffix of the file beside a binary that holds its digest


def digest(*parts: str | bytes) -> str:
    """Hexadecimal SHA-256 of the parts, each told from its neighbours by its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that other processes see the old file or the new one, never a part; OSError when it cannot be done."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


class Store:
    """A folder of built kernels.

    Parameters
    ----------
    folder
        Made on first use. When it cannot be written, a temporary folder of this process takes its place, with one warning.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fallback: tempfile.TemporaryDirectory[str] | None = None
        self._guard = threading.Lock()

    def get_or_build(self, key: str, suffix: str, build: Callable[[], bytes]) -> Path:
        """The binary called `key`, from the folder if it is there and whole, else from `build`.

        Errors of `build` pass through; MissingError when not even a temporary folder can be written.
        """
        path = self.folder / f"{key}{suffix}"
        if whole(path):
            return path
        if self._fallback and whole(Path(self._fallback.name) / path.name):
            return Path(self._fallback.name) / path.name
        once = functools.cache(build)  # what cannot be kept here is kept elsewhere, not built twice
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(path):
                return path if whole(path) else _keep(path, once())
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            return self._get_temporary(path.name, error, once)

    def _lock(self, path: Path) -> contextlib.AbstractContextManager[object]:
        """Held while `path` is built, so that two processes do not both build it; without it they would, harmlessly."""
        return contextlib.nullcontext()

    def _get_temporary(self, name: str, error: Exception, build: Callable[[], bytes]) -> Path:
        try:
            path = self._temporary_folder(error) / name
            return path if whole(path) else _keep(path, build())
        except OSError as second:
            raise MissingError(f"compiled kernels can be written neither to {self.folder} ({reason(error)}) nor to a "
                               f"temporary folder ({reason(second)}); make room, or set TMPDIR") from None

    def _temporary_folder(self, error: Exception) -> Path:
        with self._guard:
            if self._fallback is None:
                self._fallback = tempfile.TemporaryDirectory(prefix="fusec-", ignore_cleanup_errors=True)
                warnings.warn(f"cannot keep compiled kernels in {self.folder} ({reason(error)}); they are built anew "
                              "in every process", RuntimeWarning, stacklevel=4)
            return Path(self._fallback.name)


def reason(error: Exception) -> str:
    """Why an operation of the system failed, without its number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def whole(path: Path) -> bool:
    """Whether the binary is there and is what was written."""
    try:
        return path.with_name(path.name + SUM).read_text("ascii").strip() == file_digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _keep(path: Path, data: bytes) -> Path:
    """Write the binary, then its digest: a process stopped between the two leaves a pair that does not match."""
    write_atomically(path, data)
    try:
        write_atomically(path.with_name(path.name + SUM), hashlib.sha256(data).hexdigest().encode())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()  # on a full disk nothing useless stays
        raise
    return path
