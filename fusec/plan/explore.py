"""Every way to cut a range of layers into groups that share a kernel: what each moves, keeps on chip and computes again.

In: a simplified graph, a range of it, the tile of the output. Out: an `Exploration`. Nothing is compiled and no machine is
asked about: these are the exact counts of Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", MICRO 2016.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupFigures:
    """One group, layers `first` to `last` in one kernel, for one image.

    Attributes
    ----------
    first, last
        Indices into `Exploration.layers`, both inclusive.
    bytes_moved
        Every tensor the group reads or makes for others, once; weights not included.
    buffer_bytes
        Under reuse: the rows that are kept of each tensor read in the group, its inputs included, and the columns kept at the
        left edge of the tile of each tensor made in the group.
    input_row_bytes
        The part of `buffer_bytes` that holds rows of the group's inputs.
    input_column_bytes
        Columns of the group's inputs at the tile's left edge; not part of `buffer_bytes`.
    extra_multiply_adds
        Under recompute: those done again where tiles overlap.
    multiply_adds
        Those of the layers one by one.
    """

    first: int
    last: int
    bytes_moved: int
    buffer_bytes: int
    input_row_bytes: int
    input_column_bytes: int
    extra_multiply_adds: int
    multiply_adds: int


@dataclass(frozen=True)
class Point:
    """One partition. Bytes moved and work are sums over its groups; they run in turn, so the buffers are the largest ones.

    Attributes
    ----------
    pareto
        No other partition moves fewer bytes without larger buffers; of several with the same two figures it is the one with
        the least extra work, and of those the one with the fewest groups.
    """

    groups: tuple[GroupFigures, ...]
    bytes_moved: int
    buffer_bytes: int
    extra_multiply_adds: int
    pareto: bool

    @property
    def inner_buffer_bytes(self) -> int:
        """The buffers without those of the groups' inputs: what fusing adds to layers one by one."""
        return max(g.buffer_bytes - g.input_row_bytes for g in self.groups)

    @property
    def edge_buffer_bytes(self) -> int:
        """The buffers with the left edge of the groups' inputs counted too."""
        return max(g.buffer_bytes + g.input_column_bytes for g in self.groups)


@dataclass(frozen=True)
class TileWork:
    """Recompute with another tile, all layers in one group: multiply-adds done again with square tiles of `side` pixels."""

    side: int
    extra_multiply_adds: int


@dataclass(frozen=True)
class Exploration:
    """All partitions of a range of layers, for one image.

    Attributes
    ----------
    layers
        Names of the layers, in the order they are computed. A layer that works position by position, alone behind another,
        belongs to that one: activations, and normalisation over channels.
    tile
        (height, width) of the output tile of every group.
    height, width
        Pixels of the inputs whose size is open; None when none is.
    partitions
        How many there are.
    listed
        Whether `points` has all of them; else it has the Pareto front alone.
    points
        The partitions by number of groups when listed, else by bytes moved.
    chosen
        Index of the point that equals the planner's own partition; None when that is not among them.
    layer_by_layer, pools_merged, all_fused
        Every layer alone; every pool alone behind a convolution in its group; all layers in one group, None where illegal.
    norms_apart_bytes
        Bytes moved layer by layer if what `layers` counts with the layer before it (normalisation; activations never) moved its
        own tensors.
    weight_bytes
        Weights and biases of all layers, each once: to be added to any partition's bytes.
    multiply_adds
        Of all layers, each value computed once.
    by_tile
        Recompute of `all_fused` for square tiles whose side divides height and width of the output; empty where illegal.
    """

    network: str
    layers: tuple[str, ...]
    tile: tuple[int, int]
    height: int | None
    width: int | None
    partitions: int
    listed: bool
    points: tuple[Point, ...]
    chosen: int | None
    layer_by_layer: Point
    pools_merged: Point
    all_fused: Point | None
    norms_apart_bytes: int
    weight_bytes: int
    multiply_adds: int
    by_tile: tuple[TileWork, ...]
