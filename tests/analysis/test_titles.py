"""What people write (titles, descriptions, reasons, options) is printed as it is, by every writer."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pypdf import PdfReader

from flexseg.analysis import KINDS, write_report, write_tables
from flexseg.analysis.stats.formats import escape_markdown, escape_tex, write_csv
from flexseg.benchmark import Benchmark
from flexseg.cli.print import print_status
from flexseg.console import terminal

NASTY = (
    r"$\frac$", "one $ alone", r"\begin{document} \input{/etc/passwd}", "{braces} {wildcards.x}", "50 % & # _ ^ ~",
    "<script>alert(1)</script>", "[/red] [bold]x", ":key: :b:", "quotes \" ' `", "emoji \N{FACE WITH TEARS OF JOY}",
    "\u5b57\u5e55\u8bed\u4e49", "\u0627\u0644\u0637\u0631\u064a\u0642", "x" * 399, "=1+1", "+SUM(A1)", "-2", "@cmd",
    "a | b || c", "# heading", "*stars* __bold__", "#set text(red) #eval(\"1\")", "a\\nb \\$ \\", "%s %d {0} {}",
    "../../x/y", "<!-- -->",
)  # fmt: skip


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
        (folder / "failure.json").write_text(json.dumps({"status": "failed", "reason": f"{text}\n\x1b[31m"}))
    path = results / benchmark.name / "row_03" / "seed-0" / "run.json"
    info = json.loads(path.read_text())
    info["options"]["rings"] |= {"value": "".join(NASTY), "help": "".join(NASTY)}
    path.write_text(json.dumps(info))
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
        assert "\x1b" not in text
        if path.suffix == ".md":
            assert not re.search(r"<(script|!--)", text)
            lines = [line for line in text.splitlines() if line.startswith("| ")]
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        elif path.suffix == ".tex":
            assert r"\begin{document}" not in text
            assert not re.search(r"(?<!\\)#", text)
            assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        else:
            with path.open(newline="") as file:
                cells = [cell for line in csv.reader(file) for cell in line]
            assert not [cell for cell in cells if re.match(r"[=@\t\r]|[+-](?![\d.])", cell)], path


@pytest.mark.parametrize("kind", KINDS)
def test_reports(kind: str, nasty: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark, results = nasty
    output = tmp_path / "reports" / f"{kind}.out"
    write_report(benchmark, kind, results, output)
    if output.read_bytes().startswith(b"%PDF"):
        text = "".join(page.extract_text() for page in PdfReader(output).pages)
        assert "[/red] [bold]x" in text
    else:
        assert output.stat().st_size > 0


def test_status_prints_them_literally(nasty: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark, results = nasty
    with (tmp_path / "out").open("w+") as file:
        assert print_status(benchmark, results, terminal(file=file, width=200), retry=False)
        file.seek(0)
        text = file.read()
    assert "$\\frac$ \\x1b[31m" in text


def test_escapes() -> None:
    assert escape_markdown("a < b, <b>x</b>\n<!-- -->") == "a < b, &lt;b>x&lt;/b> &lt;!-- -->"
    assert escape_tex("a\nb $x$") == r"a b \$x\$"


def test_formulas_in_csv_are_text(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", ["a", "b"], [{"a": "=1+1", "b": -2.5}, {"a": "-x", "b": -3}, {"a": "@x", "b": "x"}])
    assert (tmp_path / "x.csv").read_text() == "a,b\n'=1+1,-2.500000\n'-x,-3\n'@x,x\n"
