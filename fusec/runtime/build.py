"""The last two steps of the pipeline: sources are built, and the binaries linked with their weights into a model.

In: a `Program`, the generated sources, packed weights, a store of built kernels. Out: a `Model`. Kernels are built in parallel;
one that the store has is not built again.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ..errors import InternalError
from . import cpu
from .cpu_engine import CpuEngine, usable_threads
from .cuda import nvrtc
from .cuda.engine import CudaEngine
from .model import Model
from .program import POOL, Program, Source
from .store import Store, digest
from .weights import Floats

Progress = Callable[[int, int], None]  # kernels done, kernels in all
Log = Callable[[str, str | None], None]  # an entry, and what the compiler said of it; None where the store had it

SUFFIX = {"cpu": ".so", "cuda": ".cubin"}
ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def build(target: str, arch: str, sources: Sequence[Source], store: Store, compiler: cpu.Compiler | None = None,
          progress: Progress | None = None, log: Log | None = None) -> dict[str, Path]:
    """Build the sources that the store does not have.

    Parameters
    ----------
    sources
        One per entry; for the CPU the thread pool's (entry `fusec_pool`) too.
    store
        Where built kernels are kept; usually a `fusec.runtime.cache.Cache`.
    compiler
        The C++ compiler; None is `cpu.find_compiler()`.
    progress, log
        Called from the calling thread, as kernels are done.

    Returns
    -------
    Path of every entry's binary.

    Raises
    ------
    MissingError, InternalError
        See `cpu.build` and `cuda.nvrtc.compile_cubin`.
    """
    _check_sources(target, sources)
    tool, make = _tool(target, arch, compiler)
    distinct = {s.entry: s for s in sources}
    said: dict[str, str] = {}

    def made(source: Source) -> bytes:
        binary, said[source.entry] = make(source)
        return binary

    keys = {s.entry: digest(target, arch, tool, s.entry, s.text) for s in distinct.values()}
    paths: dict[str, Path] = {}
    if progress:
        progress(0, len(distinct))
    with _workers(usable_threads()) as pool:
        futures = {pool.submit(store.get_or_build, keys[e], SUFFIX[target], functools.partial(made, s)): e
                   for e, s in distinct.items()}
        for future in as_completed(futures):
            entry = futures[future]
            paths[entry] = future.result()
            if log:
                log(entry, said.get(entry))
            if progress:
                progress(len(paths), len(distinct))
    return {entry: paths[entry] for entry in distinct}


def _tool(target: str, arch: str, compiler: cpu.Compiler | None) -> tuple[str, Callable[[Source], tuple[bytes, str]]]:
    """Text that changes when the tool does, and what makes a source's binary and log with it."""
    if target == "cuda":
        return nvrtc.identity(), functools.partial(_cubin, arch=arch)
    chosen = compiler or cpu.find_compiler()
    return chosen.identity, functools.partial(cpu.build, compiler=chosen)


def _cubin(source: Source, arch: str) -> tuple[bytes, str]:
    binary, usage = nvrtc.compile_cubin(source, arch)
    return binary, usage.log


@contextlib.contextmanager
def _workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for compilers; those not begun are given up when one fails or the user interrupts."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="fusec-build")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def assemble(program: Program, sources: Sequence[Source], binaries: Mapping[str, Path], weights: Mapping[str, Floats], *,
             store: Store, threads: int | None = None) -> Model:
    """Link binaries with their weights.

    Parameters
    ----------
    binaries
        Path of the binary of every source.
    weights
        Packed weights as float32 arrays of one axis, by the key in `Launch.params`; of 16-bit types the bits of two each.
    store
        Takes what has to be rebuilt for a GPU of another architecture.
    threads
        The CPU model's threads; None is all that the process may use.
    """
    _check_program(program, binaries, weights)

    def rebuild(arch: str) -> Mapping[str, Path]:
        return build("cuda", arch, sources, store)
    if program.target == "cuda":
        return Model(program, CudaEngine(program, binaries, weights, rebuild), sources, binaries, weights, store)
    return Model(program, CpuEngine(program, binaries, weights, threads), sources, binaries, weights, store)


def _check_sources(target: str, sources: Sequence[Source]) -> None:
    """What the steps before promised; entries become names of files."""
    if target not in SUFFIX:
        raise InternalError(f"no runtime for target {target!r}")
    texts: dict[str, str] = {}
    for source in sources:
        if not ENTRY.fullmatch(source.entry):
            raise InternalError(f"{source.entry!r} is no identifier")
        if texts.setdefault(source.entry, source.text) != source.text:
            raise InternalError(f"two different sources are called {source.entry}")


def _check_program(program: Program, binaries: Mapping[str, Path], weights: Mapping[str, Floats]) -> None:
    """What the steps before promised; each breach would end in a crash later."""
    if program.target == "cpu" and program.dtype != "float32":
        raise InternalError(f"no runtime for {program.dtype} on the CPU")
    needed = {variant.entry for launch in program.launches for variant in launch.variants}
    needed |= {POOL} if program.target == "cpu" else set()
    if missing := sorted(needed - set(binaries)):
        raise InternalError(f"no source for {', '.join(missing)}")
    for launch in program.launches:
        array = weights.get(launch.params)
        if launch.params and (array is None or array.ndim != 1 or array.dtype != "float32"):
            raise InternalError(f"the weights {launch.params!r} of {launch.label} are not a float32 array of one axis")
