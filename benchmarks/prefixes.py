"""Parts of networks, for benchmarks."""

from __future__ import annotations

import networkx as nx

from fusec.graph.graph import LayerGraph


def prefix(graph: LayerGraph, last: str | None) -> LayerGraph:
    """The part of a graph that tensor `last` needs; all of it for None."""
    if last is None:
        return graph
    kept = nx.ancestors(graph.digraph, last) | {last}
    return LayerGraph(graph.name, [n for n in graph.nodes if n.name in kept], [last])
