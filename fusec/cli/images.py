"""Pictures as arrays and back, through Pillow (the extra `image`).

In: .png, .jpg and the like. Out: float32 arrays (1, channels, height, width) with values from 0 to 1; or such an array, of
float16 too, as a file's bytes. The only module that imports Pillow, and only when there is a picture.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.errors import InputError, MissingError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # 16 bits of grey

Floats = NDArray[np.float32]


def is_image(path: Path) -> bool:
    """Whether a file goes by a picture's name."""
    return path.suffix.lower() in SUFFIXES


def read_image(path: Path, channels: int) -> Floats:
    """A picture as (1, channels, height, width), values from 0 to 1; turned upright, without its transparency.

    InputError when it is no picture, or the network does not take pictures; MissingError without Pillow.
    """
    image = _pillow()
    if channels not in MODES:
        raise InputError(f"a picture has 1 or 3 channels, but the network's input has {channels}", str(path),
                         "give the input as .npy")
    from PIL import ImageOps
    try:
        with image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode in ("I", "F"):
                raise InputError(f"its pixels (mode {upright.mode}) have no known range", str(path), "give the input as .npy")
            if upright.mode in DEEP:
                grey = np.asarray(upright).astype(np.float32) / np.float32(65535)
                pixels = np.repeat(grey[:, :, None], channels, axis=2)
            else:
                pixels = np.asarray(upright.convert(MODES[channels]), np.float32) / np.float32(255)
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:  # SyntaxError: of a broken PNG
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"not a readable picture: {reason}", str(path)) from None
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1))[None]


def encode_image(array: Floats, path: Path) -> bytes:
    """An array (1, 1 or 3, height, width) as a picture in the format of the file's name; values outside 0 to 1 are cut."""
    image = _pillow()
    if array.ndim != 4 or array.shape[0] != 1 or array.shape[1] not in MODES:
        raise InputError(f"a result of {'x'.join(map(str, array.shape))} is no picture: that is 1x1xHxW or 1x3xHxW", str(path),
                         "name a .npy or .npz file")
    levels = np.rint(np.clip(np.nan_to_num(array[0].astype(np.float32)), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    made = image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    buffer = io.BytesIO()
    try:
        made.save(buffer, format=image.registered_extensions()[path.suffix.lower()], quality=95)
    except (KeyError, OSError, ValueError) as error:
        raise InputError(f"the picture cannot be written in this format: {error}", str(path), "name a .png file") from None
    return buffer.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError(f"pictures need Pillow ({error}): pip install 'fusec[image]'") from None
    return Image
