"""`fusec compare`: every layer's values against the float64 reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from fusec import pipeline
from fusec.cli import options, tolerances
from fusec.cli.arrays import read_inputs
from fusec.cli.building import device_in_words, finish
from fusec.cli.layerwise import layerwise, tensor_of
from fusec.cli.networks import check_fit, read_network, sizes_to_run
from fusec.cli.options import Shape4
from fusec.cli.ort import need_onnxruntime, run_onnxruntime
from fusec.cli.output import extents, facts, line, plural, print_json, table
from fusec.cli.progress import Progress
from fusec.errors import AccuracyError, InputError, InternalError
from fusec.graph import reference
from fusec.graph.graph import LayerGraph
from fusec.graph.locate import find_graph
from fusec.graph.onnx.cut import Cut
from fusec.graph.read_onnx import SUFFIX
from fusec.plan.cost import OPEN_HEIGHT, Nominal, nominal_for
from fusec.runtime.elements import widened
from fusec.runtime.model import Model
from fusec.tuning.inputs import random_inputs
from fusec.tuning.whole import results_of

ONNXRUNTIME = "onnxruntime"
AGAINST = ("reference", ONNXRUNTIME)
OPEN_SIZE = (160, 240)  # compared at where an image size is open: tiles, and the reference's time, are in mind

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """Of the largest value: what a layer may add, and how far an output may be from the reference."""

    layer: float
    output: float

    def __str__(self) -> str:
        return f"{self.layer:g}" if self.layer == self.output else f"{self.layer:g} for a layer, {self.output:g} for an output"


@dataclass(frozen=True)
class Difference:
    """How far one tensor is from the reference.

    Relative numbers are by the reference's largest value, or absolute where that is 0.

    Attributes
    ----------
    own
        What this layer adds: its values against a float64 layer fed with the very values the kernel read. None for outputs of
        the whole network.
    beyond
        The largest value of such a float64 layer where it is finite and the kernel's is not: too large for the type of the
        tensors. Else None.
    """

    layer: str
    tensor: str
    chain: str
    shape: tuple[int, ...]
    peak: float
    absolute: float
    relative: float
    place: tuple[int, ...]  # of the largest difference
    own: float | None
    beyond: float | None = None

    @property
    def judged(self) -> float:
        """What the tolerance is for: a layer must not answer for the roundings of those before it, an output must."""
        return self.relative if self.own is None else self.own

    def within(self, tolerance: Tolerance) -> bool:
        return self.judged <= (tolerance.output if self.own is None else tolerance.layer)


@click.command(epilog="Example: fusec compare resnet18 --target cpu --tolerance 1e-5")
@options.NETWORK
@click.option("--input", "given", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
              help="What to run on: .npy, .npz or a picture, as for fusec run; random values when left out. May be repeated.")
@options.BATCH
@options.SHAPE
@options.TARGET
@options.DTYPE
@options.FUSE
@click.option("--tolerance", type=click.FloatRange(min=0),
              help="The largest difference allowed, as a part of the tensor's largest value.  [default: "
                   f"{tolerances.in_words()}]")
@click.option("--against", type=click.Choice(AGAINST), default=AGAINST[0], show_default=True,
              help="What to compare with: the float64 reference, or, for an ONNX file, onnxruntime.")
@options.weights
@options.part
@options.JSON
def command(network: str, given: tuple[Path, ...], batch: int | None, shape: Shape4 | None, target: str, dtype: str, fuse: str,
            tolerance: float | None, against: str, weights: Path | None, random_weights: int | None, cut: Cut,
            as_json: bool) -> None:
    """Find the first layer whose values differ from the reference.

    Runs the network as it is compiled, and once more with a kernel for each layer (its chain, cut off behind it, so that fused
    work stays fused); and the reference in float64, on the network as described. The table shows for each layer how far it is
    from the reference in all, and what of that is its own: its values against those of a float64 layer that reads what the
    kernel read. The tolerance is for a layer's own difference, and for the whole difference of the network's outputs. Exit code
    4 when one is over. Of half types the input is rounded first, and a layer whose values leave the type's range is named.

    --against onnxruntime compares with what that makes of the ONNX file, in float32 and without its rewriting: there are whole
    differences only, and the tolerance is for them.
    """
    if against == ONNXRUNTIME:
        check_against(network, weights, random_weights)
    options.only_one(input=given or None, batch=batch, shape=shape)
    options.only_one(weights=weights, random_weights=random_weights)
    device = pipeline.choose_device(target, dtype)
    allowed = Tolerance(tolerances.LAYER[dtype], tolerances.OUTPUT[dtype]) if tolerance is None else \
        Tolerance(tolerance, tolerance)
    graph, seed = read_network(network, weights, random_weights, cut)
    inputs = _inputs(graph, given, batch, shape, dtype)
    check_fit(graph, device, tuple(inputs.values()))
    with Progress() as progress:
        progress.phase("planning")
        planned = pipeline.plan(graph, device, fuse, shape)
        other = partial(run_onnxruntime, find_graph(network), cut, _widened(inputs)) if against == ONNXRUNTIME else None
        differences = _differences(planned, inputs, progress, other)
    needed = _tolerance_for(max(d.judged for d in differences))
    wrong = [d for d in differences if not d.within(allowed)]
    if as_json:
        print_json({"network": graph.name, "target": device.target, "device": device_in_words(device), "dtype": dtype,
                    "fuse": fuse, "against": against,
                    "inputs": {name: list(array.shape) for name, array in inputs.items()}, "random_weights": seed,
                    "layers": [asdict(d) for d in differences], "tolerance": allowed.layer,
                    "output_tolerance": allowed.output, "smallest_tolerance": needed,
                    "first_over": wrong[0].layer if wrong else None})
    else:
        facts([("network", graph.name), ("target", device_in_words(device)), ("dtype", dtype),
               ("input", ", ".join(extents(a.shape) for a in inputs.values())), ("tolerance", str(allowed))])
        line()
        _show(differences, allowed)
        line()
        facts([("smallest tolerance", f"{needed:g}")])
    if wrong:
        raise AccuracyError(_verdict(differences, wrong, allowed, dtype))


def _verdict(differences: list[Difference], wrong: list[Difference], tolerance: Tolerance, dtype: str) -> str:
    first = wrong[0]
    said = f"{plural(len(wrong), 'tensor')} over the tolerance of {tolerance}"
    for item in differences:
        if item.beyond is not None:
            return f"{said}; activation beyond {dtype}'s range at layer {item.layer}: peak {item.beyond:.3g}"
    if first.own is not None:
        return f"{said}; the first is {first.layer}, which adds {first.own:.2g} of its largest value"
    if all(d.own is None for d in differences):
        return f"{said}; the first is {first.layer}, which differs by {first.relative:.2g} of its largest value"
    start = next(d for d in differences if not d.relative <= tolerance.output)
    return (f"{said}: {first.layer} differs by {first.relative:.2g} of its largest value, though no layer adds that much; "
            f"{start.layer} is the first whose whole difference is over")


def _widened(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs of any type in float32, in which onnxruntime runs the file."""
    return {name: widened(array).astype(np.float32) for name, array in arrays.items()}


