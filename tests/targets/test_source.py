"""The printed source: self-contained, deterministic, without a word of the user's, as recorded in tests/golden."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fusec.emit.render import render
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph, Node, Pointwise
from fusec.graph.reference import run
from fusec.pipeline import generate, plan, read
from fusec.runtime.program import Source
from fusec.targets.device import DEVICES, Device, generic_host, in_precision
from tests.harness import Cpu, build, folder
from tests.small_networks import conv, image_of, max_pool, network, schedule_of

GOLDEN = Path(__file__).parents[1] / "golden"
DEVICE = {"cuda": DEVICES["h200"], "cpu": generic_host(), "float16": in_precision(DEVICES["h200"], "float16")}
FILES = {"cuda": "lenet5.cu", "cpu": "lenet5.cpp", "float16": "lenet5.float16.cu"}
HOSTILE = 'x"; system("echo owned"); // \\\n*/ #include </etc/passwd> }} {{ 7 * 7 }} {% raw %} ünï'


def sources(graph: LayerGraph, device: Device, fuse: str) -> tuple[Source, ...]:
    return tuple(render(k) for k in generate(plan(graph, device, fuse)).kernels)


@cache
def lenet5(target: str) -> tuple[Source, ...]:
    return sources(read("lenet5"), DEVICE[target], "all")


# ---- golden sources, determinism


@pytest.mark.parametrize("target", DEVICE)
def test_golden(target: str, request: pytest.FixtureRequest) -> None:
    """`pytest --update-golden` writes the files anew; a change of them is to be read before it is committed."""
    path = GOLDEN / FILES[target]
    text = lenet5(target)[0].text
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "the source changed: pytest tests/targets/test_source.py --update-golden"


@pytest.mark.parametrize("target", DEVICE)
def test_equal_inputs_give_equal_text(target: str) -> None:
    """In this process, and in another with another order of sets."""
    assert sources(read("lenet5"), DEVICE[target], "all") == lenet5(target)
    program = ("from tests.targets.test_source import lenet5\nimport sys\n"
               f"sys.stdout.buffer.write('\\0'.join(s.entry + s.text for s in lenet5({target!r})).encode())")
    for seed in ("1", "271828"):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=GOLDEN.parents[1],
                              env=os.environ | {"PYTHONHASHSEED": seed})
        assert done.stdout.decode() == "\0".join(s.entry + s.text for s in lenet5(target))


# ---- nothing of the user's text


def renamed(graph: LayerGraph, suffix: str) -> LayerGraph:
    """The same network under names of this ending."""
    def name(old: str) -> str:
        return f"{old}{suffix}"

    nodes = [Node(name(n.name), n.layer, tuple(map(name, n.inputs)), n.params,
                  tuple(Pointwise(name(p.name), p.layer, p.params) for p in n.epilogue)) for n in graph.nodes]
    return LayerGraph(name(graph.name), nodes, tuple(map(name, graph.outputs)))


def branches() -> LayerGraph:
    return network(L.Input(3, 12, 12), a=conv(4), r=L.Relu(), b=conv(4), j=(L.Add(), "r", "b"), k=(L.Concat(), "j", "a"),
                   p=max_pool(2, 2), f=L.Flatten(), g=L.Linear(5), s=L.Softmax())


@pytest.mark.parametrize("fuse", ["all", "none"])
@pytest.mark.parametrize("target", DEVICE)
def test_names_leave_no_trace(target: str, fuse: str) -> None:
    plain = sources(branches(), DEVICE[target], fuse)
    hostile = sources(renamed(branches(), HOSTILE), DEVICE[target], fuse)
    assert [s.text for s in hostile] == [s.text for s in plain]
    assert not any(word in s.text for s in hostile for word in ("owned", "passwd", "7 * 7", "49 ", "ünï"))


# ---- compiles alone


def test_nvcc_takes_the_file_as_it_is() -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the PATH")
    for source in (*lenet5("cuda"), *lenet5("float16"), *sources(branches(), DEVICE["cuda"], "all")):
        path = folder() / source.filename
        path.write_text(source.text)
        command = [nvcc, "-arch=sm_90", "-Werror", "all-warnings", "-c", str(path), "-o", str(path.with_suffix(".o"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["g++", "clang++"])
def test_either_compiler_takes_cpu_sources_without_a_warning_and_makes_them_right(command: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not on the PATH")
    runner = Cpu(command, optimize="-O3")
    runner.flags = (*runner.flags, "-Werror")
    for source in lenet5("cpu"):
        build(runner.compiler.command, runner.flags, source.text)
    graph = network(L.Input(3), a=conv(20), p=max_pool(3, 2, pad=1), d=conv(20, groups=20), g=conv(12, groups=4), s=L.Silu(),
                    u=L.ConvTranspose2d((3, 3), (2, 2), out_channels=5))
    x = image_of(graph, 17, 13, 3)
    wanted = run(graph, x)["u"]
    for machine in runner.machines:
        schedule = schedule_of(graph, 4, 6, images=2, device=machine.device)
        np.testing.assert_allclose(runner.run(schedule, {"x": x}, machine), wanted, rtol=1e-4, atol=1e-4)
