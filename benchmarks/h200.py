"""fusec against PyTorch on an NVIDIA GPU, in one run: python benchmarks/h200.py [--dtype float16] [--only A,...] [--json FILE].

Engines: PyTorch with cuDNN (TF32 off, benchmark mode; in float16 channels-last) and, for some networks, torch.compile
(max-autotune), and fusec's builds: auto, layer by layer (none), and fused as far as possible (all), all replayed from CUDA
graphs. One replay of each engine in turn, at least 50 turns, medians of CUDA-event times. Before timing, every engine's output
is poisoned with NaN, written once more, and compared with PyTorch's in float64 on the first images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from prefixes import prefix  # noqa: E402
from torch_network import TorchNetwork  # noqa: E402

from fusec.graph.graph import LayerGraph  # noqa: E402
from fusec.pipeline import build_and_link, choose_device, generate, plan, read  # noqa: E402

PEERS = ("cudnn", "inductor")
FUSEC = ("auto", "none", "all")
Replay = Callable[[], float]
Output = Callable[[], Any]
CHECKED = 16  # images compared in float64


@dataclass(frozen=True)
class Case:
    """A network up to layer `last` (all of it when None), and the shape it is run on."""

    network: str
    shape: tuple[int, int, int, int]
    last: str | None = None
    compiled: bool = False  # whether torch.compile is a peer too: its autotuning takes a minute or more a network
    calls: int = 1  # in one CUDA graph: several where one is shorter than a launch


CASES = {
    "mnist4_b10000": Case("mnist4", (10000, 1, 28, 28), compiled=True),
    "lenet5_b10000": Case("lenet5", (10000, 1, 28, 28), compiled=True),
    "mnist4_b1": Case("mnist4", (1, 1, 28, 28), calls=20, compiled=True),
    "lenet5_b1": Case("lenet5", (1, 1, 28, 28), calls=20, compiled=True),
    "alexnet2_b1": Case("alexnet", (1, 3, 227, 227), "pool2", calls=5),
    "alexnet2_b32": Case("alexnet", (32, 3, 227, 227), "pool2"),
    "vgg5_b1": Case("vgg_e", (1, 3, 224, 224), "relu3_1"),
    "vgg5_b8": Case("vgg_e", (8, 3, 224, 224), "relu3_1"),
    "vgg2_b8": Case("vgg_e", (8, 3, 224, 224), "pool1"),
    "artcnn_c4f16_1080p": Case("artcnn_c4f16", (1, 1, 1080, 1920)),
    "fsrcnn_1080p": Case("fsrcnn_x2", (1, 1, 1080, 1920)),
    "resnet18_b8": Case("resnet18", (8, 3, 224, 224)),
    "mobilenet_v2_b8": Case("mobilenet_v2", (8, 3, 224, 224)),
}


HERE = Path(__file__).parent / "networks"
HALF_CASES = {
    "artcnn_c4f16_1080p": Case("artcnn_c4f16", (1, 1, 1080, 1920), compiled=True),
    "artcnn_c4f32_1080p": Case("artcnn_c4f32", (1, 1, 1080, 1920), compiled=True),
    "fsrcnn_1080p": Case(str(HERE / "fsrcnn.yaml"), (1, 1, 1080, 1920), compiled=True),
    "fsrcnn_x2_1080p": Case("fsrcnn_x2", (1, 1, 1080, 1920), compiled=True),
    "mnist4_b10000": Case("mnist4", (10000, 1, 28, 28), compiled=True),
    "lenet5_b10000": Case("lenet5", (10000, 1, 28, 28), compiled=True),
    "mbv1_head_b32": Case(str(HERE / "mbv1_head.yaml"), (32, 3, 224, 224), compiled=True),
    "mbv2_b24_b32": Case(str(HERE / "mbv2_block.yaml"), (32, 24, 56, 56), compiled=True),
    "resnet_stem_b8": Case(str(HERE / "resnet_stem.yaml"), (8, 3, 224, 224), compiled=True),
    "vgg2_b8": Case("vgg_e", (8, 3, 224, 224), "pool1", compiled=True),
    "vgg5_b8": Case("vgg_e", (8, 3, 224, 224), "relu3_1", compiled=True),
    "alexnet2_b32": Case(str(HERE / "alexnet2.yaml"), (32, 3, 227, 227), compiled=True),
    "srvgg_720p": Case(str(HERE / "srvgg.yaml"), (1, 3, 720, 1280)),
    "dncnn_1080p": Case(str(HERE / "dncnn.yaml"), (1, 1, 1080, 1920)),
}


def torch_engine(case: Case, graph: LayerGraph, x: torch.Tensor, compiled: bool) -> tuple[Replay, Output]:
    """A function that replays PyTorch's CUDA graph and returns milliseconds, and one that returns its output."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    model: Any = TorchNetwork(graph).cuda().eval().to(x.dtype)
    if x.dtype == torch.float16:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if compiled:
        torch._dynamo.reset()
        model = torch.compile(model, mode="max-autotune-no-cudagraphs")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side), torch.no_grad():
        for _ in range(4):
            model(x)
    torch.cuda.synchronize()
    graph_ = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph_):
        for _ in range(case.calls):
            y = model(x)

    def replay() -> float:
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        graph_.replay()
        b.record()
        b.synchronize()
        return float(a.elapsed_time(b)) / case.calls

    def output() -> torch.Tensor:
        y.fill_(float("nan"))
        replay()
        return y
    return replay, output


