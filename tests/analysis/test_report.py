"""The reports: what they say, and that a page sets it whole, literally and the same every time; and their words."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from pypdf import PageObject, PdfReader, Transformation
from pypdf.generic import DictionaryObject

from flexseg.analysis import write_report
from flexseg.analysis.figures.plates import Plate
from flexseg.analysis.report import pdf
from flexseg.analysis.stats.effects import all_cells
from flexseg.analysis.stats.formats import Cell, Column, Row, Table, difference_text
from flexseg.analysis.stats.published import published_effects
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference
from flexseg.analysis.stats.verdict import conclude, power_statement, verdict
from flexseg.analysis.tables import content
from flexseg.analysis.tables.common import POOLED
from flexseg.benchmark import Benchmark, load_benchmark, select_rows
from flexseg.benchmark import Row as BenchmarkRow
from flexseg.citation import suite
from flexseg.errors import UserError

ROOT = Path(__file__).parents[2]
Built = tuple[Benchmark, Path]
NAN = float("nan")
KINDS: tuple[content.Kind, ...] = ("comparison", "ablation")
LIMITS = {"comparison": 12, "ablation": 16}
HOSTILE = 'x #eval("1") $a$ *b* _c_ <l> @ref \\ `d` // e /* f */'
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


def texts(path: Path) -> list[str]:
    """The text of each page, lines joined."""
    return [" ".join(page.extract_text().split()) for page in PdfReader(path).pages]


def font_kinds(resources: DictionaryObject) -> set[str]:
    """The kinds of all fonts of a page and of the figures on it."""
    fonts = resources.get("/Font", DictionaryObject()).get_object()
    found = {font.get_object()["/Subtype"] for font in fonts.values()}
    for form in resources.get("/XObject", DictionaryObject()).get_object().values():
        inner = form.get_object().get("/Resources")
        found |= font_kinds(inner.get_object()) if inner is not None else set()
    return found


def test_same_bytes_in_two_processes_and_no_torch(small: Built, tmp_path: Path) -> None:
    benchmark, results = small
    rows = "dginstyle,flexseg_tuned"
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(results.parent), str(tmp_path), rows]
    subprocess.run(command, check=True)
    for kind in KINDS:
        path = tmp_path / f"{kind}.pdf"
        write_report(select_rows(benchmark, rows=rows), kind, results, path)
        assert path.read_bytes() == (tmp_path / f"other_{kind}.pdf").read_bytes()
        reader = PdfReader(path)
        assert reader.metadata is not None
        assert reader.metadata.title == f"Street world: {kind} report"
        assert reader.metadata.subject == "Protocol streetworld-v1"
        assert reader.metadata.creation_date is None
        kinds = set().union(*(font_kinds(page["/Resources"].get_object()) for page in reader.pages))
        assert kinds == {"/Type0"}, "fonts are embedded, and none is of type 3"


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_benchmark_is_answered_on_page_one_of_few(builder, tmp_path: Path, kind: content.Kind) -> None:
    default = select_rows(load_benchmark("streetworld_small", ROOT / "benchmarks"))
    benchmark, results = builder(list(default.rows), list(default.seeds), 4)
    assert (len(benchmark.rows), len(benchmark.seeds)) == (17, 3)
    pdf.make_report(Scores(load_records(benchmark, results), replicates=50), kind, tmp_path / "a.pdf")
    pages = texts(tmp_path / "a.pdf")
    assert len(pages) <= LIMITS[kind]
    for word in ("Asked", "Answer", "How sure", "Figure 1. ", "The numbers rest on 48 of 51 planned runs."):
        assert word in pages[0]
    assert pages[0].endswith(f"Street world: {kind} report 1 of {len(pages)}")
    whole = " ".join(pages)
    assert "seed 2 failed: non-finite loss at iteration 371" in whole
    assert "Qualitative panels (1 of 3)." in whole
    assert "On the page only: Qualitative panels (2 of 3); Qualitative panels (3 of 3)." in whole


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_and_nothing_at_all(builder, tmp_path: Path, kind: content.Kind) -> None:
    benchmark, results = builder(["dginstyle"], [0], 4, incidents=False)
    unpaired = benchmark.ablation.model_copy(update={"aligned": {}})  # leaves the table of the ablation without lines
    benchmark = benchmark.model_copy(update={"ablation": unpaired})
    write_report(benchmark, kind, results, tmp_path / "a.pdf")
    write_report(benchmark, kind, tmp_path / "nothing", tmp_path / "b.pdf")
    one, none = texts(tmp_path / "a.pdf"), texts(tmp_path / "b.pdf")
    assert "What does “DGInStyle data (baseline)” score on 5 target domains" in one[0] or kind == "ablation"
    assert "The numbers rest on 1 of 1 planned run." in one[0]
    assert "No run of these rows was finished." in none[0]


def test_a_complete_factorial_gets_its_effects(builder) -> None:
    rows = {"dginstyle": {"method": "dginstyle"}, "full": {"method": "flexseg", "title": "Full"}}
    for cell in all_cells(3)[1:-1]:
        off = {name: False for name, on in zip(("gap", "ube", "has"), cell, strict=True) if not on}
        rows["no_" + "_".join(off)] = {"extends": "full", **off}
    ablation = {"components": {"GAP": "gap", "UBE": "ube", "HAS": "has"}, "full": ["full"], "none": "dginstyle",
                "panels": ["dginstyle", "full"]}  # fmt: skip
    changes = {"rows": rows, "ablation": ablation, "studies": {"default": list(rows)}, "tuning": None}
    benchmark, results = builder(list(rows), [0, 1], 4, incidents=False, **changes)
    scores = Scores(load_records(benchmark, results), replicates=50)
    assert "Averaged over the whole factorial: GAP " in dict(verdict(scores))["Which component does it?"]
    document, plates = pdf.compose(scores, "ablation")
    assert {"ablation", "factorial", "factorial_full"} == {item["name"] for item in items(document, "components")}
    assert "factorial_full" in {plate.name for plate in plates}
    rows_left = {name: row for name, row in benchmark.rows.items() if name != "no_gap"}
    fewer = Scores(load_records(benchmark.model_copy(update={"rows": rows_left}), results), replicates=50)
    document, _ = pdf.compose(fewer, "ablation")
    assert {"ablation"} == {item["name"] for item in items(document, "components")}
    why = dict(items(document, "elsewhere")[-1]["pairs"])["Factorial effects around “Full”"]
    assert why == "The factorial is not complete. Not run"  # the benchmark has no study for it


def items(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The items of the section ``key``."""
    (section,) = [section for section in document["sections"] if section["key"] == key]
    return section["items"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_ends_with_how_to_cite_it(scores: Scores, kind: content.Kind) -> None:
    document, _ = pdf.compose(scores, kind)
    assert document["sections"][-1]["key"] == "cite"
    assert items(document, "cite") == [{"type": "text", "text": [content.citations(scores)]}]


def test_the_suite_and_the_papers_of_the_rows_are_cited_once_each(scores: Scores, tmp_path: Path) -> None:
    """Rows share methods; one stands on another; a method's file may be gone, and one may name no paper."""
    for name, paper in {"dginstyle": "Jia et al., A $x$ <b>, ECCV 2024", "flexseg": "", "source_only": None}.items():
        line = f"    paper = {paper!r}\n" if paper is not None else ""
        (tmp_path / f"{name}.py").write_text(f"class X:\n    title = 'x'\n{line}")
    (tmp_path / "top.py").write_text(
        "class X:\n    paper = 'Choi et al., B, CVPR 2021; Jia et al., A $x$ <b>, ECCV 2024'\n"
    )
    rows = dict(scores.benchmark.rows) | {"stacked": BenchmarkRow(method="top", base="gone", title="Stacked")}
    benchmark = scores.benchmark.model_copy(update={"rows": rows}).with_methods(tmp_path)
    records = replace(scores.records, benchmark=benchmark)
    found = content.citations(Scores(records))
    assert found.startswith(f"If you use these results, please cite the suite ({suite().text}) and the papers of ")
    assert found.endswith("the methods shown: Jia et al., A $x$ <b>, ECCV 2024; Choi et al., B, CVPR 2021.")
    none = replace(scores.records, benchmark=benchmark.with_methods(tmp_path / "nowhere"))
    assert content.citations(Scores(none)) == f"If you use these results, please cite the suite ({suite().text})."


def test_what_a_figure_cannot_show_is_said_with_its_reason(
    scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plates = [
        Plate("first", "Heading A", "", Figure, "because of A"),
        Plate("second", "Heading B", "What B shows.", lambda: Figure((7, 2))),
    ]
    monkeypatch.setattr(pdf, "comparison_plates", lambda scores: plates)
    monkeypatch.setattr(pdf, "render", lambda plate, kind: picture(plate.draw()))
    document, drawn = pdf.compose(scores, "comparison")
    assert document["front"]["shown"] is None
    assert [plate.name for plate in drawn] == ["second"]
    assert ["Heading A", "because of A"] in items(document, "elsewhere")[-1]["pairs"]
    pdf.make_report(scores, "comparison", tmp_path / "a.pdf")
    whole = " ".join(texts(tmp_path / "a.pdf"))
    assert "Heading A because of A" in whole
    assert "Figure 1. Heading B. What B shows." in whole


def picture(figure: Figure) -> bytes:
    """A figure as PDF."""
    target = BytesIO()
    figure.savefig(target, format="pdf")
    return target.getvalue()


def test_intervals_are_explained_once_and_a_table_without_lines_is_missing(
    scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Table("origins", "Origins", "", [Column("Row", "l")], [])
    monkeypatch.setattr(pdf, "origins_table", lambda scores: empty)
    document, _ = pdf.compose(scores, "comparison")
    assert items(document, "intervals") == [{"type": "text", "text": [POOLED]}]
    captions = [item["caption"] for section in document["sections"] for item in section["items"] if "caption" in item]
    assert not any(POOLED in part for caption in captions for part in caption if isinstance(part, str))
    assert {"ref": "section-intervals"} in items(document, "scores")[0]["caption"]
    assert "origins" not in {item["name"] for item in items(document, "cost")}
    assert ["Origins", "There is nothing to tabulate."] in items(document, "elsewhere")[-1]["pairs"]


def small_document(*tables: Table, title: str = "A title") -> dict[str, Any]:
    """A document with tables in one section."""
    listed = [vars(table) | {"type": "table", "heading": table.title, "caption": [table.caption]} for table in tables]
    for table in listed:
        table["columns"] = [vars(column) for column in table["columns"]]
        table["rows"] = [{"section": row.section, "cells": [vars(cell) for cell in row.cells]} for row in table["rows"]]
    front = {"asked": [title], "measured": [title], "answers": [[title]], "shown": None, "sure": [[title]]}
    text, pairs = {"type": "text", "text": [title]}, {"type": "pairs", "pairs": [[title, title]]}
    sections = [{"key": "tables", "heading": title, "items": [text, pairs, *listed]}]
    return {"title": title, "kind": "comparison", "subject": "S", "front": front, "sections": sections}


def typeset(document: dict[str, Any], folder: Path) -> PdfReader:
    """The set document."""
    return PdfReader(BytesIO(pdf.typeset(document, folder)))


def table_of(columns: int, rows: int, text: str, **changes: Any) -> Table:
    """A table whose cells say where they stand."""
    heads = [Column("Row", "l"), *[Column(f"H{place}") for place in range(1, columns)]]
    lines = [Row((Cell(f"r{r}"), *[Cell(f"{text}{r}.{c}") for c in range(1, columns)])) for r in range(rows)]
    return Table(**({"name": "t", "title": "T", "caption": "C", "columns": heads, "rows": lines} | changes))


def test_text_of_the_user_is_set_literally_wherever_it_stands(tmp_path: Path) -> None:
    cells = Row((Cell(HOSTILE, bold=True), Cell(HOSTILE)), HOSTILE)
    table = Table(
        "t", HOSTILE, HOSTILE, [Column(HOSTILE, "l", HOSTILE), Column(HOSTILE, "r")], [cells], [("†", HOSTILE)]
    )
    reader = typeset(small_document(table, title=HOSTILE), tmp_path)
    whole = "".join(page.extract_text() for page in reader.pages).replace("\n", "").replace(" ", "")
    # title, feet, asked, measured, answer, sure; contents, heading, text, pair; table with head, lines and note
    assert whole.count(HOSTILE.replace(" ", "")) == 7 + 5 + 9
    assert reader.metadata is not None
    assert reader.metadata.title == HOSTILE


def test_a_table_turns_its_page_or_goes_in_parts_before_it_gets_too_small(tmp_path: Path) -> None:
    shapes = []
    for columns in (5, 14, 40):
        reader = typeset(small_document(table_of(columns, 3, "12345678")), tmp_path)
        found = [place for page in reader.pages[1:] for place in places(page)]
        assert {f"123456782.{place}" for place in range(1, columns)} <= {text for text, _ in found}
        assert [text for text, inside in found if not inside] == []
        shapes.append([page.mediabox.width > page.mediabox.height for page in reader.pages])
    assert shapes == [[False, False], [False, False, True], [False, False]]


def places(page: PageObject) -> list[tuple[str, bool]]:
    """The pieces of text of a page, and whether each begins within the margins."""
    found: list[tuple[str, bool]] = []
    width, height = float(page.mediabox.width), float(page.mediabox.height)

    def note(text: str, outer: list[float], inner: list[float], *_: Any) -> None:
        x, y = Transformation(tuple(outer)).apply_on(inner[4:])
        if text.strip():
            found.append((text.strip(), 45 < x < width - 45 and 30 < y < height - 45))

    page.extract_text(visitor_text=note)
    return found


def test_a_long_table_goes_on_with_its_head_and_short_ones_share_a_page(tmp_path: Path) -> None:
    reader = typeset(small_document(table_of(4, 150, "x")), tmp_path)
    heads = [page.extract_text().count("H3") for page in reader.pages]
    assert heads == [0, 1, 1, 1]
    short = [table_of(4, 5, "x", name=name) for name in "abc"]
    assert len(typeset(small_document(*short), tmp_path).pages) == 2


def test_a_template_that_cannot_be_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "report.typ"
    broken.write_text("#nobody-knows-this")
    monkeypatch.setattr(pdf, "TEMPLATE", broken)
    (tmp_path / "work").mkdir()
    with pytest.raises(UserError, match=r"template cannot be set \(.*report\.typ\).*\n?.*nobody-knows-this"):
        pdf.typeset(small_document(), tmp_path / "work")


def test_the_question_and_the_tally_count_rows(scores: Scores) -> None:
    assert content.question(scores, "comparison").startswith(
        "Which of 9 settings of training score higher than “DGInStyle"
    )
    assert "each component (GAP, UBE, HAS) add to “FLEX-Seg (tuned)”" in content.question(scores, "ablation")
    answer = content.answers(scores, "comparison")[-1]
    found = re.match(
        r"Of the other 9 rows, (\d) scores? higher on Avg5 than .* and (\d) scores? lower; for (\d) no", answer
    )
    assert found is not None
    against = [scores.against(row, "dginstyle")["Avg5"] for row in scores.benchmark.rows if row != "dginstyle"]
    judged_rows = [each for each in against if each.n > 1]
    higher, lower = (sum(each.shown and sign * each.value > 0 for each in judged_rows) for sign in (1, -1))
    assert [int(count) for count in found.groups()] == [higher, lower, len(judged_rows) - higher - lower]
    assert answer.endswith(f"and {9 - len(judged_rows)} cannot be judged for want of runs.")


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.3, -0.6, 1.2, 0.4, 4), "no difference could be shown, +0.3 [−0.6, 1.2]"),
        ((1.3, 0.6, 2.0, 0.01, 4), "helps, +1.3 [0.6, 2.0]"),
        ((-1.3, -2.0, -0.6, 0.01, 4), "harms, −1.3 [−2.0, −0.6]"),
        ((5.0, NAN, NAN, NAN, 1), "+5.0 [–] from a single seed, from which nothing can be concluded"),
        ((NAN, NAN, NAN, NAN, 0), "not comparable, as no seed has finished both"),
    ],
)
def test_words_say_no_more_than_the_numbers(numbers: tuple[Any, ...], text: str) -> None:
    assert conclude(Difference(*numbers), "helps", "harms") == text


