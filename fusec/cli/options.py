"""The arguments and options that several commands share.

In: words of the command line. Out: checked values for the commands' functions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fusec.graph.limits import MAX_BATCH, MAX_EXTENT
from fusec.graph.onnx.cut import Cut
from fusec.targets.device import DTYPES

TARGETS = ("auto", "cpu", "cuda")

Command = TypeVar("Command", bound=Callable[..., Any])
Shape4 = tuple[int, int, int, int]

NETWORK = click.argument("network", metavar="NET")
TARGET = click.option("--target", type=click.Choice(TARGETS), default="auto", show_default=True,
                      help="What to compile for; auto is the GPU where there is one, else the CPU.")
DTYPE = click.option("--dtype", type=click.Choice(DTYPES), default=DTYPES[0], show_default=True,
                     help="The type of all tensors, weights among them; the half ones need a GPU.")
FUSE = click.option("--fuse", default="auto", show_default=True, metavar="auto|none|all|CHAINS",
                    help="Which layers share a kernel: what the cost model finds fastest, none, as many as fit, or named "
                         "chains such as \"conv1..pool2,conv3..conv5\".")
ARCH = click.option("--arch", metavar="sm_NN", help="Compile for this GPU architecture, such as sm_90; needs no GPU.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else on standard output.")


def parse_shape(ctx: click.Context, param: click.Parameter, value: str | None) -> Shape4 | None:
    """`NxCxHxW` as four integers."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,99})x(\d{1,99})x(\d{1,99})x(\d{1,99})", value.strip(), re.ASCII | re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{value!r} is not of the form NxCxHxW, such as 1x3x480x640")
    n, c, h, w = map(int, match.groups())
    if not (1 <= n <= MAX_BATCH and all(1 <= extent <= MAX_EXTENT for extent in (c, h, w))):
        raise click.BadParameter(f"{value!r}: the batch can be 1 to {MAX_BATCH:,}, the others 1 to {MAX_EXTENT:,}")
    return n, c, h, w


SHAPE = click.option("--shape", metavar="NxCxHxW", callback=parse_shape,
                     help="Batch, channels, height and width of the (first) input, to plan for; kernels "
                          "run at any other size too.")


def parse_tile(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`HxW` as two integers."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,7})x(\d{1,7})", value.strip(), re.ASCII | re.IGNORECASE)
    if match is None or not all(1 <= int(extent) <= MAX_EXTENT for extent in match.groups()):
        raise click.BadParameter(f"{value!r} is not of the form HxW, such as 7x7, both 1 to {MAX_EXTENT}")
    return int(match[1]), int(match[2])


TILE = click.option("--tile", metavar="HxW", callback=parse_tile,
                    help="With --explore: the output tile, which decides extra work and left edges.  [default: 1x1]")
LAYERS = click.option("--layers", metavar="FIRST..LAST", help="With --explore: this range of layers alone.")
BATCH = click.option("--batch", type=click.IntRange(1, MAX_BATCH),
                     help="Images of one call; image size and plan are the usual ones.")


def weights(command: Command) -> Command:
    """--weights and --random-weights."""
    file = click.option("--weights", type=click.Path(path_type=Path), metavar="FILE",
                        help="A .safetensors file instead of the one the description names.")
    seed = click.option("--random-weights", type=click.IntRange(0, (1 << 63) - 1), metavar="SEED",
                        help="Random weights of this seed instead of a file.")
    return file(seed(command))


def part(command: Command) -> Command:
    """--from and --to, as `cut`."""
    start = click.option("--from", "start", multiple=True, metavar="TENSOR",
                         help="Of an ONNX file: begin at this tensor, which becomes an input. May be repeated.")
    end = click.option("--to", "end", multiple=True, metavar="TENSOR",
                       help="Of an ONNX file: end at this tensor, which becomes an output. May be repeated.")

    @functools.wraps(command)
    def with_cut(*, start: tuple[str, ...], end: tuple[str, ...], **named: Any) -> Any:
        return command(cut=Cut(start, end), **named)
    return start(end(with_cut))  # type: ignore[return-value]


def only_one(**options: object) -> None:
    """Usage error when more than one of the options is given; a name's `_` stands for `-`."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other")
