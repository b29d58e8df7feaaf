"""The device that is planned for is the one the model will run on, as far as it is known."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fusec import pipeline
from fusec.cli import planning
from fusec.cli.building import device_in_words
from fusec.errors import InputError
from fusec.runtime import cpu_engine
from fusec.runtime.cuda import gpu
from fusec.targets.device import DEVICES, host
from tests.cli.harness import invoke_json


@pytest.mark.parametrize(("name", "arch", "cores", "rates"), [
    ("NVIDIA H200", "sm_90", 132, "h200"), ("NVIDIA H100 PCIe", "sm_90", 114, "h200"),
    ("NVIDIA GeForce RTX 4060", "sm_89", 24, "rtx4090"), ("NVIDIA GeForce RTX 2080 Ti", "sm_75", 68, "t4")])
def test_a_gpu_has_its_own_name_and_multiprocessors(name: str, arch: str, cores: int, rates: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "identity", lambda: (name, arch, cores))
    device = pipeline.choose_device("cuda")
    assert device == replace(DEVICES[rates], cores=cores, board=name)
    assert device.machine == name
    assert device_in_words(device) == f"cuda ({name}, {arch}, planned for {rates} with {cores} multiprocessors)"


def test_an_architecture_is_a_device_that_is_only_named() -> None:
    assert pipeline.choose_device("cuda", arch="sm_90") == DEVICES["h200"]
    assert DEVICES["h200"].machine == ""


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores, and the file with its quota."""
    monkeypatch.delenv("FUSEC_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cpu_engine, "QUOTAS", ((str(tmp_path / "cpu.max"),),))
    return tmp_path / "cpu.max"


def test_the_cpu_has_the_cores_that_a_model_runs_on(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quota of the control group and FUSEC_THREADS count for the plan as for the model."""
    assert pipeline.choose_device("cpu") == host(8)
    eight.write_text("300000 100000")
    assert pipeline.choose_device("cpu") == host(3)
    monkeypatch.setenv("FUSEC_THREADS", "5")
    assert pipeline.choose_device("cpu") == host(5)
    assert (host(5).cores, host(5).bandwidth) == (5, 5 * host(1).bandwidth)
    assert invoke_json("doctor")["cpu"]["threads"] == 5


def test_commands_that_only_plan_count_the_same(eight: Path) -> None:
    """`--device cpu` is this CPU, as `--target cpu` is."""
    eight.write_text("200000 100000")
    assert planning.choose("cpu", None, "float32") == planning.choose(None, "cpu", "float32") == host(2)


@pytest.mark.parametrize(("target", "hint"), [("gpu", r"\(auto, cpu or cuda\)"), ("cudda", r"did you mean 'cuda'\?"),
                                              ("Autto", r"did you mean 'auto'\?"), ("", r"\(auto, cpu or cuda\)")])
def test_only_a_near_target_is_guessed(target: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"unknown target '{target}' .*{hint}"):
        pipeline.choose_device(target)
