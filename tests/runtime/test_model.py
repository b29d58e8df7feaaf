"""Calling a model on the CPU: results, sizes, kinds of arrays, and what is said of arrays that do not fit."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusec.errors import InputError, InternalError, MissingError
from fusec.runtime import cpu_engine
from fusec.runtime.engine import Runner
from fusec.runtime.model import REMEMBERED, Model
from fusec.runtime.program import Port, Program, TensorRule, Variant
from fusec.runtime.workload import Workload
from tests.hand_programs import HALF, Parts, chain, chain_reference, kernel, launch, linked, make_program, pool, scale


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def model(store: Path) -> Model:
    return linked(scale(), store)


@pytest.fixture(scope="module", params=[1, 2, 5])
def chained(store: Path, request: pytest.FixtureRequest) -> Model:
    return linked(chain(), store, threads=request.param)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(np.float32)


def problems(model: Model, *values: Any, **named: Any) -> str:
    with pytest.raises(InputError) as caught:
        model(*values, **named)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (1, 2, 4, 8), (3, 2, 7, 31), (20, 2, 33, 5)])
def test_one_build_serves_all_sizes(model: Model, shape: tuple[int, ...]) -> None:
    x = numbers(*shape)
    y = model(x)
    assert type(y) is np.ndarray
    assert y.dtype == np.float32
    assert np.array_equal(y, 3 * x)


def test_a_chain_with_two_inputs_and_two_outputs(chained: Model) -> None:
    for seed, (n, h, w) in enumerate([(1, 2, 2), (5, 17, 23), (2, 40, 3), (1, 64, 64), (5, 17, 23)]):
        a, b = numbers(n, 3, h, w, seed=seed), numbers(n, 3, h, w, seed=seed + 50)
        got = chained(a, right=b)
        assert isinstance(got, tuple)
        assert all(np.array_equal(g, r) for g, r in zip(got, chain_reference(a, b), strict=True))


def test_an_empty_batch_gives_an_empty_result_of_the_right_shape(chained: Model) -> None:
    empty = numbers(0, 3, 10, 12)
    assert [y.shape for y in chained(empty, empty)] == [(0, 3, 5, 6), (0, 3, 10, 12)]


def test_arrays_that_are_not_dense_or_not_aligned(model: Model) -> None:
    x = numbers(2, 8, 6, 2).transpose(0, 3, 1, 2)
    assert np.array_equal(model(x), 3 * x)
    x = numbers(2, 4, 6, 9)[:, ::2, ::-1, 1:]
    assert np.array_equal(model(x), 3 * x)
    crooked = np.frombuffer(b"\0" + numbers(1, 2, 3, 3).tobytes(), np.uint8)[1:].view(np.float32).reshape(1, 2, 3, 3)
    assert np.array_equal(model(crooked), 3 * crooked)


def test_read_only_input_is_read_only(model: Model) -> None:
    x = numbers(1, 2, 3, 3)
    x.flags.writeable = False
    assert np.array_equal(model(x), 3 * x)


def test_out_is_filled_and_returned(model: Model, chained: Model) -> None:
    x, out = numbers(2, 2, 5, 5), np.empty((2, 2, 5, 5), np.float32)
    assert model(x, out=out) is out
    assert np.array_equal(out, 3 * x)
    a, b = numbers(1, 3, 4, 4), numbers(1, 3, 4, 4, seed=1)
    outs = (np.empty((1, 3, 2, 2), np.float32), np.empty((1, 3, 4, 4), np.float32))
    assert chained(a, b, out=outs) is outs
    assert np.array_equal(outs[1], b)


def test_out_that_does_not_fit(model: Model) -> None:
    x = numbers(2, 2, 5, 5)
    assert "shape (2, 2, 5, 5), not dense float32 of shape (2, 2, 5, 6)" in problems(model, x, out=numbers(2, 2, 5, 6))
    assert "float64" in problems(model, x, out=np.empty((2, 2, 5, 5)))
    assert "strided" in problems(model, x, out=numbers(2, 2, 5, 10)[..., ::2])
    assert "shares memory" in problems(model, x, out=x)
    fixed = numbers(2, 2, 5, 5)
    fixed.flags.writeable = False
    assert "cannot be written" in problems(model, x, out=fixed)
    assert "1 outputs, but out has 2" in problems(model, x, out=(x, x))


def test_what_does_not_fit_is_said_with_a_way_out(model: Model) -> None:
    x = numbers(1, 2, 6, 6)
    assert "3 axes instead of 4" in problems(model, x[0]) and "x[None]" in problems(model, x[0])
    assert "3 channels instead of 2" in problems(model, numbers(1, 3, 4, 4))
    assert "x.transpose(0, 3, 1, 2)" in problems(model, numbers(1, 6, 6, 2))
    assert "float64" in problems(model, x.astype(float)) and ".astype('float32')" in problems(model, x.astype(float))
    assert "uint8" in problems(model, x.astype(np.uint8))
    assert ">f4" in problems(model, x.astype(">f4"))
    assert "no array but list" in problems(model, x.tolist())
    assert "no array but NoneType" in problems(model, None)
    assert "height of input 'x' is 0" in problems(model, numbers(1, 2, 0, 4))
    assert "input 'x' is missing" in problems(model)
    assert "has 1 input (x), but got 2" in problems(model, x, x)
    assert "given twice" in problems(model, x, x=x)


def test_inputs_that_do_not_fit_each_other(chained: Model) -> None:
    a = numbers(1, 3, 101, 77)
    text = problems(chained, a, numbers(1, 3, 52, 40))
    assert "an image of 101x77 and 52x40 does not fit: 'm' would read 101x77 and 52x40 pixels" in text
    assert "different batches: 1, 2" in problems(chained, a, numbers(2, 3, 101, 77))
    text = problems(chained, a, rigt=a)
    assert "no input 'rigt'" in text and "did you mean 'right'?" in text and "'right' is missing" in text
    both = problems(chained, a.astype(int), numbers(1, 4, 3, 3))
    assert "'left' is int64" in both and "'right' has 4 channels" in both


def test_an_image_too_small_for_the_network(chained: Model) -> None:
    small = numbers(1, 3, 1, 9)
    text = problems(chained, small, small)
    assert "an image of 1x9 and 1x9 does not fit: 's' would be 0x4 pixels (give a larger image)" in text


def test_pinned_sizes_flat_outputs_and_an_output_that_is_an_input(store: Path) -> None:
    tile = (4, 5, 1, 1)
    rules = (TensorRule("x", 5, None, ((0, 1, 1),), ((0, 1, 1),)), TensorRule("y", 5, "x", ((0, 1, 1),), ((0, 1, 1),)))
    program = make_program("flat", "cpu", (Port("x", "x"),), (Port("y", "y", flat=True), Port("again", "y"), Port("same", "x")),
                           rules, (launch("double", "k_0", ("x",), "y", "", tile),))
    model = linked((program, [kernel("k_0", "at(0) * 2", 5, tile), *pool("cpu")], {}), store)
    x = numbers(7, 5, 1, 1)
    flat, again, same = model(x)
    assert np.array_equal(flat, 2 * x[:, :, 0, 0])
    assert np.array_equal(again, 2 * x)
    assert np.array_equal(same, x) and not np.may_share_memory(same, x)
    assert "the width of input 'x' is 1 in this network, not 2" in problems(model, numbers(1, 5, 1, 2))
    assert repr(model) == "<fusec model 'flat' for cpu, float32: x Nx5x1x1 -> y Nx5, again Nx5x1x1, same Nx5x1x1>"


def with_variants(minimum: int) -> Parts:
    """`scale` with a variant that gives 100 x instead, used from `minimum` tiles of 1x1 pixels on."""
    program, sources, weights = scale()
    tile = (1, 2, 1, 1)
    first = program.launches[0]
    variants = (Variant("k_1", tile, 1, 8, min_blocks=minimum), *first.variants)
    return (replace(program, launches=(replace(first, variants=variants),)),
            [*sources, kernel("k_1", "at(0) * 100", 2, tile)], weights)


def test_the_first_variant_with_enough_tiles_runs(store: Path) -> None:
    model = linked(with_variants(12), store)
    x = numbers(1, 2, 2, 5)
    assert np.array_equal(model(x), 3 * x)
    x = numbers(1, 2, 2, 6)
    assert np.array_equal(model(x), 100 * x)


class Tensor:
    """As little of a tensor as DLPack asks for."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


