"""The Jinja environment of pages: everything that is printed is escaped unless it was made here.

In: the name of a template in templates/explain/ and its values. Out: text.
"""

from __future__ import annotations

from functools import cache

import jinja2

from fusec.emit.environment import template_folder


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(template_folder() / "explain"), undefined=jinja2.StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=True)


def printed(template: str, **values: object) -> str:
    """The template's text; strings among the values come out harmless."""
    return _environment().get_template(template).render(**values)
