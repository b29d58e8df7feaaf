"""Stages in half precision that work in whole planes of eight channels: small integers, exact, and the kernel they are for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import simplify
from fusec.pipeline import mapping
from fusec.plan.construct import construct
from fusec.schedule.ir import Schedule, Tile
from fusec.schedule.verify import verify
from fusec.targets.device import DEVICES, in_precision
from tests.harness import EmulatedCuda, Machine, assert_same_bits, chain_reference
from tests.small_networks import Step, conv, max_pool, network, whole_chain

EXACT = {"float16": 2048, "bfloat16": 256}  # the largest integer up to which all are there
RUNNER = EmulatedCuda("all")
Sizes = tuple[int, int, int, int]


def thin(graph: LayerGraph) -> LayerGraph:
    """The graph simplified; weights are -1, 0 and 1, most of a sum's many are 0, so that sums stay small."""
    rng = np.random.default_rng(3)
    for node in graph.layers:
        if "weight" in node.params:
            weight = node.params["weight"]
            weight[...] = np.sign(weight) * (rng.random(weight.shape) < min(0.6, 4 / np.prod(weight.shape[1:])))
    return simplify(graph).graph


def schedule_in(dtype: str, graph: LayerGraph, tile: Sizes, staged: bool = True, step: int | None = None) -> Schedule:
    device, chain = in_precision(DEVICES["h200"], dtype), whole_chain(graph)
    schedule = construct(chain, Tile(*tile), device, chain.inputs if staged else (), step)
    verify(schedule, device)
    return schedule


def functions(schedule: Schedule, dtype: str) -> list[str]:
    device = in_precision(DEVICES["h200"], dtype)
    return [c.function for c in mapping(device)(schedule, device).calls]


def check(graph: LayerGraph, tiles: Iterable[Sizes], size: tuple[int, int, int], wanted: str, *, dtype: str = "float16",
          staged: bool = True, step: int | None = None) -> None:
    """Exact for every tile, and through `wanted`, a library function."""
    chain, device = whole_chain(graph), in_precision(DEVICES["h200"], dtype)
    rng = np.random.default_rng(1)
    images = {t: rng.integers(-2, 3, (size[0], chain.shapes[t].channels, *size[1:])).astype(np.float32) for t in chain.inputs}
    tensors = chain_reference(chain, images)
    assert max(np.abs(v).max(initial=0) for v in tensors.values()) <= EXACT[dtype], "too large to be exact"
    assert np.abs(tensors[chain.output]).max() > 1
    for tile in tiles:
        schedule = schedule_in(dtype, graph, tile, staged, step)
        assert wanted in functions(schedule, dtype)
        assert_same_bits(RUNNER.run(schedule, images, Machine(device)) + 0, tensors[chain.output].astype(np.float32) + 0)


def depthwise(channels: int, kernel: L.Pair = (3, 3), stride: L.Pair = (1, 1), dilation: L.Pair = (1, 1),
              pad: Sizes = (1, 1, 1, 1)) -> L.Conv2d:
    return L.Conv2d(kernel, stride, dilation, L.Padding(*pad), out_channels=channels, groups=channels)


def between(channels: int, **steps: Step) -> LayerGraph:
    """Layers behind a convolution 1x1 that makes `channels` channels of 3, and before one that makes 5 of them."""
    return thin(network(L.Input(3), first=conv(channels, 1), **steps, last=conv(5, 1)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layer", [depthwise(16), depthwise(13), depthwise(16, (3, 3), (2, 2)),
                                   depthwise(9, (5, 3), (1, 2), (1, 2), (2, 2, 2, 2)),
                                   depthwise(8, (3, 9), (2, 1), (1, 1), (1, 1, 4, 4)), depthwise(8, (1, 1), pad=(0, 0, 0, 0))],
                         ids=["16", "13", "stride", "dilation", "wide", "1x1"])
def test_depthwise_convolutions(layer: L.Conv2d, dtype: str) -> None:
    check(between(layer.out_channels, d=layer), [(1, 5, 4, 6), (2, 5, 3, 7), (1, 5, 2, 1)], (2, 11, 19), "depthwise_planes",
          dtype=dtype)


def test_depthwise_convolutions_of_device_memory() -> None:
    """Alone, with planes on both sides: all channels, and some of them."""
    graph = thin(network(L.Input(24), d=conv(24, 3, groups=24)))
    schedule = schedule_in("float16", graph, (1, 8, 4, 6), staged=False)
    assert functions(schedule, "float16") == ["conv2d"], "a network's input and output are no planes"
    inner = thin(network(L.Input(3), a=conv(24, 1), d=conv(24, 3, groups=24), b=conv(5, 1)))
    check(inner, [(1, 5, 4, 6)], (1, 9, 13), "depthwise_planes", staged=False)