class Library:
    """Stands for another array library: a module with `from_dlpack`."""

    @staticmethod
    def from_dlpack(value: Any) -> Tensor:
        return Tensor(np.from_dlpack(value))


def test_dlpack_in_without_a_copy_and_the_same_kind_out(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers(1, 2, 5, 5)
    assert model.engine.pointer(model.engine.accept(Tensor(x), "x")) == x.ctypes.data
    assert np.array_equal(model(Tensor(x)), 3 * x)  # its module has no from_dlpack
    monkeypatch.setitem(__import__("sys").modules, "tensors", Library)
    monkeypatch.setattr(Tensor, "__module__", "tensors.core")
    subclass = type("Parameter", (Tensor,), {"__module__": "elsewhere"})
    for value in (Tensor(x), subclass(x)):
        y = model(value)
        assert type(y) is Tensor
        assert np.array_equal(y.array, 3 * x)


def test_array_interface(model: Model) -> None:
    x = numbers(1, 2, 5, 5)
    holder = type("Holder", (), {"__array_interface__": x.__array_interface__})()
    assert np.array_equal(model(holder), 3 * x)


def test_tensors_elsewhere_are_not_moved(model: Model) -> None:
    x = numbers(1, 2, 5, 5)
    assert "GPU memory, but this model was compiled for the CPU" in problems(model, Tensor(x, device=2))
    assert "GPU memory" in problems(model, type("Old", (), {"__cuda_array_interface__": {}})())
    assert "device type 8" in problems(model, Tensor(x, device=8))


def test_a_tensor_that_will_not_be_shared(model: Model) -> None:
    class Stubborn(Tensor):
        def __dlpack__(self, **options: Any) -> Any:
            raise RuntimeError("Can't export tensors that require gradient, use tensor.detach()")
    text = problems(model, Stubborn(numbers(1, 2, 3, 3)))
    assert "cannot be shared: Can't export" in text and ".detach()" in text


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy, lambda model: pickle.dumps({"of": [model]})])
def test_a_model_is_neither_pickled_nor_copied(model: Model, attempt: Callable[[Model], object]) -> None:
    with pytest.raises(InputError, match=r"cannot be pickled or copied \(write it to a folder with .*fusec\.load\("):
        attempt(model)


