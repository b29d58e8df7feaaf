"""Say what is on a photo, with a classifier from an ONNX file.

In: a network that makes one number per class of an image, photos, and a text file with the class names, one per line. Out: the
most likely classes of each. Networks differ in what they were trained on: the options say size, range, order of colours, and
what is taken off and divided by; the defaults are those of SqueezeNet v1.1 from Caffe (BGR from 0 to 255, minus means).

    python examples/classify.py squeezenet_v11.onnx photo.jpg --labels squeezenet_labels.txt
    python examples/classify.py resnet.onnx photo.jpg --labels classes.txt --size 224 --rgb --range 1 \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

import fusec
from fusec.errors import FusecError, InputError

BEST = 5
CAFFE = (104.0, 117.0, 123.0)  # means of blue, green and red over ImageNet

Floats = NDArray[np.float32]


def network_input(photo: Image.Image, options: argparse.Namespace) -> Floats:
    """A photo as (3, size, size), as the network was trained on it: stretched to a square."""
    square = photo.convert("RGB").resize((options.size, options.size), Image.Resampling.BILINEAR)
    levels = np.asarray(square, np.float32)[:, :, ::1 if options.rgb else -1] * np.float32(options.range / 255)
    return ((levels - np.float32(options.mean)) / np.float32(options.std)).transpose(2, 0, 1)


def likelihoods(scores: Floats) -> Floats:
    """Scores as parts of one; those of a network that ends in a softmax are that already."""
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def three(text: str) -> tuple[float, ...]:
    """`a,b,c` as numbers."""
    numbers = tuple(float(part) for part in text.split(","))
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers")
    return numbers


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Say what is on a photo.")
    parser.add_argument("network", type=Path, help="an ONNX file or a description, of a classifier")
    parser.add_argument("photos", type=Path, nargs="+", metavar="photo")
    parser.add_argument("--labels", type=Path, required=True, help="names of the classes, one per line")
    parser.add_argument("--size", type=int, default=227, help="height and width that photos are stretched to")
    parser.add_argument("--range", type=float, default=255.0, help="the largest value: 1 or 255")
    parser.add_argument("--rgb", action="store_true", help="colours are red, green, blue instead of the other way round")
    parser.add_argument("--mean", type=three, default=CAFFE, help="taken off each colour")
    parser.add_argument("--std", type=three, default=(1.0, 1.0, 1.0), help="each colour is divided by this")
    parser.add_argument("--target", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    try:
        labels = options.labels.read_text(encoding="utf-8").splitlines()
        photos = np.stack([network_input(Image.open(path), options) for path in options.photos])
        model = fusec.compile(options.network, target=options.target, shape=photos.shape)
        scores = model(photos).reshape(len(photos), -1)
        if scores.shape[1] != len(labels):
            raise InputError(f"the network has {scores.shape[1]} classes, not {len(labels)}", str(options.labels))
    except (FusecError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, FusecError) else 2
    table = Table("photo", "likely", "class", box=None, pad_edge=False)
    for path, row in zip(options.photos, likelihoods(scores), strict=True):
        for place, index in enumerate(np.argsort(-row, kind="stable")[:BEST]):
            table.add_row("" if place else path.name, f"{row[index]:.1%}", labels[index])
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