def test_depthwise_convolutions_of_strips_and_before_pools() -> None:
    graph = thin(network(L.Input(8), a=conv(24, 1), d=conv(24, groups=24), r=L.Relu(), b=conv(8, 1), s=(L.Add(), "b", "x")))
    check(graph, [(1, 8, 16, 40)], (1, 29, 37), "depthwise_planes", step=4)
    ending = thin(network(L.Input(3), a=conv(13, 1), d=conv(13, groups=13)))
    check(ending, [(1, 13, 3, 5)], (1, 9, 11), "conv2d")
    pooled = between(8, d=conv(8, groups=8), p=max_pool(3, 2, pad=1))
    check(pooled, [(1, 5, 4, 6)], (1, 19, 21), "depthwise_planes")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_grouped_convolutions_by_matrix_instructions(dtype: str) -> None:
    """Groups of eights of channels, with an odd number of planes too; tiles of all channels and of some."""
    inner = between(48, g=conv(32, groups=2), h=conv(48, groups=4, stride=2))
    check(inner, [(1, 5, 4, 6), (2, 5, 3, 2)], (2, 11, 19), "conv2d_mma", dtype=dtype)
    ending = thin(network(L.Input(3), a=conv(24, 1), g=conv(48, groups=3)))
    check(ending, [(1, 48, 4, 6), (1, 16, 4, 6), (1, 24, 3, 9)], (1, 11, 19), "conv2d_mma", dtype=dtype)
    assert "conv2d" not in functions(schedule_in(dtype, ending, (1, 16, 4, 6)), dtype)


def test_grouped_convolutions_of_device_memory_and_before_pools() -> None:
    first = thin(network(L.Input(16), g=conv(32, groups=2), b=conv(5, 1)))
    check(first, [(1, 5, 4, 6)], (2, 9, 13), "conv2d_mma", staged=False)
    pooled = between(16, g=conv(16, groups=2), p=max_pool(2, 2))
    check(pooled, [(1, 5, 3, 6)], (1, 18, 22), "conv2d_mma_pool")


def test_other_groups_stay_where_they_were() -> None:
    check(between(24, g=conv(24, groups=2)), [(1, 5, 4, 6)], (1, 9, 13), "conv2d")


def up(channels: int, kernel: L.Pair = (9, 9), stride: L.Pair = (2, 2), pad: Sizes = (4, 4, 4, 4),
       more: L.Pair = (1, 1)) -> L.ConvTranspose2d:
    return L.ConvTranspose2d(kernel, stride, padding=L.Padding(*pad), output_padding=more, out_channels=channels)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layer", [up(1), up(3, (4, 3), (2, 3), (1, 1, 0, 1), (0, 0)), up(12, (3, 3), (2, 2), (1, 1, 1, 1)),
                                   up(8, (2, 5), (3, 2), (0, 0, 2, 2), (1, 0))], ids=["fsrcnn", "3", "12", "8"])
def test_transposed_convolutions_by_matrix_instructions(layer: L.ConvTranspose2d, dtype: str) -> None:
    """At the end of a network, where tiles begin with any phase, and before others, whose halo does."""
    graph = thin(network(L.Input(3), a=conv(20, 1), up=layer))
    wide = layer.out_channels, layer.stride[0] * 2, layer.stride[1] * 3
    check(graph, [(1, *wide), (2, *wide)], (2, 7, 9), "conv_transpose2d_mma", dtype=dtype)
    inner = thin(network(L.Input(3), a=conv(20, 1), up=layer, r=L.Relu(), b=conv(5)))
    check(inner, [(1, 5, *wide[1:])], (1, 7, 9), "conv_transpose2d_mma", dtype=dtype)


