"""The pipeline as the commands run it: step by step, with progress and the time each took.

In: a network as read, a device, a way to cut it. Out: `Built`, with the values between the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fusec import pipeline
from fusec.cli.options import Shape4
from fusec.cli.output import plural
from fusec.cli.progress import Progress
from fusec.errors import InputError
from fusec.graph.graph import LayerGraph
from fusec.plan.cost import Nominal
from fusec.plan.partition import partition
from fusec.plan.report import Report, report
from fusec.runtime.model import Model
from fusec.schedule.ir import Schedule
from fusec.targets.device import Device

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Built:
    """A network built one way, and the seconds it took."""

    generated: pipeline.Generated
    model: Model
    seconds: dict[str, float]

    @property
    def plan(self) -> pipeline.Plan:
        return self.generated.plan

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """The layers of each kernel."""
        return tuple(c.chain.names for c in self.plan.chains)


def build(graph: LayerGraph, device: Device, fuse: str, progress: Progress, shape: Shape4 | None = None,
          locked: Path | None = None) -> Built:
    """Steps 2 to 8 of the pipeline."""
    seconds: dict[str, float] = {}
    how = "" if fuse == "auto" else f" ({fuse})"
    planned = _timed(progress, seconds, "plan", f"planning{how}", lambda: pipeline.plan(graph, device, fuse, shape, locked))
    return finish(planned, progress, seconds)


def finish(planned: pipeline.Plan, progress: Progress, seconds: dict[str, float] | None = None) -> Built:
    """Steps 5 to 8, for a plan that is there."""
    seconds = {} if seconds is None else seconds
    generated = _timed(progress, seconds, "generate", "generating source", lambda: pipeline.generate(planned))
    model = _timed(progress, seconds, "build", "building kernels", lambda: pipeline.build_and_link(generated, progress))
    seconds["total"] = sum(seconds.values())
    return Built(generated, model, seconds)


def _timed(progress: Progress, seconds: dict[str, float], key: str, text: str, step: Callable[[], T]) -> T:
    progress.phase(text)
    began = time.perf_counter()
    value = step()
    seconds[key] = time.perf_counter() - began
    return value


def report_of(plan: pipeline.Plan) -> Report:
    """The numbers of a plan, by the schedules for many tiles; InputError where there is nothing to plan."""
    if not plan.chains:
        raise InputError("the network only passes its input on: there is nothing to plan", plan.original.name)
    return report((c.variants[0].schedule for c in plan.chains), plan.device, plan.nominal)


def why_unfused(plan: pipeline.Plan, fuse: str) -> str | None:
    """Why every layer of a plan has a kernel of its own; None when some share one."""
    if any(len(item.chain.names) > 1 for item in plan.chains):
        return None
    if len(plan.chains) < 2:
        return "there is one layer" if plan.chains else "no layer computes anything"
    if fuse not in ("auto", "all"):
        return "as asked"
    longest = partition(plan.simplified.graph, "all", plan.device, nominal=plan.nominal)
    if all(len(chain.names) == 1 for chain in longest):
        return "no chain of two layers or more is legal and fits"
    return "the time model expects no chain to be faster than its layers one by one"


def plan_in_words(plan: pipeline.Plan) -> str:
    """One line per chain: its layers, tiles and scratch."""
    def tile(schedule: Schedule) -> str:
        return f"{schedule.tile} ({plan.device.element * schedule.scratch_elements} bytes of scratch)"

    lines = []
    for index, item in enumerate(plan.chains):
        labels = " ".join(node.label for node in item.chain.nodes)
        tiles = " or ".join(tile(v.schedule) for v in item.variants)
        lines.append(f"{index}: {labels}; tile {tiles}")
    return "\n".join(lines)


def sizes_in_words(nominal: Nominal) -> str:
    """The sizes a plan is made for: `1,024 images or 1`, `1 image of 1088x1920`."""
    first, *others = nominal.batches
    size = "" if nominal.height is None else f" of {nominal.height}x{nominal.width}"
    return " or ".join((plural(first, "image"), *(f"{batch:,}" for batch in others))) + size


def device_in_words(device: Device) -> str:
    """The target and what of it matters to a reader of results."""
    if device.target == "cpu":
        return f"cpu ({plural(device.cores, 'core')}, {32 * device.vector}-bit vectors)"
    if device.board:
        return f"cuda ({device.board}, {device.arch}, planned for {device.name} with {plural(device.cores, 'multiprocessor')})"
    return f"cuda ({device.arch}, planned for {device.name})"
