"""Reuse of overlap along y against recompute, measured chain by chain, beside the same layers one by one.

    python benchmarks/reuse.py --target cpu --json FILE [--only NAME,...]

Of each chain the tiles and the strips that the time model ranks first are measured in turns (`--tried` of each), with the
layouts they have in their network; the fastest of each kind is kept. Layers one by one are the sum of their fastest, tile or
strip. Caches are warm; on a GPU times are CUDA events'.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from prefixes import prefix  # noqa: E402

from fusec.errors import Infeasible  # noqa: E402
from fusec.pipeline import Plan, build_and_link, choose_device, plan, read  # noqa: E402
from fusec.plan.cost import cost  # noqa: E402
from fusec.plan.lock import Decision  # noqa: E402
from fusec.plan.partition import partition  # noqa: E402
from fusec.plan.search import Search  # noqa: E402
from fusec.schedule.ir import Chain  # noqa: E402
from fusec.tuning.candidates import Trial  # noqa: E402
from fusec.tuning.kernels import generate_all, inputs, single  # noqa: E402
from fusec.tuning.measure import on_device, timed_call  # noqa: E402
from fusec.tuning.timing import alternate  # noqa: E402

RANKED = 200  # candidates asked for, so that some of each kind are among them


@dataclass(frozen=True)
class Case:
    """A network up to layer `last` (all of it when None), the shape it is run on, and the chains to look at."""

    network: str
    shape: tuple[int, int, int, int]
    chains: str
    last: str | None = None


CASES = {
    "artcnn_c4f16_1080p": Case("artcnn_c4f16", (1, 1, 1080, 1920), "all"),
    "artcnn_c4f16_1080p_pairs": Case("artcnn_c4f16", (1, 1, 1080, 1920), "conv1..conv2,conv3..conv4,skip_add..depth_to_space"),
    "vgg5_b8": Case("vgg_e", (8, 3, 224, 224), "conv1_1..pool1,conv2_1..pool2", "relu3_1"),
    "vgg5_b8_all": Case("vgg_e", (8, 3, 224, 224), "all", "relu3_1"),
}


def measured(planned: Plan, chain: Chain, tried: int) -> dict[str, dict[str, Any]]:
    """The fastest tile and the fastest strip of a chain, as far as there are any."""
    batch = planned.nominal.batch
    search = Search(chain, planned.device, planned.nominal)
    ranked = search.ranked(batch, RANKED)
    kinds = {"recompute": [c for c in ranked if c.candidate.step is None][:tried],
             "reuse": [c for c in ranked if c.candidate.step is not None][:tried]}
    choices = [c for found in kinds.values() for c in found]
    decisions = [Decision.chosen(c) for c in choices]
    made = generate_all(planned, chain, [Trial(d, search.tiles(c, batch)) for d, c in zip(decisions, choices, strict=True)])
    models = [build_and_link(single(made, i, 1)) for i in range(len(choices))]
    arrays = on_device(models[0], inputs(made, batch))
    out = models[0](*arrays)
    times = alternate([(*timed_call(m, arrays, out), None) for m in models], None, lambda *done: None)
    rows: dict[str, dict[str, Any]] = {}
    for kind, found in kinds.items():
        timed = [(times[choices.index(c)].median, c) for c in found]
        if timed:
            seconds, best = min(timed, key=lambda item: item[0])
            counted = cost(Decision.chosen(best).schedule(chain, planned.device), planned.device, planned.nominal)
            rows[kind] = {"ms": round(1e3 * seconds, 4), "tile": str(best.candidate.tile), "step": best.candidate.step,
                          "scratch_bytes": counted.scratch_bytes, "extra": counted.extra,
                          "extra_ratio": round(counted.extra / max(1, counted.unfused_multiply_adds), 4), "tried": len(timed)}
    return rows


def run(case: Case, target: str, tried: int) -> dict[str, Any]:
    graph = prefix(read(case.network, missing="random"), case.last)
    planned = plan(graph, choose_device(target), "none", case.shape)
    simple, device, nominal = planned.simplified, planned.device, planned.nominal
    chains = partition(simple.graph, case.chains, device, nominal=nominal, absorbed=simple.absorbed)
    alone: dict[str, float] = {}
    found = {}
    for chain in chains:
        for name in chain.names:
            rows = measured(planned, Chain(simple.graph, (name,)), tried)
            alone[name] = min(row["ms"] for row in rows.values())
        try:
            found[str(chain)] = {"layer_by_layer_ms": round(sum(alone[n] for n in chain.names), 4),
                                 **measured(planned, chain, tried)}
        except Infeasible as error:
            found[str(chain)] = {"infeasible": str(error)}
        print(f"  {chain!s:28}", json.dumps(found[str(chain)]), flush=True)
    return {"network": case.network, "last": case.last, "shape": case.shape, "layers_ms": alone, "chains": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--tried", type=int, default=6)
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = choose_device(options.target)
    record: dict[str, Any] = {
        "commit": options.commit, "date": datetime.now(UTC).isoformat(timespec="seconds"), "device": device.name,
        "cores": device.cores, "unit": "milliseconds of one launch, medians", "cases": {}}
    for name in options.only.split(","):
        print(name, flush=True)
        record["cases"][name] = run(CASES[name], options.target, options.tried)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
