"""The program: everything a generated model consists of, as plain data that JSON can hold.

In: what `link` gathers (sources, launch rules, size rules). Out: the manifest of an artefact, and what `model.py` executes.
Like all of `fusec.runtime` this module uses the standard library (and NumPy) alone and imports relatively, because it is copied
into every artefact, which runs without fusec.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

POOL = "fusec_pool"  # entry of the source of the CPU's thread pool
FORMAT = 2  # of the manifest; raised when a reader of the old one would misunderstand the new
ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}  # of an element of a tensor
PLANES = {"NCHW": 1, "NHWC": 1, "NC8HW8": 8}  # channels of a plane: tensors between kernels have whole planes

Terms = tuple[tuple[int, int, int], ...]  # least of floor((multiply * n + add) / divide), see fusec.graph.shapes.SizeRule


@dataclass(frozen=True)
class Source:
    """Generated text of one kernel (or of the thread pool): self-contained, deterministic, named by `entry`."""

    entry: str
    text: str
    language: str  # "cuda" or "cpp"

    @property
    def filename(self) -> str:
        return f"{self.entry}.{'cu' if self.language == 'cuda' else 'cpp'}"


@dataclass(frozen=True)
class TensorRule:
    """How large a tensor is at run time: the extents of tensor `source` put through `height` and `width` terms.

    A network input has source None and terms that are constant (size pinned) or () (open: taken from the caller's array).
    `same` lists further tensors that must have `source`'s extents (the other operands of an addition).
    """

    name: str
    channels: int
    source: str | None
    height: Terms
    width: Terms
    same: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """One compiled schedule of a chain. Blocks are the tiles of the output; scratch is in elements of the program's type."""

    entry: str
    tile: tuple[int, int, int, int]  # images, channels, height, width of the output
    threads: int  # per block; 1 on the CPU
    scratch: int
    min_blocks: int = 0  # used only when at least so many tiles come of it


@dataclass(frozen=True)
class Launch:
    """One chain of the network: the first variant with enough tiles is launched.

    Kernel arguments, in this order: the tensors `inputs`, the tensor `output`, the block of packed weights `params` (a key of
    the weights file, or "" for none: a null pointer), then as 32-bit integers batch, tiles along y, tiles along x, and (height,
    width) of each tensor in `sizes`.
    """

    label: str
    inputs: tuple[str, ...]
    output: str
    params: str
    sizes: tuple[str, ...]
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Port:
    """A network input or output as the caller sees it. `flat` outputs are (N, C) instead of (N, C, 1, 1)."""

    name: str
    tensor: str
    flat: bool = False


@dataclass(frozen=True)
class Program:
    """A whole model: its tensors' sizes, its launches in order, and what it was built for."""

    name: str
    target: str  # "cpu" or "cuda"
    dtype: str  # of all tensors, inputs and outputs among them: a key of `ELEMENT_BYTES`
    arch: str  # "sm_90", or the CPU's signature
    version: str  # of fusec
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: tuple[TensorRule, ...]
    layouts: Mapping[str, str]  # tensor between kernels -> a key of `PLANES`; where it is not named, NCHW
    launches: tuple[Launch, ...]

    @property
    def element(self) -> int:
        """Bytes of one element of a tensor, and of scratch."""
        return ELEMENT_BYTES[self.dtype]

    def stored_channels(self, tensor: str, channels: int) -> int:
        """Channels that a tensor of so many takes in memory: whole planes of its layout."""
        plane = PLANES[self.layouts.get(tensor, "NCHW")]
        return -(-channels // plane) * plane

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Program:
        """Inverse of `to_json`; InputError when the manifest is of another format or damaged."""
        if data.get("format") != FORMAT:
            raise InputError(f"this model has manifest format {data.get('format')}, but this fusec reads {FORMAT}",
                             hint="compile the network again")
        try:
            values = {k: v for k, v in data.items() if k != "format"}
            values["inputs"] = tuple(Port(**p) for p in values["inputs"])
            values["outputs"] = tuple(Port(**p) for p in values["outputs"])
            values["tensors"] = tuple(_tensor(t) for t in values["tensors"])
            values["launches"] = tuple(_launch(x) for x in values["launches"])
            _known((values["dtype"],), ELEMENT_BYTES)
            _known(values["layouts"].values(), PLANES)
            fields = {f.name for f in dataclasses.fields(Program)}
            return Program(**{k: v for k, v in values.items() if k in fields})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the model's manifest is damaged: {error}", hint="compile the network again") from None


def _known(words: Iterable[str], table: Mapping[str, int]) -> None:
    if unknown := [word for word in words if word not in table]:
        raise ValueError(f"'{unknown[0]}' is none of {', '.join(table)}")


def _terms(data: Any) -> Terms:
    return tuple((int(m), int(a), int(d)) for m, a, d in data)


def _tensor(data: Mapping[str, Any]) -> TensorRule:
    return TensorRule(**{**data, "height": _terms(data["height"]), "width": _terms(data["width"]), "same": tuple(data["same"])})


def _launch(data: Mapping[str, Any]) -> Launch:
    variants = tuple(Variant(**{**v, "tile": tuple(v["tile"])}) for v in data["variants"])
    return Launch(**{**data, "inputs": tuple(data["inputs"]), "sizes": tuple(data["sizes"]), "variants": variants})


def evaluate(terms: Terms, extent: int) -> int:
    """Apply size terms to an extent."""
    return min((multiply * extent + add) // divide for multiply, add, divide in terms)
