"""Every kind of layer on every target, at least once on purpose: alone, and in the middle of a chain.

Alone a layer reads device memory and writes it; between two convolutions it reads and writes scratch,
and the second asks it for positions outside the image. Integer networks are
compared exactly, the others with a tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest

from fusec.errors import InternalError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.shapes import infer, param_shapes
from fusec.graph.simplify import simplify
from fusec.plan.construct import construct
from fusec.plan.footprint import granularity
from fusec.schedule.ir import Chain, Tile
from fusec.schedule.verify import verify
from tests.harness import Floats, Machine, Runner, assert_close, chain_reference, graph_reference
from tests.small_networks import conv, image_of, max_pool, network, whole_chain

Pad = L.Padding


@dataclass(frozen=True)
class Case:
    """A layer behind an input of this shape; open sizes get `side` pixels. Of a `positive` one all values are above 0."""

    layer: L.Layer
    channels: int = 6
    side: tuple[int, int] = (11, 9)
    pinned: bool = False
    exact: bool = True
    operands: int = 1
    positive: bool = False


def window(k: int, *, stride: int = 1, dilation: int = 1, pad: int = 0) -> dict[str, object]:
    return {"kernel": (k, k), "stride": (stride, stride), "dilation": (dilation, dilation), "padding": Pad(*[pad] * 4)}


CASES: dict[str, Case] = {
    "conv2d": Case(conv(10)),
    "conv2d of one channel": Case(conv(1), channels=1),
    "conv2d, stride 2, even size": Case(L.Conv2d((2, 4), (2, 1), padding=Pad(0, 1, 2, 1), out_channels=7)),
    "conv2d, dilated": Case(L.Conv2d((3, 3), dilation=(2, 3), padding=Pad(2, 2, 3, 3), out_channels=33), channels=5),
    "conv2d, wide": Case(L.Conv2d((1, 13), padding=Pad(0, 0, 6, 6), out_channels=4), side=(3, 20)),
    "conv2d, 70 channels": Case(conv(70, 1), channels=70, side=(4, 5)),
    "conv2d, no bias": Case(L.Conv2d((3, 3), out_channels=12, bias=False)),
    "conv2d, grouped": Case(conv(9, groups=3)),
    "conv2d, depthwise": Case(conv(17, groups=17), channels=17),
    "conv2d, depthwise multiplied": Case(conv(12, groups=6)),
    "conv_transpose2d": Case(L.ConvTranspose2d((3, 3), (2, 2), padding=Pad(1, 1, 1, 1), out_channels=5, output_padding=(1, 1)),
                             side=(5, 6)),
    "conv_transpose2d, grouped": Case(L.ConvTranspose2d((2, 3), (3, 1), (1, 2), Pad(0, 1, 2, 0), out_channels=4, groups=2),
                                      side=(5, 6)),
    "max_pool2d": Case(max_pool(3, 2, pad=1)),
    "max_pool2d, ceil": Case(L.MaxPool2d((2, 3), (2, 2), (1, 2), Pad(0, 1, 0, 2), ceil_mode=True)),
    "avg_pool2d": Case(L.AvgPool2d((2, 2), (2, 2))),
    "avg_pool2d, padding counts": Case(L.AvgPool2d(**window(3, stride=2, pad=1), ceil_mode=True), exact=False),
    "avg_pool2d, padding left out": Case(L.AvgPool2d(**window(3, stride=2, pad=1), ceil_mode=True, count_include_pad=False),
                                         exact=False),
    "avg_pool2d, dilated": Case(L.AvgPool2d(**window(2, dilation=2, pad=1), count_include_pad=False), exact=False),
    "global_avg_pool2d": Case(L.GlobalAvgPool2d(), channels=37, exact=False),
    "global_max_pool2d": Case(L.GlobalMaxPool2d(), channels=37, side=(3, 40)),
    "relu": Case(L.Relu()),
    "leaky_relu": Case(L.LeakyRelu(0.25)),
    "prelu": Case(L.PRelu()),
    "clip": Case(L.Clip(1, 5)),
    "sigmoid": Case(L.Sigmoid(), exact=False),
    "tanh": Case(L.Tanh(), exact=False),
    "silu": Case(L.Silu(), exact=False),
    "elu": Case(L.Elu(0.7), exact=False),
    "selu": Case(L.Selu(), exact=False),
    "hard_sigmoid": Case(L.HardSigmoid(0.25, 0.5)),
    "hard_swish": Case(L.HardSwish(), exact=False),
    "softplus": Case(L.Softplus(), exact=False),
    "gelu": Case(L.Gelu(), exact=False),
    "gelu, tanh": Case(L.Gelu("tanh"), exact=False),
    "mish": Case(L.Mish(), exact=False),
    "neg": Case(L.Neg()),
    "abs": Case(L.Abs()),
    "pow of 2": Case(L.Power(2)),
    "pow of 0": Case(L.Power(0)),
    "sqrt": Case(L.Sqrt(), exact=False, positive=True),
    "pow of -1": Case(L.Power(-1), exact=False, positive=True),
    "pow of 1.5": Case(L.Power(1.5), exact=False, positive=True),
    "exp": Case(L.Exp(), exact=False),
    "channel_affine": Case(L.ChannelAffine()),
    "batch_norm": Case(L.BatchNorm(), exact=False),
    "local_response_norm": Case(L.LocalResponseNorm(5, alpha=0.5), channels=9, exact=False),
    "local_response_norm, even size": Case(L.LocalResponseNorm(2, beta=0.5, k=2.0), exact=False),
    "add": Case(L.Add(), operands=2),
    "add of three": Case(L.Add(), operands=3),
    "mul": Case(L.Mul(), operands=2),
    "sub": Case(L.Sub(), operands=2),
    "div": Case(L.Div(), operands=2, exact=False, positive=True),
    "min": Case(L.Min(), operands=3),
    "max": Case(L.Max(), operands=2),
    "concat": Case(L.Concat(), operands=3),
    "flatten": Case(L.Flatten(), pinned=True, side=(3, 4)),
    "linear": Case(L.Linear(10), pinned=True, side=(5, 4)),
    "linear, 300 inputs": Case(L.Linear(7), channels=3, pinned=True, side=(10, 10)),
    "softmax": Case(L.Softmax(), channels=35, exact=False),
    "log_softmax": Case(L.LogSoftmax(), channels=35, exact=False),
    "upsample, linear": Case(L.Upsample((2, 4), "linear"), side=(5, 4)),
    "upsample, linear, odd factors": Case(L.Upsample((3, 5), "linear"), side=(5, 4), exact=False),
    "upsample, linear, asymmetric": Case(L.Upsample((4, 2), "linear", "asymmetric"), side=(5, 4)),
    "upsample, linear, of one pixel": Case(L.Upsample((2, 2), "linear"), side=(1, 1)),
    "space_to_depth": Case(L.SpaceToDepth(3), channels=5, side=(9, 6)),
    "slice_channels": Case(L.SliceChannels(3, 30), channels=35),
    "slice_channels, stepping": Case(L.SliceChannels(1, 33, 3), channels=35),
    "crop": Case(L.Crop(1, 2, 3, 0)),
    "pad": Case(L.Pad(Pad(1, 2, 3, 0))),
    "pad with a value": Case(L.Pad(Pad(1, 2, 3, 0), -2.5)),
    "upsample": Case(L.Upsample((2, 3)), side=(5, 4)),
    "depth_to_space": Case(L.DepthToSpace(2, L.DepthToSpaceOrder.DCR), channels=12, side=(5, 4)),
    "depth_to_space, CRD": Case(L.DepthToSpace(3, L.DepthToSpaceOrder.CRD), channels=18, side=(5, 4)),
    "identity": Case(L.Identity()),
}


def test_every_kind_has_a_case() -> None:
    assert {c.layer.kind for c in CASES.values()} == set(L.LAYER_KINDS) - {"input"}


def params(layer: L.Layer, shapes: list[object], exact: bool) -> dict[str, Floats]:
    rng = np.random.default_rng(5)
    wanted = param_shapes(layer, shapes)  # type: ignore[arg-type]
    values = {k: rng.integers(-2, 2, size=s, endpoint=True) if exact else rng.normal(size=s) for k, s in wanted.items()}
    return {k: (np.abs(v) + 0.5 if k == "running_var" else v).astype(np.float32) for k, v in values.items()}


def build(case: Case, between: bool) -> LayerGraph:
    """x -> layer, or x -> 1x1 convolutions -> layer -> relu -> 3x3 convolution with padding -> y."""
    height, width = case.side if case.pinned else (None, None)
    nodes = [Node("x", L.Input(case.channels, height, width))]
    shapes = {"x": infer(nodes[0].layer, [])}

    def grow(name: str, layer: L.Layer, *inputs: str) -> str:
        nodes.append(Node(name, layer, inputs, params(layer, [shapes[i] for i in inputs], case.exact)))
        shapes[name] = infer(layer, [shapes[i] for i in inputs])
        return name

    sources = [grow(f"before{i}", conv(case.channels, 1), "x") if between else "x" for i in range(case.operands)]
    if between and case.positive:
        sources = [grow(f"limit{i}", L.Clip(1, 5), source) for i, source in enumerate(sources)]
    last = grow("middle", case.layer, *sources)
    if between:
        grow("after", conv(5), grow("relu", L.Relu(), last))
    return LayerGraph("case", nodes)


def tiles(graph: LayerGraph, height: int, width: int, images: int) -> Tile:
    """A tile of about this size that the whole graph can be computed by."""
    chain = whole_chain(graph)
    shape = chain.shapes[chain.output]
    extents = [-(-least // grain) * grain for least, grain in zip((height, width), (granularity(chain, a) for a in L.Axis),
                                                                  strict=True)]
    if shape.pinned:  # a whole image may be read somewhere
        extents = [shape.height or 1, shape.width or 1]
    return Tile(images, shape.channels, extents[0], extents[1])


def check(target: Runner, machine: Machine, graph: LayerGraph, tile: Tile, staged: tuple[str, ...], x: Floats,
          exact: bool) -> None:
    chain = whole_chain(graph)
    schedule = construct(chain, tile, machine.device, staged)
    verify(schedule)
    result = target.run(schedule, {"x": x}, machine)
    if exact:
        np.testing.assert_array_equal(result, chain_reference(chain, {"x": x}, target.dtype)[chain.output])
    else:
        assert_close(result, chain, {"x": x}, target.dtype)


def images(case: Case, batch: int) -> Floats:
    size, least = (batch, case.channels, *case.side), 1 if case.positive else -3
    return np.random.default_rng(3).integers(least, 3, size=size, endpoint=True).astype(np.float32)


def reads_whole_scratch(case: Case, between: bool) -> bool:
    """A whole image of open size is read from device memory, but has no place in scratch."""
    return between and isinstance(case.layer, L.GlobalPool2d)


# Alone with the usual mapping and between others with that of a small grid or of narrower vectors; the other way round with
# --thorough.
@pytest.mark.parametrize(("between", "machine"), [
    pytest.param(False, 0, id="alone"), pytest.param(True, 1, id="between"),
    pytest.param(False, 1, id="alone-other", marks=pytest.mark.thorough),
    pytest.param(True, 0, id="between-other", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", CASES)
def test_layer(target: Runner, name: str, between: bool, machine: int) -> None:
    case = CASES[name]
    if reads_whole_scratch(case, between):
        case = Case(case.layer, case.channels, case.side, True, case.exact)
    graph = simplify(build(case, between)).graph
    if not graph.layers:
        assert isinstance(case.layer, L.Identity)
        return
    staged = ("x",) if between else ()
    check(target, target.machines[machine], graph, tiles(graph, 4, 5, 2), staged, images(case, 3), case.exact)


JOINS = (L.Add(), L.Sub(), L.Mul(), L.Div(), L.Min(), L.Max())
USUAL_JOINS = ((1, 6, 1), (6, 1, None), (6, 6, 1))  # either operand is the small one along either axis; others with --thorough


def join_sizes() -> Iterator[Any]:
    for channels, others, pixels in product((1, 6), (1, 6), (1, None)):
        rare = (channels, others, pixels) not in USUAL_JOINS
        yield pytest.param(channels, others, pixels, marks=pytest.mark.thorough if rare else (),
                           id=f"{channels}-{others}-{'one pixel' if pixels else 'all pixels'}")


@pytest.mark.parametrize(("channels", "others", "pixels"), list(join_sizes()))
@pytest.mark.parametrize("layer", JOINS, ids=lambda layer: layer.kind)
def test_one_channel_or_pixel_goes_with_all(target: Runner, layer: L.Layer, channels: int, others: int, pixels: int | None,
                                            ) -> None:
    """Either operand may be the small one; a convolution with padding reads the result."""
    small = (conv(channels, 1), "s") if pixels is None else (L.GlobalMaxPool2d(), "s")
    steps = {"s": (conv(channels, 1), "x"), "a": small, "b": (conv(others), "x"), "c": (L.Clip(1, 2), "b")}
    joined = (layer, "c", "a") if not isinstance(layer, L.Div) else (layer, "a", "c")
    graph = simplify(network(L.Input(3, 9, 7), outputs=("e",), **steps, d=joined, e=(conv(5), "d"))).graph
    chain = Chain(graph, tuple(n.name for n in graph.layers if n.name not in ("a", "s", "b")))
    x = image_of(graph, 9, 7, 3)
    wanted = graph_reference(graph, {"x": x}, target.dtype)
    for tile, staged in ((Tile(2, 5, 4, 3), ()), (Tile(1, 5, 9, 7), chain.inputs)):
        schedule = construct(chain, tile, target.device, staged)
        verify(schedule)
        np.testing.assert_array_equal(target.run(schedule, wanted), wanted["e"])


def test_squeezed_and_excited_in_one_tile(target: Runner) -> None:
    """A whole image in a tile: the pool, what it excites and their product share a kernel."""
    graph = simplify(network(L.Input(3, 5, 6), a=conv(6), g=L.GlobalMaxPool2d(), h=conv(2, 1), i=L.Relu(), j=conv(6, 1),
                             k=L.HardSigmoid(0.25, 0.5), m=(L.Mul(), "k", "a"), n=(L.Add(), "m", "a"), o=conv(4))).graph
    x = image_of(graph, 5, 6, 3)
    check(target, target.machines[0], graph, Tile(2, 4, 5, 6), (), x, exact=True)


MAPPED: Mapping[str, L.Layer] = {"batch_norm": L.BatchNorm(), "identity": L.Identity(), "linear": L.Linear(3)}


@pytest.mark.parametrize("kind", MAPPED)
def test_layers_that_simplify_removes_have_no_stage(generated: Runner, kind: str) -> None:
    graph = build(Case(MAPPED[kind], pinned=True, side=(2, 2)), between=False)
    schedule = construct(whole_chain(graph), tiles(graph, 1, 1, 1), generated.device, ())
    with pytest.raises(InternalError, match=f"no stage for {kind}"):
        generated.run(schedule, {"x": np.zeros((1, 6, 2, 2), np.float32)})
