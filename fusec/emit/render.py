"""Print a mapped kernel: the last step before a compiler.

In: a MappedKernel, every decision taken. Out: a Source, self-contained and deterministic, whose entry is named by its content,
so that equal kernels of a network are one kernel.
"""

from __future__ import annotations

import hashlib
import textwrap

from fusec.emit.environment import environment, library
from fusec.runtime.program import Source
from fusec.targets.base import MappedKernel, Struct
from fusec.version import VERSION

_TEMPLATE = {"cuda": ("cuda/kernel.cu.j2", "cuda/lib/", "cuda"), "cpu": ("cpu/kernel.cpp.j2", "cpu/lib/", "cpp")}


WIDTH = 116  # columns of a line of constants


def render(kernel: MappedKernel) -> Source:
    """The generated source of one kernel."""
    template, folder, language = _TEMPLATE[kernel.device.target]
    tile = kernel.schedule.tile
    values = {
        "version": VERSION, "device": kernel.device.arch, "stages": len(kernel.schedule.stages), "tile": str(tile),
        "threads": kernel.threads, "blocks_per_core": kernel.blocks_per_core,
        "scratch_bytes": kernel.device.element * kernel.scratch,
        "library": "\n\n".join(library(folder + f) for f in kernel.libraries),
        "structs": [_printed(s) for call in kernel.calls for s in call.structs],
        "calls": [{"function": c.function, "structs": ", ".join(s.name for s in c.structs), "barrier": c.barrier,
                   "arguments": ", ".join(c.arguments)} for c in kernel.calls],
        "staging": kernel.staging,
        "signature": _signature(kernel), "inputs": [(name, i) for i, name in enumerate(kernel.inputs)],
        "sizes": [(name, 3 + i) for i, name in enumerate(_size_names(kernel))],
        "step": kernel.schedule.step, "warm_up": kernel.schedule.warm_up * kernel.schedule.rows,
        "drain": f" + {kernel.schedule.drain}" if kernel.schedule.drain else "",
        "indent": "" if kernel.schedule.step is None else "  ", "rows": _output_rows(kernel),
        "tile_images": tile.images, "tile_channels": tile.channels, "tile_height": tile.height, "tile_width": tile.width,
        "tiles_c": kernel.tiles_c, "buffers": kernel.buffers,
    }
    body = environment().get_template(template)
    digest = hashlib.sha256(body.render(entry="k", **values).encode()).hexdigest()
    entry = f"k_{digest[:12]}"
    return Source(entry, body.render(entry=entry, **values), language)


def _output_rows(kernel: MappedKernel) -> str:
    """The variable that holds the height of the output's image."""
    return next(b.height for b in kernel.buffers if b.pointer == "out")


def _printed(struct: Struct) -> dict[str, object]:
    """A struct's constants as lines, several to a line by type."""
    lines = []
    for kind, members in (("int", [c for c in struct.constants if isinstance(c[1], int)]),
                          ("bool", [c for c in struct.constants if c[1] in ("true", "false")]),
                          ("float", [c for c in struct.constants if isinstance(c[1], str) and c[1] not in ("true", "false")])):
        text = ", ".join(f"{name}~=~{value}" for name, value in members)  # ~ keeps a name and its value on one line
        if text:
            wrapped = textwrap.wrap(f"static constexpr {kind} {text};", WIDTH, subsequent_indent="    ", break_long_words=False)
            lines += [line.replace("~", " ") for line in wrapped]
    return {"name": struct.name, "comment": struct.comment, "lines": lines, "epilogue": struct.epilogue}


def _signature(kernel: MappedKernel) -> str:
    value = "value_t" if kernel.device.target == "cuda" else "float"
    pointers = [f"const {value}* __restrict__ {i}" for i in kernel.inputs]
    sizes = [f"int {name}" for name in _size_names(kernel)]
    return ", ".join([*pointers, f"{value}* __restrict__ out", "const float* __restrict__ params", "int batch", "int tiles_y",
                      "int tiles_x", *sizes])


def _size_names(kernel: MappedKernel) -> list[str]:
    return [f"{letter}{i}" for i in range(len(kernel.sizes)) for letter in "hw"]
