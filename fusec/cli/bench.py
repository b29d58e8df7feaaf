"""`fusec bench`: fused kernels against layer by layer and the reference, in one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from fusec import pipeline
from fusec.cli import options
from fusec.cli.building import Built, build, device_in_words, finish, why_unfused
from fusec.cli.networks import check_fit, read_network, sizes_to_run
from fusec.cli.options import Shape4
from fusec.cli.output import extents, facts, in_seconds, line, note, print_json, table
from fusec.cli.progress import Progress
from fusec.cli.tolerances import CLOSE
from fusec.errors import AccuracyError
from fusec.graph import reference
from fusec.graph.graph import LayerGraph
from fusec.graph.onnx.cut import Cut
from fusec.plan.cost import Nominal, nominal_for
from fusec.runtime.elements import widened
from fusec.targets.device import DTYPES, Device
from fusec.tuning.inputs import random_inputs
from fusec.tuning.measure import on_device, timed_call
from fusec.tuning.timing import Call, Clock, Timed, alternate, wall_clock
from fusec.tuning.whole import check_equal, results_of

FUSED, SINGLE, ALL, REFERENCE = "fused", "layer by layer", "all fused", "reference"
WAYS = ((FUSED, "auto"), (SINGLE, "none"), (ALL, "all"))
REFERENCE_SECONDS = 5.0  # a call of the reference that is expected to take longer is left out
REFERENCE_ROUNDS = 3
REFERENCE_RATE = 0.5e9  # multiply-adds a second that NumPy does at least; only to guess before trying

Array = NDArray[np.float32]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference's results, or why there are none."""

    call: Call | None
    results: tuple[Array, ...]
    skipped: str = ""


@click.command(epilog="Example: fusec bench mnist4 --batch 1000 --target cpu")
@options.NETWORK
@options.BATCH
@options.SHAPE
@options.TARGET
@options.DTYPE
@click.option("--repeat", type=click.IntRange(1, 100_000), metavar="ROUNDS",
              help="Rounds to time; as many as take about five seconds when left out.")
@options.weights
@options.part
@options.JSON
def command(network: str, batch: int | None, shape: Shape4 | None, target: str, dtype: str, repeat: int | None,
            weights: Path | None, random_weights: int | None, cut: Cut, as_json: bool) -> None:
    """Time fused kernels against layer by layer and the reference.

    Builds the network as --fuse auto, none and all would (the last only where it differs), checks that all results agree bit
    for bit, and times them in turn, round by round. The reference is NumPy in float32, whatever the type of the tensors, and
    left out where it would take long. On a GPU the arrays stay in its memory and its own events time the calls.

    A ratio above 1 says how many times faster fused is than layer by layer.
    """
    options.only_one(batch=batch, shape=shape)
    options.only_one(weights=weights, random_weights=random_weights)
    device = pipeline.choose_device(target, dtype)
    graph, seed = read_network(network, weights, random_weights, cut)
    sizes = sizes_to_run(graph, batch, shape, nominal_for(graph))
    inputs = random_inputs(graph, sizes, dtype)
    check_fit(graph, device, tuple(inputs.values()))
    with Progress() as progress:
        ways = _build(graph, device, progress, shape)
        progress.phase("checking results")
        results = {name: results_of(built.model, tuple(inputs.values())) for name, built in ways.items()}
        check_equal(graph.outputs, results)
        plain = _reference(graph, inputs, sizes)
        difference = _distance([widened(a) for a in results[FUSED]], plain.results)
        if difference is not None and not difference <= CLOSE[dtype]:
            how = "" if dtype == DTYPES[0] else f" --dtype {dtype}"
            raise AccuracyError(f"the results differ from the reference by {difference:.2g} of its largest value, and may by "
                                f"{CLOSE[dtype]:g}; `fusec compare {network}{how}` finds the layer")
        progress.phase("timing")
        timed = _time(ways, plain, inputs, repeat, progress)
    if plain.skipped:
        note(plain.skipped)
    ratio = timed[SINGLE].median / timed[FUSED].median
    if as_json:
        print_json({"network": graph.name, "target": device.target, "device": device_in_words(device), "dtype": dtype,
                    "inputs": {name: list(array.shape) for name, array in inputs.items()}, "random_weights": seed,
                    "results": [_described(name, ways.get(name), t) for name, t in timed.items()], "ratio": ratio,
                    "equal": True, "reference_difference": difference, "reference_skipped": plain.skipped or None})
        return
    facts([("network", graph.name), ("target", device_in_words(device)), ("dtype", dtype),
           ("input", ", ".join(extents(a.shape) for a in inputs.values())),
           ("results", "equal bit for bit" + ("" if difference is None else f", within {difference:.1e} of the reference"))])
    line()
    _show(ways, timed, sizes)
    line()
    line(f"fused is {ratio:.2f} times as fast as layer by layer")
    if reason := why_unfused(ways[FUSED].plan, "auto"):
        line(f"nothing is fused: {reason}")


