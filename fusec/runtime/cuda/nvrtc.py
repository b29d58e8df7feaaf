"""From generated CUDA C++ to a cubin, by NVRTC, which needs neither a GPU nor a driver.

In: a `Source` and an architecture. Out: the cubin, and what ptxas says of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError, InternalError, MissingError
from ..program import Source

OPTIONS = ("-std=c++17", "-default-device", "--ptxas-options=-v")
WAYS_OUT = ("install cupy-cuda13x with nvidia-cuda-nvrtc, which the extra 'fusec[cuda13]' brings (in a clone: '.[cuda13]'; for "
            "a CUDA 12 driver: cuda12), or choose target 'cpu'")
SHOWN_LINES = 12  # of the compiler's complaints


@dataclass(frozen=True)
class ResourceUsage:
    """What ptxas says of a kernel: registers per thread, bytes per thread on the stack and spilled, static scratch bytes."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    scratch: int
    log: str


def library() -> Any:
    """CuPy's bindings of NVRTC; MissingError where it is not installed."""
    try:
        from cupy_backends.cuda.libs import nvrtc
        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingError(f"NVRTC, the CUDA compiler, is not installed ({error}): {WAYS_OUT}") from None
    return nvrtc


def identity() -> str:
    """Text that changes when the compiler, or the way it is called, does; MissingError without NVRTC."""
    return f"nvrtc {'.'.join(map(str, library().getVersion()))} {' '.join(OPTIONS)}"


def compile_cubin(source: Source, arch: str, include: Sequence[str] = ()) -> tuple[bytes, ResourceUsage]:
    """Compile one source for an architecture such as `sm_90`; needs no GPU.

    InputError when this NVRTC does not know the architecture, InternalError with the file and line when it rejects the source,
    MissingError when it is not installed.
    """
    nvrtc = library()
    match = re.fullmatch(r"sm_(\d{2,3})[af]?", arch)
    known = tuple(nvrtc.getSupportedArchs())
    if match is None or int(match[1]) not in known:
        raise InputError(f"the architecture {arch!r} is unknown to NVRTC {'.'.join(map(str, nvrtc.getVersion()))}",
                         hint=f"one of {', '.join(f'sm_{a}' for a in known)}")
    program = nvrtc.createProgram(source.text, source.filename, (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={arch}", *OPTIONS, *(f"-I{folder}" for folder in include)))
        return nvrtc.getCUBIN(program), _usage(nvrtc.getProgramLog(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise _rejected(source, arch, log or str(error)) from None
    finally:
        nvrtc.destroyProgram(program)


def _usage(log: str) -> ResourceUsage:
    def number(pattern: str) -> int:
        found = re.search(pattern, log)
        return int(found[1]) if found else 0
    return ResourceUsage(registers=number(r"Used (\d+) registers"), stack=number(r"(\d+) bytes stack frame"),
                         spill_stores=number(r"(\d+) bytes spill stores"), spill_loads=number(r"(\d+) bytes spill loads"),
                         scratch=number(r"(\d+) bytes smem"), log=log)


def _rejected(source: Source, arch: str, log: str) -> InternalError:
    lines = log.strip().splitlines()
    first = next((i for i, line in enumerate(lines) if "error" in line), 0)
    shown = "\n  ".join(lines[first:first + SHOWN_LINES])
    place = re.search(rf"{re.escape(source.filename)}\((\d+)\)", log)
    text = source.text.splitlines()
    number = int(place[1]) if place else 0
    context = f"\n  line {number}: {text[number - 1].strip()}" if 0 < number <= len(text) else ""
    return InternalError(f"NVRTC rejects the generated {source.filename} for {arch}:\n  {shown}{context}")
