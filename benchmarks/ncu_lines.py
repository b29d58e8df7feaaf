"""What limits each kernel of fusec's plans in half precision, by an NVIDIA GPU's counters.

    python benchmarks/ncu_lines.py --json FILE [--only NAME,...]    needs Nsight Compute (ncu) and the right to read counters

Of every network of `h200.py --dtype float16` the auto plan (or --build) runs once under ncu, from empty caches: durations are
longer than in a replayed CUDA graph. A kernel is limited by what is used for more than 60 % of the time it runs, in this order:
matrix instructions, issue slots, the pipe of scratch (shared memory), device memory; else by what its warps wait for most.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import counters  # noqa: E402
from cases import BUILDS, HALF_CASES, launched  # noqa: E402

from fusec.pipeline import build_and_link, generate  # noqa: E402
from fusec.plan.cost import nominal_for  # noqa: E402

DTYPE = "float16"
MUCH = 60.0  # per cent of the time, from which something is the limit
DURATION = "gpu__time_duration.sum"  # nanoseconds
ACTIVE, ELAPSED = "sm__cycles_active.avg", "sm__cycles_elapsed.max"
USED = {  # per cent, in the order in which they are looked at
    "matrix instructions": "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active",
    "instruction issue": "sm__inst_issued.avg.pct_of_peak_sustained_active",
    "scratch": "l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed",
    "memory": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
}
WAITS = {  # Nsight Compute's reasons for a warp not to issue, in words
    "barrier": "waiting at barriers",
    "branch_resolving": "waiting for branches",
    "dispatch_stall": "held back by the dispatcher",
    "drain": "waiting for stores at the end",
    "imc_miss": "waiting for constants",
    "lg_throttle": "queue of device memory's instructions full",
    "long_scoreboard": "waiting for device memory",
    "math_pipe_throttle": "waiting for a busy pipe of arithmetic",
    "membar": "waiting at memory fences",
    "mio_throttle": "queue of scratch's instructions full",
    "no_instruction": "waiting for instructions to be fetched",
    "not_selected": "other warps issue first",
    "short_scoreboard": "waiting for scratch",
    "sleeping": "asleep",
    "wait": "fixed latencies of instructions",
}


def _stalled(reason: str) -> str:
    """The metric: warps that wait for a reason, on average, each time an instruction is issued."""
    return f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio"


METRICS = (DURATION, ACTIVE, ELAPSED, *counters.BYTES, *USED.values(), *map(_stalled, (*WAITS, "selected")))


def work(name: str, build: str, file: Path) -> None:
    """Run one case once; leaves what its plan says of each kernel, in the order of launches."""
    import cupy

    case = HALF_CASES[name]
    made = generate(case.plan(DTYPE, build))
    planned, kernels = made.plan, []
    nominal = nominal_for(planned.simplified.graph, case.shape)
    for schedule, step in launched(made, case.shape):
        kernels.append({"chain": step.launch.label, "kernel": step.variant.entry, "tile": str(schedule.tile),
                        "step": schedule.step, "threads": step.variant.threads, "tiles": step.tiles,
                        **counters.traffic(schedule, planned.device, nominal)})
    file.write_text(json.dumps({"kernels": kernels}))
    model = build_and_link(made)
    model(cupy.asarray(case.images().astype(DTYPE)))
    cupy.cuda.runtime.deviceSynchronize()


def judged(kernel: dict[str, Any], row: dict[str, float | None]) -> dict[str, Any]:
    """A kernel's plan with what was counted, and what limits it."""
    waits = {words: row[_stalled(reason)] or 0.0 for reason, words in WAITS.items()}
    most = sorted(waits, key=lambda words: -waits[words])[:2]
    used = {what: row[metric] for what, metric in USED.items()}
    active, elapsed, duration = (row[metric] for metric in (ACTIVE, ELAPSED, DURATION))
    return kernel | {
        "us": None if duration is None else duration / 1e3,
        "counted_read": row[counters.READ], "counted_written": row[counters.WRITTEN],
        "percent": used, "busy_percent": None if active is None or not elapsed else 100 * active / elapsed,
        "waits": {words: waits[words] for words in most}, "stalls": {r: row[_stalled(r)] for r in (*WAITS, "selected")},
        "limit": next((what for what, percent in used.items() if (percent or 0.0) > MUCH), most[0])}


def line(name: str, kernel: dict[str, Any]) -> str:
    """One kernel: time, bytes, how much of what is used, and what limits it."""
    bytes_ = [None if None in pair else sum(pair) / 1e6 for pair in (
        (kernel["read"], kernel["written"]), (kernel["counted_read"], kernel["counted_written"]))]
    used = ", ".join(f"{what} {_short(percent)} %" for what, percent in (*kernel["percent"].items(),
                                                                      ("multiprocessors", kernel["busy_percent"])))
    waits = ", ".join(f"{words} {value:.1f}" for words, value in kernel["waits"].items())
    return f"{name:20} {kernel['chain']:26} {_short(kernel['us'], 1):>8} us, {_short(bytes_[0], 1)} MB planned, " \
           f"{_short(bytes_[1], 1)} counted; {used}; {waits}: limited by {kernel['limit']}"


def _short(value: float | None, digits: int = 0) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(HALF_CASES))
    parser.add_argument("--build", choices=BUILDS, default="auto")
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", nargs=3, metavar=("NAME", "BUILD", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.work[1], Path(options.work[2]))
        return
    counters.require_ncu()
    record: dict[str, Any] = {"commit": options.commit, "date": datetime.now(UTC).isoformat(timespec="seconds"), "dtype": DTYPE,
                              "build": options.build,
                              "unit": "bytes, microseconds, per cent; stalls are warps waiting per instruction issued",
                              "cases": {}}
    for name in options.only.split(","):
        planned, counts = counters.profile(__file__, (name, options.build), METRICS)
        kernels = [judged(kernel, row) for kernel, row in zip(planned["kernels"], counts, strict=True)]
        record["cases"][name] = {"shape": HALF_CASES[name].shape, "kernels": kernels}
        for kernel in kernels:
            print(line(name, kernel), flush=True)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
