"""Shape inference against what the reference really makes, and the errors for shapes that do not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node
from fusec.graph.limits import MAX_EXTENT
from fusec.graph.reference import apply, run
from fusec.graph.shapes import Shape, fan_in, infer, param_shapes, window_rule
from tests.strategies import float_graphs, float_images, integer_graphs, integer_images, sizes


@given(st.data(), st.one_of(integer_graphs(), float_graphs()))
def test_shapes_are_those_of_the_arrays(data: st.DataObject, graph: LayerGraph) -> None:
    inputs = data.draw(st.one_of(integer_images(graph), float_images(graph)))
    first = inputs[graph.inputs[0].name]
    at_run_time = graph.sizes(*first.shape[2:])
    for name, array in run(graph, inputs, keep=True).items():
        shape = graph.shapes[name]
        assert array.shape == (len(first), shape.channels, *at_run_time[name])
        assert shape.height in (None, array.shape[2])
        assert shape.width in (None, array.shape[3])


@given(integer_graphs())
def test_generated_weights_have_the_wanted_shapes(graph: LayerGraph) -> None:
    for node in graph.nodes:
        wanted = param_shapes(node.layer, graph.input_shapes(node))
        assert set(node.params) == set(wanted)
        for name, shape in wanted.items():
            one_slope = isinstance(node.layer, L.PRelu) and node.params[name].shape == (1,)
            assert one_slope or node.params[name].shape == shape


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 12), st.integers(0, 12),
       st.booleans())
def test_window_rule_counts_windows(extent: int, size: int, stride: int, dilation: int, before: int, after: int,
                                    ceil: bool) -> None:
    """Any padding, larger than the window too: the rule and windows counted one by one agree; and the reference, where a pool
    may have it."""
    window = L.Window(size, stride, dilation, before, after, ceil)
    padded = before + extent + after
    count = 0
    while True:
        start, end = count * stride, count * stride + window.span
        fits = end <= padded if not ceil else (start < before + extent and end < padded + stride)
        if not fits:
            break
        count += 1
    assert max(0, window_rule(window)(extent)) == count
    if max(before, after) >= window.span:
        return
    pool = L.MaxPool2d((1, size), (1, stride), (1, dilation), L.Padding(0, 0, before, after), ceil_mode=ceil)
    x = np.zeros((1, 1, 1, extent))
    if count:
        assert apply(pool, {}, [x]).shape[3] == count
    else:
        with pytest.raises(InputError, match="does not fit"):
            apply(pool, {}, [x])
        with pytest.raises(InputError, match="output width would be"):
            infer(pool, [Shape(1, 1, extent)])


def test_shapes_by_hand() -> None:
    image = Shape(3, 227, 224)
    conv = L.Conv2d((11, 11), (4, 4), padding=L.Padding(0, 0, 2, 2), out_channels=96)
    assert infer(conv, [image]) == Shape(96, 55, 55)
    assert infer(L.MaxPool2d((3, 3), (2, 2)), [Shape(96, 55, 55)]) == Shape(96, 27, 27)
    assert infer(L.MaxPool2d((3, 3), (2, 2), ceil_mode=True), [Shape(1, 6, 8)]) == Shape(1, 3, 4)
    up = L.ConvTranspose2d((9, 9), (2, 2), padding=L.Padding(4, 4, 4, 4), out_channels=1, output_padding=(1, 1))
    assert infer(up, [Shape(56, None, 10)]) == Shape(1, None, 20)
    assert infer(L.Flatten(), [Shape(4, 11, 11)]) == Shape(484, 1, 1)
    assert infer(L.DepthToSpace(2), [Shape(12, None, 5)]) == Shape(3, None, 10)
    assert infer(L.Concat(), [Shape(3, None, None), Shape(5, None, None)]) == Shape(8, None, None)
    assert infer(L.GlobalAvgPool2d(), [Shape(3, None, None)]) == infer(L.GlobalMaxPool2d(), [Shape(3, 4, 4)]) == Shape(3, 1, 1)
    assert infer(L.Crop(1, 2, 3, 4), [Shape(3, 4, None)]) == Shape(3, 1, None)
    assert infer(L.Pad(L.Padding(1, 2, 3, 4)), [Shape(3, 4, 5)]) == Shape(3, 7, 12)
    assert infer(L.SpaceToDepth(2), [Shape(3, None, 6)]) == Shape(12, None, 3)
    assert infer(L.SliceChannels(1, 8, 3), [Shape(8, None, 6)]) == Shape(3, None, 6)
    assert infer(L.Mul(), [Shape(8, 1, 1), Shape(8, None, None)]) == Shape(8, None, None)
    assert infer(L.Sub(), [Shape(1, None, 5), Shape(8, None, 5)]) == Shape(8, None, 5)
    assert infer(L.Max(), [Shape(1, 1, 1), Shape(8, 1, 1), Shape(1, 4, 5)]) == Shape(8, 4, 5)
    assert infer(L.Add(), [Shape(4, 1, 1), Shape(4, 1, 1)]) == Shape(4, 1, 1)
    assert str(Shape(3, None, 5)) == "3x?x5"


@pytest.mark.parametrize(("layer", "inputs", "words"), [
    (L.Linear(10), [Shape(3, None, 4)], "fixed image size, but its input is 3x?x4"),
    (L.Flatten(), [Shape(3, None, None)], "fixed image size"),
    (L.Conv2d((5, 1)), [Shape(1, 4, 4)], "output height would be 0"),
    (L.MaxPool2d((1, 9)), [Shape(1, None, 4)], "output width would be -4"),
    (L.Upsample((1, 2)), [Shape(1, 4, MAX_EXTENT)], "over the limit"),
    (L.DepthToSpace(3), [Shape(12, 4, 4)], "multiple of 9 channels, not 12"),
    (L.Add(), [Shape(3, 4, 4), Shape(3, 4, 5)], "one shape, not 3x4x4, 3x4x5"),
    (L.Mul(), [Shape(3, 4, 4), Shape(2, 4, 4)], "mul needs inputs of one shape, not 3x4x4, 2x4x4"),
    (L.Max(), [Shape(3, 4, 4), Shape(1, 1, 1), Shape(2, 4, 4)], "one shape"),
    (L.Sub(), [Shape(3, None, None), Shape(3, 4, None)], "one shape, not 3x?x?, 3x4x?"),
    (L.Add(), [Shape(3, 4, 4), Shape(3, 1, 4)], "one shape, not 3x4x4, 3x1x4"),
    (L.Concat(), [Shape(3, 4, 4), Shape(3, 5, 4)], "one height and width"),
    (L.Crop(2, 2, 0, 0), [Shape(1, 4, 4)], "output height would be 0: 4 of 4 are taken off"),
    (L.SpaceToDepth(2), [Shape(1, 4, 5)], "a multiple of 2 as width, not 5"),
    (L.SliceChannels(2, 5), [Shape(4, None, None)], "takes channels 2 to 4, but its input has 4"),
    (L.Pad(L.Padding(MAX_EXTENT)), [Shape(1, 1, 1)], "over the limit"),
])
def test_what_does_not_fit_is_refused(layer: L.Layer, inputs: list[Shape], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        infer(layer, inputs)


@given(integer_graphs())
def test_fan_in_is_the_values_summed(graph: LayerGraph) -> None:
    for node in graph.layers:
        inputs = graph.input_shapes(node)
        if isinstance(node.layer, L.Conv2d):
            assert fan_in(node.layer, inputs) == math.prod(node.layer.kernel) * inputs[0].channels // node.layer.groups
        elif isinstance(node.layer, L.Linear):
            assert fan_in(node.layer, inputs) == inputs[0].elements
        elif not isinstance(node.layer, L.ConvTranspose2d):
            assert fan_in(node.layer, inputs) == 1


@given(st.data(), integer_graphs())
def test_sizes_follow_the_rules_of_each_axis(data: st.DataObject, graph: LayerGraph) -> None:
    height, width = data.draw(sizes(graph))
    for name, (h, w) in graph.sizes(height, width).items():
        shape = graph.shapes[name]
        assert shape.height in (None, h)
        assert shape.width in (None, w)
        assert min(h, w) >= 1


def test_sizes_names_the_node_that_does_not_fit() -> None:
    graph = LayerGraph("net", [Node("in", L.Input(1)), Node("pool", L.MaxPool2d((2, 2)), ("in",)),
                               Node("sum", L.Add(), ("in", "pool"))])
    with pytest.raises(InputError, match="open size"):
        graph.sizes()
    with pytest.raises(InputError, match="'pool' would make 0x4"):
        graph.sizes(1, 5)
    with pytest.raises(InputError, match="'sum' reads 5x5 and 4x4"):
        graph.sizes(5, 5)
