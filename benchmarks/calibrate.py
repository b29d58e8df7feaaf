"""Measures chains on an NVIDIA GPU, and fits the CUDA constants of the planner's time model to what was measured.

    python benchmarks/calibrate.py measure --json FILE      on the GPU: every legal chain of some networks, several tiles each
    python benchmarks/calibrate.py fit --json FILE          anywhere: random search, prints the constants and what they cost

A fit is judged by how much slower the model's choice of a tile is than the best one measured, and its choice of chains than the
best one made of measured chains; both as logarithms. A plan slower than layer by layer counts double.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from networks import prefix  # noqa: E402

from fusec import debug  # noqa: E402
from fusec.errors import FusecError  # noqa: E402
from fusec.graph import layers as L  # noqa: E402
from fusec.graph.graph import LayerGraph, Node  # noqa: E402
from fusec.graph.simplify import Simplified, simplify  # noqa: E402
from fusec.pipeline import Plan, PlannedChain, build_and_link, generate, read  # noqa: E402
from fusec.plan import timing  # noqa: E402
from fusec.plan.boxes import Boxes, boxes_of  # noqa: E402
from fusec.plan.construct import construct  # noqa: E402
from fusec.plan.cost import Nominal, sizes_of  # noqa: E402
from fusec.plan.partition import DOUBT, is_chain  # noqa: E402
from fusec.plan.search import Planned, plan  # noqa: E402
from fusec.runtime.build import build  # noqa: E402
from fusec.runtime.cache import Cache  # noqa: E402
from fusec.schedule.ir import Chain, Schedule, Tile  # noqa: E402
from fusec.targets.device import DEVICES  # noqa: E402
from fusec.tuning.measure import timed_call  # noqa: E402
from fusec.tuning.timing import alternate  # noqa: E402


@dataclass(frozen=True)
class Sample:
    """Chains of at most `longest` of the first `nodes` nodes of a network up to layer `last`, at one size."""

    network: str
    last: str | None
    size: tuple[int, int, int]  # batch, height, width
    longest: int
    nodes: int = 99


SAMPLES = (Sample("alexnet", "pool2", (32, 227, 227), 6), Sample("vgg_e", "relu3_1", (8, 224, 224), 7),
           Sample("artcnn_c4f16", None, (1, 1080, 1920), 9), Sample("fsrcnn_x2", None, (1, 1080, 1920), 9),
           Sample("resnet18", None, (8, 224, 224), 3, 12), Sample("mobilenet_v2", None, (8, 224, 224), 3, 14),
           Sample("lenet5", None, (10000, 28, 28), 7), Sample("mnist4", None, (10000, 28, 28), 5))
ROUNDS = 5
CONSTANTS = ("MERGED", "CUDA_OUTPUT", "CUDA_OTHER", "POOLED", "THREADS", "REGISTERS", "SCRATCH_READS", "GUARDED_READ",
             "ROW_STALL", "STAGE_LATENCY", "GLOBAL_LATENCY", "BLOCK_LATENCY", "ACTIVATION_COST", "FUNCTION_COST",
             "CUDA_EFFICIENCY", "WAITING")
CHOICES = {"THREADS": (96, 128, 192, 256, 320, 384), "REGISTERS": (64, 80, 96, 112, 128)}
LIMITS = {"WAITING": (1.0, 8.0), "MERGED": (1.0, 2.0)}


@dataclass(frozen=True, eq=False)
class Job:
    """One chain as a network of its own, and the size it is run at."""

    sample: Sample
    names: tuple[str, ...]
    graph: LayerGraph
    nominal: Nominal
    image: tuple[int, int]

    @property
    def chain(self) -> Chain:
        return Chain(self.graph, self.names)


def job(sample: Sample, graph: LayerGraph, names: tuple[str, ...]) -> Job:
    sizes = graph.sizes(*sample.size[1:])
    sources = dict.fromkeys(i for n in names for i in graph[n].inputs if i not in names)
    pinned = all(graph.shapes[s].pinned for s in sources)
    inputs = [Node(s, L.Input(graph.shapes[s].channels, *(sizes[s] if pinned else (None, None)))) for s in sources]
    image = sizes[next(iter(sources))]
    nominal = Nominal((sample.size[0],), *((None, None) if pinned else image))
    return Job(sample, names, LayerGraph("chain", [*inputs, *(graph[n] for n in names)]), nominal, image)


def jobs() -> Iterator[Job]:
    """Every legal chain of the samples."""
    for sample in SAMPLES:
        graph = simplify(prefix(read(sample.network, **weights(sample.network)), sample.last)).graph
        order = [n.name for n in graph.layers][:sample.nodes]
        for start in range(len(order)):
            for end in range(start + 1, min(len(order), start + sample.longest) + 1):
                names = tuple(order[start:end])
                if is_chain(graph, names) is None:
                    try:
                        yield job(sample, graph, names)
                    except FusecError:
                        continue  # its inputs are of different sizes: no network of its own


def weights(network: str) -> dict[str, int]:
    return {} if network == "lenet5" else {"random_weights": 0}


def schedules(work: Job) -> list[Schedule]:
    """The planner's choice and some tiles around it."""
    device, chain = DEVICES["h200"], work.chain
    best = plan(chain, device, work.nominal)
    t, staged = best.tile, tuple(s.writes.tensor for s in best.stages if s.node is None)
    tiles = [t, *(Tile(t.images, max(1, t.channels // c), max(1, t.height // y), max(1, t.width // x))
                  for c, y, x in ((2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 2, 2), (1, 4, 1))),
             Tile(t.images, t.channels, 2 * t.height, t.width), Tile(2 * t.images, t.channels, t.height, t.width)]
    options = dict.fromkeys([(t, staged), (t, () if staged else chain.inputs), *((tile, staged) for tile in tiles)])
    made = []
    for tile, inputs in options:
        try:
            made.append(construct(chain, tile, device, inputs))
        except FusecError:
            continue
        if 4 * made[-1].scratch_elements > device.scratch_per_block:
            made.pop()
    return made


def generated(work: Job, schedule: Schedule) -> Any:
    graph, device = work.graph, DEVICES["h200"]
    tiles = int(boxes_of(schedule, sizes_of(graph, work.nominal), work.nominal.batch).tiles[0])
    unchanged = Simplified(graph, {n.name: n.name for n in graph.nodes}, {o: o for o in graph.outputs})
    return generate(Plan(graph, unchanged, device, work.nominal, (PlannedChain(work.chain, (Planned(schedule, 0, tiles),)),)))


def prebuild(work: Job) -> None:
    for schedule in schedules(work):
        build("cuda", "sm_90", generated(work, schedule).sources, Cache(debug.cache_folder()))


def measure(path: Path) -> None:
    """Times every schedule of every job, those of one job in turns; kernels are compiled by several processes first."""
    work = list(jobs())
    with Pool() as pool:
        pool.map(prebuild, work, chunksize=1)
    import cupy

    rows = []
    for j in work:
        batch = j.sample.size[0]
        xs = [cupy.random.rand(batch, n.layer.channels, *j.image, dtype=cupy.float32)
              for n in j.graph.inputs if isinstance(n.layer, L.Input)]
        made = schedules(j)
        models = [build_and_link(generated(j, schedule)) for schedule in made]
        timed = alternate([(*timed_call(model, xs, model(*xs)), None) for model in models], ROUNDS, lambda *done: None)
        for schedule, times in zip(made, timed, strict=True):
            t = schedule.tile
            rows.append({"network": j.sample.network, "names": j.names, "tile": (t.images, t.channels, t.height, t.width),
                         "staged": [s.writes.tensor for s in schedule.stages if s.node is None],
                         "ms": round(1e3 * times.median, 4)})
    path.write_text("[" + ",\n".join(map(json.dumps, rows)) + "]\n")


class Fit:
    """The measured schedules, and the model's seconds for them."""

    def __init__(self, path: Path) -> None:
        known = {(j.sample.network, j.names): j for j in jobs()}
        self.items: list[tuple[Schedule, Boxes, tuple[str, ...]]] = []
        measured, groups = [], defaultdict(list)
        for row in json.loads(path.read_text()):
            j = known[row["network"], tuple(row["names"])]
            schedule = construct(j.chain, Tile(*row["tile"]), DEVICES["h200"], tuple(row["staged"]))
            groups[row["network"], j.names].append(len(self.items))
            boxes = boxes_of(schedule, sizes_of(j.graph, j.nominal), j.nominal.batch)
            self.items.append((schedule, boxes, tuple(row["staged"])))
            measured.append(row["ms"])
        self.measured, self.groups = np.array(measured), dict(groups)

    def predicted(self) -> Any:
        times = [float(timing.time_of(s.chain, boxes, staged, np.array([4 * s.scratch_elements]), DEVICES["h200"]).seconds[0])
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
        single = sum(self.measured[chosen[network, (n,)]] for n in order)
        if report:
            print(f"  {network:14} plan {best[-1][1]:.3f} ms {best[-1][2]}, layer by layer {single:.3f}, best {least[-1]:.3f}")
        return math.log(best[-1][1] / least[-1]) + 2 * max(0.0, math.log(best[-1][1] / single) + 0.02)


def fit(path: Path, seconds: float, seed: int) -> None:
    data, rng, start = Fit(path), random.Random(seed), time.monotonic()
    best = data.cost(report=True)
    while time.monotonic() - start < seconds:
        before = {name: getattr(timing, name) for name in CONSTANTS}
        for name in rng.sample(CONSTANTS, rng.choice((1, 1, 2, 3))):
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
    print("\n".join(f"{name} = {getattr(timing, name):.4g}" for name in CONSTANTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\n\n.*", "", __doc__ or "", flags=re.S))
    parser.add_argument("what", choices=("measure", "fit"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.json)
    else:
        fit(options.json, options.seconds, options.seed)


if __name__ == "__main__":
    main()
