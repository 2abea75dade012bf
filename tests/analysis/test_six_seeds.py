"""Tables and page from six seeds on, where each difference has a variance of its own; and rows with unequal seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flexseg.analysis import write_report, write_tables
from flexseg.analysis.stats.paired import Paired
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import shared_variance
from flexseg.analysis.stats.verdict import power_statement
from flexseg.analysis.tables.common import OWN, POOLED
from flexseg.analysis.tables.metrics import power_table
from flexseg.analysis.tables.write import comparison_table
from flexseg.benchmark import Benchmark

Built = tuple[Benchmark, Path]
ROWS = ["dginstyle", "flexseg_tuned", "source_only"]


@pytest.fixture(scope="module")
def built(build_results: Callable[..., Built], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Three rows with six seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flexseg.analysis.stats.records.code_digest", lambda *_: "today")
        return build_results(tmp_path_factory.mktemp("six"), ROWS, list(range(6)), 12, False, predictions=0)


def scores_of(built: Built, rows: list[str], seeds: int) -> Scores:
    benchmark, results = built
    update = {"rows": {row: benchmark.rows[row] for row in rows}, "seeds": list(range(seeds))}
    return Scores(load_records(benchmark.model_copy(update=update), results), replicates=200)


def test_an_interval_depends_on_its_two_rows_alone(built: Built) -> None:
    for seeds, same in ((6, True), (5, False)):
        alone, beside = (scores_of(built, rows, seeds).against(*ROWS[1::-1]) for rows in (ROWS[:2], ROWS))
        assert (alone == beside) is same


def test_a_difference_is_students_with_satterthwaites_freedom(built: Built) -> None:
    scores = scores_of(built, ROWS, 6)
    for column in scores.columns:
        found = scores.against("flexseg_tuned", "dginstyle")[column]
        values = scores.per_seed("flexseg_tuned", column) - scores.per_seed("dginstyle", column)
        replicates = np.transpose([
            scores._column_replicates("flexseg_tuned", seed, column, "mIoU")
            - scores._column_replicates("dginstyle", seed, column, "mIoU")
            for seed in range(6)
        ])  # fmt: skip
        wanted = Paired.of(values, shared_variance(replicates), 11)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_captions_power_and_page_say_how(built: Built, tmp_path: Path) -> None:
    few, many = scores_of(built, ROWS, 5), scores_of(built, ROWS, 6)
    assert POOLED in comparison_table(few).caption
    assert OWN in comparison_table(many).caption
    assert [row.cells[0].text for row in power_table(few).rows] == ["Avg2", "Avg3", "Avg5"]
    table = power_table(many)
    assert [row.section for row in table.rows] == ["Avg2", "Avg2", "Avg3", "Avg3", "Avg5", "Avg5"]
    assert table.rows[0].cells[0].text == "flexseg_tuned − dginstyle"
    assert "each row's own" in power_statement(many)
    assert "residual of the table" in power_statement(few)
    write_report(many.benchmark, "page", built[1], tmp_path / "page.html")
    assert "join their own variance over seeds" in (tmp_path / "page.html").read_text()


def test_rows_may_have_fewer_seeds_than_others(built: Built, tmp_path: Path) -> None:
    benchmark = built[0].with_row_seeds({"source_only": 2})
    records = load_records(benchmark, built[1])
    assert len(records.of_row("source_only")) == 2
    for kind in ("page", "summary", "comparison"):
        write_report(benchmark, kind, built[1], tmp_path / kind)  # type: ignore[arg-type]
    assert "14 finished of 14 (3 rows × 2 to 6 seeds)" in (tmp_path / "summary").read_text()
    page = (tmp_path / "page").read_text()
    assert "not planned: the claims ask for fewer seeds" in page
    assert "3 settings of training were run with 2 to 6 seeds each" in page
    assert "Results are means over 2 to 6 seeds" in page
    assert write_tables(benchmark, built[1])
