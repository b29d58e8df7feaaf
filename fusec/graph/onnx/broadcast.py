"""Constants that an ONNX node broadcasts over an image, as one number per channel.

In: an array and the image it meets, aligned at their last axes as in NumPy. Out: (channels,), or a Refusal where the array
varies in space or from image to image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusec.graph.onnx.refusal import Refusal
from fusec.graph.onnx.values import C, Image


def per_channel(array: NDArray[Any], image: Image, what: str = "constant") -> NDArray[Any]:
    """The constant for each channel, (channels,).

    Raises
    ------
    Refusal
        It has values along other axes, more axes than the image, or does not fit its channels.
    """
    if array.ndim > image.rank:
        raise Refusal(f"its {what} has {array.ndim} axes, more than the image's {image.rank}")
    shape = (1,) * (image.rank - array.ndim) + array.shape
    wrong = [axis for axis, extent in enumerate(shape) if axis != C and extent != 1]
    if wrong or shape[C] not in (1, image.channels):
        raise Refusal(f"its {what} of shape {list(array.shape)} is not one number, or one for each of the {image.channels} "
                      "channels", "constants that vary in space are not taken")
    return np.broadcast_to(array.reshape(-1), (image.channels,))
