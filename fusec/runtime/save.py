"""Writing the directory of a generated model (its parts are listed in `artefact`).

In: what a `Model` consists of, and the plan in words. Out: a directory that works alone. It is written beside its place and
moved there when it is whole, so that a failure leaves what was there before. Not copied into artefacts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingError
from . import weights as weights_file
from .artefact import KIND, MANIFEST, REBUILT, WEIGHTS, read_manifest
from .program import Program, Source
from .store import file_digest
from .weights import Floats

NOT_COPIED = ("cache.py", "save.py")  # of fusec.runtime
CACHES = "__pycache__"

# The same for every model: no name of a network's description is ever pasted into code.
INIT = '''"""A network compiled by fusec; the docstring at run time says which."""

from pathlib import Path as _Path

from ._fusec.runtime import artefact as _artefact

__all__ = ["model"]
__doc__ = _artefact.describe(_Path(__file__).parent)


def __getattr__(name):
    if name != "model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    model = globals()["model"] = _artefact.load(_Path(__file__).parent)
    return model


def __dir__():
    return [*globals(), "model"]
'''
INNER_INIT = '"""The part of fusec that runs this model."""\n'


def save(directory: str | os.PathLike[str], program: Program, sources: Sequence[Source], binaries: Mapping[str, Path],
         weights: Mapping[str, Floats], plan: str, random_weights: int | None = None) -> Path:
    """Write a generated model.

    Parameters
    ----------
    directory
        Where to; missing parents are made. A generated model that is there is replaced, an empty directory is used.
    plan
        The plan in words, for the reader of the manifest.
    random_weights
        The seed of the weights when they are random; kept in the manifest.

    Returns
    -------
    The directory.

    Raises
    ------
    InputError
        Something else is there: another directory, a file, or a model with files that fusec did not write.
    MissingError
        It cannot be written (no room, no permission); what was there before is untouched.
    """
    target = Path(directory).resolve()
    draft = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(target.parent):
            _may_replace(target)
        draft.mkdir()
        _write(draft, program, sources, binaries, weights, {"plan": plan.splitlines(), "random_weights": random_weights})
        with _alone_in(target.parent):
            _may_replace(target)  # it may be another process's by now
            _move(draft, target)
    except OSError as error:
        place = f"{error.filename}: " if isinstance(error.filename, str) and Path(error.filename) in target.parents else ""
        raise MissingError(f"cannot write the model to {target}: {place}{error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Held while a model is looked at or moved: between its two renames there is none, which another process must not see."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # one that may be written but not read: as without locks
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _may_replace(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError("there is a file of this name", where=str(target), hint="choose another directory")
    if not any(target.iterdir()) and target.name:
        return
    try:
        manifest = read_manifest(target)
    except InputError:
        raise InputError("this directory holds something else and is left alone", where=str(target),
                         hint="choose another directory, or empty it") from None
    known = {MANIFEST, *manifest["files"]}
    own = [path for path in target.rglob("*") if path.is_file() and not _ours(path.relative_to(target), known)]
    if own:
        raise InputError(f"this model's directory has a file that fusec did not write: {own[0].relative_to(target)}",
                         where=str(target), hint="move it away, or choose another directory")


def _ours(path: Path, known: set[str]) -> bool:
    return path.as_posix() in known or CACHES in path.parts or path.as_posix().startswith(REBUILT + "/")


def _write(folder: Path, program: Program, sources: Sequence[Source], binaries: Mapping[str, Path],
           weights: Mapping[str, Floats], told: Mapping[str, object]) -> None:
    (folder / "src").mkdir()
    (folder / "lib").mkdir()
    kernels = {}
    for source in sources:
        (folder / "src" / source.filename).write_text(source.text, encoding="utf-8")
        binary = binaries[source.entry]
        # The content's digest is in the name: a process that has an older library of this path loaded would get that one again.
        name = f"{source.entry}.{file_digest(binary)[:12]}{binary.suffix}"
        shutil.copyfile(binary, folder / "lib" / name)
        kernels[source.entry] = {"source": f"src/{source.filename}", "binary": f"lib/{name}"}
    weights_file.write(folder / WEIGHTS, weights)
    _write_package(folder)
    files = {p.relative_to(folder).as_posix(): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    versions = {"fusec": program.version, "python": platform.python_version(), "numpy": np.__version__}
    manifest = {"kind": KIND, "versions": versions, **told, "program": program.to_json(), "kernels": kernels,
                "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _write_package(folder: Path) -> None:
    """The Python side: the package itself, and the runtime it runs on."""
    (folder / "__init__.py").write_text(INIT, encoding="utf-8")
    runtime = Path(__file__).parent
    inner = folder / "_fusec"
    (inner / "runtime").mkdir(parents=True)
    (inner / "__init__.py").write_text(INNER_INIT, encoding="utf-8")
    shutil.copyfile(runtime.parent / "errors.py", inner / "errors.py")
    for path in sorted(runtime.rglob("*.py")):
        if path.name not in NOT_COPIED:
            copy = inner / "runtime" / path.relative_to(runtime)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)


def _move(draft: Path, target: Path) -> None:
    """Put the draft in its place; the model that was there goes only when the new one stands."""
    if not target.exists():
        draft.rename(target)
        return
    old = target.with_name(f"{draft.name}.old")
    target.rename(old)
    try:
        draft.rename(target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
