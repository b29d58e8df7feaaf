"""`fusec plan`: how a network would be cut into kernels, and what that saves; nothing is compiled."""

from __future__ import annotations

from pathlib import Path

import click

from fusec import pipeline
from fusec.cli import coverage, exploring, options, planning
from fusec.cli.building import device_in_words, report_of, why_unfused
from fusec.cli.files import check_file, write_text
from fusec.cli.options import Shape4
from fusec.cli.output import extents, facts, in_bytes, in_seconds, in_words, line, plural, print_json, table
from fusec.cli.progress import Progress
from fusec.errors import InputError, Problem
from fusec.explain.page import explore_page
from fusec.graph.graph import LayerGraph
from fusec.graph.onnx.cut import Cut
from fusec.graph.onnx.refusal import Unsupported
from fusec.plan.report import ChainReport, Report, StageReport
from fusec.targets.device import Device


@click.command(epilog="Example: fusec plan alexnet --device h200 --shape 1x3x227x227")
@options.NETWORK
@options.SHAPE
@planning.device
@options.FUSE
@options.part
@click.option("--explore", is_flag=True, help="Show every way to cut the layers into chains, and the Pareto front of them.")
@options.LAYERS
@options.TILE
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="With --explore: write it as a page too.")
@options.JSON
def command(network: str, shape: Shape4 | None, device: str | None, target: str | None, dtype: str, fuse: str, cut: Cut,
            explore: bool, layers: str | None, tile: tuple[int, int] | None, html: Path | None, as_json: bool) -> None:
    """Show how a network would be cut into kernels, and what that saves.

    The first table has a row for each chain, the layers that share a kernel: its tile (images, channels, height, width), if
    tiles recompute their overlap or are strips whose steps reuse it, the multiply-adds done again where tiles overlap, its
    scratch memory, the bytes moved to and from memory, fused and layer by layer, and the time the model expects. The second has
    the stages inside each chain: the footprint, what one tile computes of each tensor; where tiles are strips, the rows of it
    that are held at a time, and how many of those are new in a step; the elements shared, which neighbouring tiles compute too;
    the extra multiply-adds, those done again; and the extra part, these by the ones done once.

    With --explore the table has a row for each partition of the Pareto front instead: bytes moved against the on-chip buffers
    that computing nothing twice needs, and the work that is done again where there are none. It counts for one image: the batch
    of --shape decides what is planned, and nothing else.

    Of an ONNX file with nodes that are not supported it lists all of them, with what would work, and ends with exit code 3.

    Needs neither weights nor a GPU nor a compiler.
    """
    if not explore and (layers is not None or tile is not None or html is not None):
        raise click.UsageError("--layers, --tile and --html belong to --explore")
    if html is not None:
        check_file(html)
    chosen = planning.choose(device, target, dtype)
    with Progress() as progress:
        progress.phase("planning")
        planned = pipeline.plan(_read(network, cut, as_json), chosen, fuse, shape)
        report = report_of(planned)
        if explore:
            progress.phase("exploring")
            found = exploring.explored(planned, layers, tile or (1, 1))
            if html is not None:
                write_text(html, explore_page(found, chosen, layers))
    asked = {"target": chosen.target, "arch": chosen.arch, "dtype": dtype, "fuse": fuse}
    if explore and as_json:
        print_json({**found.to_json(), "device": chosen.name, **asked})
    elif explore:
        exploring.show(found, chosen.name)
    elif as_json:
        print_json({**report.to_json(), **asked})
    else:
        _show(report, chosen, why_unfused(planned, fuse))


def _read(network: str, cut: Cut, as_json: bool) -> LayerGraph:
    """The network; where nodes of it are not supported, the list of them as the command's result."""
    try:
        return pipeline.read(network, missing="blank", cut=cut)
    except Unsupported as error:
        coverage.show(error, as_json)
        raise InputError((*error.others, Problem(coverage.verdict(error), network))) from None


def _show(report: Report, device: Device, unfused: str | None) -> None:
    totals = report.totals
    size = "" if report.height is None else f" of {report.height}x{report.width}"
    saved = totals.saved
    moved = f"{saved:.0%} saved" if saved >= 0 else f"{-saved:.0%} more: tiles read their overlap, and the weights, again"
    facts([("network", report.network), ("device", device_in_words(device)), ("dtype", device.dtype),
           ("planned for", f"{plural(report.batch, 'image')}{size}"),
           ("fused", f"{plural(totals.layers, 'layer')} in {plural(totals.chains, 'chain')}"),
           ("work", f"{in_words(totals.multiply_adds)} multiply-adds, {totals.extra_ratio:.1%} of them extra"),
           ("moved", f"{in_bytes(totals.bytes_fused)}; layer by layer at least {in_bytes(totals.bytes_unfused)} ({moved})"),
           ("expected", in_seconds(totals.seconds))])
    if unfused:
        line(f"nothing is fused: {unfused}")
    line()
    table(("chain", ">layers", ">tile", "overlap", ">tiles", ">multiply-adds", ">extra", ">scratch", ">fused", ">unfused",
           ">time"),
          [_chain_row(i, c) for i, c in enumerate(report.chains)])
    line()
    strips = any(c.step is not None for c in report.chains)
    table(("chain", "stage", "kind", ">footprint", *([">held"] if strips else []), ">shared", ">multiply-adds", ">extra",
           ">extra part"),
          [_stage_row(i, c, s, strips) for i, c in enumerate(report.chains) for s in c.stages])


def _chain_row(index: int, chain: ChainReport) -> tuple[str, ...]:
    return (f"{index} {chain.name}", str(len(chain.layers)), extents(chain.tile), _overlap(chain), in_words(chain.tiles),
            in_words(chain.multiply_adds), f"{chain.extra_ratio:.1%}", in_bytes(chain.scratch_bytes),
            in_bytes(chain.bytes_fused), in_bytes(chain.bytes_unfused), in_seconds(chain.seconds))


def _overlap(chain: ChainReport) -> str:
    """What happens to rows and columns that neighbouring tiles, or steps of a strip, share."""
    if chain.step is None:
        return "recompute"
    return f"reuse {''.join(axis for axis, kind in chain.overlap.items() if kind == 'reuse')}, step {chain.step}"


def _stage_row(index: int, chain: ChainReport, stage: StageReport, strips: bool) -> tuple[str, ...]:
    held = [""] if chain.step is None else [f"{plural(stage.held, 'row')}, {stage.fresh} new"]
    return (str(index), stage.label, stage.kind, extents(stage.footprint), *(held if strips else []), in_words(stage.shared),
            in_words(stage.multiply_adds), in_words(stage.extra), f"{stage.extra_ratio:.1%}")
