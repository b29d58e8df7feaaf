"""Real trained networks from ONNX files: right through every way to fuse them, at any size, and as useful as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

import fusec
from fusec import pipeline
from tests.real_models import NAMES, case, need_models

TOLERANCE = 1e-5  # of the largest value; onnxruntime with and without its optimisations is within 1.6e-6
UPSCALERS = {"artcnn_c4f16": 35.19, "artcnn_c4f32": 35.38, "fsrcnn_x2": 33.94, "espcn_x2": 33.85, "anime4k_s": 34.19,
             "anime4k_m": 34.44}  # mean luma PSNR on Set5, as published with the files
PUBLISHED = 0.1  # dB; how luma and the halved pictures were rounded is not
FRAME = 4  # pixels at the border that PSNR leaves out

Floats = NDArray[np.float32]


def difference(made: Floats, wanted: Floats) -> float:
    assert made.shape == wanted.shape
    return float(np.abs(made - wanted).max() / np.abs(wanted).max())


def test_the_folder_has_the_networks_that_are_tested() -> None:
    assert sorted(path.stem for path in need_models().glob("*.onnx")) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("fuse", ["auto", "all", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_values(name: str, fuse: str) -> None:
    """As planned, with chains as long as they can be, and layer by layer, for the size that they run at."""
    path, x, wanted = case(name)
    assert difference(fusec.compile(path, target="cpu", fuse=fuse, shape=x.shape)(x), wanted) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_build_runs_any_size_and_batch(name: str) -> None:
    path, x, _ = case(name)
    model = fusec.compile(path, target="cpu", shape=x.shape)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for batch, height, width in ((1, 48, 32), (3, 64, 80), (2, 96, 48)):
        image = generator.random((batch, x.shape[1], height, width), np.float32)
        (wanted,) = session.run(None, {"input": image})
        assert difference(model(image), wanted) <= 2 * TOLERANCE


def test_squeezenet_names_the_same_classes() -> None:
    """On the 20 pictures, as onnxruntime does: top 1 of every one."""
    path, usual, _ = case("squeezenet_v11")
    folder = need_models() / "imagenet20"
    pictures = [Image.open(file).convert("RGB").resize((227, 227), Image.Resampling.BILINEAR)
                for file in sorted(folder.glob("*.jp*g"))]
    pixels = np.stack([np.asarray(p, np.float32)[:, :, ::-1] for p in pictures]) - np.float32([104, 117, 123])
    x = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    assert len(x) == 20
    (wanted,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    made = fusec.compile(path, target="cpu", shape=usual.shape)(x)
    assert made.argmax(1).tolist() == wanted.argmax(1).tolist()


def luma(rgb: Floats) -> Floats:
    """Y of YCrCb in full range, as OpenCV has it: (3, height, width) to (height, width)."""
    return np.tensordot(np.float32([0.299, 0.587, 0.114]), rgb, 1)


def psnr(made: Floats, wanted: Floats) -> float:
    inner = (slice(FRAME, -FRAME),) * 2
    return float(10 * np.log10(1 / np.mean((made[inner].clip(0, 1).astype(np.float64) - wanted[inner]) ** 2)))


def halved(image: Floats) -> Floats:
    """Means of 2 x 2 pixels of (channels, height, width)."""
    channels, height, width = image.shape[0], image.shape[1] // 2, image.shape[2] // 2
    return image[:, :2 * height, :2 * width].reshape(channels, height, 2, width, 2).mean((2, 4), dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", UPSCALERS)
def test_upscalers_are_as_good_as_by_onnxruntime(name: str) -> None:
    """PSNR on the five pictures of Set5, to 0.01 dB; their mean is near the published one."""
    path, usual, _ = case(name)
    model = fusec.compile(path, target="cpu", shape=usual.shape)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    reached = []
    for file in sorted((need_models() / "set5").glob("*.png")):
        rgb = np.asarray(Image.open(file).convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)
        whole = rgb if usual.shape[1] == 3 else luma(rgb)[None]
        small = np.ascontiguousarray(halved(whole)[None])
        theirs = session.run(None, {"input": small})[0]
        made, other = (y[0] if y.shape[1] == 1 else luma(y[0])[None] for y in (model(small), theirs))
        wanted = luma(rgb)[:made.shape[1], :made.shape[2]]
        reached.append(psnr(made[0], wanted))
        assert abs(reached[-1] - psnr(other[0], wanted)) <= 0.01
    assert abs(np.mean(reached) - UPSCALERS[name]) <= PUBLISHED


def test_parts_of_a_network(tmp_path: Path) -> None:
    """From one tensor and to another: the two parts one after the other are the whole."""
    path, x, wanted = case("espcn_x2")
    names = [node.name for node in pipeline.read(path).nodes]
    middle = names[len(names) // 2]
    first = fusec.compile(path, target="cpu", to=middle)
    second = fusec.compile(path, target="cpu", from_=[middle])
    assert difference(second(first(x)), wanted) <= TOLERANCE
