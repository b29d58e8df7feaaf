"""Measures chains on an NVIDIA GPU or on one core of this CPU, and fits the planner's time model to what was measured.

    python benchmarks/calibrate.py measure --target cuda --json FILE    chains of some networks, several tiles and strips each
    python benchmarks/calibrate.py fit --target cuda --json FILE        anywhere: random search; prints the best constants

A fit is judged by how much slower the model's choice of a tile is than the best one measured, and its choice of chains than the
best one made of measured chains; both as logarithms. A plan slower than layer by layer counts double.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from prefixes import prefix  # noqa: E402

from fusec import debug  # noqa: E402
from fusec.errors import Infeasible  # noqa: E402
from fusec.pipeline import Generated, Plan, build_and_link, build_kernels, plan, read  # noqa: E402
from fusec.plan import matrix_time, simt_time, timing  # noqa: E402
from fusec.plan.boxes import Boxes, boxes_of  # noqa: E402
from fusec.plan.construct import construct  # noqa: E402
from fusec.plan.cost import sizes_of  # noqa: E402
from fusec.plan.lock import Decision  # noqa: E402
from fusec.plan.partition import doubt_of, is_chain  # noqa: E402
from fusec.plan.search import Choice, Search  # noqa: E402
from fusec.runtime.cache import Cache  # noqa: E402
from fusec.schedule.ir import Chain, Schedule, Tile  # noqa: E402
from fusec.targets.device import DEVICES, Device, host, in_precision  # noqa: E402
from fusec.tuning.candidates import Trial, chain_key  # noqa: E402
from fusec.tuning.kernels import generate_all, inputs, single  # noqa: E402
from fusec.tuning.measure import CALL, MOST_LAUNCHES, on_device, timed_call  # noqa: E402
from fusec.tuning.timing import alternate  # noqa: E402


@dataclass(frozen=True)
class Sample:
    """Chains of at most `longest` of the first `nodes` nodes of a network up to layer `last`, at one size."""

    network: str
    last: str | None
    shape: tuple[int, int, int, int]
    longest: int
    nodes: int = 99


SAMPLES = {
    "cuda": (
        Sample("alexnet", "pool2", (32, 3, 227, 227), 6), Sample("vgg_e", "relu3_1", (8, 3, 224, 224), 7),
        Sample("artcnn_c4f16", None, (1, 1, 1080, 1920), 9), Sample("fsrcnn_x2", None, (1, 1, 1080, 1920), 9),
        Sample("resnet18", None, (8, 3, 224, 224), 3, 12), Sample("mobilenet_v2", None, (8, 3, 224, 224), 3, 14),
        Sample("lenet5", None, (10000, 1, 28, 28), 7), Sample("mnist4", None, (10000, 1, 28, 28), 5)),
    "cpu": (
        Sample("alexnet", "pool2", (1, 3, 227, 227), 6), Sample("vgg_e", "pool2", (1, 3, 224, 224), 6),
        Sample("artcnn_c4f16", None, (1, 1, 270, 480), 9), Sample("fsrcnn_x2", None, (1, 1, 180, 320), 9),
        Sample("resnet18", None, (1, 3, 224, 224), 4, 9), Sample("mobilenet_v2", None, (1, 3, 224, 224), 4, 10),
        Sample("lenet5", None, (250, 1, 28, 28), 7), Sample("mnist4", None, (250, 1, 28, 28), 5))}
HERE = Path(__file__).parent / "networks"
SAMPLES["half"] = (
    Sample("artcnn_c4f16", None, (1, 1, 1080, 1920), 9), Sample("artcnn_c4f32", None, (1, 1, 1080, 1920), 3),
    Sample(str(HERE / "fsrcnn.yaml"), None, (1, 1, 1080, 1920), 8), Sample("lenet5", None, (10000, 1, 28, 28), 7),
    Sample("mnist4", None, (10000, 1, 28, 28), 5), Sample(str(HERE / "mbv1_head.yaml"), None, (32, 3, 224, 224), 5),
    Sample(str(HERE / "mbv2_block.yaml"), None, (32, 24, 56, 56), 4),
    Sample(str(HERE / "resnet_stem.yaml"), None, (8, 3, 224, 224), 5), Sample("vgg_e", "pool2", (8, 3, 224, 224), 4),
    Sample(str(HERE / "alexnet2.yaml"), None, (32, 3, 227, 227), 4),
    Sample(str(HERE / "dncnn.yaml"), None, (1, 1, 1080, 1920), 2, 3))
CONSTANTS = {
    "cuda": ("WALKED", "UNITS_LOSS", "WAITING_LOSS", "STAGE_LATENCY", "BLOCK_LATENCY", "PRODUCT", "GUARDED_READ", "STORE",
             "OTHER", "EXTRA", "SCRATCH_READ", "LINE_READ", "LINE_WRITE", "SERIAL", "SCRATCH_LATENCY", "GLOBAL_LATENCY"),
    "cpu": ("CPU_EFFICIENCY", "ROW_COST", "CPU_OTHER", "CPU_STAGE", "TRANSPOSE_COST", "BLOCK_COST", "SUM_LATENCY",
            "POOL_COST", "MAX_READ", "WEIGHT_RATE", "WEIGHTS_SEEN", "CACHE_SHARE", "KEPT"),
    "half": tuple(f"matrix_time.{name}" for name in (
        "PRODUCT", "SERIAL_PRODUCT", "ISSUE", "FRAGMENT_LOAD", "WEIGHT_LOAD", "FRAGMENT_ISSUE", "WEIGHT_ISSUE", "PAIRED",
        "PAIRED_LOAD", "DIRECT", "DIRECT_LOAD", "DIRECT_LATENCY", "LATENCY", "WEIGHT_LATENCY", "STORE_MATRIX", "STORE_PIXEL",
        "STORE_ROW", "STORE", "STORE_POOL", "EPILOGUE", "TASK", "ROW_PIXEL", "ROW_VALUE", "ROW_LATENCY", "COPY", "COPY_ONE",
        "ARRIVAL", "OUTPUT", "READ", "EIGHT", "EIGHT_READ", "DEPTHWISE_LOAD", "DEPTHWISE_OUTPUT", "DEPTHWISE_LINES",
        "DEPTHWISE_LATENCY", "SPREAD", "SPREAD_LINE", "CONFLICT", "CONFLICT_DIRECT", "GROUPED_PRODUCT", "COPY_LATENCY",
        "READ_LATENCY", "GLOBAL_LATENCY", "ARRIVAL_LATENCY", "WALKED", "UNITS_LOSS", "WAITING", "STAGE_LATENCY",
        "BLOCK_LATENCY", "OVERLAP_LOSS"))}
LIMITS = {"UNITS_LOSS": (0.0, 1.0), "WAITING_LOSS": (0.0, 1.0), "WALKED": (0.9, 1.2), "matrix_time.UNITS_LOSS": (0.0, 1.0),
          "matrix_time.OVERLAP_LOSS": (0.0, 1.0), "matrix_time.WAITING": (1.0, 8.0), "matrix_time.WALKED": (1.0, 1.4),
          "matrix_time.PRODUCT": (1.0, 2.2)}
FLOOR = {"cuda": 0.015, "half": 0.004, "cpu": 0.0}  # ms: no kernel seems to take less; cuda with one launch a call
PER_CHAIN = 13  # schedules: the best few by the model, and others spread over those that follow
BUDGET = 0.5  # seconds for the rounds of a chain
LARGEST = 8 << 20  # bytes of scratch on a CPU: more than the planner allows, to see what it costs


def machine(target: str) -> Device:
    """An H200, in float32 or float16; or one core of this CPU, whose other cores may be busy."""
    if target != "cpu":
        return in_precision(DEVICES["h200"], "float16" if target == "half" else "float32")
    cpu = host()
    return replace(cpu, cores=1, bandwidth=cpu.bandwidth / cpu.cores, cache_bandwidth=cpu.cache_bandwidth / cpu.cores,
                   scratch_per_block=LARGEST)


def networks(target: str) -> Iterator[tuple[Sample, Plan]]:
    for sample in SAMPLES[target]:
        graph = prefix(read(sample.network, missing="random"), sample.last)
        yield sample, plan(graph, machine(target), "none", sample.shape)


def jobs(target: str) -> Iterator[tuple[Sample, Plan, Chain]]:
    """Every legal chain of the samples, equal ones once."""
    for sample, planned in networks(target):
        graph, seen = planned.simplified.graph, set()
        order = [n.name for n in graph.layers][:sample.nodes]
        for start in range(len(order)):
            for end in range(start + 1, min(len(order), start + sample.longest) + 1):
                chain = Chain(graph, tuple(order[start:end]))
                if is_chain(graph, chain.names) is None and (key := chain_key(chain, planned.nominal)) not in seen:
                    seen.add(key)
                    yield sample, planned, chain


@cache
def all_jobs(target: str) -> tuple[tuple[Sample, Plan, Chain], ...]:
    return tuple(jobs(target))


def kernels(planned: Plan, chain: Chain) -> tuple[list[Choice], Generated] | None:
    """The schedules that the model ranks first, and their source; None where no tile fits."""
    try:
        search = Search(chain, planned.device, planned.nominal)
        found = search.ranked(planned.nominal.batch, 4 * PER_CHAIN)
        ranked = (*found[:4], *found[4::5])[:PER_CHAIN]
    except Infeasible:
        return None
    decisions = [Decision.chosen(choice) for choice in ranked]
    tiles = [search.tiles(choice, planned.nominal.batch) for choice in ranked]
    return list(ranked), generate_all(planned, chain, [Trial(d, n) for d, n in zip(decisions, tiles, strict=True)])


def prebuild(work: tuple[str, int]) -> None:
    target, index = work
    _, planned, chain = all_jobs(target)[index]
    if found := kernels(planned, chain):
        build_kernels(found[1], Cache(debug.cache_folder()))


def measure(target: str, path: Path) -> None:
    """Times every schedule of every chain, those of one chain in turns; for a GPU, several processes compile first."""
    work = all_jobs(target)
    if target != "cpu":
        with Pool() as pool:
            pool.map(prebuild, [(target, i) for i in range(len(work))], chunksize=1)
    else:
        os.environ["FUSEC_THREADS"] = "1"
    rows = []
    for sample, planned, chain in work:
        if (found := kernels(planned, chain)) is None:
            continue
        choices, made = found
        # launching takes longer than some kernels: several to a call
        times = [max(1, min(MOST_LAUNCHES, math.ceil(CALL / c.seconds))) for c in choices]
        models = [build_and_link(single(made, i, n)) for i, n in enumerate(times)]
        arrays = on_device(models[0], inputs(made, planned.nominal.batch))
        out = models[0](*arrays)
        timed = alternate([(*timed_call(m, arrays, out), None) for m in models], None, lambda *done: None, budget=BUDGET)
        for choice, n, t in zip(choices, times, timed, strict=True):
            tile = choice.candidate.tile
            rows.append({"network": Path(sample.network).stem, "names": chain.names,
                         "tile": (tile.images, tile.channels, tile.height, tile.width), "staged": choice.staged,
                         "step": choice.candidate.step, "ms": round(1e3 * t.median / n, 5)})
        path.write_text("[" + ",\n".join(map(json.dumps, rows)) + "]\n")  # what is measured stays if this is stopped


class Fit:
    """The measured schedules, and the model's seconds for them.

    Parameters
    ----------
    without
        Networks that do not count.
    """

    def __init__(self, target: str, path: Path, without: Collection[str] = ()) -> None:
        self.device, self.floor, self.without = machine(target), FLOOR[target], without
        plans = {Path(sample.network).stem: planned for sample, planned in networks(target)}
        items: dict[Any, list[tuple[int, Schedule, Boxes]]] = defaultdict(list)
        measured, groups = [], defaultdict(list)
        for i, row in enumerate(json.loads(path.read_text())):
            planned, names, staged = plans[row["network"]], tuple(row["names"]), tuple(row["staged"])
            chain = Chain(planned.simplified.graph, names)
            schedule = construct(chain, Tile(*row["tile"]), self.device, staged, row.get("step"))
            groups[row["network"], names].append(i)
            boxes = boxes_of(schedule, sizes_of(chain.graph, planned.nominal), planned.nominal.batch)
            items[row["network"], names, staged, boxes.folded].append((i, schedule, boxes))
            measured.append(row["ms"])
        self.measured, self.groups = np.array(measured), dict(groups)
        self.together = [(np.array([i for i, _, _ in found]), found[0][1].chain, joined([b for _, _, b in found]), key[2],
                          np.array([self.device.element * s.scratch_elements for _, s, _ in found]))
                         for key, found in items.items()]

    def predicted(self) -> Any:
        matrix_time.forget()
        p = np.zeros(len(self.measured))
        for places, chain, boxes, staged, scratch in self.together:
            seconds = timing.time_of(chain, boxes, staged, scratch, self.device).seconds
            p[places] = 1e3 * seconds * (doubt_of(self.device) if len(chain.names) > 1 else 1)
        return p

    def cost(self, report: bool = False) -> float:
        """What the model's choices cost, as mean logarithms of the slow-down."""
        p, m = self.predicted(), self.measured
        chosen = {key: v[int(np.argmin(p[v]))] for key, v in self.groups.items()}
        losses = {key: math.log(m[chosen[key]] / m[v].min()) for key, v in self.groups.items()}
        errors = np.clip(np.log(np.maximum(p, self.floor) / m), -2, 2) ** 2
        plans = {network: self._plan(network, chosen, p, report) for network in dict.fromkeys(n for n, _ in self.groups)}
        kept = [(key, v) for key, v in self.groups.items() if key[0] not in self.without]
        if report:
            for title, networks in (("", set(plans) - set(self.without)), ("held out: ", set(self.without))):
                self._report(title, networks, losses, plans, errors)
        error = math.sqrt(statistics.fmean(errors[i] for _, v in kept for i in v))
        return error + 4 * statistics.fmean(losses[key] for key, _ in kept) + 2 * statistics.fmean(
            slower for network, slower in plans.items() if network not in self.without)

    def _report(self, title: str, networks: Collection[str], losses: Any, plans: Any, errors: Any) -> None:
        if networks:
            tiles, slower = (math.exp(statistics.fmean(v[k] for k in v if (k if isinstance(k, str) else k[0]) in networks))
                             for v in (losses, plans))
            error = math.sqrt(statistics.fmean(errors[i] for key, v in self.groups.items() if key[0] in networks for i in v))
            print(f"{title}time of the chosen tile {tiles:.3f} of the best, of the plan {slower:.3f}, rms error {error:.2f}")

    def _plan(self, network: str, chosen: dict[Any, int], p: Any, report: bool) -> float:
        order = [names[0] for n, names in self.groups if n == network and len(names) == 1]
        best: list[Any] = [(0.0, 0.0, ())]
        least = [0.0]
        for end in range(1, len(order) + 1):
            cuts = [(s, (network, tuple(order[s:end]))) for s in range(end) if (network, tuple(order[s:end])) in chosen]
            best.append(min((best[s][0] + p[chosen[k]], best[s][1] + self.measured[chosen[k]], (*best[s][2], end - s))
                            for s, k in cuts))
            least.append(min(least[s] + self.measured[self.groups[k]].min() for s, k in cuts))
        alone = sum(self.measured[chosen[network, (n,)]] for n in order)
        if report:
            tiles = math.exp(statistics.fmean(math.log(self.measured[i] / self.measured[self.groups[k]].min())
                                              for k, i in chosen.items() if k[0] == network))
            print(f"  {network:14} tile {tiles:.3f}, plan {best[-1][1]:.3f} ms {best[-1][2]}, layer by layer {alone:.3f}, "
                  f"best {least[-1]:.3f}")
        return math.log(best[-1][1] / least[-1]) + 2 * max(0.0, math.log(best[-1][1] / alone) + 0.02)


