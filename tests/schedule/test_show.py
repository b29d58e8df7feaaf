"""The dump of a schedule: complete, readable and always the same."""

from __future__ import annotations

from fusec.graph import layers as L
from fusec.graph.simplify import simplify
from fusec.schedule.show import show
from tests.small_networks import conv, max_pool, network, schedule_of

EXPECTED = """\
schedule of conv1..pool1: x 3x?x? -> pool1 8x?x?
tile     2x8x4x6 (images x channels x height x width)
overlap  y recompute, x recompute; stages in time
scratch  2864 elements, 11.2 KiB

load x: copy into scratch
  reads  x@global: c 0*o+0 [3], y 2*o-2 [11], x 2*o-2 [15], guarded
  writes x: c 0*o+0 [3], y 2*o-2 [11], x 2*o-2 [15], 2 images, scratch NCHW at 0..990, pitches 495/165/15/1, padding 0

conv1: conv2d(kernel=3x3, padding=1,1,1,1, out_channels=8) + relu
  reads  x: c 0*o+0 [3], y 2*o-2 [11], x 2*o-2 [15]
  writes conv1: c 0*o+0 [8], y 2*o-1 [9], x 2*o-1 [13], 2 images, scratch NCHW at 992..2864, pitches 936/117/13/1, padding -inf

pool1: max_pool2d(kernel=3x3, stride=2x2, padding=1,1,1,1)
  reads  conv1: c 0*o+0 [8], y 2*o-1 [9], x 2*o-1 [13]
  writes pool1@global: c 0*o+0 [8], y 1*o+0 [4], x 1*o+0 [6], 2 images, global NCHW
"""


def test_a_whole_schedule() -> None:
    graph = simplify(network(L.Input(3), conv1=conv(8), relu1=L.Relu(), pool1=max_pool(3, 2, pad=1))).graph
    text = show(schedule_of(graph, 4, 6, images=2))
    assert text == EXPECTED
    assert show(schedule_of(graph, 4, 6, images=2)) == text


def test_guards_values_and_whole_axes() -> None:
    graph = network(L.Input(4), g=L.GlobalAvgPool2d())
    text = show(schedule_of(graph, 1, 1, staged=()))
    assert "reads  x@global: c 0*o+0 [4], y all, x all, guarded" in text
    assert "g: global_avg_pool2d\n" in text
    graph = network(L.Input(4), d=L.DepthToSpace(2, L.DepthToSpaceOrder.CRD))
    assert "d: depth_to_space(order=CRD)" in show(schedule_of(graph, 2, 2))
