"""Prints the reference of the YAML format from the models that check it.

In: `yaml_schema`. Out: the Markdown between the two markers in docs/networks.md; a test compares them, and
`python -m fusec.graph.yaml_reference docs/networks.md` writes it anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fusec.graph.yaml_schema import LAYER_SPECS, PLAIN, DescriptionSpec, InputSpec, LayerSpec
from fusec.graph.yaml_values import Spec

BEGIN = "<!-- reference: begin -->"
END = "<!-- reference: end -->"


def reference() -> str:
    """Tables of every mapping of the format: the file, an input, what all layers share, each layer type."""
    parts = [
        _section("## The file", "The keys at the top.", _table(DescriptionSpec)),
        _section("## An input", _words(InputSpec), _table(InputSpec)),
        _section("## Every layer", "The keys all layers take.", _table(LayerSpec)),
        "## Layer types",
    ]
    for kind, model in LAYER_SPECS.items():
        words = PLAIN[kind][1] if kind in PLAIN else _words(model)
        parts.append(_section(f"### {kind}", words, _table(model, skip=tuple(LayerSpec.model_fields))))
    return "\n\n".join(parts)


def insert(text: str) -> str:
    """`text` with the reference between its two markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _section(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _words(model: type[Spec]) -> str:
    return " ".join((model.__doc__ or "").split())


def _table(model: type[Spec], skip: tuple[str, ...] = ()) -> str:
    fields = {key: field for key, field in model.model_fields.items() if key not in skip}
    defaults = {key: "required" if field.is_required() else _default(field.default) for key, field in fields.items()}
    rows = [f"| `{key}` | {field.title} | {defaults[key]} | {field.description} |" for key, field in fields.items()]
    return "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows]) if rows else ""


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and len(set(value)) == 1:
        return str(value[0])
    return str(value)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(insert(page.read_text(encoding="utf-8")), encoding="utf-8")
