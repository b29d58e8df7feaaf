"""What is wrong with an ONNX file: all of it at once, each with the node's name and a way out; and nothing read elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fusec.errors import InputError
from fusec.graph.onnx import proto as limits
from fusec.graph.onnx.cut import Cut
from fusec.graph.onnx.refusal import Unsupported
from fusec.graph.read_onnx import read_onnx
from fusec.graph.reference import run
from tests.onnx_models import Array, Dims, ints, kinds, model, node, normal, read, saved


def refusal(proto: Any, cut: Cut | None = None) -> str:
    """What is said of a file that cannot be read."""
    with pytest.raises(InputError) as caught:
        read(proto, cut)
    return str(caught.value)


def test_all_nodes_at_once_with_name_operator_reason_and_way_out() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"], name="first"), node("Loop", ["", "", "a"], ["b"], name="around", body=None),
             node("Erf", ["a"], ["c"], name="error_function"), node("Resize", ["c", "", "s"], ["d"], name="half"),
             node("Add", ["d", "b"], ["y"], name="sum")]
    proto = model(nodes, {"w": normal(4, 3, 1, 1), "s": np.array([1, 1, 0.5, 0.5], np.float32)})
    with pytest.raises(Unsupported) as caught:
        read(proto)
    error = caught.value
    assert [(r.node, r.operator) for r in error.refused] == [("around", "Loop"), ("error_function", "Erf"), ("half", "Resize")]
    assert all(r.why and r.instead for r in error.refused)
    assert error.nodes == 5
    assert error.before == ("a",)
    assert [p.where for p in error.problems] == ["net.onnx"] * 3


def test_nodes_behind_a_refused_one_are_looked_at_with_the_form_they_have() -> None:
    nodes = [node("Erf", ["x"], ["e"], name="e"), node("Conv", ["e", "w"], ["c"], name="conv"), node("Relu", ["c"], ["y"])]
    said = refusal(model(nodes, {"w": normal(4, 2, 3, 3)}, inputs={"x": (1, 3, 8, 8)}))
    assert "node 'e' (Erf)" in said
    assert "node 'conv' (Conv): weights of 4x2x3x3 in 1 groups do not fit 3 channels" in said


def test_a_part_compiles_with_from_and_to() -> None:
    nodes = [node("Erf", ["x"], ["e"]), node("Conv", ["e", "w"], ["c"]), node("Relu", ["c"], ["r"]), node("Erf", ["r"], ["y"])]
    proto = model(nodes, {"w": normal(4, 3, 3, 3)}, inputs={"x": (1, 3, "H", "W")})
    with pytest.raises(Unsupported) as caught:
        read(proto)
    assert (caught.value.before, caught.value.behind) == (("r",), ("e",))
    graph = read(proto, Cut(("e",), ("r",)))
    assert kinds(graph) == ["conv2d", "relu"]
    assert ([n.name for n in graph.inputs], graph.outputs) == (["e"], ("r",))


def test_nodes_that_no_output_needs_are_not_looked_at() -> None:
    proto = model([node("Relu", ["x"], ["y"]), node("NoSuchOperator", ["x"], ["z"])])
    assert kinds(read(proto)) == ["relu"]


@pytest.mark.parametrize(("nodes", "constants", "said"), [
    ([node("Rellu", ["x"], ["y"])], {}, "opset 17 has no operator 'Rellu' (did you mean 'Relu'?)"),
    ([node("Relu", ["x"], ["y"], alhpa=1.0)], {}, "has no attribute 'alhpa'"),
    ([node("LeakyRelu", ["x"], ["y"], alhpa=1.0)], {}, "did you mean 'alpha'?"),
    ([node("LeakyRelu", ["x"], ["y"], alpha=1)], {}, "its attribute alpha is no float"),
    ([node("Concat", ["x"], ["y"])], {}, "its attribute axis is missing"),
    ([node("Relu", ["x", "x"], ["y"])], {}, "it has 2 inputs, but Relu takes 1"),
    ([node("Relu", ["xx"], ["y"])], {}, "nothing makes its input 'xx'"),
    ([node("FusedConv", ["x"], ["y"], domain="com.microsoft")], {}, "outside the standard"),
    ([node("Conv", ["x", "x"], ["y"])], {}, "its input 'x' has to be a constant, but the network computes it"),
    ([node("Conv", ["x", "w"], ["y"])], {"w": normal(2, 3, 3)}, "its weights have 3 axes for an image of 4"),
    ([node("Conv", ["x", "w"], ["y"], pads=[1, 1])], {"w": normal(2, 3, 3, 3)}, "pads has 2 numbers for 2 axes"),
    ([node("Conv", ["x", "w"], ["y"], pads=[-1, 0, 0, 0])], {"w": normal(2, 3, 3, 3)}, "are below 0"),
    ([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], {"w": normal(2, 3, 3, 3)},
     "depends on the image's size (give the network's input a fixed height and width, or export with pads)"),
    ([node("Conv", ["x", "w"], ["y"])], {"w": np.full((2, 3, 1, 1), np.nan, np.float32)}, "NaN or infinite"),
    ([node("MaxPool", ["x"], ["a", "z"], kernel_shape=[2, 2]), node("Add", ["a", "z"], ["y"])], {},
     "its input 'z' is not made"),
    ([node("MaxPool", ["x"], ["z", "y"], kernel_shape=[2, 2])], {}, "the output 'y' is not made"),
    ([node("QuantizeLinear", ["x", "s"], ["y"])], {"s": np.float32(1)}, "quantised networks are not read"),
    ([node("Concat", ["x", "x"], ["y"], axis=2)], {}, "images are joined along their channels, axis 1"),
    ([node("Softmax", ["x"], ["y"], axis=3)], {}, "it sums along axis 3"),
    ([node("Transpose", ["x"], ["y"], perm=[0, 1, 3, 2])], {}, "neither a view of an image nor a pixel shuffle"),
    ([node("Reshape", ["x", "s"], ["y"])], {"s": ints(2, -1, -1)}, "its shape is (2, -1, -1)"),
    ([node("Add", ["x", "c"], ["y"])], {"c": normal(1, 3, 4, 5)}, "constants that vary in space are not taken"),
    ([node("Cast", ["x"], ["y"], to=TensorProto.INT32)], {}, "it casts to int32"),
    ([node("Pad", ["x", "p"], ["y"], mode="reflect")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
     "it pads with 'reflect' (constant works)"),
    ([node("Pad", ["x", "p"], ["y"], mode="edge")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, "it pads with 'edge'"),
    ([node("Resize", ["x", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="align_corners")],
     {"s": np.array([1, 1, 2, 2], np.float32)}, "align_corners is not supported (half_pixel is"),
    ([node("Resize", ["x", "", "s"], ["y"], mode="cubic")], {"s": np.array([1, 1, 2, 2], np.float32)}, "mode 'cubic'"),
    ([node("Resize", ["x", "", "s"], ["y"])], {"s": np.array([1, 2, 2, 2], np.float32)}, "along the batch or the channels"),
    ([node("Resize", ["x", "", "s"], ["y"])], {"s": np.array([1, 1, 100, 100], np.float32)}, "it scales by 100 x 100"),
    ([node("Gemm", ["x", "w"], ["y"])], {"w": normal(3, 3)}, "it multiplies a tensor of 4 axes"),
    ([node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w"], ["y"])], {"w": normal(3, 3)}, "needs a fixed image size"),
    ([node("Dropout", ["x", "r", "t"], ["y"])], {"r": np.float32(0.5), "t": np.array(True)}, "it drops values"),
    ([node("Identity", ["c"], ["y"])], {"c": normal(1, 3, 4, 4)}, "no output depends on an input"),
])
def test_problems_of_nodes(nodes: list[Any], constants: dict[str, Array], said: str) -> None:
    assert said in refusal(model(nodes, constants))


@pytest.mark.parametrize(("shape", "said"), [
    (("N", "C", "H", "W"), "'x' has an open number of channels (axis 1 holds the channels, and has to be fixed)"),
    (("N",), "'x' has 1 axes"),
    ((1, 3, 4, 4, 4), "'x' has 5 axes"),
    ((1, 3, 0, 4), "an extent of 0"),
    ((1, 3, -4, 4), "an extent of -4"),
    ((1, 1 << 40, 4, 4), "an extent of 1099511627776"),
])
def test_problems_of_inputs(shape: Dims, said: str) -> None:
    assert said in refusal(model([node("Relu", ["x"], ["y"])], inputs={"x": shape}))


def test_an_input_of_whole_numbers_is_refused() -> None:
    proto = model([node("Relu", ["x"], ["y"])])
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    assert "'x' holds int64 (images are float, float16 or bfloat16)" in refusal(proto)


@pytest.mark.parametrize("shape", [("N", "H", "W", 3), (1, 8, 8, 3)])
def test_images_with_their_channels_last_have_a_way_out(shape: Dims) -> None:
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["y"])]
    proto = model(nodes, {"w": normal(4, 3, 1, 1)}, inputs={"x": shape})
    assert "(N, H, W, C) (--from t begins behind the Transpose" in refusal(proto)
    assert kinds(read(proto, Cut(("t",)))) == ["conv2d"]


@pytest.mark.parametrize(("version", "said"), [(6, "opset 6 is not read; 7 to"), (1000, "opset 1000 is not"), (0, "opset 0")])
def test_other_opsets(version: int, said: str) -> None:
    assert said in refusal(model([node("Relu", ["x"], ["y"])], opset=version))


@pytest.mark.parametrize("version", range(limits.OLDEST, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_from_the_oldest_to_the_newest(version: int) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"]), node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]),
             node("Concat", ["p", "p"], ["y"], axis=1)]
    assert len(read(model(nodes, {"w": normal(2, 3, 3, 3)}, opset=version)).layers) == 4


def test_structures_that_are_damaged() -> None:
    twice = model([node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])])
    assert "makes 'y', which is there already" in refusal(twice)
    around = model([node("Add", ["x", "b"], ["a"], name="a"), node("Abs", ["a"], ["b"], name="b"), node("Relu", ["b"], ["y"])])
    assert "the nodes form a cycle: '" in refusal(around)
    nowhere = model([node("Relu", ["x"], ["z"])])
    assert "nothing makes the output 'y'" in refusal(nowhere) or "no output depends on an input" in refusal(nowhere)
    assert "the graph has no output" in refusal(model([node("Relu", ["x"], ["y"])], outputs=()))


def test_nodes_in_any_order() -> None:
    assert kinds(read(model([node("Relu", ["a"], ["y"]), node("Abs", ["x"], ["a"])]))) == ["abs", "relu"]


def test_names_for_from_and_to_are_looked_up() -> None:
    proto = model([node("Relu", ["x"], ["relu1"]), node("Abs", ["relu1"], ["y"])])
    said = refusal(proto, Cut(end=("relu2",)))
    assert "--to names 'relu2', which is no tensor of the network (did you mean 'relu1'?)" in said
    assert "--from names 'zz'" in refusal(proto, Cut(("zz",)))


# ---- files


def test_files_that_are_none(tmp_path: Path) -> None:
    sound = model([node("Relu", ["x"], ["y"])]).SerializeToString()
    for data in (b"", b"\x00" * 100, b"name: net\n", sound[:20]):
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_onnx(path)
        assert str(path) in str(caught.value)


def external(proto: Any, location: str, **entries: object) -> Any:
    """The first weight of a model as data in another file."""
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return proto


def conv() -> Any:
    return model([node("Conv", ["x", "w"], ["y"], name="conv")], {"w": normal(4, 3, 1, 1)})


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    weight = normal(4, 3, 1, 1)
    (tmp_path / "data" / "w.bin").write_bytes(b"head" + weight.tobytes())
    path = saved(external(conv(), "data/w.bin", offset=4, length=48), tmp_path)
    graph = read_onnx(path).graph
    assert np.array_equal(graph["y"].params["weight"], weight)
    x = normal(1, 3, 2, 2)
    assert np.array_equal(run(graph, x)["y"], run(read(conv()), x)["y"])


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin", "sub/../../secret.bin", "", "\0",
                                      "linked/secret.bin"])
def test_external_data_cannot_leave_the_models_folder(location: str, tmp_path: Path) -> None:
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(normal(4, 3, 1, 1).tobytes())
    os.symlink(tmp_path / "secret.bin", inside / "link.bin")
    os.symlink(tmp_path, inside / "linked")
    path = saved(external(conv(), location), inside)
    with pytest.raises(InputError, match=r"node 'conv' \(Conv\): the data of tensor 'w' lie in .*, outside the model's folder"):
        read_onnx(path)


@pytest.mark.parametrize(("entries", "said"), [
    ({"length": 44}, "has 44 bytes instead of 48"), ({"offset": 8}, "ends before tensor 'w' does"),
    ({"offset": -1}, "the file is damaged"),
    ({"offset": "x"}, "outside the model's folder"),
])
def test_external_data_that_do_not_fit(entries: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(48))
    with pytest.raises(InputError) as caught:
        read_onnx(saved(external(conv(), "w.bin", **entries), tmp_path))
    assert said in str(caught.value)


def test_missing_external_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the file 'w.bin' with tensor 'w' does not exist"):
        read_onnx(saved(external(conv(), "w.bin"), tmp_path))


@pytest.mark.parametrize(("dims", "said"), [
    ([4, 3, 1, 2], "has 48 bytes instead of 96"), ([1 << 40, 1 << 20], "up to 2,147,483,648 elements"),
    ([-4, 3], "0 to 8 axes"), ([1] * 9, "0 to 8 axes"),
])
def test_weights_whose_shape_does_not_fit(dims: list[int], said: str) -> None:
    proto = conv()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    assert said in refusal(proto)


@pytest.mark.parametrize("nodes", [
    [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
    [node("Expand", ["one", "s"], ["c"]), node("Add", ["x", "c"], ["y"])],
    [node("Tile", ["ones", "s"], ["c"]), node("Add", ["x", "c"], ["y"])],
    [node("Range", ["zero", "many", "step"], ["c"]), node("Add", ["x", "c"], ["y"])],
])
def test_constants_that_would_be_large_are_never_made(nodes: list[Any]) -> None:
    constants = {"s": ints(1 << 20, 1 << 20, 1 << 20), "one": np.float32(1), "ones": np.ones((1, 1, 1), np.float32),
                 "zero": np.int64(0), "many": np.int64(1 << 60), "step": np.int64(1)}
    assert "it makes a constant of" in refusal(model(nodes, constants))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    data = model([node("Relu", ["x"], ["y"], name="AAAA")]).SerializeToString()
    path.write_bytes(data.replace(b"AAAA", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(InputError, match="no UTF-8"):
        read_onnx(path)


def test_half_precision_weights_are_widened() -> None:
    proto = model([node("Cast", ["w"], ["v"], to=TensorProto.FLOAT), node("Conv", ["x", "v"], ["y"])],
                  {"w": normal(4, 3, 1, 1).astype(np.float16)})
    assert read(proto)["y"].params["weight"].dtype == np.float32


def test_typed_data_and_bfloat16() -> None:
    """Numbers may stand in fields of their type, and bfloat16 has no type in NumPy."""
    values = [1.0, 0.5, -2.0]
    for kind in (TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE):
        tensor = helper.make_tensor("w", kind, [1, 3, 1, 1], values)
        assert limits.to_array(tensor, None).reshape(-1).tolist() == values
        raw = helper.make_tensor("w", kind, [3], np.array(values, helper.tensor_dtype_to_np_dtype(kind)).tobytes(), raw=True)
        assert limits.to_array(raw, None).tolist() == values


# ---- the package


def test_the_package_is_imported_only_for_onnx_files() -> None:
    program = "import sys, fusec, fusec.pipeline; fusec.pipeline.read('lenet5'); print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    saved(model([node("Relu", ["x"], ["y"])]), tmp_path)
    program = ("import sys\nclass Gone:\n def find_spec(self, name, *rest):\n  if name == 'onnx': raise ImportError(name)\n"
               "import importlib.util as u\nu.find_spec = lambda name: None\n"
               "from fusec.errors import MissingError\nfrom pathlib import Path\nfrom fusec.graph.read_onnx import read_onnx\n"
               "try: read_onnx(Path('net.onnx'))\nexcept MissingError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert "fusec[onnx]" in done.stdout
