"""Building emulated kernels: kernel text in, the path of a shared library or a sanitized executable out.

Everything built is kept in one temporary folder, by a hash of all that went into it, until the process ends.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME = ("fiber.cpp", "scheduler.cpp", "launch.cpp", "matrix.cpp", "copies.cpp")
PROGRAM = (*RUNTIME, "main.cpp")
TIMEOUT = 300  # seconds a compiler may take

COMMON = ("-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-fPIC", "-fvisibility=hidden",
          "-U_FORTIFY_SOURCE", "-w")
PLAIN = ("-O2",)
LINK = ("-shared", "-nostdlib", "-Wl,--no-as-needed")  # C's own words come with the emulator's library
SANITIZED = ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

_DYNAMIC_SHARED = re.compile(r"\bextern\s+__shared__\s+(?P<type>[^;\[\]{}]*?)\b(?P<name>[A-Za-z_]\w*)\s*\[\s*\]\s*;")
_ALIGNMENT = re.compile(r"\b(?:__align__|alignas)\s*\([^()]*\)|\b__attribute__\s*\(\(.*?\)\)")


class EmulatorError(RuntimeError):
    """The emulator stopped: the kernel broke a rule, or the launch was not a legal one."""


class BuildError(EmulatorError):
    """The kernel does not compile, or there is no compiler; carries the compiler's words."""


@cache
def find_compiler() -> str | None:
    """The command of a C++ compiler: $CXX, else g++, clang++ or c++; None when there is none."""
    candidates = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return next((c for c in candidates if c and shutil.which(shlex.split(c)[0])), None)


@cache
def can_sanitize(compiler: str | None = None) -> bool:
    """Whether programs built with AddressSanitizer and UBSan link and run here; their libraries are packages of their own."""
    command = compiler or find_compiler()
    if command is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "main.cpp"), Path(folder, "main")
        source.write_text("int main() { return 0; }\n")
        try:
            _compile(command, (*COMMON, *SANITIZED, str(source)), program)
            return subprocess.run([str(program)], timeout=TIMEOUT, check=False, capture_output=True).returncode == 0
        except (BuildError, OSError, subprocess.TimeoutExpired):
            return False


def host_text(source: str) -> str:
    """The kernel's text with each `extern __shared__ T name[];` made a pointer to the emulator's dynamic shared memory.

    No macro can do this alone: `__shared__` has to be `static` for arrays with a size. Lines keep their numbers.
    """
    def pointer(match: re.Match[str]) -> str:
        element = " ".join(_ALIGNMENT.sub(" ", match["type"]).split())
        return f"FUSEC_EMULATOR_DYNAMIC_SHARED({element}, {match['name']});" + "\n" * match[0].count("\n")

    return _DYNAMIC_SHARED.sub(pointer, source)


def build(source: str, entry: str, *, sanitize: bool, compiler: str | None, flags: Sequence[str]) -> Path:
    """A shared library with the kernel, or with `sanitize` an executable; built once per process for the same arguments.

    Raises
    ------
    BuildError
        No compiler, or the source does not compile; lines are those of `source`, named kernel.cu.
    """
    command = compiler or find_compiler()
    if command is None:
        raise BuildError("no C++ compiler found: install g++ or clang++, or set CXX")
    options = (*COMMON, *(SANITIZED if sanitize else (*PLAIN, *_native())), *flags)
    unit = f'#line 1 "kernel.cu"\n{host_text(source)}\n#line 1 "launcher"\nFUSEC_EMULATOR_KERNEL({entry})\n'
    result = _folder() / f"{_digest(command, options, unit)}.{'exe' if sanitize else 'so'}"
    if not result.exists():
        text = result.with_suffix(".cpp")
        text.write_text(unit)
        rest = _program(command, options) if sanitize else (*LINK, str(_library(command, options)), "-lgcc")
        include = ("-include", str(HERE / "cuda_emulator.hpp"), "-x", "c++", str(text), "-x", "none")
        _compile(command, (*options, *include, *rest), result)
    return result


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="cuda-emulator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _native() -> tuple[str, ...]:
    """Lets fmaf become one instruction where the baseline instruction set lacks it; the bits are the same."""
    return ("-march=native",) if platform.machine() in ("x86_64", "AMD64") else ()


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


@cache
def _program(command: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """The emulator's own objects for a sanitized executable, compiled at their first use."""
    objects = []
    for name in PROGRAM:
        target = _folder() / f"{_digest(command, options, name)}.o"
        _compile(command, (*options, "-O2", "-c", str(HERE / name)), target)
        objects.append(str(target))
    return tuple(objects)


@cache
def _library(command: str, options: tuple[str, ...]) -> Path:
    """The emulator as a library that all kernels of these options load: linking it into each was a third of a build."""
    target = _folder() / f"{_digest(command, options)}.so"
    sources = [str(HERE / name) for name in RUNTIME]
    _compile(command, (*options, "-O2", "-fvisibility=default", "-shared", *sources, "-lm"), target)
    return target


def _compile(command: str, arguments: Sequence[str], output: Path) -> None:
    partial = output.with_name(output.name + ".part")
    done = subprocess.run([*shlex.split(command), *arguments, "-o", str(partial)], capture_output=True, text=True,
                          timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise BuildError(done.stderr.strip() or done.stdout.strip() or f"{command} failed with code {done.returncode}")
    partial.replace(output)