def joined(boxes: Sequence[Boxes]) -> Boxes:
    """The boxes of several tiles of one chain, side by side."""
    arrays = ("extent", "covered", "grid", "images", "steps", "steps_y", "warm_up", "fresh", "early")
    return replace(boxes[0], **{name: np.concatenate([getattr(b, name) for b in boxes], axis=-1) for name in arrays})


def home(name: str) -> tuple[Any, str]:
    """The module that holds a constant, named by it where it is neither `timing` nor `simt_time`, and its name there."""
    if name.startswith("matrix_time."):
        return matrix_time, name.partition(".")[2]
    return (timing if hasattr(timing, name) else simt_time), name


def fit(target: str, path: Path, seconds: float, seed: int, without: Collection[str]) -> None:
    data, rng, start, names = Fit(target, path, without), random.Random(seed), time.monotonic(), CONSTANTS[target]
    best = data.cost(report=True)
    while time.monotonic() - start < seconds:
        before = {name: getattr(*home(name)) for name in names}
        for name in rng.sample(names, rng.choice((1, 1, 2, 3))):
            low, high = LIMITS.get(name, (0.0, math.inf))
            value = before[name] * math.exp(rng.gauss(0, rng.choice((0.15, 0.5))))
            setattr(*home(name), min(high, max(low, value)))
        cost = data.cost()
        if cost < best:
            best = cost
        else:
            for name, value in before.items():
                setattr(*home(name), value)
    data.cost(report=True)
    print("\n".join(f"{name} = {getattr(*home(name)):.4g}" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\n\n.*", "", __doc__ or "", flags=re.S))
    parser.add_argument("what", choices=("measure", "fit"))
    parser.add_argument("--target", choices=tuple(SAMPLES), default="cuda")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=(), help="networks that the fit does not see; reported apart")
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.target, options.json)
    else:
        fit(options.target, options.json, options.seconds, options.seed, options.without)


if __name__ == "__main__":
    main()
