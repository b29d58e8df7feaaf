"""The user's cache of compiled kernels: a `Store` with a lock per kernel, and what `fusec cache` shows.

In: a folder, by default the platform's cache folder. Out: paths of binaries; the list of what is kept. Not copied into
artefacts: it needs platformdirs and filelock.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from ..errors import MissingError
from .store import SUM, Store, reason, whole

LOCK = ".lock"


@dataclass(frozen=True)
class Entry:
    """One compiled kernel on the disk."""

    path: Path
    bytes: int
    modified: float  # seconds since the epoch


class Cache(Store):
    """Compiled kernels of one user, shared by all processes.

    Parameters
    ----------
    folder
        None is the platform's cache folder (`~/.cache/fusec` on Linux).
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(Path(platformdirs.user_cache_dir("fusec", appauthor=False)) if folder is None else folder)

    def _lock(self, path: Path) -> contextlib.AbstractContextManager[object]:
        return FileLock(path.with_name(path.name + LOCK))

    def list(self) -> tuple[Entry, ...]:
        """The kernels kept, oldest first; MissingError when the folder cannot be read."""
        entries = []
        for sum_file in self._files(SUM):
            path = sum_file.with_name(sum_file.name.removesuffix(SUM))
            with contextlib.suppress(FileNotFoundError):  # another process may be clearing
                status = path.stat()
                entries.append(Entry(path, status.st_size, status.st_mtime))
        return tuple(sorted(entries, key=lambda e: (e.modified, e.path)))

    def verify(self) -> tuple[Entry, ...]:
        """The kernels that are not what was written; they would be built anew when needed."""
        return tuple(e for e in self.list() if not whole(e.path))

    def clear(self) -> int:
        """Remove all kernels; returns how many. Models in use keep theirs. MissingError when one cannot be removed."""
        count = len(self.list())
        try:
            for path in self._files(""):
                if path.is_file():
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise MissingError(f"cannot clear the cache {self.folder}: {reason(error)}") from None
        return count

    def _files(self, suffix: str) -> tuple[Path, ...]:
        """Files of ours: their names start with a digest, so that a folder given by mistake loses nothing else."""
        try:
            found = [p for p in self.folder.iterdir() if p.name.endswith(suffix)]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise MissingError(f"cannot read the cache {self.folder}: {reason(error)}") from None
        return tuple(sorted(p for p in found if _is_digest(p.name.lstrip(".").partition(".")[0])))


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
