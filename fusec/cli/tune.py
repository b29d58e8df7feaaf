"""`fusec tune`: the fastest schedules of a network on this machine, measured, as a lockfile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fusec import debug, pipeline
from fusec.cli import options
from fusec.cli.building import device_in_words
from fusec.cli.files import check_file, write_text
from fusec.cli.networks import default_lock, read_network, shape_to_plan
from fusec.cli.options import Shape4
from fusec.cli.output import facts, in_seconds, line, note, plural, print_json, table
from fusec.cli.progress import Progress
from fusec.errors import InputError
from fusec.graph.graph import LayerGraph
from fusec.graph.onnx.cut import Cut
from fusec.plan.lock_file import SUFFIX, text_of
from fusec.runtime.cache import Cache
from fusec.targets.device import Device
from fusec.tuning.candidates import Survey, survey
from fusec.tuning.log import Log
from fusec.tuning.measure import Bench
from fusec.tuning.tune import Found, Tuned, decide, measure_all

TIME_LIMIT = 300.0  # seconds


@click.command(epilog="Example: fusec tune lenet5 --target cpu --time-limit 60 -o lenet5.lock")
@options.NETWORK
@options.TARGET
@options.DTYPE
@click.option("--time-limit", type=click.FloatRange(min=0), metavar="S", default=TIME_LIMIT, show_default=True,
              help="Seconds to spend on kernels; the comparison of whole networks comes on top.")
@options.BATCH
@options.SHAPE
@options.weights
@options.part
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE.lock",
              help="The lockfile to write; NET.TARGET.lock beside the description when left out.")
@click.option("--fresh", is_flag=True, help="Measure anew what earlier runs have measured.")
@options.JSON
def command(network: str, target: str, dtype: str, time_limit: float, batch: int | None, shape: Shape4 | None,
            weights: Path | None, random_weights: int | None, cut: Cut, output: Path | None, fresh: bool,
            as_json: bool) -> None:
    """Measure schedules on this machine and write the fastest as a lockfile.

    Kernels are built and timed in turns: the chains that the cost model favours first, then single layers, then other chains
    with a chance, each with its best tiles by the model. The fastest partition follows from these times. Last, the whole
    network is timed tuned, untuned and layer by layer, and the fastest is written: tuning never makes it slower.

    Every measurement is kept, so a later run goes on where this one ends. Ctrl-C ends the measuring early; what was found by
    then is compared and written.

    fusec compile NET --locked makes exactly the schedules of the lockfile, which is meant to be committed.
    """
    options.only_one(batch=batch, shape=shape)
    options.only_one(weights=weights, random_weights=random_weights)
    began = time.perf_counter()
    device = pipeline.choose_device(target, dtype)
    place = _place(output or default_lock(network, device))
    graph, seed = read_network(network, weights, random_weights, cut)
    sizes = shape_to_plan(graph, batch, shape)
    with Progress() as progress:
        progress.phase("planning")
        untuned, single, known = _planned(graph, device, sizes)
        bench = Bench(untuned, Log(Cache(debug.cache_folder()).folder, fresh))
        progress.phase("measuring chains")
        deadline = time.perf_counter() + time_limit
        found = measure_all(known, bench, lambda: time.perf_counter() >= deadline, progress)
        if found.interrupted:
            note("interrupted: what was found is compared with the untuned plan; interrupt again to write nothing")
        progress.phase("comparing")
        tuned = decide(untuned, single, known, found, progress)
        _write(place, tuned)
    result = _result(tuned, found, bench, seed, place, time.perf_counter() - began)
    if as_json:
        print_json(result)
    else:
        _show(tuned, found, result)


def _planned(graph: LayerGraph, device: Device, sizes: Shape4 | None) -> tuple[pipeline.Plan, pipeline.Plan, Survey]:
    """The planner's own plan, that layer by layer, and what is worth measuring; an interruption says that nothing was."""
    try:
        untuned, single = (pipeline.plan(graph, device, fuse, sizes) for fuse in ("auto", "none"))
        return untuned, single, survey(untuned.simplified.graph, device, untuned.nominal)
    except KeyboardInterrupt:
        note("interrupted while planning: nothing was measured, and no lockfile is written")
        raise


def _place(path: Path) -> Path:
    """The lockfile's place, if it can be written there: said before anything is measured."""
    if path.suffix != SUFFIX:
        raise InputError(f"a lockfile's name ends in {SUFFIX}", str(path), f"write -o {path.with_suffix(SUFFIX)}")
    check_file(path)
    return path


def _write(place: Path, tuned: Tuned) -> None:
    plan = tuned.plan
    batches = ", ".join(map(str, plan.nominal.batches))
    remarks = [f"{tuned.chosen}, the fastest of these; median seconds of a call, batch {batches}:"]
    remarks += [f"  {name}: {', '.join(f'{s:.3g}' for s in e.seconds)}" for name, e in tuned.entrants.items()]
    write_text(place, text_of(pipeline.to_lock(plan), remarks))


def _result(tuned: Tuned, found: Found, bench: Bench, seed: int | None, place: Path, seconds: float) -> dict[str, Any]:
    plan, best = tuned.plan, tuned.entrants[tuned.chosen].seconds
    ratios = {name: [s / b for s, b in zip(e.seconds, best, strict=True)] for name, e in tuned.entrants.items()}
    lock = pipeline.to_lock(plan)
    return {"network": lock.scope.network, "target": lock.scope.target, "device": lock.scope.device,
            "arch": lock.scope.arch, "dtype": lock.scope.dtype, "random_weights": seed, "file": str(place),
            "batches": list(plan.nominal.batches), "height": plan.nominal.height, "width": plan.nominal.width,
            "measured": bench.measured, "known": bench.known, "chains_measured": found.done, "chains_promising": found.total,
            "interrupted": found.interrupted, "chosen": tuned.chosen,
            "results": [{"name": name, "chains": len(e.plan.chains), "medians": list(e.seconds), "ratios": ratios[name]}
                        for name, e in tuned.entrants.items()], "seconds": seconds}


def _show(tuned: Tuned, found: Found, result: Mapping[str, Any]) -> None:
    plan, rest = tuned.plan, found.total - found.done
    facts([("network", result["network"]), ("target", device_in_words(plan.device)), ("dtype", result["dtype"]),
           ("measured", f"{plural(found.done, 'chain')} in {plural(result['measured'], 'measurement')} and {result['known']:,} "
                        "known from before" + (f"; {plural(rest, 'chain')} left for another run" if rest else ""))])
    line()
    rows = [(name, str(len(e.plan.chains)), *(in_seconds(s) for s in e.seconds)) for name, e in tuned.entrants.items()]
    table(("", ">chains", *(f">batch {n}" for n in plan.nominal.batches)), rows)
    line()
    for item in result["results"]:
        if item["name"] != tuned.chosen:
            ratios = zip(item["ratios"], plan.nominal.batches, strict=True)
            words = ", ".join(f"{ratio:.2f} times as fast at batch {n}" for ratio, n in ratios)
            line(f"{tuned.chosen} against {item['name']}: {words}")
    line(f"written to {result['file']}: {tuned.chosen}")
