"""What ONNX files compute of shapes is folded, open sizes and all, and reshapes are views."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.graph import layers as L
from fusec.graph.onnx import views
from fusec.graph.onnx.extent import Open, Unresolved, ceil, divide, equal, floor, follow, name, product
from fusec.graph.onnx.values import Axes, Digit, Image
from fusec.graph.shapes import size_rule
from tests.onnx_models import assert_equal, ints, kinds, model, node, normal

HEIGHT, WIDTH = name("H"), name("W")


def at(value: object, **sizes: int) -> object:
    """An extent with numbers for its names."""
    if not isinstance(value, Open):
        return value
    total = Fraction(0)
    for names, factor in value.terms:
        for symbol in names:
            factor *= sizes[symbol]
        total += factor
    return total


# ---- extents

polynomials = st.recursive(
    st.sampled_from([HEIGHT, WIDTH]) | st.integers(-5, 5),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner).map(
        lambda t: t[1] + t[2] if t[0] == "+" else t[1] - t[2] if t[0] == "-" else t[1] * t[2]), max_leaves=5)


@given(polynomials, polynomials, st.integers(1, 50), st.integers(1, 50))
def test_arithmetic_of_open_sizes_is_that_of_numbers(a: object, b: object, height: int, width: int) -> None:
    sizes = {"H": height, "W": width}
    assert at(a + b, **sizes) == at(a, **sizes) + at(b, **sizes)  # type: ignore[operator]
    assert at(a * b, **sizes) == at(a, **sizes) * at(b, **sizes)  # type: ignore[operator]
    assert at(a - b, **sizes) == at(a, **sizes) - at(b, **sizes)  # type: ignore[operator]
    if b != 0 and (quotient := divide(a, b)) is not None:
        assert quotient * b == a


def test_what_does_not_divide_is_equal_to_itself_alone() -> None:
    half = HEIGHT // 2
    assert half == HEIGHT // 2
    assert half != HEIGHT // 3
    assert half * 2 != HEIGHT
    assert (HEIGHT * 4) // 2 == HEIGHT * 2
    assert floor(HEIGHT * Fraction(1, 2)) == floor(HEIGHT * Fraction(1, 2))
    assert ceil(HEIGHT) == HEIGHT


def test_equality_that_depends_on_the_size_is_not_guessed() -> None:
    assert equal(HEIGHT * 2, HEIGHT + HEIGHT)
    assert not equal(HEIGHT, -1)
    with pytest.raises(Unresolved):
        equal(HEIGHT, 3)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.integers(6, 40))
def test_extents_follow_the_rules_of_layers(kernel: int, stride: int, padding: int, extent: int) -> None:
    """An open extent that becomes a polynomial has the value that the rule gives a number."""
    rule = size_rule(L.Conv2d((kernel, kernel), (stride, stride), padding=L.Padding(*[padding] * 4)), L.Axis.Y)
    made = follow(rule, HEIGHT)
    if isinstance(made, Open) and all(names in ((), ("H",)) for names, _ in made.terms):
        assert at(made, H=extent) == rule(extent)


# ---- views


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[Axes, list[int], list[int | None]]:
    """The axes of an image, its extents, and a shape of as many elements."""
    extents = [draw(st.sampled_from([1, 2, 3, 4, 6])) for _ in range(4)]
    count = int(np.prod(extents))
    target: list[int | None] = []
    while count > 1 and len(target) < 6:
        part = draw(st.sampled_from([d for d in range(1, count + 1) if count % d == 0]))
        target.append(part)
        count //= part
    target.append(count)
    if draw(st.booleans()):
        target[draw(st.integers(0, len(target) - 1))] = None
    return Image("x", 4, *extents).view().axes, extents, target  # type: ignore[arg-type]


def gathered(axes: Axes, extents: list[int], array: np.ndarray) -> np.ndarray:
    """The array that a view means, element by element."""
    shape = [int(product(d.extent for d in axis)) for axis in axes]
    made = np.empty(shape, array.dtype)
    for place in np.ndindex(*shape):
        source = [0, 0, 0, 0]
        for axis, index in zip(axes, place, strict=True):
            for digit in reversed(axis):
                assert isinstance(digit.extent, int)
                assert isinstance(digit.stride, int)
                source[digit.axis] += index % digit.extent * digit.stride
                index //= digit.extent
        made[place] = array[tuple(source)]
    return made


@given(reshapes(), st.randoms())
def test_a_view_means_what_numpy_makes_of_it(case: tuple[Axes, list[int], list[int | None]], random: object) -> None:
    axes, extents, target = case
    array = np.arange(np.prod(extents)).reshape(extents)
    made = views.reshape(axes, target)
    if made is None:
        return  # it takes an axis apart where NumPy would too, but not in whole digits
    wanted = array.reshape([-1 if t is None else t for t in target])
    assert np.array_equal(gathered(made, extents, array), wanted)
    order = list(range(wanted.ndim))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert np.array_equal(gathered(views.transpose(made, order), extents, array), wanted.transpose(order))


@pytest.mark.parametrize("block", [2, 3])
@pytest.mark.parametrize(("split", "order"), [("DCR", (0, 3, 4, 1, 5, 2)), ("CRD", (0, 1, 4, 2, 5, 3))])
def test_a_pixel_shuffle_is_recognised(block: int, split: str, order: tuple[int, ...]) -> None:
    axes = Image("x", 4, name("N"), 4 * block**2, HEIGHT, WIDTH).view().axes
    parts: list[object] = [name("N"), *([block, block, 4] if split == "DCR" else [4, block, block]), HEIGHT, WIDTH]
    apart = views.reshape(axes, parts)  # type: ignore[arg-type]
    assert apart is not None
    shuffled = views.transpose(apart, order)
    joined = views.reshape(shuffled, [name("N"), 4, HEIGHT * block, WIDTH * block])
    assert joined is not None
    assert views.arrangement(joined) == L.DepthToSpace(block, L.DepthToSpaceOrder(split))


def test_axes_that_are_no_image_have_no_layer() -> None:
    axes = Image("x", 4, name("N"), 6, HEIGHT, WIDTH).view().axes
    assert views.arrangement(axes) == L.Identity()
    assert views.arrangement(views.transpose(axes, (0, 1, 3, 2))) is None
    assert views.arrangement(views.transpose(axes, (1, 0, 2, 3))) is None
    assert views.arrangement(((Digit(0, name("N")),), (Digit(1, 3, 2),), (), ())) is None


# ---- whole graphs


def test_a_pixel_shuffle_of_open_sizes_as_exporters_write_it() -> None:
    shape = [node("Shape", ["x"], ["s"]), *(node("Gather", ["s", f"at{i}"], [f"d{i}"]) for i in (0, 2, 3)),
             *(node("Unsqueeze", [f"d{i}", "first"], [f"e{i}"]) for i in (0, 2, 3))]
    nodes = [*shape, node("Concat", ["e0", "three", "two", "two", "e2", "e3"], ["apart"], axis=0),
             node("Reshape", ["x", "apart"], ["a"]),
             node("Transpose", ["a"], ["b"], perm=[0, 1, 4, 2, 5, 3]), node("Mul", ["e2", "two"], ["h"]),
             node("Mul", ["e3", "two"], ["w"]), node("Concat", ["e0", "three", "h", "w"], ["joined"], axis=0),
             node("Reshape", ["b", "joined"], ["y"])]
    constants = {f"at{i}": np.int64(i) for i in (0, 2, 3)} | {"first": ints(0), "three": ints(3), "two": ints(2)}
    graph = assert_equal(model(nodes, constants, inputs={"x": ("N", 12, "H", "W")}), normal(2, 12, 3, 5))
    assert kinds(graph) == ["depth_to_space"]


def test_a_channel_shuffle_is_a_convolution_of_zeros_and_ones() -> None:
    nodes = [node("Reshape", ["x", "apart"], ["a"]), node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
             node("Reshape", ["b", "joined"], ["y"])]
    proto = model(nodes, {"apart": ints(0, 3, 4, 5, 6), "joined": ints(0, -1, 5, 6)}, inputs={"x": ("N", 12, 5, 6)})
    graph = assert_equal(proto, normal(2, 12, 5, 6), tolerance=0)
    assert kinds(graph) == ["conv2d"]


def test_sizes_of_a_resize_computed_from_the_shape() -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Slice", ["s", "zero", "two"], ["front"]),
             node("Slice", ["s", "two", "four"], ["sides"]),
             node("Cast", ["sides"], ["f"], to=1), node("Mul", ["f", "factor"], ["g"]), node("Floor", ["g"], ["h"]),
             node("Cast", ["h"], ["i"], to=7), node("Concat", ["front", "i"], ["sizes"], axis=0),
             node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
                  nearest_mode="floor")]
    constants = {"zero": ints(0), "two": ints(2), "four": ints(4), "factor": np.float32(3)}
    assert kinds(assert_equal(model(nodes, constants), normal(1, 3, 4, 5))) == ["upsample"]


def test_a_resize_to_the_size_of_another_tensor() -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], strides=[1, 1], pads=[1, 1, 1, 1]), node("DepthToSpace", ["c"], ["d"],
                                                                                      blocksize=2),
             node("Shape", ["d"], ["s"]), node("Resize", ["x", "", "", "s"], ["u"], mode="nearest"),
             node("Concat", ["u", "d"], ["y"], axis=1)]
    graph = assert_equal(model(nodes, {"w": normal(12, 3, 3, 3)}), normal(2, 3, 4, 5))
    assert kinds(graph) == ["conv2d", "depth_to_space", "upsample", "concat"]


@pytest.mark.parametrize("shape", [(0, -1), (-1, 12), (2, -1)])
def test_flattening_by_reshape(shape: tuple[int, int]) -> None:
    nodes = [node("Reshape", ["x", "s"], ["f"]), node("Gemm", ["f", "w"], ["y"])]
    constants = {"s": ints(*shape), "w": normal(12, 4)}
    batch = 2 if shape[0] == 2 else "N"
    graph = assert_equal(model(nodes, constants, inputs={"x": (batch, 3, 2, 2)}), normal(2, 3, 2, 2))
    assert kinds(graph) == ["flatten", "linear"]


def test_squeezed_and_unsqueezed_vectors_are_nothing() -> None:
    nodes = [node("GlobalAveragePool", ["x"], ["p"]), node("Squeeze", ["p", "sides"], ["v"]), node("Gemm", ["v", "w"], ["g"]),
             node("Unsqueeze", ["g", "sides"], ["u"]), node("Sigmoid", ["u"], ["y"])]
    graph = assert_equal(model(nodes, {"sides": ints(2, 3), "w": normal(3, 3)}), normal(2, 3, 4, 5))
    assert kinds(graph) == ["global_avg_pool2d", "linear", "sigmoid", "max_pool2d"]  # the last: users get an image, no vector


def test_transposes_that_cancel_are_nothing() -> None:
    nodes = [node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
             node("Relu", ["b"], ["y"])]
    assert kinds(assert_equal(model(nodes), normal(1, 3, 4, 5))) == ["relu"]


def test_folded_weights() -> None:
    """Weights that are transposed, cut, joined and counted up before they are used."""
    nodes = [node("Transpose", ["v"], ["t"], perm=[3, 2, 0, 1]), node("Slice", ["t", "zero", "four"], ["w"]),
             node("Range", ["i", "n", "i1"], ["r"]), node("Cast", ["r"], ["b"], to=1), node("Conv", ["x", "w", "b"], ["y"])]
    constants = {"v": normal(3, 3, 3, 6), "zero": ints(0), "four": ints(4), "i": np.int64(0), "n": np.int64(4),
                 "i1": np.int64(1)}
    assert_equal(model(nodes, constants), normal(1, 3, 5, 6))
