"""What is measured on a GPU: networks, or their beginnings, each with the shape it is run on, and fusec's plan of it.

Needs neither PyTorch nor CuPy, so that processes which do without them can import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefixes import prefix

from fusec.graph.graph import LayerGraph
from fusec.pipeline import Generated, Plan, Shape4, choose_device, plan, read
from fusec.runtime.workload import Step, arrange
from fusec.schedule.ir import Schedule

LIBRARY, COMPILER, XLA = "cudnn", "inductor", "xla"
SIZED = "sized"  # auto, planned for the shape it is run on as the peers are; the others for the sizes fusec takes by itself
BUILDS = ("auto", "none", "all", SIZED)
PEERS = (LIBRARY, COMPILER, XLA)
ARCH = "sm_90"  # planned for where there is no GPU


@dataclass(frozen=True)
class Case:
    """A network up to layer `last` (all of it when None), and the shape it is run on."""

    network: str
    shape: Shape4
    last: str | None = None
    peers: tuple[str, ...] = PEERS  # autotuning compilers take up to minutes a network
    calls: int = 1  # in one CUDA graph: several where one is shorter than a launch

    def graph(self) -> LayerGraph:
        """The network with weights of its own or of a fixed seed: every process gets the same."""
        return _graph(self.network, self.last)

    def images(self) -> NDArray[np.float32]:
        """The input, of a fixed seed."""
        return np.random.default_rng(0).random(self.shape, dtype=np.float32)

    def plan(self, dtype: str, build: str, arch: str | None = None) -> Plan:
        """fusec's plan for one of `BUILDS`; `arch` in place of that of the GPU present."""
        device = choose_device("cuda", dtype, arch)
        return plan(self.graph(), device, "auto", self.shape) if build == SIZED else plan(self.graph(), device, build)


@lru_cache(maxsize=1)
def _graph(network: str, last: str | None) -> LayerGraph:
    return prefix(read(network, missing="random"), last)


UNCOMPILED = (LIBRARY,)
HERE = Path(__file__).parent / "networks"
CASES = {
    "mnist4_b10000": Case("mnist4", (10000, 1, 28, 28)),
    "lenet5_b10000": Case("lenet5", (10000, 1, 28, 28)),
    "mnist4_b1": Case("mnist4", (1, 1, 28, 28), calls=20),
    "lenet5_b1": Case("lenet5", (1, 1, 28, 28), calls=20),
    "alexnet2_b1": Case("alexnet", (1, 3, 227, 227), "pool2", UNCOMPILED, calls=5),
    "alexnet2_b32": Case("alexnet", (32, 3, 227, 227), "pool2", UNCOMPILED),
    "vgg5_b1": Case("vgg_e", (1, 3, 224, 224), "relu3_1", UNCOMPILED),
    "vgg5_b8": Case("vgg_e", (8, 3, 224, 224), "relu3_1", UNCOMPILED),
    "vgg2_b8": Case("vgg_e", (8, 3, 224, 224), "pool1", UNCOMPILED),
    "artcnn_c4f16_1080p": Case("artcnn_c4f16", (1, 1, 1080, 1920), peers=UNCOMPILED),
    "fsrcnn_1080p": Case("fsrcnn_x2", (1, 1, 1080, 1920), peers=UNCOMPILED),
    "resnet18_b8": Case("resnet18", (8, 3, 224, 224), peers=UNCOMPILED),
    "mobilenet_v2_b8": Case("mobilenet_v2", (8, 3, 224, 224), peers=UNCOMPILED),
}
HALF_CASES = {
    "artcnn_c4f16_1080p": Case("artcnn_c4f16", (1, 1, 1080, 1920)),
    "artcnn_c4f32_1080p": Case("artcnn_c4f32", (1, 1, 1080, 1920)),
    "fsrcnn_1080p": Case(str(HERE / "fsrcnn.yaml"), (1, 1, 1080, 1920)),
    "fsrcnn_x2_1080p": Case("fsrcnn_x2", (1, 1, 1080, 1920)),
    "mnist4_b10000": Case("mnist4", (10000, 1, 28, 28)),
    "lenet5_b10000": Case("lenet5", (10000, 1, 28, 28)),
    "mbv1_head_b32": Case(str(HERE / "mbv1_head.yaml"), (32, 3, 224, 224)),
    "mbv2_b24_b32": Case(str(HERE / "mbv2_block.yaml"), (32, 24, 56, 56)),
    "resnet_stem_b8": Case(str(HERE / "resnet_stem.yaml"), (8, 3, 224, 224)),
    "vgg2_b8": Case("vgg_e", (8, 3, 224, 224), "pool1"),
    "vgg5_b8": Case("vgg_e", (8, 3, 224, 224), "relu3_1"),
    "alexnet2_b32": Case(str(HERE / "alexnet2.yaml"), (32, 3, 227, 227)),
    "srvgg_720p": Case(str(HERE / "srvgg.yaml"), (1, 3, 720, 1280)),
    "dncnn_1080p": Case(str(HERE / "dncnn.yaml"), (1, 1, 1080, 1920)),
}


def launched(generated: Generated, shape: Shape4) -> Iterator[tuple[Schedule, Step]]:
    """The launches of a build at a shape: of every chain the schedule that runs, and how."""
    steps = arrange(generated.program, shape[0], (shape[2:],)).steps
    for item, step in zip(generated.plan.chains, steps, strict=True):
        yield item.variants[step.launch.variants.index(step.variant)].schedule, step


def cases_of(dtype: str) -> dict[str, Case]:
    """The cases measured in a type."""
    return CASES if dtype == "float32" else HALF_CASES
