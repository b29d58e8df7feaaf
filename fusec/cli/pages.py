"""Pages and figures -> files.

In: text. Out: files, each whole or not there; one line of error where one cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fusec.errors import MissingError
from fusec.runtime.store import reason, write_atomically


def write_text(path: Path, text: str) -> None:
    """Write a file, in UTF-8; folders above it are made. MissingError when that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        raise MissingError(f"cannot write {path}: {reason(error)}") from None


def write_figures(folder: Path, figures: Mapping[str, str]) -> list[Path]:
    """Write SVG files by their names without suffix; other files of the folder are left alone."""
    files = {folder / f"{name}.svg": text for name, text in figures.items()}
    for path, text in files.items():
        write_text(path, text)
    return list(files)
