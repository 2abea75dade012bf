"""Tables: their text by example, their honesty about what is missing, and the files that are written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from flexseg.analysis import write_tables
from flexseg.analysis.stats.domains import target_title
from flexseg.analysis.stats.formats import (
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
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference, Mean, detectable, power, seeds_needed
from flexseg.analysis.tables.metrics import boundary_table, metrics_table, power_table, write_long
from flexseg.analysis.tables.write import ablation_table, comparison_table, factorial_table, write_all
from flexseg.benchmark import Benchmark

NAN = float("nan")
Built = tuple[Benchmark, Path]
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


def read(path: Path) -> list[dict[str, str]]:
    """A CSV file's lines."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_all_files_are_written_and_repeat_byte_by_byte(builder) -> None:
    built = builder(["source_only", "dginstyle", "flexseg"], [0, 1], 6, incidents=False)
    paths = write_tables(*built)
    tables = ("comparison", "ablation", "per_class", "per_condition", "metrics", "boundary", "power", "cost", "origins")
    names = [f"{name}.{suffix}" for name in tables for suffix in ("csv", "md", "tex")]
    assert [path.name for path in paths] == [*names, "scores_long.csv"]
    assert {path.parent for path in paths} == {built[1] / "streetworld" / "tables"}
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_tables(*built)] == first


def test_trouble_stands_in_the_table_with_its_reason(scores: Scores) -> None:
    text = to_markdown(comparison_table(scores))
    for reason in (
        "seed 2 failed: non-finite loss at iteration 371",
        "seed 0 missing: not run",
        "seed 2 stale: other settings than the benchmark file's",
        "seed 2 target night: not evaluated",
        "† made by other code than today's (digest feedfacefeedface)",
    ):
        assert reason in text
    row = next(line for line in text.splitlines() if line.startswith("| – without GAP"))
    assert row.startswith("| – without GAP† |")
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + 10


def test_comparison_csv_agrees_with_the_scores(scores: Scores, tmp_path: Path) -> None:
    write_all(scores, tmp_path)
    lines = read(tmp_path / "comparison.csv")
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


def test_published_numbers_stand_only_beside_rows_that_correspond(scores: Scores) -> None:
    table = comparison_table(scores)
    place = [column.group for column in table.columns].index("published on other data (GTA5 → …)")
    beside = {row.cells[0].text.rstrip("†¹²³⁴\N{THIN SPACE}"): row.cells[place].text for row in table.rows}
    assert beside["DGInStyle data (baseline)"] == "34.81"
    assert beside["FLEX-Seg (tuned)"] == "38.04"
    assert beside["– without HAS"] == "36.15"
    for title in ("Source only", "– without GAP", "Constant boundary weight 2.5", "FLEX-Seg (tuned; aligned)"):
        assert beside[title] == "–"


def test_ablation_names_what_was_not_run(scores: Scores) -> None:
    assert "not run: --config study=factorial" in to_markdown(ablation_table(scores))
    assert to_markdown(factorial_table(scores)).count("not run: --config study=factorial") == 3 + 6


def test_a_benchmark_without_any_run(builder, tmp_path: Path) -> None:
    benchmark, _ = builder(["dginstyle", "flexseg"], [0], 4, incidents=False)
    paths = write_tables(benchmark, tmp_path / "empty")
    assert "seed 0 missing: not run" in paths[1].read_text()
    (text,) = [path.read_text() for path in paths if path.name == "power.md"]
    assert "| Avg5 | – | – | – |" in text


def test_a_value_is_bold_only_by_its_shown_difference(scores: Scores) -> None:
    """By the paired difference, in the better direction of its quantity; never by its height."""
    table, reference, rows = metrics_table(scores), "dginstyle", list(scores.benchmark.rows)
    marks = {"bold": 0, "worse": 0, "highest but not bold": 0}
    for place, column in enumerate(table.columns):
        name = column.title.removesuffix(" ↑").removesuffix(" ↓")
        if name not in scores.quantities:
            continue
        quantity = scores.quantities[name]
        assert column.title.endswith("↑") == quantity.higher_is_better
        means = {row: scores.mean(row, "Avg5", name).value for row in rows}
        best = (max if quantity.higher_is_better else min)(value for value in means.values() if value == value)
        for row, line in zip(rows, table.rows, strict=True):
            cell = line.cells[place]
            assert cell.text.removesuffix("‡") == mean_text(scores.mean(row, "Avg5", name), quantity.digits)
            found = scores.against(row, reference, name)["Avg5"]
            shown = row != reference and found.shown
            better = (found.value > 0) == quantity.higher_is_better
            assert cell.bold == (shown and better)
            assert cell.text.endswith("‡") == (shown and not better)
            marks["bold"] += cell.bold
            marks["worse"] += cell.text.endswith("‡")
            marks["highest but not bold"] += means[row] == best and not cell.bold
    assert all(marks.values()), marks


