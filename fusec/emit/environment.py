"""The Jinja environment, and the one place that knows where the templates are.

`templates/` stands at the top of a checkout and inside the package in a wheel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from fusec.errors import InternalError
from fusec.runtime.program import POOL, Source


@cache
def template_folder() -> Path:
    """The folder of the templates: package data of a wheel, or the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_data" / "templates", package.parent / "templates"):
        if folder.is_dir():
            return folder
    raise InternalError("the templates are missing from this installation")


@cache
def environment() -> jinja2.Environment:
    """Strict: an undefined name is an error, output is deterministic."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(template_folder()), undefined=jinja2.StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)


@cache
def library(path: str) -> str:
    """Raw text of a library file, e.g. "cuda/lib/conv2d.cuh"."""
    return (template_folder() / path).read_text(encoding="utf-8").strip()


def threads_source() -> Source:
    """The thread pool every CPU model runs on."""
    return Source(POOL, library("cpu/threads.cpp") + "\n", "cpp")
