"""An NVIDIA GPU's counters of each of a program's kernels, beside what fusec planned: what dram.py and ncu_lines.py share.

Such a program calls itself anew under Nsight Compute (ncu) with `--work ... FILE`: it then runs a model once and leaves in FILE
what its plan says of each kernel, in the order of launches. ncu empties the caches before each kernel. What a kernel wrote last
is still in the second-level cache when it ends and is not counted.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusec.plan.cost import Nominal, cost
from fusec.schedule.ir import Schedule
from fusec.targets.device import Device

READ, WRITTEN = BYTES = ("dram__bytes_read.sum", "dram__bytes_write.sum")


def require_ncu() -> None:
    """SystemExit unless Nsight Compute can be called."""
    if shutil.which("ncu") is None:
        raise SystemExit("ncu is not on the PATH: install Nsight Compute")


def traffic(schedule: Schedule, device: Device, nominal: Nominal) -> dict[str, int]:
    """Bytes planned: each tensor that enters or leaves the chain once, and the weights; `asked` is by all tiles together."""
    found = cost(schedule, device, nominal)
    return {"asked": found.bytes_moved, "read": found.boundary_bytes - found.bytes_written + found.weight_bytes,
            "written": found.bytes_written}


def profile(program: str, work: Sequence[str], metrics: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, float | None]]]:
    """Run one piece of a program's work under ncu.

    Parameters
    ----------
    program, work
        The program's path, and what follows `--work`.

    Returns
    -------
    What the work left in its file, with a list "kernels" whose items name their "kernel"; and for each of these the value of
    every metric, in base units. None stands for what this GPU does not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        command = ["ncu", "--clock-control", "none", "--cache-control", "all", "--metrics", ",".join(metrics), "--csv",
                   "--page", "raw", "--print-units", "base", "-k", "regex:^k_",
                   sys.executable, program, "--work", *work, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not file.exists():
            raise SystemExit(f"{' '.join(work)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        planned = json.loads(file.read_text())
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    rows = [row for row in csv.DictReader(lines) if row["Kernel Name"].startswith("k_")]
    if [r["Kernel Name"].split("(")[0] for r in rows] != [k["kernel"] for k in planned["kernels"]]:
        raise SystemExit(f"{' '.join(work)}: ncu saw other launches than the plan's: {[r['Kernel Name'] for r in rows]}")
    return planned, [{metric: _number(row.get(metric)) for metric in metrics} for row in rows]


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None
