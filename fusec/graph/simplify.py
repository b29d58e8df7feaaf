"""Rewrites a layer graph into the fewer, larger nodes that kernels are made of; the second step of the pipeline.

In: a `LayerGraph` as read. Out: `Simplified`, an equal graph and where the original names went. Five passes, each making a new
graph: identities are dropped, batch-norms and constants of each channel folded, zeros added before a convolution made its
padding, linear layers turned into convolutions (each is one with a single output position), and activations attached to the
node that makes their input. The arithmetic stays the same but for the one rounding of the weights a batch-norm is folded into.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType

import numpy as np

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import Array, LayerGraph, Node, Params, Pointwise


@dataclass(frozen=True, eq=False)
class Simplified:
    """A simplified graph, and where the names of the original went.

    Attributes
    ----------
    graph
        The simplified network. A node that took in others keeps its own name: `conv1`, `bn1`, `relu1` become `conv1`.
    absorbed
        Every node name of the original to the node that now holds it, inputs included; a name that survives maps to itself.
        An identity, or a flatten that changes nothing, belongs to the node that makes its input; a flatten that became part
        of a linear layer belongs to that layer (to the first of several).
    output_names
        Every output of the original, in its order, to the tensor of `graph` that holds its value. Two outputs may share one.
    """

    graph: LayerGraph
    absorbed: Mapping[str, str]
    output_names: Mapping[str, str]


@dataclass
class _Rewrite:
    """The graph a pass is making: nodes by name in topological order, and where old names went."""

    old: LayerGraph
    nodes: dict[str, Node] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # dropped tensor -> the tensor to read instead
    held: dict[str, str] = field(default_factory=dict)  # dropped node -> the node that does its work, where not in `moved`

    def __post_init__(self) -> None:
        readers = Counter(i for node in self.old.nodes for i in set(node.inputs))
        self._private = {name for name, count in readers.items() if count == 1} - set(self.old.outputs)

    def keep(self, node: Node) -> None:
        """Takes `node` over, reading what its inputs have become."""
        self.nodes[node.name] = replace(node, inputs=tuple(self.moved.get(i, i) for i in node.inputs))

    def source(self, node: Node) -> Node:
        """The new node that makes the first input of the old `node`."""
        name = node.inputs[0]
        return self.nodes[self.moved.get(name, name)]

    def merge(self, node: Node, into: Node) -> None:
        """`into` replaces the new node of its name and makes the tensor of `node`, which is gone."""
        self.nodes[into.name] = into
        self.moved[node.name] = into.name

    def reads_alone(self, node: Node) -> bool:
        """Whether nobody else, a user included, sees the first input of the old `node`."""
        return node.inputs[0] in self._private

    def finish(self) -> LayerGraph:
        outputs = dict.fromkeys(self.moved.get(o, o) for o in self.old.outputs)
        return LayerGraph(self.old.name, self.nodes.values(), outputs)


def simplify(graph: LayerGraph) -> Simplified:
    """Rewrite a network into the nodes that kernels are made of.

    Parameters
    ----------
    graph
        Any network; it is left as it is. Simplifying a simplified graph changes nothing.

    Returns
    -------
    Simplified
        The new graph holds no `BatchNorm`, no `Linear` and no `Identity` (but one that came with an epilogue) any more.

    Raises
    ------
    InputError
        A batch-norm whose running variance cannot be divided by.
    """
    absorbed = {node.name: node.name for node in graph.nodes}
    outputs = {name: name for name in graph.outputs}
    current = graph
    for run in PASSES:
        done = run(current)
        current = done.finish()
        holder = done.moved | done.held
        absorbed = {name: holder.get(node, node) for name, node in absorbed.items()}
        outputs = {name: done.moved.get(tensor, tensor) for name, tensor in outputs.items()}
    return Simplified(current, MappingProxyType(absorbed), MappingProxyType(outputs))


def _drop_identities(graph: LayerGraph) -> _Rewrite:
    """Readers of an identity, of a flatten of one pixel, or of a crop or pad of nothing, read its input."""
    rewrite = _Rewrite(graph)
    for node in graph.nodes:
        if _is_idle(graph, node) and not node.epilogue:
            rewrite.merge(node, rewrite.source(node))
        else:
            rewrite.keep(node)
    return rewrite


def _is_idle(graph: LayerGraph, node: Node) -> bool:
    layer = node.layer
    if isinstance(layer, L.Flatten):
        return graph.shapes[node.inputs[0]].one_pixel
    if isinstance(layer, L.Crop):
        return not any(edge for axis in L.Axis for edge in layer.along(axis))
    return isinstance(layer, L.Identity) or (isinstance(layer, L.Pad) and not layer.padding)


# ---- batch norm


def _fold_batch_norms(graph: LayerGraph) -> _Rewrite:
    """A batch-norm, or constants of each channel, alone behind a layer with weights scales those; any other batch-norm becomes
    a `ChannelAffine`."""
    rewrite = _Rewrite(graph)
    for node in graph.nodes:
        if not isinstance(node.layer, L.BatchNorm | L.ChannelAffine):
            rewrite.keep(node)
            continue
        scale, shift = _scale_and_shift(node)
        source = rewrite.source(node)
        weighted = isinstance(source.layer, L.Conv2d | L.ConvTranspose2d | L.Linear)
        if weighted and not source.epilogue and rewrite.reads_alone(node):
            rewrite.merge(node, replace(_scaled(source, scale, shift), epilogue=node.epilogue))
        else:
            dtype = next(iter(node.params.values())).dtype
            params = {"scale": scale.astype(dtype), "shift": shift.astype(dtype)}
            rewrite.keep(replace(node, layer=L.ChannelAffine(), params=params))
    return rewrite


def _scale_and_shift(node: Node) -> tuple[Array, Array]:
    """The batch-norm, or what is one already, as x * scale + shift, float64 (channels,)."""
    if isinstance(node.layer, L.ChannelAffine):
        return np.asarray(node.params["scale"], np.float64), np.asarray(node.params["shift"], np.float64)
    assert isinstance(node.layer, L.BatchNorm)
    weight, bias, mean, variance = (np.asarray(node.params[k], dtype=np.float64)
                                    for k in ("weight", "bias", "running_mean", "running_var"))
    spread = variance + node.layer.eps
    if not (spread > 0).all():
        channel = int(np.argmin(spread > 0))
        raise InputError(f"running_var + eps is {spread[channel]:g} for channel {channel}; it must be positive", node.name,
                         hint="a variance is never negative: were the weights mixed up?")
    scale = weight / np.sqrt(spread)
    return scale, bias - mean * scale


def _scaled(node: Node, scale: Array, shift: Array) -> Node:
    """`node` with every output channel times `scale` plus `shift`: computed in float64, rounded once to the weights' dtype."""
    layer = node.layer
    assert isinstance(layer, L.Conv2d | L.ConvTranspose2d | L.Linear)
    weight = np.asarray(node.params["weight"], dtype=np.float64)
    if isinstance(layer, L.ConvTranspose2d):  # (in, out / groups, ...): the input channel's group decides the output channel
        per_group = scale.reshape(layer.groups, 1, -1, 1, 1)
        scaled = (weight.reshape(layer.groups, -1, *weight.shape[1:]) * per_group).reshape(weight.shape)
    else:
        scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = shift + (np.asarray(node.params["bias"], dtype=np.float64) * scale if layer.bias else 0.0)
    dtype = node.params["weight"].dtype
    return replace(node, layer=replace(layer, bias=True), params={"weight": scaled.astype(dtype), "bias": bias.astype(dtype)})


