"""The planner's choice against the best that measuring finds, and against layer by layer, for every shipped network.

    python benchmarks/chosen.py --target cpu --json FILE [--only NAME,...] [--time-limit S]

Of each network, or of its beginning where the whole takes long to measure, the kernels that the time model thinks promising are
measured as `fusec tune` does it, for `--time-limit` seconds, and the fastest plan is put together. That plan, the planner's own
and layer by layer are then timed whole, in turns in one process; what is reported are medians of those times. The best is the
fastest of the three. Measurements of kernels are kept, so a further run finds more; FILE keeps the networks of earlier runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from prefixes import prefix  # noqa: E402

from fusec import debug  # noqa: E402
from fusec.pipeline import Plan, choose_device, plan, read  # noqa: E402
from fusec.runtime import cpu  # noqa: E402
from fusec.runtime.cache import Cache  # noqa: E402
from fusec.targets.device import Device  # noqa: E402
from fusec.tuning.candidates import survey  # noqa: E402
from fusec.tuning.log import Log  # noqa: E402
from fusec.tuning.measure import Bench  # noqa: E402
from fusec.tuning.tune import SINGLE, UNTUNED, decide, measure_all  # noqa: E402

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """A network up to layer `last` (all of it when None), and the shape it is run on, on a CPU and on a GPU."""

    last: str | None
    cpu: Shape4
    cuda: Shape4


CASES = {
    "mnist4": Case(None, (1000, 1, 28, 28), (10000, 1, 28, 28)),
    "lenet5": Case(None, (1000, 1, 28, 28), (10000, 1, 28, 28)),
    "alexnet_prefix": Case(None, (1, 3, 227, 227), (32, 3, 227, 227)),
    "alexnet": Case("pool2", (1, 3, 227, 227), (32, 3, 227, 227)),
    "vgg_e": Case("pool2", (1, 3, 224, 224), (8, 3, 224, 224)),
    "resnet18": Case("block2_2_relu", (1, 3, 224, 224), (8, 3, 224, 224)),
    "mobilenet_v1": Case("pw4_relu", (1, 3, 224, 224), (8, 3, 224, 224)),
    "mobilenet_v2": Case("add3", (1, 3, 224, 224), (8, 3, 224, 224)),
    "artcnn_c4f16": Case(None, (1, 1, 270, 480), (1, 1, 1080, 1920)),
    "artcnn_c4f32": Case(None, (1, 1, 270, 480), (1, 1, 1080, 1920)),
    "fsrcnn_x2": Case(None, (1, 1, 270, 480), (1, 1, 1080, 1920)),
}


def measure(network: str, target: str, time_limit: float) -> dict[str, Any]:
    """One network: medians in milliseconds of a call of every plan, and the ratios of speeds."""
    case = CASES[network]
    shape = case.cuda if target == "cuda" else case.cpu
    graph, device = prefix(read(network, missing="random"), case.last), choose_device(target)
    untuned, single = (plan(graph, device, fuse, shape) for fuse in ("auto", "none"))
    known = survey(untuned.simplified.graph, device, untuned.nominal)
    deadline = time.perf_counter() + time_limit
    bench = Bench(untuned, Log(Cache(debug.cache_folder()).folder))
    found = measure_all(known, bench, lambda: time.perf_counter() >= deadline, lambda done, total: None)
    if found.interrupted:
        raise KeyboardInterrupt
    entrants = decide(untuned, single, known, found, lambda done, total: None).entrants
    seconds = {name: e.seconds[0] for name, e in entrants.items()}
    alone = seconds.get(SINGLE, seconds[UNTUNED])  # missing where it is the same plan as another
    best = min(seconds, key=lambda name: seconds[name])
    return {"last": case.last, "shape": list(shape), "chains_measured": found.done, "chains_promising": found.total,
            "ms": {"chosen": _ms(seconds[UNTUNED]), "layer_by_layer": _ms(alone), "best": _ms(seconds[best])},
            "chosen_to_best": round(seconds[best] / seconds[UNTUNED], 4),
            "chosen_to_layer_by_layer": round(alone / seconds[UNTUNED], 4),
            "chosen": _described(untuned), "best": _described(entrants[best].plan)}


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 4)


def _described(planned: Plan) -> list[str]:
    """A line for each chain: layers, tile, step."""
    schedules = [(c.chain, c.variants[0].schedule) for c in planned.chains]
    return [f"{chain}: {s.tile}" + ("" if s.step is None else f", steps of {s.step}") for chain, s in schedules]


def _machine(device: Device) -> dict[str, Any]:
    facts = {"device": device.board or device.name, "cores": device.cores, "caches": device.machine if not device.board else "",
             "python": platform.python_version()}
    if device.target == "cpu":
        text = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
        found = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
        facts |= {"processor": found[1] if found else platform.processor(), "vector_bits": 32 * device.vector,
                  "compiler": str(cpu.find_compiler(debug.compiler())).partition("(")[2].rstrip(")")}
    return facts


def _record(path: Path | None, target: str, commit: str) -> dict[str, Any]:
    """What earlier runs have left for this commit, or a new record."""
    made = {"command": f"python benchmarks/chosen.py --target {target}", "commit": commit, "target": target,
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(choose_device(target)),
            "unit": "milliseconds of a call, medians of rounds in turns; ratios are of speeds", "networks": {}}
    old = json.loads(path.read_text()) if path is not None and path.exists() else {}
    return made | {"networks": old["networks"]} if old.get("commit") == commit else made


def _means(networks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {key: round(statistics.geometric_mean(row[key] for row in networks.values()), 4)
            for key in ("chosen_to_best", "chosen_to_layer_by_layer")}


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\n\n.*", "", __doc__ or "", flags=re.S))
    parser.add_argument("--target", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--time-limit", type=float, default=120, help="seconds to measure kernels of each network")
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    record = _record(options.json, options.target, options.commit)
    networks = record["networks"]
    for name in options.only.split(","):
        row = networks[name] = measure(name, options.target, options.time_limit)
        times = ", ".join(f"{what.replace('_', ' ')} {ms:.3f} ms" for what, ms in row["ms"].items())
        print(f"{name:15} {times}; speed {row['chosen_to_best']:.3f} of the best's, "
              f"{row['chosen_to_layer_by_layer']:.3f} of layer by layer's; "
              f"{row['chains_measured']} of {row['chains_promising']} chains measured", flush=True)
        record["geometric_means"] = _means(networks)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    worst = min(row["chosen_to_best"] for row in networks.values())
    print(f"{'geometric mean':15} {_means(networks)['chosen_to_best']:.3f} of the best's speed, worst {worst:.3f}; "
          f"{_means(networks)['chosen_to_layer_by_layer']:.3f} of layer by layer's")


if __name__ == "__main__":
    main()
