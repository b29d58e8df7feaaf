"""The runtime on a real GPU: the same programs as on the CPU, streams, CUDA graphs, torch and CuPy without copies."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusec.errors import InputError
from fusec.runtime.artefact import load
from fusec.runtime.model import Model
from fusec.runtime.save import save
from tests.hand_programs import chain, chain_reference, kernel, linked, scale

pytestmark = pytest.mark.gpu


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def model(store: Path) -> Model:
    return linked(scale("cuda"), store)


@pytest.fixture(scope="module")
def chained(store: Path) -> Model:
    return linked(chain("cuda"), store)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (3, 2, 7, 31), (20, 2, 33, 65)])
def test_numpy_in_numpy_out(model: Model, shape: tuple[int, ...]) -> None:
    x = numbers(*shape)
    y = model(x)
    assert type(y) is np.ndarray
    assert np.array_equal(y, 3 * x)


def test_cupy_in_cupy_out_without_a_copy(model: Model, cupy: Any) -> None:
    x = cupy.asarray(numbers(2, 2, 9, 9))
    assert model.engine.accept(x, "x") is x
    y, out = model(x), cupy.empty_like(x)
    assert isinstance(y, cupy.ndarray)
    assert cupy.array_equal(y, 3 * x)
    assert model(x, out=out) is out
    assert cupy.array_equal(out, y)
    strided = cupy.asarray(numbers(2, 9, 9, 2)).transpose(0, 3, 1, 2)
    assert cupy.array_equal(model(strided), 3 * strided)


def test_torch_in_torch_out_without_a_copy(model: Model) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(numbers(2, 2, 9, 9)).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(20):
            y = model(x * 1.0)
            assert y.device == x.device
            assert torch.equal(y, 3 * x)
    assert model.engine.pointer(model.engine.accept(x, "x")) == x.data_ptr()
    on_host = model(x.cpu())
    assert on_host.device.type == "cpu"
    assert torch.equal(on_host, 3 * x.cpu())
    with pytest.raises(InputError, match=r"\.detach\(\)"):
        model(x.clone().requires_grad_())


def test_chain_with_intermediates(chained: Model, cupy: Any) -> None:
    for seed, (n, h, w) in enumerate([(1, 2, 2), (5, 17, 23), (1, 64, 64), (5, 17, 23)]):
        a, b = numbers(n, 3, h, w, seed=seed), numbers(n, 3, h, w, seed=seed + 50)
        got = chained(cupy.asarray(a), cupy.asarray(b))
        assert all(np.array_equal(g.get(), r) for g, r in zip(got, chain_reference(a, b), strict=True))


def test_streams_do_not_share_intermediates(chained: Model, cupy: Any) -> None:
    a, b = cupy.asarray(numbers(8, 3, 200, 200)), cupy.asarray(numbers(8, 3, 200, 200, seed=1))
    right = [r.copy() for r in chain_reference(a.get(), b.get())]
    cupy.cuda.Device().synchronize()
    wrong: list[int] = []

    def work(seed: int) -> None:
        with cupy.cuda.Stream(non_blocking=True) as stream:
            for _ in range(20):
                got = chained(a, b)
                stream.synchronize()
                wrong.extend(seed for g, r in zip(got, right, strict=True) if not np.array_equal(g.get(), r))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_captured_in_a_cuda_graph_that_outlives_the_remembered_sizes(chained: Model, cupy: Any) -> None:
    a, b = cupy.asarray(numbers(2, 3, 40, 40)), cupy.asarray(numbers(2, 3, 40, 40, seed=1))
    out = (cupy.empty((2, 3, 20, 20), np.float32), cupy.empty((2, 3, 40, 40), np.float32))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        chained(a, b, out=out)
        stream.synchronize()
        stream.begin_capture()
        chained(a, b, out=out)
        graph = stream.end_capture()
    for size in range(2, 60):  # many more than are kept
        chained(cupy.zeros((1, 3, size, size), np.float32), cupy.zeros((1, 3, size, size), np.float32))
    cupy.get_default_memory_pool().free_all_blocks()
    a[...] = cupy.asarray(numbers(2, 3, 40, 40, seed=7))
    cupy.cuda.Device().synchronize()
    graph.launch(stream)
    stream.synchronize()
    assert all(np.array_equal(g.get(), r) for g, r in zip(out, chain_reference(a.get(), b.get()), strict=True))


def test_empty_batch(model: Model, cupy: Any) -> None:
    assert model(cupy.empty((0, 2, 5, 5), np.float32)).shape == (0, 2, 5, 5)


def test_what_does_not_fit(model: Model, cupy: Any) -> None:
    x = cupy.zeros((1, 2, 5, 5), np.float32)
    for wrong, match in ((x[0], "3 axes"), (x.astype(np.float16), "float16"), (x.get().astype(float), "float64")):
        with pytest.raises(InputError, match=match):
            model(wrong)
    for out, match in ((x, "shares memory"), (x.get(), "not in GPU memory"), (x[:, :1], "shape")):
        with pytest.raises(InputError, match=match):
            model(x, out=out)


def test_cubins_for_another_architecture_are_built_anew(store: Path, tmp_path: Path, cupy: Any) -> None:
    program, sources, weights = scale("cuda")
    foreign = "sm_75" if cupy.cuda.Device().compute_capability != "75" else "sm_120"
    model = linked((replace(program, arch=foreign), sources, weights), store)
    folder = save(tmp_path / "foreign", model.program, model.sources, model.binaries, model.weights, "")
    x = cupy.asarray(numbers(1, 2, 5, 5))
    assert cupy.array_equal(load(folder)(x), 3 * x)
    assert len(list((folder / "lib" / "rebuilt").glob("*.cubin"))) == 1


def test_scratch_beyond_48_kilobytes(store: Path, cupy: Any) -> None:
    program, sources, weights = scale("cuda")
    wide = (1, 1, 1, 15000)
    variant = replace(program.launches[0].variants[0], tile=wide, scratch=15000)
    program = replace(program, launches=(replace(program.launches[0], variants=(variant,)),))
    sources = [kernel("k_0", "at(0) * params[0]", 2, wide, target="cuda")]
    x = cupy.asarray(numbers(1, 2, 3, 20000))
    assert cupy.array_equal(linked((program, sources, weights), store)(x), 3 * x)
