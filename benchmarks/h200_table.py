"""What h200.py's times are judged by, its table, and its file: python benchmarks/h200_table.py FILE prints the table again.

In: a case's times, its graph and fusec's plans. Out: ratios to the best peer of the same run and to fixed peer times, the floor
of an H200 and the fraction of it reached, the schedules chosen; lines of text; a record that grows network by network.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from cases import PEERS, SIZED, Case, launched  # noqa: E402

from fusec.pipeline import Generated  # noqa: E402
from fusec.plan.cost import layer_multiply_adds  # noqa: E402

OPERATIONS = {"float32": 66.9e12, "float16": 790e12}  # a second on an H200: its cores' (data sheet); a large product, measured
BANDWIDTH = 4.3e12  # bytes a second: a large copy in an H200's memory, read and written, measured
ELEMENT = {"float32": 4, "float16": 2}
TOLERANCE = 2e-3  # relative error of half precision


@dataclass(frozen=True)
class Target:
    """A peer's time in milliseconds measured once in float16, and how many times faster fusec must be, and reaches to be."""

    peer: float
    must: float
    reach: float


TARGETS = {  # the best of torch.compile (max-autotune) and XLA; of the last two networks cuDNN
    "artcnn_c4f16_1080p": Target(0.840, 4, 8),
    "artcnn_c4f32_1080p": Target(1.19, 2.5, 4),
    "fsrcnn_1080p": Target(3.15, 8, 20),
    "mnist4_b10000": Target(0.667, 5, 12),
    "lenet5_b10000": Target(0.690, 5, 12),
    "mbv1_head_b32": Target(0.167, 2.5, 5),
    "mbv2_b24_b32": Target(0.080, 2, 4),
    "resnet_stem_b8": Target(0.078, 1.5, 3),
    "vgg2_b8": Target(0.149, 1.2, 2),
    "vgg5_b8": Target(0.259, 1.0, 1.4),
    "alexnet2_b32": Target(0.299, 1.5, 3),
    "srvgg_720p": Target(7.84, 1.5, 3),
    "dncnn_1080p": Target(12.8, 1.5, 3),
}


def floor(case: Case, dtype: str) -> dict[str, Any]:
    """What no way of running a case can go below: its operations at full rate, or its input and output through memory."""
    graph, (batch, _, height, width) = case.graph(), case.shape
    sizes = graph.sizes(height, width)
    operations = sum(2 * layer_multiply_adds(graph, node, sizes[node.name], batch) for node in graph.layers)
    border = [*(n.name for n in graph.inputs), *graph.outputs]
    moved = sum(ELEMENT[dtype] * batch * graph.shapes[name].channels * math.prod(sizes[name]) for name in border)
    seconds = {"operations": operations / OPERATIONS[dtype], "memory": moved / BANDWIDTH}
    bound = max(seconds, key=lambda what: seconds[what])
    return {"operations": operations, "bytes": moved, "bound": bound, "ms": 1e3 * seconds[bound]}