# ---- padding


def _merge_pads(graph: LayerGraph) -> _Rewrite:
    """Zeros before a convolution, or before an average pool that counts them, become its padding; pads nobody reads then go."""
    rewrite = _Rewrite(graph)
    around: dict[str, tuple[str, L.Padding]] = {}  # a pad with zeros -> the tensor that they, and those before, are added to
    takers: dict[str, str] = {}
    for node in graph.nodes:
        source, padding = around.get(node.inputs[0], (node.inputs[0], L.Padding())) if node.inputs else ("", L.Padding())
        layer = node.layer
        if isinstance(layer, L.Pad) and layer.value == 0 and not node.epilogue:
            around[node.name] = (source, _sum(padding, layer.padding))
        elif padding and isinstance(layer, L.Windowed) and _takes(layer, padding):
            takers.setdefault(node.inputs[0], node.name)
            node = replace(node, inputs=(source,), layer=replace(layer, padding=_sum(padding, layer.padding)))
        rewrite.keep(node)
    _drop_unread(rewrite, tuple(around), takers)
    return rewrite


def _drop_unread(rewrite: _Rewrite, pads: Sequence[str], takers: Mapping[str, str]) -> None:
    """Drops those `pads` whose readers all read something else now; `takers` are the first to have taken in a pad's zeros."""
    read = Counter(i for node in rewrite.nodes.values() for i in node.inputs)
    for name in reversed(pads):
        readers = rewrite.old.consumers(name)
        if readers and not read[name] and name not in rewrite.old.outputs:
            read.subtract(rewrite.nodes.pop(name).inputs)
            rewrite.held[name] = takers[name] if name in takers else rewrite.held[readers[0].name]


