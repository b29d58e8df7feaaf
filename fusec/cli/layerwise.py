"""A plan that lets every layer's value out, without changing the kernels that make it more than that takes.

In: a `Plan`. Out: another one, with a kernel for each layer: the layer's chain, cut off behind it. Fused work stays fused, so
that a fault of a fused kernel shows at the layer where it begins. The tensors that go from chain to chain are the fused
kernels' own.
"""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import Simplified
from fusec.pipeline import Plan, PlannedChain
from fusec.plan.search import variants
from fusec.schedule.ir import Chain


def layerwise(plan: Plan) -> Plan:
    """The plan with every layer of the simplified network as an output, in the order the kernels run."""
    graph = plan.simplified.graph
    chains = tuple(_cut_chains(plan))
    order = tuple(c.chain.output for c in chains)
    opened = LayerGraph(graph.name, graph.nodes, order)
    simplified = Simplified(opened, {n.name: n.name for n in opened.nodes}, {name: name for name in order})
    return Plan(opened, simplified, plan.device, plan.nominal, chains)


def _cut_chains(plan: Plan) -> Iterator[PlannedChain]:
    """A chain for every layer: of its own chain what it needs."""
    graph = plan.simplified.graph
    between = {c.chain.output for c in plan.chains}
    for item in plan.chains:
        for name in item.chain.names:
            behind = nx.ancestors(graph.digraph, name) | {name}
            outputs = (*(n.name for n in graph.nodes if n.name in behind and n.name in between and n.name != name), name)
            part = LayerGraph(graph.name, (n for n in graph.nodes if n.name in behind), outputs)
            chain = Chain(part, tuple(n for n in item.chain.names if n in behind))
            yield PlannedChain(chain, variants(chain, plan.device, plan.nominal))


def tensor_of(plan: Plan, name: str) -> str:
    """The tensor of the network as read that layer `name` of the simplified one makes: that of the last layer it took in."""
    return next(n.name for n in reversed(plan.original.nodes)
                if plan.simplified.absorbed[n.name] == name and not isinstance(n.layer, L.Input))