def schedules(generated: Generated, shape: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    """The launches of a build at a shape: of every chain the variant that runs."""
    return [{"chain": step.launch.label, "tile": step.variant.tile, "step": schedule.step,
             "execution": schedule.execution.value, "threads": step.variant.threads, "tiles": step.tiles,
             "scratch_bytes": generated.program.element * step.variant.scratch}
            for schedule, step in launched(generated, shape)]


def judge(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The ratios of a case whose `ms` and `floor` are known; no more than what was measured allows."""
    ms, found = row["ms"], dict[str, Any]()
    peers = {peer: ms[peer] for peer in PEERS if peer in ms}
    best = min(peers, key=lambda peer: peers[peer], default=None)
    if best is not None:
        found["best_peer"] = best
    if "auto" not in ms:
        return found
    found["of_floor"] = row["floor"]["ms"] / ms["auto"]
    builds = [ms[build] for build in ("none", "all") if build in ms]
    if builds:
        found["best_other_build_to_auto"] = min(builds) / ms["auto"]
    if best is not None:
        found["speedup"] = peers[best] / ms["auto"]
    if target := TARGETS.get(name):
        found |= {"must": target.must, "reach": target.reach, "speedup_over_fixed": target.peer / ms["auto"]}
    return found


def lines(name: str, row: Mapping[str, Any]) -> Iterator[str]:
    """A case in words: times, ratios, the floor, errors, the chosen schedules."""
    judged, limit = row["judged"], row["floor"]
    yield f"{name}: " + ", ".join(f"{engine} {ms:.4f}" for engine, ms in row["ms"].items()) + " ms"
    ratios = []
    if "speedup" in judged:
        ratios.append(f"best peer {judged['best_peer']}, {judged['speedup']:.2f} times auto{_verdict(judged, 'speedup')}")
    if "speedup_over_fixed" in judged:
        ratios.append(f"fixed peer {TARGETS[name].peer:g} ms, {judged['speedup_over_fixed']:.2f} times auto"
                      f"{_verdict(judged, 'speedup_over_fixed')}")
    yield from (f"    {text}" for text in ratios)
    reached = f", {100 * judged['of_floor']:.1f} % reached" if "of_floor" in judged else ""
    yield f"    floor {limit['ms']:.4f} ms by {limit['bound']} ({limit['operations'] / 1e9:.1f} Gop, " \
          f"{limit['bytes'] / 1e6:.1f} MB){reached}"
    yield "    error " + ", ".join(f"{engine} {_error(found)}" for engine, found in row["error"].items())
    for launch in row["plans"].get("auto", ()):
        step = f", steps of {launch['step']}" if launch["step"] else ""
        yield f"    {launch['chain']}: tile {'x'.join(map(str, launch['tile']))}{step}, {launch['execution']}, " \
              f"{launch['threads']} threads, {launch['scratch_bytes'] / 1024:.0f} KiB of scratch, {launch['tiles']} tiles"


def _verdict(judged: Mapping[str, Any], key: str) -> str:
    if "must" not in judged:
        return ""
    return "".join(f"; {word} {judged[word]:g}: {'yes' if judged[key] >= judged[word] else 'no'}" for word in ("must", "reach"))


def _error(found: float | str) -> str:
    if isinstance(found, str):
        return f"FAILED ({found.splitlines()[0][:100]})"
    return f"{found:.1e}" + (f" (above {TOLERANCE:g})" if found > TOLERANCE else "")


COLUMNS = ("network", "best peer", "ms", "auto", "sized", "all", "none", "ratio", "fixed", "must", "reach", "floor", "of floor")


def table(cases: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One line a network: milliseconds; ratios of the best peer here, and of the fixed peer time, to auto."""
    yield "{:20}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}{:>8}{:>6}{:>6}{:>9}{:>9}".format(*COLUMNS)
    for name, row in cases.items():
        ms, judged = row["ms"], row["judged"]
        peer = judged.get("best_peer")
        times = "".join(f"{_number(ms.get(engine), 4):>9}" for engine in (peer, "auto", SIZED, "all", "none"))
        ratios = f"{_number(judged.get('speedup'), 2):>8}{_number(judged.get('speedup_over_fixed'), 2):>8}"
        wanted = "".join(f"{_number(judged.get(word), 1):>6}" for word in ("must", "reach"))
        reached = f"{100 * judged['of_floor']:.1f} %" if "of_floor" in judged else "-"
        yield f"{name:20}{peer or '-':>10}{times}{ratios}{wanted}{row['floor']['ms']:>9.4f}{reached:>9}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


SAME = ("commit", "gpu", "dtype", "turns", "torch", "cudnn", "cupy")  # of records whose networks may stand in one file


def merged(path: Path | None, record: dict[str, Any]) -> dict[str, Any]:
    """A new record with the networks that FILE already has, if they are of the same commit, device and libraries."""
    old = json.loads(path.read_text()) if path is not None and path.exists() else {}
    if old.get("commit") == "unknown" or any(old.get(key) != record[key] for key in SAME):
        return record
    return record | {"cases": old["cases"]}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    cases = json.loads(Path(sys.argv[1]).read_text())["cases"]
    for name, row in cases.items():
        print(*lines(name, row), sep="\n")
    print(*table(cases), sep="\n")


if __name__ == "__main__":
    main()
