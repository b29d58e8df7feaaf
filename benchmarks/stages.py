"""Times every stage of CPU kernels on one core, beside what the planner's time model expects: python benchmarks/stages.py.

    python benchmarks/stages.py [--only NETWORK,...] [--json FILE]

The kernels' source is changed to read the clock before and after each stage. What is reported is the least of several runs over
all tiles, in milliseconds. The constants for CPUs in `fusec/plan/timing.py` are set by them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import re
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from calibrate import machine  # noqa: E402

from fusec.pipeline import Plan, build_and_link, plan, read  # noqa: E402
from fusec.plan import timing  # noqa: E402
from fusec.plan.boxes import boxes_of  # noqa: E402
from fusec.plan.cost import sizes_of  # noqa: E402
from fusec.plan.lock import Decision  # noqa: E402
from fusec.plan.search import Candidate, Choice, staging_options  # noqa: E402
from fusec.schedule.ir import Chain, Tile  # noqa: E402
from fusec.tuning.candidates import Trial  # noqa: E402
from fusec.tuning.kernels import generate_all, inputs, single  # noqa: E402

ROUNDS = 15
MOST_STAGES = 64
CLOCK = f"""#include <ctime>
extern "C" __attribute__((visibility("default"))) long long stage_time[{MOST_STAGES}];
long long stage_time[{MOST_STAGES}];
static inline long long now() {{
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}}
"""
CALL = re.compile(r"^( +)(\w+<Stage.*\(.*\);)$", re.M)

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """A chain by its first and last layer, the shape its network is run on, the tile: images, channels, rows, columns."""

    network: str
    shape: Shape4
    first: str
    last: str
    tile: Shape4
    step: int | None = None


CASES = (
    *(Case("lenet5", (500, 1, 28, 28), "conv1", "fc3", (n, 10, 1, 1)) for n in (1, 2, 4, 16)),
    Case("lenet5", (500, 1, 28, 28), "conv1", "pool1", (1, 6, 14, 14)),
    Case("lenet5", (500, 1, 28, 28), "conv1", "conv2", (1, 16, 10, 10), 2),
    *(Case("mnist4", (500, 1, 28, 28), "conv1", "fc", (n, 10, 1, 1)) for n in (1, 4)),
    *(Case("artcnn_c4f16", (1, 1, 270, 480), "conv2", "conv3", (1, 16, *t)) for t in ((32, 32), (64, 64), (30, 96))),
    Case("artcnn_c4f16", (1, 1, 270, 480), "conv0", "depth_to_space", (1, 1, 68, 96)),
    Case("artcnn_c4f32", (1, 1, 270, 480), "conv2", "conv3", (1, 32, 32, 32)),
    Case("fsrcnn_x2", (1, 1, 270, 480), "conv1", "conv2", (1, 12, 15, 120)),
    Case("fsrcnn_x2", (1, 1, 270, 480), "conv3", "conv6", (1, 12, 32, 32)),
    Case("fsrcnn_x2", (1, 1, 270, 480), "conv7", "depth_to_space", (1, 1, 32, 64)),
    Case("mobilenet_v1", (1, 3, 224, 224), "conv0", "pw1", (1, 64, 28, 28)),
    Case("mobilenet_v1", (1, 3, 224, 224), "dw2", "pw2", (1, 128, 14, 28)),
    *(Case("mobilenet_v1", (1, 3, 224, 224), "dw8", "pw8", t) for t in ((1, 512, 7, 14), (1, 64, 14, 14))),
    Case("mobilenet_v2", (1, 3, 224, 224), "expand2", "project2", (1, 24, 14, 28)),
    Case("resnet18", (1, 3, 224, 224), "conv1", "pool1", (1, 64, 14, 56)),
    *(Case("resnet18", (1, 3, 224, 224), "block2_1_conv1", "block2_1_conv1", t) for t in ((1, 64, 14, 56), (1, 16, 56, 56))),
    Case("alexnet", (1, 3, 227, 227), "conv1", "pool1", (1, 96, 5, 27)),
    *(Case("alexnet", (1, 3, 227, 227), "conv2", "conv2", t) for t in ((1, 256, 3, 27), (1, 64, 27, 27))),
    Case("vgg_e", (1, 3, 224, 224), "conv1_1", "pool1", (1, 64, 8, 28)),
    *(Case("vgg_e", (1, 3, 224, 224), "conv2_1", "conv2_1", t) for t in ((1, 128, 8, 56), (1, 32, 28, 56))),
    *(Case("vgg_e", (1, 3, 224, 224), "conv3_2", "conv3_2", t) for t in ((1, 256, 7, 28), (1, 64, 14, 56))),
)


def clocked(text: str) -> str:
    """A kernel's source that adds the nanoseconds of each stage to `stage_time`."""
    index = iter(range(MOST_STAGES))

    def timed(call: re.Match[str]) -> str:
        return f"{call[1]}{{ const long long began = now(); {call[2]} stage_time[{next(index)}] += now() - began; }}"

    return CLOCK + CALL.sub(timed, text)


