"""One kernel of a network as a model of its own, so that it can be timed as it is, with the layouts it has in the network.

In: a chain of a plan's network and trials for it. Out: programs of a single launch, repeated, on arrays of the sizes that
the chain's tensors have. Between the pipeline's generated kernels and the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fusec.pipeline import Generated, Plan, PlannedChain, generate
from fusec.plan.cost import sizes_of
from fusec.plan.search import Planned
from fusec.runtime.program import POOL, Port, Program, TensorRule
from fusec.runtime.weights import Floats, aligned
from fusec.schedule.ir import Chain
from fusec.schedule.verify import verify
from fusec.tuning.candidates import Trial

SEED = 0


def generate_all(plan: Plan, chain: Chain, trials: Sequence[Trial]) -> Generated:
    """The kernels of all trials for one chain, as the variants of one launch: they share its weights."""
    schedules = [c.decision.schedule(chain, plan.device) for c in trials]
    for schedule in schedules:
        verify(schedule, plan.device if plan.device.target == "cuda" else None)
    planned = tuple(Planned(schedule, 0, c.tiles) for schedule, c in zip(schedules, trials, strict=True))
    made = generate(replace(plan, chains=(PlannedChain(chain, planned),)))
    return replace(made, weights={key: aligned(array) for key, array in made.weights.items()})


def single(made: Generated, index: int, repeats: int) -> Generated:
    """Kernel number `index` alone, launched `repeats` times by a call: a call's own time is shared among them."""
    [launch], [item] = made.program.launches, made.plan.chains
    variant = launch.variants[index]
    only = replace(launch, variants=(replace(variant, min_blocks=0),))
    sizes = sizes_of(item.chain.graph, made.plan.nominal)

    def rule(tensor: str) -> TensorRule:
        source = None if tensor in launch.inputs else launch.inputs[0]
        height, width = (((0, extent, 1),) for extent in sizes[tensor])
        return TensorRule(tensor, item.chain.shapes[tensor].channels, source, height, width)

    program: Program = replace(
        made.program, inputs=tuple(Port(t, t) for t in launch.inputs), outputs=(Port(launch.output, launch.output),),
        tensors=tuple(rule(t) for t in (*launch.inputs, *item.chain.names)), launches=(only,) * repeats)
    return replace(made, program=program, sources=tuple(s for s in made.sources if s.entry in (variant.entry, POOL)))


def inputs(made: Generated, batch: int) -> list[Floats]:
    """Random values from 0 to 1 for the tensors that the chain reads, (batch, channels as stored, height, width) each."""
    [launch], [item] = made.program.launches, made.plan.chains
    sizes, generator = sizes_of(item.chain.graph, made.plan.nominal), np.random.default_rng(SEED)
    channels = [made.program.stored_channels(t, item.chain.shapes[t].channels) for t in launch.inputs]
    return [generator.random((batch, c, *sizes[t]), np.float32) for t, c in zip(launch.inputs, channels, strict=True)]
