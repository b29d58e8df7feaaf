"""Scratch taken by many tiles at once: what `construct` would place, without constructing.

In: the boxes of N tiles and the inputs to be staged. Out: elements of scratch. The rule is `construct`'s own: buffers in the
order of first use, each at the lowest place free during its life.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fusec.plan.boxes import Boxes
from fusec.plan.construct import ALIGN, channel_pitch
from fusec.plan.counting import Ints
from fusec.schedule.ir import Chain, Layout
from fusec.targets.device import Device


def scratch_elements(chain: Chain, boxes: Boxes, staged: Collection[str], device: Device) -> Ints:
    """(N,) elements of scratch one block needs."""
    lives = _lives(chain, staged)
    sizes = [_size(boxes, tensor, device) for tensor, _, _ in lives]
    offsets = _offsets(lives, sizes)
    ends = [o + s for o, s in zip(offsets, sizes, strict=True)]
    return np.max(np.stack(ends), axis=0) if ends else np.zeros(len(boxes.images), dtype=np.int64)


def peak_stage(chain: Chain, boxes: Boxes, staged: Collection[str], device: Device) -> str:
    """The stage at which most scratch is alive, for the first of the tiles."""
    lives = _lives(chain, staged)
    sizes = [int(_size(boxes, tensor, device)[0]) for tensor, _, _ in lives]
    names = _stage_names(chain, staged)
    alive = [sum(s for (_, first, last), s in zip(lives, sizes, strict=True) if first <= i <= last) for i in range(len(names))]
    return names[alive.index(max(alive))]


def _stage_names(chain: Chain, staged: Collection[str]) -> list[str]:
    """Names of the stages `construct` makes, loads just before their first reader."""
    names: list[str] = []
    loaded: set[str] = set()
    for node in chain.nodes:
        for tensor in dict.fromkeys(node.inputs):
            if tensor in staged and tensor not in loaded:
                loaded.add(tensor)
                names.append(f"load {tensor}")
        names.append(node.name)
    return names


def _lives(chain: Chain, staged: Collection[str]) -> list[tuple[str, int, int]]:
    """(tensor, stage that makes it, last stage that reads it) of every scratch buffer, in the order made."""
    position = {name: i for i, name in enumerate(_stage_names(chain, staged))}
    last = {t: position[n.name] for n in chain.nodes for t in n.inputs}  # nodes are in order: the last reader wins
    made = [(t, position[f"load {t}"]) for t in chain.inputs if t in staged] + [(n, position[n]) for n in chain.names[:-1]]
    return sorted(((t, i, last[t]) for t, i in made), key=lambda life: life[1])


def _size(boxes: Boxes, tensor: str, device: Device) -> Ints:
    channels, height, width = boxes.extent[:, boxes.index[tensor]]
    if device.layout is Layout.NHWC:
        values, where = np.unique(channels, return_inverse=True)
        channels = np.array([channel_pitch(int(c), device.vector) for c in values], dtype=np.int64)[where]
    return np.asarray(boxes.images * channels * height * width)


def _offsets(lives: list[tuple[str, int, int]], sizes: list[Ints]) -> list[Ints]:
    """First fit for all tiles together: the lowest of the start and the ends of living buffers that leaves room."""
    taken = [-(-s // ALIGN) * ALIGN for s in sizes]
    offsets: list[Ints] = []
    for i, (_, born, _) in enumerate(lives):
        living = [j for j in range(i) if lives[j][2] >= born]
        best = np.full_like(taken[i], np.iinfo(np.int64).max)
        for place in (np.zeros_like(taken[i]), *(offsets[j] + taken[j] for j in living)):
            free = np.ones(len(place), dtype=np.bool_)
            for j in living:
                free &= (place + taken[i] <= offsets[j]) | (place >= offsets[j] + taken[j])
            best = np.where(free, np.minimum(best, place), best)
        offsets.append(best)
    return offsets
