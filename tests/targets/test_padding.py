"""Padding in the middle of a chain: outside the image a tensor is what its reader pads with, never a computed value.

Every case has several tiles, most of them at a border, with biases and activations that would make computed values there differ
from any padding; values are integers and compared exactly. Without --thorough every network is cut in every way, but not with
every size of a tile.
"""

from __future__ import annotations

import numpy as np
import pytest

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import simplify
from fusec.plan.construct import construct
from fusec.plan.footprint import granularity
from fusec.schedule.ir import Tile
from fusec.schedule.verify import verify
from tests.harness import Floats, Runner, chain_reference
from tests.small_networks import conv, image_of, max_pool, network, whole_chain

thorough = pytest.mark.thorough
ODD = L.Padding(2, 0, 0, 3)  # of another width on each side


def avg_pool(k: int, pad: int) -> L.AvgPool2d:
    return L.AvgPool2d((k, k), padding=L.Padding(*[pad] * 4))


def net(channels: int, height: int | None, width: int | None, **steps: object) -> LayerGraph:
    return simplify(network(L.Input(channels, height, width), **steps)).graph  # type: ignore[arg-type]


def three_convs(height: int | None, width: int | None) -> LayerGraph:
    return net(3, height, width, a=conv(5), b=L.Clip(1, 5), c=conv(4, 5), d=L.LeakyRelu(0.5), e=conv(6), f=conv(3))


def lopsided(height: int | None, width: int | None) -> LayerGraph:
    a, b, c = (L.Conv2d((3, 4), padding=ODD, out_channels=n) for n in (4, 3, 5))
    return net(2, height, width, a=a, b=b, c=c, d=conv(2))


def max_pool_behind_relu(height: int | None, width: int | None) -> LayerGraph:
    return net(3, height, width, a=conv(6), b=L.Clip(-4, -1), p=max_pool(3, 1, pad=1), c=conv(4), q=max_pool(3, 2, pad=1),
               d=conv(2))


def max_pool_beside_conv(height: int | None, width: int | None) -> LayerGraph:
    """One tensor is padded with -inf by one reader and with 0 by the other."""
    return net(2, height, width, a=conv(4), n=L.Clip(-4, -1), p=(max_pool(3, 1, pad=1), "n"), c=(conv(4), "n"),
               s=(L.Add(), "p", "c"), d=conv(3))


def avg_pool_behind_bias(height: int | None, width: int | None) -> LayerGraph:
    return net(3, height, width, a=conv(4), p=L.AvgPool2d((2, 2), padding=L.Padding(1, 0, 1, 0)), c=conv(3),
               q=L.AvgPool2d((4, 4), (2, 2), padding=L.Padding(1, 2, 3, 0)))


def halos_of_a_residual(height: int | None, width: int | None) -> LayerGraph:
    """The skip is read with a halo of 0, the branch with one of 3, and their sum, kept small for float16, with one of 2."""
    return net(2, height, width, a=conv(4), b=conv(4), c=conv(4, 5), s=(L.Add(), "a", "c"), t=L.Clip(-99, 77), d=conv(3, 5),
               e=conv(2))


def halos_of_a_concat(height: int | None, width: int | None) -> LayerGraph:
    return net(2, height, width, a=conv(3), b=(conv(4, 5), "a"), c=(conv(2, 1), "a"), j=(L.Concat(), "a", "b", "c"), d=conv(5),
               e=conv(3))


def enlarged(height: int | None, width: int | None) -> LayerGraph:
    return net(2, height, width, a=conv(4), u=L.Upsample((2, 2)), b=conv(4), r=L.Relu(), s=L.DepthToSpace(2), c=conv(3),
               d=conv(2))


def enlarged_linearly(height: int | None, width: int | None) -> LayerGraph:
    """What lies outside the image is padding for one reader and the edge for the other."""
    up = L.Upsample((2, 2), "linear")
    return net(2, height, width, a=conv(4), u=(up, "a"), b=(conv(4), "a"), v=(L.Upsample((2, 2), "linear", "asymmetric"), "b"),
               s=(L.Add(), "u", "v"), c=conv(3), d=conv(2))


def pads_and_crops(height: int | None, width: int | None) -> LayerGraph:
    """Padding of another value inside, of which a crop leaves some."""
    return net(2, height, width, a=conv(4), p=(L.Pad(L.Padding(2, 3, 1, 4), 5.0), "a"), b=(conv(4), "p"),
               q=L.Crop(1, 2, 0, 3), m=max_pool(3, 1, pad=1), s=(L.Pad(L.Padding(1, 0, 0, 1), -1.0), "m"), c=conv(3))


def sliced(height: int | None, width: int | None) -> LayerGraph:
    return net(2, height, width, a=conv(7), f=(L.SliceChannels(0, 3), "a"), g=(L.SliceChannels(1, 7, 2), "a"),
               s=(L.Sub(), "f", "g"), b=conv(5), u=L.Upsample((2, 2)), t=L.SpaceToDepth(2), c=conv(2))


