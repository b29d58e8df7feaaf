"""Enlarge a picture, or a clip frame by frame, with a network from an ONNX file (or a description with weights).

In: an upscaling network for luma or RGB from 0 to 1, and a picture or a clip. Out: the same, as many times larger as the
network makes it. Networks of one channel get the luma; the colours are enlarged bicubically.

    python examples/upscale.py model.onnx picture.png -o large.png     # extras: onnx, image
    python examples/upscale.py model.onnx clip.mp4 -o large.mp4        # and video
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fusec
from fusec.errors import FusecError, InputError, MissingError

CLIPS = (".mp4", ".mkv", ".mov", ".webm", ".avi")

Floats = NDArray[np.float32]


def planes(picture: Image.Image, channels: int) -> Floats:
    """What the network reads: (1, channels, height, width), 0 to 1; of YCbCr the luma alone."""
    levels = np.asarray(picture, np.float32) / np.float32(255)
    return np.ascontiguousarray(levels[:, :, :channels].transpose(2, 0, 1))[None]


def enlarge(model: Any, picture: Image.Image, channels: int) -> Image.Image:
    """One picture of any size."""
    source = picture.convert("RGB" if channels == 3 else "YCbCr")
    made = model(planes(source, channels))[0]
    levels = np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    if channels == 3:
        return Image.fromarray(levels)
    colours = source.resize((levels.shape[1], levels.shape[0]), Image.Resampling.BICUBIC)
    _, blue, red = colours.split()
    return Image.merge("YCbCr", (Image.fromarray(levels[:, :, 0]), blue, red)).convert("RGB")


def channels_of(model: Any) -> int:
    """1 or 3: how many channels the network reads and makes."""
    rules = {rule.name: rule.channels for rule in model.program.tensors}
    ports = (*model.program.inputs, *model.program.outputs)
    found = [rules[port.tensor] for port in ports]
    if found not in ([1, 1], [3, 3]):
        raise InputError(f"an upscaler has one input and one output of 1 or 3 channels, not of {found}", model.program.name)
    return found[0]


def enlarge_picture(model: Any, source: Path, target: Path) -> None:
    channels = channels_of(model)
    picture = Image.open(source)
    began = time.perf_counter()
    large = enlarge(model, picture, channels)
    seconds = time.perf_counter() - began
    large.save(target)
    print(f"{source.name}: {picture.width} x {picture.height} to {large.width} x {large.height} in {seconds * 1000:.0f} ms")


def enlarge_clip(model: Any, source: Path, target: Path) -> None:
    """Every frame of the first video track, at the same rate; sound is left out."""
    try:
        import av
    except ImportError:
        raise MissingError("clips need PyAV: python -m pip install 'fusec[video]'") from None
    channels = channels_of(model)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with av.open(str(source)) as read, av.open(str(target), "w") as written, Progress(*columns) as progress:
        track = read.streams.video[0]
        task = progress.add_task(source.name, total=track.frames or None)
        stream = None
        for frame in read.decode(track):
            large = enlarge(model, frame.to_image(), channels)
            if stream is None:
                stream = written.add_stream("h264", rate=track.average_rate)
                stream.width, stream.height = (side - side % 2 for side in large.size)  # colours are kept of 2 x 2 pixels
                stream.pix_fmt = "yuv420p"
            whole = large.crop((0, 0, stream.width, stream.height))
            written.mux(stream.encode(av.VideoFrame.from_image(whole)))
            progress.advance(task)
        if stream is None:
            raise InputError("this clip has no frames", str(source))
        written.mux(stream.encode())
    print(f"{source.name}: {progress.tasks[0].completed:.0f} frames to {stream.width} x {stream.height}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Enlarge a picture or a clip with a network.")
    parser.add_argument("network", type=Path, help="an ONNX file or a description, of an upscaler")
    parser.add_argument("source", type=Path, help=f"a picture, or a clip ({', '.join(CLIPS)})")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the large one is written")
    parser.add_argument("--target", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    try:
        if not options.source.is_file():
            raise InputError("no such file", str(options.source))
        model = fusec.compile(options.network, target=options.target)
        clip = options.source.suffix.lower() in CLIPS
        (enlarge_clip if clip else enlarge_picture)(model, options.source, options.output)
    except (FusecError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, FusecError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
