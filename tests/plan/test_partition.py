"""Cutting networks into chains: what is legal, what is asked for, and what dynamic programming finds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import networkx as nx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusec.errors import Infeasible, InputError
from fusec.graph import layers as L
from fusec.graph.graph import LayerGraph
from fusec.graph.simplify import simplify
from fusec.plan.cost import Nominal, cost, nominal_for
from fusec.plan.partition import (
    LONGEST_CHAIN,
    Prices,
    cheapest,
    closed,
    depth_first,
    doubt_of,
    is_chain,
    partition,
    signature,
)
from fusec.plan.search import Planned, plan, variants
from fusec.schedule.ir import Chain
from fusec.targets.device import DEVICES, Device, generic_host
from tests.plan.networks import SHIPPED, Net, fire, inverted, residual, shipped, unet, vgg_prefix
from tests.strategies import float_graphs, sizes

H200, T4, CPU = DEVICES["h200"], DEVICES["t4"], generic_host()


def names(chains: tuple[Chain, ...]) -> list[tuple[str, ...]]:
    return [c.names for c in chains]


def check(graph: LayerGraph, chains: tuple[Chain, ...]) -> None:
    """Every layer once, every chain legal, every tensor made before it is read."""
    assert sorted(n for c in chains for n in c.names) == sorted(n.name for n in graph.layers)
    made = {n.name for n in graph.inputs}
    for chain in chains:
        assert is_chain(graph, chain.names) is None
        assert set(chain.inputs) <= made
        assert not set(chain.names[:-1]) & set(graph.outputs)
        made.add(chain.output)
    assert set(graph.outputs) <= made


class TestLegality:
    def test_a_residual_block_is_a_chain_and_its_parts_are_not(self) -> None:
        graph = residual()
        assert is_chain(graph, ("a1", "a2", "down", "add1")) is None
        assert is_chain(graph, ("a1", "a2", "add1")) is None  # the projection is read from outside
        assert is_chain(graph, ("b1", "b2", "add2")) is None
        assert is_chain(graph, ("stem", "a1")) == "tensor 'stem' leaves it, read by 'down'"
        assert is_chain(graph, ("add1", "b1", "b2")) == "tensor 'add1' leaves it, read by 'add2'"
        reason = is_chain(graph, ("stem", "a1", "a2", "add1"))
        assert reason == "tensor 'stem' leaves it, read by 'down', which 'add1' needs in turn"

    def test_a_fire_module(self) -> None:
        graph = fire()
        assert is_chain(graph, ("squeeze", "expand1", "expand3", "join", "classify", "pool")) is None
        assert is_chain(graph, ("expand1", "expand3", "join")) is None
        assert "'squeeze' leaves it, read by 'expand3'" in str(is_chain(graph, ("squeeze", "expand1")))
        assert "'expand1' leaves it, read by 'join'" in str(is_chain(graph, ("expand1", "expand3")))

    def test_inverted_residuals(self) -> None:
        graph = inverted(2)
        assert is_chain(graph, ("expand0", "depthwise0", "project0", "add0")) is None
        assert is_chain(graph, tuple(n.name for n in graph.layers)) is None
        assert "'add0' leaves it, read by 'add1'" in str(is_chain(graph, ("add0", "expand1")))

    def test_a_tensor_the_network_returns_leaves_the_chain(self) -> None:
        net = Net(4)
        net.conv("first", 4)
        net.conv("second", 4)
        graph = net.graph("first", "second")
        assert is_chain(graph, ("first", "second")) == "tensor 'first' leaves it, as an output of the network"
        assert is_chain(graph, ("second",)) is None

    def test_layers_that_do_not_belong_together(self) -> None:
        net = Net(4)
        net.conv("left", 4)
        net.conv("right", 4, 3, 1, "input")
        assert "'left' leaves it, as an output" in str(is_chain(net.graph(), ("left", "right")))
        assert is_chain(net.graph("right"), ("left", "right")) == "'left' is needed by no other layer of it"
        assert is_chain(net.graph(), ()) == "it has no layers"
        assert is_chain(net.graph(), ("left", "input")) == "'input' is no layer of the network"

    @given(graph=float_graphs(6, max_channels=4, max_extent=12), data=st.data())
    def test_against_the_definition(self, graph: LayerGraph, data: st.DataObject) -> None:
        """Convex, connected, one output, every member needed: each checked by reachability."""
        layers = [n.name for n in graph.layers]
        inside = data.draw(st.sets(st.sampled_from(layers), min_size=1, max_size=5))
        ordered = [n for n in layers if n in inside]
        part = graph.digraph.subgraph(inside)
        leaving = [n for n in ordered if n in graph.outputs or any(r not in inside for r in graph.digraph.successors(n))]
        needed = inside == {ordered[-1], *nx.ancestors(part, ordered[-1])}
        convex = not any(nx.has_path(graph.digraph, o, m) for n in inside for o in set(graph.digraph.successors(n)) - inside
                         for m in inside)
        legal = needed and convex and nx.is_weakly_connected(part) and set(leaving) <= {ordered[-1]}
        assert (is_chain(graph, inside) is None) == legal


class TestOrder:
    def test_branches_stay_together(self) -> None:
        """However the description mixes them, each branch is an interval."""
        net = Net(8)
        net.conv("left1", 8)
        net.conv("right1", 8, 3, 1, "input")
        net.conv("left2", 8, 3, 1, "left1")
        net.conv("right2", 8, 3, 1, "right1")
        net("join", L.Concat(), "left2", "right2")
        graph = net.graph()
        assert depth_first(graph) == ("left1", "left2", "right1", "right2", "join")
        assert closed(graph, ("right1", "right2"))

    @given(graph=float_graphs(8, max_channels=4, max_extent=12))
    def test_it_is_topological_and_complete(self, graph: LayerGraph) -> None:
        order = depth_first(graph)
        position = {n: i for i, n in enumerate(order)}
        assert sorted(order) == sorted(n.name for n in graph.layers)
        assert all(position[t] < position[n.name] for n in graph.layers for t in n.inputs if t in position)

    @given(graph=float_graphs(6, max_channels=4, max_extent=12))
    def test_the_quick_test_of_intervals_agrees(self, graph: LayerGraph) -> None:
        order = depth_first(graph)
        for start, end in combinations(range(len(order) + 1), 2):
            assert closed(graph, order[start:end]) == (is_chain(graph, order[start:end]) is None)

    def test_long_networks_do_not_exhaust_the_stack(self) -> None:
        net = Net(1)
        for i in range(3000):
            net(f"relu{i}", L.Relu())
        assert len(depth_first(net.graph())) == 3000


def cuts(count: int) -> Iterator[list[int]]:
    """Every way to cut [0, count) into intervals, as their ends."""
    for bits in range(1 << (count - 1)):
        yield [i + 1 for i in range(count - 1) if bits >> i & 1] + [count]


class TestDynamicProgramming:
    @settings(max_examples=150)
    @given(count=st.integers(1, 8), batches=st.integers(1, 2), data=st.data())
    def test_equals_exhaustive_search(self, count: int, batches: int, data: st.DataObject) -> None:
        value = st.integers(1, 30).map(float)
        table = {(i, j): data.draw(st.tuples(*[value] * batches) if j == i + 1 else st.none() | st.tuples(*[value] * batches))
                 for i, j in combinations(range(count + 1), 2)}
        singles = [table[i, i + 1] for i in range(count)]
        totals = [sum(s[b] for s in singles if s) for b in range(batches)]

        def price(ends: list[int]) -> float | None:
            """Of a whole cut, or None where it uses an interval it must not."""
            total = 0.0
            for i, j in pairwise([0, *ends]):
                seconds = table[i, j]
                if seconds is None or any(s > sum(t[b] for t in singles[i:j] if t) for b, s in enumerate(seconds)):
                    return None
                total += sum(s / t for s, t in zip(seconds, totals, strict=True))
            return total

        least = min(p for p in map(price, cuts(count)) if p is not None)
        found = price(cheapest(count, lambda i, j: table[i, j]))
        assert found == pytest.approx(least)

    def test_nothing_to_cut(self) -> None:
        assert cheapest(0, lambda i, j: (1.0,)) == []

    @settings(max_examples=15)
    @given(data=st.data())
    def test_of_random_networks_equals_exhaustive_search_under_the_cost_model(self, data: st.DataObject) -> None:
        graph = simplify(data.draw(float_graphs(5, max_channels=24, max_extent=32))).graph
        order = depth_first(graph)
        assume(1 <= len(order) <= 8)
        nominal = Nominal((data.draw(st.sampled_from([1, 300])),), *data.draw(sizes(graph)))
        device = data.draw(st.sampled_from([H200, T4, CPU]))
        seconds: dict[tuple[str, ...], float] = {}
        for start, end in combinations(range(len(order) + 1), 2):
            part = order[start:end]
            if closed(graph, part):
                try:
                    schedule = plan(Chain(graph, part), device, nominal)
                    seconds[part] = cost(schedule, device, nominal).seconds * (doubt_of(device) if len(part) > 1 else 1)
                except Infeasible:
                    assert len(part) > 1
        alone = {part: sum(seconds[(n,)] for n in part) for part in seconds}
        totals = [sum(seconds[order[i:j]] for i, j in pairwise([0, *ends])) for ends in cuts(len(order))
                  if all(seconds.get(order[i:j], float("inf")) <= alone.get(order[i:j], 0) for i, j in pairwise([0, *ends]))]
        found = sum(seconds[c.names] for c in partition(graph, "auto", device, nominal=nominal))
        assert found == pytest.approx(min(totals))


class TestModes:
    @settings(max_examples=40)
    @given(data=st.data())
    def test_random_networks_are_cut_into_legal_chains(self, data: st.DataObject) -> None:
        graph = simplify(data.draw(float_graphs(8, max_channels=40, max_extent=40))).graph
        nominal = Nominal((data.draw(st.sampled_from([1, 50])),), *data.draw(sizes(graph)))
        device = data.draw(st.sampled_from([H200, T4, CPU]))
        found = {mode: partition(graph, mode, device, nominal=nominal) for mode in ("none", "all", "auto")}
        seconds = {}
        for mode, chains in found.items():
            check(graph, chains)
            seconds[mode] = sum(cost(plan(c, device, nominal), device, nominal).seconds for c in chains)
        assert len(found["none"]) == len(graph.layers)
        assert len(found["all"]) <= len(found["none"])
        assert seconds["auto"] <= seconds["none"] * (1 + 1e-9)

    def test_all_fuses_whole_networks_where_they_fit(self) -> None:
        for graph in (residual(), fire(), inverted(), vgg_prefix()):
            assert len(partition(graph, "all", H200, nominal=nominal_for(graph))) == 1
        graph = unet()
        assert len(partition(graph, "all", H200, nominal=Nominal((1,), 64, 64))) == 1

    def test_all_cuts_only_where_it_must(self) -> None:
        net = Net(64, 14, 14)
        net.conv("narrow", 64, 1)
        net.conv("wide", 4096)
        net.conv("last", 8)
        graph = net.graph()
        assert names(partition(graph, "all", T4, nominal=Nominal((1,)))) == [("narrow", "wide"), ("last",)]
        assert len(partition(graph, "all", H200, nominal=Nominal((1,)))) == 1

    def test_all_goes_around_a_branch_that_is_not_closed_yet(self) -> None:
        graph = residual()
        assert is_chain(graph, ("stem", "a1")) is not None
        assert names(partition(graph, "all", H200, nominal=Nominal((1,)))) == [tuple(depth_first(graph))]

    def test_auto_fuses_small_networks_and_leaves_large_layers_alone(self) -> None:
        net = Net(1, 28, 28)
        net.conv("conv1", 6)
        net.conv("conv2", 16, 3, 2)
        net.conv("conv3", 8)
        assert len(partition(net.graph(), "auto", H200, nominal=Nominal((1024, 1)))) == 1
        big = Net(512, 28, 28)
        big.conv("conv1", 512)
        big.conv("conv2", 512)
        assert len(partition(big.graph(), "auto", H200, nominal=Nominal((32, 1)))) == 2

    def test_auto_keeps_chains_short_enough_to_plan(self) -> None:
        net = Net(1, 8, 8)
        for i in range(40):
            net.conv(f"conv{i}", 2, 1)
        chains = partition(net.graph(), "auto", H200, nominal=Nominal((1,)))
        assert max(len(c.names) for c in chains) == LONGEST_CHAIN

    def test_equal_chains_are_planned_once(self) -> None:
        graph = inverted(3)
        prices = Prices(graph, depth_first(graph), H200, Nominal((4,)))
        first, known = prices(4, 8), len(prices._known)
        assert prices(8, 12) == first
        assert len(prices._known) == known

    def test_a_network_without_layers(self) -> None:
        graph = Net(3).graph()
        for mode in ("none", "all", "auto"):
            assert partition(graph, mode, H200, nominal=Nominal((1,), 8, 8)) == ()


class TestAsked:
    def cut(self, fuse: str, graph: LayerGraph | None = None, device: Device = H200) -> list[tuple[str, ...]]:
        graph = graph or residual()
        return names(partition(graph, fuse, device, nominal=Nominal((1,))))

    def test_ranges_and_the_rest_alone(self) -> None:
        assert self.cut("a1..add1, b1 .. add2") == [("stem",), ("a1", "a2", "down", "add1"), ("b1", "b2", "add2")]
        assert self.cut("a2") == [("stem",), ("a1",), ("a2",), ("down",), ("add1",), ("b1",), ("b2",), ("add2",)]

    def test_the_result_can_run(self) -> None:
        graph = residual()
        check(graph, partition(graph, "b1..add2,stem..add1", H200, nominal=Nominal((1,))))

    def test_names_of_the_description(self) -> None:
        """Activations and dropped layers stand for the node that took them in."""
        net = Net(3, 16, 16)
        net.conv("conv1", 8)
        net("relu1", L.Relu())
        net.conv("conv2", 8)
        net("drop", L.Identity())
        net("relu2", L.Relu())
        net("head", L.Linear(10))
        simple = simplify(net.graph())
        chains = partition(simple.graph, "relu1..relu2", H200, nominal=Nominal((1,)), absorbed=simple.absorbed)
        assert names(chains) == [("conv1", "conv2"), ("head",)]

    @pytest.mark.parametrize(("fuse", "message"), [
        ("stem..ad1", r"fuse: unknown layer 'ad1' \(did you mean 'add1'\?\)"),
        ("a1-add1", r"unknown layer 'a1-add1' \(ranges are written first\.\.last: a1\.\.add1\)"),
        ("stem : add2", r"ranges are written first\.\.last: stem\.\.add2"),
        ("a1-ad1", r"unknown layer 'a1-ad1' \(the layers are stem to \w+\)"),
        ("auo", r"unknown layer 'auo' \(did you mean 'auto'\?\)"),
        ("input..a1", "'input' is an input of the network, not a layer"),
        ("a1..a2,a2..add1", r"'a2\.\.add1' and 'a1\.\.a2' overlap"),
        ("add1..a1", r"'add1\.\.a1' runs backwards \(write a1\.\.add1\)"),
        ("a1..a2..add1", r"'a1\.\.a2\.\.add1' is no range"),
        ("", "a name is missing"),
        ("a1..", "a name is missing"),
        ("a1..add1,,b1", "a name is missing"),
        ("stem..a2", r"'stem\.\.a2' cannot be one chain: tensor 'stem' leaves it, read by 'down'"),
        ("a1..down", "tensor 'a2' leaves it, read by 'add1'"),
    ])
    def test_problems(self, fuse: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            self.cut(fuse)

    def test_every_problem_at_once(self) -> None:
        with pytest.raises(InputError) as caught:
            self.cut("nowhere, stem..a2, b2..b1")
        assert len(caught.value.problems) == 3

    def test_outputs_of_the_network(self) -> None:
        net = Net(4, 8, 8)
        net.conv("first", 4)
        net.conv("second", 4)
        with pytest.raises(InputError, match="'first' leaves it, as an output of the network"):
            self.cut("first..second", net.graph("first", "second"))

    def test_a_range_that_does_not_fit(self) -> None:
        net = Net(64, 14, 14)
        net.conv("narrow", 64, 1)
        net.conv("wide", 4096)
        net.conv("last", 8)
        with pytest.raises(Infeasible, match=r"scratch \d+ KiB > 64 KiB at wide") as raised:
            self.cut("narrow..last", net.graph(), T4)
        offered = str(raised.value).split("what fits, whatever it costs, is ")[1].strip("'")
        assert self.cut(offered, net.graph(), T4) == [tuple(part.split("..")) for part in offered.split(",")]


KINDS = (H200, T4, CPU)  # one device of each kind
LONG = {"mobilenet_v1": H200, "mobilenet_v2": T4, "resnet18": CPU, "vgg_e": T4}  # planned long: for one kind without --thorough


@pytest.mark.parametrize(("name", "kinds"), [
    *(pytest.param(n, KINDS, id=n, marks=pytest.mark.thorough if n in LONG else ()) for n in SHIPPED),
    *(pytest.param(n, (device,), id=f"{n}-{device.name}") for n, device in LONG.items())])
def test_shipped_networks_on_every_device(name: str, kinds: tuple[Device, ...]) -> None:
    """Layer by layer and fused as far as possible on all devices, auto on one of each kind: legal, and auto not slower."""
    simple = shipped(name)
    graph, nominal = simple.graph, nominal_for(simple.graph)
    known: dict[object, tuple[Planned, ...]] = {}  # equal chains have equal plans
    for device in (*DEVICES.values(), CPU):
        found = {mode: partition(graph, mode, device, nominal=nominal) for mode in ("none", "all")}
        if device in kinds:
            found["auto"] = partition(graph, "auto", device, nominal=nominal)
        seconds: dict[str, list[float]] = {}
        for mode, chains in found.items():
            check(graph, chains)
            if mode == "all" and device not in (T4, CPU):
                continue
            keys = [(signature(c, nominal), device.name) for c in chains]
            for key, chain in zip(keys, chains, strict=True):
                if key not in known:
                    known[key] = variants(chain, device, nominal)
            planned = [known[k] for k in keys]
            for chain, plans in zip(chains, planned, strict=True):
                for p in plans:
                    fits = p.schedule.scratch_elements * 4 <= device.scratch_per_block
                    assert fits or (device.target == "cpu" and len(chain.names) == 1)
            seconds[mode] = [sum(min(cost(p.schedule, device, nominal.at(b)).seconds for p in plans) for plans in planned)
                             for b in nominal.batches]
        if "auto" in seconds:
            assert all(a <= n * (1 + 1e-9) for a, n in zip(seconds["auto"], seconds["none"], strict=True))


def test_alexnet_keeps_its_classic_prefix_askable() -> None:
    simple = shipped("alexnet")
    first = [n.name for n in simple.graph.layers]
    end = first[first.index("conv2")]
    chains = partition(simple.graph, f"{first[0]}..{end}", H200, nominal=nominal_for(simple.graph), absorbed=simple.absorbed)
    assert chains[0].names[-1] == "conv2"
