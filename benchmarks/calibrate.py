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
from collections.abc import Iterator
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
from fusec.plan import timing  # noqa: E402
from fusec.plan.boxes import Boxes, boxes_of  # noqa: E402
from fusec.plan.construct import construct  # noqa: E402
from fusec.plan.cost import sizes_of  # noqa: E402
from fusec.plan.lock import Decision  # noqa: E402
from fusec.plan.partition import DOUBT, is_chain  # noqa: E402
from fusec.plan.search import Search  # noqa: E402
from fusec.runtime.cache import Cache  # noqa: E402
from fusec.schedule.ir import Chain, Schedule, Tile  # noqa: E402
from fusec.targets.device import DEVICES, Device, host, in_precision  # noqa: E402
from fusec.tuning.candidates import Trial, chain_key  # noqa: E402
from fusec.tuning.kernels import generate_all, inputs, single  # noqa: E402
from fusec.tuning.measure import on_device, timed_call  # noqa: E402
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
    Sample("artcnn_c4f16", None, (1, 1, 1080, 1920), 9), Sample("artcnn_c4f32", None, (1, 1, 1080, 1920), 9),
    Sample("fsrcnn_x2", None, (1, 1, 1080, 1920), 9), Sample("lenet5", None, (10000, 1, 28, 28), 7),
    Sample("mnist4", None, (10000, 1, 28, 28), 5), Sample(str(HERE / "mbv1_head.yaml"), None, (32, 3, 224, 224), 5),
    Sample(str(HERE / "mbv2_block.yaml"), None, (32, 24, 56, 56), 4),
    Sample(str(HERE / "resnet_stem.yaml"), None, (8, 3, 224, 224), 5), Sample("vgg_e", "relu3_1", (8, 3, 224, 224), 7),
    Sample(str(HERE / "alexnet2.yaml"), None, (32, 3, 227, 227), 4),
    Sample(str(HERE / "dncnn.yaml"), None, (1, 1, 1080, 1920), 3, 4))
CONSTANTS = {
    "cuda": ("MERGED", "CUDA_OUTPUT", "CUDA_OTHER", "WALKED", "THREADS", "REGISTERS", "SCRATCH_READS", "GUARDED_READ",
             "ROW_STALL", "STAGE_LATENCY", "GLOBAL_LATENCY", "BLOCK_LATENCY", "ACTIVATION_COST", "FUNCTION_COST",
             "CUDA_EFFICIENCY", "WAITING"),
    "cpu": ("CPU_EFFICIENCY", "ROW_COST", "CPU_OTHER", "CPU_STAGE", "TRANSPOSE_COST", "BLOCK_COST", "SUM_LATENCY",
            "POOL_COST", "MAX_READ", "WEIGHT_RATE", "WEIGHTS_SEEN", "CACHE_SHARE", "KEPT"),
    "half": ("matrix_time.PRODUCT", "matrix_time.GATHER", "matrix_time.STORE", "matrix_time.TASK", "matrix_time.LATENCY",
             "matrix_time.WARPS", "matrix_time.DIRECT", "CUDA_OTHER", "STAGE_LATENCY", "GLOBAL_LATENCY", "BLOCK_LATENCY")}
CHOICES = {"THREADS": (96, 128, 192, 256, 320, 384), "REGISTERS": (64, 80, 96, 112, 128)}
LIMITS = {"WAITING": (1.0, 8.0), "MERGED": (1.0, 2.0)}
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


def kernels(planned: Plan, chain: Chain) -> tuple[list[Decision], Generated] | None:
    """The schedules that the model ranks first, and their source; None where no tile fits."""
    try:
        search = Search(chain, planned.device, planned.nominal)
        found = search.ranked(planned.nominal.batch, 4 * PER_CHAIN)
        ranked = (*found[:4], *found[4::5])[:PER_CHAIN]
    except Infeasible:
        return None
    decisions = [Decision.chosen(choice) for choice in ranked]
    tiles = [search.tiles(choice, planned.nominal.batch) for choice in ranked]
    return decisions, generate_all(planned, chain, [Trial(d, n) for d, n in zip(decisions, tiles, strict=True)])


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
        decisions, made = found
        models = [build_and_link(single(made, i, 1)) for i in range(len(decisions))]
        arrays = on_device(models[0], inputs(made, planned.nominal.batch))
        out = models[0](*arrays)
        timed = alternate([(*timed_call(m, arrays, out), None) for m in models], None, lambda *done: None, budget=BUDGET)
        rows += [{"network": sample.network, "names": chain.names,
                  "tile": (d.tile.images, d.tile.channels, d.tile.height, d.tile.width), "staged": d.staged, "step": d.step,
                  "ms": round(1e3 * t.median, 4)} for d, t in zip(decisions, timed, strict=True)]
        path.write_text("[" + ",\n".join(map(json.dumps, rows)) + "]\n")  # what is measured stays if this is stopped