def _takes(layer: L.Layer, padding: L.Padding) -> bool:
    """Whether a layer means the same with `padding` of its own in place of zeros in its input."""
    if isinstance(layer, L.Conv2d):
        return True
    if not isinstance(layer, L.AvgPool2d) or layer.ceil_mode or not layer.count_include_pad:
        return False
    total = _sum(padding, layer.padding)
    return all(max(total.along(axis)) < layer.window(axis).span for axis in L.Axis)


def _sum(one: L.Padding, other: L.Padding) -> L.Padding:
    return L.Padding(*(getattr(one, f.name) + getattr(other, f.name) for f in fields(L.Padding)))


# ---- linear layers


def _lower_linear(graph: LayerGraph) -> _Rewrite:
    """Linear layers become convolutions over the whole image, taking in the flatten before them where nobody else needs it."""
    rewrite = _Rewrite(graph)
    spliced: dict[str, str] = {}  # flatten that only linear layers read -> the tensor they read instead
    for node in graph.nodes:
        if isinstance(node.layer, L.Flatten) and not node.epilogue:
            (source,) = node.inputs
            readers = graph.consumers(node.name)
            if node.name not in graph.outputs and readers and all(isinstance(r.layer, L.Linear) for r in readers):
                spliced[node.name] = source
                rewrite.held[node.name] = readers[0].name
                continue
        if isinstance(node.layer, L.Linear):
            node = replace(node, inputs=tuple(spliced.get(i, i) for i in node.inputs))
            rewrite.keep(_whole_image_conv(node, graph))
        else:
            rewrite.keep(node)
    return rewrite


def _whole_image_conv(node: Node, graph: LayerGraph) -> Node:
    """The linear layer as a convolution whose kernel covers its input; both read weights in (channel, row, column) order."""
    assert isinstance(node.layer, L.Linear)
    (shape,) = graph.input_shapes(node)
    assert shape.height is not None and shape.width is not None  # else the linear layer's own shape would not be known
    layer = L.Conv2d((shape.height, shape.width), out_channels=node.layer.out_features, bias=node.layer.bias)
    weight = node.params["weight"].reshape(layer.out_channels, shape.channels, *layer.kernel)
    params: Params = {"weight": weight} | ({"bias": node.params["bias"]} if layer.bias else {})
    return replace(node, layer=layer, params=params)


# ---- activations


def _attach_activations(graph: LayerGraph) -> _Rewrite:
    """An activation alone behind any node but an input becomes that node's epilogue."""
    rewrite = _Rewrite(graph)
    for node in graph.nodes:
        source = rewrite.source(node) if node.inputs else node
        if isinstance(node.layer, L.Activation) and not isinstance(source.layer, L.Input) and rewrite.reads_alone(node):
            pointwise = Pointwise(node.name, node.layer, node.params)
            rewrite.merge(node, replace(source, epilogue=(*source.epilogue, pointwise, *node.epilogue)))
        else:
            rewrite.keep(node)
    return rewrite


PASSES: tuple[Callable[[LayerGraph], _Rewrite], ...] = (_drop_identities, _fold_batch_norms, _merge_pads, _lower_linear,
                                                        _attach_activations)
