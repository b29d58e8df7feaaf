"""What goes wrong, and what the user sees of it: lines on standard error, an exit code, no traceback, nothing half-written."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fusec import pipeline
from fusec.cli.failures import LONGEST, problem_lines, shown
from fusec.errors import InputError, InternalError, MissingError, Problem
from tests.cli.harness import SMALL, invoke, run, start, write

CPU = ("--target", "cpu", "--random-weights", 1)


@pytest.fixture
def net(tmp_path: Path) -> str:
    return write(tmp_path, SMALL)


# ---- exit code 3: the network or an option


@pytest.mark.parametrize("command", ["compile", "plan", "bench", "compare"])
def test_the_nearest_network_is_named(command: str) -> None:
    assert invoke(command, "lenet", code=3).stderr == (
        "error: lenet: no such file, and no shipped network has this name (did you mean 'lenet5'?)\n")


def test_every_problem_is_a_line(tmp_path: Path) -> None:
    net = write(tmp_path, SMALL.replace("max_pool2d, kernel: 2", "max_pool2d, kernal: 2").replace("linear", "linnear"))
    lines = invoke("compile", net, *CPU, code=3).stderr.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith(f"error: {net}:") for line in lines)
    assert any("did you mean 'kernel'?" in line for line in lines)


def test_many_problems_are_cut(tmp_path: Path) -> None:
    layers = "".join(f"  - {{name: a{i}, type: conv9d}}\n" for i in range(50))
    lines = invoke("plan", write(tmp_path, SMALL + layers), code=3).stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "error: ... and 30 more"


@pytest.mark.parametrize(("words", "said"), [
    (["--fuse", "conv1..pol1"], "did you mean 'pool1'?"),
    (["--fuse", "conv2..conv1"], "runs backwards"),
    (["--arch", "sm_90"], "leave one of them out"),
])
def test_options_that_do_not_fit_the_network(net: str, tmp_path: Path, words: list[str], said: str) -> None:
    assert said in invoke("compile", net, *CPU, *words, "-o", tmp_path / "out", code=3).stderr
    assert not (tmp_path / "out").exists()


def test_chains_that_fit_no_device_are_infeasible() -> None:
    message = invoke("plan", "vgg_e", "--device", "t4", "--fuse", "conv1_1..conv4_4", code=3).stderr
    assert message.startswith("error: scratch ")
    assert message.count("\n") == 1


# ---- exit codes 1, 4 and 5


def fail(error: BaseException) -> Any:
    def raising(*arguments: object, **named: object) -> NoReturn:
        raise error
    return raising


@pytest.mark.parametrize(("error", "line"), [
    (ZeroDivisionError("division by zero"), "error: ZeroDivisionError: division by zero"),
    (InternalError("a promise is broken"), "error: a promise is broken"),
])
def test_bugs_ask_for_a_report(net: str, environment: pytest.MonkeyPatch, error: Exception, line: str) -> None:
    environment.setattr(pipeline, "plan", fail(error))
    first, second = invoke("plan", net, code=1).stderr.splitlines()
    assert first == line
    assert "report" in second
    assert "FUSEC_DEBUG=1" in second


def test_a_report_has_the_traceback(net: str) -> None:
    program = ("import sys; from fusec import pipeline; from fusec.cli import main\n"
               "pipeline.plan = lambda *given: 1 / 0\n"
               "sys.argv[1:] = ['plan', sys.argv[1]]; main()")
    done = subprocess.run([sys.executable, "-c", program, net], capture_output=True, text=True, check=False,
                          env={**os.environ, "FUSEC_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_running_out_of_memory_is_no_bug(net: str, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(pipeline, "plan", fail(MemoryError()))
    assert invoke("plan", net, code=5).stderr == "error: not enough memory\n"


def test_differences_are_exit_code_4(net: str) -> None:
    result = invoke("compare", net, *CPU, "--tolerance", 0, code=4)
    assert "conv1+relu1" in result.stdout
    assert result.stderr.count("\n") == 1
    assert "the first is conv1+relu1" in result.stderr


def test_no_compiler_is_exit_code_5(net: str, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in invoke("compile", net, *CPU, "-o", tmp_path / "out", code=5).stderr
    assert not (tmp_path / "out").exists()
    assert invoke("plan", net, "--target", "cpu").stderr == ""


def test_doctor_without_any_compiler(environment: pytest.MonkeyPatch) -> None:
    from fusec.runtime.cuda import nvrtc

    environment.setenv("CXX", "no-such-compiler")
    environment.setattr(nvrtc, "library", fail(MissingError("NVRTC is not installed")))
    text = invoke("doctor", code=5).stdout
    assert "no-such-compiler" in text
    assert "NVRTC is not installed" in text
    assert "run for nothing" in text


def test_variables_that_make_no_sense(net: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FUSEC_THREADS", "many")
    assert invoke("bench", net, "--target", "cpu", code=3).stderr.splitlines()[-1].startswith("error: FUSEC_THREADS: 'many'")


# ---- places that cannot be written


def test_a_cache_that_cannot_be_written_is_only_a_warning(net: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out, err = run("compile", net, *CPU, "-o", tmp_path / "out", "--json", FUSEC_CACHE=str(tmp_path / "file" / "cache"))
    assert err.count("warning: cannot keep compiled kernels in") == 1
    assert out.startswith("{")
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_an_output_folder_that_cannot_be_made(net: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = invoke("compile", net, *CPU, "-o", tmp_path / "file" / "out", code=5)
    assert result.stderr.startswith("error: cannot write the model to ")
    assert result.stdout == ""


def test_a_folder_of_something_else_is_left_alone(net: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "is left alone" in invoke("compile", net, *CPU, "-o", tmp_path / "mine", code=3).stderr
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_full_disk_leaves_what_was_there(net: str, tmp_path: Path, kernels: Path) -> None:
    """The limit on the size of files stands in for the disk's: both fail in the middle of a file."""
    target = tmp_path / "models" / "out"
    wide = write(tmp_path, SMALL.replace("out_features: 7", "out_features: 4000"), "wide.yaml")
    invoke("compile", wide, *CPU, "-o", tmp_path / "elsewhere")  # its kernels are in the cache now
    invoke("compile", net, *CPU, "-o", target)
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    done = subprocess.run([sys.executable, "-m", "fusec", "compile", wide, *map(str, CPU), "-o", str(target)],
                          capture_output=True, text=True, check=False,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("error: cannot write the model to ")
    assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before
    assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "fusec", "plan", "lenet5", "--json"], stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (5, "error: No space left on device")


# ---- signals and pipes


def test_a_closed_pipe_is_quiet() -> None:
    process = start("plan", "mnist4", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "rror" not in process.stderr.read()
    assert process.wait() == 141


def test_an_interrupt_is_quiet(net: str) -> None:
    process = start("bench", net, *CPU, "--repeat", 100_000)
    assert process.stderr is not None
    while "timing" not in (line := process.stderr.readline()):
        assert line, "it ended by itself"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in process.stderr.read()


# ---- what is shown


def test_control_characters_are_not_sent_to_terminals() -> None:
    assert "error: \\x1b[31mred\\u202e: no such file" in invoke("plan", "\x1b[31mred\u202e", code=3).stderr
    assert shown("é 好\n") == "é 好\n"
    assert shown("\r\x00\x9b") == "\\r\\x00\\x9b"
    assert len(shown("x" * 10 * LONGEST)) < LONGEST + 10


def test_a_problem_stays_on_its_line() -> None:
    error = InputError([Problem("first\nsecond", "a"), Problem("third", "b", "hint")])
    assert problem_lines(error) == ["a: first\\nsecond", "b: third (hint)"]
    assert problem_lines(MissingError("the compiler said:\n  no")) == ["the compiler said:\n  no"]
