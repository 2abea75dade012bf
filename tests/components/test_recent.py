"""The ring of recent rows against a list, and that two ranks hold the rows, and choose the styles, of one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg.components.recent import Recent
from flexseg.components.style import farthest_points

BODY = """
from flexseg.components.recent import Recent
from flexseg.components.style import farthest_points

recent, out = Recent(11, 3), []
for rows in data:
    recent.push(rows[half])
    out.append((recent.filled().clone(), farthest_points(recent.filled(), 4)))
"""


def as_set(rows: torch.Tensor) -> list[list[float]]:
    return sorted(rows.tolist())


@settings(max_examples=50)
@given(st.integers(1, 9), st.lists(st.integers(0, 20), max_size=8))
def test_holds_the_last_rows(size: int, pushes: list[int]) -> None:
    recent, all_rows = Recent(size, 2), torch.zeros(0, 2)
    for number, count in enumerate(pushes):
        rows = torch.stack([torch.full((count,), float(number)), torch.arange(float(count))], dim=1)
        recent.push(rows)
        all_rows = torch.cat([all_rows, rows])
        assert len(recent) == min(size, len(all_rows))
        assert as_set(recent.filled()) == as_set(all_rows[-size:])
    assert int(recent.pushed) == len(all_rows)


def test_goes_on_from_what_was_saved() -> None:
    whole, resumed = Recent(5, 3), Recent(5, 3)
    rows = torch.randn(4, 3, 3)
    for part in rows[:2]:
        whole.push(part)
    resumed.load_state_dict(whole.state_dict())
    for part in rows[2:]:
        whole.push(part)
        resumed.push(part)
    assert torch.equal(whole.rows, resumed.rows)


def test_keeps_no_graph_and_float32() -> None:
    recent = Recent(4, 2)
    recent.push(torch.randn(3, 2, dtype=torch.bfloat16, requires_grad=True))
    assert not recent.filled().requires_grad
    assert recent.filled().dtype == torch.float32


def test_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Recent(0, 2)


def test_two_ranks_hold_the_rows_of_the_whole_batch(on_two_ranks) -> None:
    batches = torch.randn(5, 4, 3)
    outs = on_two_ranks(BODY, batches)
    whole = Recent(11, 3)
    for step, rows in enumerate(batches):
        whole.push(rows)
        for out in outs:
            assert torch.equal(out[step][0], whole.filled())
            assert torch.equal(out[step][1], farthest_points(whole.filled(), 4))
