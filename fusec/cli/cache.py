"""`fusec cache`: the compiled kernels kept on disk."""

from __future__ import annotations

from datetime import datetime

import click

from fusec import debug
from fusec.cli import options
from fusec.cli.output import facts, in_bytes, line, plural, print_json, table
from fusec.runtime.cache import Cache, Entry

SHOWN_DIGITS = 16


@click.group(epilog="Example: fusec cache ls")
def command() -> None:
    """Look after the compiled kernels kept on disk.

    Kernels are kept by content, so that one compiled before is not compiled again. Nothing is lost with the cache but time.
    FUSEC_CACHE names another folder than the user's cache folder.
    """


@command.command(epilog="Example: fusec cache ls --json")
@options.JSON
def ls(as_json: bool) -> None:
    """List the kernels kept, oldest first."""
    cache = _cache()
    entries = cache.list()
    size = sum(e.bytes for e in entries)
    if as_json:
        print_json({"folder": str(cache.folder), "bytes": size, "entries": [_plain(e) for e in entries]})
        return
    if entries:
        table(("kernel", ">size", "built"), [(_short(e), in_bytes(e.bytes), _date(e.modified)) for e in entries])
        line()
    facts([("folder", str(cache.folder)), ("kept", f"{plural(len(entries), 'kernel')}, {in_bytes(size)}")])


@command.command(epilog="Example: fusec cache clear")
@options.JSON
def clear(as_json: bool) -> None:
    """Remove all kernels kept; they are built anew when needed."""
    cache = _cache()
    removed = cache.clear()
    if as_json:
        print_json({"folder": str(cache.folder), "removed": removed})
    else:
        line(f"removed {plural(removed, 'kernel')} from {cache.folder}")


@command.command(epilog="Example: fusec cache verify")
@options.JSON
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Check that all kernels are what was written; exit code 1 when some are not.

    Damaged ones are never used: they are built anew when needed.
    """
    cache = _cache()
    checked, damaged = len(cache.list()), cache.verify()
    if as_json:
        print_json({"folder": str(cache.folder), "checked": checked, "damaged": [_plain(e) for e in damaged]})
    else:
        for entry in damaged:
            line(f"damaged: {entry.path.name}")
        line(f"{plural(checked, 'kernel')} in {cache.folder}: {len(damaged) or 'none'} damaged")
    if damaged:
        ctx.exit(1)


def _cache() -> Cache:
    return Cache(debug.cache_folder())


def _plain(entry: Entry) -> dict[str, object]:
    return {"name": entry.path.name, "bytes": entry.bytes, "modified": entry.modified}


def _short(entry: Entry) -> str:
    """The name with the first digits of its digest."""
    return f"{entry.path.stem[:SHOWN_DIGITS]}{entry.path.suffix}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
