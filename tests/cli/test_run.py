"""`fusec run`: inputs and outputs of every kind, and files that are not what they should be."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusec
from fusec import pipeline
from tests.cli.harness import NO_WEIGHTS, OPEN, SMALL, TWO, invoke, invoke_json, write

CPU = ("--target", "cpu")
RANDOM = (*CPU, "--random-weights", 1)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    return write(tmp_path, NO_WEIGHTS)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_arrays_in_and_out(plain: str, tmp_path: Path) -> None:
    x = numbers(2, 2, 4, 6)
    text = invoke("run", plain, saved(tmp_path / "x.npy", x), *CPU, "-o", tmp_path / "y.npy").stdout
    wanted = x.reshape(2, 2, 2, 2, 3, 2).max((3, 5))
    assert np.array_equal(np.load(tmp_path / "y.npy"), wanted)
    assert "pool: 2x2x2x3 float32" in text
    assert f"written  {tmp_path / 'y.npy'}" in text


def test_a_compiled_folder(tmp_path: Path) -> None:
    net, x = write(tmp_path, SMALL), numbers(12, 1, 12, 12)
    invoke("compile", net, *RANDOM, "-o", tmp_path / "built")
    text = invoke("run", tmp_path / "built", saved(tmp_path / "x.npy", x)).stdout
    scores = fusec.load(tmp_path / "built")(x)
    best = np.argsort(-scores[0])
    assert f"\n  0: {best[0]} ({scores[0, best[0]]:.4g})  {best[1]} (" in text
    assert "... and 2 more" in text
    again = invoke_json("run", tmp_path / "built", tmp_path / "x.npy")
    assert [entry["class"] for entry in again["outputs"][0]["top"][3]] == list(np.argsort(-scores[3])[:5])


def test_options_of_a_network_are_refused_for_a_folder(tmp_path: Path) -> None:
    invoke("compile", write(tmp_path, SMALL), *RANDOM, "-o", tmp_path / "built")
    x = saved(tmp_path / "x.npy", numbers(1, 1, 12, 12))
    assert "--target" in invoke("run", tmp_path / "built", x, *CPU, code=2).stderr


def test_several_inputs(tmp_path: Path) -> None:
    net = write(tmp_path, TWO)
    left, right = numbers(1, 2, 3, 3), 1 + numbers(1, 2, 3, 3)
    files = [saved(tmp_path / f"{i}.npy", a) for i, a in enumerate((left, right))]
    np.savez(tmp_path / "named.npz", right=right, left=left)
    np.savez(tmp_path / "ordered.npz", left, right)
    for given in (files, [tmp_path / "named.npz"], [tmp_path / "ordered.npz"]):
        invoke("run", net, *given, *CPU, "-o", tmp_path / "y.npz")
        with np.load(tmp_path / "y.npz") as results:
            assert set(results.files) == {"sum", "product"}
            assert np.array_equal(results["sum"], left + right)
            assert np.array_equal(results["product"], left * right)


def test_several_files_are_one_batch(plain: str, tmp_path: Path) -> None:
    files = [saved(tmp_path / f"{n}.npy", numbers(n, 2, 4, 4)) for n in (1, 3)]
    assert invoke_json("run", plain, *files, *CPU)["outputs"][0]["shape"] == [4, 2, 2, 2]


def test_other_precisions_are_converted_and_that_is_said(plain: str, tmp_path: Path) -> None:
    x = saved(tmp_path / "x.npy", numbers(1, 2, 4, 4).astype(np.float64))
    assert "float64; converted to float32" in invoke("run", plain, x, *CPU).stderr


def test_a_compiled_folder_that_is_not_there_has_a_nearest(plain: str, tmp_path: Path) -> None:
    invoke("compile", plain, "--target", "cpu", "-o", tmp_path / "built")
    x = saved(tmp_path / "x.npy", numbers(1, 2, 4, 4))
    result = invoke("run", tmp_path / "buit", x, code=3)
    assert result.stderr == f"error: {tmp_path / 'buit'}: no such folder or network (did you mean 'built'?)\n"
    assert "built" not in invoke("run", tmp_path / "zzz", x, code=3).stderr.partition("no such")[2]


def test_a_network_is_found_beside_compiled_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("compile", "lenet5", "--target", "cpu", "-o", "lenet5")
    x = saved(tmp_path / "x.npy", numbers(1, 1, 28, 28))
    assert "lenet5 on cpu" in invoke("run", "lenet5.yaml", x, "--target", "cpu").stdout


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("make", "said"), [
    (lambda d: [d / "none.npy"], "no such file"),
    (lambda d: [raw(d / "x.txt", b"1 2 3")], "inputs are .npy"),
    (lambda d: [raw(d / "x.npy", b"no array")], "not a readable .npy file"),
    (lambda d: [raw(d / "x.npy", b"")], "not a readable .npy file"),
    (lambda d: [raw(d / "x.npz", b"PK\x03\x04")], "not a readable .npz file"),
    (lambda d: [saved(d / "x.npy", np.array([print], dtype=object))], "not a readable .npy file"),
    (lambda d: [saved(d / "x.npy", np.ones((1, 2, 4, 4), np.uint8))], "x.npy: input 'picture' is uint8, but"),
    (lambda d: [saved(d / "x.npy", numbers(2, 4, 4))], "write a single image as a batch of one"),
    (lambda d: [saved(d / "x.npy", numbers(1, 3, 4, 4))], "has 3 channels instead of 2"),
    (lambda d: [saved(d / "x.npy", numbers(1, 4, 4, 2))], "write the channels before height and width"),
    (lambda d: [saved(d / "x.npy", np.ones((2, 4, 4), bool)), saved(d / "z.npy", numbers(1, 3, 4, 4))], "z.npy: input"),
    (lambda d: [saved(d / "x.npy", numbers(1, 2, 1, 1))], "does not fit"),
    (lambda d: [saved(d / "a.npy", numbers(1, 2, 4, 4)), saved(d / "b.npy", numbers(1, 2, 4, 5))], "images of one size"),
    (lambda d: [npz(d / "x.npz", a=numbers(1), b=numbers(1))], "it holds 'a', 'b'; none of them is called 'picture'"),
])
def test_inputs_that_do_not_fit(plain: str, tmp_path: Path, make: Any, said: str) -> None:
    result = invoke("run", plain, *make(tmp_path), *CPU, "-o", tmp_path / "y.npy", code=3)
    assert said in result.stderr
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(("command", "said"), [
    (lambda d: ["run", d / "net.yaml", saved(d / "x.npy", numbers(1, 3, 4, 4))], "has 3 channels instead of 2"),
    (lambda d: ["run", d / "net.yaml", saved(d / "x.npy", numbers(1, 2, 1, 1))], "does not fit"),
    (lambda d: ["run", d / "net.yaml", d / "none.npy"], "no such file"),
    (lambda d: ["bench", d / "net.yaml", "--shape", "1x3x4x4"], "has channels 2, not 3"),
    (lambda d: ["bench", d / "net.yaml", "--shape", "1x2x1x1"], "too small"),
    (lambda d: ["compare", d / "net.yaml", "--input", saved(d / "x.npy", numbers(1, 3, 4, 4))], "3 channels instead of 2"),
])
def test_what_does_not_fit_is_said_before_anything_is_built(plain: str, tmp_path: Path, environment: pytest.MonkeyPatch,
                                                            command: Any, said: str) -> None:
    environment.setattr(pipeline, "plan", lambda *words, **named: pytest.fail("it was planned"))
    assert said in invoke(*command(tmp_path), *CPU, code=3).stderr


@pytest.mark.parametrize(("files", "said"), [
    (["a.npy"], "has 2 inputs (left, right), but got 1 file ("),
    (["wrong.npz"], "no array for input 'right'"),
])
def test_inputs_by_name_that_do_not_fit(tmp_path: Path, files: Sequence[str], said: str) -> None:
    saved(tmp_path / "a.npy", numbers(1, 2, 3, 3))
    npz(tmp_path / "wrong.npz", left=numbers(1, 2, 3, 3), rigth=numbers(1, 2, 3, 3))
    assert said in invoke("run", write(tmp_path, TWO), *(tmp_path / f for f in files), *CPU, code=3).stderr


@pytest.mark.parametrize(("name", "code", "said"), [
    ("y.txt", 3, "results are written as .npy"),
    ("y.npy", 3, "name a .npz file"),
    ("none/y.npz", 3, "its folder does not exist"),
    ("folder.npz", 3, "this is a directory"),
])
def test_results_that_cannot_be_written(tmp_path: Path, name: str, code: int, said: str) -> None:
    inputs = [saved(tmp_path / f"{i}.npy", numbers(1, 2, 3, 3)) for i in range(2)]
    (tmp_path / "folder.npz").mkdir()
    before = sorted(tmp_path.iterdir())
    net = write(tmp_path, TWO)
    assert said in invoke("run", net, *inputs, *CPU, "-o", tmp_path / name, code=code).stderr
    assert sorted(tmp_path.iterdir()) == sorted([*before, Path(net)])


# ---- pictures


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pictures_in_and_out(tmp_path: Path, channels: int, mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, channels), np.uint8)
    image.fromarray(pixels.squeeze()).save(tmp_path / "x.png")
    net = write(tmp_path, OPEN % (channels, channels))
    array = saved(tmp_path / "x.npy", (pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None])
    invoke("run", net, tmp_path / "x.png", *RANDOM, "-o", tmp_path / "y.png")
    invoke("run", net, array, *RANDOM, "-o", tmp_path / "y.npy")
    with image.open(tmp_path / "y.png") as made:
        assert made.mode == mode
        wanted = np.rint(np.load(tmp_path / "y.npy")[0].transpose(1, 2, 0) * 255)
        assert np.array_equal(np.asarray(made), wanted.squeeze())


def test_colours_become_grey_for_one_channel(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "x.png")
    made = invoke_json("run", write(tmp_path, OPEN % (1, 1)), tmp_path / "x.png", *RANDOM)
    assert made["outputs"][0]["shape"] == [1, 1, 4, 4]


def test_deep_grey_keeps_its_range(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from fusec.cli.images import read_image

    image.fromarray(np.array([[0, 65535], [13107, 32767]], np.uint16)).save(tmp_path / "x.png")
    assert np.allclose(read_image(tmp_path / "x.png", 1), [[[[0, 1], [0.2, 0.5]]]], atol=1e-4)
    assert read_image(tmp_path / "x.png", 3).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("content", [b"", b"GIF", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"])
def test_broken_pictures(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("PIL.Image")
    picture = raw(tmp_path / "x.png", content)
    message = invoke("run", write(tmp_path, OPEN % (1, 1)), picture, *RANDOM, code=3).stderr
    assert f"error: {picture}: not a readable picture" in message


def test_a_picture_for_a_network_of_other_channels(plain: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("L", (4, 4)).save(tmp_path / "x.png")
    assert "the network's input has 2" in invoke("run", plain, tmp_path / "x.png", *CPU, code=3).stderr


def test_a_result_that_is_no_picture(plain: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    x = saved(tmp_path / "x.npy", numbers(1, 2, 4, 4))
    assert "1x2x2x2 is no picture" in invoke("run", plain, x, *CPU, "-o", tmp_path / "y.png", code=3).stderr
    assert not (tmp_path / "y.png").exists()


def test_without_pillow_the_extra_is_named(plain: str, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ImportError("No module named 'PIL'")
        return real(name, *rest)

    environment.setattr(builtins, "__import__", without)
    assert "pip install 'fusec[image]'" in invoke("run", plain, tmp_path / "x.png", *CPU, code=5).stderr
