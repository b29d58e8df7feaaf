"""The commands on a real GPU: what they time, compare and find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.harness import SMALL, invoke, invoke_json, write

pytestmark = pytest.mark.gpu

CUDA = ("--target", "cuda", "--random-weights", 1)


def test_doctor_names_the_gpu() -> None:
    made = invoke_json("doctor")
    assert "cuda" in made["usable"]
    assert all(", sm_" in gpu for gpu in made["cuda"]["gpus"])
    assert made["cuda"]["driver"]


def test_bench_is_timed_by_the_gpu(tmp_path: Path) -> None:
    made = invoke_json("bench", write(tmp_path, SMALL), *CUDA, "--batch", 64, "--repeat", 3)
    assert made["target"] == "cuda"
    assert all(0 < r["fastest"] < 1 for r in made["results"])
    assert made["reference_difference"] < 1e-5


@pytest.mark.parametrize("fuse", ["auto", "none", "all"])
def test_every_layer_is_right(tmp_path: Path, fuse: str) -> None:
    made = invoke_json("compare", write(tmp_path, SMALL), *CUDA, "--fuse", fuse, "--batch", 5)
    assert made["first_over"] is None


def test_auto_takes_the_gpu_and_says_so(tmp_path: Path) -> None:
    net = write(tmp_path, SMALL)
    assert "  cuda (" in invoke("compile", net, "--random-weights", 1, "-o", tmp_path / "built").stdout
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, 1, 12, 12), np.float32))
    on_gpu = invoke_json("run", tmp_path / "built", tmp_path / "x.npy")
    on_cpu = invoke_json("run", net, tmp_path / "x.npy", "--target", "cpu", "--random-weights", 1)
    assert on_gpu["target"] == "cuda"
    assert on_gpu["outputs"][0]["max"] == pytest.approx(on_cpu["outputs"][0]["max"], rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("fuse", ["auto", "none", "all"])
def test_every_layer_is_right_in_half_precision(tmp_path: Path, fuse: str, dtype: str) -> None:
    made = invoke_json("compare", write(tmp_path, SMALL), *CUDA, "--fuse", fuse, "--batch", 5, "--dtype", dtype)
    assert (made["first_over"], made["dtype"]) == (None, dtype)
    assert made["smallest_tolerance"] > 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_against_float32(tmp_path: Path, dtype: str) -> None:
    words = ("compare", write(tmp_path, SMALL), *CUDA, "--batch", 5, "--dtype", dtype, "--against", "float32")
    made = invoke_json(*words)
    assert (made["first_over"], made["against"], len(made["layers"])) == (None, "float32", 5)
    assert all(1e-5 < layer["relative"] <= made["smallest_tolerance"] for layer in made["layers"])
    assert invoke(*words).stdout.splitlines()[-1].startswith("all 4 layers and 1 output are within the tolerance of ")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bench_in_half_precision(tmp_path: Path, dtype: str) -> None:
    made = invoke_json("bench", write(tmp_path, SMALL), *CUDA, "--batch", 64, "--repeat", 3, "--dtype", dtype)
    assert (made["dtype"], made["equal"]) == (dtype, True)
    assert all(0 < r["fastest"] < 1 for r in made["results"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tuned_in_half_precision(tmp_path: Path, dtype: str) -> None:
    net = write(tmp_path, SMALL)
    made = invoke_json("tune", net, *CUDA, "--batch", 64, "--time-limit", 5, "--dtype", dtype)
    assert (made["dtype"], made["file"]) == (dtype, str(tmp_path / f"net.cuda.{dtype}.lock"))
    invoke("compile", net, *CUDA, "--dtype", dtype, "--locked", "-o", tmp_path / "built")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, 1, 12, 12), np.float32))
    result = invoke("run", tmp_path / "built", tmp_path / "x.npy")
    assert f"converted to {dtype}" in result.stderr
