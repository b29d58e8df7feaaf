"""The last step of the pipeline: sources are built and linked with their weights into a model.

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
from . import cpu, cuda
from .cpu_engine import CpuEngine, usable_threads
from .model import Model
from .program import POOL, Program, Source
from .store import Store, digest
from .weights import Floats

Progress = Callable[[int, int], None]  # kernels done, kernels in all

SUFFIX = {"cpu": ".so", "cuda": ".cubin"}
ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def link(program: Program, sources: Sequence[Source], weights: Mapping[str, Floats], *, store: Store,
         compiler: cpu.Compiler | None = None, threads: int | None = None, progress: Progress | None = None) -> Model:
    """Build all sources and make the model.

    Parameters
    ----------
    sources
        One per entry of the program's variants; for the CPU the thread pool's (entry `fusec_pool`) too.
    weights
        Packed float32 weights, one axis, by the key in `Launch.params`.
    store
        Where built kernels are kept; usually a `fusec.runtime.cache.Cache`.
    compiler
        The C++ compiler; None is `cpu.find_compiler()`.
    threads
        The CPU model's threads; None is all that the process may use.
    progress
        Called with the number of kernels done and the number of all, from the calling thread.

    Raises
    ------
    MissingError, InternalError
        See `cpu.build` and `cuda.compile_cubin`.
    """
    _check(program, sources, weights)
    binaries = build(program.target, program.arch, sources, store, compiler, progress)
    return assemble(program, sources, binaries, weights, store=store, threads=threads)


def build(target: str, arch: str, sources: Sequence[Source], store: Store, compiler: cpu.Compiler | None = None,
          progress: Progress | None = None) -> dict[str, Path]:
    """Path of every entry's binary, built where the store does not have it."""
    if target == "cuda":
        tool, make = cuda.identity(), functools.partial(_cubin, arch=arch)
    else:
        chosen = compiler or cpu.find_compiler()
        tool, make = chosen.identity, functools.partial(cpu.build, compiler=chosen)
    distinct = {(s.entry, s.text): s for s in sources}.values()
    keys = {s.entry: digest(target, arch, tool, s.entry, s.text) for s in distinct}
    paths: dict[str, Path] = {}
    if progress:
        progress(0, len(distinct))
    with _workers(usable_threads()) as pool:
        futures = {pool.submit(store.get_or_build, keys[s.entry], SUFFIX[target], functools.partial(make, s)): s.entry
                   for s in distinct}
        for future in as_completed(futures):
            paths[futures[future]] = future.result()
            if progress:
                progress(len(paths), len(distinct))
    return {s.entry: paths[s.entry] for s in distinct}


def _cubin(source: Source, arch: str) -> bytes:
    return cuda.compile_cubin(source, arch)[0]


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
    """The model of binaries that are there; `store` takes what has to be rebuilt for a GPU of another architecture."""
    def rebuild(arch: str) -> Mapping[str, Path]:
        return build("cuda", arch, sources, store)
    if program.target == "cuda":
        return Model(program, cuda.CudaEngine(program, binaries, weights, rebuild), sources, binaries, weights, store)
    return Model(program, CpuEngine(program, binaries, weights, threads), sources, binaries, weights, store)


def _check(program: Program, sources: Sequence[Source], weights: Mapping[str, Floats]) -> None:
    """What the steps before promised; each breach would end in a crash later."""
    if program.target not in SUFFIX:
        raise InternalError(f"no runtime for target {program.target!r}")
    texts: dict[str, str] = {}
    for source in sources:
        if not ENTRY.fullmatch(source.entry):
            raise InternalError(f"{source.entry!r} is no identifier")
        if texts.setdefault(source.entry, source.text) != source.text:
            raise InternalError(f"two different sources are called {source.entry}")
    needed = {variant.entry for launch in program.launches for variant in launch.variants}
    needed |= {POOL} if program.target == "cpu" else set()
    if missing := sorted(needed - set(texts)):
        raise InternalError(f"no source for {', '.join(missing)}")
    for launch in program.launches:
        array = weights.get(launch.params)
        if launch.params and (array is None or array.ndim != 1 or array.dtype != "float32"):
            raise InternalError(f"the weights {launch.params!r} of {launch.label} are not a float32 array of one axis")
