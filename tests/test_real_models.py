"""Real trained networks from ONNX files: right through every way to fuse them, at any size, and as useful as they should be.

On the CPU, and on a GPU in every type where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

import fusec
from fusec import pipeline
from fusec.runtime.elements import offered, widened
from fusec.runtime.model import Model
from tests.harness import EmulatedCuda, assert_same_bits
from tests.real_models import (
    NAMES,
    SCORES,
    UPSCALERS,
    Run,
    case,
    difference,
    judge,
    need_models,
    photos,
    set5_psnr,
    view,
)

# Of the largest value. In float32 onnxruntime with and without its optimisations is within 1.6e-6. In half types, rounding
# weights and every layer's values in NumPy gives at most 1.6e-3 and 2.2e-2, but for a softmax.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 3e-2}
# Behind a softmax a difference of the scores is a relative one. Those of squeezenet reach 16 to 32: half a last place there.
BEHIND_SOFTMAX = {"float32": 1e-5, "float16": 2.0**-7, "bfloat16": 2.0**-4}
DECIBELS = {"float32": 0.01, "float16": 0.05}
PUBLISHED = 0.1  # dB; how luma and the halved pictures were rounded is not
LARGE = ("anime4k_m", "oidn_small", "realesr_animevideov3_x4", "resnet20_cifar10", "squeezenet_v11", "waifu2x_upconv7")
LONGEST = ("realesr_animevideov3_x4", "squeezenet_v11")  # of LARGE; their CUDA kernels are run with --thorough alone
PIECE = {"realesr_animevideov3_x4": (16, 16)}  # height and width for the emulator, which is slow
SIZES = ((1, 48, 32), (3, 64, 80), (2, 96, 48))  # batch, height, width


@dataclass(frozen=True)
class Machine:
    """What networks are compiled for."""

    target: str
    dtype: str

    def build(self, name: str, fuse: str = "auto", **options: Any) -> Run:
        """A network compiled for the size that its test input has, from float32 to float32."""
        model = built(name, self.target, self.dtype, fuse, **options)
        assert (model.program.target, model.program.dtype) == (self.target, self.dtype)
        return lambda image: widened(model(offered(image, self.dtype)))

    def tolerance(self, name: str) -> float:
        return (BEHIND_SOFTMAX if name in SCORES else TOLERANCE)[self.dtype]


@cache
def built(name: str, target: str, dtype: str, fuse: str, **options: Any) -> Model:
    """Compiled once for all tests, for the size that its test input has."""
    path, x, _ = case(name)
    return fusec.compile(path, target=target, dtype=dtype, fuse=fuse, shape=x.shape, **options)


def cuts() -> Iterator[Any]:
    """Every network as planned, and those that are soon built in the other ways; these of all with --thorough."""
    for name, fuse in product(NAMES, ("auto", "all", "none")):
        marks = pytest.mark.thorough if fuse != "auto" and name in LARGE else ()
        yield pytest.param(name, fuse, marks=marks, id=f"{name}-{fuse}")


CPU = pytest.param(Machine("cpu", "float32"), id="cpu")
FULL, HALF, BRAIN = (pytest.param(Machine("cuda", dtype), id=f"cuda-{dtype}", marks=pytest.mark.gpu) for dtype in TOLERANCE)
on_every_machine = pytest.mark.parametrize("machine", [CPU, FULL, HALF, BRAIN])
but_bfloat16 = pytest.mark.parametrize("machine", [CPU, FULL, HALF])


def test_the_folder_has_the_networks_that_are_tested() -> None:
    assert sorted(path.stem for path in need_models().glob("*.onnx")) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fuse"), list(cuts()))
@on_every_machine
def test_values(machine: Machine, name: str, fuse: str) -> None:
    """As planned, with chains as long as they can be, and layer by layer, for the size that they run at."""
    _, x, wanted = case(name)
    assert difference(machine.build(name, fuse)(x), wanted) <= machine.tolerance(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.thorough if n in LONGEST else ()) for n in NAMES])
def test_half_kernels_in_the_emulator(name: str) -> None:
    """On a small piece of the picture, since this needs no GPU: right, and the same bits with long chains and without."""
    path, x, _ = case(name)
    machine, runner = Machine("cuda", "float16"), EmulatedCuda(dtype="float16")
    image, made = view(x, 1, *PIECE.get(name, (32, 32))), []
    for fuse in ("all", "none"):
        planned = pipeline.plan(pipeline.read(path), runner.device, fuse, image.shape)
        [source], [tensor] = planned.simplified.graph.inputs, planned.simplified.output_names.values()
        schedules = [chain.variants[-1].schedule for chain in planned.chains]
        made.append(runner.run_graph(schedules, {source.name: image})[tensor])
    assert_same_bits(*made)
    assert difference(made[0], judge(path)(image)) <= machine.tolerance(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("machine", [HALF, BRAIN])
def test_a_softmax_magnifies_what_is_right(machine: Machine, name: str) -> None:
    """Scores are as near as any network's outputs; probabilities are what a softmax makes of those very scores."""
    path, x, _ = case(name)
    scores = machine.build(name, to=SCORES[name])(x)
    assert difference(scores, judge(path, SCORES[name])(x)) <= TOLERANCE[machine.dtype]
    powers = np.exp(scores.reshape(scores.shape[:2]).astype(np.float64))
    wanted = powers / powers.sum(1, keepdims=True)
    assert difference(machine.build(name)(x), wanted) <= TOLERANCE[machine.dtype]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@on_every_machine
def test_one_build_runs_any_size_and_batch(machine: Machine, name: str) -> None:
    path, x, _ = case(name)
    run, right = machine.build(name), judge(path)
    for size in SIZES:
        image = view(x, *size)
        assert difference(run(image), right(image)) <= machine.tolerance(name)


@but_bfloat16
def test_squeezenet_names_the_same_classes(machine: Machine) -> None:
    """On the 20 pictures, as onnxruntime does: top 1 of every one."""
    x = photos()
    assert len(x) == 20
    made, wanted = machine.build("squeezenet_v11")(x), judge(case("squeezenet_v11")[0])(x)
    assert made.reshape(20, -1).argmax(1).tolist() == wanted.reshape(20, -1).argmax(1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", UPSCALERS)
@but_bfloat16
def test_upscalers_are_as_good_as_by_onnxruntime(machine: Machine, name: str) -> None:
    """PSNR on the five pictures of Set5, to 0.01 dB, in float16 to 0.05; their mean is near the published one."""
    path, usual, _ = case(name)
    made, wanted = (set5_psnr(run, usual.shape[1]) for run in (machine.build(name), judge(path)))
    assert len(made) == 5
    assert np.abs(np.subtract(made, wanted)).max() <= DECIBELS[machine.dtype]
    assert abs(np.mean(made) - UPSCALERS[name]) <= PUBLISHED


def test_parts_of_a_network() -> None:
    """From one tensor and to another: the two parts one after the other are the whole."""
    path, x, wanted = case("espcn_x2")
    names = [node.name for node in pipeline.read(path).nodes]
    middle = names[len(names) // 2]
    first = fusec.compile(path, target="cpu", to=middle)
    second = fusec.compile(path, target="cpu", from_=[middle])
    assert difference(second(first(x)), wanted) <= TOLERANCE["float32"]
