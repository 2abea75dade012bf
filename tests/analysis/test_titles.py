"""What people write (titles, descriptions, reasons, options) is printed as it is, by every writer."""

from __future__ import annotations

import csv
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from pypdf import PdfReader

from flexseg.analysis import KINDS, plot_miou, write_report, write_tables
from flexseg.analysis.frames import frame_means
from flexseg.analysis.stats.formats import escape_markdown, escape_tex, write_csv
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark import Benchmark, select_rows
from flexseg.cli.print import print_status
from flexseg.console import terminal

NASTY = (
    r"$\frac$", "one $ alone", r"\begin{document} \input{/etc/passwd}", "{braces} {wildcards.x}", "50 % & # _ ^ ~",
    "<script>alert(1)</script>", "[/red] [bold]x", ":key: :b:", "quotes \" ' `", "emoji \N{FACE WITH TEARS OF JOY}",
    "\u5b57\u5e55\u8bed\u4e49", "\u0627\u0644\u0637\u0631\u064a\u0642", "x" * 399, "=1+1", "+SUM(A1)", "-2", "@cmd",
    "a | b || c", "# heading", "*stars* __bold__", "#set text(red) #eval(\"1\")", "a\\nb \\$ \\", "%s %d {0} {}",
    "../../x/y", "<!-- -->", "[link](http://x) ![picture](y) [a]: b", "&lt; &amp; &#35;", "--- ~~x~~ 1. y", "1. z",
)  # fmt: skip
CODES = "\x1b[31m\x00\x9b\u202e\ufffe"
"""What a reason, an option or a log may hold as well."""
UNWANTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ufffe]")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory, build_results: Callable[..., tuple[Benchmark, Path]]):
    """Results whose rows, domains and reasons bear these titles."""
    rows = {f"row_{place:02d}": {"method": "flexseg", "title": text} for place, text in enumerate(NASTY)}
    ablation = {"components": {"G$AP": "gap"}, "full": ["row_01"], "none": "row_00", "panels": ["row_00", "row_01"]}
    benchmark, results = build_results(
        tmp_path_factory.mktemp("nasty"), [*rows], [0], 2, incidents=False, predictions=1, rows=rows,
        reference="row_00", studies={"default": [*rows]}, ablation=ablation, tuning=None, title=NASTY[0],
        description=" ".join(NASTY),
    )  # fmt: skip
    for place, text in enumerate(NASTY[:5]):
        folder = results / benchmark.name / f"row_{20 + place}" / "seed-0"
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "failure.json").write_text(json.dumps({"status": "failed", "reason": f"{text}\n{CODES}"}))
    path = results / benchmark.name / "row_03" / "seed-0" / "run.json"
    info = json.loads(path.read_text())
    info["options"]["rings"] |= {"value": "".join(NASTY) + CODES, "help": "".join(NASTY) + CODES}
    info["options"] |= {CODES: {"value": [CODES], "default": {CODES: CODES}, "origin": "assumed"}}
    info["git"]["commit"] = info["machine"]["processor"] = CODES
    info["shows"][0] |= {"heading": CODES, "caption": CODES, "panels": {f"loss/{CODES}": CODES, "loss": NASTY[0]}}
    path.write_text(json.dumps(info))
    with path.with_name("train.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": 10**6, f"loss/{CODES}": 1.0, "loss/$x$": 2.0}))
    for path in (results / benchmark.name).glob("row_*/seed-0/evaluation/adverse.parquet"):
        table = pq.read_table(path)
        named = pa.array([f"$a$ {CODES}" if name == "fog" else name for name in table["condition"].to_pylist()])
        place = table.schema.get_field_index("condition")
        pq.write_table(table.set_column(place, "condition", named), path)
    targets = {
        name: domain.model_copy(update={"title": NASTY[place]})
        for place, (name, domain) in enumerate(benchmark.domains.items())
        if name in benchmark.targets
    }
    return benchmark.model_copy(update={"domains": benchmark.domains | targets}), results


