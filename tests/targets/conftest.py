"""The one fixture through which tests meet every way of running a schedule."""

from __future__ import annotations

import pytest

from tests.harness import Cpu, EmulatedCuda, Gpu, Interpreter, Runner

RUNNERS = {"interpreter": Interpreter, "cpu": Cpu, "emulated-cuda": EmulatedCuda, "cuda": Gpu}
GENERATED = [name for name in RUNNERS if name != "interpreter"]


def _params(names: list[str]) -> list[object]:
    return [pytest.param(n, marks=pytest.mark.gpu if n == "cuda" else ()) for n in names]


@pytest.fixture(scope="session", params=_params(list(RUNNERS)))
def target(request: pytest.FixtureRequest) -> Runner:
    """The interpreter, generated C++, emulated CUDA and (marked `gpu`) real CUDA."""
    return RUNNERS[request.param]()


@pytest.fixture(scope="session", params=_params(GENERATED))
def generated(request: pytest.FixtureRequest) -> Runner:
    """Those of them that run generated code."""
    return RUNNERS[request.param]()
