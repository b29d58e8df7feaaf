"""The command line: `fusec COMMAND ...`.

In: the process's arguments. Out: text or JSON on standard output, notes and errors on standard error, an exit code. It sits on
top of everything; nothing imports it. Each command is a module of its own, imported only when it is called: the list of
commands has to be there at once, and NumPy alone takes longer than that.
"""

from __future__ import annotations

import importlib
import io
import sys

import click

from fusec.cli.failures import guarded
from fusec.errors import nearest
from fusec.version import VERSION

# Name and summary of every command: the module `fusec.cli.NAME` holds it as `command`.
COMMANDS = {
    "compile": "Plan, generate and build a network, and write it as a folder.",
    "run": "Run a compiled folder or a network on arrays or pictures.",
    "plan": "Show how a network would be cut into kernels, and what that saves.",
    "explain": "Write a page that shows how a network is fused, and what that saves.",
    "bench": "Time fused kernels against layer by layer and the reference.",
    "tune": "Measure schedules on this machine and write the fastest as a lockfile.",
    "compare": "Find the first layer whose values differ from the reference.",
    "convert": "Write a network as a description, with its weights beside it.",
    "doctor": "Say what this machine has and lacks.",
    "cache": "Look after the compiled kernels kept on disk.",
}

EXIT_CODES = ("Exit codes: 0 done, 1 failed, 2 usage, 3 network unsupported or infeasible, or bad input, 4 results differ, "
              "5 something is missing on this machine, 130 interrupted.")


class Commands(click.Group):
    """The group of commands, whose modules are imported one by one when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"fusec.cli.{cmd_name}").command
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such command {name!r}; {nearest(name, list(COMMANDS)) or 'see fusec --help'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        return guarded(ctx, super().invoke)


@click.group(cls=Commands, epilog=f"Example: fusec compile lenet5 -o build/lenet5\n\n{EXIT_CODES}",
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, "--version", prog_name="fusec", message="%(prog)s %(version)s")
def cli() -> None:
    """Plans, generates, compiles and runs fused kernels for convolutional networks.

    A network is the path of a description or of an ONNX file, or the name of one that ships with fusec, such as lenet5. Each
    command has a --help of its own, and --json for a result that programs can read.
    """


def main() -> None:
    """Run the command line of this process; ends in SystemExit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without some sign gets a question mark, not an error
    cli(prog_name="fusec")
