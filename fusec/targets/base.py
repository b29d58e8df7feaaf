"""The mapped kernel: a schedule with every number, name and type a template prints.

In: values made by a target's mapping. Out: what `fusec.emit` prints and `link` packs. A template may loop over these tuples and
print these fields; it computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusec.errors import Infeasible
from fusec.schedule.ir import Schedule
from fusec.targets.device import Device

Constant = tuple[str, int | str]


@dataclass(frozen=True)
class AxisCode:
    """Start of a buffer's box along one axis: origin * multiply / divide + offset; `origin` is the tile's variable."""

    origin: str
    multiply: int
    divide: int
    offset: int


@dataclass(frozen=True)
class BufferCode:
    """A buffer as a variable of the kernel: its type (a library template with its arguments), pointer, box and image size.

    In a strip also the first row made in this step; of a line buffer the row in which its box starts, too.
    """

    name: str
    type: str
    pointer: str
    c: AxisCode
    y: AxisCode
    x: AxisCode
    height: str
    width: str
    walk: tuple[str, ...] = ()


@dataclass(frozen=True)
class Struct:
    """The constants and the epilogue of one stage, printed as a struct that a library function takes as its argument."""

    name: str  # "Stage2"
    comment: str  # kind and extents; never a name from the user's file
    constants: tuple[Constant, ...]
    epilogue: tuple[str, ...]  # statements that change `v`, given `c` (channel of the tensor) and `params`


@dataclass(frozen=True)
class Call:
    """One call of a library function: the stages it computes, and its arguments."""

    function: str
    structs: tuple[Struct, ...]
    arguments: tuple[str, ...]
    barrier: bool = True  # whether all threads must meet before the next call


@dataclass(frozen=True)
class Staging:
    """Parameters copied into scratch before the first stage: `count` elements from `source` on to `target`."""

    target: int
    source: int
    count: int


@dataclass(frozen=True, eq=False)
class Pack:
    """One array of weights in the layout a kernel reads, and its first element in the kernel's block of parameters."""

    offset: int
    size: int
    array: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class MappedKernel:
    """One schedule mapped to one device, ready to be printed."""

    schedule: Schedule
    device: Device
    threads: int
    blocks_per_core: int
    scratch: int  # elements
    inputs: tuple[str, ...]  # variable names of the input pointers
    sizes: tuple[str, ...]  # tensors whose height and width are arguments, in order: h0, w0, h1, w1, ...
    tiles_c: int
    buffers: tuple[BufferCode, ...]
    calls: tuple[Call, ...]
    libraries: tuple[str, ...]  # library files the calls need, in order
    packs: tuple[Pack, ...]
    staging: tuple[Staging, ...] = ()

    def parameters(self) -> NDArray[np.float32]:
        """The block of packed weights, float32, one-dimensional."""
        block = np.zeros(sum_size(self.packs), np.float32)
        for pack in self.packs:
            block[pack.offset:pack.offset + pack.size] = pack.array().ravel()
        return block


MOST_PARAMETERS = (1 << 31) - 64  # of one kernel


class Packer:
    """Collects a kernel's weight arrays and hands out their offsets."""

    def __init__(self, align: int) -> None:
        self._align = align
        self._packs: list[Pack] = []
        self._end = 0

    def add(self, size: int, array: Callable[[], NDArray[np.float32]]) -> int:
        """Reserve `size` elements filled by `array()`; returns the first one's offset."""
        offset = self._end
        if offset + size > MOST_PARAMETERS:
            raise Infeasible(f"a kernel's weights take more than {MOST_PARAMETERS} values: too many for its 32-bit offsets")
        self._packs.append(Pack(offset, size, array))
        self._end = -(-(offset + size) // self._align) * self._align
        return offset

    @property
    def packs(self) -> tuple[Pack, ...]:
        return tuple(self._packs)


def sum_size(packs: Sequence[Pack]) -> int:
    """Elements of a kernel's block of parameters, with room for one vector read past the end."""
    return max((p.offset + p.size for p in packs), default=-16) + 16
