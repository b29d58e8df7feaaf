"""A layer graph as a PyTorch module, so that peers run the very network and weights that fusec runs."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node


class TorchNetwork(nn.Module):
    """Evaluates a LayerGraph with PyTorch's operators; weights are parameters, so that compilers may pack them."""

    def __init__(self, graph: LayerGraph) -> None:
        super().__init__()
        self.graph = graph
        self.weights = nn.ParameterDict()
        for index, node in enumerate(graph.nodes):
            for key, value in node.params.items():
                tensor = torch.from_numpy(np.array(value, np.float32))
                self.weights[f"{index}_{key}"] = nn.Parameter(tensor, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: dict[str, torch.Tensor] = {}
        for index, node in enumerate(self.graph.nodes):
            given = [values[i] for i in node.inputs]
            params = {key: self.weights[f"{index}_{key}"] for key in node.params}
            values[node.name] = x if isinstance(node.layer, L.Input) else apply(node, given, params)
        return values[self.graph.outputs[0]]


def apply(node: Node, given: list[torch.Tensor], params: dict[str, torch.Tensor]) -> torch.Tensor:
    """One node by PyTorch."""
    x, layer = given[0], node.layer
    match layer:
        case L.Conv2d():
            x, padding = _padded(x, layer)
            return F.conv2d(x, params["weight"], params.get("bias"), layer.stride, padding, layer.dilation, layer.groups)
        case L.ConvTranspose2d():
            p = layer.padding
            return F.conv_transpose2d(x, params["weight"], params.get("bias"), layer.stride, (p.top, p.left),
                                      layer.output_padding, layer.groups, layer.dilation)
        case L.MaxPool2d():
            p = layer.padding
            return F.max_pool2d(x, layer.kernel, layer.stride, (p.top, p.left), layer.dilation, layer.ceil_mode)
        case L.AvgPool2d():
            p = layer.padding
            return F.avg_pool2d(x, layer.kernel, layer.stride, (p.top, p.left), layer.ceil_mode, layer.count_include_pad)
        case L.GlobalAvgPool2d():
            return x.mean((2, 3), keepdim=True)
        case L.BatchNorm():
            return F.batch_norm(x, params["running_mean"], params["running_var"], params["weight"], params["bias"],
                                eps=layer.eps)
        case L.LocalResponseNorm():
            return F.local_response_norm(x, layer.size, layer.alpha, layer.beta, layer.k)
        case L.Add():
            return sum(given[1:], x)
        case L.Mul():
            for other in given[1:]:
                x = x * other
            return x
        case L.Concat():
            return torch.cat(given, 1)
        case L.Flatten():
            return torch.flatten(x, 1)
        case L.Linear():
            return F.linear(torch.flatten(x, 1), params["weight"], params.get("bias"))
        case L.Softmax():
            return torch.softmax(x, 1)
        case L.Upsample():
            return F.interpolate(x, scale_factor=tuple(map(float, layer.factor)), mode="nearest")
        case L.DepthToSpace():
            return _depth_to_space(x, layer)
        case L.Identity():
            return x
    return _activation(x, layer, params)


def _activation(x: torch.Tensor, layer: L.Layer, params: dict[str, torch.Tensor]) -> torch.Tensor:
    match layer:
        case L.Relu():
            return F.relu(x)
        case L.LeakyRelu():
            return F.leaky_relu(x, layer.slope)
        case L.PRelu():
            return F.prelu(x, params["weight"])
        case L.Clip():
            return torch.clamp(x, layer.low, layer.high)
        case L.Sigmoid():
            return torch.sigmoid(x)
        case L.Tanh():
            return torch.tanh(x)
        case L.Silu():
            return F.silu(x)
    raise ValueError(f"no PyTorch operator for {layer.kind}")


def _padded(x: torch.Tensor, layer: L.Conv2d) -> tuple[torch.Tensor, tuple[int, int]]:
    p = layer.padding
    if p.top == p.bottom and p.left == p.right:
        return x, (p.top, p.left)
    return F.pad(x, (p.left, p.right, p.top, p.bottom)), (0, 0)


def _depth_to_space(x: torch.Tensor, layer: L.DepthToSpace) -> torch.Tensor:
    if layer.order is L.DepthToSpaceOrder.CRD:
        return F.pixel_shuffle(x, layer.block)
    n, c, h, w = x.shape
    b = layer.block
    return x.view(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