class Fit:
    """The measured schedules, and the model's seconds for them."""

    def __init__(self, target: str, path: Path) -> None:
        self.device = machine(target)
        plans = {sample.network: planned for sample, planned in networks(target)}
        self.items: list[tuple[Schedule, Boxes, tuple[str, ...]]] = []
        measured, groups = [], defaultdict(list)
        for row in json.loads(path.read_text()):
            planned, names = plans[row["network"]], tuple(row["names"])
            chain = Chain(planned.simplified.graph, names)
            schedule = construct(chain, Tile(*row["tile"]), self.device, tuple(row["staged"]), row.get("step"))
            groups[row["network"], names].append(len(self.items))
            boxes = boxes_of(schedule, sizes_of(chain.graph, planned.nominal), planned.nominal.batch)
            self.items.append((schedule, boxes, tuple(row["staged"])))
            measured.append(row["ms"])
        self.measured, self.groups = np.array(measured), dict(groups)

    def predicted(self) -> Any:
        element = self.device.element
        times = [float(timing.time_of(s.chain, boxes, staged, np.array([element * s.scratch_elements]), self.device).seconds[0])
                 * (DOUBT if len(s.chain.names) > 1 else 1) for s, boxes, staged in self.items]
        return 1e3 * np.array(times)

    def cost(self, report: bool = False) -> float:
        """What the model's choices cost, as mean logarithms of the slow-down."""
        p, m = self.predicted(), self.measured
        chosen = {key: v[int(np.argmin(p[v]))] for key, v in self.groups.items()}
        tiles = statistics.fmean(math.log(m[chosen[key]] / m[v].min()) for key, v in self.groups.items())
        plans = [self._plan(network, chosen, p, report) for network in dict.fromkeys(n for n, _ in self.groups)]
        error = float(np.sqrt((np.clip(np.log(p / m), -2, 2) ** 2).mean()))
        if report:
            slower = math.exp(statistics.fmean(plans))
            print(f"time of the chosen tile {math.exp(tiles):.3f} of the best, of the plan {slower:.3f}, rms error {error:.2f}")
        return 0.5 * error + 4 * tiles + 4 * statistics.fmean(plans)

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
            print(f"  {network:14} plan {best[-1][1]:.3f} ms {best[-1][2]}, layer by layer {alone:.3f}, best {least[-1]:.3f}")
        return math.log(best[-1][1] / least[-1]) + 2 * max(0.0, math.log(best[-1][1] / alone) + 0.02)


def fit(target: str, path: Path, seconds: float, seed: int) -> None:
    data, rng, start, names = Fit(target, path), random.Random(seed), time.monotonic(), CONSTANTS[target]
    best = data.cost(report=True)
    while time.monotonic() - start < seconds:
        before = {name: getattr(timing, name) for name in names}
        for name in rng.sample(names, rng.choice((1, 1, 2, 3))):
            low, high = LIMITS.get(name, (0.0, math.inf))
            value = before[name] * math.exp(rng.gauss(0, rng.choice((0.15, 0.5))))
            setattr(timing, name, rng.choice(CHOICES[name]) if name in CHOICES else min(high, max(low, value)))
        cost = data.cost()
        if cost < best:
            best = cost
        else:
            for name, value in before.items():
                setattr(timing, name, value)
    data.cost(report=True)
    print("\n".join(f"{name} = {getattr(timing, name):.4g}" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\n\n.*", "", __doc__ or "", flags=re.S))
    parser.add_argument("what", choices=("measure", "fit"))
    parser.add_argument("--target", choices=tuple(SAMPLES), default="cuda")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.target, options.json)
    else:
        fit(options.target, options.json, options.seconds, options.seed)


if __name__ == "__main__":
    main()