def test_boundary_table_has_every_row_on_every_target(scores: Scores) -> None:
    table = boundary_table(scores)
    assert [title for title, _ in table.sections()] == [target_title(scores, each) for each in scores.benchmark.targets]
    assert {len(rows) for _, rows in table.sections()} == {10}
    assert [column.title for column in table.columns][1:] == [
        *["1 px", "2 px", "4 px"] * 2, "thin-boundary", "medium-boundary", "thick-boundary", "deep-interior",
    ]  # fmt: skip
    row = table.sections()[1][1][list(scores.benchmark.rows).index("constant_weight")]
    expected = scores.mean("constant_weight", "night", "boundary F1 (2 px)")
    assert row.cells[5].text.removesuffix("‡") == mean_text(expected)
    text = to_tex(table)
    assert r"\begin{table*}" in text
    assert r"\resizebox{\textwidth}{!}{%" in text
    assert r"\multicolumn{3}{c}{boundary IoU $\uparrow$}" in text
    assert r"\multicolumn{4}{c}{error $\downarrow$}" in text
    assert text.count("{") == text.count("}")


def test_power_table_by_the_formulas(scores: Scores) -> None:
    table = power_table(scores)
    assert [row.cells[0].text for row in table.rows] == ["Avg2", "Avg3", "Avg5"]
    noise = scores.noise("Avg5")
    assert noise is not None
    rows = noise.freedom // 2 + 1
    texts = [cell.text for cell in table.rows[2].cells]
    assert texts[1:3] == [number(noise.paired_sd, 2), str(noise.freedom)]
    assert texts[3:6] == [number(100 * power(effect, noise.paired_sd, 3, rows), 0) for effect in (1.0, 1.5, 2.0)]
    assert texts[6] == number(detectable(noise.paired_sd, 3, rows), 2)
    assert texts[7:] == [str(seeds_needed(effect, noise.paired_sd, rows)) for effect in (0.5, 1.0, 1.5, 2.0)]


def test_csv_of_quantities_agrees_with_the_scores(scores: Scores, tmp_path: Path) -> None:
    write_all(scores, tmp_path)
    key = {"row": "flexseg_no_ube", "target": "night", "quantity": "thin-boundary error"}
    (line,) = [line for line in read(tmp_path / "boundary.csv") if key.items() <= line.items()]
    found = scores.against("flexseg_no_ube", "dginstyle", "thin-boundary error")["night"]
    for name in ("value", "low", "high", "p", "p_holm", "effect_size"):
        assert float(line[f"reference_{name}"]) == pytest.approx(getattr(found, name), abs=1e-6)
    assert (line["unit"], line["better"]) == ("%", "lower")
    key = {"row": "dginstyle", "target": "Avg5", "quantity": "mIoU"}
    (line,) = [line for line in read(tmp_path / "metrics.csv") if key.items() <= line.items()]
    gain = scores.against("dginstyle", "source_only")["Avg5"]
    assert float(line["source_only_value"]) == pytest.approx(gain.value, abs=1e-6)
    assert line["reference_value"] == ""


def test_the_long_csv_holds_every_value(scores: Scores, tmp_path: Path) -> None:
    lines = read(write_long(scores, tmp_path))
    assert list(lines[0]) == ["row", "title", "seed", "target", "quantity", "unit", "value"]
    assert len(lines) == 10 * 3 * 8 * (len(scores.quantities) + 1)
    for quantity in scores.quantities:
        key = {"row": "flexseg_no_gap", "target": "Avg3", "quantity": quantity}
        values = [float(line["value"]) for line in lines if key.items() <= line.items()]
        assert values == pytest.approx(scores.per_seed("flexseg_no_gap", "Avg3", quantity), abs=1e-6)
    key = {"row": "dginstyle", "target": "night", "quantity": "mIoU gain over source only"}
    gains = [float(line["value"]) for line in lines if key.items() <= line.items()]
    pairs = scores.per_seed("dginstyle", "night") - scores.per_seed("source_only", "night")
    assert gains == pytest.approx(pairs, abs=1e-6)
    missing = [line for line in lines if line["row"] == "flexseg_tuned_aligned" and line["seed"] == "0"]
    assert {line["value"] for line in missing} == {""}
