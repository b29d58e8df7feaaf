"""`fusec compare`: every layer's values against the float64 reference, onnxruntime, or kernels in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
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
from fusec.cli.differences import Difference, Tolerance, beyond_range, difference_of, distances, tolerance_for
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
from fusec.targets.device import DTYPES
from fusec.tuning.inputs import random_inputs
from fusec.tuning.whole import results_of

REFERENCE, ONNXRUNTIME, FULL = "reference", "onnxruntime", DTYPES[0]
AGAINST = (REFERENCE, ONNXRUNTIME, FULL)
WHOLE = "the whole network"  # where a chain stands for layers
OPEN_SIZE = (160, 240)  # compared at where an image size is open: tiles, and the reference's time, are in mind

Array = NDArray[Any]
# Tensors to compare with: of these names those that it has, and all of these outputs.
Other = Callable[[Sequence[str], Sequence[str]], Mapping[str, Array]]


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
              help="What to compare with: the float64 reference; for an ONNX file, onnxruntime; or, of half types, the same "
                   "compiled in float32.")
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

    --against onnxruntime compares with what that makes of the ONNX file, in float32 and without its rewriting; --against
    float32 compares kernels of half types with those of the same network in float32, on the same device. There are whole
    differences only, and the tolerance, the one for outputs, is for them.
    """
    check_against(against, dtype, network, weights, random_weights)
    options.only_one(input=given or None, batch=batch, shape=shape)
    options.only_one(weights=weights, random_weights=random_weights)
    device = pipeline.choose_device(target, dtype)
    allowed = _allowed(dtype, against) if tolerance is None else Tolerance(tolerance, tolerance)
    graph, seed = read_network(network, weights, random_weights, cut)
    inputs = _inputs(graph, given, batch, shape, dtype)
    check_fit(graph, device, tuple(inputs.values()))
    with Progress() as progress:
        progress.phase("planning")
        planned = pipeline.plan(graph, device, fuse, shape)
        other: Other | None = None
        if against == ONNXRUNTIME:
            other = partial(run_onnxruntime, find_graph(network), cut, _widened(inputs))
        elif against == FULL:
            full = pipeline.plan(graph, pipeline.choose_device(target, FULL), "none", shape)  # fused ones have the same bits
            other = partial(_run_other, full, _widened(inputs), progress)
        differences = _differences(planned, inputs, progress, against, other)
    needed = tolerance_for(max(d.judged for d in differences))
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
        line(_conclusion(differences, wrong, allowed))
    if wrong:
        raise AccuracyError(_verdict(differences, wrong, allowed, dtype))


def _allowed(dtype: str, against: str) -> Tolerance:
    """What is allowed unless the user says it: for whole differences, that of outputs."""
    return Tolerance(tolerances.LAYER[dtype] if against == REFERENCE else tolerances.OUTPUT[dtype], tolerances.OUTPUT[dtype])


def _conclusion(differences: list[Difference], wrong: list[Difference], tolerance: Tolerance) -> str:
    """The last line: that all is well, or where it begins not to be."""
    if wrong:
        return f"first over the tolerance of {tolerance}: {wrong[0].layer}"
    outputs = sum(d.chain == WHOLE for d in differences)
    return (f"all {plural(len(differences) - outputs, 'layer')} and {plural(outputs, 'output')} are within the tolerance of "
            f"{tolerance}")


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


def check_against(against: str, dtype: str, network: str, weights: Path | None, random_weights: int | None) -> None:
    """InputError or MissingError where there is nothing to compare with: said before anything is built."""
    if against == FULL and dtype == FULL:
        raise InputError("kernels in float32 cannot be compared with themselves", "--against float32",
                         "give --dtype float16 or bfloat16, or leave --against out")
    if against != ONNXRUNTIME:
        return
    if find_graph(network).suffix.lower() != SUFFIX:
        raise InputError("onnxruntime runs ONNX files, and this is a description", network, "leave --against out")
    if weights is not None or random_weights is not None:
        raise InputError("onnxruntime has the file's own weights", network, "leave out --weights and --random-weights")
    need_onnxruntime()


def _differences(planned: pipeline.Plan, inputs: Mapping[str, Array], progress: Progress, against: str,
                 other: Other | None) -> list[Difference]:
    """Every layer by kernels that end in it, then the outputs by the network as it is compiled.

    `other` makes the tensors to compare with; the reference does when it is None.
    """
    tensors, outputs = _run_plan(planned, inputs, progress)
    if other is not None:
        progress.phase(f"running {against}")
        wanted = other([tensor_of(planned, name) for name in tensors], list(outputs))
        if missing := [name for name in outputs if name not in wanted]:
            raise InternalError(f"{against} has no output to compare with '{missing[0]}'")
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
        added = float(distances(made, alone).max(initial=0.0))
        found.append(difference_of(node.label, tensor, chain_of[name], made, wanted[tensor], added, beyond_range(made, alone)))
    return found + [difference_of(f"output {name}", name, WHOLE, made, wanted[name]) for name, made in outputs.items()]


def _run_plan(planned: pipeline.Plan, inputs: Mapping[str, Array], progress: Progress
              ) -> tuple[dict[str, Array], dict[str, Array]]:
    """The value of every layer of the simplified network, by kernels that end in it, and the outputs of the whole."""
    whole = finish(planned, progress)
    progress.phase("planning layers")
    opened = finish(layerwise(planned), progress)
    progress.phase("running")
    return _run(opened.model, inputs), _run(whole.model, inputs)


def _run_other(planned: pipeline.Plan, inputs: Mapping[str, Array], progress: Progress, wanted: Sequence[str],
               outputs: Sequence[str]) -> dict[str, Array]:
    """What another plan of the network makes, by the tensors of the network as read."""
    tensors, made = _run_plan(planned, inputs, progress)
    named = {tensor_of(planned, name): array for name, array in tensors.items()} | made
    return {name: named[name] for name in (*wanted, *outputs)}


def _whole_differences(planned: pipeline.Plan, tensors: Mapping[str, Array], outputs: Mapping[str, Array],
                       wanted: Mapping[str, Array]) -> list[Difference]:
    """Differences from the tensors that are there to compare with."""
    graph, chain_of = planned.simplified.graph, _chains(planned)
    rows = [(graph[name].label, tensor_of(planned, name), chain_of[name], made) for name, made in tensors.items()]
    rows += [(f"output {name}", name, WHOLE, made) for name, made in outputs.items()]
    return [difference_of(layer, tensor, chain, made, wanted[tensor], beyond=beyond_range(made, wanted[tensor]))
            for layer, tensor, chain, made in rows if tensor in wanted]


def _chains(planned: pipeline.Plan) -> dict[str, str]:
    """The chain of every layer, in words."""
    return {name: str(c.chain) for c in planned.chains for name in c.chain.names}


def _run(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name. The inputs' names may be anything, so they go in by order."""
    made = results_of(model, tuple(inputs.values()))
    return {p.name: widened(array) for p, array in zip(model.program.outputs, made, strict=True)}


def _show(differences: list[Difference], tolerance: Tolerance) -> None:
    first = next((d for d in differences if not d.within(tolerance)), None)
    rows = [(d.layer, d.chain, extents(d.shape), f"{d.peak:.3g}", f"{d.absolute:.2e}", f"{d.relative:.2e}",
             "" if d.own is None else f"{d.own:.2e}", "" if d.within(tolerance) else "first over" if d is first else "over")
            for d in differences]
    table(("layer", "chain", ">shape", ">largest", ">difference", ">relative", ">own", ""), rows)
