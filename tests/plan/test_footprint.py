"""Pyramid footprints against numbers worked out by hand, and tiles that cannot be."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fusec.errors import Infeasible
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.plan.footprint import granularity, pyramid
from fusec.schedule.ir import WHOLE, Affine, Chain, Tile
from tests.small_networks import conv, max_pool, network, whole_chain


def rows(graph: LayerGraph, height: int) -> dict[str, tuple[Fraction, int, int | None]]:
    """(scale, offset, extent) along y of every tensor for a tile of `height` rows and all channels."""
    chain = whole_chain(graph)
    boxes = pyramid(chain, Tile(1, chain.shapes[chain.output].channels, height, height))
    return {t: (b.y.scale, b.y.offset, b.y.extent) for t, b in boxes.tensors.items()}


def test_the_first_five_convolutions_of_vgg() -> None:
    """Back from one pixel: 3 rows, pooled 6, then 8, 10, pooled 20, 22, 24; the padding moves each start."""
    graph = network(L.Input(3, 224, 224), conv1_1=conv(4), conv1_2=conv(4), pool1=max_pool(2, 2), conv2_1=conv(4),
                    conv2_2=conv(4), pool2=max_pool(2, 2), conv3_1=conv(4))
    assert rows(graph, 1) == {
        "conv3_1": (1, 0, 1), "pool2": (1, -1, 3), "conv2_2": (2, -2, 6), "conv2_1": (2, -3, 8), "pool1": (2, -4, 10),
        "conv1_2": (4, -8, 20), "conv1_1": (4, -9, 22), "x": (4, -10, 24)}
    assert rows(graph, 14)["x"] == (4, -10, 24 + 13 * 4)


def test_the_first_two_convolutions_of_alexnet() -> None:
    graph = network(L.Input(3, 227, 227), conv1=conv(4, 11, pad=0, stride=4), pool1=max_pool(3, 2), conv2=conv(4, 5),
                    pool2=max_pool(3, 2))
    assert rows(graph, 1) == {"pool2": (1, 0, 1), "conv2": (2, 0, 3), "pool1": (2, -2, 7), "conv1": (4, -4, 15),
                              "x": (16, -16, 67)}


def test_a_covering_tile_stands_still() -> None:
    graph = network(L.Input(3, 8, 8), a=conv(4), b=conv(4, stride=2))
    assert rows(graph, 4) == rows(graph, 9) == {"b": (0, 0, 4), "a": (0, -1, 9), "x": (0, -2, 11)}


def test_branches_are_united() -> None:
    """The skip needs 4 rows, the convolution beside it 8: the producer makes 8."""
    graph = network(L.Input(3), a=conv(4), b=conv(4, 5), s=(L.Add(), "b", "a"))
    chain = whole_chain(graph)
    boxes = pyramid(chain, Tile(1, 4, 4, 4))
    assert boxes.reads["s", 1].y == Affine(Fraction(1), 0, 4)
    assert boxes.reads["b", 0].y == boxes.tensors["a"].y == Affine(Fraction(1), -2, 8)
    assert boxes.tensors["x"].y == Affine(Fraction(1), -3, 10)


@pytest.mark.parametrize(("layer", "height", "expected"), [
    (conv(2, 3), 4, (1, -1, 6)),
    (conv(2, 3, stride=3, pad=0), 4, (3, 0, 12)),
    (L.Conv2d((3, 3), dilation=(4, 1), padding=L.Padding(top=5, bottom=3)), 4, (1, -5, 12)),
    (L.Conv2d((1, 1), (2, 2)), 4, (2, 0, 7)),
    (L.AvgPool2d((3, 3), (2, 2), ceil_mode=True), 4, (2, 0, 9)),
    (L.Upsample((2, 2)), 4, (Fraction(1, 2), 0, 2)),
    (L.Upsample((3, 1)), 6, (Fraction(1, 3), 0, 2)),
    (L.Upsample((2, 2), "linear"), 4, (Fraction(1, 2), -1, 4)),
    (L.Upsample((3, 3), "linear"), 6, (Fraction(1, 3), -1, 4)),
    (L.Upsample((1, 1), "linear"), 6, (1, 0, 6)),
    (L.Upsample((2, 2), "linear", "asymmetric"), 4, (Fraction(1, 2), 0, 3)),
    (L.SpaceToDepth(3), 4, (3, 0, 12)),
    (L.Crop(2, 1), 4, (1, 2, 4)),
    (L.Pad(L.Padding(2, 1)), 4, (1, -2, 4)),
    (L.MaxPool2d((1, 1), (3, 3)), 4, (3, 0, 10)),
    (L.ConvTranspose2d((4, 4), (2, 2), padding=L.Padding(1, 1, 1, 1)), 4, (Fraction(1, 2), -1, 4)),
    (L.ConvTranspose2d((2, 2), (2, 2)), 4, (Fraction(1, 2), 0, 2)),
    (L.ConvTranspose2d((3, 3), (1, 1), padding=L.Padding(1, 1, 1, 1)), 4, (1, -1, 6)),
    (L.Relu(), 4, (1, 0, 4)),
])
def test_rows_read_by_one_layer(layer: L.Layer, height: int, expected: tuple[Fraction, int, int]) -> None:
    assert rows(network(L.Input(2), n=layer), height)["x"] == expected


def test_enlarging_behind_a_convolution() -> None:
    """Rows 4..7 of the enlarged image's convolution need rows 3..8 of it, made of rows 1..4."""
    graph = network(L.Input(2), up=L.Upsample((2, 2)), a=conv(2))
    found = rows(graph, 4)
    assert found["up"] == (1, -1, 6)
    assert found["x"] == (Fraction(1, 2), -1, 4)