def _inputs(graph: LayerGraph, files: tuple[Path, ...], batch: int | None, shape: Shape4 | None, dtype: str
            ) -> Mapping[str, Array]:
    if files:
        return read_inputs(files, {n.name: graph.shapes[n.name].channels for n in graph.inputs}, dtype)
    return random_inputs(graph, _sizes(graph, batch, shape), dtype)


def _sizes(graph: LayerGraph, batch: int | None, shape: Shape4 | None) -> Nominal:
    usual = nominal_for(graph).at(1)
    if usual.height == OPEN_HEIGHT:
        usual = Nominal((1,), *OPEN_SIZE)
    return sizes_to_run(graph, batch, shape, usual)


def check_against(network: str, weights: Path | None, random_weights: int | None) -> None:
    """InputError or MissingError where there is nothing that onnxruntime could run: said before anything is built."""
    if find_graph(network).suffix.lower() != SUFFIX:
        raise InputError("onnxruntime runs ONNX files, and this is a description", network, "leave --against out")
    if weights is not None or random_weights is not None:
        raise InputError("onnxruntime has the file's own weights", network, "leave out --weights and --random-weights")
    need_onnxruntime()


def _differences(planned: pipeline.Plan, inputs: Mapping[str, Array], progress: Progress,
                 other: Callable[[Sequence[str]], Mapping[str, Array]] | None) -> list[Difference]:
    """Every layer by kernels that end in it, then the outputs by the network as it is compiled.

    `other` makes the tensors to compare with, those of these names that it has; the reference does when it is None.
    """
    whole = finish(planned, progress)
    progress.phase("planning layers")
    opened = finish(layerwise(planned), progress)
    progress.phase("running")
    outputs = _run(whole.model, inputs)
    tensors = _run(opened.model, inputs)
    if other is not None:
        progress.phase("running onnxruntime")
        wanted = other([*(tensor_of(planned, name) for name in tensors), *outputs])
        return _whole_differences(planned, tensors, outputs, wanted)
    progress.phase("running the reference")
    with np.errstate(all="ignore"):
        wanted = reference.run(planned.original, inputs, keep=True)
    graph, chain_of = planned.simplified.graph, _chains(planned)
    read = {node.name: np.asarray(inputs[node.name]) for node in graph.inputs} | tensors
    found = []
    for name, made in tensors.items():
        tensor, node = tensor_of(planned, name), graph[name]
        with np.errstate(all="ignore"):
            alone = reference.apply_node(node, [read[i].astype(np.float64) for i in node.inputs])
        added = float(_apart(made, alone).max(initial=0.0))
        found.append(_difference(node.label, tensor, chain_of[name], made, wanted[tensor], added, _beyond(made, alone)))
    return found + [_difference(f"output {name}", name, "the whole network", made, wanted[name])
                    for name, made in outputs.items()]


