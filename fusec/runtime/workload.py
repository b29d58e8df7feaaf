"""What one call has to do: sizes of all tensors, the variant and the tiles of every launch, and where intermediates lie.

In: a `Program` and the sizes of the caller's arrays. Out: a `Workload` of plain integers, which an engine turns into launches.
Every misfit of the sizes is found here, before anything is allocated or run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import InputError, InternalError, Problem
from .program import Launch, Program, TensorRule, Variant, evaluate

Extent = tuple[int, int]  # height, width

MAX_EXTENT = 1 << 20  # of an image's side; the same limit as in fusec.graph.limits
MAX_INTEGER = (1 << 31) - 1  # batch and tiles are 32-bit integers in kernels
MAX_MADE = 1 << 24  # of the side of a tensor made inside the network, so that kernels may scale and add to positions in 32 bits
ALIGNMENT = 64  # elements; intermediates start at multiples of it


@dataclass(frozen=True, eq=False)
class Step:
    """One launch at given sizes. `sizes` is what the kernel gets: batch, tiles along y, tiles along x, then extents."""

    launch: Launch
    variant: Variant
    tiles: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Workload:
    """One call at given sizes.

    `shapes` are (N, C, H, W) of every tensor as it is stored, with whole planes of channels; `offsets` say where in an arena of
    `arena` elements each intermediate starts.
    """

    batch: int
    shapes: Mapping[str, tuple[int, int, int, int]]
    steps: tuple[Step, ...]
    offsets: Mapping[str, int]
    arena: int


def arrange(program: Program, batch: int, images: tuple[Extent, ...]) -> Workload:
    """Work out a call.

    Parameters
    ----------
    batch
        Images per call; 0 makes a workload without steps.
    images
        Height and width of each input, in the order of `program.inputs`.

    Raises
    ------
    InputError
        When the sizes do not fit the network, with every misfit found.
    """
    extents = _extents(program, images)
    rules = {rule.name: rule for rule in program.tensors}
    shapes = {name: (batch, rules[name].channels, *extent) for name, extent in extents.items()}
    steps = tuple(_step(launch, shapes) for launch in program.launches) if batch else ()
    stored = {name: (n, program.stored_channels(name, c), h, w) for name, (n, c, h, w) in shapes.items()}
    offsets, arena = _place(program, {name: math.prod(shape) for name, shape in stored.items()})
    return Workload(batch, stored, steps, offsets, arena)


def _extents(program: Program, images: tuple[Extent, ...]) -> dict[str, Extent]:
    given = {port.tensor: image for port, image in zip(program.inputs, images, strict=True)}
    extents: dict[str, Extent] = {}
    problems: list[Problem] = []
    for rule in program.tensors:
        if rule.source is None:
            extents[rule.name] = given[rule.name]
            problems += _input_problems(program, rule, given[rule.name])
    if problems:
        raise InputError(problems)
    for rule in program.tensors:
        if rule.source is not None:
            extents[rule.name] = _made_extent(rule, extents, images)
    return extents


def _input_problems(program: Program, rule: TensorRule, image: Extent) -> Iterator[Problem]:
    name = next(port.name for port in program.inputs if port.tensor == rule.name)
    for side, value, terms in zip(("height", "width"), image, (rule.height, rule.width), strict=True):
        if terms and evaluate(terms, 0) != value:
            yield Problem(f"the {side} of input '{name}' is {evaluate(terms, 0)} in this network, not {value}")
        elif not 1 <= value <= MAX_EXTENT:
            yield Problem(f"the {side} of input '{name}' is {value}; it can be 1 to {MAX_EXTENT}")


def _made_extent(rule: TensorRule, extents: Mapping[str, Extent], images: tuple[Extent, ...]) -> Extent:
    """The extent of a tensor made from others; the first that does not fit ends the search, what follows from it is no news."""
    try:
        source = extents[rule.source or ""]
        others = [extents[name] for name in rule.same]
    except KeyError as error:
        raise InternalError(f"the size of {rule.name} follows from {error}, which comes later or not at all") from None
    asked = f"an image of {_listed(images)} does not fit"
    if any(other != source for other in others):
        read = list(dict.fromkeys((source, *others)))
        raise InputError(f"{asked}: '{rule.name}' would read {_listed(read)} pixels")
    extent = (evaluate(rule.height, source[0]), evaluate(rule.width, source[1]))
    if not 1 <= min(extent) <= max(extent) <= MAX_MADE:
        raise InputError(f"{asked}: '{rule.name}' would be {_listed([extent])} pixels",
                         hint=f"give a {'larger' if min(extent) < 1 else 'smaller'} image")
    return extent


def _listed(extents: Iterable[Extent]) -> str:
    return " and ".join(f"{height}x{width}" for height, width in extents)


def _step(launch: Launch, shapes: Mapping[str, tuple[int, int, int, int]]) -> Step:
    """Choose the first variant with enough tiles; the last one takes what is left."""
    shape = shapes[launch.output]
    for variant in launch.variants:
        grid = tuple(-(-extent // tile) for extent, tile in zip(shape, variant.tile, strict=True))
        tiles = math.prod(grid)
        if tiles >= variant.min_blocks:
            break
    if max(tiles, shape[0]) > MAX_INTEGER:
        raise InputError(f"a batch of {shape[0]} is too large: {launch.label} would have {tiles} tiles", hint="split the batch")
    extents = (extent for name in launch.sizes for extent in shapes[name][2:])
    return Step(launch, variant, tiles, (shape[0], grid[2], grid[3], *extents))


def _place(program: Program, elements: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Offsets of the intermediates in one arena: largest first, each at the lowest place free while it is alive."""
    external = {port.tensor for port in (*program.inputs, *program.outputs)}
    alive: dict[str, tuple[int, int]] = {}
    for index, launch in enumerate(program.launches):
        for name in (launch.output, *launch.inputs):
            if name not in external:
                alive[name] = (alive.get(name, (index, index))[0], index)
    offsets: dict[str, int] = {}
    arena = 0
    for name in sorted(alive, key=lambda n: (-elements[n], alive[n], n)):
        first, last = alive[name]
        taken = sorted((offsets[other], offsets[other] + elements[other]) for other in offsets
                       if alive[other][0] <= last and first <= alive[other][1])
        offset = 0
        for start, end in taken:
            if offset + elements[name] <= start:
                break
            offset = max(offset, -(-end // ALIGNMENT) * ALIGNMENT)
        offsets[name] = offset
        arena = max(arena, offset + elements[name])
    return offsets, arena
