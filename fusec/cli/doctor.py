"""`fusec doctor`: what this machine has and lacks."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from fusec import debug, pipeline
from fusec.cli import options
from fusec.cli.output import facts, in_bytes, line, plural, print_json
from fusec.errors import FusecError, MissingError
from fusec.runtime import cpu
from fusec.runtime.cache import Cache
from fusec.runtime.cuda import gpu
from fusec.runtime.program import Source
from fusec.version import VERSION

PROBE = Source("fusec_probe", 'extern "C" __attribute__((visibility("default"))) int fusec_probe() { return 0; }\n', "cpp")


@click.command(epilog="Example: fusec doctor")
@options.JSON
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what this machine has and lacks.

    Looks for Python and NumPy, a C++ compiler (which it tries), the CPU's vectors, the cache of compiled kernels, NVRTC, CuPy
    and GPUs. Exit code 5 when kernels can be compiled for neither CPU nor GPU.
    """
    found: dict[str, Any] = {
        "fusec": VERSION, "python": platform.python_version(), "platform": platform.platform(), "numpy": np.__version__,
        "cpu": _cpu(), "cache": _cache(), "cuda": _cuda()}
    found["usable"] = [target for target in ("cpu", "cuda") if found[target]["usable"]]
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not (found["cpu"]["usable"] or found["cuda"]["compiles"]):
        ctx.exit(MissingError.exit_code)


def _cpu() -> dict[str, Any]:
    device, compiler, problem = pipeline.choose_device("cpu"), None, None
    try:
        chosen = cpu.find_compiler(debug.compiler())
        compiler = str(chosen)
        cpu.build(PROBE, chosen)
    except FusecError as error:
        problem = str(error)
    return {"machine": platform.machine(), "vector_bits": 32 * device.vector, "threads": device.cores, "compiler": compiler,
            "usable": problem is None, "problem": problem}


def _cache() -> dict[str, Any]:
    cache = Cache(debug.cache_folder())
    kept, problem = 0, None
    size = 0
    try:
        entries = cache.list()
        kept, size = len(entries), sum(e.bytes for e in entries)
    except MissingError as error:
        problem = str(error)
    problem = problem or _write_problem(cache.folder)
    return {"folder": str(cache.folder), "kernels": kept, "bytes": size, "writable": problem is None, "problem": problem}


def _write_problem(folder: Path) -> str | None:
    """Why nothing can be written to a folder, or to the one it would be made in."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is no folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror or error}"
    return None


def _cuda() -> dict[str, Any]:
    found = gpu.inventory()
    return {"nvrtc": found.nvrtc or None, "cupy": found.cupy or None, "driver": found.driver or None, "gpus": list(found.gpus),
            "compiles": bool(found.nvrtc), "usable": bool(found.nvrtc and found.gpus), "problems": list(found.obstacles)}


def _show(found: dict[str, Any]) -> None:
    cpu_facts, cache, gpu = found["cpu"], found["cache"], found["cuda"]
    facts([
        ("fusec", found["fusec"]),
        ("python", f"{found['python']} ({sys.executable})"),
        ("platform", found["platform"]),
        ("numpy", found["numpy"]),
        ("cpu", f"{cpu_facts['machine']}, {cpu_facts['vector_bits']}-bit vectors, {plural(cpu_facts['threads'], 'thread')}"),
        ("compiler", cpu_facts["compiler"] or "none"),
        ("cache", f"{cache['folder']}: {plural(cache['kernels'], 'kernel')}, {in_bytes(cache['bytes'])}, "
                  f"{'writable' if cache['writable'] else 'not writable'}"),
        ("nvrtc", gpu["nvrtc"] or "none"),
        ("cupy", gpu["cupy"] or "none"),
        ("driver", f"CUDA {gpu['driver']}" if gpu["driver"] else "none"),
        *(("gpu", name) for name in gpu["gpus"] or ["none"]),
    ])
    problems = [p for p in (cpu_facts["problem"], cache["problem"], *gpu["problems"]) if p]
    line()
    for problem in problems:
        line(f"- {problem}")
    can = {"cpu": "the CPU", "cuda": "the GPU"}
    runs = " and ".join(can[t] for t in found["usable"]) or "nothing"
    only = "; CUDA kernels can be compiled with --arch" if gpu["compiles"] and not gpu["usable"] else ""
    line(f"kernels can be compiled and run for {runs}{only}")
