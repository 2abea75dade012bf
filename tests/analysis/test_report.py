"""The reports: written, whole, the same bytes twice, without torch; and the words that they use."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from flexseg.analysis import write_report
from flexseg.analysis.figures.ablation import factorial_figure
from flexseg.analysis.figures.canvas import LEFT, RIGHT, Page, Plate
from flexseg.analysis.figures.comparison import Dot, off_scale
from flexseg.analysis.figures.style import text_width, wrap
from flexseg.analysis.report.pages import _heads, draw_table, open_book, table_height, table_lines
from flexseg.analysis.stats.effects import all_cells
from flexseg.analysis.stats.formats import Cell, Column, Row, Table, difference_text
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference
from flexseg.analysis.stats.verdict import judged, power_statement, verdict
from flexseg.benchmark import Benchmark, select_rows

Built = tuple[Benchmark, Path]
NAN = float("nan")
SCRIPT = """
import sys
from pathlib import Path
import flexseg.analysis.stats.records as records
from flexseg.analysis import write_report, write_tables
from flexseg.benchmark import load_benchmark, select_rows
records.code_digest = lambda *_: "today"
top, output = Path(sys.argv[1]), Path(sys.argv[2])
benchmark = select_rows(load_benchmark("streetworld", top / "benchmarks"), rows=sys.argv[3])
for kind in ("comparison", "ablation"):
    write_report(benchmark, kind, top / "results", output / f"other_{kind}.pdf")