def test_tile_extents_keep_origins_whole() -> None:
    graph = network(L.Input(2), a=L.Upsample((2, 4)), b=L.Upsample((3, 1)))
    assert [granularity(whole_chain(graph), a) for a in L.Axis] == [6, 4]
    graph = network(L.Input(8), a=conv(8, stride=2), b=L.DepthToSpace(2), c=conv(2))
    assert [granularity(whole_chain(graph), a) for a in L.Axis] == [2, 2]
    assert granularity(whole_chain(network(L.Input(8), a=conv(8, stride=2))), L.Axis.Y) == 1


def test_enlargements_side_by_side_need_a_common_multiple() -> None:
    graph = network(L.Input(2, 12, 12), a=(conv(2, 1, stride=3), "x"), b=(conv(2, 1, stride=2), "x"),
                    t=(L.Upsample((3, 3)), "a"), u=(L.Upsample((2, 2)), "b"), s=(L.Add(), "t", "u"))
    chain = Chain(graph, ("t", "u", "s"))
    assert granularity(chain, L.Axis.Y) == 6
    boxes = pyramid(chain, Tile(1, 2, 6, 6)).tensors
    assert (boxes["a"].y, boxes["b"].y) == (Affine(Fraction(1, 3), 0, 2), Affine(Fraction(1, 2), 0, 3))


def test_one_pixel_or_channel_goes_with_all() -> None:
    """What is spread stands still whatever the tile; behind it nothing has to divide the tile."""
    graph = network(L.Input(8), outputs=("s", "t"), g=L.GlobalMaxPool2d(), k=L.ConvTranspose2d((1, 1), (3, 3), out_channels=8),
                    s=(L.Mul(), "k", "x"), j=(conv(1), "x"), t=(L.Add(), "j", "x"))
    chain, still = Chain(graph, ("k", "s")), Affine(Fraction(0), 0, 1)
    boxes = pyramid(chain, Tile(1, 2, 4, 4)).tensors
    assert (boxes["k"].c, boxes["k"].y, boxes["k"].x) == (Affine(Fraction(1), 0, 2), still, still)
    assert (boxes["g"].c, boxes["g"].y) == (Affine(Fraction(0), 0, 8), still)
    assert granularity(chain, L.Axis.Y) == 1
    boxes = pyramid(Chain(graph, ("j", "t")), Tile(1, 8, 4, 4)).tensors
    assert (boxes["j"].c, boxes["j"].y, boxes["x"].y) == (still, Affine(Fraction(1), 0, 4), Affine(Fraction(1), -1, 6))


def test_channels() -> None:
    graph = network(L.Input(8), d=conv(8, groups=8), p=conv(6, 1), q=L.Relu())
    tile = Tile(1, 2, 4, 4)
    boxes = pyramid(whole_chain(graph), tile).tensors
    two, every = Affine(Fraction(1), 0, 2), Affine(Fraction(0), 0, 8)
    assert (boxes["q"].c, boxes["p"].c, boxes["d"].c, boxes["x"].c) == (two, two, every, every)
    depthwise = pyramid(Chain(graph, ("d",)), tile).tensors
    assert (depthwise["d"].c, depthwise["x"].c) == (two, two)
    grouped = network(L.Input(8), n=conv(8, groups=4))
    assert pyramid(whole_chain(grouped), tile).tensors["x"].c == every


def test_whole_images() -> None:
    unknown = pyramid(whole_chain(network(L.Input(4), g=L.GlobalAvgPool2d())), Tile(1, 4, 1, 1)).tensors["x"]
    assert (unknown.y, unknown.x) == (WHOLE, WHOLE)
    for layer in (L.GlobalAvgPool2d(), L.Flatten(), L.Linear(5)):
        graph = network(L.Input(4, 6, 7), n=layer)
        box = pyramid(whole_chain(graph), Tile(1, graph.shapes["n"].channels, 1, 1)).tensors["x"]
        assert (box.c.extent, box.y.extent, box.x.extent) == (4, 6, 7)
        assert {box.c.scale, box.y.scale, box.x.scale} == {0}


@pytest.mark.parametrize(("graph", "tile", "message"), [
    (network(L.Input(3), a=conv(4), g=L.GlobalAvgPool2d()), Tile(1, 4, 1, 1), "'a' is read as a whole image"),
    (network(L.Input(3), a=conv(4), b=(conv(4), "a"), c=(L.Concat(), "a", "b")), Tile(1, 2, 4, 4), "'c' mixes channels"),
    (network(L.Input(4, 8, 1), a=L.Relu(), b=(L.Conv2d((8, 1)), "a"), c=(L.Upsample((8, 1)), "b"), d=(L.Relu(), "a"),
             e=(L.Concat(), "c", "d")), Tile(1, 5, 2, 1), "different rates"),
    (network(L.Input(3), g=L.GlobalMaxPool2d(), s=(L.Mul(), "x", "g")), Tile(1, 3, 4, 4), "'x' move over it at"),
    (network(L.Input(3), outputs=("b",), a=conv(4), b=(conv(4), "x")), Tile(1, 4, 4, 4), "'a' is not read inside"),
])
def test_tiles_that_cannot_be(graph: LayerGraph, tile: Tile, message: str) -> None:
    chain = whole_chain(graph)
    with pytest.raises(Infeasible, match=message):
        pyramid(chain, tile)
