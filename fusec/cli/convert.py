"""`fusec convert`: a network as a description that can be read and edited, with its weights beside it."""

from __future__ import annotations

from pathlib import Path

import click

from fusec import pipeline
from fusec.cli import options
from fusec.cli.files import check_file
from fusec.cli.output import facts, note, plural, print_json
from fusec.cli.progress import Progress
from fusec.errors import InputError
from fusec.graph.onnx.cut import Cut
from fusec.graph.weights import SUFFIX, has_weights
from fusec.graph.write_yaml import write_yaml

SUFFIXES = (".yaml", ".yml")


@click.command(epilog="Example: fusec convert model.onnx net.yaml")
@options.NETWORK
@click.argument("output", type=click.Path(path_type=Path), metavar="FILE.yaml")
@options.part
@options.JSON
def command(network: str, output: Path, cut: Cut, as_json: bool) -> None:
    """Write a network as a description, with its weights beside it.

    Writes YAML, and the weights in a .safetensors file of the same name.

    NET is an ONNX file, a description or the name of a shipped network. The description says the same network layer by layer:
    it can be read, edited, and given to every other command.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise InputError("a description's name ends in .yaml", str(output), f"write {output.with_suffix('.yaml')}")
    weights = output.with_suffix(SUFFIX)
    for path in (output, weights):
        check_file(path)
    with Progress() as progress:
        progress.phase("reading")
        graph = pipeline.read(network, cut=cut)
        progress.phase("writing")
        changed = write_yaml(graph, output)
    if changed:
        old, new = next(iter(changed.items()))
        note(f"{plural(len(changed), 'name')} changed, to at most 100 printable characters: '{old}' is '{new}'")
    kept = weights if has_weights(graph) else None
    if as_json:
        print_json({"network": graph.name, "layers": len(graph.layers), "file": str(output),
                    "weights": None if kept is None else str(kept), "changed": changed})
    else:
        facts([("network", f"{graph.name}, {plural(len(graph.layers), 'layer')}"),
               ("written", f"{output}{'' if kept is None else f' and {kept}'}")])