def test_verdict_answers_with_the_numbers_of_the_table(scores: Scores) -> None:
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


def test_a_control_that_was_not_run_is_said_to_be_so_and_moves_no_other(
    small: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its difference is no number, which has no place in an order by size."""
    monkeypatch.setattr("flexseg.analysis.stats.verdict.MANY", 0)
    benchmark, results = small
    rows = {"nothing": BenchmarkRow(method="dginstyle", title="Waits for a package"), **benchmark.rows}
    with_it = benchmark.model_copy(update={"rows": rows})

    def sentences(selected: Benchmark) -> list[str]:
        scores = Scores(load_records(selected, results), replicates=200)
        return dict(verdict(scores))["What do the controls say?"].split(". ")

    first, second, _ = sentences(with_it)
    ending = "; not comparable, as no seed has finished both: “Waits for a package”"
    assert first.endswith(ending)
    assert second.endswith(ending)
    assert [sentence.removesuffix(ending) for sentence in (first, second)] == sentences(benchmark)[:2]


def test_power_statement_names_spread_power_and_seeds(scores: Scores) -> None:
    text = power_statement(scores)
    assert "as large as published the power is: GAP (+1.2) 100 %, UBE (+0.7) 100 %, HAS (+0.5) " in text
    found = published_effects(scores.records, "Avg5")
    expected = {"GAP": 47.69 - 46.47, "UBE": 47.21 - 46.47, "HAS": 48.58 - 48.10}  # the paper's table of components
    assert found == pytest.approx(expected)
    assert published_effects(scores.records, "Night") == {}
    assert re.search(r"Sd of a paired difference on Avg5: \d\.\d\d \(residual of the table of \d+ rows × 3 seeds", text)
    assert re.search(r"these 3 seeds sees 1\.5 mIoU with power \d+ % .* 1 mIoU needs \d+ seeds", text)
