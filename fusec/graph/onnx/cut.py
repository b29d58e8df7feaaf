"""Which part of an ONNX network is wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """The tensors a part begins at and ends at; the network's own inputs or outputs where there are none."""

    start: tuple[str, ...] = ()
    end: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.start or self.end)
