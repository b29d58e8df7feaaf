"""The fuzz run of the ONNX reader: damaged files either mean what onnxruntime makes of them, or are refused with an InputError.

    python -m tests.fuzz.onnx_fuzz --count 20000 --seed 0

In: a number of files to make. Out: what became of them, and the first file of every kind of failure. A failure is another
exception, more than `MOST_SECONDS` for a file, memory over `MOST_MEMORY`, a file opened for writing, or one read outside the
model's folder; or results that differ. Every network that is read is run by the reference and compared with onnxruntime, and
each new structure is built for the CPU and run too. `tests/fuzz/test_onnx_fuzz.py` runs some of it with hypothesis.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import fusec
from fusec.errors import Infeasible, InputError
from fusec.graph import layers as L
from fusec.graph import reference
from fusec.graph.graph import LayerGraph
from fusec.graph.read_onnx import read_onnx
from tests.fuzz.onnx_mutations import damaged
from tests.onnx_models import Array, by_onnxruntime

MOST_SECONDS = 5.0
MOST_MEMORY = 1 << 30  # bytes resident
MOST_PIXELS = 1 << 14  # of an input that is run; larger ones are read and planned only
LARGEST = 1e15  # values beyond are not compared: their squares leave float32
CLOSE = 1e-3  # of the largest value: float32 in another order, through quotients and powers

_watched: list[str] = []  # folder whose files may be read, while a file is being read
_touched: list[str] = []
_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes what the reader does to files."""
    if not _watched:
        return
    if event == "open" and isinstance(arguments[0], str | bytes):
        path, mode = os.fsdecode(arguments[0]), arguments[1] or "r"
        writes = any(letter in str(mode) for letter in "wax+")
        code = path.endswith((".py", ".pyc", ".so")) or path.startswith(sys.prefix)
        if writes or not (code or os.path.realpath(path).startswith(_watched[0])):
            _touched.append(f"{event} {path} {mode}")
    elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "subprocess.Popen", "os.system", "socket.connect"):
        _touched.append(f"{event} {arguments!r}")


def read(path: Path) -> LayerGraph | None:
    """The network of a file, None where it is refused; AssertionError where the reader breaks its word."""
    _touched.clear()
    _watched.append(os.path.realpath(path.parent))
    began = time.perf_counter()
    try:
        graph = read_onnx(path).graph
    except InputError as error:
        graph = None
        problems = error.problems
    finally:
        _watched.clear()
    assert graph is not None or all(p.what for p in problems)
    assert time.perf_counter() - began < MOST_SECONDS, "slow"
    assert _touched == [], _touched
    return graph


def structure(graph: LayerGraph) -> str:
    """What the kernels of a network depend on."""
    text = repr([(n.name, n.layer, n.inputs) for n in graph.nodes])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def inputs_of(graph: LayerGraph) -> list[Array] | None:
    """Small arrays for a network; None where its images are fixed at sizes that are not run."""
    arrays = []
    for node in graph.inputs:
        assert isinstance(node.layer, L.Input)
        shape = (1, node.layer.channels, node.layer.height or 8, node.layer.width or 8)
        if np.prod(shape) > MOST_PIXELS:
            return None
        arrays.append(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    return arrays


def results(graph: LayerGraph, arrays: list[Array]) -> list[Array] | None:
    """What the reference makes of them; None where sizes do not meet, it is too much, or float32 overflows."""
    try:
        sizes = graph.sizes(8, 8)
        if sum(graph.shapes[n].channels * h * w for n, (h, w) in sizes.items()) > 64 * MOST_PIXELS:
            return None
        with np.errstate(all="ignore"):
            made = reference.run(graph, dict(zip((n.name for n in graph.inputs), arrays, strict=True)), keep=True)
    except InputError:
        return None
    if not all((np.abs(values) < LARGEST).all() for values in made.values()):
        return None
    return [made[name] for name in graph.outputs]


def compare(made: list[Array], wanted: list[Array], tolerance: float) -> None:
    for one, other in zip(made, wanted, strict=True):
        assert one.size == np.size(other), f"{one.shape} instead of {np.shape(other)}"
        other = np.asarray(other, np.float64).reshape(one.shape)
        largest, apart = np.abs(other).max(initial=0.0), np.abs(one - other).max(initial=0.0)
        assert apart <= tolerance * max(largest, CLOSE), f"{apart} of {largest}"


def check(data: bytes, folder: Path, built: set[str]) -> str:
    """What becomes of one file: refused, read, compared or built; AssertionError or another exception is a failure."""
    path = folder / "net.onnx"
    path.write_bytes(data)
    graph = read(path)
    if graph is None:
        return "refused"
    arrays = inputs_of(graph)
    wanted = None if arrays is None else results(graph, arrays)
    if arrays is None or wanted is None:
        return "read"
    said = "run"
    if (theirs := _theirs(data, graph, arrays)) is not None:
        compare(wanted, theirs, CLOSE)
        said = "compared"
    if structure(graph) not in built:
        built.add(structure(graph))
        try:
            model = fusec.compile(path, target="cpu")
        except (InputError, Infeasible):
            return "refused when planned"
        made = model(*arrays)
        compare([np.asarray(m) for m in (made if isinstance(made, tuple) else (made,))], wanted, CLOSE)
        said = "built"
    return said


def _theirs(data: bytes, graph: LayerGraph, arrays: list[Array]) -> list[Array] | None:
    """The same by onnxruntime, where it takes the file; its inputs are those that the graph lists, ours those that are read."""
    from onnx import ModelProto

    ports = {port.name: port for port in ModelProto.FromString(data).graph.input}
    if [n.name for n in graph.inputs] != list(ports):
        return None
    given = [x.reshape(x.shape[:len(ports[n.name].type.tensor_type.shape.dim)]) for n, x in zip(graph.inputs, arrays,
                                                                                                strict=True)]
    try:
        return by_onnxruntime(ModelProto.FromString(data), *given)
    except Exception:
        return None


def watch() -> None:
    """Notes from now on what reading does to files; it cannot be undone, and costs nothing while nothing is read."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_audit)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    watch()
    said: Counter[str] = Counter()
    failures: dict[str, tuple[int, str]] = {}
    built: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(options.seed, options.seed + options.count):
            data = damaged(random.Random(index))
            try:
                said[check(data, Path(folder), built)] += 1
            except Exception as error:
                said["failed"] += 1
                failures.setdefault(f"{type(error).__name__}: {error}"[:200], (index, traceback.format_exc()))
            if index % 1000 == 999:
                print(index + 1, dict(said), f"{_memory() / 2**20:.0f} MiB", flush=True)
    for what, (index, trace) in failures.items():
        print(f"seed {index}: {what}\n{trace}")
    print(dict(said), f"{len(built)} structures built, {_memory() / 2**20:.0f} MiB at most")
    return int(bool(failures) or _memory() > MOST_MEMORY)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
