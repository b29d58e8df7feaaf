"""Every ONNX operator that becomes layers, in its variants, means what onnxruntime computes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_models import Array, Dims, assert_equal, ints, kinds, model, node, normal

X = normal(2, 3, 9, 10, seed=1)


def weights(*shape: int) -> dict[str, Array]:
    return {"w": normal(*shape, seed=2)}


# ---- windows


@pytest.mark.parametrize("attributes", [
    {}, {"pads": [1, 0, 2, 1]}, {"strides": [2, 1], "pads": [1, 1, 1, 1]}, {"dilations": [2, 1]}, {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"}, {"kernel_shape": [3, 2]},
])
def test_conv(attributes: dict[str, Any]) -> None:
    graph = assert_equal(model([node("Conv", ["x", "w", "b"], ["y"], **attributes)],
                               {**weights(4, 3, 3, 2), "b": normal(4)}), X)
    assert kinds(graph) == ["conv2d"]


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize(("height", "width"), [(9, 10), (8, 7), (4, 5)])
def test_same_padding_with_a_stride_where_the_size_is_fixed(auto: str, stride: int, height: int, width: int) -> None:
    proto = model([node("Conv", ["x", "w"], ["y"], auto_pad=auto, strides=[stride, stride])], weights(4, 3, 3, 4),
                  inputs={"x": ("N", 3, height, width)})
    assert_equal(proto, normal(1, 3, height, width))


def test_conv_in_groups() -> None:
    x = normal(1, 4, 6, 7)
    for groups, inner in ((2, 2), (4, 1)):
        proto = model([node("Conv", ["x", "w"], ["y"], group=groups)], weights(8, inner, 3, 3),
                      inputs={"x": ("N", 4, "H", "W")})
        assert_equal(proto, x)


@pytest.mark.parametrize("attributes", [
    {}, {"strides": [2, 2]}, {"strides": [2, 3], "pads": [1, 0, 0, 1]}, {"strides": [2, 2], "output_padding": [1, 0]},
    {"dilations": [2, 1]}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
])
def test_conv_transpose(attributes: dict[str, Any]) -> None:
    assert_equal(model([node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes)],
                       {**weights(3, 2, 3, 4), "b": normal(2)}), X)


def test_conv_transpose_to_a_given_size() -> None:
    proto = model([node("ConvTranspose", ["x", "w"], ["y"], strides=[3, 2], output_shape=[27, 20])], weights(3, 2, 3, 3),
                  inputs={"x": ("N", 3, 9, 10)})
    assert_equal(proto, X)


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("attributes", [
    {"kernel_shape": [2, 3]}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER"},
])
def test_pools(operator: str, attributes: dict[str, Any]) -> None:
    graph = assert_equal(model([node(operator, ["x"], ["y"], **attributes)]), X)
    assert len(kinds(graph)) == 1


def test_max_pool_with_dilation() -> None:
    assert_equal(model([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 3])]), X)


@pytest.mark.parametrize("ceil", [0, 1])
def test_average_pool_counts_padding_or_not(ceil: int) -> None:
    for counted in (0, 1):
        proto = model([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
                            count_include_pad=counted, ceil_mode=ceil)], opset=19)
        assert_equal(proto, X)


def test_average_pool_with_dilation() -> None:
    assert_equal(model([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], opset=19), X)


@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(operator: str) -> None:
    assert_equal(model([node(operator, ["x"], ["y"])]), X)


def test_rows_of_numbers_are_images_of_one_column() -> None:
    x = normal(2, 3, 11)
    nodes = [node("Conv", ["x", "w"], ["a"], strides=[2], pads=[1, 0]), node("MaxPool", ["a"], ["y"], kernel_shape=[2])]
    assert_equal(model(nodes, weights(4, 3, 3), inputs={"x": ("N", 3, "L")}), x)


# ---- pointwise


@pytest.mark.parametrize(("operator", "attributes"), [
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("LeakyRelu", {}), ("Sigmoid", {}), ("Tanh", {}), ("Elu", {"alpha": 1.5}),
    ("Elu", {}), ("Selu", {}), ("Selu", {"alpha": 1.2, "gamma": 2.0}), ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 0.3}),
    ("HardSwish", {}), ("Softplus", {}), ("Neg", {}), ("Abs", {}), ("Exp", {}), ("Reciprocal", {}), ("Identity", {}),
    ("Dropout", {}),
])
def test_pointwise(operator: str, attributes: dict[str, Any]) -> None:
    assert_equal(model([node(operator, ["x"], ["y"], **attributes)]), X)


@pytest.mark.parametrize("attributes", [{}, {"approximate": "tanh"}])
def test_gelu(attributes: dict[str, Any]) -> None:
    assert_equal(model([node("Gelu", ["x"], ["y"], **attributes)], opset=20), X)


def test_mish() -> None:
    assert_equal(model([node("Mish", ["x"], ["y"])], opset=18), X)


def test_sqrt() -> None:
    assert_equal(model([node("Sqrt", ["x"], ["y"])]), np.abs(X))


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, -1.0])
def test_pow_by_a_constant(exponent: float) -> None:
    assert_equal(model([node("Pow", ["x", "p"], ["y"])], {"p": np.float32(exponent)}), np.abs(X) + 1)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1,), ()])
def test_prelu(shape: tuple[int, ...]) -> None:
    assert_equal(model([node("PRelu", ["x", "w"], ["y"])], weights(*shape)), X)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (None, 0.5), (-0.5, None), (0.0, None), (None, None), (0.0, 6.0)])
def test_clip(low: float | None, high: float | None) -> None:
    constants = {name: np.float32(v) for name, v in (("low", low), ("high", high)) if v is not None}
    names = ["x", "low" if low is not None else "", "high" if high is not None else ""]
    assert_equal(model([node("Clip", names, ["y"])], constants), X)
    old = {name: v for name, v in (("min", low), ("max", high)) if v is not None}
    assert_equal(model([node("Clip", ["x"], ["y"], **old)], opset=9), X)


# ---- arithmetic


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 3, 1, 1), (1, 1, 1, 1)])
def test_arithmetic_with_constants(operator: str, shape: tuple[int, ...]) -> None:
    constant = {"c": np.abs(normal(*shape)) + 1}
    graph = assert_equal(model([node(operator, ["x", "c"], ["y"])], constant), X)
    assert kinds(graph) == ["channel_affine"]
    assert_equal(model([node(operator, ["c", "x"], ["y"])], constant), np.abs(X) + 1)


BETWEEN = ["Add", "Sub", "Mul", "Div", "Min", "Max", "Sum"]


@pytest.mark.parametrize("operator", BETWEEN)
def test_arithmetic_between_images(operator: str) -> None:
    assert_equal(model([node("Sigmoid", ["x"], ["r"]), node(operator, ["x", "r"], ["y"])]), X)
    assert_equal(model([node("Sigmoid", ["x"], ["r"]), node(operator, ["r", "r"], ["y"])]), X)


@pytest.mark.parametrize("operator", BETWEEN)
@pytest.mark.parametrize("shape", [("N", 1, "H", "W"), ("N", 3, 1, 1), ("N", 1, 1, 1)])
def test_arithmetic_spreads_one_channel_and_one_pixel(operator: str, shape: Dims) -> None:
    small = np.abs(normal(*(v if isinstance(v, int) else s for v, s in zip(shape, X.shape, strict=True)))) + 1
    proto = model([node(operator, ["x", "z"], ["y"])], inputs={"x": ("N", 3, "H", "W"), "z": shape})
    assert_equal(proto, X, small)


@pytest.mark.parametrize("operator", ["Sum", "Min", "Max"])
def test_arithmetic_of_several_images(operator: str) -> None:
    nodes = [node("Sigmoid", ["x"], ["r"]), node("Neg", ["x"], ["n"]), node(operator, ["x", "r", "n"], ["y"])]
    assert_equal(model(nodes), X)
    assert_equal(model([node(operator, ["x"], ["y"])]), X)


@pytest.mark.parametrize("operator", ["Min", "Max"])
@pytest.mark.parametrize("bound", [0.0, 0.5, -1.0])
def test_least_and_greatest_with_a_number(operator: str, bound: float) -> None:
    assert_equal(model([node(operator, ["x", "c"], ["y"])], {"c": np.float32(bound)}), X)
    assert_equal(model([node(operator, ["c", "x"], ["y"])], {"c": np.float32(bound)}), X)


def test_squeeze_and_excitation() -> None:
    """Means of channels through two products, back as one factor per channel: vectors and images together."""
    nodes = [node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "w"], ["g"]),
             node("Sigmoid", ["g"], ["s"]), node("Unsqueeze", ["s", "sides"], ["u"]), node("Mul", ["x", "u"], ["y"])]
    assert_equal(model(nodes, {"w": normal(3, 3), "sides": ints(2, 3)}), X)


def test_constants_are_computed_before() -> None:
    """What follows from constants alone is no layer."""
    nodes = [node("Constant", [], ["one"], value_float=1.0), node("Sqrt", ["v"], ["deviation"]),
             node("Add", ["deviation", "one"], ["c"]), node("Unsqueeze", ["c", "axes"], ["column"]),
             node("Div", ["x", "column"], ["y"])]
    graph = assert_equal(model(nodes, {"v": np.array([1.0, 4.0, 9.0], np.float32), "axes": ints(1, 2)}), X)
    assert kinds(graph) == ["channel_affine"]


# ---- whole tensors


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,), ()])
def test_gemm(attributes: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    constants = {"w": normal(5, 12) if attributes.get("transB") else normal(12, 5)}
    if bias is not None:
        constants["c"] = normal(*bias)
    nodes = [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", *constants], ["y"], **attributes)]
    graph = assert_equal(model(nodes, constants, inputs={"x": ("N", 3, 2, 2)}), normal(2, 3, 2, 2))
    assert kinds(graph) == ["flatten", "linear"]


def test_matmul_and_its_bias() -> None:
    nodes = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["m"]), node("Add", ["m", "c"], ["y"])]
    assert_equal(model(nodes, {"w": normal(12, 5), "c": normal(5)}, inputs={"x": ("N", 3, 2, 2)}), normal(2, 3, 2, 2))


def test_batch_norm() -> None:
    names = ["s", "b", "m", "v"]
    constants = {name: np.abs(normal(3, seed=i)) + 0.1 for i, name in enumerate(names)}
    graph = assert_equal(model([node("BatchNormalization", ["x", *names], ["y"], epsilon=1e-3)], constants), X)
    assert kinds(graph) == ["batch_norm"]


def test_lrn() -> None:
    assert_equal(model([node("LRN", ["x"], ["y"], size=3, alpha=0.1, beta=0.5, bias=2.0)]), X)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "axis"), [(13, 1), (13, -3)])
def test_softmax_over_channels(operator: str, opset: int, axis: int) -> None:
    assert_equal(model([node(operator, ["x"], ["y"], axis=axis)], opset=opset), X)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_of_vectors(operator: str, opset: int) -> None:
    nodes = [node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["f"]), node(operator, ["f"], ["y"])]
    assert_equal(model(nodes, opset=opset), X)


@pytest.mark.parametrize("keep", [0, 1])
def test_mean_over_space(keep: int) -> None:
    assert_equal(model([node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=keep)]), X)
    assert_equal(model([node("ReduceMean", ["x", "a"], ["y"], keepdims=keep)], {"a": ints(-1, -2)}, opset=18), X)
    assert_equal(model([node("ReduceMax", ["x"], ["y"], axes=[2, 3], keepdims=keep)]), X)


# ---- moving


def test_concat() -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("Concat", ["x", "r", "x"], ["y"], axis=-3)]
    assert_equal(model(nodes), X)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    proto = model([node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode)], inputs={"x": ("N", 12, "H", "W")})
    graph = assert_equal(proto, normal(2, 12, 3, 4))
    assert kinds(graph) == ["depth_to_space"]


@pytest.mark.parametrize("attributes", [
    {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, {},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
    {"coordinate_transformation_mode": "pytorch_half_pixel"},
    {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"},
])
@pytest.mark.parametrize("factor", [(2, 3), (1, 4), (5, 5)])
def test_resize_nearest(attributes: dict[str, Any], factor: tuple[int, int]) -> None:
    proto = model([node("Resize", ["x", "", "scales"], ["y"], **attributes)], {"scales": np.array([1, 1, *factor], np.float32)})
    graph = assert_equal(proto, X)
    assert kinds(graph) == ["upsample"]


@pytest.mark.parametrize("how", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
@pytest.mark.parametrize("factor", [(2, 3), (1, 4), (5, 5)])
def test_resize_linear(how: str, factor: tuple[int, int]) -> None:
    proto = model([node("Resize", ["x", "", "scales"], ["y"], mode="linear", coordinate_transformation_mode=how)],
                  {"scales": np.array([1, 1, *factor], np.float32)})
    graph = assert_equal(proto, X)
    assert kinds(graph) == ["upsample"]


def test_resize_of_older_opsets() -> None:
    scales = {"s": np.array([1, 1, 2, 2], np.float32)}
    assert_equal(model([node("Resize", ["x", "s"], ["y"], mode="nearest")], scales, opset=10), X)
    assert_equal(model([node("Resize", ["x", "s"], ["y"], mode="linear")], scales, opset=10), X)
    assert_equal(model([node("Upsample", ["x", "s"], ["y"], mode="nearest")], scales, opset=9), X)
    assert_equal(model([node("Upsample", ["x", "s"], ["y"], mode="linear")], scales, opset=9), X)
    assert_equal(model([node("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 3.0])], opset=7), X)


def test_casts_among_floats_are_left_out() -> None:
    graph = assert_equal(model([node("Cast", ["x"], ["a"], to=1), node("Relu", ["a"], ["y"])]), X)
    assert kinds(graph) == ["relu"]


def test_space_to_depth() -> None:
    graph = assert_equal(model([node("SpaceToDepth", ["x"], ["y"], blocksize=3)]), normal(2, 3, 9, 6))
    assert kinds(graph) == ["space_to_depth"]


@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), [
    ((1,), (3,), (1,), (1,)), ((0,), (1 << 60,), (-3,), (2,)), ((1, 2), (-1, 1 << 60), (2, 3), (1, 1)),
    ((0, 0), (-2, -3), (2, 3), (1, 1)),
    ((1, 1), (1 << 62, 1 << 62), (2, 3), (2, 3)), ((1, 0, 1), (2, -1, -1), (1, 2, 3), (1, 1, 2)),
])
def test_slices(starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...], steps: tuple[int, ...]) -> None:
    constants = {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes), "t": ints(*steps)}
    assert_equal(model([node("Slice", ["x", "s", "e", "a", "t"], ["y"])], constants), X)
    if set(steps) == {1}:
        assert_equal(model([node("Slice", ["x"], ["y"], starts=starts, ends=ends, axes=axes)], opset=9), X)


def test_slices_of_a_fixed_size() -> None:
    constants = {"s": ints(-5, 1), "e": ints(8, 7), "a": ints(2, 3)}
    assert_equal(model([node("Slice", ["x", "s", "e", "a"], ["y"])], constants, inputs={"x": ("N", 3, 9, 10)}), X)


def test_a_slice_up_to_the_size_less_one() -> None:
    """Bounds that are computed of the shape lie at a fixed distance from the side."""
    nodes = [node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "two"], ["h"]), node("Sub", ["h", "one"], ["e"]),
             node("Slice", ["x", "zero", "e", "axis"], ["y"])]
    constants = {"two": ints(2), "one": ints(1), "zero": ints(0), "axis": ints(2)}
    assert kinds(assert_equal(model(nodes, constants), X)) == ["crop"]


@pytest.mark.parametrize(("axis", "parts"), [(1, (1, 2)), (1, None), (2, (4, 5)), (3, (1, 9))])
def test_split(axis: int, parts: tuple[int, int] | None) -> None:
    outputs = ["y", "z"] if axis != 1 or parts else ["y", "z", "w"]
    constants = {"p": ints(*parts)} if parts else {}
    proto = model([node("Split", ["x", *constants], outputs, axis=axis)], constants, inputs={"x": ("N", 3, 9, 10)},
                  outputs=outputs)
    assert_equal(proto, X)


@pytest.mark.parametrize("pads", [(0, 0, 1, 2, 0, 0, 3, 4), (0, 0, -1, 0, 0, 0, 2, -3), (0, 2, 0, 0, 0, 1, 0, 0),
                                  (0, 1, 1, 1, 0, 0, 0, 0)])
@pytest.mark.parametrize("value", [None, 1.5])
def test_pads(pads: tuple[int, ...], value: float | None) -> None:
    if value is not None and (pads[1] or pads[5]):
        return  # channels of another value than zero are refused
    constants = {"p": ints(*pads)} | ({"v": np.float32(value)} if value is not None else {})
    assert_equal(model([node("Pad", ["x", *constants], ["y"])], constants), X)
    assert_equal(model([node("Pad", ["x"], ["y"], pads=pads, value=value or 0.0)], opset=9), X)


def test_pads_of_some_axes() -> None:
    constants = {"p": ints(1, 2, 3, 4), "v": np.float32(0), "a": ints(-1, 2)}
    assert_equal(model([node("Pad", ["x", "p", "v", "a"], ["y"])], constants, opset=18), X)


def test_pixels_unshuffled_by_reshapes_are_refused_or_right() -> None:
    """(N, C, H/2, 2, W/2, 2) to (N, 4C, H/2, W/2): of a fixed size, in ONNX's order."""
    nodes = [node("Reshape", ["x", "apart"], ["a"]), node("Transpose", ["a"], ["b"], perm=[0, 3, 5, 1, 2, 4]),
             node("Reshape", ["b", "joined"], ["y"])]
    constants = {"apart": ints(0, 3, 4, 2, 5, 2), "joined": ints(0, 12, 4, 5)}
    graph = assert_equal(model(nodes, constants, inputs={"x": ("N", 3, 8, 10)}), normal(2, 3, 8, 10))
    assert kinds(graph) == ["space_to_depth"]
