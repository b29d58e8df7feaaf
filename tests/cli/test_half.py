"""`--dtype float16` and `bfloat16`: the commands on a stand-in of a GPU that rounds as one would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fusec.cli.networks import default_lock
from fusec.cli.tolerances import OUTPUT
from fusec.graph.read_yaml import read_yaml
from fusec.plan.lock_file import read_lock
from fusec.targets.device import DEVICES, in_precision
from fusec.tuning import candidates, measure, whole
from tests.cli.harness import OPEN, SMALL, TWO, invoke, invoke_json, write
from tests.cli.rounding import stand_in

HALVES = ("float16", "bfloat16")
CUDA = ("--target", "cuda")
WIDE = """name: wide
input: {name: picture, channels: 3, height: 12, width: 12}
layers:
  - {name: conv1, type: conv2d, out_channels: 12, kernel: 3, padding: 1}
  - {name: conv2, type: conv2d, out_channels: 20, kernel: 3, padding: 1}
  - {name: conv3, type: conv2d, out_channels: 6, kernel: 3}
"""


@pytest.fixture
def net(tmp_path: Path, environment: pytest.MonkeyPatch) -> str:
    stand_in(environment)
    return write(tmp_path, SMALL)


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize(("dtype", "layer", "output"), [("float16", 2e-3, 1e-2), ("bfloat16", 2e-2, 1e-1)])
def test_sound_kernels_pass_the_comparison(net: str, dtype: str, layer: float, output: float) -> None:
    made = invoke_json("compare", net, *CUDA, "--dtype", dtype, "--random-weights", 1, "--batch", 3)
    assert (made["dtype"], made["tolerance"], made["output_tolerance"], made["first_over"]) == (dtype, layer, output, None)
    assert all(x["beyond"] is None for x in made["layers"])
    assert 1e-5 < made["smallest_tolerance"] < output  # it is not float32 that was compared
    said = invoke("compare", net, *CUDA, "--dtype", dtype, "--random-weights", 1).stdout.splitlines()
    assert f"dtype      {dtype}" in said
    assert f"tolerance  {layer:g} for a layer, {output:g} for an output" in said
    assert said[-1] == f"all 4 layers and 1 output are within the tolerance of {layer:g} for a layer, {output:g} for an output"


@pytest.mark.parametrize("dtype", HALVES)
def test_the_wrong_layer_is_found(tmp_path: Path, environment: pytest.MonkeyPatch, dtype: str) -> None:
    stand_in(environment, lambda name, exact: exact * (1.25 if name == "conv2" else 1))
    made = invoke_json("compare", write(tmp_path, SMALL), *CUDA, "--dtype", dtype, "--random-weights", 1, code=4)
    assert made["first_over"] == "conv2"


def test_an_activation_beyond_the_range_is_named(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    stand_in(environment)
    net = write(tmp_path, TWO)
    np.savez(tmp_path / "x.npz", left=np.full((1, 2, 3, 3), 1000.0, np.float32), right=np.full((1, 2, 3, 3), 300, np.float32))
    words = ("compare", net, *CUDA, "--input", tmp_path / "x.npz", "--dtype")
    result = invoke(*words, "float16", code=4)
    assert "activation beyond float16's range at layer product: peak 3e+05" in result.stderr
    made = invoke_json(*words, "float16", code=4)
    assert [x["beyond"] for x in made["layers"]] == [None, 3e5, None, None]
    assert invoke_json(*words, "bfloat16")["first_over"] is None


@pytest.mark.parametrize("dtype", HALVES)
def test_half_against_float32(net: str, dtype: str) -> None:
    words = ("compare", net, *CUDA, "--dtype", dtype, "--random-weights", 1, "--against", "float32")
    made = invoke_json(*words)
    assert (made["against"], made["first_over"]) == ("float32", None)
    assert made["tolerance"] == made["output_tolerance"] == OUTPUT[dtype]
    assert [x["tensor"] for x in made["layers"]] == ["relu1", "pool1", "conv2", "fc", "fc"]
    assert all(x["own"] is None and x["beyond"] is None for x in made["layers"])
    assert made["smallest_tolerance"] >= max(x["relative"] for x in made["layers"]) > 1e-5
    assert invoke(*words).stdout.splitlines()[-1] == (
        f"all 4 layers and 1 output are within the tolerance of {OUTPUT[dtype]:g}")


def test_half_against_float32_finds_where_they_part(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """A layer that only the half kernels get wrong: it is the first over, and what reads it is over too."""
    stand_in(environment, lambda name, exact: exact * (1.25 if name == "conv2" else 1), only=("float16",))
    words = ("compare", write(tmp_path, SMALL), *CUDA, "--dtype", "float16", "--random-weights", 1, "--against", "float32")
    made = invoke_json(*words, code=4)
    assert made["first_over"] == "conv2"
    assert 0.1 < made["smallest_tolerance"] < 0.5
    result = invoke(*words, code=4)
    assert result.stdout.splitlines()[-1] == "first over the tolerance of 0.01: conv2"
    assert "3 tensors over the tolerance of 0.01; the first is conv2, which differs by" in result.stderr
    assert invoke_json(*words, "--tolerance", made["smallest_tolerance"])["first_over"] is None


def test_half_against_float32_names_what_leaves_the_range(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    stand_in(environment)
    np.savez(tmp_path / "x.npz", left=np.full((1, 2, 3, 3), 1000.0, np.float32), right=np.full((1, 2, 3, 3), 300, np.float32))
    words = ("compare", write(tmp_path, TWO), *CUDA, "--input", tmp_path / "x.npz", "--against", "float32", "--dtype")
    assert "activation beyond float16's range at layer product: peak 3e+05" in invoke(*words, "float16", code=4).stderr
    assert [x["beyond"] for x in invoke_json(*words, "float16", code=4)["layers"]] == [None, 3e5, None, 3e5]
    assert invoke_json(*words, "bfloat16")["first_over"] is None


def test_float32_is_not_compared_with_itself(net: str) -> None:
    said = invoke("compare", net, *CUDA, "--against", "float32", code=3).stderr
    assert "cannot be compared with themselves (give --dtype float16 or bfloat16, or leave --against out)" in said


@pytest.mark.parametrize("dtype", HALVES)
def test_bench(net: str, dtype: str) -> None:
    made = invoke_json("bench", net, *CUDA, "--dtype", dtype, "--batch", 2, "--repeat", 2)
    assert (made["dtype"], made["equal"]) == (dtype, True)
    assert 1e-5 < made["reference_difference"] < 1e-1
    assert f"dtype    {dtype}" in invoke("bench", net, *CUDA, "--dtype", dtype, "--batch", 2, "--repeat", 2).stdout


def test_bench_finds_what_is_wrong(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    stand_in(environment, lambda name, exact: exact * 1.25)
    words = ("bench", write(tmp_path, SMALL), *CUDA, "--dtype", "bfloat16", "--batch", 2, "--repeat", 2)
    said = invoke(*words, code=4).stderr
    assert "of its largest value, and may by 0.1; `fusec compare" in said
    assert "--dtype bfloat16` finds the layer" in said


@pytest.mark.parametrize("dtype", HALVES)
def test_run_converts_files_and_says_so(net: str, tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "x.npy", values(2, 1, 12, 12))
    words = ("run", net, tmp_path / "x.npy", *CUDA, "--random-weights", 1, "--dtype", dtype)
    result = invoke(*words, "-o", tmp_path / "y.npy")
    assert f"note: input 'picture' is float32; converted to {dtype}\n" in result.stderr
    assert f"fc: 2x7 {dtype}" in result.stdout
    made = np.load(tmp_path / "y.npy")
    assert made.dtype == (np.float16 if dtype == "float16" else np.float32)
    assert np.allclose(made, wanted(tmp_path, net), rtol=0, atol=0.05)
    assert invoke_json(*words)["dtype"] == dtype


def wanted(folder: Path, net: str) -> np.ndarray:
    """The same by float32 kernels on the CPU."""
    invoke("run", net, folder / "x.npy", "--target", "cpu", "--random-weights", 1, "-o", folder / "full.npy")
    return np.asarray(np.load(folder / "full.npy"))


def test_run_takes_files_of_its_own_type_as_they_are(net: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", values(2, 1, 12, 12).astype(np.float16))
    assert "converted" not in invoke("run", net, tmp_path / "x.npy", *CUDA, "--dtype", "float16").stderr
    np.save(tmp_path / "x.npy", np.full((1, 1, 12, 12), 1e5, np.float32))
    said = invoke("run", net, tmp_path / "x.npy", *CUDA, "--dtype", "float16").stderr
    assert "converted to float16, beyond whose range 144 values became infinite" in said


def test_run_of_pictures(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    stand_in(environment)
    image.new("RGB", (4, 5), (255, 128, 0)).save(tmp_path / "x.png")
    net = write(tmp_path, OPEN % (3, 3))
    result = invoke("run", net, tmp_path / "x.png", *CUDA, "--dtype", "float16", "-o", tmp_path / "y.png")
    assert "converted to float16" in result.stderr
    with image.open(tmp_path / "y.png") as made:
        assert made.size == (4, 5)


def test_a_lockfile_of_half_precision_has_a_name_of_its_own(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """The kernels between have tensors in planes, whose arrays are as large as the planes when they are timed alone."""
    stand_in(environment)
    environment.setenv("FUSEC_CACHE", str(tmp_path / "cache"))
    environment.setattr(candidates, "PER_BATCH", 1)
    for module in (measure, whole):
        environment.setattr(module, "BUDGET", 0.05)
    net = write(tmp_path, WIDE)
    made = invoke_json("tune", net, *CUDA, "--dtype", "float16", "--batch", 2)
    assert (made["file"], made["dtype"]) == (str(tmp_path / "net.cuda.float16.lock"), "float16")
    assert read_lock(Path(made["file"])).scope.dtype == "float16"
    rows = [json.loads(row) for row in (tmp_path / "cache" / "measurements.jsonl").read_text("utf-8").splitlines()]
    assert {row["dtype"] for row in rows} == {"float16"}
    refused = invoke("compile", net, *CUDA, "--locked", made["file"], "-o", tmp_path / "built", code=3).stderr
    assert "float16" in refused
    half = in_precision(DEVICES["h200"], "bfloat16")
    assert default_lock("lenet5", half) == Path("lenet5.cuda.bfloat16.lock")
    assert default_lock("lenet5", DEVICES["h200"]) == Path("lenet5.cuda.lock")


@pytest.mark.parametrize("dtype", HALVES)
def test_plan_and_explain(tmp_path: Path, dtype: str) -> None:
    net = write(tmp_path, SMALL)
    full, half = (invoke_json("plan", net, "--device", "h200", "--fuse", "none", "--dtype", d) for d in ("float32", dtype))
    assert (full["dtype"], half["dtype"]) == ("float32", dtype)
    assert half["totals"]["bytes_unfused"] < full["totals"]["bytes_unfused"]
    assert f"dtype        {dtype}" in invoke("plan", net, "--device", "h200", "--dtype", dtype).stdout
    assert invoke_json("plan", net, "--device", "h200", "--explore", "--dtype", dtype)["dtype"] == dtype
    page = tmp_path / "page.html"
    assert invoke_json("explain", net, "--device", "h200", "--dtype", dtype, "-o", page)["dtype"] == dtype
    assert f"For h200 in {dtype}, " in page.read_text("utf-8")


@pytest.mark.parametrize(("words", "said"), [
    (["compare", "lenet5", "--target", "cpu", "--dtype", "float16"], "the cpu computes in float32, not in float16"),
    (["run", "lenet5", "x.npy", "--target", "cpu", "--dtype", "bfloat16"], "the cpu computes in float32, not in bfloat16"),
    (["plan", "lenet5", "--device", "cpu", "--dtype", "float16"], "use a GPU"),
    (["plan", "lenet5", "--device", "t4", "--dtype", "bfloat16"], "sm_75 has no matrix instructions for bfloat16"),
    (["compile", "lenet5", "--arch", "sm_75", "--dtype", "bfloat16"], "it has float32 and float16"),
])
def test_what_has_no_half_precision_says_so(words: list[str], said: str) -> None:
    assert said in invoke(*words, code=3).stderr


def test_a_weight_beyond_the_range_stops_compile_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """What is there already stays, too."""
    net = write(tmp_path, WIDE)
    drawn = {f"{n.name}.{key}": value for n in read_yaml(Path(net), random_weights=1).nodes for key, value in n.params.items()}
    drawn["conv2.weight"][3, 1, 0, 2] = -70000.0
    safetensors.numpy.save_file(drawn, tmp_path / "large.safetensors")
    before = sorted(tmp_path.iterdir())
    words = ("compile", net, "--arch", "sm_90", "--dtype", "float16", "--weights", tmp_path / "large.safetensors")
    said = invoke(*words, "-o", tmp_path / "built", code=3).stderr
    assert "conv2: a weight of -70000 is beyond the range of float16, 65504" in said
    assert "compile in bfloat16 or float32" in said
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "mine").write_text("kept")
    invoke(*words, "-o", tmp_path / "built", code=3)
    assert [p.name for p in (tmp_path / "built").iterdir()] == ["mine"]


def test_a_compiled_folder_has_its_type_already(tmp_path: Path) -> None:
    net = write(tmp_path, SMALL)
    np.save(tmp_path / "x.npy", values(1, 1, 12, 12))
    invoke("compile", net, "--target", "cpu", "-o", tmp_path / "built")
    said = invoke("run", tmp_path / "built", tmp_path / "x.npy", "--dtype", "float16", code=2).stderr
    assert "--dtype can be given with a network only" in said
