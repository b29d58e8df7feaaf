"""The time model's part for CUDA cores: lines of device memory, blocks of registers, and what costs more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.plan import simt_time
from fusec.plan.boxes import Family
from fusec.plan.cost import Nominal, sizes_of
from fusec.plan.simt_time import THREADS, Access, Convolution, convolution, counts, touched
from fusec.plan.timing import time_of
from fusec.schedule.ir import Chain
from fusec.targets.device import DEVICES
from tests.plan.networks import residual

H200 = DEVICES["h200"]


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def access(columns: int, size: int, aligned: int = 32) -> Access:
    return Access(ints(columns), ints(columns) >= size, ints(aligned))


def work(columns: int, **edits: object) -> Convolution:
    made = Convolution(ints(1), ints(16), ints(8), ints(columns), 16, 3, (3, 3), 1, (1, 1), 0.0)
    return replace(made, **edits)  # type: ignore[arg-type]


def lines(starts: list[int], lanes: int, step: int) -> float:
    """Lines that lanes `step` words apart touch, over all places where their row may start: counted one by one."""
    return sum(len({(start + lane * step + word) // 32 for lane in range(lanes) for word in range(step)}) for start in starts) \
        / len(starts)


@pytest.mark.parametrize(("columns", "step", "aligned", "expected"),
                         [(128, 4, 32, 4), (64, 4, 32, 4), (32, 4, 32, 4), (16, 4, 16, 8), (8, 4, 8, 16), (4, 4, 4, 32),
                          (32, 1, 32, 1), (8, 1, 8, 4), (64, 8, 32, 8)])
def test_narrow_boxes_touch_more_lines(columns: int, step: int, aligned: int, expected: int) -> None:
    """A warp's 32 lanes lie in as many rows as it takes, each row in lines of its own."""
    assert touched(access(columns, 1000, aligned), step, ints(columns // step))[0] == expected


@given(lanes=st.sampled_from((1, 2, 4, 8, 16, 32)), step=st.integers(1, 8), aligned=st.sampled_from((1, 2, 4, 8, 16, 32)))
def test_lines_are_those_counted_one_by_one(lanes: int, step: int, aligned: int) -> None:
    found = touched(access(lanes * step, 10_000, np.gcd(aligned, lanes * step)), step, ints(lanes))[0] * lanes / 32
    counted = lines(list(range(0, 32, int(np.gcd(aligned, lanes * step)))), lanes, step)
    assert found == pytest.approx(min(counted, lanes))


def test_whole_rows_go_on_in_the_next() -> None:
    whole, part = Access(ints(28), ints(1) > 0, ints(4)), Access(ints(28), ints(0) > 0, ints(4))
    assert touched(whole, 4, ints(7))[0] < touched(part, 4, ints(7))[0]


@given(columns=st.integers(1, 70), rows=st.integers(1, 20), group=st.sampled_from((1, 3, 6, 12, 16, 28, 64)),
       kernel=st.sampled_from((1, 3, 5, 11, 13)), window=st.sampled_from((1, 2)), direct=st.booleans())
def test_blocks_fit_a_thread_and_cover_the_box(columns: int, rows: int, group: int, kernel: int, window: int,
                                               direct: bool) -> None:
    stage = work(columns * window, rows=ints(rows * window), channels=ints(group), together=group, kernel=(kernel, kernel),
                 pool=(window, window))
    found = counts(stage, direct)
    assert found.sums[0] <= simt_time.MOST_SUMS or found.sums[0] == window
    assert found.items[0] * found.sums[0] * window >= columns * window * rows * window * group
    assert found.columns[0] % window == 0 and found.columns[0] <= simt_time.MOST_COLUMNS
    assert 32 * found.warps[0] >= found.items[0] and found.registers[0] <= 255


def test_what_is_known_is_not_worked_out_again() -> None:
    assert counts(work(24), True) is counts(work(24), True)
    assert counts(work(24), True) is not counts(work(24), False)


def test_each_addition_costs() -> None:
    """Deeper sums, longer epilogues, device memory in place of scratch: never less of anything."""
    least = convolution(work(32), None, None)
    for more in (convolution(work(32, inputs=6), None, None), convolution(work(32, extra=2.0), None, None),
                 convolution(work(32, images=ints(2)), None, None), convolution(work(32), None, access(32, 1000))):
        for unit in ("issue", "reads", "writes"):
            assert getattr(more, unit)[0] >= getattr(least, unit)[0]
        assert (more.path >= least.path).all()
    assert least.path.shape == (len(THREADS), 1)


class TestSeconds:
    chain = Chain(residual(), ("a1", "a2"))

    def seconds(self, side: int = 8, batch: int = 512, scratch: int = 0, **device: float) -> float:
        boxes = Family(self.chain, sizes_of(self.chain.graph, Nominal((batch,)))).boxes(
            [[16], [side], [side]], [ints(0)] * 3, ints(1), batch)
        found = time_of(self.chain, boxes, self.chain.inputs, ints(scratch), replace(H200, **device))  # type: ignore[arg-type]
        return float(found.seconds[0])

    def test_more_images_cost_more(self) -> None:
        times = [self.seconds(batch=n) for n in (1, 64, 512, 513, 2048, 5000)]
        assert times == sorted(times)

    def test_a_slower_machine_takes_longer(self) -> None:
        assert self.seconds(clock=H200.clock / 2) > self.seconds()
        assert self.seconds(cores=66) > self.seconds()

    def test_much_scratch_leaves_one_block_a_core(self) -> None:
        assert self.seconds(scratch=200_000) > self.seconds(scratch=20_000)

    def test_narrow_tiles_cost_more(self) -> None:
        assert self.seconds(side=2) > self.seconds(side=4) > self.seconds(side=8)
