"""Generated CUDA on a GPU, beyond what tests/targets runs there: whole networks, the emulator's word, NVIDIA's sanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fusec
from fusec.graph.layers import Axis
from fusec.graph.reference import run
from fusec.pipeline import read
from fusec.plan.construct import construct
from fusec.plan.footprint import granularity
from fusec.schedule.ir import Tile
from fusec.targets.device import DTYPES
from tests.harness import EmulatedCuda, Floats, Gpu, Runner, assert_same_bits
from tests.small_networks import image_of, whole_chain
from tests.targets.test_padding import ENDS, GRAPHS

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
IMAGES = {
    "alexnet": (2, 3, 227, 227), "alexnet_prefix": (2, 3, 227, 227), "artcnn_c4f16": (1, 1, 65, 131),
    "artcnn_c4f32": (1, 1, 40, 97), "fsrcnn_x2": (1, 1, 61, 83), "lenet5": (37, 1, 28, 28), "mnist4": (1001, 1, 28, 28),
    "mobilenet_v1": (1, 3, 96, 160), "mobilenet_v2": (3, 3, 70, 90), "resnet18": (2, 3, 64, 96), "vgg_e": (1, 3, 224, 224),
}
HEAVY = ("alexnet", "vgg_e")  # minutes in the reference

SANITIZED = """
import sys
import cupy
from tests.gpu.test_targets_gpu import Gpu, run_chain
cupy.cuda.set_allocator(None)  # every array is an allocation of its own, whose ends the sanitizer knows
for name in sys.argv[1:]:
    run_chain(Gpu(), name)
    run_chain(Gpu(), name, walked=True)
"""


@pytest.mark.parametrize("name", IMAGES)
def test_networks_fused_or_not(name: str) -> None:
    graph = read(name, missing="random")
    x = np.random.default_rng(6).random(IMAGES[name], np.float32)
    results = [fusec.compile(graph, target="cuda", fuse=fuse)(x) for fuse in ("none", "auto", "all")]
    for other in results[1:]:
        assert_same_bits(results[0], other)
    if name not in HEAVY:
        [wanted] = run(graph, x).values()
        np.testing.assert_allclose(results[0], wanted.reshape(results[0].shape), rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def run_chain(runner: Runner, name: str, walked: bool = False) -> Floats:
    """One of the padded chains, in tiles or in strips, on values that do not stay exact."""
    graph = (GRAPHS | ENDS)[name](None, None)
    chain = whole_chain(graph)
    tile, step = Tile(2, chain.shapes[chain.output].channels, 8, 8), granularity(chain, Axis.Y) if walked else None
    schedule = construct(chain, tile, runner.device, ("x",), step)
    return runner.run(schedule, {"x": image_of(graph, 23, 37, 3) / np.float32(7)})


@pytest.mark.parametrize("walked", [False, True], ids=["tiles", "strips"])
@pytest.mark.parametrize("name", [*GRAPHS, *ENDS])
def test_the_emulator_gives_the_gpus_bits(name: str, walked: bool) -> None:
    """For sums and products, which the two have to round alike."""
    assert_same_bits(run_chain(Gpu(), name, walked), run_chain(EmulatedCuda(), name, walked))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*GRAPHS, *ENDS])
def test_strips_give_the_bits_of_tiles(name: str, dtype: str) -> None:
    assert_same_bits(run_chain(Gpu(dtype), name), run_chain(Gpu(dtype), name, walked=True))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not on the PATH")
    names = ["three_convs", "max_pool_beside_conv", "halos_of_a_concat", "transposed", "grouped_end"]
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "Device not supported" in done.stdout:
        pytest.skip("compute-sanitizer does not support this device")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "ERROR SUMMARY: 0 errors" in done.stdout or "RACECHECK SUMMARY: 0 hazards" in done.stdout
