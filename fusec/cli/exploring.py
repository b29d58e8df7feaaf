"""`fusec plan --explore`: the Pareto front of all partitions as a table, with the conventions that its figures rest on.

In: a plan and a range of its layers. Out: an `Exploration`, and lines for people.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.cli.output import extents, facts, in_bytes, in_words, line, table
from fusec.pipeline import Plan
from fusec.plan.explore import Exploration, Point, explore

NOTES = (
    "moved    every chain's inputs and output once; weights not included",
    "buffers  what the largest chain keeps on chip so that nothing is read or computed twice: rows of all tensors it reads,",
    "         and columns at the left edge of the tile, but for its inputs",
    "inner    buffers without the rows of the chains' inputs",
    "edge     buffers with the columns of the chains' inputs",
    "extra    multiply-adds done again where nothing is kept and each tile computes all it needs",
)
MOST_NAMED = 3  # of what is counted with the layer before
ROOM = 72  # columns for the chains of a partition, so that a line has no more than 160


def explored(plan: Plan, layers: str | None, tile: tuple[int, int]) -> Exploration:
    """The partitions of the layers of a plan, which itself is the chosen one."""
    return explore(plan.simplified.graph, plan.nominal, layers=layers, tile=tile, absorbed=plan.simplified.absorbed,
                   planned=[c.chain.names for c in plan.chains])


def show(found: Exploration, device: str) -> None:
    """The named partitions, the one planned for `device` among them, and the Pareto front as a table; recompute by tile."""
    size = "" if found.height is None else f" of {found.height}x{found.width}"
    front = found.front
    said = "all of them weighed" if found.listed else "the front alone is kept"
    tried = "" if found.complete else " into intervals of the layers' order, others are not tried"
    facts([("network", found.network),
           ("layers", f"{len(found.layers)}, {found.layers[0]} to {found.layers[-1]}"),
           ("planned for", f"one image{size}, tiles of {extents(found.tile)}"),
           ("partitions", f"{found.partitions:,}{tried}, {len(front):,} on the Pareto front; {said}"),
           ("work", f"{in_words(found.multiply_adds)} multiply-adds"),
           ("weights", in_bytes(found.weight_bytes)),
           *_apart(found)])
    line()
    planned = {} if found.planned is None else {f"as planned for {device}": found.planned}
    table(("partition", ">moved", ">buffers", ">inner", ">edge", ">extra", ">work", "chains of several layers"),
          [*(_row(name, p, found) for name, p in {**found.ends, **planned}.items()),
           *(_row("Pareto front" if i == 0 else "", p, found) for i, p in enumerate(front))])
    line()
    for text in NOTES:
        line(text)
    if found.by_tile:
        line()
        table((">tile, all fused", ">extra", ">work"),
              [(extents((w.side, w.side)), in_words(w.extra_multiply_adds), _times(found, w.extra_multiply_adds))
               for w in found.by_tile])


def _apart(found: Exploration) -> list[tuple[str, str]]:
    """What is counted with the layer before, and the figure layer by layer if it were not, where there is any."""
    if not found.behind:
        return []
    more = f" and {len(found.behind) - MOST_NAMED} more" if len(found.behind) > MOST_NAMED else ""
    return [("counted", f"{', '.join(found.behind[:MOST_NAMED])}{more} with the layer before; alone they make it "
                        f"{in_bytes(found.norms_apart_bytes)} layer by layer")]


def _row(name: str, point: Point, found: Exploration) -> tuple[str, ...]:
    return (name, in_bytes(point.bytes_moved), in_bytes(point.buffer_bytes), in_bytes(point.inner_buffer_bytes),
            in_bytes(point.edge_buffer_bytes), in_words(point.extra_multiply_adds), _times(found, point.extra_multiply_adds),
            _chains(point, found))


def _times(found: Exploration, extra: int) -> str:
    return f"{found.work_ratio(extra):.3g}x"


def _chains(point: Point, found: Exploration) -> str:
    """The groups of several layers: intervals as `--fuse` takes them, others with a plus; of many the middle is left out."""
    several = [found.called(g) for g in point.groups if len(g.layers) > 1]
    return _shortened(several) or "none"


def _shortened(ranges: Sequence[str]) -> str:
    """Ranges with commas between, as many as there is room for, from both ends."""
    words = ",".join(ranges)
    for kept in range(len(ranges) - 1, 1, -1):
        if len(words) <= ROOM:
            break
        before, after = ranges[:kept - kept // 2], ranges[len(ranges) - kept // 2:]
        words = ",".join([*before, f"… {len(ranges) - kept} more …", *after])
    return words
