"""Running emulated kernels: a kernel's text and arrays in, the arrays as the kernel left them out.

A plain kernel is a shared library called through ctypes in this process. A sanitized one is an executable that gets a file and
gives one back, because AddressSanitizer has to be in a program from its start.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arguments import Argument, Parameter, Value, parse_signature, prepare
from .build import EmulatorError, build

ORDERS = {"forward": 0, "reverse": 1, "random": 2}
TIMEOUT = 300  # seconds a sanitized launch may take
REPORT_CHARACTERS = 6000
_FAILED = 3  # exit code of an executable that ended with the emulator's own message
_SIGNATURE_BYTES = 16384
_HEADER = struct.Struct("<3I3IQQIIQ")  # Request in launch.hpp
_RECORD = struct.Struct("<QQiI")  # Argument in launch.hpp

Extent = tuple[int, int, int]


class SanitizerError(EmulatorError):
    """AddressSanitizer or UBSan stopped the kernel; the message is its report."""


class RaceError(EmulatorError):
    """Outputs depend on the order in which threads run: a barrier is missing, or blocks meddle with each other."""


class _CArgument(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("same_as", ctypes.c_int32), ("unused", ctypes.c_uint32))


class _CRequest(ctypes.Structure):
    _fields_ = (("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3), ("shared_bytes", ctypes.c_uint64),
                ("seed", ctypes.c_uint64), ("order", ctypes.c_uint32), ("count", ctypes.c_uint32),
                ("arguments", ctypes.POINTER(_CArgument)))


class EmulatedKernel:
    """A CUDA C++ kernel, compiled for the host.

    Parameters
    ----------
    source
        The text of a kernel file without includes.
    entry
        Name of an `extern "C" __global__` function in it.
    sanitize
        Run under AddressSanitizer and UBSan, in a process of its own.
    compiler
        Command of a C++ compiler; `find_compiler()` when left out.
    flags
        Further compiler options, after the emulator's own.

    Raises
    ------
    BuildError
        No compiler, or the source does not compile.
    """

    def __init__(self, source: str, entry: str, *, sanitize: bool = False, compiler: str | None = None,
                 flags: Sequence[str] = ()) -> None:
        if not entry.isidentifier():
            raise ValueError(f"'{entry}' is not a name of a kernel")
        self.entry = entry
        self.sanitize = sanitize
        self._path = build(source, entry, sanitize=sanitize, compiler=compiler, flags=tuple(flags))
        # PyDLL holds the interpreter lock while a kernel runs: the emulator's state and its fault handlers are one per process
        self._library = None if sanitize else ctypes.PyDLL(str(self._path))  # and with it the emulator
        self.parameters: tuple[Parameter, ...] = parse_signature(self._signature())

    def launch(self, grid: Extent, block: Extent, args: Sequence[Value], shared_bytes: int = 0, order: str = "forward",
               seed: int = 0) -> None:
        """Runs the grid and writes the arrays behind pointers that are not const.

        Parameters
        ----------
        grid, block
            Extents (x, y, z), in blocks and in threads.
        args
            One value per parameter: arrays for pointers, numbers, or bytes for structs.
        shared_bytes
            Dynamic shared memory per block, in bytes.
        order
            "forward", "reverse" or "random" (by `seed`): who runs first between two barriers, and which block first.

        Raises
        ------
        TypeError, ValueError
            Arguments that do not fit the kernel's parameters.
        EmulatorError
            The kernel broke a rule; arrays keep their values. SanitizerError when a sanitizer found it.
        """
        if order not in ORDERS:
            raise ValueError(f"order '{order}' is none of {', '.join(ORDERS)}")
        for extent in (*grid, *block, shared_bytes):
            if not 0 <= extent < 2**32:
                raise ValueError(f"{extent} is no extent")
        arguments = prepare(self.parameters, args)
        run = self._run_process if self._library is None else self._run_here
        run(grid, block, arguments, shared_bytes, ORDERS[order], seed % 2**64)

    def check_races(self, grid: Extent, block: Extent, args: Sequence[Value], shared_bytes: int = 0,
                    seeds: Sequence[int] = (1, 2)) -> None:
        """Launches in forward, reverse and random orders on copies of the arrays; all must leave the same bits.

        Arrays in `args` get the results of the forward run.

        Raises
        ------
        RaceError
            Naming the order, the argument and the first element that differs.
        """
        before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        self.launch(grid, block, args, shared_bytes)
        for order, seed in (("reverse", 0), *(("random", s) for s in seeds)):
            copies = {id(a): b.copy() for a, b in zip(args, before, strict=True) if isinstance(b, np.ndarray)}
            trial = [copies.get(id(a), a) for a in args]
            self.launch(grid, block, trial, shared_bytes, order, seed)
            for i, (one, other) in enumerate(zip(args, trial, strict=True)):
                if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
                    _compare(one, other, f"argument {i}, order {order}{f' (seed {seed})' if order == 'random' else ''}")

    @property
    def _kernel(self) -> int:
        """Address of the `Kernel` in the library (runtime.hpp)."""
        assert self._library is not None
        return ctypes.addressof(ctypes.c_char.in_dll(self._library, "fusec_emulator_kernel"))

    def _signature(self) -> str:
        if self._library is None:
            return self._process("--signature")
        text = ctypes.create_string_buffer(_SIGNATURE_BYTES)
        signature = self._library.fusec_emulator_signature
        signature.restype = None
        signature.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        signature(self._kernel, text, _SIGNATURE_BYTES)
        return text.value.decode()

    def _run_here(self, grid: Extent, block: Extent, arguments: tuple[Argument, ...], shared_bytes: int, order: int,
                  seed: int) -> None:
        assert self._library is not None
        holders = [ctypes.create_string_buffer(a.data, max(1, len(a.data))) for a in arguments]
        records = (_CArgument * max(1, len(arguments)))()
        for record, holder, a in zip(records, holders, arguments, strict=False):
            record.data = ctypes.addressof(holder) if a.array is None else a.array.ctypes.data
            record.bytes, record.same_as = a.nbytes, a.same_as
        request = _CRequest(grid, block, shared_bytes, seed, order, len(arguments), records)
        launch = self._library.fusec_emulator_launch
        launch.restype = ctypes.c_char_p
        launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        error = launch(self._kernel, ctypes.byref(request))
        if error:
            raise EmulatorError(error.decode(errors="replace"))

    def _run_process(self, grid: Extent, block: Extent, arguments: tuple[Argument, ...], shared_bytes: int, order: int,
                     seed: int) -> None:
        with tempfile.TemporaryDirectory(prefix="cuda-emulator-run-") as folder:
            request, result = Path(folder, "request"), Path(folder, "result")
            with request.open("wb") as file:
                file.write(_HEADER.pack(*grid, *block, shared_bytes, seed, order, len(arguments), 0))
                for a in arguments:
                    file.write(_RECORD.pack(0, a.nbytes, a.same_as, 0))
                    if a.same_as < 0:
                        file.write(a.data if a.array is None else a.array.tobytes())
            self._process(str(request), str(result))
            _read_back(arguments, result.read_bytes())

    def _process(self, *words: str) -> str:
        environment = os.environ | {
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1"}
        try:
            done = subprocess.run([str(self._path), *words], capture_output=True, text=True, errors="replace", timeout=TIMEOUT,
                                  env=environment, check=False)
        except subprocess.TimeoutExpired:
            raise EmulatorError(f"{self.entry} was still running after {TIMEOUT} s: a loop that never ends?") from None
        if done.returncode == 0:
            return done.stdout
        if done.returncode == _FAILED:
            raise EmulatorError(done.stderr.strip())
        report = done.stderr.strip()[:REPORT_CHARACTERS]
        raise SanitizerError(report or f"{self.entry} ended with code {done.returncode}")


def _read_back(arguments: tuple[Argument, ...], result: bytes) -> None:
    writable = {i if a.same_as < 0 else a.same_as for i, a in enumerate(arguments) if a.parameter.role == "w"}
    at = 0
    for i, a in enumerate(arguments):
        if a.array is None or a.same_as >= 0:
            continue
        if i in writable:
            a.array[...] = np.frombuffer(result, a.array.dtype, a.array.size, at).reshape(a.array.shape)
        at += a.nbytes


def _compare(one: NDArray[np.generic], other: NDArray[np.generic], where: str) -> None:
    if one.tobytes() == other.tobytes():
        return
    size = one.dtype.itemsize
    bits, others = (np.frombuffer(v.tobytes(), np.uint8).reshape(-1, size) for v in (one, other))
    differing = np.flatnonzero((bits != others).any(axis=1))
    index = tuple(int(i) for i in np.unravel_index(differing[0], one.shape))
    raise RaceError(f"{where}: {differing.size} of {one.size} elements differ from the forward run, first {index}: "
                    f"{one[index]} and {other[index]}")
