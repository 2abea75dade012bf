"""Which rows are which cells, and what the contrasts weigh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexseg.analysis.stats.effects import ablation_lines, all_cells, cell_of, factorial_cells, factorial_effects
from flexseg.analysis.stats.records import Records, RunRecords
from flexseg.benchmark import Benchmark, Row, load_benchmark
from flexseg.errors import UserError

ROOT = Path(__file__).parents[2]
OFF = {"GAP": {"gap": False}, "UBE": {"ube": False}, "HAS": {"has": False}}


def records_of(benchmark: Benchmark) -> Records:
    """Records without a single run."""
    return Records(benchmark, Path(), {})


def test_default_study_has_five_cells_around_the_tuned_row() -> None:
    cells = factorial_cells(records_of(_default()), "flexseg_tuned")
    assert cells == {
        (True, True, True): "flexseg_tuned",
        (False, True, True): "flexseg_no_gap",
        (True, False, True): "flexseg_no_ube",
        (True, True, False): "flexseg_no_has",
        (False, False, False): "dginstyle",
    }
    assert factorial_effects(["GAP", "UBE", "HAS"], cells) == {}


def _default() -> Benchmark:
    benchmark = load_benchmark("streetworld_small", ROOT / "benchmarks")
    rows = {name: benchmark.row(name) for name in benchmark.studies["default"]}
    return benchmark.model_copy(update={"rows": rows})


def with_run(row: str, **options: object) -> Records:
    """Records with one finished run, of ``row``, and what it recorded of its options (value, default)."""
    described = {name: {"value": value, "default": default} for name, (value, default) in options.items()}
    run = RunRecords(row, 0, Path(), Path(), "finished", info={"options": described})
    return Records(_default(), Path(), {(row, 0): run})


def test_recorded_defaults_decide_what_a_switch_is() -> None:
    on = (True, True)
    records = with_run("flexseg_no_gap", gap=(False, True), ube=on, has=(False, False))
    assert cell_of(records, "flexseg_no_gap") == (False, True, False)
    assert cell_of(records, "flexseg_tuned") == (True, True, False), "its default is off"
    assert cell_of(records, "source_only") is None
    with pytest.raises(UserError, match=r"HAS: methods/flexseg\.py has no option 'has'.*did you mean 'hass'"):
        cell_of(with_run("flexseg_tuned", gap=on, ube=on, hass=on), "flexseg_no_gap")


def test_without_records_a_switch_that_every_full_row_writes_is_not_guessed() -> None:
    benchmark = _default()
    written = {row: Row(**benchmark.row(row).model_dump() | {"has": True}) for row in benchmark.ablation.full}
    other = Row(method="flexseg", title="Other", gap=False)

    def cell(**rows: object) -> object:
        return cell_of(
            records_of(benchmark.model_copy(update={"rows": benchmark.rows | rows | {"other": other}})), "other"
        )

    assert cell() == (False, True, True)
    assert cell(flexseg_tuned=written["flexseg_tuned"]) == (False, True, True), "the other full row leaves it unwritten"
    assert cell(**written) is None


def test_aligned_and_published_rows_are_no_cells_of_the_tuned_factorial() -> None:
    cells = factorial_cells(records_of(_default()), "flexseg_tuned")
    assert not {"flexseg", "flexseg_tuned_aligned", "constant_weight"} & set(cells.values())


def test_effects_recover_an_additive_truth_with_one_interaction() -> None:
    names = ["A", "B", "C"]
    cells = {cell: "".join(n for n, on in zip(names, cell, strict=True) if on) or "none" for cell in all_cells(3)}
    truth = {row: 10 + 2 * ("A" in row) - 1 * ("B" in row) + 4 * ("A" in row and "B" in row) for row in cells.values()}
    found = {
        effect: sum(weight * truth[row] for row, weight in weights.items())
        for effect, weights in factorial_effects(names, cells).items()
    }
    # A: 2 alone, 6 beside B; B: −1 and 3; A × B: half of (6 − 2)
    expected = {"A": 4, "B": 1, "C": 0, "A × B": 2, "A × C": 0, "B × C": 0, "A × B × C": 0}
    assert found == pytest.approx(expected)


def test_every_contrast_sums_to_zero_and_missing_cells_say_so() -> None:
    lines = ablation_lines(records_of(_default()))
    assert all(np.isclose(sum(line.contrast.values()), 0) for line in lines)
    missing = [line for line in lines if line.note]
    assert {line.note for line in missing} == {"not run: --config study=factorial"}
    assert [line.label for line in missing] == ["without GAP", "without UBE", "without HAS"]
    assert any(line.label == "Constant boundary weight 2.5" for line in lines)
