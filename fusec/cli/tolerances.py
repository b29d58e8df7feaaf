"""How far results may be from the reference, for each type of tensors, as a part of the largest value.

A half type rounds weights once and every layer's values once, which reaches outputs through all layers behind. Done so in NumPy
to the shipped networks (lenet5 to alexnet, random weights where they have none), a layer's own part was at most 1.8e-3 in
float16 and 1.3e-2 in bfloat16, the outputs' 8.4e-3 and 4.8e-2: tolerances are the next round numbers.
"""

from __future__ import annotations

LAYER = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}  # what a layer may add by itself, against float64
OUTPUT = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}  # what all layers may add up to, against float64
CLOSE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 1e-1}  # the same against a reference that computes in float32


def in_words() -> str:
    """What `fusec compare` allows: `1e-05; float16: 0.002, outputs 0.01; ...`."""
    words: list[str] = []
    for dtype, layer in LAYER.items():
        own = f"{layer:g}" if OUTPUT[dtype] == layer else f"{layer:g}, outputs {OUTPUT[dtype]:g}"
        words.append(f"{dtype}: {own}" if words else own)
    return "; ".join(words)
