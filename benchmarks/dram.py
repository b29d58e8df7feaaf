"""Bytes between an NVIDIA GPU and its memory, counted by the hardware, beside those of the plan.

    python benchmarks/dram.py --json FILE [--only NAME,...]        needs Nsight Compute (ncu) and the right to read counters

Each case runs once, fused and layer by layer, under ncu, which empties the caches before each kernel. What a kernel wrote last
is still in the second-level cache when it ends and is not counted: hence tensors many times as large as that cache. The plan
expects of memory each tensor that enters or leaves the chain once, and the weights: what tiles read again, their overlap, the
second-level cache has. What all tiles ask for is recorded too.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import counters  # noqa: E402
from prefixes import prefix  # noqa: E402

from fusec.pipeline import build_and_link, choose_device, generate, plan, read  # noqa: E402

LARGE = 8  # times the cache a kernel's bytes must be to be judged


@dataclass(frozen=True)
class Case:
    """A network up to layer `last` (all of it when None), the shape it is run on, and how it is cut."""

    network: str
    shape: tuple[int, int, int, int]
    last: str | None = None
    fuse: tuple[str, ...] = ("none", "auto", "all")


CASES = {
    "artcnn_c4f16_1080p_b8": Case("artcnn_c4f16", (8, 1, 1080, 1920)),
    "fsrcnn_1080p_b4": Case("fsrcnn_x2", (4, 1, 1080, 1920)),
    "vgg5_b64": Case("vgg_e", (64, 3, 224, 224), "relu3_1", ("none", "auto", "conv1_1..pool1,conv2_1..pool2")),
    "alexnet2_b512": Case("alexnet", (512, 3, 227, 227), "pool2", ("none", "auto", "conv1..pool1,conv2..pool2")),
    "mobilenet_v2_b128": Case("mobilenet_v2", (128, 3, 224, 224), "project3", ("none", "auto", "all")),
}


def work(name: str, fuse: str, file: Path) -> None:
    """Run one case once; leaves what its plan says of each kernel, in the order of launches."""
    import cupy

    case = CASES[name]
    planned = plan(prefix(read(case.network, missing="random"), case.last), choose_device("cuda"), fuse, case.shape)
    made = generate(planned)
    kernels = []
    for item, launch in zip(planned.chains, made.program.launches, strict=True):
        [variant] = item.variants
        kernels.append({"chain": str(item.chain), "kernel": launch.variants[0].entry, "tile": str(variant.schedule.tile),
                        "step": variant.schedule.step,
                        **counters.traffic(variant.schedule, planned.device, planned.nominal)})
    file.write_text(json.dumps({"cache": planned.device.cache, "kernels": kernels}))
    model = build_and_link(made)
    x = cupy.random.default_rng(0).random(case.shape, dtype=cupy.float32)
    model(x)
    cupy.cuda.runtime.deviceSynchronize()


def profile(name: str, fuse: str) -> list[dict[str, Any]]:
    """The kernels of one case with planned and counted bytes."""
    planned, counts = counters.profile(__file__, (name, fuse), counters.BYTES)
    for kernel, row in zip(planned["kernels"], counts, strict=True):
        if None in row.values():
            raise SystemExit(f"{name} {fuse}: ncu did not count the bytes of {kernel['kernel']}")
        kernel["counted_read"], kernel["counted_written"] = (int(row[m] or 0) for m in counters.BYTES)
        counted, wanted = kernel["counted_read"] + kernel["counted_written"], kernel["read"] + kernel["written"]
        kernel["ratio"] = round(counted / wanted, 4)
        kernel["judged"] = wanted >= LARGE * planned["cache"]
    return list(planned["kernels"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--commit", default="unknown", help="the commit that is measured, for the record")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", nargs=3, metavar=("NAME", "FUSE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.work[1], Path(options.work[2]))
        return
    counters.require_ncu()
    record: dict[str, Any] = {"commit": options.commit, "date": datetime.now(UTC).isoformat(timespec="seconds"),
                              "unit": "bytes", "cases": {}}
    for name in options.only.split(","):
        record["cases"][name] = {"shape": CASES[name].shape, "plans": {}}
        for fuse in CASES[name].fuse:
            record["cases"][name]["plans"][fuse] = kernels = profile(name, fuse)
            for k in kernels:
                planned, counted = k["read"] + k["written"], k["counted_read"] + k["counted_written"]
                print(f"{name:24} {fuse:8} {k['chain']:24} planned {planned:>15,} counted {counted:>15,} ratio {k['ratio']:.3f}"
                      f"{'' if k['judged'] else ' (small)'}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
