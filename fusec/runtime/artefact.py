"""Reading the directory of a generated model.

    __init__.py           `model`, loaded on first use
    manifest.json         the program, versions, the plan in words, the seed of random weights, and the SHA-256 of every file
    weights.safetensors   packed weights
    src/                  generated sources, one per kernel
    lib/                  shared libraries or cubins
    _fusec/               what runs them: a copy of fusec.errors and fusec.runtime

In: such a directory, made by `save`. Out: a `Model`. What is loaded is checked against the manifest's hashes first; what was
built for another CPU is built anew from the sources.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, MissingError
from . import build, cpu, weights
from .model import Model, describe_shape
from .program import Program, Source
from .store import Store, file_digest

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
KIND = "fusec model"
REBUILT = "lib/rebuilt"  # what a foreign CPU or GPU made necessary; not in the manifest
MAX_MANIFEST = 64 << 20


def load(directory: str | os.PathLike[str], *, threads: int | None = None, compiler: str | None = None) -> Model:
    """Load a generated model.

    Parameters
    ----------
    directory
        What `fusec compile ... -o DIRECTORY` left.
    threads
        The CPU model's threads; None is all that the process may use.
    compiler
        The C++ compiler, needed only when the model was built for another CPU.

    Raises
    ------
    InputError
        The directory is missing, damaged, or no generated model.
    MissingError
        It was built for another CPU, and there is no compiler here to build it anew.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    program = Program.from_json(manifest["program"])
    try:
        sources = [_source(folder, manifest, entry) for entry in manifest["kernels"]]
        packed = weights.read(_checked(folder, manifest, WEIGHTS))
        store = Store(folder / REBUILT)
        if program.target == "cpu" and program.arch != cpu.signature():
            binaries = _rebuild(folder, program, sources, store, compiler)
            program = dataclasses.replace(program, arch=cpu.signature())
        else:
            binaries = {entry: _checked(folder, manifest, kernel["binary"]) for entry, kernel in manifest["kernels"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"its manifest lacks {error}") from None
    return build.assemble(program, sources, binaries, packed, store=store, threads=threads)


def describe(directory: str | os.PathLike[str]) -> str:
    """What the model computes, in a few lines: the docstring of the directory as a Python package."""
    program = Program.from_json(read_manifest(Path(directory))["program"])
    lines = [f"The network {program.name!r}, compiled by fusec {program.version} for {program.target} ({program.arch}).", "",
             f"`model(x)` takes and returns NumPy arrays, CuPy arrays or torch tensors, all {program.dtype}.", ""]
    for title, ports in (("inputs", program.inputs), ("outputs", program.outputs)):
        lines += [f"{title}:", *(f"    {port.name}  {describe_shape(program, port)}" for port in ports)]
    return "\n".join(lines)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a generated model; InputError when the directory is none."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError("no such directory" if not folder.exists() else "is no directory", where=str(folder),
                         hint="make one with `fusec compile NETWORK -o DIRECTORY`")
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise _damaged(folder, "its manifest is larger than any that fusec writes")
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"this directory is no generated model: it has no {MANIFEST}", where=str(folder),
                         hint="make one with `fusec compile NETWORK -o DIRECTORY`") from None
    except OSError as error:
        raise InputError(f"the manifest cannot be read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"its manifest is no JSON ({error})") from None
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise InputError(f"this directory is no generated model: its {MANIFEST} is of another kind", where=str(folder))
    if not all(isinstance(data.get(key), dict) for key in ("program", "kernels", "files")):
        raise _damaged(folder, "its manifest is incomplete")
    return data


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(f"this model is damaged: {what}", where=str(folder), hint="compile the network again")


def _checked(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """The path of a file of the model whose content is what the manifest says."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise _damaged(folder, f"{name!r} is outside it")
    path = folder / relative
    try:
        same = file_digest(path) == manifest["files"][name]
    except FileNotFoundError:
        raise _damaged(folder, f"{name} is missing") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    if not same:
        raise _damaged(folder, f"{name} is not what was written")
    return path


def _source(folder: Path, manifest: Mapping[str, Any], entry: str) -> Source:
    name = manifest["kernels"][entry]["source"]
    text = _checked(folder, manifest, name).read_text("utf-8")
    return Source(entry, text, "cuda" if name.endswith(".cu") else "cpp")


def _rebuild(folder: Path, program: Program, sources: list[Source], store: Store, preferred: str | None) -> dict[str, Path]:
    try:
        compiler = cpu.find_compiler(preferred)
    except MissingError as error:
        raise MissingError(f"{folder} was built for another CPU ({program.arch}; this one is {cpu.signature()}) and has to be "
                           f"built anew, but: {error}") from None
    return build.build("cpu", cpu.signature(), sources, store, compiler)
