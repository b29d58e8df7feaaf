"""What is said of an ONNX node that cannot become layers.

A converter raises `Refusal`; the reader puts the node's name to it, goes on with the next node, and raises all of them together
as `Unsupported`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusec.errors import InputError, Problem


class Refusal(Exception):
    """Why a node cannot be converted, and what would work in its place."""

    def __init__(self, why: str, instead: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.instead = instead


@dataclass(frozen=True)
class Refused:
    """One node of a file that is not supported."""

    node: str
    operator: str
    why: str
    instead: str


class Unsupported(InputError):
    """A network with nodes that fusec does not support: all of them.

    Attributes
    ----------
    refused
        The nodes, in the file's order.
    nodes
        How many nodes the network has in all; those that no output needs are not counted.
    before
        Tensors that supported nodes make and refused ones read: `--to` ends there.
    behind
        Tensors of known form that refused nodes make and supported ones read: `--from` begins there.
    others
        What else is wrong with the file.
    """

    def __init__(self, where: str, refused: tuple[Refused, ...], nodes: int, before: tuple[str, ...],
                 behind: tuple[str, ...], others: tuple[Problem, ...] = ()) -> None:
        self.refused = refused
        self.nodes = nodes
        self.before = before
        self.behind = behind
        self.others = others
        super().__init__((*others, *(Problem(f"node '{r.node}' ({r.operator}): {r.why}", where, r.instead) for r in refused)))