def _build(graph: LayerGraph, device: Device, progress: Progress, shape: Shape4 | None) -> dict[str, Built]:
    """The network fused, layer by layer, and all fused where that is something else."""
    ways: dict[str, Built] = {}
    for name, fuse in WAYS:
        if name == ALL:
            progress.phase("planning (all)")
            planned = pipeline.plan(graph, device, fuse, shape)
            if tuple(c.chain.names for c in planned.chains) not in {b.chains for b in ways.values()}:
                ways[name] = finish(planned, progress)
        else:
            ways[name] = build(graph, device, fuse, progress, shape)
    return ways


def _reference(graph: LayerGraph, inputs: Arrays, sizes: Nominal) -> Reference:
    """The float32 reference, unless one call would take longer than `REFERENCE_SECONDS`."""
    def run(arrays: Arrays) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return tuple(np.asarray(a, np.float32) for a in reference.run(graph, arrays, dtype=np.float32).values())

    began = time.perf_counter()
    guess = _work(graph, sizes) / REFERENCE_RATE
    if guess <= 4 * REFERENCE_SECONDS:  # worth trying on one image
        run({name: array[:1] for name, array in inputs.items()})
        guess = (time.perf_counter() - began) * sizes.batch
    if guess > REFERENCE_SECONDS * (1 if sizes.batch > 1 else 4):
        return Reference(None, (), f"the reference is left out: one call would take about {in_seconds(guess)}")
    return Reference(lambda: run(inputs), run(inputs))


def _work(graph: LayerGraph, sizes: Nominal) -> float:
    """Multiply-adds of one image."""
    extent = graph.sizes(sizes.height, sizes.width)
    return float(sum(node.params["weight"].size * extent[node.name][0] * extent[node.name][1]
                     for node in graph.layers if "weight" in node.params))


def _distance(made: Sequence[Array], wanted: Sequence[Array]) -> float | None:
    """The largest difference by the largest value of the same output; None without a reference."""
    parts = []
    for one, other in zip(made, wanted, strict=False):
        peak = float(np.abs(other).max(initial=0.0))
        parts.append(float(np.abs(one.reshape(other.shape) - other).max(initial=0.0)) / (peak or 1.0))
    return max(parts) if parts else None


def _time(ways: Mapping[str, Built], plain: Reference, inputs: Arrays, rounds: int | None,
          progress: Progress) -> dict[str, Timed]:
    calls: dict[str, tuple[Call, Clock, int | None]] = {}
    for name, built in ways.items():
        arrays = on_device(built.model, inputs.values())
        calls[name] = (*timed_call(built.model, arrays, built.model(*arrays)), None)
    if plain.call is not None:
        calls[REFERENCE] = (plain.call, wall_clock, REFERENCE_ROUNDS)
    return dict(zip(calls, alternate(list(calls.values()), rounds, progress), strict=True))


def _described(name: str, built: Built | None, timed: Timed) -> dict[str, Any]:
    return {"name": name, "chains": None if built is None else len(built.chains), "median": timed.median,
            "fastest": timed.fastest, "slowest": timed.slowest, "rounds": len(timed.samples), "calls": timed.calls}


def _show(ways: Mapping[str, Built], timed: Mapping[str, Timed], sizes: Nominal) -> None:
    base = timed[SINGLE].median
    rows = [(name, str(len(ways[name].chains)) if name in ways else "", in_seconds(t.median), in_seconds(t.fastest),
             in_seconds(t.slowest), in_seconds(t.median / sizes.batch), f"{base / t.median:.2f}", str(len(t.samples)))
            for name, t in timed.items()]
    table(("", ">chains", ">median", ">fastest", ">slowest", ">per image", ">ratio", ">rounds"), rows)
