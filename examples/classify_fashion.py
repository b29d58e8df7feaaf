"""Classify real pictures of clothes with kernels that fusec plans, generates, compiles and runs.

In: 64 test pictures of Fashion-MNIST from this folder, or with `--full` all 10,000. Out: what each one was taken for, and the
share that is right.

    python examples/classify_fashion.py                    # 64 pictures, on the GPU if there is one, else on the CPU
    python examples/classify_fashion.py --target cpu
    python examples/classify_fashion.py --full             # Debian's dataset-fashion-mnist
    python examples/classify_fashion.py --full FOLDER      # the four idx files in another place
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

import numpy as np
from fashion import CLASSES, DEBIAN_FOLDER, Labels, Pictures, full_set, network_input, sample
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

import fusec
from fusec.errors import FusecError

COLUMNS = 4
SHADES = np.array(list(" .:-=+*#%@"))


def verdict(label: int, guess: int) -> Text:
    """One picture's outcome in a few words."""
    if label == guess:
        return Text.assemble(("✓ ", "green"), CLASSES[label])
    return Text.assemble(("✗ ", "bold red"), CLASSES[label], (f" → {CLASSES[guess]}", "red"))


def outcome_table(labels: Labels, guesses: np.ndarray) -> Table:
    """All outcomes in reading order, four to a row, numbered by the row's first picture."""
    table = Table.grid(padding=(0, 2))
    for start in range(0, len(labels), COLUMNS):
        row = range(start, min(start + COLUMNS, len(labels)))
        table.add_row(Text(f"{start:2}", style="dim"), *(verdict(int(labels[i]), int(guesses[i])) for i in row))
    return table


def drawing(picture: np.ndarray, title: str) -> Text:
    """A 28x28 picture as 14 lines of characters, darker ones for brighter pixels."""
    tone = picture.reshape(14, 2, 28).mean(1) / 256 * len(SHADES)
    lines = ["".join(row) for row in SHADES[tone.astype(int)]]
    return Text("\n".join([title[:28].center(28), *lines]))


def show_sample(console: Console, pictures: Pictures, labels: Labels, guesses: np.ndarray) -> None:
    """Every outcome, then drawings of the first pictures that were taken for something else."""
    console.print(outcome_table(labels, guesses))
    wrong = np.flatnonzero(labels != guesses)
    drawn = wrong[:max(1, console.width // 30)]
    if len(wrong):
        some = f", the first {len(drawn)} of them" if len(drawn) < len(wrong) else ""
        console.print(f"\n{len(wrong)} taken for something else{some} (what it is → what it was taken for):\n", highlight=False)
        console.print(Columns([drawing(pictures[i], f"{i}: {CLASSES[labels[i]]} → {CLASSES[guesses[i]]}") for i in drawn]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Classify pictures of clothes with generated kernels.")
    parser.add_argument("--target", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--full", type=Path, nargs="?", const=DEBIAN_FOLDER, metavar="FOLDER",
                        help=f"all 10,000 test pictures, from FOLDER or {DEBIAN_FOLDER}")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without these signs gets question marks, not an error
    console = Console()
    try:
        pictures, labels = full_set("t10k", options.full) if options.full else sample()
        model = fusec.compile("lenet5", target=options.target)
        began = time.perf_counter()
        scores = model(network_input(pictures))
        seconds = time.perf_counter() - began
    except (FusecError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, FusecError) else 2
    guesses = scores.argmax(axis=1)
    if not options.full:
        show_sample(console, pictures, labels, guesses)
    right = int((guesses == labels).sum())
    console.print(f"\n{right:,} of {len(labels):,} pictures right: accuracy {right / len(labels):.4f} "
                  f"({seconds * 1000:.1f} ms for one call)", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
