"""Plans for the tests of pages and figures, and what is in a drawing."""

from __future__ import annotations

from functools import cache
from xml.etree import ElementTree

from fusec import pipeline
from fusec.cli.building import report_of
from fusec.cli.exploring import explored
from fusec.explain.figure import Figure
from fusec.explain.page import Subject
from fusec.targets.device import DEVICES, Device

H200 = DEVICES["h200"]


@cache
def subject(network: str, fuse: str = "auto", device: Device = H200) -> Subject:
    """A network planned for an H200, or for another device."""
    graph = pipeline.read(network, missing="blank")
    planned = pipeline.plan(graph, device, fuse)
    return Subject(report_of(planned), report_of(pipeline.plan(graph, device, "none")), device, explored(planned, None, (1, 1)))


def parts(drawing: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """The elements of a drawing that are marked as a part."""
    return [e for e in drawing.iter() if e.get("data-part") == name]


def span(rect: ElementTree.Element) -> tuple[float, float]:
    """Where a rectangle begins along x, and how long it is."""
    return float(rect.get("x", "")), float(rect.get("width", ""))


def drawings(figure: Figure) -> tuple[ElementTree.Element, ElementTree.Element]:
    return figure.wide, figure.narrow