def test_transposed_convolutions_of_device_memory_in_strips_and_by_channels() -> None:
    graph = thin(network(L.Input(20), up=up(16, (3, 3), (2, 2), (1, 1, 1, 1))))
    check(graph, [(1, 16, 4, 6), (1, 8, 4, 6)], (2, 7, 9), "conv_transpose2d_mma", staged=False)
    check(thin(network(L.Input(3), a=conv(12), up=up(1))), [(1, 1, 16, 20)], (1, 13, 17), "conv_transpose2d_mma", step=4)
    few = thin(network(L.Input(3), up=up(8)))
    assert "conv_transpose2d" in functions(schedule_in("float16", few, (1, 8, 4, 6)), "float16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("channels", "width"), [(1, 37), (3, 32), (24, 33), (13, 24)])
def test_images_in_and_out(channels: int, width: int, dtype: str) -> None:
    """Networks' inputs and outputs have no planes: rows that are aligned and rows that are not, borders on all sides."""
    graph = thin(network(L.Input(channels), a=conv(8), b=conv(channels), s=(L.Add(), "b", "x"), r=L.Relu()))
    check(graph, [(1, channels, 16, 24), (2, channels, 3, 5)], (3, 13, width),
          "sum_rows" if channels <= 4 else "sum_planes", dtype=dtype)
    pooled = thin(network(L.Input(channels), p=max_pool(3, 2, pad=1), a=conv(8, 1)))
    check(pooled, [(1, 8, 16, 12)], (2, 21, width), "sum_rows" if channels <= 4 else "sum_planes", dtype=dtype)


@pytest.mark.parametrize(("channels", "block", "order"), [(4, 2, L.DepthToSpaceOrder.DCR), (12, 2, L.DepthToSpaceOrder.CRD),
                                                          (9, 3, L.DepthToSpaceOrder.DCR)])
def test_enlarged_images(channels: int, block: int, order: L.DepthToSpaceOrder) -> None:
    graph = thin(network(L.Input(channels // block**2), a=conv(channels), d=L.DepthToSpace(block, order),
                         u=(L.Upsample((block, block)), "x"), s=(L.Add(), "d", "u")))
    tile = channels // block**2, 8 * block, 10 * block
    check(graph, [(1, *tile), (1, tile[0], 2 * block, 3 * block)], (2, 13, 19), "depth_to_space_rows")
    check(graph, [(1, *tile)], (2, 13, 19), "upsample_rows")
    ending = thin(network(L.Input(channels // block**2), a=conv(channels), d=L.DepthToSpace(block, order)))
    check(ending, [(1, *tile)], (2, 13, 19), "depth_to_space_rows")
    check(ending, [(1, tile[0], 24 * block, 10 * block)], (1, 25, 19), "depth_to_space_rows", step=4 * block)


def avg_pool(k: int, stride: int, pad: int, counted: bool) -> L.AvgPool2d:
    return L.AvgPool2d((k, k), (stride, stride), padding=L.Padding(*[pad] * 4), count_include_pad=counted)


@pytest.mark.parametrize("channels", [16, 13])
@pytest.mark.parametrize(("layer", "wanted"), [(max_pool(3, 2, pad=1), "max_pool2d_planes"),
                                               (max_pool(3, 1), "max_pool2d_planes"),
                                               (avg_pool(2, 1, 0, True), "avg_pool2d_planes"),
                                               (L.Upsample((2, 3)), "upsample_planes")], ids=["max", "inner", "average", "up"])
def test_pools_and_upsampling(layer: L.Layer, wanted: str, channels: int) -> None:
    """Averages of four values are exact; a pool that shares its input reads it guarded."""
    check(between(channels, p=layer), [(1, 5, 4, 6), (2, 5, 2, 3)], (2, 11, 19), wanted)
    check(between(channels, p=layer), [(1, 5, 4, 6)], (2, 11, 19), wanted, staged=False)
    if isinstance(layer, L.MaxPool2d) and layer.padding:
        same = between(channels, r=L.Relu(), p=max_pool(3, 1, pad=1), s=(L.Add(), "p", "r"))
        check(same, [(1, 5, 4, 6)], (2, 11, 19), wanted)


@pytest.mark.parametrize("counted", [False, True])
def test_padded_averages_have_the_bits_of_one_value_at_a_time(counted: bool) -> None:
    """The border's averages are no short fractions: they are compared with a tile that has every pixel of the image."""
    graph = between(13, p=avg_pool(3, 2, 1, counted))
    x = np.random.default_rng(5).normal(size=(2, 3, 11, 19)).astype(np.float16).astype(np.float32)
    machine = Machine(in_precision(DEVICES["h200"], "float16"))
    made = [RUNNER.run(schedule_in("float16", graph, tile), {"x": x}, machine) for tile in ((1, 5, 3, 4), (1, 5, 6, 10))]
    assert "avg_pool2d_planes" in functions(schedule_in("float16", graph, (1, 5, 3, 4)), "float16")
    assert_same_bits(*made)
    wanted = chain_reference(whole_chain(graph), {"x": x})["last"]
    np.testing.assert_allclose(made[0], wanted, atol=0.02 * np.abs(wanted).max())


def test_concatenation_moves_planes_where_they_are_aligned() -> None:
    graph = between(16, a=conv(13), c=(L.Concat(), "first", "a", "first"), d=(L.Concat(), "c", "a"))
    wanted = functions(schedule_in("float16", graph, (1, 5, 4, 6)), "float16")
    assert wanted.count("concat_planes") == 1
    assert wanted.count("concat") == 4
    check(graph, [(1, 5, 4, 6), (2, 5, 3, 2)], (2, 9, 13), "concat_planes")
