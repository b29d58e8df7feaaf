"""What a product is added to, in the PTX that NVRTC makes of generated kernels: all four sums of one product before, or none.

NVRTC 13 has been seen to take three of them from where they were before that product. Emulated kernels cannot show that.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fusec.emit.render import render
from fusec.graph.simplify import simplify
from fusec.pipeline import generate, plan, read
from fusec.plan.construct import construct
from fusec.runtime.cuda.nvrtc import OPTIONS
from fusec.targets.cuda_mma import map_schedule
from fusec.targets.device import DEVICES, in_precision
from tests.small_networks import whole_chain
from tests.targets.test_layers import CASES, build, reads_whole_scratch, tiles

nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC and CuPy are not installed")

PRODUCT = re.compile(r"mma\.sync\S+ \{(?P<made>[^}]*)\}, \{[^}]*\}, \{[^}]*\}, \{(?P<added>[^}]*)\};")
USUAL = ("prelu", "conv2d", "conv2d of one channel", "conv_transpose2d")
NETWORKS = ("lenet5", "artcnn_c4f16")
DEVICE = in_precision(DEVICES["h200"], "float16")


def ptx_of(text: str) -> str:
    program = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        options = [o for o in OPTIONS if "ptxas" not in o]
        nvrtc.compileProgram(program, ("-arch=compute_90", *options))
        found: bytes = nvrtc.getPTX(program)
    finally:
        nvrtc.destroyProgram(program)
    return found.decode()


def torn(ptx: str) -> list[str]:
    """Products whose four summands come from different products."""
    maker: dict[str, tuple[int, int]] = {}
    found = []
    for number, product in enumerate(PRODUCT.finditer(ptx)):
        made, added = (product[name].replace(" ", "").split(",") for name in ("made", "added"))
        makers = [maker.get(register) for register in added]
        whole = makers[0] is not None and makers == [(makers[0][0], i) for i in range(4)]
        if not whole and makers != [None] * 4:
            found.append(product[0])
        maker |= {register: (number, i) for i, register in enumerate(made)}
    return found


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in USUAL else pytest.mark.thorough) for n in CASES])
def test_layers_between_convolutions(name: str) -> None:
    case = CASES[name]
    graph = simplify(build(replace(case, pinned=case.pinned or reads_whole_scratch(case, True)), between=True)).graph
    schedule = construct(whole_chain(graph), tiles(graph, 4, 5, 2), DEVICE, ("x",))
    ptx = ptx_of(render(map_schedule(schedule, DEVICE, tiles=1)).text)
    assert PRODUCT.search(ptx)
    assert torn(ptx) == []


@pytest.mark.parametrize("fuse", ["auto", "all"])
@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(n, marks=pytest.mark.thorough) for n in ("fsrcnn_x2", "resnet18"))])
def test_networks(name: str, fuse: str) -> None:
    for source in generate(plan(read(name, missing="random"), DEVICE, fuse)).sources:
        assert torn(ptx_of(source.text)) == []


def test_a_torn_sum_is_found() -> None:
    product = "mma.sync.aligned.x {{%f{0}, %f{1}, %f{2}, %f{3}}}, {{%r1, %r2}}, {{%r3}}, {{%f{4}, %f{5}, %f{6}, %f{7}}};\n"
    first, second = product.format(*range(4, 8), *range(4)), product.format(*range(8, 12), 4, 1, 2, 3)
    assert torn(first + second) == [second.strip()]
    assert torn(first + product.format(*range(8, 12), *range(4, 8))) == []
