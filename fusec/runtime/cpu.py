"""Building CPU kernels: finding a C++ compiler, and from generated source to a shared library.

In: a `Source` in C++. Out: the bytes of a shared library, and the signature of the CPU it was tuned to. `build` keeps the
result in a store; `cpu_engine` loads it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import InternalError, MissingError
from .program import Source
from .store import reason

# -ffp-contract=fast: one rounding per multiply-add wherever the CPU has it. No -ffast-math: sums keep the order the generator
# chose. Kernels neither read errno nor trap, and a vector type wider than the CPU's is passed nowhere (hence no psabi notes).
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC",
         "-shared", "-pthread", "-fvisibility=hidden", "-Wall", "-Werror=return-type", "-Wno-psabi")
# GCC tuned for AMD's Zen splits chains of multiply-adds into products and sums, but only in some loops: then two schedules of
# one layer would round differently.
GCC_FLAGS = ("--param=avoid-fma-max-bits=0",)
CANDIDATES = ("c++", "g++", "clang++")
WAYS_OUT = "install one (Debian: apt install g++), or: pip install 'fusec[cc]'"
SHOWN_LINES = 12  # of a compiler's complaints


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the command with its fixed arguments, and what it says of itself."""

    command: tuple[str, ...]
    version: str

    @property
    def flags(self) -> tuple[str, ...]:
        """How a kernel is compiled."""
        gcc = "Free Software Foundation" in self.version and "clang" not in self.version
        return (*FLAGS, *GCC_FLAGS) if gcc else FLAGS

    @property
    def identity(self) -> str:
        """Text that changes when the compiler, or the way it is called, does."""
        return "\n".join((*self.command, self.version, *self.flags))

    def __str__(self) -> str:
        return f"{shlex.join(self.command)} ({self.version.partition(chr(10))[0]})"


def find_compiler(preferred: str | None = None) -> Compiler:
    """The compiler to use: `preferred` (the value of $CXX) if given, else c++, g++, clang++, else zig's from the extra `cc`.

    MissingError when there is none, or when the preferred one does not work: no other takes its place silently.
    """
    if preferred:
        try:
            command = tuple(shlex.split(preferred))
        except ValueError:
            command = ()
        found = _probe(command) if command else None
        if found is None:
            raise MissingError(f"the C++ compiler {preferred!r} (from CXX) cannot be run; correct or unset CXX")
        return found
    for name in CANDIDATES:
        if found := _probe((name,)):
            return found
    if importlib.util.find_spec("ziglang") and (found := _probe((sys.executable, "-m", "ziglang", "c++"))):
        return found
    raise MissingError(f"no C++ compiler found ({', '.join(CANDIDATES)}): {WAYS_OUT}")


@functools.cache
def _version(command: tuple[str, ...]) -> str | None:
    try:
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", timeout=120,
                                check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _probe(command: tuple[str, ...]) -> Compiler | None:
    path = shutil.which(command[0])
    if path is None:
        return None
    full = (path, *command[1:])
    version = _version(full)
    return None if version is None else Compiler(full, version)


@functools.cache
def signature() -> str:
    """What `-march=native` stands for here, e.g. `linux-x86_64-1f0c...`; libraries go between equal signatures only."""
    machine = platform.machine() or "unknown"
    wanted = {"vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "CPU variant", "Features", "isa"}
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    facts = {line.replace("\t", " ").strip() for line in lines if line.partition(":")[0].strip() in wanted}
    text = "\n".join(sorted(facts)) or platform.processor()
    return f"{sys.platform}-{machine}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def build(source: Source, compiler: Compiler) -> tuple[bytes, str]:
    """Compile one source: the bytes of a shared library, and the warnings, if any.

    InternalError with the place of the kept source when the compiler rejects what we generated; MissingError when it fails for
    another reason (a broken installation, no memory, no room on the disk).
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="fusec-"))
    except OSError as error:
        raise MissingError(f"no temporary folder can be written ({reason(error)}); make room, or set TMPDIR") from None
    keep = False
    try:
        path = folder / source.filename
        path.write_text(source.text, encoding="utf-8")
        library = folder / f"{source.entry}.so"
        result = subprocess.run([*compiler.command, *compiler.flags, "-o", str(library), str(path)], capture_output=True,
                                text=True, errors="replace", check=False, stdin=subprocess.DEVNULL, cwd=folder)
        if result.returncode == 0:
            return library.read_bytes(), _complaints(result, folder)
        # a fatal error is no fault of the source: a header that is missing, no room for what the compiler writes
        rejected = re.search(rf"{re.escape(source.filename)}:\d+(:\d+)?: error", result.stderr) is not None
        keep = rejected
        raise _failure(source, compiler, path, result, rejected)
    except OSError as error:
        raise MissingError(f"cannot compile {source.filename} with {compiler.command[0]} in {folder}: {reason(error)}"
                           ) from None
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _failure(source: Source, compiler: Compiler, path: Path, result: subprocess.CompletedProcess[str], rejected: bool
             ) -> InternalError | MissingError:
    complaints = _complaints(result, path.parent).splitlines()
    start = next((i for i, line in enumerate(complaints) if "error" in line.lower()), 0)
    shown = "\n  ".join(complaints[start:start + SHOWN_LINES]) or f"exit status {result.returncode}"
    if rejected:
        return InternalError(f"{compiler} rejects generated source, which is kept as {path}:\n  {shown}")
    return MissingError(f"{compiler} failed on {source.filename}, not through the source itself:\n  {shown}\n"
                        "make room if that is missing; else repair the compiler, or choose another with CXX")


def _complaints(result: subprocess.CompletedProcess[str], folder: Path) -> str:
    """Warnings and errors, without the temporary folder's name."""
    return result.stderr.replace(f"{folder}{os.sep}", "").strip()
