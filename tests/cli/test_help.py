"""Help, version and usage: quick, complete, and without importing what a command would need."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import click
import pytest

from fusec.cli import COMMANDS, cli
from fusec.version import VERSION
from tests.cli.harness import invoke, run

HEAVY = ("numpy", "networkx", "rich", "ruamel", "pydantic", "jinja2", "safetensors", "cupy", "PIL", "onnx")


def commands(group: click.Group = cli, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, f"{above}{name} ")
        else:
            yield f"{above}{name}", found


ALL = dict(commands())


def test_help_imports_nothing_heavy() -> None:
    program = f"""
import sys
from fusec.cli import cli
try:
    cli(["--help"])
except SystemExit as end:
    assert end.code == 0
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        run("--help")
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1  # 0.05 on a machine that does nothing else


def test_help_lists_every_command_in_its_own_words() -> None:
    text = invoke("--help").stdout
    context = click.Context(cli)
    for name, summary in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(200) == summary
        assert f"{name} " in text
    assert all(f" {code} " in text for code in (0, 1, 2, 3, 4, 5))


@pytest.mark.parametrize("name", ALL)
def test_every_command_explains_itself(name: str) -> None:
    text = invoke(*name.split(), "--help").stdout
    assert f"Example: fusec {name}" in text
    assert all(parameter.help for parameter in ALL[name].params if isinstance(parameter, click.Option))


@pytest.mark.parametrize("name", ALL)
def test_every_command_takes_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in ALL[name].params)


def test_the_examples_of_the_help_are_commands() -> None:
    for name, command in ALL.items():
        words = (command.epilog or "").removeprefix("Example: fusec ").split()[len(name.split()):]
        command.make_context(name, words)


def test_version() -> None:
    assert invoke("--version").stdout == f"fusec {VERSION}\n"


@pytest.mark.parametrize(("words", "said"), [
    (["compil", "lenet5"], "did you mean 'compile'?"),
    (["plan"], "Missing argument 'NET'"),
    (["plan", "lenet5", "--shape", "1x28x28"], "NxCxHxW"),
    (["plan", "lenet5", "--shape", "0x1x28x28"], "the batch can be 1 to"),
    (["plan", "lenet5", "--shape", "1x1x99999999x1"], "the others 1 to 1,048,576"),
    (["plan", "lenet5", "--explore", "--tile", "0x3"], "is not of the form HxW"),
    (["plan", "lenet5", "--explore", "--tile", "3"], "is not of the form HxW"),
    (["plan", "lenet5", "--tile", "3x3"], "--layers, --tile and --html belong to --explore"),
    (["plan", "lenet5", "--layers", "conv1..pool1"], "--layers, --tile and --html belong to --explore"),
    (["plan", "lenet5", "--device", "h200", "--target", "cpu"], "--device and --target exclude each other"),
    (["compile", "lenet5", "--target", "gpu"], "gpu"),
    (["compile", "lenet5", "--dtype", "float8"], "'float8' is not one of 'float32', 'float16', 'bfloat16'"),
    (["compile", "lenet5", "--weights", "a", "--random-weights", "1"], "--weights and --random-weights exclude each other"),
    (["compile", "lenet5", "--random-weights", "-1"], "-1"),
    (["run", "lenet5"], "Missing argument 'INPUT...'"),
    (["bench", "lenet5", "--batch", "2", "--shape", "2x1x28x28"], "--batch and --shape exclude each other"),
    (["bench", "lenet5", "--repeat", "0"], "--repeat"),
    (["compare", "lenet5", "--input", "x.npy", "--batch", "2"], "--input and --batch exclude each other"),
    (["cache"], "ls"),
    (["cache", "lss"], "lss"),
])
def test_usage_errors(words: list[str], said: str) -> None:
    result = invoke(*words, code=2)
    assert said in result.stderr
    assert result.stdout == ""
