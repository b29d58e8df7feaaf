"""The folder of real networks in ONNX files, `../shared/models` beside the repository; its README says where they come from.

They are no part of the repository. Where the folder is missing, the tests that need it are skipped, unless
`FUSEC_NEED_MODELS` is set, as the gate does.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
NAMES = ("anime4k_m", "anime4k_s", "artcnn_c4f16", "artcnn_c4f32", "espcn_x2", "fsrcnn_x2", "oidn_small",
         "realesr_animevideov3_x4", "resnet20_cifar10", "squeezenet_v11", "waifu2x_upconv7")


def need_models() -> Path:
    """The folder; the test is skipped, or fails, where there is none."""
    if not MODELS.is_dir():
        if os.environ.get("FUSEC_NEED_MODELS"):
            pytest.fail(f"there is no folder {MODELS}, and FUSEC_NEED_MODELS is set")
        pytest.skip(f"there is no folder {MODELS}")
    return MODELS


def case(name: str) -> tuple[Path, NDArray[np.float32], NDArray[np.float32]]:
    """The file of a network, an input and what onnxruntime makes of it."""
    folder = need_models()
    with np.load(folder / f"{name}.npz") as arrays:
        return folder / f"{name}.onnx", arrays["input"], arrays["expected"]
