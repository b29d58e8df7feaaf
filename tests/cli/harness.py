"""Running the command line in this process and in one of its own, and small networks to run it on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from fusec.cli import cli

SMALL = """name: small
input: {name: picture, channels: 1, height: 12, width: 12}
layers:
  - {name: conv1, type: conv2d, out_channels: 4, kernel: 3, padding: 1}
  - {name: relu1, type: relu}
  - {name: pool1, type: max_pool2d, kernel: 2}
  - {name: conv2, type: conv2d, out_channels: 3, kernel: 3}
  - {name: fc, type: linear, out_features: 7}
"""
OPEN = """name: open
input: {name: picture, channels: %d}
layers:
  - {name: same, type: conv2d, out_channels: %d, kernel: 3, padding: 1}
  - {name: squash, type: sigmoid}
"""
TWO = """name: two
inputs: [{name: left, channels: 2}, {name: right, channels: 2}]
layers:
  - {name: sum, type: add, inputs: [left, right]}
  - {name: product, type: mul, inputs: [left, right]}
"""
NO_WEIGHTS = """name: plain
input: {name: picture, channels: 2}
layers:
  - {name: pool, type: max_pool2d, kernel: 2}
"""


def write(folder: Path, text: str, name: str = "net.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def invoke(*words: object, code: int = 0) -> Result:
    """Run in this process; the exit code has to be `code`."""
    result = CliRunner().invoke(cli, [str(w) for w in words], prog_name="fusec")
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    assert "Traceback" not in result.stderr
    return result


def invoke_json(*words: object, code: int = 0) -> dict[str, Any]:
    """The object a command prints with --json; there is nothing else on standard output."""
    loaded: dict[str, Any] = json.loads(invoke(*words, "--json", code=code).stdout)
    return loaded


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    """Run in a process of its own, with pipes."""
    return subprocess.Popen([sys.executable, "-m", "fusec", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, **environment})


def run(*words: object, code: int = 0, **environment: str) -> tuple[str, str]:
    """Standard output and error of a process that has to end with `code`."""
    process = start(*words, **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, f"{out}\n{err}"
    return out, err
