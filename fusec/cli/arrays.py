"""Input files as arrays, and results as files.

In: paths of .npy, .npz and pictures. Out: one float32 array (batch, channels, height, width) per input of the network; and the
other way round, files that appear whole or not at all.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.cli.images import SUFFIXES, encode_image, is_image, read_image
from fusec.cli.output import note
from fusec.errors import InputError, MissingError, Problem, nearest
from fusec.runtime.store import reason, write_atomically

ARRAYS = (".npy", ".npz")

Array = NDArray[Any]


def read_inputs(files: Sequence[Path], channels: Mapping[str, int]) -> dict[str, Array]:
    """The arrays of all inputs.

    Parameters
    ----------
    files
        One .npz with an array per input, by name or in order; or one file per input, in order. For a network with one input
        several files are put together along the batch.
    channels
        The inputs' names and channels, in the network's order.

    Raises
    ------
    InputError
        Files that are missing, damaged, too few or too many.
    MissingError
        A picture, but no Pillow.
    """
    names = list(channels)
    if len(files) == 1 and files[0].suffix.lower() == ".npz" and len(names) > 1:
        return _by_name(files[0], names)
    if len(names) == 1:
        parts = [_one(path, names[0], channels[names[0]]) for path in files]
        return {names[0]: _float32(_joined(files, parts), names[0])}
    if len(files) != len(names):
        raise InputError(f"the network has {len(names)} inputs ({', '.join(names)}), but {len(files)} files were given",
                         hint="give one file per input in this order, or one .npz with all of them")
    return {name: _float32(_one(path, name, channels[name]), name) for path, name in zip(files, names, strict=True)}


def check_result_file(path: Path) -> None:
    """InputError when results cannot be written under this name."""
    if path.suffix.lower() not in (*ARRAYS, *SUFFIXES):
        raise InputError(f"results are written as {', '.join((*ARRAYS, *SUFFIXES))}, not '{path.suffix}'", str(path),
                         nearest(path.suffix.lower(), (*ARRAYS, *SUFFIXES)))


def write_results(path: Path, results: Mapping[str, Array]) -> None:
    """Write the outputs; .npy and pictures hold one, .npz all by name. MissingError when the file cannot be written."""
    kind = path.suffix.lower()
    if kind != ".npz" and len(results) > 1:
        raise InputError(f"the network has {len(results)} outputs ({', '.join(results)}), but {kind} holds one", str(path),
                         "name a .npz file")
    first = next(iter(results.values()))
    data = _npz(results) if kind == ".npz" else _npy(first) if kind == ".npy" else encode_image(first, path)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise MissingError(f"cannot write {path}: {reason(error)}") from None


def _one(path: Path, name: str, channels: int) -> Array:
    """The array of one input from a file of any kind."""
    if is_image(path):
        return read_image(path, channels)
    loaded = _load(path)
    if not isinstance(loaded, dict):
        return loaded
    if name in loaded or len(loaded) == 1:
        return loaded.get(name, next(iter(loaded.values())))
    raise InputError(f"it holds {_listed(loaded)}; none of them is called '{name}', as the network's input is", str(path))


def _by_name(path: Path, names: list[str]) -> dict[str, Array]:
    """All inputs of one .npz: by name, or in order where no name fits."""
    loaded = _load(path)
    assert isinstance(loaded, dict)
    if not set(loaded) & set(names) and len(loaded) == len(names):
        loaded = dict(zip(names, loaded.values(), strict=True))
    problems = [Problem(f"it has no array for input '{n}'", str(path), f"it holds {_listed(loaded)}") for n in names
                if n not in loaded]
    problems += [Problem(f"the network has no input '{n}'", str(path), nearest(n, names)) for n in loaded if n not in names]
    if problems:
        raise InputError(problems)
    return {name: _float32(loaded[name], name) for name in names}


def _load(path: Path) -> Array | dict[str, Array]:
    """The content of a .npy or .npz file."""
    if path.suffix.lower() not in ARRAYS:
        raise InputError(f"inputs are {', '.join((*ARRAYS, *SUFFIXES))}, not '{path.suffix}'", str(path),
                         nearest(path.suffix.lower(), (*ARRAYS, *SUFFIXES)))
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded as archive:
                return {key: archive[key] for key in archive.files}
        return np.asarray(loaded)
    except FileNotFoundError:
        siblings = sorted(p.name for p in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        raise InputError("no such file", str(path), nearest(path.name, siblings)) from None
    except MemoryError:
        raise InputError("it does not fit into memory", str(path)) from None
    except (OSError, ValueError, EOFError, SyntaxError, KeyError, zipfile.BadZipFile) as error:
        kept = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"not a readable {path.suffix.lower()} file: {kept}", str(path)) from None


def _joined(files: Sequence[Path], parts: list[Array]) -> Array:
    if len(parts) == 1:
        return parts[0]
    odd = next((i for i, part in enumerate(parts) if part.ndim != 4 or part.shape[1:] != parts[0].shape[1:]), None)
    if odd is not None:
        raise InputError(f"its shape is {parts[odd].shape}, that of {files[0]} is {parts[0].shape}", str(files[odd]),
                         "files of one call must hold images of one size")
    return np.concatenate(parts)


def _float32(array: Array, name: str) -> Array:
    """Other floating-point numbers are converted, and that is said; whole numbers are left for the model to refuse."""
    if array.dtype == np.float32 or array.dtype.kind != "f":
        return array
    note(f"input '{name}' is {array.dtype}; converted to float32")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _npz(results: Mapping[str, Array]) -> bytes:
    """Names with a path's separators do not become members of an archive: somebody may unpack it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, (name, array) in enumerate(results.items()):
            key = f"output_{index}" if set(name) & set("/\\:") else name
            archive.writestr(f"{key}.npy", _npy(array))
    return buffer.getvalue()


def _listed(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"'{name}'" for name in list(arrays)[:10]) or "no arrays"
