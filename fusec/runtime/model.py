"""The model: what a user calls.

In: arrays of one kind. Out: arrays of the same kind. Checks them against the program, works out sizes (once per size), lets the
engine run. Made by `build.assemble`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InputError, Problem, nearest
from . import elements
from .engine import Engine, Runner
from .interop import host_array
from .program import Port, Program, Source
from .store import Store
from .weights import Floats
from .workload import Workload, arrange

REMEMBERED = 16  # sizes a model keeps ready
AXES = "batch, channels, height, width"

Sizes = tuple[int, tuple[tuple[int, int], ...]]  # batch, then (height, width) of each input


class Model:
    """A compiled network, called like a function.

    Attributes
    ----------
    program
        What the model consists of: sizes, launches, target.
    sources, binaries, weights
        The generated sources, the path of each entry's binary, and the packed weights of each launch.
    """

    def __init__(self, program: Program, engine: Engine, sources: Sequence[Source], binaries: Mapping[str, Path],
                 weights: Mapping[str, Floats], store: Store | None = None) -> None:
        self.program = program
        self.engine = engine
        self.sources = tuple(sources)
        self.binaries = dict(binaries)
        self.weights = dict(weights)
        self._store = store  # when its folder is a temporary one, the binaries stay as long as it does
        self._channels = _channels(program)
        self._runners: OrderedDict[Sizes, Runner] = OrderedDict()  # the one used last is at the end
        self._guard = threading.Lock()

    def __call__(self, *inputs: Any, out: Any = None, **named: Any) -> Any:
        """Run the network.

        Parameters
        ----------
        *inputs, **named
            One array of shape (N, C, H, W) and the program's type per input, in order or by the input's name: NumPy arrays,
            CuPy arrays, torch tensors, or anything else that speaks DLPack. N is free, and so are H and W unless the network
            pins them. Of bfloat16 there are torch's tensors, and arrays of the type that the package ml_dtypes has.
        out
            The array to write the result into (a tuple of them for several outputs): of exactly the result's shape and
            type, dense, apart from the inputs, on the model's device.

        Returns
        -------
        The result, or a tuple of results, as the kind of array the first input is (or `out` itself): (N, C, H, W), or (N, C)
        for outputs that are vectors. On CUDA it is ready in the order of the current stream, without waiting for it; only NumPy
        arrays are copied to the device and back. Before each capture of a CUDA graph, call once with the same sizes on the same
        stream, and pass `out`: a captured call keeps its intermediates for itself as long as the model lives.

        Raises
        ------
        InputError
            The arrays do not fit the network.
        MissingError
            No memory or no device.
        """
        values = self._bind(inputs, named)
        engine = self.engine
        with engine.scope(values):
            given = [engine.accept(value, port.name) for value, port in zip(values, self.program.inputs, strict=True)]
            _check(self.program, self._channels, values, given)
            runner = self._runner(given[0].shape[0], tuple([array.shape[2:] for array in given]))
            ready = [engine.dense(array) for array in given]
            results = self._results(runner.workload, ready, out)
            self._run(runner, ready, results)
            if out is not None:
                return out
            if len(results) == 1:
                return engine.give(results[0], values[0])
            return tuple(engine.give(result, values[0]) for result in results)

    def __repr__(self) -> str:
        program = self.program
        read, made = (", ".join(f"{port.name} {describe_shape(program, port)}" for port in ports)
                      for ports in (program.inputs, program.outputs))
        return f"<fusec model {program.name!r} for {program.target}, {program.dtype}: {read} -> {made}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """What `pickle` and `copy` ask for: machine code and a device's memory cannot be passed on."""
        raise InputError(f"the model '{self.program.name}' cannot be pickled or copied",
                         hint="write it to a folder with `fusec compile NETWORK -o DIRECTORY`, and open that with "
                              "fusec.load(DIRECTORY) wherever it is needed; threads may share one model")

    def _runner(self, batch: int, images: tuple[tuple[int, int], ...]) -> Runner:
        """What runs these sizes, made when they are new. No `lru_cache` of a method: its cycle would hold the GPU's memory."""
        key = (batch, images)
        with self._guard:
            runner = self._runners.get(key)
            if runner is not None:
                self._runners.move_to_end(key)
                return runner
        made = self.engine.prepare(arrange(self.program, batch, images))
        with self._guard:
            runner = self._runners.setdefault(key, made)  # another thread may have been first
            while len(self._runners) > REMEMBERED:
                self._runners.popitem(last=False)
        return runner

    def _bind(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Sequence[Any]:
        """The caller's values in the order of the program's inputs."""
        ports = self.program.inputs
        if not named and len(inputs) == len(ports):
            return inputs
        names = [port.name for port in ports]
        if len(inputs) > len(ports):
            count = f"{len(ports)} input{'s' * (len(ports) > 1)}"
            raise InputError(f"the network has {count} ({', '.join(names)}), but got {len(inputs)}")
        values = dict(zip(names, inputs, strict=False))
        problems = []
        for name, value in named.items():
            if name not in names:
                hint = nearest(name, names) or f"inputs: {', '.join(names)}"
                problems.append(Problem(f"the network has no input '{name}'", hint=hint))
            elif name in values:
                problems.append(Problem(f"input '{name}' is given twice"))
            else:
                values[name] = value
        problems += [Problem(f"input '{name}' is missing") for name in names if name not in values]
        if problems:
            raise InputError(problems)
        return [values[name] for name in names]

    def _results(self, workload: Workload, inputs: Sequence[Any], out: Any) -> Sequence[Any]:
        """Arrays for the results: the caller's `out`, checked, or new ones."""
        ports = self.program.outputs
        shapes = [workload.shapes[port.tensor][:2 if port.flat else 4] for port in ports]
        if out is None:
            return [self.engine.empty(shape) for shape in shapes]
        given = tuple(out) if isinstance(out, tuple | list) else (out,)
        if len(given) != len(ports):
            raise InputError(f"the network has {len(ports)} outputs, but out has {len(given)} arrays")
        results = [self.engine.accept_out(value, f"out[{port.name}]") for value, port in zip(given, ports, strict=True)]
        dtype = self.program.dtype
        for index, (value, array, shape, port) in enumerate(zip(given, results, shapes, ports, strict=True)):
            if array.shape != shape or not elements.fits(dtype, value, array) or not array.flags.c_contiguous:
                dense = "dense" if array.flags.c_contiguous else "strided"
                raise InputError(f"out for '{port.name}' must be dense {dtype} of shape {shape}, not {dense} "
                                 f"{elements.type_of(value, array)} of shape {array.shape}")
            if any(self._overlap(array, other) for other in (*inputs, *results[:index])):
                raise InputError(f"out for '{port.name}' shares memory with an input or another output",
                                 hint="pass an array of its own")
        return results

    def _overlap(self, one: Any, other: Any) -> bool:
        start, begin = self.engine.pointer(one), self.engine.pointer(other)
        return bool(start < begin + other.nbytes and begin < start + one.nbytes)

    def _run(self, runner: Runner, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        program = self.program
        if not runner.workload.batch:
            return
        arrays = {port.tensor: array for port, array in zip(program.inputs, inputs, strict=True)}
        copies = []
        for port, result in zip(program.outputs, results, strict=True):
            if port.tensor in arrays:  # an input, or made for an earlier output
                copies.append((result, port.tensor))
            else:
                arrays[port.tensor] = result
        runner(arrays)
        for result, name in copies:
            result[...] = arrays[name].reshape(result.shape)


def check_inputs(program: Program, values: Sequence[Any]) -> None:
    """InputError unless a call with these arrays of the host fits the network: the checks of a call, for programs without
    launches too."""
    arrays = [host_array(value, port.name) for value, port in zip(values, program.inputs, strict=True)]
    _check(program, _channels(program), values, arrays)
    arrange(program, arrays[0].shape[0], tuple([array.shape[2:] for array in arrays]))


def _channels(program: Program) -> Mapping[str, int]:
    return {rule.name: program.stored_channels(rule.name, rule.channels) for rule in program.tensors}


def _check(program: Program, channels_of: Mapping[str, int], values: Sequence[Any], arrays: Sequence[Any]) -> None:
    """Types, axes, channels and the common batch; heights and widths are checked when the call is worked out."""
    problems = []
    for value, array, port in zip(values, arrays, program.inputs, strict=True):
        if not elements.fits(program.dtype, value, array):
            problems.append(elements.wrong_type(program.dtype, value, array, port.name))
        if array.ndim != 4:
            hint = "pass x[None] for a single image" if array.ndim == 3 else ""
            problems.append(Problem(f"'{port.name}' has {array.ndim} axes instead of 4 ({AXES})", hint=hint))
        elif array.shape[1] != (channels := channels_of[port.tensor]):
            hint = "channels come first: pass x.transpose(0, 3, 1, 2)" if array.shape[3] == channels else ""
            problems.append(Problem(f"'{port.name}' has {array.shape[1]} channels instead of {channels}", hint=hint))
    if not problems and len({array.shape[0] for array in arrays}) > 1:
        problems.append(Problem(f"the inputs have different batches: {', '.join(str(array.shape[0]) for array in arrays)}"))
    if problems:
        raise InputError(problems)


def describe_shape(program: Program, port: Port) -> str:
    """The shape of an input or output in words, e.g. `Nx3xHxW`; `?` is an extent that follows from the input's."""
    rule = next(rule for rule in program.tensors if rule.name == port.tensor)
    words = ["N", str(rule.channels)]
    for letter, terms in zip("HW", (rule.height, rule.width), strict=True):
        if terms and all(multiply == 0 for multiply, _, _ in terms):
            words.append(str(min(add // divide for _, add, divide in terms)))
        else:
            words.append(letter if rule.source is None else "?")
    return "x".join(words[:2] if port.flat else words)