def transposed(height: int | None, width: int | None) -> LayerGraph:
    up = L.ConvTranspose2d((3, 3), (2, 2), padding=L.Padding(1, 1, 1, 1), out_channels=3, output_padding=(1, 1))
    return net(2, height, width, a=conv(4), t=up, b=conv(4), u=up, c=conv(2))


def strided(height: int | None, width: int | None) -> LayerGraph:
    return net(3, height, width, a=conv(4), b=conv(5, stride=2), c=conv(4), d=conv(3, stride=2), e=conv(2))


def grouped_end(height: int | None, width: int | None, block: int = 1) -> LayerGraph:
    return net(4, height, width, a=conv(6), b=conv(6 * block), g=conv(12 * block, groups=3))


def depthwise_end(height: int | None, width: int | None, block: int = 1) -> LayerGraph:
    return net(4, height, width, a=conv(12), b=conv(12 * block), g=conv(12 * block, groups=12 * block))


def depthwise_pair(height: int | None, width: int | None, block: int = 1) -> LayerGraph:
    return net(12 * block, height, width, a=conv(12 * block, groups=12 * block), b=L.Clip(1, 5),
               g=conv(12 * block, groups=12 * block))


def dense_end(height: int | None, width: int | None, block: int = 1) -> LayerGraph:
    return net(4, height, width, a=conv(6), b=conv(6), g=conv(12 * block))


def pooled_end(height: int | None, width: int | None, block: int = 1) -> LayerGraph:
    return net(4, height, width, a=conv(6), g=conv(12 * block), p=max_pool(3, 2, pad=1))


GRAPHS = {f.__name__: f for f in (three_convs, lopsided, max_pool_behind_relu, max_pool_beside_conv, avg_pool_behind_bias,
                                  halos_of_a_residual, halos_of_a_concat, enlarged, transposed, strided, enlarged_linearly,
                                  pads_and_crops, sliced)}
ENDS = {f.__name__: f for f in (grouped_end, depthwise_end, depthwise_pair, dense_end, pooled_end)}


def check(target: Runner, graph: LayerGraph, tile: Tile, staged: tuple[str, ...], *images: Floats,
          step: int | None = None) -> None:
    chain = whole_chain(graph)
    schedule = construct(chain, tile, target.device, staged, step)
    verify(schedule)
    for x in images:  # one build for all of them
        wanted = chain_reference(chain, {"x": x}, target.dtype)[chain.output]
        np.testing.assert_array_equal(target.run(schedule, {"x": x}), wanted)


@pytest.mark.parametrize("staged", [pytest.param((), id="direct"), pytest.param(("x",), id="staged", marks=thorough)])
@pytest.mark.parametrize("name", GRAPHS)
def test_small_tiles_of_any_image(target: Runner, name: str, staged: tuple[str, ...]) -> None:
    """Tiles of 4x8: the border crosses most of them; images smaller than a tile, of one row, of several tiles."""
    graph = GRAPHS[name](None, None)
    tile = Tile(2, graph.shapes[graph.outputs[0]].channels, 4, 8)
    check(target, graph, tile, staged, *(image_of(graph, h, w, 3) for h, w in ((13, 21), (1, 17), (5, 3), (8, 16))))


@pytest.mark.parametrize(("times", "staged"), [
    pytest.param(1, (), id="1-direct"), pytest.param(3, ("x",), id="3-staged"),
    pytest.param(1, ("x",), id="1-staged", marks=thorough), pytest.param(3, (), id="3-direct", marks=thorough)])
@pytest.mark.parametrize("name", GRAPHS)
def test_strips_of_any_image(target: Runner, name: str, times: int, staged: tuple[str, ...]) -> None:
    """Strips of 12 rows walked down in short and in long steps: borders above, below, and inside a step."""
    graph = GRAPHS[name](None, None)
    step = granularity(whole_chain(graph), L.Axis.Y) * times
    tile = Tile(2, graph.shapes[graph.outputs[0]].channels, 12 * times, 8)
    check(target, graph, tile, staged, *(image_of(graph, h, w, 3) for h, w in ((13, 21), (1, 17), (5, 3), (24, 16))), step=step)


