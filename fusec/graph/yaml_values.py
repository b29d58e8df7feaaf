"""The kinds of value a network description holds: names, sizes, pairs, paddings; each with its limits and its words.

In: one plain value of the file. Out: the same value checked and in its long form, `3` as `(3, 3)`. `yaml_schema` builds its
models of these. A title is what a hint and the users' reference say of the value.
"""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from fusec.graph import layers as L
from fusec.graph.limits import MAX_EXTENT, MAX_FACTOR, MAX_NUMBER, MAX_WINDOW

MAX_BRANCHES = 64


def _printable(name: str) -> str:
    if not name.isprintable():
        raise PydanticCustomError("name", "Input should have printable characters only")
    return name


def one_of(*options: str) -> AfterValidator:
    """A check that text is one of some words."""
    def known(value: str) -> str:
        if value not in options:
            raise PydanticCustomError("choice", "Input should be {options}", {"options": " or ".join(options)})
        return value

    return AfterValidator(known)


def _inside(path: str) -> str:
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in (*posix.parts, *windows.parts):
        raise PydanticCustomError("outside", "Input should stay inside the description's folder")
    if posix.suffix != ".safetensors":
        raise PydanticCustomError("suffix", "Input should name a .safetensors file")
    return _printable(path)


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pair(value: Any) -> Any:
    """`3` to `(3, 3)`; anything that is neither a number nor a list of two is refused here, its parts later."""
    if isinstance(value, list) and len(value) == 2:
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    raise PydanticCustomError("pair", "Input should be a whole number or [height, width]")


def _edges(value: Any) -> Any:
    """Every accepted form of padding as the mapping of its four edges."""
    if isinstance(value, dict):
        return value
    try:
        height, width = _pair(value)
    except PydanticCustomError:
        raise PydanticCustomError("padding", "Input should be a whole number, [height, width] or the four edges") from None
    return {"top": height, "bottom": height, "left": width, "right": width}


def _edges_or_same(value: Any, info: ValidationInfo) -> Any:
    """As `_edges`; the word `same` becomes the padding that keeps the size, the odd pixel at the bottom and right."""
    if value != "same":
        return _edges(value)
    if not {"kernel", "stride"} <= info.data.keys():
        return {}  # those two have problems of their own
    if info.data["stride"] != (1, 1):
        raise PydanticCustomError("same", "Input should be numbers where stride is above 1: 'same' has no one meaning there")
    spare = [(k - 1) * d for k, d in zip(info.data["kernel"], info.data.get("dilation", (1, 1)), strict=True)]
    (top, left), (bottom, right) = ([n // 2 for n in spare], [n - n // 2 for n in spare])
    return {"top": top, "bottom": bottom, "left": left, "right": right}


class Spec(BaseModel):
    """Base of the models: unknown keys refused, nothing converted, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Edge = Annotated[int, Field(ge=0, le=MAX_EXTENT)]


class Edges(Spec):
    """Four-sided padding."""

    top: Edge = 0
    bottom: Edge = 0
    left: Edge = 0
    right: Edge = 0

    def edges(self) -> L.Padding:
        """The same as part of a layer."""
        return L.Padding(self.top, self.bottom, self.left, self.right)

    def __str__(self) -> str:
        sides = {self.top, self.bottom, self.left, self.right}
        return str(self.top) if len(sides) == 1 else f"{{top: {self.top}, bottom: {self.bottom}, ...}}"


Name = Annotated[str, Field(min_length=1, max_length=100, title="text, 1 to 100 printable characters"),
                 AfterValidator(_printable)]
Names = Annotated[list[Name], BeforeValidator(_one_or_many),
                  Field(min_length=1, max_length=MAX_BRANCHES, title="a name or a list")]
WeightsPath = Annotated[str, AfterValidator(_inside)]
Size = Annotated[int, Field(ge=1, le=MAX_EXTENT, title=f"1 to {MAX_EXTENT:,}")]
WindowPart = Annotated[int, Field(ge=1, le=MAX_WINDOW)]
WindowPair = Annotated[tuple[WindowPart, WindowPart], BeforeValidator(_pair),
                       Field(title=f"1 to {MAX_WINDOW:,}, or [height, width]")]
FactorPart = Annotated[int, Field(ge=1, le=MAX_FACTOR)]
FactorPair = Annotated[tuple[FactorPart, FactorPart], BeforeValidator(_pair),
                       Field(title=f"1 to {MAX_FACTOR}, or [height, width]")]
Place = Annotated[int, Field(ge=0, le=MAX_EXTENT, title="0 or more")]
SparePart = Annotated[int, Field(ge=0, lt=MAX_WINDOW)]
SparePair = Annotated[tuple[SparePart, SparePart], BeforeValidator(_pair), Field(title="0 or more, or [height, width]")]
Padding = Annotated[Edges, BeforeValidator(_edges_or_same),
                    Field(title="0 or more, [height, width], {top, bottom, left, right}, or same (stride 1 only)")]
PlainPadding = Annotated[Edges, BeforeValidator(_edges),
                         Field(title="0 or more, [height, width], or {top, bottom, left, right}")]
Flag = Annotated[bool, Field(title="true or false")]
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, title="a number")]
Positive = Annotated[float, Field(gt=0, le=MAX_NUMBER, title="above 0")]
NonNegative = Annotated[float, Field(ge=0, le=MAX_NUMBER, title="0 or more")]
