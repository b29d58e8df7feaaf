"""`fusec explain`: a plan as a page for people, and its figures as files."""

from __future__ import annotations

from pathlib import Path

import click

from fusec import pipeline
from fusec.cli import exploring, options, planning
from fusec.cli.building import report_of
from fusec.cli.files import check_file, check_folder, make_folder, write_figures, write_text
from fusec.cli.options import Shape4
from fusec.cli.output import facts, plural, print_json
from fusec.cli.progress import Progress
from fusec.errors import InputError
from fusec.explain.page import Subject, explain
from fusec.graph.locate import find_graph
from fusec.graph.onnx.cut import Cut
from fusec.plan.explore import Exploration


@click.command(epilog="Example: fusec explain alexnet --device h200 -o alexnet.html")
@options.NETWORK
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="The page to write; build/NAME.html when left out. A file that is there is replaced.")
@click.option("--svg", type=click.Path(path_type=Path), metavar="DIR",
              help="Write each figure into this folder too, as an SVG file for a paper or a poster.")
@options.SHAPE
@planning.device
@options.FUSE
@options.part
@options.JSON
def command(network: str, output: Path | None, svg: Path | None, shape: Shape4 | None, device: str | None, target: str | None,
            dtype: str, fuse: str, cut: Cut, as_json: bool) -> None:
    """Write a page that shows how a network is fused, and what that saves.

    The page is one file that needs no network: what each chain moves, its tile drawn to scale in every layer with the parts
    neighbouring tiles share, other ways to cut the network, the device's roofline with each chain on it, and all numbers.

    Needs neither weights nor a GPU nor a compiler.
    """
    if output is not None:
        check_file(output)
    if svg is not None:
        check_folder(svg)
    chosen = planning.choose(device, target, dtype)
    with Progress() as progress:
        progress.phase("planning")
        graph = pipeline.read(network, missing="blank", cut=cut)
        planned = pipeline.plan(graph, chosen, fuse, shape)
        progress.phase("planning layer by layer")
        layerwise = pipeline.plan(graph, chosen, "none", shape)
        progress.phase("exploring")
        subject = Subject(report_of(planned), report_of(layerwise), chosen, *_explored(planned))
        progress.phase("drawing")
        made = explain(subject)
        place = output or _usual_place(network)
        figures = [] if svg is None else write_figures(svg, {name: f.standalone() for name, f in made.figures.items()})
        write_text(place, made.html)
    if as_json:
        print_json({"network": graph.name, "device": chosen.name, "target": chosen.target, "arch": chosen.arch, "dtype": dtype,
                    "fuse": fuse, "file": str(place), "figures": [str(path) for path in figures]})
    else:
        facts([("written", str(place)), *([("figures", f"{plural(len(figures), 'file')} in {svg}")] if figures else [])])


def _usual_place(network: str) -> Path:
    """build/NAME.html, whose folder is made."""
    place = Path("build") / f"{find_graph(network).stem}.html"
    make_folder(place.parent)
    return place


def _explored(planned: pipeline.Plan) -> tuple[Exploration | None, str]:
    """Every partition of the network, or None and why it cannot be explored as a whole."""
    try:
        return exploring.explored(planned, None, (1, 1)), ""
    except InputError as error:
        return None, f"This network was not explored: {error.problems[0].what}."