def _whole_differences(planned: pipeline.Plan, tensors: Mapping[str, Array], outputs: Mapping[str, Array],
                       wanted: Mapping[str, Array]) -> list[Difference]:
    """Differences from the tensors that are there to compare with."""
    graph, chain_of = planned.simplified.graph, _chains(planned)
    found = [_difference(graph[name].label, tensor_of(planned, name), chain_of[name], made, wanted[tensor_of(planned, name)])
             for name, made in tensors.items() if tensor_of(planned, name) in wanted]
    return found + [_difference(f"output {name}", name, "the whole network", made, wanted[name])
                    for name, made in outputs.items() if name in wanted]


def _chains(planned: pipeline.Plan) -> dict[str, str]:
    """The chain of every layer, in words."""
    return {name: str(c.chain) for c in planned.chains for name in c.chain.names}


def _run(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name. The inputs' names may be anything, so they go in by order."""
    made = results_of(model, tuple(inputs.values()))
    return {p.name: widened(array) for p, array in zip(model.program.outputs, made, strict=True)}


def _beyond(made: Array, alone: Array) -> float | None:
    """The largest value of a layer in float64, where the kernel that read the same made infinities of finite values."""
    lost = np.isinf(made.reshape(alone.shape)) & np.isfinite(alone)
    return float(np.abs(alone[lost]).max()) if lost.any() else None


def _difference(layer: str, tensor: str, chain: str, made: Array, wanted: Array, added: float | None = None,
                beyond: float | None = None) -> Difference:
    apart = _apart(made, wanted)
    peak = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    largest = float(apart.max(initial=0.0))
    place = np.unravel_index(int(apart.argmax()), apart.shape) if apart.size else ()
    return Difference(layer, tensor, chain, tuple(wanted.shape), peak, largest, largest / (peak or 1.0),
                      tuple(int(i) for i in place), None if added is None else added / (peak or 1.0), beyond)


def _apart(made: Array, wanted: Array) -> Array:
    """Absolute differences; 0 where both are the same infinity or no number, infinite where only one is."""
    if made.size != wanted.size:
        raise InternalError(f"a kernel made {extents(made.shape)} values, the reference {extents(wanted.shape)}")
    values = made.reshape(wanted.shape).astype(np.float64)
    same = (values == wanted) | (np.isnan(values) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(values - wanted))
    return np.where(np.isnan(apart), np.inf, apart)


def _tolerance_for(relative: float) -> float:
    """The smallest tolerance of two digits that is not below `relative`."""
    if relative == 0 or not math.isfinite(relative):
        return relative
    exponent = math.floor(math.log10(relative)) - 1
    digits = math.ceil(relative / 10**exponent)
    rounded = float(f"{digits}e{exponent}")
    return rounded if rounded >= relative else float(f"{digits + 1}e{exponent}")


def _show(differences: list[Difference], tolerance: Tolerance) -> None:
    first = next((d for d in differences if not d.within(tolerance)), None)
    rows = [(d.layer, d.chain, extents(d.shape), f"{d.peak:.3g}", f"{d.absolute:.2e}", f"{d.relative:.2e}",
             "" if d.own is None else f"{d.own:.2e}", "" if d.within(tolerance) else "first over" if d is first else "over")
            for d in differences]
    table(("layer", "chain", ">shape", ">largest", ">difference", ">relative", ">own", ""), rows)