write_tables(benchmark, top / "results")
assert "torch" not in sys.modules, "the analysis imports torch"
"""


def test_same_bytes_in_two_processes_and_no_torch(small: Built, tmp_path: Path) -> None:
    benchmark, results = small
    rows = "dginstyle,flexseg_tuned"
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(results.parent), str(tmp_path), rows]
    subprocess.run(command, check=True)
    kinds: tuple[Literal["comparison", "ablation"], ...] = ("comparison", "ablation")
    for kind in kinds:
        write_report(select_rows(benchmark, rows=rows), kind, results, tmp_path / f"{kind}.pdf")
        content = (tmp_path / f"{kind}.pdf").read_bytes()
        assert content == (tmp_path / f"other_{kind}.pdf").read_bytes()
        assert content.startswith(b"%PDF")
        assert b"CreationDate" not in content
        assert b"/Type3" not in content.replace(b" ", b"")


def pages(content: bytes) -> int:
    """How many pages a PDF of matplotlib has."""
    return len(re.findall(rb"/Type /Page\b(?!s)", content))


@pytest.mark.parametrize("kind", ["comparison", "ablation"])
def test_one_seed_and_nothing_at_all(builder, tmp_path: Path, kind: Literal["comparison", "ablation"]) -> None:
    benchmark, results = builder(["dginstyle"], [0], 4, incidents=False)
    if kind == "ablation":
        results = tmp_path / "nothing"
    write_report(benchmark, kind, results, tmp_path / "a.pdf")
    assert pages((tmp_path / "a.pdf").read_bytes()) >= 5


def test_a_complete_factorial_gets_its_effects(builder, tmp_path: Path) -> None:
    rows = {"dginstyle": {"method": "dginstyle"}, "full": {"method": "flexseg", "title": "Full"}}
    for cell in all_cells(3)[1:-1]:
        off = {name: False for name, on in zip(("gap", "ube", "has"), cell, strict=True) if not on}
        rows["no_" + "_".join(off)] = {"extends": "full", **off}
    ablation = {"components": {"GAP": "gap", "UBE": "ube", "HAS": "has"}, "full": ["full"], "none": "dginstyle",
                "panels": ["dginstyle", "full"]}  # fmt: skip
    benchmark, results = builder(
        list(rows),
        [0, 1],
        4,
        incidents=False,
        rows=rows,
        ablation=ablation,
        studies={"default": list(rows)},
        tuning=None,
    )
    scores = Scores(load_records(benchmark, results), replicates=100)
    assert "Averaged over the whole factorial: GAP " in dict(verdict(scores))["Which component does it?"]
    with open_book(tmp_path / "a.pdf", "", "", "") as book, book.page("Factorial") as page:
        factorial_figure(page, scores, "full")
        assert not page.empty
        assert [label.get_text() for label in page.figure.axes[0].get_yticklabels()][::3] == [
            "GAP",
            "GAP × UBE",
            "GAP × UBE × HAS",
        ]
        rows_left = {name: row for name, row in benchmark.rows.items() if name != "no_gap"}
        fewer = Scores(load_records(benchmark.model_copy(update={"rows": rows_left}), results), replicates=100)
        factorial_figure(page, fewer, "full")
        assert page.empty == "The factorial is not complete. Not run"  # the benchmark has no study for it


def test_only_what_dwarfs_the_others_is_off_scale() -> None:
    def dots(*values: float) -> list[Dot]:
        return [Dot(value, value - 1, value + 1) for value in values]

    assert off_scale(dots(-7.6, 0.3, 1.2, 2.0)) == [True, False, False, False]
    assert off_scale(dots(-7.6, 9.0, 1.2, 2.0, 0.1, NAN)) == [True, True, False, False, False, False]
    assert off_scale(dots(-3.0, 0.3, 1.2, 2.0)) == [False] * 4
    assert off_scale(dots(5.0)) == [False]


def test_words_say_no_more_than_the_numbers() -> None:
    assert (
        judged(Difference(0.3, -0.6, 1.2, 0.4, 4), "helps", "harms") == "no difference could be shown, +0.3 [−0.6, 1.2]"
    )
    assert judged(Difference(1.3, 0.6, 2.0, 0.01, 4), "helps", "harms") == "helps, +1.3 [0.6, 2.0]"
    assert judged(Difference(-1.3, -2.0, -0.6, 0.01, 4), "helps", "harms") == "harms, −1.3 [−2.0, −0.6]"
    assert "nothing can be concluded" in judged(Difference(5.0, NAN, NAN, NAN, 1), "helps", "harms")
    assert "no seed has finished both" in judged(Difference(NAN, NAN, NAN, NAN, 0), "helps", "harms")


def test_verdict_answers_with_the_numbers_of_the_table(small: Built) -> None:
    scores = Scores(load_records(*small), replicates=200)
    answers = dict(verdict(scores))
    difference = scores.against("constant_weight", "dginstyle")["Avg5"]
    assert f"{difference.value:+.1f}" in answers["What do the controls say?"].replace("−", "-")
    assert "“FLEX-Seg (published settings)” was not taken apart." in answers["Which component does it?"]


def test_many_controls_are_sorted_by_what_was_shown(small: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexseg.analysis.stats.verdict.MANY", 0)
    scores = Scores(load_records(*small), replicates=200)
    answer = dict(verdict(scores))["What do the controls say?"]
    assert answer.startswith("Against the baseline: ")
    assert answer.endswith("Each at 95 %, not adjusted for the number of rows.")
    title, difference = small[0].row("source_only").title, scores.against("source_only", "dginstyle")["Avg5"]
    assert difference.shown
    lower = answer.split("lower: ")[1].split(";")[0]
    assert f"“{title}” {difference_text(difference)}" in lower
    assert answer.count(f"“{title}”") == 2  # once against the baseline, once against the full method


def test_power_statement_names_spread_power_and_seeds(small: Built) -> None:
    text = power_statement(Scores(load_records(*small), replicates=50))
    assert re.search(r"Sd of a paired difference on Avg5: \d\.\d\d \(residual of the table of \d+ rows × 3 seeds", text)
    assert re.search(r"these 3 seeds sees 1\.5 mIoU with power \d+ % .* 1 mIoU needs \d+ seeds", text)


def test_wrapped_lines_fit_and_lose_nothing() -> None:
    text = "A sentence of ordinary words with one_extremely_long_name_" + "x" * 300 + " and an end."
    lines = wrap(text, 200, 9)
    assert max(text_width(line, 9) for line in lines) <= 200
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert np.isclose(RIGHT - LEFT, 751.89)


def test_pages_break_before_a_section_and_small_tables_share_one(tmp_path: Path) -> None:
    def table(sections: int, rows: int) -> Table:
        lines = [Row((Cell(f"{s}.{r}"),), f"Section {s}") for s in range(sections) for r in range(rows)]
        return Table("a", "A", "Caption.", [Column("Row", "l")], lines)

    with open_book(tmp_path / "a.pdf", "", "", "") as book:
        book.tables([table(3, 12)])
        assert book.number == 2  # 2 × 13 lines fit, the third section goes whole to the next page
        book.tables([table(1, 3), table(1, 3), table(1, 25)])
        assert (book.number, book.tables_made) == (4, 4)
    assert table_height(table(1, 3)) < table_height(table(1, 4))


def test_an_empty_figure_takes_no_page_but_a_line(tmp_path: Path) -> None:
    plates = [
        Plate("a", "Heading A", lambda page: page.nothing("because")),
        Plate("b", "Heading B", lambda page: page.caption("What it shows.")),
    ]
    with open_book(tmp_path / "a.pdf", "", "", "") as book:
        for plate in plates:
            book.figure(plate)
        assert (book.number, book.figures) == (1, 1)
        (missing,) = book.missing_table()
        assert [cell.text for cell in missing.rows[0].cells] == ["Heading A", "because"]
    assert pages((tmp_path / "a.pdf").read_bytes()) == 1


def test_arrows_and_hyphens_in_table_heads() -> None:
    page = Page("", "", 1)
    table = Table("a", "A", "", [Column("frequency-weighted IoU ↑")], [Row((Cell("1.0"),))])
    assert _heads(table, 9, [text_width("weighted", 9, True)]) == [["frequency-", "weighted", "IoU ↑"]]
    assert not draw_table(page, table, table_lines(table))
