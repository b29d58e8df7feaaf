"""Programs of half types on the CUDA engine without a GPU: which memory they get, which arrays they take and give.

The kernels move words and turn signs, in layouts of a half program; the stand-in of `test_cuda_engine` runs them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusec.errors import InputError, InternalError
from fusec.runtime import artefact, weights
from fusec.runtime.elements import Bfloat16, offered, widened
from fusec.runtime.model import Model, check_inputs
from fusec.runtime.program import Program
from fusec.runtime.save import save
from fusec.runtime.workload import arrange
from tests.hand_programs import linked, negations
from tests.runtime.test_cuda_engine import DeviceArray, Machine, cuda_model, machine, on_device
from tests.runtime.test_elements import Torchlike

HALVES = ("float16", "bfloat16")
SIGNALLING = np.uint32([0x7F800001, 0xFFBFFFFF, 0x7FC00001, 0xFF800000, 0x00000001, 0x80000000, 0x7F817F81, 0xFFFFFFFF])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(params=HALVES)
def half(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Machine]:
    program, sources, packed = negations(request.param)
    gpu = machine((replace(program, dtype="float32"), sources, packed), folder, monkeypatch)
    return cuda_model(negations(request.param, "cuda"), folder), gpu


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 11, 1, 1), (5, 11, 7, 19)])
def test_tensors_of_two_bytes_in_planes_of_eight_channels(half: tuple[Model, Machine], shape: tuple[int, ...]) -> None:
    model, gpu = half
    x = offered(numbers(*shape), model.program.dtype)
    got = model(x)
    assert type(got) is type(x)
    assert np.array_equal(widened(got), -widened(x))
    elements = 2 * shape[0] * 16 * shape[2] * shape[3]
    first, second, third = gpu.launches[-3:]
    assert second.pointers[0] == first.pointers[1]
    assert third.pointers[0] == second.pointers[1]
    assert abs(second.pointers[1] - first.pointers[1]) >= elements  # bytes of one of them; both are alive
    assert all(one.shared == 16 for one in gpu.launches)  # eight elements


def test_intermediates_take_whole_planes() -> None:
    program = negations("float16", "cuda")[0]
    work = arrange(program, 3, ((4, 5),))
    assert work.shapes["m"] == (3, 16, 4, 5)
    assert work.shapes["x"] == work.shapes["y"] == (3, 11, 4, 5)
    assert work.arena == 2 * 3 * 16 * 4 * 5
    assert [step.tiles for step in work.steps] == [2 * 3 * 1 * 1] * 3  # by the channels there are, not by those stored


def test_arrays_of_another_type_are_refused_with_a_way_out(half: tuple[Model, Machine]) -> None:
    model, _ = half
    dtype = model.program.dtype
    x = numbers(1, 11, 3, 3)
    other = "bfloat16" if dtype == "float16" else "float16"
    for wrong, said in ((x, "float32"), (on_device(x), "float32"), (x.astype(np.uint16), "uint16"), (offered(x, other), other),
                        (on_device(x.astype(np.uint16)), "uint16")):
        with pytest.raises(InputError, match=f"'x' is {said}, but the model computes in {dtype}"):
            model(wrong)
    good = on_device(offered(x, dtype)) if dtype == "float16" else Bfloat16(on_device(offered(x, dtype).words))
    with pytest.raises(InputError, match=f"must be dense {dtype} of shape .*, not dense uint16"):
        model(good, out=on_device(x.astype(np.uint16)))
    out = on_device(np.empty(x.shape, np.float16)) if dtype == "float16" else Bfloat16(on_device(np.empty(x.shape, np.uint16)))
    assert model(good, out=out) is out
    result, given = (v.view(np.ndarray) if dtype == "float16" else Bfloat16(v.words.view(np.ndarray)) for v in (out, good))
    assert np.array_equal(widened(result), -widened(given))
    with pytest.raises(InputError, match="shares memory"):
        model(good, out=good)


def test_checks_before_anything_is_built() -> None:
    program = negations("bfloat16", "cuda")[0]
    check_inputs(program, [offered(numbers(1, 11, 3, 3), "bfloat16")])
    with pytest.raises(InputError, match="7 channels instead of 11"):
        check_inputs(program, [offered(numbers(1, 7, 3, 3), "bfloat16")])
    with pytest.raises(InputError, match="'x' is float32"):
        check_inputs(program, [numbers(1, 11, 3, 3)])


def bfloat_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    program, sources, packed = negations("bfloat16")
    machine((replace(program, dtype="float32"), sources, packed), folder, monkeypatch)
    return cuda_model(negations("bfloat16", "cuda"), folder)


def test_tensors_of_bfloat16_there_and_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a library that has the type: what comes back is made by its own `from_dlpack` of something that says bfloat16."""
    model = bfloat_model(folder, monkeypatch)
    x = offered(numbers(2, 11, 3, 3), "bfloat16")

    class Library:
        @staticmethod
        def from_dlpack(value: Any) -> Torchlike:
            with pytest.raises((BufferError, RuntimeError)):
                np.from_dlpack(value)
            return Torchlike(value.words)

    monkeypatch.setitem(__import__("sys").modules, "tensors", Library)
    monkeypatch.setattr(Torchlike, "__module__", "tensors.core")
    got = model(Torchlike(x.words))
    assert type(got) is Torchlike
    assert np.array_equal(got.words, x.words ^ 0x8000)


