"""What the commands share that plan for a device which need not be here.

In: --device or --target, and --dtype. Out: a Device.
"""

from __future__ import annotations

import click

from fusec import pipeline
from fusec.cli import options
from fusec.cli.options import Command
from fusec.cli.output import note
from fusec.runtime.cuda import gpu
from fusec.targets.device import DEVICES, Device, find_device, in_precision

NO_GPU_DEVICE = "h200"  # planned for when a GPU is asked for and there is none


def device(command: Command) -> Command:
    """--device, --target and --dtype."""
    name = click.option("--device", metavar="NAME", help=f"Plan for this device: {', '.join(DEVICES)}, cpu, or an architecture "
                                                         "such as sm_90. It need not be there.")
    target = click.option("--target", type=click.Choice(options.TARGETS),
                          help="Plan for this machine's GPU or CPU.  [default: auto]")
    return name(target(options.DTYPE(command)))


def choose(name: str | None, target: str | None, dtype: str) -> Device:
    """The device that --device or --target means, with tensors of `dtype`; a usage error when both are given."""
    options.only_one(device=name, target=target)
    if name is not None:
        return pipeline.choose_device("cpu", dtype) if name == "cpu" else in_precision(find_device(name), dtype)
    if target == "cuda" and not gpu.available():
        note(f"there is no GPU here; planned for {NO_GPU_DEVICE} (--device names another)")
        return in_precision(DEVICES[NO_GPU_DEVICE], dtype)
    return pipeline.choose_device(target or "auto", dtype)
