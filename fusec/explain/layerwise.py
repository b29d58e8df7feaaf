"""The layers of a chain one by one: what it is compared with.

In: a chain, and the plan of the same network, device and sizes with a chain for each layer. Out: those of its layers.
"""

from __future__ import annotations

from fusec.plan.report import ChainReport, Report


def apart(chain: ChainReport, layerwise: Report) -> list[ChainReport]:
    """The chains of one layer each that make the same tensors, in the chain's order."""
    single = {c.output: c for c in layerwise.chains}
    return [single[s.name] for s in chain.stages if s.kind != "load"]
