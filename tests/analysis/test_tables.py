"""Tables: their text by example, their honesty about what is missing, and the files that are written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from flexseg.analysis import write_tables
from flexseg.analysis.formats import (
    Cell,
    Column,
    Row,
    Table,
    difference_text,
    escape_tex,
    mean_text,
    number,
    to_markdown,
    to_tex,
    write_csv,
)
from flexseg.analysis.records import load_records
from flexseg.analysis.scores import Scores
from flexseg.analysis.statistics import Difference, Mean
from flexseg.analysis.tables import ablation_table, comparison_table, factorial_table
from flexseg.benchmark import Benchmark

NAN = float("nan")
Built = tuple[Benchmark, Path, Path]
TABLE = Table(
    "example",
    "Example & more",
    "Caption at 5 %.",
    [Column("Row", "l"), Column("A_1"), Column("B", group="published")],
    [
        Row((Cell("plain"), Cell("34.2 ± 0.5"), Cell("–"))),
        Row((Cell("new|one†"), Cell("+1.2 [0.3, 2.1]", bold=True), Cell("48.58")), "Second part"),
    ],
    [("†", "made by other code")],
)
MARKDOWN = """\
## Example & more

| Row | A_1 | published: B |
| :-- | --: | --: |
| plain | 34.2 ± 0.5 | – |
| **Second part** |  |  |
| new\\|one† | **+1.2 [0.3, 2.1]** | 48.58 |

Caption at 5 %.

† made by other code
"""
TEX = r"""% needs \usepackage{booktabs}
\begin{table}
\centering\small
\caption{Caption at 5 \%.}
\begin{tabular}{@{}lrr@{}}
\toprule
\multicolumn{2}{c}{} & \multicolumn{1}{c}{published} \\
\cmidrule(lr){3-3}
Row & A\_1 & B \\
\midrule
plain & 34.2 $\pm$ 0.5 & -- \\
\addlinespace
\multicolumn{3}{@{}l}{\emph{Second part}} \\
new|one$\dagger$ & \textbf{+1.2 [0.3, 2.1]} & 48.58 \\
\bottomrule
\end{tabular}
\par\smallskip\footnotesize $\dagger$ made by other code
\end{table}
"""


def test_markdown_and_tex_by_example() -> None:
    assert to_markdown(TABLE) == MARKDOWN
    assert to_tex(TABLE) == TEX


def test_texts_by_example() -> None:
    assert mean_text(Mean(34.21, 0.54, 4)) == "34.2 ± 0.5"
    assert mean_text(Mean(34.21, NAN, 1)) == "34.2 ± –"
    assert mean_text(Mean(NAN, NAN, 0)) == "–"
    assert difference_text(Difference(-0.31, -1.25, 0.63, 0.4, 4)) == "−0.3 [−1.2, 0.6]"
    assert difference_text(Difference(0.3, NAN, NAN, NAN, 1)) == "+0.3 [–]"
    assert difference_text(Difference(0.6, 0.04, 1.16, 0.04, 4)) == "+0.6 [0.04, 1.2]"
    assert difference_text(Difference(0.6, -0.04, 1.24, 0.06, 4)) == "+0.6 [0.0, 1.2]"
    assert number(-0.04) == "0.0"
    assert number(-0.04, sign=True) == "0.0"
    assert escape_tex("50 % of a_b & c\\d") == r"50 \% of a\_b \& c\textbackslash{}d"


def test_csv_by_example(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["row", "value", "n"], [{"row": "a,b", "value": 1 / 3, "n": 4}, {"value": NAN}])
    assert (tmp_path / "a.csv").read_text() == 'row,value,n\n"a,b",0.333333,4\n,,\n'


def test_all_files_are_written_and_repeat_byte_by_byte(small: Built) -> None:
    paths = write_tables(*small)
    names = [f"{n}.{s}" for n in ("comparison", "ablation", "per_class", "per_condition") for s in ("csv", "md", "tex")]
    assert [path.name for path in paths] == names
    assert {path.parent for path in paths} == {small[1] / "streetworld" / "tables"}
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_tables(*small)] == first


def test_trouble_stands_in_the_table_with_its_reason(small: Built) -> None:
    text = to_markdown(comparison_table(Scores(load_records(*small), replicates=50)))
    for reason in (
        "seed 2 failed: non-finite loss at iteration 371",
        "seed 0 missing: not run",
        "seed 2 stale: other settings than the benchmark file's",
        "seed 2 target night: not evaluated",
        "† made by other code than today's (digest feedfacefeedface; today's is",
    ):
        assert reason in text
    row = next(line for line in text.splitlines() if line.startswith("| – without GAP"))
    assert row.startswith("| – without GAP† |")
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + 10


def test_long_csv_agrees_with_the_scores(small: Built) -> None:
    write_tables(*small)
    scores = Scores(load_records(*small))
    with (small[1] / "streetworld" / "tables" / "comparison.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    key = {"row": "flexseg_no_ube", "target": "Avg5", "quantity": "mIoU difference"}
    (line,) = [line for line in lines if key.items() <= line.items()]
    difference = scores.against("flexseg_no_ube", "dginstyle")["Avg5"]
    assert float(line["value"]) == pytest.approx(difference.value, abs=1e-6)
    assert float(line["low"]) == pytest.approx(difference.low, abs=1e-6)
    seeds = [line for line in lines if (line["row"], line["target"], line["quantity"]) == ("dginstyle", "Avg5", "mIoU")]
    assert [float(line["value"]) for line in seeds] == pytest.approx(scores.per_seed("dginstyle", "Avg5"), abs=1e-6)
    failed = [line["reason"] for line in lines if line["quantity"] == "status" and line["reason"].startswith("failed")]
    assert failed == ["failed: non-finite loss at iteration 371"]
    target = [line for line in lines if line["quantity"] == "mIoU difference" and line["target"] == "night"]
    assert all(line["p_holm"] for line in target if line["p"])


def test_published_numbers_stand_only_beside_rows_that_correspond(small: Built) -> None:
    table = comparison_table(Scores(load_records(*small), replicates=50))
    place = [column.group for column in table.columns].index("published on other data (GTA5 → …)")
    beside = {row.cells[0].text.rstrip("†¹²³⁴\N{THIN SPACE}"): row.cells[place].text for row in table.rows}
    assert beside["DGInStyle data (baseline)"] == "34.81"
    assert beside["FLEX-Seg (tuned)"] == "38.04"
    assert beside["– without HAS"] == "36.15"
    for title in ("Source only", "– without GAP", "Constant boundary weight 2.5", "FLEX-Seg (tuned; aligned)"):
        assert beside[title] == "–"


def test_ablation_names_what_was_not_run(small: Built) -> None:
    scores = Scores(load_records(*small), replicates=50)
    assert "not run: --config study=factorial" in to_markdown(ablation_table(scores))
    assert to_markdown(factorial_table(scores)).count("not run: --config study=factorial") == 3 + 6


def test_a_benchmark_without_any_run(builder, tmp_path: Path) -> None:
    benchmark, _, methods = builder(["dginstyle", "flexseg"], [0], 4, incidents=False)
    paths = write_tables(benchmark, tmp_path / "empty", methods)
    assert "seed 0 missing: not run" in paths[1].read_text()
