"""The ONNX standard's own tests of operators: each passes, or is refused with a clear error; none is wrong, none crashes.

What is refused stands in `refused.txt`, with the reason, and is to be read when it changes: `pytest tests/graph/onnx
--update-golden` writes it anew. The list is that of one version of the onnx package, named in its first line; with another one
the tests run all the same, but the list is not compared.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.loader import load_model_tests

import fusec.onnx_backend as backend
from fusec.errors import InputError
from fusec.graph import reference
from fusec.graph.graph import LayerGraph
from fusec.graph.onnx.table import OPERATORS
from fusec.graph.read_onnx import read_onnx

REFUSED = Path(__file__).with_name("refused.txt")
ALSO = {"QuantizeLinear", "DequantizeLinear"}  # that have to be refused in plain words
PARTS, USUAL = 6, 2  # that the tests are cut into, and the first of them, which run without --thorough
FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")

Run = Callable[[LayerGraph], Callable[..., Any]]


@cache
def cases() -> dict[str, tuple[Any, Callable[[], Any], float, float]]:
    """Name to model, data sets, and the tolerances of every test of the operators that fusec reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {case.name: (case.model, lambda case=case: case.data_sets, case.rtol, case.atol)
                 for case in load_model_tests(kind="node")}
    for kind in FOLDERS:
        for case in load_model_tests(kind=kind):
            folder = Path(case.model_dir)
            if (model := newer(onnx.load(folder / "model.onnx"))) is not None:
                found[f"{kind}/{case.name}"] = model, lambda folder=folder: list(stored(folder)), case.rtol, case.atol
    known = {*OPERATORS, *ALSO}
    return {name: case for name, case in sorted(found.items()) if {n.op_type for n in case[0].graph.node} <= known}


def newer(model: Any) -> Any | None:
    """A model of an opset that is read: PyTorch's are older, and converted as the refusal proposes. None where that fails."""
    if model.opset_import[0].version >= 7:
        return model
    try:
        return onnx.version_converter.convert_version(model, 13)
    except Exception:  # the converter's, or a crash it reports as RuntimeError
        return None


def stored(folder: Path) -> Iterator[tuple[list[Any], list[Any]]]:
    """The data sets of a test that lies in files."""
    for sets in sorted(folder.glob("test_data_set_*")):
        def arrays(prefix: str, sets: Path = sets) -> list[Any]:
            paths = sorted(sets.glob(f"{prefix}_*.pb"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
            return [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths]
        yield arrays("input"), arrays("output")


def test_the_page_lists_every_operator() -> None:
    page = (Path(__file__).parents[3] / "docs" / "onnx.md").read_text(encoding="utf-8")
    listed = [word for row in re.findall(r"^\| ([A-Z][^|]*) \|", page, re.MULTILINE) for word in row.split(", ")]
    assert sorted(listed) == sorted(OPERATORS)


def by_reference(graph: LayerGraph) -> Callable[..., Any]:
    def run(*arrays: Any) -> tuple[Any, ...]:
        given = dict(zip((n.name for n in graph.inputs), arrays, strict=True))
        made = reference.run(graph, given, dtype=np.float32)
        return tuple(made[name] for name in graph.outputs)
    return run


def outcome(case: tuple[Any, Callable[[], Any], float, float], prepare: Callable[[Any], backend.Prepared]) -> str:
    """"passed", or what is said of a network that is refused; AssertionError where results differ."""
    model, data_sets, rtol, atol = case
    try:
        prepared = prepare(model)
        for inputs, outputs in data_sets():
            for made, wanted in zip(prepared.run(inputs), outputs, strict=True):
                assert made.shape == wanted.shape
                assert made.dtype == wanted.dtype
                np.testing.assert_allclose(made, wanted, rtol=rtol, atol=max(atol, 1e-6))
    except InputError as error:
        return "; ".join(str(p) for p in error.problems)
    return "passed"


def test_all_of_them_by_the_reference(request: pytest.FixtureRequest) -> None:
    found = {name: outcome(case, lambda model: backend.Prepared(model, by_reference)) for name, case in cases().items()}
    refused = {name: said for name, said in found.items() if said != "passed"}
    lines = [f"onnx {onnx.__version__}: {len(found) - len(refused)} passed, {len(refused)} refused",
             *(f"{name}: {said}" for name, said in refused.items())]
    if request.config.getoption("--update-golden"):
        REFUSED.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = REFUSED.read_text(encoding="utf-8").splitlines()
    if kept[0].split(":")[0] == lines[0].split(":")[0]:
        assert lines == kept
    assert len(found) - len(refused) >= 120


def passing() -> list[str]:
    """The tests that are not refused, one for each operator or group of them before all others."""
    refused = {line.split(": ")[0] for line in REFUSED.read_text(encoding="utf-8").splitlines()[1:]}
    names = [name for name in cases() if name not in refused]
    first = {frozenset(n.op_type for n in cases()[name][0].graph.node): name for name in reversed(names)}
    return sorted(names, key=lambda name: name not in first.values())


def wrong_on(device: str, names: Iterable[str]) -> dict[str, str]:
    """What is said of the tests that fail with kernels that are generated and compiled."""
    said = {name: outcome(cases()[name], lambda model: backend.prepare(model, device)) for name in names}
    return {name: words for name, words in said.items() if words != "passed"}


@pytest.mark.slow
@pytest.mark.parametrize("part", [*range(USUAL), *(pytest.param(p, marks=pytest.mark.thorough) for p in range(USUAL, PARTS))])
def test_what_passes_passes_on_the_cpu(part: int) -> None:
    """The usual parts have every operator."""
    names = passing()
    size = -(-len(names) // PARTS)
    every, usual = ({n.op_type for name in some for n in cases()[name][0].graph.node} for some in (names, names[:USUAL * size]))
    assert usual == every
    assert wrong_on("CPU", names[part * size:(part + 1) * size]) == {}


@pytest.mark.gpu
def test_what_passes_passes_on_a_gpu() -> None:
    assert wrong_on("CUDA", passing()) == {}


def test_the_interface_runs_single_nodes() -> None:
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")
    made = backend.run_node(onnx.helper.make_node("Relu", ["x"], ["y"]), [x], "CPU")
    assert np.array_equal(made.y, np.maximum(x, 0))


def test_other_weights_compile_anew() -> None:
    """Graph inputs that no node reads as an image are weights, of whichever call."""
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    x = np.ones((1, 1, 2, 2), np.float32)
    ports = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", x.shape), ("w", (1, 1, 1, 1)))]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ports, [
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, x.shape)]))
    model.opset_import[0].version = 17
    prepared = backend.Prepared(model, by_reference)
    for factor in (2.0, 3.0):
        assert (prepared.run([x, np.full((1, 1, 1, 1), factor, np.float32)])[0] == factor).all()


def test_whole_networks_that_come_with_the_package() -> None:
    """AlexNet, DenseNet-121, Inception v1 and v2, ResNet-50, ShuffleNet, SqueezeNet; the weights of two others are too many."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    read, refused = [], []
    for path in sorted(folder.glob("*.onnx")):
        try:
            graph = read_onnx(path).graph
            read.append(path.stem)
            assert graph.shapes[graph.outputs[0]].channels == 1000
        except InputError as error:
            refused.append(str(error))
    assert len(read) == 7
    assert all("it makes a constant of [4096, " in said for said in refused)
