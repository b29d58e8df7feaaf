"""Lockfiles: the same plan comes back, whatever the planner has become, and what does not fit is refused at its place."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fusec
from fusec import pipeline
from fusec.errors import InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import simplify
from fusec.pipeline import PlannedChain
from fusec.plan import partition, search, timing
from fusec.plan.cost import Nominal
from fusec.plan.lock import Decision, Scope, lock_of, scope_of, signature_of, unlock
from fusec.plan.lock_file import read_lock, text_of
from fusec.plan.search import Planned
from fusec.schedule.ir import Chain, Schedule, Tile
from fusec.schedule.show import show
from fusec.targets.device import DEVICES, MIB, Device, device_for_gpu, generic_host
from fusec.version import VERSION
from tests.small_networks import conv, max_pool, network
from tests.strategies import integer_graphs, sizes
from tests.strategies_schedule import PLANNED, PLANNED_DEVICES, partitions, schedules

H200, CPU = DEVICES["h200"], generic_host()
SCOPE = Scope(VERSION, "net", "0123abcd", "cpu", "cpu", "some caches", 4, "linux-x", "float32")


def flat(value: object) -> object:
    """A schedule's every field as plain values, layers by name."""
    if isinstance(value, Schedule):
        return [flat(value.tile), value.overlap, value.execution, value.step, [flat(s) for s in value.stages]]
    if hasattr(value, "__dataclass_fields__"):
        return [(f.name, flat(getattr(value, f.name))) for f in fields(value) if f.name != "node"]  # type: ignore[arg-type]
    return [flat(v) for v in value] if isinstance(value, tuple) else value


# ---- round trip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_plan_comes_back_from_its_text(data: st.DataObject, tmp_path: Path) -> None:
    """Random networks, partitions, tiles, staging and variants, on every kind of device."""
    graph = simplify(data.draw(integer_graphs(5, max_channels=12, max_extent=16))).graph
    assume(graph.layers)
    device = data.draw(st.sampled_from(PLANNED_DEVICES))
    chains = []
    for chain in data.draw(partitions(graph)):
        made = [data.draw(schedules(chain, (device,), PLANNED)) for _ in range(data.draw(st.integers(1, 2)))]
        counts = data.draw(st.lists(st.integers(1, 9), min_size=len(made) - 1, max_size=len(made) - 1))
        tiles = data.draw(st.lists(st.none() | st.integers(1, 99), min_size=len(made), max_size=len(made)))
        assume(all(s.scratch_elements * 4 <= device.scratch_per_block for s in made) or device.target == "cpu")
        chains.append((chain, tuple(map(Planned, made, [*counts, 0], tiles))))
    nominal = Nominal(data.draw(st.sampled_from([(8, 1), (3,)])), *data.draw(sizes(graph, 20)))
    lock = lock_of(scope_of(graph, device, "some-arch", "float32"), nominal, chains)
    path = tmp_path / "net.lock"
    path.write_text(text_of(lock, ["a remark"]), encoding="utf-8")
    read = read_lock(path)
    assert read == lock
    assert text_of(read, ["a remark"]) == path.read_text("utf-8")
    back = unlock(read, graph, device)
    assert [c.names for c, _ in back] == [c.names for c, _ in chains]
    for (_, wanted), (_, found) in zip(chains, back, strict=True):
        assert [(p.min_blocks, p.tiles) for p in found] == [(p.min_blocks, p.tiles) for p in wanted]
        for one, other in zip(wanted, found, strict=True):
            assert flat(other.schedule) == flat(one.schedule)
            assert show(other.schedule) == show(one.schedule)


@given(name=st.text(min_size=1, max_size=20))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_comes_back(name: str, tmp_path: Path) -> None:
    assume(not any(0xD800 <= ord(c) < 0xE000 for c in name))  # no text file holds half a character
    check_name(name, tmp_path)


def check_name(name: str, folder: Path) -> None:
    lock = lock_of(replace(SCOPE, network=name), Nominal((4, 1), 5, None), ())
    (folder / "a.lock").write_text(text_of(lock, [name]), encoding="utf-8")
    assert read_lock(folder / "a.lock") == lock


