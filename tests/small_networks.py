"""Networks and schedules written by hand: a few lines each, with small integer weights, exact in float32."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.shapes import infer, param_shapes
from fusec.plan.construct import construct
from fusec.schedule.ir import Chain, Schedule, Tile
from fusec.targets.device import DEVICES, Device

Step = L.Layer | tuple[L.Layer, str] | tuple[L.Layer, str, str]


def network(image: L.Input, outputs: Iterable[str] | None = None, **steps: Step) -> LayerGraph:
    """Layers by name behind the input `x`, each reading the one before it unless it names what it reads."""
    nodes, before = [Node("x", image)], "x"
    shapes = {"x": infer(image, [])}
    rng = np.random.default_rng(0)
    for name, step in steps.items():
        layer, *inputs = step if isinstance(step, tuple) else (step,)
        reads = tuple(str(i) for i in inputs) or (before,)
        wanted = param_shapes(layer, [shapes[i] for i in reads])
        params = {k: rng.integers(-2, 2, size=s, endpoint=True).astype(np.float32) for k, s in wanted.items()}
        nodes.append(Node(name, layer, reads, params))
        shapes[name] = infer(layer, [shapes[i] for i in reads])
        before = name
    return LayerGraph("small", nodes, outputs)


def conv(channels: int, k: int = 3, *, pad: int | None = None, stride: int = 1, groups: int = 1) -> L.Conv2d:
    """A square convolution that keeps the size unless told otherwise."""
    pad = k // 2 if pad is None else pad
    return L.Conv2d((k, k), (stride, stride), padding=L.Padding(*[pad] * 4), out_channels=channels, groups=groups)


def max_pool(k: int, stride: int, *, pad: int = 0, ceil: bool = False) -> L.MaxPool2d:
    return L.MaxPool2d((k, k), (stride, stride), padding=L.Padding(*[pad] * 4), ceil_mode=ceil)


def whole_chain(graph: LayerGraph) -> Chain:
    return Chain(graph, tuple(n.name for n in graph.layers))


def schedule_of(graph: LayerGraph, height: int, width: int, *, channels: int | None = None, images: int = 1,
                staged: Iterable[str] = ("x",), device: Device = DEVICES["h200"], step: int | None = None) -> Schedule:
    """All layers of `graph` in one chain, for tiles of `height` x `width` and all channels unless told otherwise."""
    chain = whole_chain(graph)
    tile = Tile(images, channels or chain.shapes[chain.output].channels, height, width)
    return construct(chain, tile, device, tuple(staged), step)


def image_of(graph: LayerGraph, height: int, width: int, batch: int = 1, low: int = -3, high: int = 3) -> NDArray[np.float32]:
    """Integer pixels (batch, channels, height, width) for the input `x`."""
    size = (batch, graph.shapes["x"].channels, height, width)
    return np.random.default_rng(1).integers(low, high, size=size, endpoint=True).astype(np.float32)