def test_calls_from_several_threads_at_once(chained: Model) -> None:
    def work(seed: int) -> bool:
        a, b = numbers(2, 3, 9 + seed, 31, seed=seed), numbers(2, 3, 9 + seed, 31, seed=seed + 99)
        right = chain_reference(a, b)
        return all(np.array_equal(g, r) for _ in range(30) for g, r in zip(chained(a, b), right, strict=True))
    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(work, range(12)))


def test_more_sizes_than_are_remembered(model: Model) -> None:
    for width in (*range(1, 40), *range(1, 40)):
        x = numbers(1, 2, 2, width)
        assert np.array_equal(model(x), 3 * x)


def in_child(model: Model, x: np.ndarray, right: np.ndarray, queue: Any) -> None:
    queue.put(all(np.array_equal(model(x), right) for _ in range(5)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_its_own_threads(store: Path) -> None:
    model = linked(scale(), store, threads=3)
    x = numbers(4, 2, 50, 50)
    assert np.array_equal(model(x), 3 * x)
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [model(x) for _ in iter(stop.is_set, True)])  # we fork while the pool is at work
    busy.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(5):
            queue = context.SimpleQueue()
            child = context.Process(target=in_child, args=(model, x, 3 * x, queue))
            child.start()
            child.join(60)
            assert child.exitcode == 0
            assert queue.get()
    finally:
        stop.set()
        busy.join()


def test_promises_of_the_steps_before_are_checked(store: Path) -> None:
    program, sources, weights = scale()
    for wrong, match in (((program, sources[1:], weights), "no source for k_0"),
                         ((program, sources[:1], weights), "no source for fusec_pool"),
                         ((program, [*sources, kernel("k_0", "at(0)", 2, (1, 1, 4, 8))], weights), "two different sources"),
                         ((program, sources, {}), "the weights 'w' of scale"),
                         ((program, sources, {"w": np.ones(1)}), "the weights 'w' of scale"),
                         ((replace(program, target="abacus"), sources, weights), "no runtime for target"),
                         ((program, [replace(sources[0], text="int k;"), sources[1]], weights), "no library exports k_0")):
        with pytest.raises(InternalError, match=match):
            linked(wrong, store)


def test_a_program_survives_json() -> None:
    import json
    for parts in (scale(), chain(), with_variants(3)):
        assert Program.from_json(json.loads(json.dumps(parts[0].to_json()))) == parts[0]
    with pytest.raises(InputError, match="manifest format 99"):
        Program.from_json({"format": 99})
    with pytest.raises(InputError, match="damaged"):
        Program.from_json({**scale()[0].to_json(), "launches": [{}]})


def test_intermediates_share_an_arena_and_never_overlap_while_alive(store: Path) -> None:
    from fusec.runtime.workload import arrange
    tile = (1, 1, 8, 8)
    names = ["x", *(f"t{i}" for i in range(6)), "y"]
    rules = (TensorRule("x", 1, None, (), ()), *(TensorRule(n, 1, "x", ((1, 0, 1),), ((1, 0, 1),)) for n in names[1:]))
    launches = tuple(launch(n, "k_0", (before,), n, "", tile) for before, n in pairwise(names))
    program = make_program("long", "cpu", (Port("x", "x"),), (Port("y", "y"),), rules, launches)
    work = arrange(program, 3, ((16, 16),))
    assert work.arena == 2 * 3 * 256  # two at a time
    model = linked((program, [kernel("k_0", "at(0) + 1", 1, tile), *pool("cpu")], {}), store)
    x = numbers(3, 1, 16, 16)
    assert np.array_equal(model(x), x + 7)


def test_sizes_beyond_32_bits_are_refused_before_anything_is_allocated() -> None:
    from fusec.runtime.workload import arrange
    program = scale()[0]
    with pytest.raises(InputError, match="split the batch"):
        arrange(program, 1 << 28, ((64, 64),))
    with pytest.raises(InputError, match="it can be 1 to 1048576"):
        arrange(program, 1, ((1, 1 << 21),))
    grown = replace(program, tensors=(program.tensors[0], TensorRule("y", 2, "x", ((1 << 20, 0, 1),), HALF)))
    with pytest.raises(InputError, match="smaller image"):
        arrange(grown, 1, ((1 << 20, 4),))


def test_threads_default_to_what_the_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= cpu_engine.usable_threads() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for text, expected in (("max 100000", 8), ("250000 100000", 2), ("20000 100000", 1), ("9900000 100000", 8), ("junk", 8)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(cpu_engine, "QUOTAS", ((str(tmp_path / "cpu.max"),), (str(tmp_path / "none"),) * 2))
        assert cpu_engine.usable_threads() == expected
    (tmp_path / "quota").write_text("-1\n")
    (tmp_path / "period").write_text("100000\n")
    monkeypatch.setattr(cpu_engine, "QUOTAS", ((str(tmp_path / "quota"), str(tmp_path / "period")),))
    assert cpu_engine.usable_threads() == 8
    (tmp_path / "quota").write_text("300000\n")
    assert cpu_engine.usable_threads() == 3


def test_a_model_that_is_let_go_is_gone_at_once(store: Path) -> None:
    """Without the garbage collector's help, which knows nothing of the GPU's memory."""
    gc.disable()
    try:
        model = linked(scale(), store)
        model(numbers(1, 2, 3, 3))
        engine, runner = weakref.ref(model.engine), weakref.ref(next(iter(model._runners.values())))
        del model
        assert (engine(), runner()) == (None, None)
    finally:
        gc.enable()


def test_the_sizes_used_last_are_remembered(store: Path) -> None:
    model = linked(scale(), store)
    prepared: list[int] = []
    prepare = model.engine.prepare

    def counted(workload: Workload) -> Runner:
        prepared.append(workload.batch)
        return prepare(workload)

    model.engine.prepare = counted  # type: ignore[method-assign]
    for batch in range(1, REMEMBERED + 1):
        model(numbers(batch, 2, 3, 3))
    model(numbers(1, 2, 3, 3))  # now it is 2 that was not used for longest
    model(numbers(REMEMBERED + 1, 2, 3, 3))
    assert prepared == list(range(1, REMEMBERED + 2))
    model(numbers(1, 2, 3, 3))
    model(numbers(2, 2, 3, 3))
    assert prepared[REMEMBERED + 1:] == [2]
    assert len(model._runners) == REMEMBERED


def test_no_memory_for_a_copy(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*words: object, **named: object) -> None:
        raise MemoryError("that much")

    class Lazy:
        """Converted only when it is asked for."""

        __array_interface__ = property(none_left)

    model = linked(scale(), store)
    strided = numbers(1, 2, 3, 8)[..., ::2]
    monkeypatch.setattr(np, "array", none_left)
    with pytest.raises(MissingError, match="not enough memory for a dense copy of an input: that much"):
        model(strided)
    with pytest.raises(MissingError, match="not enough memory for 'x': that much"):
        model(Lazy())
