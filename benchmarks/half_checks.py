"""What half precision promises beside speed, measured: python benchmarks/half_checks.py [--only PART,...] [--json FILE].

    compile  a network compiled with an empty cache (plan, generate, NVRTC) in a fresh process; its imports are timed apart
    load     the folder of that model opened in a fresh process and put on the GPU; importing CuPy and starting CUDA apart
    lines    of every generated kernel of every network of `h200.py --dtype float16`
    sizes    one build, up to its last clip, run at several sizes: bit for bit what a build planned for the size gives, and what
             the same build gives for a crop of the image; within the tolerance of the float64 reference, of large images in
             crops that are as much larger than what is compared as the network sees
    memory   of the GPU in use after a run, in a fresh process for each of those networks, beside input, output and weights

`sizes` and `memory` need a GPU; without one the others are measured too, as far as they go.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from cases import ARCH, HALF_CASES  # noqa: E402
from h200_table import TOLERANCE  # noqa: E402
from prefixes import prefix  # noqa: E402

from fusec.graph import layers as L  # noqa: E402
from fusec.runtime.cuda import gpu  # noqa: E402

DTYPE = "float16"
COMPILED, SIZED = "artcnn_c4f32", "artcnn_c4f16"
UNCLIPPED = "depth_to_space"  # the sized network's layer before its clip, which makes most values 0 and hides what they were
SIZES = ((360, 640), (1080, 1920), (2160, 3840), (1, 1))  # height, width
WHOLE = 640 * 360  # pixels up to which the whole image is compared with the reference
SIDE = 64  # pixels of the crops compared of larger ones
COMPILE_SECONDS, LOAD_SECONDS, LINES = 2.0, 0.2, 1500  # wanted: below these
Window = tuple[slice, slice]  # rows, columns


def arch() -> str | None:
    """What is planned for: the GPU present (None), or an architecture where there is none."""
    return None if gpu.available() else ARCH


def seconds_of(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def in_fresh_process(part: str, *arguments: str, **variables: str) -> dict[str, Any]:
    """What a part says of itself in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--work", part, *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, **variables})
    if done.returncode:
        raise SystemExit(f"{part}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compile_anew(folder: str) -> dict[str, Any]:
    """In a fresh process with an empty cache: compile a network and leave the model in a folder."""
    from fusec.pipeline import build_and_link, choose_device, generate, plan, read
    from fusec.runtime.save import save

    graph, reading = seconds_of(lambda: read(COMPILED, missing="random"))
    device = choose_device("cuda", DTYPE, arch())
    planned, planning = seconds_of(lambda: plan(graph, device))
    made, generating = seconds_of(lambda: generate(planned))
    model, building = seconds_of(lambda: build_and_link(made))
    save(folder, made.program, made.sources, model.binaries, made.weights, "")
    return {"read": reading, "plan": planning, "generate": generating, "build": building,
            "total": planning + generating + building, "kernels": len(made.sources)}


def load_anew(folder: str) -> dict[str, Any]:
    """In a fresh process: open a model, and put it on the GPU where there is one."""
    from fusec import load

    found: dict[str, Any] = {}
    if gpu.available():  # imports CuPy
        cupy = gpu.library()
        _, found["start_cuda"] = seconds_of(lambda: cupy.cuda.runtime.free(0))
    model, found["load"] = seconds_of(lambda: load(folder))
    if "start_cuda" in found:
        _, found["onto_gpu"] = seconds_of(model.engine.loaded)
    return found | {"total": found["load"] + found.get("onto_gpu", 0.0)}


def use_memory(name: str) -> dict[str, Any]:
    """In a fresh process: bytes that a network's run takes of the GPU, by CuPy's pool and by the driver."""
    import cupy

    from fusec.pipeline import build_and_link, generate
    from fusec.runtime.workload import arrange

    case = HALF_CASES[name]
    made = generate(case.plan(DTYPE, "auto"))
    model = build_and_link(made)
    images = case.images().astype(DTYPE)
    cupy.cuda.runtime.free(0)
    before = cupy.cuda.runtime.memGetInfo()[0]
    x = cupy.asarray(images)
    out = model(x)
    model(x, out=out)
    cupy.cuda.runtime.deviceSynchronize()
    taken = before - cupy.cuda.runtime.memGetInfo()[0]
    needed = {"input": x.nbytes, "output": out.nbytes, "weights": sum(a.nbytes for a in model.weights.values())}
    arena = made.program.element * arrange(made.program, case.shape[0], (case.shape[2:],)).arena
    pool = cupy.get_default_memory_pool().total_bytes()
    return needed | {"needed": sum(needed.values()), "between_kernels": arena, "pool": pool, "device": taken}


WORK: dict[str, Callable[[str], dict[str, Any]]] = {"compile": compile_anew, "load": load_anew, "memory": use_memory}


def check_compile() -> dict[str, Any]:
    """Compile and load, since the one makes what the other opens."""
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model")
        made = in_fresh_process("compile", model, FUSEC_CACHE=str(Path(folder) / "cache"))
        loaded = in_fresh_process("load", model)
    print(f"compile {COMPILED}: {made['total']:.2f} s ({_wanted(made['total'], COMPILE_SECONDS, ' s')}): "
          f"plan {made['plan']:.2f}, generate {made['generate']:.2f}, build {made['build']:.2f} of {made['kernels']} kernels; "
          f"read before, {made['read']:.2f}")
    parts = f"load {loaded['load']:.3f}" + (f", onto the GPU {loaded['onto_gpu']:.3f}" if "onto_gpu" in loaded else
                                            "; without a GPU not put on one")
    print(f"load {COMPILED}: {loaded['total']:.3f} s ({_wanted(loaded['total'], LOAD_SECONDS, ' s')}): {parts}", flush=True)
    return {"network": COMPILED, "arch": arch() or "of the GPU", "processors": os.cpu_count(), "compile_seconds": made,
            "load_seconds": loaded}


def _wanted(value: float, limit: float, unit: str = "") -> str:
    return f"wanted: below {limit:g}{unit}; {'yes' if value < limit else 'NO'}"


def check_lines() -> dict[str, Any]:
    """Lines of source of every kernel."""
    from fusec.pipeline import generate

    found: dict[str, Any] = {}
    for name, case in HALF_CASES.items():
        made = generate(case.plan(DTYPE, "auto", arch()))
        found[name] = lines = {source.entry: len(source.text.splitlines()) for source in made.sources}
        most = _wanted(max(lines.values()), LINES, " lines")
        print(f"lines {name}: {', '.join(map(str, lines.values()))} ({most})", flush=True)
    return found


def check_sizes() -> dict[str, Any]:
    """One build at every size, against builds for each size and against the reference."""
    from fusec.graph.reference import run
    from fusec.pipeline import build_and_link, choose_device, generate, plan, read

    graph, device = prefix(read(SIZED, missing="random"), UNCLIPPED), choose_device("cuda", DTYPE)
    model = build_and_link(generate(plan(graph, device)))
    margin = sum(max(n.layer.window(a).span for a in L.Axis) for n in graph.layers if isinstance(n.layer, L.Windowed))
    found: dict[str, Any] = {}
    for height, width in SIZES:
        x = np.random.default_rng(0).random((1, graph.shapes[graph.inputs[0].name].channels, height, width)).astype(DTYPE)
        y = poisoned(model, x)
        own = poisoned(build_and_link(generate(plan(graph, device, shape=x.shape))), x)
        row: dict[str, Any] = {"equal_to_own_build": same_bits(y, own), "crops": []}
        for window in windows(height, width):
            outer, inner = grown(window, margin, (height, width))
            part = np.ascontiguousarray(x[:, :, *outer])
            [exact] = run(graph, part.astype(np.float64)).values()
            scale = y.shape[2] // height
            got, wanted = y[:, :, *times(window, scale)], exact[:, :, *times(inner, scale)]
            error = np.abs(got - wanted)
            row["crops"].append({
                "rows": [window[0].start, window[0].stop], "columns": [window[1].start, window[1].stop],
                "equal_to_crop": same_bits(got, poisoned(model, part)[:, :, *times(inner, scale)]),
                "relative_error": float(np.linalg.norm(error) / np.linalg.norm(wanted)),
                "largest_error": float(error.max())})
        found[f"{width}x{height}"] = row
        worst = max(c["relative_error"] for c in row["crops"])
        print(f"sizes {SIZED} {width}x{height}: bits of a build for the size: {_yes(row['equal_to_own_build'])}; bits of its "
              f"crops: {_yes(all(c['equal_to_crop'] for c in row['crops']))}; relative error {worst:.1e} "
              f"({_wanted(worst, TOLERANCE)})", flush=True)
    return {"network": SIZED, "margin": margin, "sizes": found}


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def poisoned(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The model's output for an array of the host, written over NaN."""
    cupy = gpu.usable()
    given = cupy.asarray(x)
    out = cupy.full_like(model(given), cupy.nan)
    return np.asarray(cupy.asnumpy(model(given, out=out)))


def same_bits(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two arrays of half precision are the same, and numbers."""
    first, second = (np.ascontiguousarray(a).view(np.uint16) for a in (one, other))
    return bool(np.array_equal(first, second)) and bool(np.isfinite(one).all())


def windows(height: int, width: int) -> Iterator[Window]:
    """What is compared of an image: all of a small one, of a large one its corners and its centre."""
    if height * width <= WHOLE:
        yield slice(0, height), slice(0, width)
        return
    middle = (height - SIDE) // 2, (width - SIDE) // 2
    for top, left in ((0, 0), (0, width - SIDE), (height - SIDE, 0), (height - SIDE, width - SIDE), middle):
        yield slice(top, top + SIDE), slice(left, left + SIDE)


def grown(window: Window, margin: int, size: tuple[int, int]) -> tuple[Window, Window]:
    """A window with a margin, inside the image; and where the window lies in it."""
    outer = [slice(max(0, part.start - margin), min(end, part.stop + margin)) for part, end in zip(window, size, strict=True)]
    inner = [slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(window, outer, strict=True)]
    return (outer[0], outer[1]), (inner[0], inner[1])


def times(window: Window, scale: int) -> Window:
    """The window in an image enlarged by a whole factor."""
    rows, columns = (slice(part.start * scale, part.stop * scale) for part in window)
    return rows, columns


def check_memory() -> dict[str, Any]:
    """Every network's memory."""
    found: dict[str, Any] = {}
    for name in HALF_CASES:
        found[name] = row = in_fresh_process("memory", name)
        rest = row["pool"] - row["needed"] - row["between_kernels"]
        print(f"memory {name}: needed {row['needed'] / 1e6:.2f} MB, between kernels {row['between_kernels'] / 1e6:.2f}, "
              f"beside these {rest / 1e6:.3f}; the driver counts {row['device'] / 1e6:.2f}", flush=True)
    return found


PARTS = {"compile": check_compile, "lines": check_lines, "sizes": check_sizes, "memory": check_memory}
ON_GPU = ("sizes", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="of compile (with load), lines, sizes, memory")
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", nargs=2, metavar=("PART", "ARGUMENT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        part, argument = options.work
        print(json.dumps(WORK[part](argument)))
        return
    here = gpu.available()
    record: dict[str, Any] = {"commit": options.commit, "date": datetime.now(UTC).isoformat(timespec="seconds"), "dtype": DTYPE,
                              "gpu": gpu.identity()[0] if here else "none", "unit": "seconds, bytes"}
    for part in options.only.split(","):
        if part in ON_GPU and not here:
            print(f"{part}: not measured, for want of a GPU")
            continue
        record[part] = PARTS[part]()
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
