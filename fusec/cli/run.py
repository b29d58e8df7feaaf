"""`fusec run`: a compiled folder or a network on a user's arrays or pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from fusec import debug, pipeline
from fusec.cli import options
from fusec.cli.arrays import check_result_file, read_inputs, write_results
from fusec.cli.building import build
from fusec.cli.networks import check_fit, read_network
from fusec.cli.output import extents, facts, in_seconds, line, print_json
from fusec.cli.progress import Progress
from fusec.errors import InputError, nearest
from fusec.graph.locate import find_graph, shipped_graphs
from fusec.graph.onnx.cut import Cut
from fusec.runtime.artefact import MANIFEST, load, read_manifest
from fusec.runtime.elements import is_bfloat16, widened
from fusec.runtime.model import Model
from fusec.targets.device import DTYPES
from fusec.tuning.whole import results_of

BEST = 5  # classes shown of a vector
MOST_IMAGES = 10  # whose classes are shown to people

Array = NDArray[np.float32]


@click.command(epilog="Example: fusec run build/lenet5 pictures.npy -o scores.npy")
@click.argument("network", metavar="DIR_OR_NET")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Where to write the result: .npy, .npz (by the outputs' names) or, for 1 or 3 channels, a picture.")
@click.option("--target", type=click.Choice(options.TARGETS), help="What to compile a network for.  [default: auto]")
@click.option("--dtype", type=click.Choice(DTYPES),
              help="The type of all tensors of a network; the half ones need a GPU.  [default: float32]")
@click.option("--fuse", metavar="auto|none|all|CHAINS", help="Which layers of a network share a kernel.  [default: auto]")
@options.weights
@options.part
@options.JSON
def command(network: str, inputs: tuple[Path, ...], output: Path | None, target: str | None, dtype: str | None,
            fuse: str | None, weights: Path | None, random_weights: int | None, cut: Cut, as_json: bool) -> None:
    """Run a compiled folder or a network on arrays or pictures.

    INPUT is a .npy file of shape (images, channels, height, width), a .npz with one array per input (by the input's name, or
    in order), or, with the extra `image`, a picture: scaled to 0..1, grey for networks of 1 channel, RGB for 3. Several files
    for a network with one input are put together as one batch; a network with several inputs takes one file for each, in order.
    Numbers are converted to the type of the model's tensors, with a note; results have that type too, but bfloat16, which files
    and NumPy have not, becomes float32.

    A network without weights gets random ones, and a note. Without -o it prints the shapes and, of vectors, the five largest
    values with their positions: the classes.
    """
    options.only_one(weights=weights, random_weights=random_weights)
    given = _Options(target, dtype, fuse, weights, random_weights, cut)
    _check_there(network)
    if output is not None:
        check_result_file(output)
    with Progress() as progress:
        model, arrays, seed = _opened(network, inputs, progress) if _is_compiled(network, given) \
            else _compiled(network, inputs, given, progress)
        progress.phase("running")
        began = time.perf_counter()
        made = results_of(model, tuple(arrays.values()))
        seconds = time.perf_counter() - began
    results = {p.name: widened(a) if is_bfloat16(a) else a for p, a in zip(model.program.outputs, made, strict=True)}
    if output is not None:
        write_results(output, results)
    if as_json:
        print_json({"network": model.program.name, "target": model.program.target, "dtype": model.program.dtype,
                    "random_weights": seed, "seconds": seconds, "file": None if output is None else str(output),
                    "outputs": [_described(name, array) for name, array in results.items()]})
    else:
        _show(model, results, output, seconds)


@dataclass(frozen=True)
class _Options:
    """The options that only a network takes; None where they are left out."""

    target: str | None
    dtype: str | None
    fuse: str | None
    weights: Path | None
    random_weights: int | None
    cut: Cut

    def words(self) -> list[str]:
        """The options that are given."""
        values = {"target": self.target, "dtype": self.dtype, "fuse": self.fuse, "weights": self.weights,
                  "random-weights": self.random_weights, "from": self.cut.start or None, "to": self.cut.end or None}
        return [f"--{name}" for name, value in values.items() if value is not None]


Ready = tuple[Model, Mapping[str, Array], int | None]  # the inputs by name; the seed where the weights are random


def _check_there(network: str) -> None:
    """InputError where there is neither a folder nor a network; a compiled folder of a like name is the hint."""
    try:
        find_graph(network)
    except InputError as error:
        folder = Path(network)
        try:
            if folder.is_dir():
                return
            built = sorted(p.name for p in folder.parent.iterdir() if (p / MANIFEST).is_file())
        except (OSError, ValueError):
            built = []
        hint = nearest(folder.name, built)
        raise InputError("no such folder or network", network, hint) if hint else error from None


def _is_compiled(network: str, given: _Options) -> bool:
    """Whether a compiled folder is meant; usage error when it comes with options for networks."""
    folder = Path(network)
    if not (folder / MANIFEST).is_file() and (network in shipped_graphs() or not folder.is_dir()):
        return False
    if wrong := given.words():
        raise click.UsageError(f"{folder} is compiled already: {', '.join(wrong)} can be given with a network only")
    return True


def _opened(network: str, files: tuple[Path, ...], progress: Progress) -> Ready:
    progress.phase("loading")
    model = load(network, threads=debug.threads(), compiler=debug.compiler())
    progress.phase("reading inputs")
    channels = {rule.name: rule.channels for rule in model.program.tensors}
    arrays = read_inputs(files, {port.name: channels[port.tensor] for port in model.program.inputs},
                         model.program.dtype)
    return model, arrays, read_manifest(Path(network)).get("random_weights")


def _compiled(network: str, files: tuple[Path, ...], given: _Options, progress: Progress) -> Ready:
    """A network compiled in memory, once its inputs are read and known to fit."""
    device = pipeline.choose_device(given.target or "auto", given.dtype or DTYPES[0])
    progress.phase("reading")
    graph, seed = read_network(network, given.weights, given.random_weights, given.cut)
    arrays = read_inputs(files, {node.name: graph.shapes[node.name].channels for node in graph.inputs}, device.dtype)
    check_fit(graph, device, tuple(arrays.values()))
    return build(graph, device, given.fuse or "auto", progress).model, arrays, seed


def _vectors(array: Array) -> Array | None:
    """The rows of a result that holds one vector per image."""
    if array.ndim == 2 or array.shape[2:] == (1, 1):
        return array.reshape(array.shape[:2])
    return None


def _best(row: Array) -> list[tuple[int, float]]:
    order = np.argsort(-row, kind="stable")[:BEST]
    return [(int(i), float(row[i])) for i in order]


def _described(name: str, array: Array) -> dict[str, Any]:
    vectors = _vectors(array)
    some = array.size > 0
    return {"name": name, "shape": list(array.shape), "min": float(array.min()) if some else None,
            "max": float(array.max()) if some else None, "mean": float(array.mean(dtype=np.float64)) if some else None,
            "top": None if vectors is None else [[{"class": i, "score": s} for i, s in _best(row)] for row in vectors]}


def _show(model: Model, results: Mapping[str, Array], output: Path | None, seconds: float) -> None:
    facts([("network", f"{model.program.name} on {model.program.target}"), ("time", f"{in_seconds(seconds)} for one call")])
    for name, array in results.items():
        described = _described(name, array)
        kind = f"{extents(array.shape)} {model.program.dtype}"
        spread = f", from {described['min']:.6g} to {described['max']:.6g}" if array.size else ""
        line(f"{name}: {kind}{spread}")
        if output is None and described["top"]:
            for index, classes in enumerate(described["top"][:MOST_IMAGES]):
                line(f"  {index}: " + "  ".join(f"{c['class']} ({c['score']:.4g})" for c in classes))
            if len(array) > MOST_IMAGES:
                line(f"  ... and {len(array) - MOST_IMAGES} more")
    if output is not None:
        facts([("written", str(output))])
