"""float16 and bfloat16 on a real GPU: the same bits through NumPy, CuPy and torch, near the float64 reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusec
from fusec.cli.tolerances import OUTPUT
from fusec.errors import InputError
from fusec.graph import reference
from fusec.graph.layers import Input
from fusec.runtime.artefact import load
from fusec.runtime.elements import Bfloat16, offered, widened, words_of
from fusec.runtime.model import Model
from fusec.runtime.save import save
from tests.hand_programs import linked, negations
from tests.small_networks import conv, max_pool, network

pytestmark = pytest.mark.gpu

HALVES = ("float16", "bfloat16")
NET = network(Input(3), a=conv(12), b=conv(20), pool=max_pool(2, 2), c=conv(6))


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy")


@pytest.fixture(scope="module", params=HALVES)
def negated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return linked(negations(request.param, "cuda"), tmp_path_factory.mktemp("store"))


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def given(model: Model, *shape: int) -> Any:
    """Numbers in the type of the model, on the host."""
    return offered(numbers(*shape), model.program.dtype)


def on_gpu(value: Any, cupy: Any) -> Any:
    words = cupy.asarray(words_of(value))
    return Bfloat16(words) if isinstance(value, Bfloat16) else words


def tensor(value: Any) -> Any:
    """The same as a tensor of torch on the host."""
    torch = pytest.importorskip("torch")
    return torch.from_dlpack(value) if isinstance(value, Bfloat16) else torch.from_numpy(value)


def bits(value: Any) -> np.ndarray:
    words = words_of(value)
    return np.asarray(words.get() if hasattr(words, "get") else words).view(np.uint16)


@pytest.mark.parametrize("shape", [(1, 11, 1, 1), (5, 11, 7, 19)])
def test_planes_between_kernels(negated: Model, cupy: Any, shape: tuple[int, ...]) -> None:
    x = given(negated, *shape)
    for value in (x, on_gpu(x, cupy)):
        got = negated(value)
        assert type(got) is type(value)
        assert np.array_equal(bits(got), bits(x) ^ 0x8000)
    out = on_gpu(given(negated, *shape), cupy)
    assert negated(on_gpu(x, cupy), out=out) is out
    assert np.array_equal(bits(out), bits(x) ^ 0x8000)


def test_torch_in_torch_out_without_a_copy(negated: Model) -> None:
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, negated.program.dtype)
    x = tensor(given(negated, 2, 11, 9, 9))
    assert x.dtype == dtype
    on_host = negated(x)
    assert (on_host.dtype, on_host.device.type) == (dtype, "cpu")
    assert torch.equal(on_host, -x)
    x = x.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(20):
            y = negated(x * 1.0)
            assert (y.dtype, y.device) == (dtype, x.device)
            assert torch.equal(y, -x)
    assert negated.engine.pointer(negated.engine.accept(x, "x")) == x.data_ptr()
    out = torch.empty_like(x)
    assert negated(x, out=out) is out
    assert torch.equal(out, -x)
    strided = x.transpose(2, 3)
    assert torch.equal(negated(strided), -strided)
    with pytest.raises(InputError, match=r"\.detach\(\)"):
        negated(x.clone().requires_grad_())


def test_other_types_are_refused(negated: Model, cupy: Any) -> None:
    dtype = negated.program.dtype
    x = numbers(1, 11, 3, 3)
    other = "bfloat16" if dtype == "float16" else "float16"
    for wrong, said in ((x, "float32"), (cupy.asarray(x), "float32"), (offered(x, other), other),
                        (cupy.zeros(x.shape, np.uint16), "uint16"), (tensor(x), "float32"), (tensor(x).cuda(), "float32"),
                        (tensor(offered(x, other)).cuda(), other)):
        with pytest.raises(InputError, match=f"'x' is {said}, but the model computes in {dtype}"):
            negated(wrong)


def test_arrays_of_ml_dtypes(cupy: Any, tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    model = linked(negations("bfloat16", "cuda"), tmp_path)
    x = numbers(2, 11, 5, 5).astype(ml_dtypes.bfloat16)
    y = model(x)
    assert y.dtype == x.dtype
    assert np.array_equal(y, -x)


@pytest.mark.parametrize("fuse", ["auto", "none", "all"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_network_against_the_reference(dtype: str, fuse: str, cupy: Any, tmp_path: Path) -> None:
    model = fusec.compile(NET, target="cuda", dtype=dtype, fuse=fuse)
    x = given(model, 3, 3, 22, 34)
    [wanted] = reference.run(NET, widened(x).astype(np.float64)).values()
    made = model(x)
    apart = np.abs(widened(made) - wanted).max() / np.abs(wanted).max()
    assert 0 < apart <= OUTPUT[dtype]
    assert np.array_equal(bits(model(on_gpu(x, cupy))), bits(made))
    folder = save(tmp_path / "half", model.program, model.sources, model.binaries, model.weights, "")
    assert np.array_equal(bits(load(folder)(x)), bits(made))
    assert np.array_equal(bits(fusec.compile(NET, target="cuda", dtype=dtype, fuse="none")(x)), bits(made))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_network_on_tensors(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    model = fusec.compile(NET, target="cuda", dtype=dtype)
    x = given(model, 3, 3, 22, 34)
    y = model(tensor(x).cuda())
    assert y.dtype == getattr(torch, dtype)
    assert np.array_equal(y.cpu().view(torch.int16).numpy().view(np.uint16), bits(model(x)))
