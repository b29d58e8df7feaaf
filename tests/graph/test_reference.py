"""The NumPy reference against ONNX Runtime, against loops written out here, and against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fusec.errors import InputError, InternalError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node, Pointwise
from fusec.graph.reference import apply, run
from fusec.graph.shapes import Shape, infer
from tests.strategies import float_graphs, float_images, integer_graphs, integer_images

Arr = NDArray[Any]


def onnx_run(operator: str, inputs: list[Arr], opset: int = 18, **attributes: Any) -> Arr:
    """One ONNX operator, run by ONNX Runtime; what is no integer in float32, and what is empty left out."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    helper, float32, int64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    names = [f"i{k}" if x.size else "" for k, x in enumerate(inputs)]
    arrays = {n: x if x.dtype.kind == "i" else x.astype(np.float32) for n, x in zip(names, inputs, strict=True) if n}
    node = helper.make_node(operator, names, ["y"], **attributes)
    given_ = [helper.make_tensor_value_info(n, int64 if x.dtype.kind == "i" else float32, x.shape) for n, x in arrays.items()]
    graph = helper.make_graph([node], "one", given_, [helper.make_tensor_value_info("y", float32, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, arrays)
    return np.asarray(result)


def integers(rng: np.random.Generator, *shape: int) -> Arr:
    return rng.integers(-3, 4, size=shape).astype(np.float32)


def legal(layer: L.Layer, x: Arr) -> bool:
    try:
        infer(layer, [Shape(*x.shape[1:])])
    except InputError:
        return False
    return True


SMALL = st.integers(1, 3)
SEEDS = st.integers(0, 2**16)


@st.composite
def windows(draw: st.DrawFn, *, pads_below_kernel: bool = False) -> dict[str, Any]:
    """Hyper-parameters of a sliding window, every axis and side on its own."""
    kernel, stride, dilation = (draw(st.tuples(v, v)) for v in (st.integers(1, 4), SMALL, SMALL))
    spans = [k if pads_below_kernel else (k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = L.Padding(*(draw(st.integers(0, span - 1)) for span in spans for _ in range(2)))
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


@st.composite
def images(draw: st.DrawFn, channels: int | None = None) -> Arr:
    """Integer images, so that sums are exact in float32."""
    shape = (draw(SMALL), channels or draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    return integers(np.random.default_rng(draw(SEEDS)), *shape)


def onnx_window(layer: L.Windowed) -> dict[str, Any]:
    p = layer.padding
    return {"kernel_shape": layer.kernel, "strides": layer.stride, "dilations": layer.dilation,
            "pads": [p.top, p.left, p.bottom, p.right]}


# ---- against ONNX Runtime


@given(windows(), images(), st.sampled_from(["one", "depthwise", "two"]), SMALL, st.booleans(), SEEDS)
def test_conv2d_is_onnx_conv(window: dict[str, Any], x: Arr, grouping: str, out: int, bias: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = x.shape[1]
    groups = {"one": 1, "depthwise": channels, "two": 2 if channels % 2 == 0 else 1}[grouping]
    layer = L.Conv2d(**window, out_channels=out * groups, groups=groups, bias=bias)
    assume(legal(layer, x))
    weight, shift = integers(rng, out * groups, channels // groups, *layer.kernel), integers(rng, out * groups)
    ours = apply(layer, {"weight": weight, "bias": shift}, [x])
    theirs = onnx_run("Conv", [x, weight, shift] if bias else [x, weight], group=groups, **onnx_window(layer))
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


@given(windows(), images(), st.sampled_from(["one", "depthwise", "two"]), SMALL, st.booleans(), st.data())
def test_conv_transpose2d_is_onnx_conv_transpose(window: dict[str, Any], x: Arr, grouping: str, out: int, bias: bool,
                                                 data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(SEEDS))
    channels = x.shape[1]
    groups = {"one": 1, "depthwise": channels, "two": 2 if channels % 2 == 0 else 1}[grouping]
    extra = tuple(data.draw(st.integers(0, stride - 1)) for stride in window["stride"])
    layer = L.ConvTranspose2d(**window, out_channels=out * groups, groups=groups, output_padding=extra, bias=bias)
    assume(legal(layer, x))
    weight, shift = integers(rng, channels, out, *layer.kernel), integers(rng, out * groups)
    ours = apply(layer, {"weight": weight, "bias": shift}, [x])
    theirs = onnx_run("ConvTranspose", [x, weight, shift] if bias else [x, weight], group=groups, output_padding=extra,
                      **onnx_window(layer))
    np.testing.assert_array_equal(ours, theirs)


@given(windows(pads_below_kernel=True), images(), st.booleans())
def test_max_pool2d_is_onnx_max_pool(window: dict[str, Any], x: Arr, ceil: bool) -> None:
    layer = L.MaxPool2d(**window, ceil_mode=ceil)
    assume(legal(layer, x))
    ours = apply(layer, {}, [x])
    assume(np.isfinite(ours).all())  # what a window of padding alone gives is ours to choose: see the test of it below
    np.testing.assert_array_equal(ours, onnx_run("MaxPool", [x], ceil_mode=int(ceil), **onnx_window(layer)))


@given(windows(pads_below_kernel=True), images(), st.booleans())
def test_avg_pool2d_is_onnx_average_pool(window: dict[str, Any], x: Arr, include: bool) -> None:
    layer = L.AvgPool2d(**(window | {"dilation": (1, 1)}), count_include_pad=include)
    assume(legal(layer, x))
    hyper = onnx_window(layer)
    del hyper["dilations"]  # new in opset 19
    theirs = onnx_run("AveragePool", [x], count_include_pad=int(include), **hyper)
    np.testing.assert_allclose(apply(layer, {}, [x]), theirs, rtol=1e-6, atol=1e-6)


@given(images(), st.sampled_from([1, 3, 5, 7]), st.floats(1e-4, 2), st.floats(0.25, 1.5), st.floats(0.5, 2))
def test_local_response_norm_is_onnx_lrn(x: Arr, size: int, alpha: float, beta: float, k: float) -> None:
    ours = apply(L.LocalResponseNorm(size, alpha, beta, k), {}, [x])
    np.testing.assert_allclose(ours, onnx_run("LRN", [x], size=size, alpha=alpha, beta=beta, bias=k), rtol=1e-5, atol=1e-6)


@given(images(), SEEDS, st.sampled_from([1e-5, 1e-3, 1.0]))
def test_batch_norm_is_onnx_batch_normalization(x: Arr, seed: int, eps: float) -> None:
    rng = np.random.default_rng(seed)
    params = {k: rng.normal(size=x.shape[1]).astype(np.float32) for k in ("weight", "bias", "running_mean")}
    params["running_var"] = rng.uniform(0.1, 2, size=x.shape[1]).astype(np.float32)
    theirs = onnx_run("BatchNormalization", [x, *params.values()], epsilon=eps)
    np.testing.assert_allclose(apply(L.BatchNorm(eps), params, [x]), theirs, rtol=1e-4, atol=1e-4)


@given(SMALL, SMALL, st.sampled_from(L.DepthToSpaceOrder), SEEDS)
def test_depth_to_space_is_onnx_depth_to_space(block: int, made: int, order: L.DepthToSpaceOrder, seed: int) -> None:
    x = np.random.default_rng(seed).permuted(np.arange(2.0 * made * block**2 * 3 * 5)).reshape(2, -1, 3, 5).astype(np.float32)
    ours = apply(L.DepthToSpace(block, order), {}, [x])
    np.testing.assert_array_equal(ours, onnx_run("DepthToSpace", [x], blocksize=block, mode=order.value))


@given(SMALL, SMALL, SEEDS)
def test_space_to_depth_is_onnx_space_to_depth(block: int, channels: int, seed: int) -> None:
    x = np.random.default_rng(seed).permuted(np.arange(2.0 * channels * block**2 * 6)).astype(np.float32)
    x = x.reshape(2, channels, 2 * block, 3 * block)
    ours = apply(L.SpaceToDepth(block), {}, [x])
    np.testing.assert_array_equal(ours, onnx_run("SpaceToDepth", [x], blocksize=block))
    np.testing.assert_array_equal(apply(L.DepthToSpace(block, L.DepthToSpaceOrder.DCR), {}, [ours]), x)


@given(images(), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.sampled_from(["half_pixel", "asymmetric"]))
def test_linear_upsample_is_onnx_resize(x: Arr, factor: tuple[int, int], coordinates: str) -> None:
    ours = apply(L.Upsample(factor, "linear", coordinates), {}, [x])
    scales = np.array([1, 1, *factor], np.float32)
    theirs = onnx_run("Resize", [x, np.array([]), scales], mode="linear", coordinate_transformation_mode=coordinates)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    again = apply(L.Upsample(factor, "linear", coordinates), {}, [x.astype(np.float64)])
    np.testing.assert_allclose(ours, again, rtol=1e-5, atol=1e-5)


@given(images(), st.lists(st.integers(0, 3), min_size=4, max_size=4), st.sampled_from([0.0, -2.5]))
def test_pad_is_onnx_pad(x: Arr, edges: list[int], value: float) -> None:
    layer = L.Pad(L.Padding(*edges), value)
    p = layer.padding
    pads = [0, 0, p.top, p.left, 0, 0, p.bottom, p.right]
    padded = apply(layer, {}, [x])
    np.testing.assert_array_equal(padded, onnx_run("Pad", [x, np.array(pads), np.array(value)]))
    np.testing.assert_array_equal(apply(L.Crop(*edges), {}, [padded]), x)


@given(images(6), st.data())
def test_slices_are_onnx_slices(x: Arr, data: st.DataObject) -> None:
    """Of channels; and of pixels, in steps: a crop, and a pool whose window is one pixel."""
    def bounds(extent: int) -> tuple[int, int, int]:
        start = data.draw(st.integers(0, extent - 1))
        return start, data.draw(st.integers(start + 1, extent)), data.draw(st.integers(1, 4))

    def theirs(axis: int, start: int, stop: int, step: int) -> Arr:
        return onnx_run("Slice", [x, np.array([start]), np.array([stop]), np.array([axis]), np.array([step])])

    chosen = bounds(6)
    np.testing.assert_array_equal(apply(L.SliceChannels(*chosen), {}, [x]), theirs(1, *chosen))
    height = x.shape[2]
    start, stop, step = bounds(height)
    cropped = apply(L.Crop(start, height - stop), {}, [x])
    np.testing.assert_array_equal(apply(L.MaxPool2d((1, 1), (step, 1)), {}, [cropped]), theirs(2, start, stop, step))


@given(images(), SEEDS)
def test_prelu_is_onnx_prelu(x: Arr, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for channels in (x.shape[1], 1):
        slope = integers(rng, channels)
        ours = apply(L.PRelu(), {"weight": slope}, [x])
        np.testing.assert_array_equal(ours, onnx_run("PRelu", [x, slope.reshape(-1, 1, 1)]))


@pytest.mark.parametrize(("layer", "operator", "attributes"), [
    (L.Relu(), "Relu", {}),
    (L.LeakyRelu(0.125), "LeakyRelu", {"alpha": 0.125}),
    (L.Sigmoid(), "Sigmoid", {}),
    (L.Tanh(), "Tanh", {}),
    (L.Elu(0.7), "Elu", {"alpha": 0.7}),
    (L.Selu(), "Selu", {}),
    (L.Selu(1.5, 2.0), "Selu", {"alpha": 1.5, "gamma": 2.0}),
    (L.HardSigmoid(), "HardSigmoid", {}),
    (L.HardSigmoid(0.3, 0.1), "HardSigmoid", {"alpha": 0.3, "beta": 0.1}),
    (L.HardSwish(), "HardSwish", {}),
    (L.Softplus(), "Softplus", {}),
    (L.Mish(), "Mish", {}),
    (L.Neg(), "Neg", {}),
    (L.Abs(), "Abs", {}),
    (L.Exp(), "Exp", {}),
    (L.Softmax(), "Softmax", {"axis": 1}),
    (L.LogSoftmax(), "LogSoftmax", {"axis": 1}),
    (L.GlobalAvgPool2d(), "GlobalAveragePool", {}),
    (L.GlobalMaxPool2d(), "GlobalMaxPool", {}),
], ids=lambda v: v.kind if isinstance(v, L.Layer) else "")
def test_one_to_one_operators(layer: L.Layer, operator: str, attributes: dict[str, Any]) -> None:
    x = np.random.default_rng(3).normal(scale=8, size=(2, 7, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(apply(layer, {}, [x]), onnx_run(operator, [x], **attributes), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("layer", "operator"), [(L.Add(), "Add"), (L.Sub(), "Sub"), (L.Mul(), "Mul"), (L.Div(), "Div"),
                                                 (L.Min(), "Min"), (L.Max(), "Max")], ids=lambda v: str(v))
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (3, 1, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_elementwise_layers_are_onnx_operators(layer: L.Layer, operator: str, shape: tuple[int, ...], turned: bool) -> None:
    rng = np.random.default_rng(7)
    inputs = [rng.normal(size=(2, *s)).astype(np.float32) for s in ((3, 4, 5), shape)][::-1 if turned else 1]
    np.testing.assert_allclose(apply(layer, {}, inputs), onnx_run(operator, inputs), rtol=1e-6)
    assert infer(layer, [Shape(*x.shape[1:]) for x in inputs]) == Shape(3, 4, 5)


def test_extremes_of_several_tensors() -> None:
    a, b, c = (np.array([[[v]]]) for v in ([1.0, 5, np.nan, 2], [4.0, 2, 3, np.nan], [3.0, 3, 3, 3]))
    np.testing.assert_array_equal(apply(L.Min(), {}, [a, b, c])[0, 0], [[1, 2, np.nan, np.nan]])
    np.testing.assert_array_equal(apply(L.Max(), {}, [a, b, c])[0, 0], [[4, 5, np.nan, np.nan]])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_onnx_gelu(approximate: str) -> None:
    x = np.linspace(-8, 8, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    theirs = onnx_run("Gelu", [x], opset=20, approximate=approximate)
    np.testing.assert_allclose(apply(L.Gelu(approximate), {}, [x]), theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 8, -1, 0.5, -2, 1.7, 9])
def test_power_is_onnx_pow(exponent: float) -> None:
    x = np.linspace(-3, 3, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    theirs = onnx_run("Pow", [x, np.array(float(exponent))])
    np.testing.assert_allclose(apply(L.Power(exponent), {}, [x]), theirs, rtol=1e-5)
    assert np.isnan(theirs).any() == (exponent != round(exponent))


def test_sqrt_is_onnx_sqrt() -> None:
    x = np.linspace(-1, 9, 120, dtype=np.float32).reshape(2, 3, 4, 5)
    np.testing.assert_allclose(apply(L.Sqrt(), {}, [x]), onnx_run("Sqrt", [x]), rtol=1e-6)


def test_clip_is_onnx_clip() -> None:
    x = np.linspace(-9, 9, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    theirs = onnx_run("Clip", [x, np.array(-1.5), np.array(6.0)])
    np.testing.assert_array_equal(apply(L.Clip(-1.5, 6), {}, [x]), theirs)


@given(images(), SMALL, SEEDS)
def test_linear_is_onnx_gemm(x: Arr, out: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flat = x.reshape(len(x), -1)
    weight, bias = integers(rng, out, flat.shape[1]), integers(rng, out)
    theirs = onnx_run("Gemm", [flat, weight, bias], transB=1)
    params = {"weight": weight, "bias": bias}
    np.testing.assert_array_equal(apply(L.Linear(out), params, [x])[:, :, 0, 0], theirs)
    np.testing.assert_array_equal(apply(L.Linear(out), params, [apply(L.Flatten(), {}, [x])])[:, :, 0, 0], theirs)


# ---- against loops


def naive_pool(x: Arr, layer: L.MaxPool2d | L.AvgPool2d) -> Arr:
    """Both pools one window at a time, by PyTorch's rules written as that library's documentation states them."""
    n, channels, height, width = x.shape
    p = layer.padding
    made = []
    for extent, before, after, k, s, d in ((height, p.top, p.bottom, layer.kernel[0], layer.stride[0], layer.dilation[0]),
                                           (width, p.left, p.right, layer.kernel[1], layer.stride[1], layer.dilation[1])):
        exact = (extent + before + after - d * (k - 1) - 1) / s + 1
        count = math.ceil(exact) if layer.ceil_mode else math.floor(exact)
        if layer.ceil_mode and (count - 1) * s >= extent + before:
            count -= 1
        made.append(count)
    out = np.empty((n, channels, *made))
    for i, c, oy, ox in itertools.product(*map(range, out.shape)):
        values, counted = [], 0
        for ky, kx in itertools.product(range(layer.kernel[0]), range(layer.kernel[1])):
            y = oy * layer.stride[0] - p.top + ky * layer.dilation[0]
            z = ox * layer.stride[1] - p.left + kx * layer.dilation[1]
            inside = 0 <= y < height and 0 <= z < width
            if inside:
                values.append(float(x[i, c, y, z]))
            padded = -p.top <= y < height + p.bottom and -p.left <= z < width + p.right
            counted += inside or (padded and isinstance(layer, L.AvgPool2d) and layer.count_include_pad)
        if isinstance(layer, L.MaxPool2d):
            out[i, c, oy, ox] = max(values, default=-np.inf)
        else:
            out[i, c, oy, ox] = sum(values) / counted if counted else 0.0
    return out


@settings(max_examples=60)
@given(windows(pads_below_kernel=True), images(), st.booleans(), st.booleans())
def test_pools_are_the_loops(window: dict[str, Any], x: Arr, ceil: bool, include: bool) -> None:
    assume(x.size <= 600)
    for layer in (L.MaxPool2d(**window, ceil_mode=ceil), L.AvgPool2d(**window, ceil_mode=ceil, count_include_pad=include)):
        assume(legal(layer, x))
        np.testing.assert_array_equal(apply(layer, {}, [x.astype(np.float64)]), naive_pool(x, layer))


@settings(max_examples=40)
@given(windows(), images(), st.booleans(), SEEDS)
def test_conv2d_is_the_loops(window: dict[str, Any], x: Arr, depthwise: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assume(x.size <= 200)
    channels = x.shape[1]
    groups = channels if depthwise else 1
    layer = L.Conv2d(**window, out_channels=2 * groups, groups=groups, bias=False)
    assume(legal(layer, x))
    weight = integers(rng, layer.out_channels, channels // groups, *layer.kernel)
    ours = apply(layer, {"weight": weight}, [x.astype(np.float64)])
    height, width = x.shape[2:]
    p = layer.padding
    for i, o, oy, ox in itertools.product(*map(range, ours.shape)):
        total = 0.0
        for c, ky, kx in itertools.product(*map(range, weight.shape[1:])):
            y = oy * layer.stride[0] - p.top + ky * layer.dilation[0]
            z = ox * layer.stride[1] - p.left + kx * layer.dilation[1]
            if 0 <= y < height and 0 <= z < width:
                total += weight[o, c, ky, kx] * x[i, o // 2 * (channels // groups) + c if depthwise else c, y, z]
        assert ours[i, o, oy, ox] == total


@given(windows(), images(), st.booleans(), SEEDS)
def test_conv_transpose2d_is_the_adjoint_of_conv2d(window: dict[str, Any], x: Arr, depthwise: bool, seed: int) -> None:
    """<conv(x), y> = <x, transposed(y)>, with the output padding that gives back the pixels a stride left over."""
    rng = np.random.default_rng(seed)
    channels = x.shape[1]
    groups = channels if depthwise else 1
    layer = L.Conv2d(**window, out_channels=2 * groups, groups=groups, bias=False)
    assume(legal(layer, x))
    weight = integers(rng, layer.out_channels, channels // groups, *layer.kernel)
    forward = apply(layer, {"weight": weight}, [x.astype(np.float64)])
    height, width = x.shape[2:]
    p = layer.padding
    lost = [(e + a + b - (k - 1) * d - 1) % s for e, a, b, k, d, s in zip(
        (height, width), (p.top, p.left), (p.bottom, p.right), layer.kernel, layer.dilation, layer.stride, strict=True)]
    back = L.ConvTranspose2d(**window, out_channels=channels, groups=groups, output_padding=(lost[0], lost[1]), bias=False)
    other = integers(rng, *forward.shape).astype(np.float64)
    returned = apply(back, {"weight": weight}, [other])
    assert returned.shape == x.shape
    assert (forward * other).sum() == (x * returned).sum()


@given(images(), st.integers(1, 6))
def test_local_response_norm_is_the_loop(x: Arr, size: int) -> None:
    """Even sizes look one channel further back, as in PyTorch."""
    ours = apply(L.LocalResponseNorm(size, 0.5, 0.75, 2.0), {}, [x.astype(np.float64)])
    channels = x.shape[1]
    for c in range(channels):
        near = [k for k in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= k < channels]
        squares = sum(np.square(x[:, k].astype(np.float64)) for k in near)
        np.testing.assert_allclose(ours[:, c], x[:, c] / (2.0 + 0.5 * squares / size) ** 0.75, rtol=1e-12)


# ---- by hand


def test_convolution_by_hand() -> None:
    x = np.array([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    weight = np.array([[[[1.0, 0], [0, -1]]]])
    params = {"weight": weight, "bias": np.array([10.0])}
    np.testing.assert_array_equal(apply(L.Conv2d((2, 2)), params, [x]), [[[[6, 6], [6, 6]]]])
    shifted = apply(L.Conv2d((2, 2), padding=L.Padding(top=1, right=1)), params, [x])
    np.testing.assert_array_equal(shifted, [[[[10 - 2, 10 - 3, 10], [6, 6, 10 + 3], [6, 6, 10 + 6]]]])


def test_transposed_convolution_by_hand() -> None:
    x = np.array([[[[1.0, 2]]]])
    layer = L.ConvTranspose2d((1, 3), stride=(1, 2), output_padding=(0, 1), padding=L.Padding(left=1))
    out = apply(layer, {"weight": np.array([[[[1.0, 10, 100]]]]), "bias": np.array([0.5])}, [x])
    np.testing.assert_array_equal(out, [[[[10.5, 102.5, 20.5, 200.5, 0.5]]]])


def test_average_pool_in_ceil_mode_by_hand() -> None:
    """The last window overhangs: what lies beyond the padding never counts, the padding does when asked to."""
    x = np.array([[[[1.0, 2, 3, 4, 5]]]])

    def pooled(kernel: int, padding: L.Padding, include: bool) -> Arr:
        layer = L.AvgPool2d((1, kernel), (1, 3), padding=padding, ceil_mode=True, count_include_pad=include)
        return apply(layer, {}, [x])[0, 0, 0]

    one_each = L.Padding(left=1, right=1)
    np.testing.assert_array_equal(pooled(4, L.Padding(), True), [(1 + 2 + 3 + 4) / 4, (4 + 5) / 2])
    np.testing.assert_array_equal(pooled(4, one_each, True), [(1 + 2 + 3) / 4, (3 + 4 + 5) / 4])
    np.testing.assert_array_equal(pooled(5, one_each, True), [(1 + 2 + 3 + 4) / 5, (3 + 4 + 5) / 4])
    np.testing.assert_array_equal(pooled(5, one_each, False), [(1 + 2 + 3 + 4) / 4, (3 + 4 + 5) / 3])


def test_max_pool_padding_never_wins() -> None:
    x = -np.ones((1, 1, 2, 2))
    out = apply(L.MaxPool2d((2, 2), stride=(2, 2), padding=L.Padding(1, 1, 1, 1)), {}, [x])
    np.testing.assert_array_equal(out, -np.ones((1, 1, 2, 2)))
    alone = apply(L.MaxPool2d((2, 2), dilation=(2, 2), padding=L.Padding(1, 1, 1, 1)), {}, [x[:, :, :1, :1]])
    assert np.isneginf(alone[0, 0, 0, 0])


def test_depth_to_space_by_hand() -> None:
    x = np.arange(8.0).reshape(1, 8, 1, 1)
    dcr = apply(L.DepthToSpace(2, L.DepthToSpaceOrder.DCR), {}, [x])
    crd = apply(L.DepthToSpace(2, L.DepthToSpaceOrder.CRD), {}, [x])
    np.testing.assert_array_equal(dcr, [[[[0, 2], [4, 6]], [[1, 3], [5, 7]]]])
    np.testing.assert_array_equal(crd, [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]])


def test_moving_and_joining_by_hand() -> None:
    x = np.array([[[[1.0, 2]], [[3, 4]]]])
    np.testing.assert_array_equal(apply(L.Upsample((2, 1)), {}, [x]), [[[[1, 2], [1, 2]], [[3, 4], [3, 4]]]])
    np.testing.assert_array_equal(apply(L.Upsample((1, 2)), {}, [x])[0, 1], [[3, 3, 4, 4]])
    np.testing.assert_array_equal(apply(L.Flatten(), {}, [x])[0, :, 0, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(apply(L.Add(), {}, [x, x, x]), 3 * x)
    np.testing.assert_array_equal(apply(L.Mul(), {}, [x, x, x]), x**3)
    np.testing.assert_array_equal(apply(L.Concat(), {}, [x, 2 * x[:, :1]])[0, :, 0, 0], [1, 3, 2])
    scaled = apply(L.ChannelAffine(), {"scale": np.array([2.0, -1]), "shift": np.array([0.0, 5])}, [x])
    np.testing.assert_array_equal(scaled, [[[[2, 4]], [[2, 1]]]])


def test_linear_upsample_by_hand() -> None:
    x = np.array([[[[0.0, 4, 12]]]])
    half, corner = (apply(L.Upsample((1, 2), "linear", c), {}, [x])[0, 0, 0] for c in ("half_pixel", "asymmetric"))
    np.testing.assert_array_equal(half, [0, 1, 3, 6, 10, 12])
    np.testing.assert_array_equal(corner, [0, 2, 4, 8, 12, 12])


def test_what_leaves_nothing_is_refused() -> None:
    x = np.ones((1, 1, 3, 3))
    for layer in (L.Crop(1, 2), L.Crop(right=4), L.SpaceToDepth(4)):
        with pytest.raises(InputError, match="3x3 pixels"):
            apply(layer, {}, [x])


def test_log_softmax_is_stable() -> None:
    x = np.array([1e4, 0, -1e4], dtype=np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(apply(L.LogSoftmax(), {}, [x]).ravel(), [0, -1e4, -2e4])


def test_logistic_functions_keep_to_range() -> None:
    x = np.array([-1e4, -50.0, 0, 50, 1e4], dtype=np.float32).reshape(1, 1, 1, 5)
    with np.errstate(over="raise", invalid="raise"):
        sigmoid, silu = apply(L.Sigmoid(), {}, [x]).ravel(), apply(L.Silu(), {}, [x]).ravel()
    np.testing.assert_allclose(sigmoid, [0, math.exp(-50), 0.5, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(silu, [0, -50 * math.exp(-50), 0, 50, 1e4], rtol=1e-6)


EXTREME = np.array([-3e38, -1e4, -50.0, -1e-30, 0, 1e-30, 50, 1e4, 3e38])


@pytest.mark.parametrize(("layer", "wanted"), [
    (L.Elu(2.0), lambda v: v if v > 0 else 2 * math.expm1(v)),
    (L.Selu(2.0, 0.5), lambda v: 0.5 * v if v > 0 else math.expm1(v)),
    (L.HardSigmoid(), lambda v: min(max(0.2 * v + 0.5, 0), 1)),
    (L.HardSwish(), lambda v: v * min(max(v / 6 + 0.5, 0), 1)),
    (L.Softplus(), lambda v: v + math.log1p(math.exp(-v)) if v > 0 else math.log1p(math.exp(v))),
    (L.Gelu(), lambda v: v * math.erfc(-v / math.sqrt(2)) / 2),
    (L.Mish(), lambda v: v * math.tanh(max(v, 0) + math.log1p(math.exp(-abs(v))))),
], ids=lambda v: v.kind if isinstance(v, L.Layer) else "")
def test_activations_keep_to_range(layer: L.Layer, wanted: Callable[[float], float]) -> None:
    """No formula overflows on the way in float32; far from zero the functions are what they tend to."""
    x = EXTREME.astype(np.float32).reshape(1, 1, 3, 3)
    with np.errstate(over="raise", invalid="raise"):
        made = apply(layer, {}, [x])
    assert made.dtype == np.float32
    np.testing.assert_allclose(made.ravel(), [wanted(float(v)) for v in x.ravel()], rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("layer", [L.Elu(), L.Selu(), L.HardSigmoid(), L.HardSwish(), L.Softplus(), L.Gelu(), L.Gelu("tanh"),
                                   L.Mish(), L.Neg(), L.Abs(), L.Power(2), L.Power(0.5), L.Sqrt(), L.Exp()], ids=str)
def test_activations_keep_nan(layer: L.Layer) -> None:
    assert np.isnan(apply(layer, {}, [np.full((1, 1, 1, 1), np.nan)])).all()


# ---- graphs


def branching() -> LayerGraph:
    ones = np.ones((2, 2, 1, 1), dtype=np.float32)
    relu = Pointwise("relu1", L.Relu())
    halve = Pointwise("half", L.ChannelAffine(), {"scale": np.full(2, 0.5), "shift": np.zeros(2)})
    return LayerGraph("net", [
        Node("in", L.Input(2)),
        Node("conv1", L.Conv2d((1, 1), out_channels=2, bias=False), ("in",), {"weight": -ones}, (relu, halve)),
        Node("sum", L.Add(), ("in", "conv1")),
        Node("pool", L.MaxPool2d((2, 2), stride=(2, 2)), ("sum",)),
    ], outputs=["pool", "conv1"])


def test_run_applies_epilogues_and_returns_outputs() -> None:
    x = np.array([[[[1.0, -4], [0, 2]], [[1, -2], [0, 4]]]])
    out = run(branching(), x)
    assert list(out) == ["pool", "conv1"]
    np.testing.assert_array_equal(out["conv1"][0], [[[0, 3], [0, 0]]] * 2)
    np.testing.assert_array_equal(out["pool"].ravel(), [2, 4])
    assert out["pool"].dtype == np.float64


def test_run_keeps_every_tensor_on_request() -> None:
    kept = run(branching(), {"in": np.ones((3, 2, 4, 6))}, dtype=np.float32, keep=True)
    assert {k: v.shape for k, v in kept.items()} == {"in": (3, 2, 4, 6), "conv1": (3, 2, 4, 6), "sum": (3, 2, 4, 6),
                                                    "pool": (3, 2, 2, 3)}
    assert {v.dtype for v in kept.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("inputs", "words"), [
    ({"inn": np.ones((1, 2, 4, 4))}, ["unknown input 'inn'", "did you mean 'in'", "'in' is missing"]),
    (np.ones((1, 3, 4, 4)), ["Nx2x?x?", "1x3x4x4"]),
    (np.ones((2, 4, 4)), ["Nx2x?x?", "2x4x4"]),
    (np.ones((1, 2, 0, 4)), ["1x2x0x4"]),
    (np.ones((1, 2, 1, 4)), ["pool", "too small"]),
])
def test_run_names_what_is_wrong_with_inputs(inputs: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        run(branching(), inputs)
    assert all(word in str(caught.value) for word in words)


def test_run_reports_branches_that_do_not_meet() -> None:
    graph = LayerGraph("net", [Node("a", L.Input(1)), Node("b", L.MaxPool2d((2, 2)), ("a",)), Node("c", L.Add(), ("a", "b"))])
    with pytest.raises(InputError, match="c: add reads images of 4x4 and 3x3 pixels"):
        run(graph, np.ones((1, 1, 4, 4)))
    two = LayerGraph("net", [Node("a", L.Input(1)), Node("b", L.Input(1)), Node("c", L.Add(), ("a", "b"))])
    with pytest.raises(InputError, match="different numbers of images: 1, 2"):
        run(two, {"a": np.ones((1, 1, 4, 4)), "b": np.ones((2, 1, 4, 4))})
    with pytest.raises(InputError, match="c: add reads images of 1x1 and 4x4 pixels"):  # one pixel by chance is not spread
        run(two, {"a": np.ones((1, 1, 1, 1)), "b": np.ones((1, 1, 4, 4))})
    with pytest.raises(InputError, match="2 inputs"):
        run(two, np.ones((1, 1, 4, 4)))


def test_run_refuses_other_dtypes_and_unknown_layers() -> None:
    with pytest.raises(InputError, match="not float16"):
        run(branching(), np.ones((1, 2, 4, 4)), dtype=np.float16)
    with pytest.raises(InternalError, match="'layer'"):
        apply(L.Layer(), {}, [np.ones((1, 1, 1, 1))])


def test_large_batches_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = integers(rng, 7, 4, 5, 6)
    conv = L.Conv2d((3, 2), out_channels=4, padding=L.Padding(1, 0, 1, 1), groups=2)
    back = L.ConvTranspose2d((3, 2), stride=(2, 1), out_channels=4, groups=2)
    params = {"weight": integers(rng, 4, 2, 3, 2), "bias": integers(rng, 4)}
    whole = [apply(layer, params, [x]) for layer in (conv, back)]
    monkeypatch.setattr("fusec.graph.reference_ops.windows.BLOCK_ELEMENTS", 250)
    parts = [apply(layer, params, [x]) for layer in (conv, back)]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.data(), integer_graphs())
def test_integer_networks_are_exact_in_float32(data: st.DataObject, graph: LayerGraph) -> None:
    """What the strategy promises to the tests that compare bits: both precisions agree on every tensor."""
    inputs = data.draw(integer_images(graph))
    exact, single = run(graph, inputs, keep=True), run(graph, inputs, dtype=np.float32, keep=True)
    for name, tensor in exact.items():
        assert np.isfinite(tensor).all()
        assert single[name].dtype == np.float32
        np.testing.assert_array_equal(tensor, single[name], err_msg=name)


@given(st.data(), float_graphs())
def test_float_networks_agree_between_precisions(data: st.DataObject, graph: LayerGraph) -> None:
    inputs = data.draw(float_images(graph))
    exact, single = run(graph, inputs), run(graph, inputs, dtype=np.float32)
    for name, tensor in exact.items():
        assert single[name].dtype == np.float32
        scale = max(1.0, float(np.abs(tensor).max()))
        np.testing.assert_allclose(single[name], tensor, rtol=1e-3, atol=1e-3 * scale, err_msg=name)