@pytest.mark.parametrize("name", ["null", "True", "1e5", "0123", "- a", "a: b", "#", '"', "\\", "{}", "~", "x\x07\x85\u2028"])
def test_names_that_mean_something_in_yaml(name: str, tmp_path: Path) -> None:
    check_name(name, tmp_path)


@pytest.mark.parametrize("device", [CPU, H200], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ["lenet5", "fsrcnn_x2", pytest.param("mobilenet_v2", marks=pytest.mark.thorough)])
def test_the_source_does_not_depend_on_the_planner(name: str, device: Device, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner with other constants plans otherwise, but makes the same of a lockfile, byte for byte."""
    graph = pipeline.read(name, missing="random")
    planned = pipeline.plan(graph, device)
    wanted = pipeline.generate(planned)
    path = tmp_path / "net.lock"
    path.write_text(text_of(pipeline.to_lock(planned)), encoding="utf-8")
    monkeypatch.setattr(partition, "doubt_of", lambda device: 2.0)
    for constant in ("CPU_EFFICIENCY", "WAITING_LOSS", "BLOCK_LATENCY", "STAGE_LATENCY", "CPU_STAGE", "ROW_COST"):
        monkeypatch.setattr(timing, constant, 9 * getattr(timing, constant))
    monkeypatch.setattr(search, "CHANNEL_TILES", (4,))
    monkeypatch.setattr(search, "IMAGE_TILES", (1,))
    assert pipeline.generate(pipeline.plan(graph, device)).sources != wanted.sources
    made = pipeline.generate(pipeline.plan(graph, device, locked=path))
    assert made.sources == wanted.sources
    assert made.program == wanted.program


# ---- refusals


@pytest.fixture
def net() -> LayerGraph:
    return network(L.Input(2, 8, 8), a=conv(4), b=conv(4), pool=max_pool(2, 2))


def locked(graph: LayerGraph, tmp_path: Path, device: Device = CPU, **edits: str) -> Path:
    """The lockfile of two chains, a and b with pool, with some text put in place of other text."""
    chains = (Chain(graph, ("a",)), Chain(graph, ("b", "pool")))
    made = [(c, (Planned(Decision(Tile(1, 4, 4, 4), c.inputs).schedule(c, device), 0, 4),)) for c in chains]
    plan = pipeline.plan(graph, device)
    text = text_of(pipeline.to_lock(replace(plan, chains=tuple(PlannedChain(*item) for item in made))))
    for old, new in edits.items():
        text = text.replace(WORDS[old], new)
        assert new in text
    path = tmp_path / "net.lock"
    path.write_text(text, encoding="utf-8")
    return path


ROW = "    variants:\n      - {tile: [1, 4, 4, 4], staged: [%s], step: null, min_blocks: 0, tiles: 4}\n"
FIRST, SECOND = "  - layers: [a]\n" + ROW % "x", "  - layers: [b, pool]\n" + ROW % "a"
WORDS = {"first": FIRST, "second": SECOND, "both": FIRST + SECOND, "names": "[b, pool]", "tile": "[1, 4, 4, 4]",
         "staged": "staged: [a]", "step": "step: null", "limit": "min_blocks: 0", "tiles": "tiles: 4",
         "version": f'"{VERSION}"', "dtype": "float32", "target": "target: cpu", "named": "device: cpu",
         "machine": CPU.machine, "cores": "cores: 2",
         "batches": "[1024, 1]", "form": "format: 2", "height": "height: null"}


def test_the_text_is_as_expected(net: LayerGraph, tmp_path: Path) -> None:
    """One decision on a line, and all places of the edits below exist."""
    text = locked(net, tmp_path).read_text("utf-8")
    assert [word for word in WORDS.values() if word not in text] == []


def test_a_legal_edit_is_obeyed(net: LayerGraph, tmp_path: Path) -> None:
    planned = pipeline.plan(net, CPU, locked=locked(net, tmp_path, second=SECOND.replace("4, 4]", "2, 4]")))
    assert [str(c.variants[0].schedule.tile) for c in planned.chains] == ["1x4x4x4", "1x4x2x4"]


@pytest.mark.parametrize(("edits", "line", "said"), [
    ({"version": '"9.9"'}, 4, f"for fusec 9.9, but here is fusec {VERSION} (`fusec tune` makes"),
    ({"dtype": "float16"}, 12, "for dtype float16, but here is dtype float32"),
    ({"target": "target: cuda"}, 7, "for target cuda, but here is target cpu"),
    ({"named": "device: h200"}, 8, "for device h200, but here is device cpu"),
    ({"machine": "1 KiB of cache"}, 9, f"for machine 1 KiB of cache, but here is machine {CPU.machine} (`fusec tune` makes"),
    ({"cores": "cores: 64"}, 10, "for a device of 64 cores, but here is a device of 2 cores"),
    ({"cores": "cores: 0"}, 10, "'cores'"),
    ({"form": "format: 1"}, 3, "has format 1, but this fusec reads 2"),
    ({"form": "format: one"}, 3, "has format 'one', but this fusec reads 2"),
    ({"names": "[b, pol]"}, 20, "the network has no layer 'pol' (did you mean 'pool'?)"),
    ({"names": "[b, pool, a]"}, 20, "layer 'a' has a chain already"),
    ({"names": "[b]"}, 16, "layer 'pool' is in no chain"),
    ({"names": "[pool, b]"}, 20, "'pool' comes before 'b', which it reads"),
    ({"names": "[]"}, 20, "'layers'"),
    ({"both": SECOND + FIRST}, 17, "'b' comes before 'a', which it reads"),
    ({"first": FIRST.replace("[a]", "[a, pool]"), "second": SECOND.replace("[b, pool]", "[b]")}, 17, "cannot be one chain"),
    ({"staged": "staged: [b]"}, 22, "'b' cannot be staged: chain b..pool does not read it from outside (it reads a)"),
    ({"tile": "[1, 3, 4, 4]"}, 19, "tile 1x3x4x4 of chain a is illegal: a tile of 3 channels does not divide"),
    ({"tile": "[1, 4, 4]"}, 19, "'tile'"),
    ({"tile": "[0, 4, 4, 4]"}, 19, "'tile'"),
    ({"tile": "[1, 4, 4, four]"}, 19, "not 'four' (tile: [images, channels, height, width])"),
    ({"tile": "[1048576, 4, 8, 8]"}, 19, "is too large"),
    ({"step": "step: 0"}, 19, "'step'"),
    ({"step": "step: 3"}, 19, "tile 1x4x4x4 of chain a is illegal: steps of 3 rows do not divide a strip of 4"),
    ({"limit": "min_blocks: 3"}, 19, "min_blocks is 3 in the last variant"),
    ({"limit": "min_blocks: -1"}, 19, "'min_blocks'"),
    ({"tiles": "tiles: 0"}, 19, "'tiles'"),
    ({"tiles": "tile: 4"}, 19, "duplicate key 'tile'"),
    ({"tiles": "tails: 4"}, 19, "unknown key 'tails' (did you mean 'tiles'?)"),
    ({"batches": "[1, 1024]"}, 13, "'batches' do not fall"),
    ({"batches": "many"}, 13, "'batches'"),
    ({"height": "height: 1 2: 3"}, 14, "not valid YAML"),
])
def test_what_does_not_fit_is_refused_at_its_place(edits: dict[str, str], line: int, said: str, net: LayerGraph,
                                                    tmp_path: Path) -> None:
    path = locked(net, tmp_path, **edits)
    with pytest.raises(InputError) as caught:
        pipeline.plan(net, CPU, locked=path)
    found = [p for p in caught.value.problems if said in str(p) and p.where.startswith(f"{path}:{line}:")]
    assert found, str(caught.value)


def test_every_difference_at_once(net: LayerGraph, tmp_path: Path) -> None:
    path = locked(net, tmp_path, version='"9.9"', dtype="float16")
    with pytest.raises(InputError) as caught:
        pipeline.plan(net, H200, locked=path)
    said = str(caught.value)
    assert [w for w in ("fusec 9.9", "float16", "device cpu, but here is device h200", "arch", "target") if w not in said] == []


PCIE = device_for_gpu("NVIDIA H100 PCIe", "sm_90", 114)
BESIDE = replace(DEVICES["h200"], board="NVIDIA H200")


@pytest.mark.parametrize(("made_for", "here", "said"), [
    (PCIE, BESIDE, ["for machine NVIDIA H100 PCIe, but here is machine NVIDIA H200",
                    "for a device of 114 cores, but here is a device of 132 cores"]),
    (PCIE, H200, ["for a device of 114 cores, but here is a device of 132 cores"]),
    (replace(BESIDE, board="NVIDIA GH200"), BESIDE, ["for machine NVIDIA GH200, but here is machine NVIDIA H200"]),
    (CPU, replace(CPU, cores=7), ["for a device of 2 cores, but here is a device of 7 cores"]),
    (CPU, replace(CPU, cache=9 * MIB), ["for machine 1024 KiB of cache per core, 32768 KiB shared, but here is machine 1024 "
                                        "KiB of cache per core, 9216 KiB shared"]),
    (CPU, replace(CPU, scratch_per_core=2 * MIB), ["but here is machine 2048 KiB of cache per core"])])
def test_a_lock_of_another_machine(made_for: Device, here: Device, said: list[str], net: LayerGraph, tmp_path: Path) -> None:
    """Of the same name and architecture; the difference is named."""
    path = locked(net, tmp_path, made_for)
    assert pipeline.plan(net, made_for, locked=path).chains
    with pytest.raises(InputError) as caught:
        pipeline.plan(net, here, locked=path)
    assert len(caught.value.problems) == len(said)
    for problem, words in zip(caught.value.problems, said, strict=True):
        assert words in problem.what


def test_a_gpu_that_is_only_named_takes_the_lock_of_a_real_one(net: LayerGraph, tmp_path: Path) -> None:
    assert pipeline.plan(net, H200, locked=locked(net, tmp_path, BESIDE)).chains
    assert pipeline.plan(net, BESIDE, locked=locked(net, tmp_path, H200)).chains


def test_another_network(net: LayerGraph, tmp_path: Path) -> None:
    other = network(L.Input(2, 8, 8), a=conv(4), b=conv(4, 5), pool=max_pool(2, 2))
    with pytest.raises(InputError, match=r"is for network 'small' of structure .*, but here is network 'small' of structure"):
        pipeline.plan(other, CPU, locked=locked(net, tmp_path))


@pytest.mark.parametrize("alike", [0, 11, 12, 40, 63])
def test_the_digits_shown_of_two_structures_differ(alike: int, net: LayerGraph, tmp_path: Path) -> None:
    """An edited signature may differ from the network's in its last digits alone."""
    path = locked(net, tmp_path)
    text = path.read_text("utf-8")
    mine = re.search("signature: \"?([0-9a-f]{64})", text)[1]  # type: ignore[index]
    edited = mine[:alike] + ("0" if mine[alike] != "0" else "1") + mine[alike + 1:]
    path.write_text(text.replace(mine, edited), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        pipeline.plan(net, CPU, locked=path)
    one, other = re.findall(r"of structure ([0-9a-f]+)", str(caught.value))
    assert one != other
    assert (mine[:len(one)], edited[:len(other)]) in ((one, other), (other, one))


def test_a_gpu_without_enough_scratch(tmp_path: Path) -> None:
    graph = network(L.Input(64, 64, 64), a=conv(4), b=conv(4), pool=max_pool(2, 2))
    with pytest.raises(InputError, match=r"net.lock:19:\d+: tile 1x4x64x64 of chain a is illegal: .*scratch"):
        pipeline.plan(graph, H200, locked=locked(graph, tmp_path, H200, tile="[1, 4, 64, 64]"))


@pytest.mark.parametrize(("height", "said"), [("null", "has an open size"), ("2", "the image is too small")])
def test_sizes_that_do_not_fit(height: str, said: str, tmp_path: Path) -> None:
    graph = network(L.Input(2), a=conv(4, pad=0))
    path = tmp_path / "net.lock"
    text = text_of(pipeline.to_lock(pipeline.plan(graph, CPU, shape=(1, 2, 16, 16))))
    path.write_text(text.replace("height: 16", f"height: {height}"), encoding="utf-8")
    with pytest.raises(InputError, match=rf"net.lock:\d+:1: the sizes it was made for do not fit: .*{said}"):
        pipeline.plan(graph, CPU, locked=path)


def test_an_earlier_variant_that_always_runs(net: LayerGraph, tmp_path: Path) -> None:
    [row] = [line + "\n" for line in FIRST.splitlines() if "tile" in line]
    with pytest.raises(InputError, match="min_blocks is 0 in an earlier variant"):
        pipeline.plan(net, CPU, locked=locked(net, tmp_path, first=FIRST + row))


@pytest.mark.parametrize(("counts", "said"), [
    ((9, 4, 0), None), ((9, 9, 0), "min_blocks is 9 behind a variant with 9"),
    ((4, 9, 0), "min_blocks is 9 behind a variant with 4"), ((9, 3, 5, 0), "min_blocks is 5 behind a variant with 3")])
def test_variants_want_fewer_tiles_one_after_the_other(counts: tuple[int, ...], said: str | None, net: LayerGraph,
                                                       tmp_path: Path) -> None:
    [row] = [line + "\n" for line in FIRST.splitlines() if "tile" in line]
    rows = "".join(row.replace("min_blocks: 0", f"min_blocks: {n}") for n in counts)
    path = locked(net, tmp_path, first=FIRST.replace(row, rows))
    if said is None:
        assert [v.min_blocks for v in pipeline.plan(net, CPU, locked=path).chains[0].variants] == list(counts)
    else:
        with pytest.raises(InputError, match=said):
            pipeline.plan(net, CPU, locked=path)


def test_a_locked_schedule_is_verified_once(net: LayerGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = locked(net, tmp_path), list[str]()
    for place in ("fusec.pipeline.verify", "fusec.plan.lock.verify"):
        monkeypatch.setattr(place, lambda schedule, device: seen.append(str(schedule.chain)))
    pipeline.plan(net, CPU, locked=path)
    assert seen == ["a", "b..pool"]
    seen.clear()
    planned = pipeline.plan(net, CPU)
    assert seen == [str(c.chain) for c in planned.chains for _ in c.variants]


@pytest.mark.parametrize(("text", "said"), [("", "the file is empty (a lockfile is what"), ("- a\n", "a lockfile is a mapping"),
                                            ("{", "not valid YAML"), ("a: &b 1\n", "anchors"), ("\xff", "not UTF-8"),
                                            ("chains:\n  - [a, b\n  - c: d\n", "is the bracket opened at 2:5 closed?"),
                                            ("a:\n- b:\n  - c: {t: [1, 2, s: [[x]], m: 0}\n", "Open here: 3:8, 3:12)"),
                                            ("format: 2\n", "a lockfile needs 'chains'")])
def test_damaged_files(text: str, said: str, net: LayerGraph, tmp_path: Path) -> None:
    (tmp_path / "net.lock").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        pipeline.plan(net, CPU, locked=tmp_path / "net.lock")
    assert said in str(caught.value)
    assert str(tmp_path / "net.lock") in str(caught.value)


def test_no_file(net: LayerGraph, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such lockfile"):
        pipeline.plan(net, CPU, locked=tmp_path / "none.lock")
    with pytest.raises(InputError, match="directory"):
        pipeline.plan(net, CPU, locked=tmp_path)


def test_the_signature_is_of_the_structure_alone(net: LayerGraph) -> None:
    same = network(L.Input(2, 8, 8), one=conv(4), two=conv(4), three=max_pool(2, 2))
    assert signature_of(same) == signature_of(net)
    others = [network(L.Input(2, 8, 9), a=conv(4), b=conv(4), pool=max_pool(2, 2)),
              network(L.Input(2, 8, 8), a=conv(4), b=conv(4), pool=(max_pool(2, 2), "a")),
              network(L.Input(2, 8, 8), ["pool", "a"], a=conv(4), b=conv(4), pool=max_pool(2, 2)),
              network(L.Input(2, 8, 8), a=conv(4), b=conv(4, stride=2), pool=max_pool(2, 2))]
    assert len({signature_of(g) for g in (net, *others)}) == 5


def test_compile_takes_a_lockfile_or_a_way_to_fuse(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a lockfile decides"):
        fusec.compile("lenet5", target="cpu", fuse="none", locked=tmp_path / "x.lock")
