"""`fusec compile`: a network as a folder that runs alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from fusec import pipeline
from fusec.cli import options
from fusec.cli.building import Built, build, device_in_words, plan_in_words, sizes_in_words, why_unfused
from fusec.cli.networks import default_lock, read_network
from fusec.cli.options import Shape4
from fusec.cli.output import facts, in_seconds, line, plural, print_json
from fusec.cli.progress import Progress
from fusec.graph.locate import find_graph
from fusec.graph.onnx.cut import Cut
from fusec.runtime.program import POOL
from fusec.runtime.save import save

BESIDE = ""  # --locked without a FILE


@click.command(epilog="Example: fusec compile lenet5 --target cpu -o build/lenet5")
@options.NETWORK
@options.TARGET
@options.DTYPE
@options.FUSE
@options.SHAPE
@options.weights
@options.part
@options.ARCH
@click.option("--locked", is_flag=False, flag_value=BESIDE, metavar="[FILE]",
              help="Make exactly the schedules of a lockfile that fusec tune wrote; NET.TARGET.lock when no FILE is named.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
              help="The folder to write; build/NAME when left out. A compiled model that is there is replaced.")
@options.JSON
def command(network: str, target: str, dtype: str, fuse: str, shape: Shape4 | None, weights: Path | None,
            random_weights: int | None, cut: Cut, arch: str | None, locked: str | None, output: Path | None,
            as_json: bool) -> None:
    """Plan, generate and build a network, and write it as a folder.

    NET is the path of a description or the name of a shipped network. The folder holds the generated source, the compiled
    kernels, the weights and a manifest. fusec.load(DIR) and fusec run DIR use it; so does Python's import, with the folder
    above it on the path, and without fusec. A network without weights gets random ones, and a note.
    """
    options.only_one(weights=weights, random_weights=random_weights)
    options.only_one(fuse=None if fuse == "auto" else fuse, locked=locked)
    options.only_one(shape=shape, locked=locked)
    began = time.perf_counter()
    with Progress() as progress:
        device = pipeline.choose_device(target, dtype, arch)
        progress.phase("reading")
        graph, seed = read_network(network, weights, random_weights, cut)
        lock = default_lock(network, device) if locked == BESIDE else Path(locked) if locked else None
        built = build(graph, device, fuse, progress, shape, lock)
        progress.phase("writing")
        place = output or Path("build") / find_graph(network).stem
        save(place, built.generated.program, built.generated.sources, built.model.binaries, built.generated.weights,
             plan_in_words(built.plan), seed)
    result = _result(built, fuse, lock, seed, place, time.perf_counter() - began)
    if as_json:
        print_json(result)
    else:
        _show(built, result)


def _result(built: Built, fuse: str, lock: Path | None, seed: int | None, place: Path, seconds: float) -> dict[str, Any]:
    program, nominal = built.generated.program, built.plan.nominal
    chains = [{"name": launch.label, "layers": list(layers), "kernels": [v.entry for v in launch.variants],
               "tiles": [list(v.tile) for v in launch.variants]}
              for launch, layers in zip(program.launches, built.chains, strict=True)]
    return {"network": program.name, "target": program.target, "arch": program.arch, "dtype": program.dtype, "fuse": fuse,
            "batches": list(nominal.batches), "height": nominal.height, "width": nominal.width,
            "locked": None if lock is None else str(lock), "random_weights": seed, "directory": str(place), "chains": chains,
            "kernels": sum(s.entry != POOL for s in built.generated.sources), "seconds": {**built.seconds, "total": seconds}}


def _show(built: Built, result: dict[str, Any]) -> None:
    layers = sum(map(len, built.chains))
    facts([("network", result["network"]), ("target", device_in_words(built.plan.device)), ("dtype", result["dtype"]),
           ("planned for", sizes_in_words(built.plan.nominal)),
           ("fused", f"{plural(layers, 'layer')} in {plural(len(built.chains), 'chain')}, "
                     f"{plural(result['kernels'], 'kernel')}"),
           *([("locked", f"by {result['locked']}")] if result["locked"] else [])])
    if reason := why_unfused(built.plan, result["fuse"]):
        line(f"  nothing is fused: {reason}")
    for item in built.plan.chains:
        line(f"  {' '.join(node.label for node in item.chain.nodes)}")
    seconds = result["seconds"]
    facts([("time", f"{in_seconds(seconds['total'])} (planning {in_seconds(seconds['plan'])}, "
                    f"building {in_seconds(seconds['build'])})"), ("written", result["directory"])])
