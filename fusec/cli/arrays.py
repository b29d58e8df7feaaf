"""Input files as arrays, and results as files.

In: paths of .npy, .npz and pictures, and the type of the network's tensors. Out: one float32 array (batch, channels, height,
width) per input of the network, of numbers that the type has; and the other way round, files that appear whole or not at all.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.cli.files import check_file, write_file
from fusec.cli.images import SUFFIXES, encode_image, is_image, read_image
from fusec.cli.output import extents, note, plural
from fusec.errors import InputError, Problem, nearest, nearest_file
from fusec.runtime.elements import offered, widened
from fusec.runtime.model import AXES

ARRAYS = (".npy", ".npz")

Array = NDArray[Any]


def read_inputs(files: Sequence[Path], channels: Mapping[str, int], dtype: str) -> dict[str, Array]:
    """The arrays of all inputs: float32, rounded to `dtype`, and a note where that is another type than a file's.

    Parameters
    ----------
    files
        One .npz with an array per input, by name or in order; or one file per input, in order. For a network with one input
        several files are put together along the batch.
    channels
        The inputs' names and channels, in the network's order.
    dtype
        The type of the network's tensors.

    Raises
    ------
    InputError
        Files that are missing, damaged, too few or too many.
    MissingError
        A picture, but no Pillow.
    """
    names = list(channels)
    if len(names) == 1:
        given = {names[0]: [(path, _one(path, names[0], channels[names[0]])) for path in files]}
    elif len(files) == 1 and files[0].suffix.lower() == ".npz":
        given = {name: [(files[0], array)] for name, array in _by_name(files[0], names).items()}
    elif len(files) == len(names):
        given = {name: [(path, _one(path, name, channels[name]))] for path, name in zip(files, names, strict=True)}
    else:
        raise InputError(f"the network has {len(names)} inputs ({', '.join(names)}), but got {plural(len(files), 'file')}",
                         hint="give one file per input in this order, or one .npz with all of them")
    if problems := [problem for name, parts in given.items() for path, array in parts
                    for problem in _misfits(array, path, name, channels[name], dtype)]:
        raise InputError(problems)
    return {name: _converted(_joined(parts), name, dtype) for name, parts in given.items()}


def check_result_file(path: Path) -> None:
    """InputError when results cannot be written under this name."""
    if path.suffix.lower() not in (*ARRAYS, *SUFFIXES):
        raise InputError(f"results are written as {', '.join((*ARRAYS, *SUFFIXES))}, not '{path.suffix or path.name}'",
                         str(path), nearest(path.suffix, (*ARRAYS, *SUFFIXES)))
    check_file(path)


def write_results(path: Path, results: Mapping[str, Array]) -> None:
    """Write the outputs; .npy and pictures hold one, .npz all by name. MissingError when the file cannot be written."""
    kind = path.suffix.lower()
    if kind != ".npz" and len(results) > 1:
        raise InputError(f"the network has {len(results)} outputs ({', '.join(results)}), but {kind} holds one", str(path),
                         "name a .npz file")
    first = next(iter(results.values()))
    data = _npz(results) if kind == ".npz" else _npy(first) if kind == ".npy" else encode_image(first, path)
    write_file(path, data)


def _one(path: Path, name: str, channels: int) -> Array:
    """The array of one input from a file of any kind."""
    if is_image(path):
        return read_image(path, channels)
    loaded = _load(path)
    if not isinstance(loaded, dict):
        return loaded
    if name in loaded or len(loaded) == 1:
        return loaded.get(name, next(iter(loaded.values())))
    none = f"; none of them is called '{name}', as the network's input is" if loaded else ""
    raise InputError(f"it holds {_listed(loaded)}{none}", str(path))


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
    return {name: loaded[name] for name in names}


def _load(path: Path) -> Array | dict[str, Array]:
    """The content of a .npy or .npz file."""
    if path.suffix.lower() not in ARRAYS:
        raise InputError(f"inputs are {', '.join((*ARRAYS, *SUFFIXES))}, not '{path.suffix or path.name}'", str(path),
                         nearest(path.suffix, (*ARRAYS, *SUFFIXES)))
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded as archive:
                return {key: archive[key] for key in archive.files}
        return np.asarray(loaded)
    except FileNotFoundError:
        raise InputError("no such file", str(path), nearest_file(path, *ARRAYS, *SUFFIXES)) from None
    except MemoryError:
        raise InputError("it does not fit into memory", str(path)) from None
    except (OSError, ValueError, EOFError, SyntaxError, KeyError, zipfile.BadZipFile) as error:
        kept = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"not a readable {path.suffix.lower()} file: {kept}", str(path)) from None


def _misfits(array: Array, path: Path, name: str, channels: int, dtype: str) -> Iterator[Problem]:
    """Why a file is not this input. A model finds the same, but tells how to mend an array; here a file has to be."""
    if array.dtype.kind != "f":
        yield Problem(f"input '{name}' is {array.dtype}, but the network computes in {dtype}", str(path),
                      "write the file with float32 values, scaled as in training")
    if array.ndim != 4:
        yield Problem(f"input '{name}' has {array.ndim} axes instead of 4 ({AXES})", str(path),
                      "write a single image as a batch of one" if array.ndim == 3 else "")
    elif array.shape[1] != channels:
        yield Problem(f"input '{name}' has {array.shape[1]} channels instead of {channels}", str(path),
                      "write the channels before height and width" if array.shape[3] == channels else "")


def _joined(parts: Sequence[tuple[Path, Array]]) -> Array:
    (first_path, first), *others = parts
    if not others:
        return first
    for path, array in others:
        if array.shape[1:] != first.shape[1:]:
            raise InputError(f"its images are {extents(array.shape[1:])}, those of {first_path} {extents(first.shape[1:])}",
                             str(path), "files of one call must hold images of one size")
    return np.concatenate([array for _, array in parts])


def _converted(array: Array, name: str, dtype: str) -> Array:
    """Other floating-point numbers are converted, and that is said."""
    made = widened(offered(array, dtype))
    if array.dtype != dtype:
        lost = int(np.count_nonzero(np.isinf(made) & np.isfinite(array)))
        note(f"input '{name}' is {array.dtype}; converted to {dtype}"
             + (f", beyond whose range {plural(lost, 'value')} became infinite" if lost else ""))
    return made


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
