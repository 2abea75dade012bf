"""Methods that change in the course of a run go on exactly, whichever phase they are interrupted in."""

from __future__ import annotations

from typing import Any

import pytest
from builders import Log, Train, equal_tensors

from flexseg.benchmark import Benchmark, Row
from flexseg.engine.checkpoint import load_tensors

CHANGES: dict[str, tuple[dict[str, Any], str, int]] = {
    "robustnet": ({"start": 0.5, "trials": 2}, "loss/isw", 4),  # statistics are gathered in iterations 2 and 3
    "revt": ({}, "loss/ce_pixmix", 4),
}
"""Options, a value of the log, and the iteration from which it is there and positive."""


@pytest.mark.parametrize("place", [1, 3, 4, 5, 7])
@pytest.mark.parametrize("name", CHANGES)
def test_resumed_run_is_the_undisturbed_one_to_the_bit(
    name: str, place: int, tiny: Benchmark, train: Train, interrupt: Any, log_of: Log
) -> None:
    options, key, first = CHANGES[name]
    training = tiny.training.model_copy(update={"iterations": 8, "checkpoint_every": 1})
    row = Row.model_validate({"method": name, "title": name, **options})
    benchmark = tiny.model_copy(update={"training": training, "rows": {"whole": row, "row": row}})
    whole = train("whole", benchmark=benchmark)
    interrupt(place, "row", benchmark=benchmark)
    again = train("row", benchmark=benchmark)
    log = log_of(whole)
    assert log_of(again) == log
    assert [line.get(key, 0) > 0 for line in log] == [iteration >= first for iteration in range(8)]
    assert equal_tensors(load_tensors(whole.weights)[0], load_tensors(again.weights)[0])