@pytest.mark.parametrize("name", GRAPHS)
def test_one_strip_for_a_whole_image(target: Runner, name: str) -> None:
    """Reuse along both axes: nothing is computed twice, and columns outside the image are known."""
    graph = GRAPHS[name](9, 7)
    shape, step = graph.shapes[graph.outputs[0]], granularity(whole_chain(graph), L.Axis.Y)
    tile = Tile(2, shape.channels, -(-(shape.height or 0) // step) * step, shape.width or 0)
    check(target, graph, tile, ("x",), image_of(graph, 9, 7, 3), step=step)


@pytest.mark.parametrize("channels", [6, *(pytest.param(n, marks=thorough) for n in (1, 2))])
@pytest.mark.parametrize("name", ENDS)
def test_strips_of_channel_tiles(target: Runner, name: str, channels: int) -> None:
    block = target.device.layout.block
    graph = ENDS[name](None, None, block)
    check(target, graph, Tile(2, channels * block, 4, 5), (), image_of(graph, 7, 11, 3), step=2)


@pytest.mark.parametrize("name", GRAPHS)
def test_one_tile_for_a_whole_image(target: Runner, name: str) -> None:
    """The box of every tensor is then known, and what of it lies outside the image is not computed at all."""
    graph = GRAPHS[name](9, 7)
    shape = graph.shapes[graph.outputs[0]]
    tile = Tile(2, shape.channels, shape.height or 0, shape.width or 0)
    check(target, graph, tile, ("x",), image_of(graph, 9, 7, 3))


@pytest.mark.parametrize("axis", [L.Axis.Y, pytest.param(L.Axis.X, marks=thorough)])
@pytest.mark.parametrize("name", GRAPHS)
def test_whole_along_one_axis(target: Runner, name: str, axis: L.Axis) -> None:
    graph = GRAPHS[name](8, 12)
    shape = graph.shapes[graph.outputs[0]]
    sides = (shape.height or 0, 4) if axis is L.Axis.Y else (4, shape.width or 0)
    check(target, graph, Tile(1, shape.channels, *sides), (), image_of(graph, 8, 12, 2))


@pytest.mark.parametrize("channels", [2, 3, *(pytest.param(n, marks=thorough) for n in (1, 4, 6))])
@pytest.mark.parametrize("name", ENDS)
def test_channel_tiles(target: Runner, name: str, channels: int) -> None:
    """The last stage in slices of its channels, some across and some inside groups; slices of planes are planes."""
    block = target.device.layout.block
    graph = ENDS[name](None, None, block)
    check(target, graph, Tile(2, channels * block, 4, 5), (), image_of(graph, 7, 11, 3))


UP = L.ConvTranspose2d((3, 3), (2, 2), out_channels=4)
PIXELS = {"global_avg_pool2d": L.GlobalAvgPool2d(), "linear": L.Linear(5), "wide linear": L.Linear(5), "flatten": L.Flatten()}


@pytest.mark.parametrize("tile", [(4, 8), (8, 4), *(pytest.param(t, marks=thorough) for t in ((4, 4), (8, 8)))], ids=str)
@pytest.mark.parametrize("name", PIXELS)
def test_one_pixel_in_a_box_that_moves(target: Runner, name: str, tile: tuple[int, int]) -> None:
    """Tiles of what a single pixel is enlarged to: most of a tile's box of the pixel lies outside, for some tiles all of it."""
    side = 6 if name == "wide linear" else 2
    graph = net(4, side, side, a=conv(4), g=PIXELS[name], h=L.Clip(1, 5), u=UP, v=L.Upsample((2, 2)), c=conv(3))
    assert graph.shapes["c"].height == 6
    check(target, graph, Tile(2, 3, *tile), (), image_of(graph, side, side, 3, 0, 4) * 4)


@pytest.mark.parametrize("step", [1, 2])
def test_one_pixel_walked_down(target: Runner, step: int) -> None:
    """A convolution of a single position, a warp's work on CUDA, whose reader pads it: its rows are a line buffer."""
    graph = net(4, 6, 6, a=conv(8, 6, pad=0), c=conv(3, 3, pad=2))
    assert (graph.shapes["a"].height, graph.shapes["c"].height) == (1, 3)
    check(target, graph, Tile(2, 3, 4, 3), (), image_of(graph, 6, 6, 3), step=step)


def test_flatten_beside_a_padded_reader(target: Runner) -> None:
    """The box that flatten reads starts before the image, since a convolution reads its border."""
    graph = net(2, 3, 4, a=conv(3), f=L.Flatten(), b=(conv(2), "a"), g=L.Flatten(), j=(L.Concat(), "f", "g"), c=conv(5))
    check(target, graph, Tile(2, 5, 1, 1), (), image_of(graph, 3, 4, 3))


@pytest.mark.parametrize("after", [False, True])
def test_a_reader_of_nothing_but_padding(target: Runner, after: bool) -> None:
    """The only window of a layer starts three pixels before an image of one pixel."""
    skips = L.Conv2d((1, 1), (7, 7), padding=L.Padding(3, 3, 3, 3), out_channels=2)
    graph = net(2, 1, 1, a=conv(3), b=skips, **({"c": conv(2)} if after else {}))
    assert (graph.shapes["b"].height, graph.shapes["b"].width) == (1, 1)
    check(target, graph, Tile(1, 2, 1, 1), ("x",), image_of(graph, 1, 1, 2))
