"""The folder of real networks in ONNX files, `../shared/models` beside the repository; its README says where they come from.

They are no part of the repository. `FUSEC_MODELS` names another folder. Where there is none, the tests that need it are
skipped, unless `FUSEC_NEED_MODELS` is set, as the gate does.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from fusec import pipeline
from fusec.graph import reference
from fusec.graph.onnx.cut import Cut

if TYPE_CHECKING:
    from PIL.Image import Image

MODELS = Path(os.environ.get("FUSEC_MODELS") or Path(__file__).resolve().parents[2] / "shared" / "models")
NAMES = ("anime4k_m", "anime4k_s", "artcnn_c4f16", "artcnn_c4f32", "espcn_x2", "fsrcnn_x2", "oidn_small",
         "realesr_animevideov3_x4", "resnet20_cifar10", "squeezenet_v11", "waifu2x_upconv7")
SCORES = {"squeezenet_v11": "pool10"}  # networks that end in a softmax: the tensor it reads
UPSCALERS = {"artcnn_c4f16": 35.19, "artcnn_c4f32": 35.38, "fsrcnn_x2": 33.94, "espcn_x2": 33.85, "anime4k_s": 34.19,
             "anime4k_m": 34.44}  # mean luma PSNR on Set5, as published with the files
BILINEAR = 2  # PIL.Image.Resampling.BILINEAR
FRAME = 4  # pixels at the border that PSNR leaves out

Floats = NDArray[np.float32]
Run = Callable[[Floats], Floats]


def need_models() -> Path:
    """The folder; the test is skipped, or fails, where there is none."""
    if not MODELS.is_dir():
        if os.environ.get("FUSEC_NEED_MODELS"):
            pytest.fail(f"there is no folder {MODELS}, and FUSEC_NEED_MODELS is set")
        pytest.skip(f"there is no folder {MODELS}")
    return MODELS


def case(name: str) -> tuple[Path, Floats, Floats]:
    """The file of a network, an input and what onnxruntime makes of it."""
    folder = need_models()
    with np.load(folder / f"{name}.npz") as arrays:
        return folder / f"{name}.onnx", arrays["input"], arrays["expected"]


def judge(path: Path, to: str | None = None) -> Run:
    """What is right, by onnxruntime; by the reference where that is not installed, or a tensor inside is meant."""
    if to is not None or importlib.util.find_spec("onnxruntime") is None:
        graph = pipeline.read(path, cut=Cut((), () if to is None else (to,)))
        return lambda x: next(iter(reference.run(graph, x).values()))
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"input": x})[0])


def difference(made: Floats, wanted: Floats) -> float:
    """The largest one, as a part of the largest value."""
    assert made.size == wanted.size and made.shape[:2] == wanted.shape[:2]
    return float(np.abs(made.reshape(wanted.shape) - wanted).max() / np.abs(wanted).max())


def view(image: Floats, batch: int, height: int, width: int) -> Floats:
    """A batch of another size that shows the same picture, continued around its edges: no two of the images alike."""
    rows, columns = np.arange(height) % image.shape[2], np.arange(width) % image.shape[3]
    return np.ascontiguousarray(np.concatenate([np.roll(image[:1], (5 * i, 9 * i), (2, 3))[:, :, rows][:, :, :, columns]
                                                for i in range(batch)]))


def pictures(pattern: str) -> list[Image]:
    """Those of the folder, in RGB."""
    from PIL import Image

    return [Image.open(file).convert("RGB") for file in sorted(need_models().glob(pattern))]


def photos() -> Floats:
    """The 20 pictures of ImageNet as squeezenet wants them."""
    pixels = np.stack([np.asarray(p.resize((227, 227), BILINEAR), np.float32) for p in pictures("imagenet20/*.jp*g")])
    return np.ascontiguousarray((pixels[..., ::-1] - np.float32([104, 117, 123])).transpose(0, 3, 1, 2))


def luma(rgb: Floats) -> Floats:
    """Y of YCrCb in full range, as OpenCV has it: (3, height, width) to (height, width)."""
    return np.tensordot(np.float32([0.299, 0.587, 0.114]), rgb, 1)


def _psnr(made: Floats, wanted: Floats) -> float:
    inner = (slice(FRAME, -FRAME),) * 2
    return float(10 * np.log10(1 / np.mean((made[inner].clip(0, 1).astype(np.float64) - wanted[inner]) ** 2)))


def _halved(image: Floats) -> Floats:
    """Means of 2 x 2 pixels of (channels, height, width)."""
    channels, height, width = image.shape[0], image.shape[1] // 2, image.shape[2] // 2
    return image[:, :2 * height, :2 * width].reshape(channels, height, 2, width, 2).mean((2, 4), dtype=np.float32)


def set5_psnr(upscale: Run, channels: int) -> list[float]:
    """PSNR in dB of each picture of Set5, halved and enlarged again, by its luma."""
    reached = []
    for picture in pictures("set5/*.png"):
        rgb = np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255)
        whole = luma(rgb)
        made = upscale(np.ascontiguousarray(_halved(rgb if channels == 3 else whole[None])[None]))[0]
        enlarged = made[0] if channels == 1 else luma(made)
        reached.append(_psnr(enlarged, whole[:enlarged.shape[0], :enlarged.shape[1]]))
    return reached