def test_tables(nasty: tuple[Benchmark, Path]) -> None:
    benchmark, results = nasty
    for path in write_tables(benchmark, results):
        text = path.read_text()
        assert not UNWANTED.search(text.replace("\r", ""))
        if path.suffix == ".md":
            assert not re.search(r"<(script|!--)", text)
            lines = [line for line in text.splitlines() if line.startswith("| ")]
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        elif path.suffix == ".tex":
            assert r"\begin{document}" not in text
            assert not re.search(r"(?<!\\)#", text)
            assert not re.search(r"^[\[*]", text, re.MULTILINE)  # an argument of the line before
            assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        else:
            with path.open(newline="") as file:
                cells = [cell for line in csv.reader(file) for cell in line]
            assert not [cell for cell in cells if re.match(r"[=@\t\r]|[+-](?![\d.])", cell)], path


@pytest.mark.parametrize("kind", KINDS)
def test_reports(kind: str, nasty: tuple[Benchmark, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexseg.analysis.figures.plate.DPI", 40)
    benchmark, results = nasty
    if kind in ("comparison", "ablation", "figures"):  # which take long to draw; all texts are in the description
        benchmark = select_rows(benchmark, rows=",".join([*[*benchmark.rows][:6], "row_12", "row_20"]))
    output = tmp_path / "reports" / f"{kind}.out"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # matplotlib's, of axes without room
        write_report(benchmark, kind, results, output)
    if output.read_bytes().startswith(b"%PDF"):
        text = "".join(page.extract_text() for page in PdfReader(output).pages)
        assert "[/red] [bold]x" in text
    else:
        assert not UNWANTED.search(output.read_text())
    for path in output.parent.glob("*.svg"):
        ElementTree.fromstring(path.read_text())


@pytest.mark.parametrize("text", NASTY)
def test_markdown_shows_a_text_as_it_is_written(text: str) -> None:
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    assert markdown.render(escape_markdown(text)) == f"<p>{_escaped(text)}</p>\n"
    cells = markdown.render(f"| a |\n| :-- |\n| {escape_markdown(text)} |\n")
    assert f'<td style="text-align:left">{_escaped(text)}</td>' in cells
    for sign in "*_$`":  # GitHub's formulas, and emphasis over several cells, are found by their marks
        assert not re.search(rf"(?<![\\\w])\{sign}(?!\w)", escape_markdown(f"{sign} {sign}"))


def _escaped(text: str) -> str:
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(sign, name)
    return text


@pytest.mark.filterwarnings("ignore:Glyph")
def test_axes_that_somebody_else_made(nasty: tuple[Benchmark, Path], tmp_path: Path) -> None:
    """Their texts were made before our style was on."""
    scores = Scores(load_records(*nasty), replicates=10)
    frame = frame_means(scores).assign(target_title=NASTY[0])
    axes = Figure().subplots()
    axes.set_title("$x$")
    plot_miou(frame[frame["target"] == "night"], ax=axes).savefig(tmp_path / "x.png")
    assert axes.get_title() == NASTY[0]


def test_status_prints_them_literally(nasty: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark, results = nasty
    with (tmp_path / "out").open("w+") as file:
        assert print_status(benchmark, results, terminal(file=file, width=200), retry=False)
        file.seek(0)
        text = file.read()
    assert "$\\frac$ \\x1b[31m" in text
    assert not UNWANTED.search(text)


def test_escapes() -> None:
    assert escape_markdown("a < b, <b>x</b>\n<!-- -->") == "a < b, &lt;b>x&lt;/b> &lt;!-- -->"
    assert escape_tex("a\nb $x$") == r"a b \$x\$"
    assert escape_tex("[0, 1] --config 'a''b' <x>") == r"{}[0, 1] -{}-config 'a'{}'b' \textless{}x\textgreater{}"


def test_formulas_in_csv_are_text(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "x.csv", ["a", "b"], [{"a": "=1+1", "b": -2.5}, {"a": "-x", "b": -3}, {"a": "@x", "b": "-2.5"}]
    )
    assert (tmp_path / "x.csv").read_text() == "a,b\n'=1+1,-2.500000\n'-x,-3\n'@x,-2.5\n"
