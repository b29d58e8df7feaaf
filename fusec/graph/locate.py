"""Where the shipped network descriptions are: the one place that knows.

In: a path or the plain name of a shipped network. Out: the path of a file that exists. In a checkout the folder is `graphs/` at
the top; in a wheel it is package data, `fusec/_data/graphs`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fusec.errors import InputError, nearest

SUFFIXES = (".yaml", ".yml", ".onnx")

_PACKAGE = Path(__file__).resolve().parent.parent


def graphs_folder() -> Path:
    """The folder of the shipped descriptions."""
    packed = _PACKAGE / "_data" / "graphs"
    return packed if packed.is_dir() else _PACKAGE.parent / "graphs"


def shipped_graphs() -> tuple[str, ...]:
    """Names of the shipped networks, in alphabetical order."""
    return tuple(sorted(p.stem for p in graphs_folder().glob("*.yaml")))


def find_graph(path_or_name: str | os.PathLike[str]) -> Path:
    """The file a user means.

    Parameters
    ----------
    path_or_name
        A path, or the name of a shipped network with or without `.yaml`. An existing file goes first; then the shipped names.

    Raises
    ------
    InputError
        Neither; the hint is the nearest name, of the shipped networks or in the folder of the path.
    """
    given = os.fspath(path_or_name)
    path = Path(given)
    try:
        if path.is_file():
            return path
        names = shipped_graphs()
        stem = given.removesuffix(".yaml")
        if stem in names:
            return graphs_folder() / f"{stem}.yaml"
        if path.is_dir():
            raise InputError("this is a directory, not a network description", str(path), "name a .yaml or .onnx file")
        hint = _hint(path, names)
    except (OSError, ValueError) as error:  # names too long for the file system, zero bytes
        raise InputError(f"no such network: {getattr(error, 'strerror', None) or error}", ascii(given)[:100]) from None
    raise InputError("no such file, and no shipped network has this name", given, hint)


def _hint(path: Path, names: Sequence[str]) -> str:
    """What may have been meant: by stems, since an ending that two names share makes them look alike."""
    stem = path.stem if path.suffix in SUFFIXES else path.name
    if stem in names:
        return f"the shipped network is '{stem}', without folder or ending"
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder '{folder}'"
    files = {p.stem: p.name for p in sorted(folder.iterdir()) if p.suffix in SUFFIXES}
    return nearest(stem, {name: name for name in names} | files) or f"shipped: {', '.join(names)}"