def fusec_engine(case: Case, graph: LayerGraph, x: torch.Tensor, fuse: str) -> tuple[Replay, Output, Any]:
    """The same for one of fusec's builds, and its program."""
    dtype = str(x.dtype).removeprefix("torch.")
    generated = generate(plan(graph, choose_device("cuda", dtype), fuse))
    model = build_and_link(generated)
    given = cupy.from_dlpack(x)
    out = model(given)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        model(given, out=out)
        stream.begin_capture()
        for _ in range(case.calls):
            model(given, out=out)
        captured = stream.end_capture()

    def replay() -> float:
        a, b = cupy.cuda.Event(), cupy.cuda.Event()
        a.record(stream)
        captured.launch(stream)
        b.record(stream)
        b.synchronize()
        return float(cupy.cuda.get_elapsed_time(a, b)) / case.calls

    def output() -> torch.Tensor:
        with stream:
            out.fill(cupy.nan)
        replay()
        return torch.from_dlpack(out)
    return replay, output, (generated, model)  # the captured kernels live as long as the model


def describe(generated: Any) -> list[dict[str, object]]:
    """The launches of a build, for the record."""
    program = generated.program
    return [{"chain": launch.label, "variants": [{"tile": v.tile, "threads": v.threads, "min_blocks": v.min_blocks,
             "scratch_bytes": program.element * v.scratch} for v in launch.variants]} for launch in program.launches]


def run(name: str, case: Case, dtype: str, turns: int, peers: tuple[str, ...], builds: tuple[str, ...]) -> dict[str, Any]:
    graph = prefix(read(case.network, missing="random"), case.last)
    x = torch.from_numpy(np.random.default_rng(0).random(case.shape, dtype=np.float32)).cuda()
    exact = TorchNetwork(graph).double().cuda()(x[:CHECKED].double())
    x = x.to(getattr(torch, dtype))
    replays: dict[str, Replay] = {}
    alive: list[Any] = []
    row: dict[str, Any] = {"network": case.network, "last": case.last, "shape": case.shape, "ms": {}, "error": {}, "plans": {}}
    for engine in (*(p for p in peers if p != "inductor" or case.compiled), *builds):
        try:
            if engine in PEERS:
                replays[engine], output = torch_engine(case, graph, x, engine == "inductor")
            else:
                replays[engine], output, built = fusec_engine(case, graph, x, engine)
                alive.append(built)
                row["plans"][engine] = describe(built[0])
            y = output()
            if not bool(torch.isfinite(y).all()):
                raise ValueError("output not written everywhere")
            row["error"][engine] = float((y[:CHECKED].double().reshape(exact.shape) - exact).norm() / exact.norm())
        except Exception as error:
            replays.pop(engine, None)
            row["error"][engine] = repr(error)[:300]
    for replay in replays.values():
        for _ in range(5):
            replay()
    times: dict[str, list[float]] = {engine: [] for engine in replays}
    for _ in range(turns):
        for engine, replay in replays.items():
            times[engine].append(replay())
    row["ms"] = {engine: statistics.median(t) for engine, t in times.items()}
    row["quartiles"] = {engine: statistics.quantiles(t, n=4)[::2] for engine, t in times.items()}
    print(f"{name:20}", " ".join(f"{e} {t:.4f}" for e, t in row["ms"].items()), "| error",
          " ".join(f"{e} {v:.1e}" if isinstance(v, float) else f"{e} {v}" for e, v in row["error"].items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--only")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--builds", default=",".join(FUSEC))
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers, builds = (tuple(filter(None, text.split(","))) for text in (options.peers, options.builds))
    record: dict[str, Any] = {
        "commit": options.commit, "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
        "cupy": cupy.__version__, "dtype": options.dtype, "turns": options.turns,
        "unit": "milliseconds, medians of CUDA-event times", "cases": {}}
    cases = CASES if options.dtype == "float32" else HALF_CASES
    for name in options.only.split(",") if options.only else cases:
        record["cases"][name] = run(name, cases[name], options.dtype, options.turns, peers, builds)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
