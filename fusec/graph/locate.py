"""Where the shipped network descriptions are: the one place that knows.

In: a path or the plain name of a shipped network. Out: the path of a file that exists. In a checkout the folder is `graphs/` at
the top; in a wheel it is package data, `fusec/_data/graphs`.
"""

from __future__ import annotations

import os
from pathlib import Path

from fusec.errors import InputError, nearest

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
        folder = path.parent if path.parent != Path() else Path.cwd()
        files = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml", ".onnx")) if folder.is_dir() else []
    except (OSError, ValueError) as error:  # names too long for the file system, zero bytes
        raise InputError(f"no such network: {getattr(error, 'strerror', None) or error}", ascii(given)[:100]) from None
    hint = nearest(path.name, [*files, *names, *(f"{name}.yaml" for name in names)])
    raise InputError("no such file, and no shipped network has this name", given, hint or f"shipped: {', '.join(names)}")
