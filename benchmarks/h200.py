"""fusec against its peers on an NVIDIA GPU, in one run.

    python benchmarks/h200.py [--dtype float16] [--only A,...] [--peers A,...] [--json FILE]

Engines: PyTorch with cuDNN (TF32 off, benchmark mode; in float16 channels-last), torch.compile (max-autotune), XLA, and
fusec's builds: auto, layer by layer (none), fused as far as possible (all), and auto planned for the very shape (sized). All
but XLA are replayed from CUDA graphs and timed by CUDA events; XLA, in a process of its own (`xla_network.py`), by the host's
clock over many calls queued at once. One replay of each engine in turn, at least 50 turns, medians. Before timing, every
engine's output is poisoned with NaN (XLA's, always new, cannot be), written once more, and compared with PyTorch's in float64
on the first images. An engine that fails, or takes longer than --limit to be ready, is recorded with its error.

FILE keeps the networks of earlier runs of the same commit on the same device: so a long run can be cut into several by --only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from cases import BUILDS, COMPILER, LIBRARY, PEERS, XLA, Case, cases_of  # noqa: E402
from h200_table import floor, judge, lines, merged, schedules, table  # noqa: E402
from torch_network import TorchNetwork  # noqa: E402

from fusec.pipeline import build_and_link, generate  # noqa: E402

CHECKED = 16  # images compared in float64
WARM_UP = 5
XLA_PROGRAM = Path(__file__).with_name("xla_network.py")


@dataclass(frozen=True)
class Engine:
    """One way of running a case.

    Attributes
    ----------
    replay
        Runs it and returns the milliseconds of a call.
    output
        Poisons its output, runs it and returns the output of at least the first images.
    facts
        What is recorded of it.
    alive
        What has to live as long as it.
    """

    replay: Callable[[], float]
    output: Callable[[], torch.Tensor]
    facts: dict[str, Any]
    alive: object = None


def torch_engine(case: Case, dtype: str, compiled: bool) -> Engine:
    """PyTorch in a CUDA graph."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    x = torch.from_numpy(case.images()).cuda().to(getattr(torch, dtype))
    model: Any = TorchNetwork(case.graph()).cuda().eval().to(x.dtype)
    if x.dtype == torch.float16:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if compiled:
        torch._dynamo.reset()
        model = torch.compile(model, mode="max-autotune-no-cudagraphs")  # max-autotune: the CUDA graph is captured here
    side = torch.cuda.Stream()
    with torch.cuda.stream(side), torch.no_grad():
        for _ in range(4):
            model(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        for _ in range(case.calls):
            y = model(x)

    def replay() -> float:
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        graph.replay()
        b.record()
        b.synchronize()
        return float(a.elapsed_time(b)) / case.calls

    def output() -> torch.Tensor:
        y.fill_(float("nan"))
        replay()
        return y
    return Engine(replay, output, {}, (model, x))


def fusec_engine(case: Case, dtype: str, fuse: str) -> Engine:
    """One of fusec's builds in a CUDA graph."""
    generated = generate(case.plan(dtype, fuse))
    model = build_and_link(generated)
    x = cupy.asarray(case.images().astype(dtype))
    out = model(x)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        model(x, out=out)
        stream.begin_capture()
        for _ in range(case.calls):
            model(x, out=out)
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
    return Engine(replay, output, {"plan": schedules(generated, case.shape)}, model)  # which holds the captured kernels


def xla_engine(name: str, dtype: str, stack: contextlib.ExitStack) -> Engine:
    """XLA in a process of its own, which ends with the stack."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    errors = stack.enter_context((folder / "errors.txt").open("w+"))
    process = stack.enter_context(subprocess.Popen(
        [sys.executable, str(XLA_PROGRAM), name, dtype, str(folder / "output.npy")], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors))
    stack.callback(process.kill)

    def answer() -> str:
        assert process.stdout is not None
        if line := process.stdout.readline():
            return line
        errors.seek(0)
        raise RuntimeError(f"XLA's process ended: {errors.read()[-300:].strip()}")

    def replay() -> float:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return float(answer())

    facts = json.loads(answer())
    if facts["backend"] != "gpu":
        raise RuntimeError(f"JAX found no GPU: it computes on the {facts['backend']}")
    return Engine(replay, lambda: torch.from_numpy(np.load(folder / "output.npy")).cuda(), facts)


def make(engine: str, name: str, case: Case, dtype: str, stack: contextlib.ExitStack) -> Engine:
    if engine == XLA:
        return xla_engine(name, dtype, stack)
    return torch_engine(case, dtype, engine == COMPILER) if engine in (LIBRARY, COMPILER) else fusec_engine(case, dtype, engine)


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """TimeoutError when what is inside takes longer."""
    def stop(*_: object) -> None:
        raise TimeoutError(f"not ready after {seconds} s")
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(engine: Engine, exact: torch.Tensor) -> float:
    """The relative error of an engine's first images; ValueError when it left some of its output unwritten."""
    y = engine.output()
    if not bool(torch.isfinite(y).all()):
        raise ValueError("output not written everywhere")
    return float((y[:CHECKED].double().reshape(exact.shape) - exact).norm() / exact.norm())


def take_turns(engines: dict[str, Engine], turns: int, failed: dict[str, Any]) -> dict[str, list[float]]:
    """Milliseconds of every turn of every engine; one that fails on its way is left out, with its error in `failed`."""
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(WARM_UP + turns):
        for name in list(times):
            try:
                times[name].append(engines[name].replay())
            except Exception as error:
                failed[name] = repr(error)[:300]
                del times[name]
    return {name: t[WARM_UP:] for name, t in times.items()}


def run(name: str, case: Case, dtype: str, turns: int, wanted: tuple[str, ...], limit: int) -> dict[str, Any]:
    """One case: every engine made and checked, then all timed in turns."""
    x = torch.from_numpy(case.images()[:CHECKED]).cuda()
    exact = TorchNetwork(case.graph()).double().cuda()(x.double())
    row: dict[str, Any] = {"network": Path(case.network).stem, "last": case.last, "shape": case.shape, "ms": {}, "error": {},
                           "plans": {}, "engines": {}, "floor": floor(case, dtype)}
    engines: dict[str, Engine] = {}
    with contextlib.ExitStack() as stack:
        for engine in wanted:
            began = time.perf_counter()
            try:
                with limited(limit), contextlib.ExitStack() as own:  # what fails leaves nothing running beside the others
                    made = make(engine, name, case, dtype, own)
                    row["error"][engine] = check(made, exact)
                    stack.push(own.pop_all())
            except Exception as error:
                row["error"][engine] = repr(error)[:300]
                continue
            engines[engine] = made
            row["engines"][engine] = {"seconds": round(time.perf_counter() - began, 1)} | made.facts
        row["plans"] = {engine: facts.pop("plan") for engine, facts in row["engines"].items() if "plan" in facts}
        times = take_turns(engines, turns, row["error"])
    row["ms"] = {engine: statistics.median(t) for engine, t in times.items()}
    row["quartiles"] = {engine: statistics.quantiles(t, n=4)[::2] for engine, t in times.items()}
    return row | {"judged": judge(name, row)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--only", help="networks, in place of all of them")
    parser.add_argument("--peers", help=f"of {', '.join(PEERS)}, in place of each network's own")
    parser.add_argument("--builds", default=",".join(BUILDS))
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--limit", type=int, default=120, help="seconds an engine may take to be ready")
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers, builds = (None if text is None else tuple(filter(None, text.split(","))) for text in (options.peers, options.builds))
    record = merged(options.json, {
        "commit": options.commit, "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
        "cupy": cupy.__version__, "dtype": options.dtype, "turns": options.turns,
        "unit": "milliseconds, medians of CUDA-event times; of XLA of the host's clock over many calls", "cases": {}})
    cases = cases_of(options.dtype)
    for name in options.only.split(",") if options.only else cases:
        wanted = (*(cases[name].peers if peers is None else peers), *builds)
        row = record["cases"][name] = run(name, cases[name], options.dtype, options.turns, wanted, options.limit)
        print(*lines(name, row), sep="\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(*table(record["cases"]), sep="\n")


if __name__ == "__main__":
    main()
