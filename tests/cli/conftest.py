"""Compiled kernels of these tests are kept in a folder of their own, no variable of the user's gets in, and a slow machine does
not make commands talk of their progress.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.cli import progress

VARIABLES = ("FUSEC_DUMP", "FUSEC_DEBUG", "FUSEC_THREADS", "COLUMNS")


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(autouse=True)
def environment(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FUSEC_CACHE", str(kernels))
    monkeypatch.setattr(progress, "DELAY", 3600.0)
    return monkeypatch
