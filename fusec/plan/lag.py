"""Stages side by side: how many steps each lies behind the first, and where its boxes are then.

In: a chain, its staged inputs, the footprints of one step of a strip. Out: lags, and the footprints moved up by them. Within a
step all stages run at once, so a stage may only read rows that were made in an earlier step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fusec.graph import layers as L
from fusec.plan.footprint import Pyramid
from fusec.plan.merge import merged_pools
from fusec.schedule.ir import Affine, Chain, Footprint


def lags(chain: Chain, staged: Collection[str]) -> Mapping[str, int]:
    """Steps that the stage which makes each tensor lies behind; inputs read from device memory have none."""
    found = dict.fromkeys(staged, 0)
    pools = merged_pools(chain)
    for node in chain.nodes:
        if node.inputs[0] in pools:
            found[node.name] = found[node.inputs[0]]
        else:
            found[node.name] = max((found[t] + 1 for t in node.inputs if t in found), default=0)
    return found


def behind(chain: Chain, boxes: Pyramid, staged: Collection[str], step: int) -> Pyramid:
    """The footprints of a step with every stage as far behind as it lies.

    A tensor's box ends with the rows that its stage makes in this step, and holds all that its readers still ask for, which lie
    further behind.
    """
    steps, pools = lags(chain, staged), merged_pools(chain)
    reads = {(name, position): _up(box, steps[name] * step) for (name, position), box in boxes.reads.items()}
    tensors: dict[str, Footprint] = {}
    for tensor, box in boxes.tensors.items():
        asked = [reads[n.name, i].y for n in chain.nodes for i, t in enumerate(n.inputs) if t == tensor]
        made = [_up(box, steps[tensor] * step).y] if tensor in steps else []
        tensors[tensor] = replace(box, y=_hull([*made, *asked]))
    for tensor, pool in pools.items():  # in registers: the windows of the pool's box
        assert isinstance(pool.layer, L.Windowed)
        rows, out = pool.layer.kernel[0], tensors[pool.name].y
        y = Affine(out.scale * rows, out.offset * rows, (out.extent or 0) * rows)
        tensors[tensor] = replace(tensors[tensor], y=y)
        reads[pool.name, 0] = replace(reads[pool.name, 0], y=y)
    return Pyramid(tensors, reads)


def _up(box: Footprint, rows: int) -> Footprint:
    """The box of a stage that lies `rows` rows of the output behind."""
    return replace(box, y=Affine(box.y.scale, box.y.offset - int(box.y.scale * rows), box.y.extent))


def _hull(parts: list[Affine]) -> Affine:
    """The least extent that holds all of them; they move at one rate."""
    start, end = min(p.offset for p in parts), max(p.offset + (p.extent or 0) for p in parts)
    return Affine(parts[0].scale, start, end - start)