def test_tensors_of_bfloat16_on_the_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bfloat_model(folder, monkeypatch)
    cupy = __import__("cupy")
    x = offered(numbers(2, 11, 3, 3), "bfloat16")

    class OnGpu(Torchlike):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    class OnHost:
        """What the stand-in's memory really is."""

        def __init__(self, value: Any) -> None:
            self.value = value

        def __dlpack__(self, **options: Any) -> Any:
            return self.value.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    monkeypatch.setattr(cupy, "from_dlpack", lambda value: np.from_dlpack(OnHost(value)).view(DeviceArray), raising=False)
    tensor = OnGpu(x.words)
    assert model.engine.pointer(model.engine.accept(tensor, "x")) == x.words.ctypes.data
    got = model(tensor)  # its module has no from_dlpack
    assert isinstance(got, Bfloat16)
    assert isinstance(got.words, DeviceArray)
    assert np.array_equal(got.words, x.words ^ 0x8000)


def test_arrays_of_ml_dtypes_there_and_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    model = bfloat_model(folder, monkeypatch)
    x = numbers(2, 11, 3, 3).astype(ml_dtypes.bfloat16)
    for given in (x, on_device(x)):
        got = model(given)
        assert type(got) is type(given)
        assert got.dtype == ml_dtypes.bfloat16
        assert np.array_equal(got, -x)


def test_a_half_model_in_words(half: tuple[Model, Machine]) -> None:
    model, _ = half
    assert repr(model) == f"<fusec model 'negations' for cuda, {model.program.dtype}: x Nx11xHxW -> y Nx11x?x?>"


def test_a_half_program_survives_json_and_what_is_unknown_is_refused() -> None:
    program = negations("bfloat16", "cuda")[0]
    assert Program.from_json(json.loads(json.dumps(program.to_json()))) == program
    for wrong in ({"dtype": "float8"}, {"layouts": {"m": "NC32HW32"}}, {"dtype": ["float16"]}, {"layouts": []}):
        with pytest.raises(InputError, match="damaged"):
            Program.from_json({**program.to_json(), **wrong})


def test_a_cpu_has_no_half_programs(folder: Path) -> None:
    with pytest.raises(InternalError, match="no runtime for float16 on the CPU"):
        linked(negations("float16"), folder)


# ---- packed weights are bits


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


@pytest.mark.parametrize("size", [1, 16, 33, 1024])
def test_no_bit_of_the_weights_changes_in_a_file(tmp_path: Path, size: int) -> None:
    drawn = np.random.default_rng(size).integers(0, 1 << 32, size, np.uint32)
    drawn[:len(SIGNALLING)] = SIGNALLING[:size]
    given = {"odd": np.float32([1]), "w": drawn.view(np.float32), "strided": np.repeat(drawn, 2).view(np.float32)[::2]}
    weights.write(tmp_path / "w.safetensors", given)
    read = weights.read(tmp_path / "w.safetensors")
    assert same_bits(read["w"], drawn)
    assert same_bits(read["strided"], drawn)
    assert same_bits(weights.aligned(np.concatenate([[np.float32(0)], read["w"]])[1:]), drawn)


def test_no_bit_of_the_weights_changes_on_the_way_to_the_gpu(half: tuple[Model, Machine], folder: Path, tmp_path: Path) -> None:
    """Through an artefact, too: saved, loaded, uploaded."""
    packed = {"w": np.concatenate([SIGNALLING, SIGNALLING[::-1]]).view(np.float32), "other": SIGNALLING[:3].view(np.float32)}
    dtype = half[0].program.dtype
    model = cuda_model((*negations(dtype, "cuda")[:2], packed), folder)
    saved = save(tmp_path / "model", model.program, model.sources, model.binaries, model.weights, "")
    for made in (model, artefact.load(saved)):
        loaded = made.engine.loaded()  # type: ignore[attr-defined]
        for key, array in packed.items():
            start = (loaded.params[key] - loaded.params["w"]) // 4
            assert same_bits(np.array(loaded._weights)[start:start + array.size], array)
    assert f"all {dtype}." in artefact.describe(saved)
