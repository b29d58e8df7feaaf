"""Train LeNet-5 on Fashion-MNIST and write `graphs/lenet5.safetensors`, the weights that ship with fusec.

In: the 60,000 training pictures (Debian's package `dataset-fashion-mnist`, or `--data FOLDER`). Out: ten float32 tensors in
PyTorch's order under the names of `graphs/lenet5.yaml`. This script alone needs PyTorch; fusec never does.

    python examples/train_lenet5.py                      # the recipe of the weights in the repository
    python examples/train_lenet5.py --held-out 5000      # the same, judged on training pictures it did not see

The recipe was chosen on held-out training pictures; the test pictures are looked at once, after the last step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from fashion import DEBIAN_FOLDER, full_set, network_input
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).parent.parent / "graphs" / "lenet5.safetensors"
BATCH = 128


class LeNet5(nn.Module):
    """LeCun's network of 1998 with ReLU and max pooling in place of tanh and averaging."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc3(functional.relu(self.fc2(x)))


def load(part: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures (N, 1, 28, 28) float32 in 0..1 and labels (N,) int64."""
    pictures, labels = full_set(part, folder)
    return torch.from_numpy(network_input(pictures)), torch.from_numpy(labels.astype(np.int64))


def vary(x: Tensor, reach: int = 1) -> Tensor:
    """Each picture mirrored with probability 1/2 and moved by up to `reach` pixels each way, zeros coming in."""
    n, _, height, width = x.shape
    padded = functional.pad(x[:, 0], (reach,) * 4)
    rows = torch.arange(height) + torch.randint(0, 2 * reach + 1, (n, 1))
    columns = torch.arange(width) + torch.randint(0, 2 * reach + 1, (n, 1))
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the set in random order; the last, smaller batch is left to the next pass."""
    order = torch.randperm(len(x))
    for start in range(0, len(x) - BATCH + 1, BATCH):
        chosen = order[start:start + BATCH]
        yield vary(x[chosen]), y[chosen]


def train(x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """The moving average of the weights of a network trained with AdamW and a one-cycle learning rate."""
    network = LeNet5()
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-3)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    began = time.monotonic()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for pictures, labels in batches(x, y):
            loss = functional.cross_entropy(network(pictures), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            total += loss.item()
        print(f"epoch {epoch:3}/{epochs}  loss {total / (len(x) // BATCH):.4f}  {time.monotonic() - began:5.0f} s", flush=True)
    return average.module


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the pictures given their own class."""
    network.eval()
    return (network(x).argmax(1) == y).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train LeNet-5 on Fashion-MNIST.")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, metavar="FOLDER", help="where the four idx files are")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1998)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=0, metavar="N",
                        help="keep the last N training pictures for judging; writes no weights")
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    x, y = load("train", options.data)
    kept = len(x) - options.held_out
    network = train(x[:kept], y[:kept], options.epochs)
    if options.held_out:
        print(f"accuracy on {options.held_out} held-out training pictures: {accuracy(network, x[kept:], y[kept:]):.4f}")
        return
    print(f"accuracy on the 10,000 test pictures: {accuracy(network, *load('t10k', options.data)):.4f}")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
