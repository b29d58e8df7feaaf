"""What all tests share: hypothesis' profiles, and the reason a test marked `gpu` is skipped where there is no GPU."""

from __future__ import annotations

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

# Compiling a kernel can take longer than any deadline per example that would mean something.
settings.register_profile("default", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
# for long runs by hand: pytest --thorough tests/targets
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@cache
def gpu_obstacle() -> str:
    """Why no GPU can be used here, or the empty string."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy is not installed: {error}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device: {error}"
    return "" if count else "no CUDA device"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true",
                     help="twenty times the random examples, and the tests marked `thorough`: hours")
    parser.addoption("--update-golden", action="store_true", help="write the sources in tests/golden anew")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--thorough"):
        settings.load_profile("thorough")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where they cannot run; CuPy is imported only when there are such tests."""
    if not config.getoption("--thorough"):
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and (obstacle := gpu_obstacle()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=obstacle))
