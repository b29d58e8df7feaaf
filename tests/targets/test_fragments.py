"""Blocks of fragments: whatever a kernel's convolutions are, blocks divide their work and fit the machine's registers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.targets import fragments as F
from fusec.targets.blocking import registers_left
from fusec.targets.device import DEVICES

SUMS = 4  # accumulators a lane has of a fragment of 16 x 8


@st.composite
def works(draw: st.DrawFn) -> F.Work:
    pool = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (1, 2), (2, 1), (4, 5), (9, 9)]))
    small, kernel = st.integers(1, 40), st.sampled_from([1, 2, 3, 5, 7, 11])
    depth = draw(st.integers(1, 600))
    inside = draw(st.integers(1, 12))
    groups = inside * draw(st.integers(1, 6))  # of a tile, which may also be a part of what reads the same channels
    sharing = draw(st.sampled_from([groups, inside, 2 * groups]))
    return F.Work(columns=draw(small), rows=draw(small), groups=groups, inside=sharing, depth=depth,
                  kernel_y=draw(kernel), kernel_x=draw(kernel), stride_y=draw(st.integers(1, 4)),
                  dilation_y=draw(st.integers(1, 3)), gathered=draw(st.booleans()), pool_y=pool[0], pool_x=pool[1])


@given(works())
def test_blocks_divide_a_convolutions_work(work: F.Work) -> None:
    """Groups of channels and a window's rows in whole blocks, a window's columns in the fragments of one; rows overlap."""
    found = F.candidates(work)
    assert found
    for block in found:
        assert work.groups % block.groups == work.inside % block.groups == 0
        assert block.sums == SUMS * block.fragments * block.rows * block.groups
        assert block.rows <= (work.pool_y if work.pooled else work.rows)
        if work.pooled:  # columns 2 f and 2 f + 1 of eight windows lie in fragment f
            assert work.pool_y % block.rows == 0
            assert 2 * block.fragments in (work.pool_x, work.pool_x + 1)
    assert len(set(found)) == len(found)


@given(works())
def test_no_block_wants_more_registers_than_a_lane_has(work: F.Work) -> None:
    """All but the smallest one, which a window of very many columns leaves without a choice."""
    least = min(F.candidates(work), key=lambda b: b.sums)
    for block in F.candidates(work):
        weights = 2 * block.groups * (work.kernel_y if block.reused else 1)
        assert weights <= F.MOST_WEIGHTS
        assert block.sums <= F.MOST_SUMS or block.sums == least.sums


@settings(max_examples=200)
@given(works=st.lists(works(), min_size=0, max_size=4), device=st.sampled_from([DEVICES[n] for n in ("h200", "t4", "rtx4090")]),
       kib=st.integers(0, 60), positions=st.integers(0, 10**6), least=st.integers(0, 128), share=st.integers(1, 64))
def test_a_choice_is_within_the_machine(works: list[F.Work], device, kib: int,  # type: ignore[no-untyped-def]
                                        positions: int, least: int, share: int) -> None:
    chosen = F.choose(works, scratch_bytes=1024 * kib, scratch_per_core=device.scratch_per_core,
                      registers=device.registers_per_core, threads_per_core=device.max_threads_per_core,
                      positions=positions, least=least, share=share)
    together = chosen.threads * chosen.blocks_per_core
    assert chosen.threads in F.THREADS
    assert 1 <= chosen.blocks_per_core <= share
    assert together <= device.max_threads_per_core
    assert chosen.blocks_per_core == 1 or chosen.blocks_per_core * 1024 * (kib + 1) <= device.scratch_per_core
    assert registers_left(device.registers_per_core, chosen.threads, chosen.blocks_per_core) >= least
    assert len(chosen.blocks) == len(works)
    assert all(b in F.candidates(w) for b, w in zip(chosen.blocks, works, strict=True))
    # what ptxas may give a thread holds the sums of its largest block, unless nothing smaller was left to choose
    given_registers = registers_left(device.registers_per_core, chosen.threads, chosen.blocks_per_core)
    for block, work in zip(chosen.blocks, works, strict=True):
        assert block.sums < given_registers or block.sums == min(b.sums for b in F.candidates(work))


def test_steps_are_what_the_packed_weights_have() -> None:
    work = F.Work(columns=8, rows=8, groups=1, inside=1, depth=33, kernel_y=5, kernel_x=7, stride_y=1, dilation_y=1,
                  gathered=False)
    assert work.steps == 7 * 3


@pytest.mark.parametrize(("steps", "body", "turns"), [(3, 10, 3), (4, 10, 2), (3, 100, 1), (100, 1, 2), (1, 5000, 1)])
def test_turns_unrolled(steps: int, body: int, turns: int) -> None:
    assert F.unrolled(steps, body) == turns
    assert F.unrolled(steps, body) * body <= max(F.UNROLLED, body)