def measured(planned: Plan, chain: Chain, decision: Decision) -> tuple[float, list[float]]:
    """Milliseconds of a launch and of each of its stages, the least of several runs."""
    made = single(generate_all(planned, chain, [Trial(decision, None)]), 0, 1)
    entry = made.program.launches[0].variants[0].entry
    made = replace(made, sources=tuple(replace(s, text=clocked(s.text)) if s.entry == entry else s for s in made.sources))
    model = build_and_link(made)
    arrays = inputs(made, planned.nominal.batch)
    out = model(*arrays)
    stages = (ctypes.c_longlong * MOST_STAGES).in_dll(ctypes.CDLL(str(model.binaries[entry])), "stage_time")
    runs = []
    for _ in range(ROUNDS):
        ctypes.memset(stages, 0, ctypes.sizeof(stages))
        began = time.perf_counter()
        model(*arrays, out=out)
        runs.append([1e3 * (time.perf_counter() - began), *(1e-6 * ns for ns in stages)])
    whole, *parts = (min(column) for column in zip(*runs, strict=True))
    return whole, parts[:len(made.kernels[0].calls)]


def look(case: Case) -> dict[str, Any]:
    """A case's times and the model's."""
    device = machine("cpu")
    planned = plan(read(case.network, missing="random"), device, "none", case.shape)
    graph = planned.simplified.graph
    order = [n.name for n in graph.layers]
    chain = Chain(graph, tuple(order[order.index(case.first):order.index(case.last) + 1]))
    choice = Choice(Candidate(Tile(*case.tile), case.step), staging_options(chain, device)[0], 0.0)
    decision = Decision.chosen(choice)
    schedule = decision.schedule(chain, device)
    boxes = boxes_of(schedule, sizes_of(graph, planned.nominal), planned.nominal.batch)
    expected = timing.time_of(chain, boxes, choice.staged, np.array([4 * schedule.scratch_elements]), device)
    whole, parts = measured(planned, chain, decision)
    alone = {name: float(timing.cpu_seconds([work], boxes.tiles, boxes.steps + boxes.warm_up, device)[0])
             for name, work in timing.works_of(chain, boxes, choice.staged, device).items()}
    return {"network": case.network, "chain": str(chain), "shape": list(case.shape), "tile": list(case.tile), "step": case.step,
            "ms": round(whole, 4), "model_ms": round(1e3 * float(expected.seconds[0]), 4),
            "model_memory_ms": round(1e3 * float(expected.memory[0]), 4),
            "stages": {name: {"ms": round(ms, 4), "model_compute_ms": round(1e3 * model, 4)}
                       for (name, model), ms in zip(alone.items(), parts, strict=True)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", help="networks, with commas between them")
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["FUSEC_THREADS"] = "1"
    rows = []
    for case in (c for c in CASES if options.only is None or c.network in options.only.split(",")):
        row = look(case)
        rows.append(row)
        parts = ", ".join(f"{name} {s['ms']:.3f} ({s['model_compute_ms']:.3f})" for name, s in row["stages"].items())
        print(f"{case.network:13} {row['chain']:24} {case.tile} {row['ms']:8.3f} ms ({row['model_ms']:.3f} expected): {parts}",
              flush=True)
    error = statistics.fmean(math.log(r["ms"] / r["model_ms"]) ** 2 for r in rows) ** 0.5
    print(f"rms of the logarithms of measured to expected: {error:.3f}")
    if options.json:
        record = {"commit": options.commit, "unit": "milliseconds of a launch on one core, the least of several; in brackets "
                  "what the time model expects, of stages without memory", "rms": round(error, 4), "kernels": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
