"""Small networks and their nominal sizes, shared by the planner's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.read_yaml import read_yaml
from fusec.graph.shapes import param_shapes
from fusec.graph.simplify import Simplified, simplify

GRAPHS = Path(__file__).parents[2] / "graphs"
SHIPPED = sorted(p.stem for p in GRAPHS.glob("*.yaml"))


def shipped(name: str) -> Simplified:
    return simplify(read_yaml(GRAPHS / f"{name}.yaml", random_weights=1))


class Net:
    """Builds a graph line by line: `net("conv1", L.Conv2d(...), "input")`; without inputs, the line before is read."""

    def __init__(self, channels: int, height: int | None = None, width: int | None = None) -> None:
        self.nodes = [Node("input", L.Input(channels, height, width))]

    def __call__(self, name: str, layer: L.Layer, *inputs: str) -> str:
        self.nodes.append(Node(name, layer, inputs or (self.nodes[-1].name,)))
        return name

    def conv(self, name: str, channels: int, kernel: int = 3, stride: int = 1, *inputs: str, groups: int = 1) -> str:
        pad = kernel // 2
        padding = L.Padding(pad, pad, pad, pad)
        layer = L.Conv2d((kernel, kernel), (stride, stride), padding=padding, out_channels=channels, groups=groups)
        return self(name, layer, *inputs)

    def graph(self, *outputs: str) -> LayerGraph:
        plain = LayerGraph("net", self.nodes)
        nodes = []
        for n in plain.nodes:
            shapes = param_shapes(n.layer, plain.input_shapes(n))
            nodes.append(Node(n.name, n.layer, n.inputs, {k: np.zeros(s, np.float32) for k, s in shapes.items()}))
        return LayerGraph("net", nodes, outputs or None)


def residual(channels: int = 8) -> LayerGraph:
    """A stride-2 residual block with a projection, and a plain one behind it."""
    net = Net(channels, 16, 16)
    net.conv("stem", channels)
    net.conv("a1", 2 * channels, 3, 2)
    net.conv("a2", 2 * channels)
    net.conv("down", 2 * channels, 1, 2, "stem")
    net("add1", L.Add(), "a2", "down")
    net.conv("b1", 2 * channels)
    net.conv("b2", 2 * channels)
    net("add2", L.Add(), "b2", "add1")
    return net.graph()


def fire() -> LayerGraph:
    """A fire module: squeeze, two expansions, concatenation; then a classifier."""
    net = Net(16, 20, 20)
    net.conv("squeeze", 4, 1)
    net.conv("expand1", 8, 1)
    net.conv("expand3", 8, 3, 1, "squeeze")
    net("join", L.Concat(), "expand1", "expand3")
    net.conv("classify", 10, 1)
    net("pool", L.GlobalAvgPool2d())
    return net.graph()


def inverted(stages: int = 3) -> LayerGraph:
    """Inverted residuals: expand, depthwise, project, add."""
    net = Net(8, 24, 24)
    last = "input"
    for i in range(stages):
        net.conv(f"expand{i}", 48, 1, 1, last)
        net.conv(f"depthwise{i}", 48, groups=48)
        net.conv(f"project{i}", 8, 1)
        last = net(f"add{i}", L.Add(), f"project{i}", last)
    return net.graph()


def unet() -> LayerGraph:
    """Two levels down and up, with skips by concatenation; the size is open."""
    net = Net(3)
    net.conv("down1", 8)
    net.conv("down2", 16, 3, 2)
    net.conv("bottom", 16, 3, 2)
    net("up2", L.Upsample((2, 2)))
    net("join2", L.Concat(), "up2", "down2")
    net.conv("conv2", 8)
    net("up1", L.Upsample((2, 2)))
    net("join1", L.Concat(), "up1", "down1")
    net.conv("out", 3)
    return net.graph()


def vgg_prefix() -> LayerGraph:
    """The first five convolutions of VGG with their two poolings, without activations."""
    net = Net(3, 224, 224)
    net.conv("conv1_1", 64)
    net.conv("conv1_2", 64)
    net("pool1", L.MaxPool2d((2, 2), (2, 2)))
    net.conv("conv2_1", 128)
    net.conv("conv2_2", 128)
    net("pool2", L.MaxPool2d((2, 2), (2, 2)))
    net.conv("conv3_1", 256)
    return net.graph()
