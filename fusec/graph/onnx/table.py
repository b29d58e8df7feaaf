"""Which ONNX operators become layers, and by which converter.

`computed` is the number of leading inputs that the network may compute; those behind them are weights and options, which have
to be constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusec.graph.onnx.arithmetic import ARITHMETIC
from fusec.graph.onnx.arrangement import ARRANGEMENT
from fusec.graph.onnx.call import Converter
from fusec.graph.onnx.cutting import CUTTING
from fusec.graph.onnx.linear import LINEAR
from fusec.graph.onnx.pointwise import POINTWISE
from fusec.graph.onnx.resize import RESIZE
from fusec.graph.onnx.windowed import WINDOWED

ALL = 1 << 30  # inputs


@dataclass(frozen=True)
class Operator:
    """An operator of the standard that fusec reads."""

    convert: Converter
    computed: int


_MANY = (*ARITHMETIC, "Concat")
OPERATORS: dict[str, Operator] = {
    name: Operator(convert, ALL if name in _MANY else 1)
    for family in (WINDOWED, POINTWISE, ARITHMETIC, ARRANGEMENT, CUTTING, RESIZE, LINEAR) for name, convert in family.items()
}

# Why an operator is not read, and what would work, where there is more to say than that.
REFUSED: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger",
                     "QLinearMatMul", "MatMulInteger"),
                    ("quantised networks are not read", "export the network in float32")),
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), ("networks with control flow are not read",
                                                            "export with constants folded, for one image size")),
}
