"""``flexseg bench step``: a bare step for each trunk and crop, the engine's steps beside it, images per second."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from flexseg.benchmark import Benchmark, Row
from flexseg.tasks.speed import measure_steps


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_rows_of_another_trunk_or_crop_have_a_bare_step_of_their_own(
    smoke: Benchmark, results: Path, precision: str
) -> None:
    backbone, head = smoke.model["backbone"], smoke.model["decode_head"]
    thin = {"backbone": backbone | {"base_channels": 2}, "decode_head": head | {"in_channels": 2}}
    rows = {
        "plain": Row(method="dginstyle", title="Plain"),
        "same": Row(method="dginstyle", title="Same"),
        "wide": Row(method="dginstyle", title="Wide", training={"crop": (32, 96)}),
        "thin": Row(method="dginstyle", title="Thin", model=thin),
    }
    benchmark = smoke.model_copy(update={"rows": rows})
    text = io.StringIO()
    found = measure_steps(benchmark, results, 2, 1, 1, Console(file=text, width=120), precision)
    assert list(found) == ["bare", "bare, wide", "bare, thin", *rows]
    assert min(found.values()) > 0
    lines = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in text.getvalue().splitlines() if "│" in line}
    for name, (milliseconds, rate, *_) in lines.items():
        assert float(milliseconds) == pytest.approx(found[name], abs=0.1)
        assert float(rate) == pytest.approx(1000 * smoke.training.batch_size / found[name], abs=0.1)
    assert float(lines["bare, thin"][2]) == 1.0
    assert float(lines["thin"][2]) == pytest.approx(found["thin"] / found["bare, thin"], abs=0.001)
