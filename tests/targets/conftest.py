"""The one fixture through which tests meet every way of running a schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.harness import Cpu, EmulatedCuda, Gpu, Interpreter, Runner

RUNNERS: dict[str, Callable[[], Runner]] = {
    "interpreter": Interpreter, "cpu": Cpu, "emulated-cuda": EmulatedCuda, "cuda": Gpu,
    "emulated-float16": partial(EmulatedCuda, dtype="float16"), "emulated-bfloat16": partial(EmulatedCuda, dtype="bfloat16"),
    "cuda-float16": partial(Gpu, "float16"), "cuda-bfloat16": partial(Gpu, "bfloat16")}
GENERATED = [name for name in RUNNERS if name != "interpreter"]


# Kernels of the two half types differ in one file of a few lines: these tests run in float16 alone without --thorough.
# Random networks, planes and what is beyond the range run in both.
ONE_HALF = ("test_padding.py", "test_layers.py", "test_networks.py", "test_rounding.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the repetitions in bfloat16."""
    for item in items:
        if item.path.name in ONE_HALF and "emulated-bfloat16" in item.name:
            item.add_marker(pytest.mark.thorough)


def _params(names: list[str]) -> list[object]:
    return [pytest.param(n, marks=pytest.mark.gpu if n.startswith("cuda") else ()) for n in names]


@pytest.fixture(scope="session", params=_params(list(RUNNERS)))
def target(request: pytest.FixtureRequest) -> Runner:
    """The interpreter, generated C++, emulated CUDA and (marked `gpu`) real CUDA, these in float32 and in both half types."""
    return RUNNERS[request.param]()


@pytest.fixture(scope="session", params=_params(GENERATED))
def generated(request: pytest.FixtureRequest) -> Runner:
    """Those of them that run generated code."""
    return RUNNERS[request.param]()
