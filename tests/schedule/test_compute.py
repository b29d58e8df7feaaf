"""Any box of any layer, from exactly the window it asks for, equals that box of the whole image's result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.graph import layers as L
from fusec.graph.graph import Pointwise
from fusec.graph.reference import apply_node, run
from fusec.schedule.box import Box
from fusec.schedule.compute import compute, input_window
from fusec.schedule.taps import leaves_image, repeats_edge, wanted_outside
from tests.small_networks import conv, image_of, max_pool, network

LAYERS: dict[str, L.Layer] = {
    "conv": conv(6), "grouped conv": conv(6, groups=3), "depthwise conv": conv(6, groups=6), "strided conv": conv(4, stride=2),
    "depthwise multiplied": conv(12, groups=6),
    "conv of four paddings": L.Conv2d((2, 3), (1, 2), (2, 1), L.Padding(0, 3, 1, 2), 5),
    "transposed": L.ConvTranspose2d((3, 4), (2, 2), padding=L.Padding(1, 0, 2, 1), out_channels=4, output_padding=(1, 0)),
    "grouped transposed": L.ConvTranspose2d((2, 2), (2, 2), out_channels=9, groups=3),
    "transposed with holes": L.ConvTranspose2d((1, 2), (3, 3), (1, 2), out_channels=2),
    "max pool": max_pool(3, 2, pad=1), "ceil max pool": max_pool(3, 2, ceil=True),
    "avg pool": L.AvgPool2d((3, 3), (2, 2), padding=L.Padding(1, 1, 1, 1)),
    "avg pool of pixels": L.AvgPool2d((3, 2), padding=L.Padding(1, 1, 1, 1), count_include_pad=False),
    "ceil avg pool": L.AvgPool2d((2, 3), (2, 2), padding=L.Padding(0, 1, 1, 1), ceil_mode=True),
    "global": L.GlobalAvgPool2d(), "global max": L.GlobalMaxPool2d(), "flatten": L.Flatten(), "linear": L.Linear(7),
    "prelu": L.PRelu(), "lrn": L.LocalResponseNorm(3, 0.5), "even lrn": L.LocalResponseNorm(4, 0.5), "softmax": L.Softmax(),
    "log softmax": L.LogSoftmax(), "linear upsample": L.Upsample((2, 3), "linear"), "power": L.Power(3),
    "asymmetric upsample": L.Upsample((4, 3), "linear", "asymmetric"), "slice": L.SliceChannels(1, 5),
    "slice in steps": L.SliceChannels(0, 6, 2), "crop": L.Crop(1, 2, 3, 0), "pad": L.Pad(L.Padding(1, 2, 3, 0), 4.0),
    "upsample": L.Upsample((2, 3)), "affine": L.ChannelAffine(), "tanh": L.Tanh(), "gelu": L.Gelu(), "identity": L.Identity(),
}
SIX_BY_SIX: dict[str, L.Layer] = {"space to depth": L.SpaceToDepth(2), "space to depth by 3": L.SpaceToDepth(3)}
TWELVE: dict[str, L.Layer] = {f"depth to space {o.value}": L.DepthToSpace(2, o) for o in L.DepthToSpaceOrder}


def ranges(draw: st.DrawFn, extent: int) -> range:
    start = draw(st.integers(0, extent - 1))
    return range(start, draw(st.integers(start + 1, extent)))


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    return Box(*(ranges(draw, n) for n in shape))


def check(data: st.DataObject, layer: L.Layer, channels: int, height: int = 7) -> None:
    graph = network(L.Input(channels, height, 6), n=layer)
    node = graph["n"]
    slope = Pointwise("slope", L.PRelu(), {"weight": np.arange(graph.shapes["n"].channels, dtype=np.float32)})
    node = type(node)(node.name, node.layer, node.inputs, node.params, (slope,))
    image = image_of(graph, height, 6, batch=2).astype(np.float64)
    whole = apply_node(node, [image])
    box = data.draw(boxes(whole.shape[1:]), label="box")
    extents = (channels, height, 6)
    window = input_window(node, box, 0, graph.input_shapes(node), extents)
    patch = np.full((2, *window.shape), wanted_outside(layer))
    inside = window.clip(extents)
    c, y, x = (slice(r.start, r.stop) for r in inside.ranges)
    patch[(slice(None), *window.slices(inside))] = image[:, c, y, x]
    if repeats_edge(layer):
        c, y, x = (np.clip(r, 0, n - 1) for r, n in zip(window.ranges, extents, strict=True))
        patch = image[:, c][:, :, y][:, :, :, x]
    result = compute(node, box, [window], [patch], graph.shapes["x"], extents)
    wanted = whole[(slice(None), *Box(*map(range, whole.shape[1:])).slices(box))]
    np.testing.assert_allclose(result, wanted, rtol=1e-12, atol=1e-12)
    assert window == inside or any(leaves_image(layer, a) for a in L.Axis)


@settings(max_examples=30)
@given(data=st.data())
@pytest.mark.parametrize("name", LAYERS)
def test_a_box_of_a_layer(name: str, data: st.DataObject) -> None:
    check(data, LAYERS[name], 6)


@settings(max_examples=30)
@given(data=st.data())
@pytest.mark.parametrize("name", SIX_BY_SIX)
def test_a_box_of_blocks(name: str, data: st.DataObject) -> None:
    check(data, SIX_BY_SIX[name], 4, 6)


@settings(max_examples=30)
@given(data=st.data())
@pytest.mark.parametrize("name", TWELVE)
def test_a_box_of_moved_channels(name: str, data: st.DataObject) -> None:
    check(data, TWELVE[name], 12)


@settings(max_examples=60)
@given(st.data())
def test_a_box_of_a_concatenation(data: st.DataObject) -> None:
    graph = network(L.Input(3, 5, 4), a=conv(4), b=conv(1), n=(L.Concat(), "a", "b"))
    node, image = graph["n"], image_of(graph, 5, 4)
    tensors = run(graph, image, keep=True)
    box = data.draw(boxes((5, 5, 4)))
    extents = [(4, 5, 4), (1, 5, 4)]
    windows = [input_window(node, box, i, graph.input_shapes(node), e) for i, e in enumerate(extents)]
    patches = [tensors[t][(slice(None), *Box(*map(range, e)).slices(w))]
               for t, e, w in zip(node.inputs, extents, windows, strict=True)]
    c, y, x = (slice(r.start, r.stop) for r in box.ranges)
    np.testing.assert_array_equal(compute(node, box, windows, patches, graph.shapes["a"], extents[0]), tensors["n"][:, c, y, x])
