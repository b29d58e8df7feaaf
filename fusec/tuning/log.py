"""What has been measured on this machine, kept from run to run: one line of JSON for each measurement, written at once.

In: a key (the digest of all that a measurement depends on) and its seconds. Out: the seconds again, in this run or a later one.
"""

from __future__ import annotations

import json
from pathlib import Path

from fusec.errors import MissingError

NAME = "measurements.jsonl"


class Log:
    """Measurements in a file.

    Parameters
    ----------
    folder
        Where the file is, or will be made. Lines that are damaged, by a full disk or a crash, are passed over.
    fresh
        Use nothing that earlier runs wrote.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.path = folder / NAME
        text = _read(self.path)
        self._known = {} if fresh else _parsed(text)
        self._torn = bool(text) and not text.endswith("\n")  # the next line must not continue a broken one

    def get(self, key: str) -> float | None:
        """Seconds measured under `key`, the last time; None where there are none."""
        return self._known.get(key)

    def add(self, key: str, seconds: float, **facts: object) -> None:
        """Keep a measurement, with facts for people; MissingError when it cannot be written."""
        row = json.dumps({"key": key, "seconds": seconds, **facts}, separators=(",", ":"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:  # one short write at the end: other processes may do the same
                file.write("\n" * self._torn + row + "\n")
        except OSError as error:
            raise MissingError(f"cannot keep measurements in {self.path}: {error.strerror or error}; make room, or set "
                               "FUSEC_CACHE") from None
        self._torn = False
        self._known[key] = seconds


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise MissingError(f"cannot read measurements in {path}: {error.strerror or error}; or set FUSEC_CACHE") from None


def _parsed(text: str) -> dict[str, float]:
    known: dict[str, float] = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            key, seconds = row["key"], row["seconds"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(key, str) and isinstance(seconds, float) and 0 < seconds < float("inf"):
            known[key] = seconds
    return known
