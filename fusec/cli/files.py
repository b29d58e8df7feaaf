"""Results -> files: pages, figures, lockfiles, arrays.

In: a place that a user has named, text or bytes. Out: files, each whole or not there; one line of error where one cannot be
written. What an option names is made or replaced, the folder it lies in has to be there, and only regular files are replaced.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fusec.errors import InputError, MissingError
from fusec.runtime.store import reason, write_atomically


def check_file(path: Path) -> None:
    """InputError when no file of this name can be written: said before anything is worked out."""
    if path.is_dir():
        raise InputError("this is a directory", str(path), "name a file")
    if os.path.lexists(path) and not path.is_file():
        raise InputError("this is no regular file and is left alone", str(path), "name another")
    _check_above(path)


def check_folder(path: Path) -> None:
    """InputError when this is no folder and cannot become one."""
    if os.path.lexists(path) and not path.is_dir():
        raise InputError("this is no directory and is left alone", str(path), "name another")
    if not path.is_dir():
        _check_above(path)


def _check_above(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError("its folder does not exist", str(path), "make it, or choose another")
    if not os.access(path.parent, os.W_OK):
        raise InputError("its folder cannot be written", str(path), "choose another")


def write_file(path: Path, data: bytes) -> None:
    """Write a file, or what a link leads to. InputError as `check_file`, MissingError when the system refuses."""
    check_file(path)
    try:
        write_atomically(path.resolve(), data)
    except OSError as error:
        raise MissingError(f"cannot write {path}: {reason(error)}") from None


def write_text(path: Path, text: str) -> None:
    """The same for text, in UTF-8."""
    write_file(path, text.encode("utf-8"))


def make_folder(path: Path) -> None:
    """Make a folder and those above it. MissingError when that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(f"cannot make {path}: {reason(error)}") from None


def write_figures(folder: Path, figures: Mapping[str, str]) -> list[Path]:
    """Write SVG files by their names without suffix; other files of the folder are left alone."""
    check_folder(folder)
    make_folder(folder)
    files = {folder / f"{name}.svg": text for name, text in figures.items()}
    for path in files:
        check_file(path)
    for path, text in files.items():
        write_text(path, text)
    return list(files)
