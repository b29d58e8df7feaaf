"""A mapped kernel as text, for dumps and for people.

In: a MappedKernel. Out: text, the same for the same kernel. Nothing parses it.
"""

from __future__ import annotations

from fusec.targets.base import MappedKernel


def show_mapping(kernel: MappedKernel) -> str:
    """Threads and blocks, then the constants of every stage, one stage a line."""
    lines = [f"{kernel.schedule.chain}: {kernel.threads} threads, {kernel.blocks_per_core} blocks per core"]
    lines += [f"  {s.comment}: " + " ".join(f"{name}={value}" for name, value in s.constants)
              for call in kernel.calls for s in call.structs]
    return "\n".join(lines) + "\n"
