"""Which convolutions hand their output to a pool in registers, without a place in scratch.

In: a chain. Out: the pools that take their input so. There is nothing to choose: it saves the stores, the loads and a barrier
wherever it is legal, so `construct` always does it, and everything else that plans asks here what `construct` will do.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from fusec.graph import layers as L
from fusec.graph.graph import Node
from fusec.schedule.ir import Chain


def merged_pools(chain: Chain) -> dict[str, Node]:
    """The pools of `chain` that take their input from registers, by the name of that input.

    Each follows directly on a convolution, whose only reader it is, and its windows neither overlap nor leave the image: then
    the pixels under one window are all made for that window, and one thread can make them. A convolution with an output of one
    position is left out: it has no window of pixels.
    """
    readers = Counter(tensor for n in chain.nodes for tensor in n.inputs)
    return {conv.name: pool for conv, pool in pairwise(chain.nodes)
            if pool.inputs == (conv.name,) and readers[conv.name] == 1 and isinstance(conv.layer, L.Conv2d)
            and tiles_image(pool.layer) and (chain.shapes[conv.name].height, chain.shapes[conv.name].width) != (1, 1)}


def tiles_image(layer: L.Layer) -> bool:
    """Whether `layer` is a pool whose windows lie side by side inside the image, none of them in part outside."""
    return isinstance(layer, L.MaxPool2d | L.AvgPool2d) and layer.kernel == layer.stride and layer.dilation == (1, 1) \
        and not layer.padding and not layer.ceil_mode
