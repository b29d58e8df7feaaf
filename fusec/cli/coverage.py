"""Which nodes of an ONNX file are not supported, as a table or JSON.

In: the error that reading it raised. Out: a line for every node, with the reason and what would work, and what --from and --to
could leave out.
"""

from __future__ import annotations

from dataclasses import asdict

from fusec.cli.output import facts, line, plural, print_json, table
from fusec.graph.onnx.refusal import Unsupported


def show(error: Unsupported, as_json: bool) -> None:
    """Print all nodes that are not supported."""
    if as_json:
        print_json({"nodes": error.nodes, "unsupported": [asdict(node) for node in error.refused],
                    "to": list(error.before), "from": list(error.behind)})
        return
    facts([("nodes", f"{error.nodes:,}, {len(error.refused):,} of them not supported")])
    line()
    table(("node", "operator", "why", "what would work"), [(n.node, n.operator, n.why, n.instead) for n in error.refused])
    ways = [(f"--{option}", ", ".join(names)) for option, names in (("to", error.before), ("from", error.behind)) if names]
    if ways:
        line()
        line("tensors in front of and behind these nodes, to compile a part of the network:")
        facts(ways)


def verdict(error: Unsupported) -> str:
    """The table in a sentence."""
    return f"{plural(len(error.refused), 'node')} of {error.nodes:,} not supported"
