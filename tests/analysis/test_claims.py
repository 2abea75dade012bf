"""Verdicts on claims: the rules by hand and by simulation, and every product that shows them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pypdf import PdfReader
from rich.console import Console

from flexseg.analysis import frame_claims, plot_claims, write_report, write_tables
from flexseg.analysis.figures.plates import all_plates
from flexseg.analysis.stats.claims import HERE, REFERENCE, adjust, changes_of, judge, standing, tally
from flexseg.analysis.stats.evidence import Entry, Evidence, Made, Measured, entries_of
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.reference import add_runs, read_reference
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.claims import claim_power_table, claims_table
from flexseg.analysis.web import write_page
from flexseg.benchmark import Benchmark, load_benchmark, select_rows
from flexseg.benchmark.claims import Claims
from flexseg.benchmark.identity import reference_path
from flexseg.cli.print import print_claims
from flexseg.errors import UserError

Built = tuple[Benchmark, Path]
BASE: dict[str, Any] = {
    "text": "A is better.", "place": "Table 1", "family": "f", "row": "a", "reference": "b", "target": "Avg5",
    "smallest": 1.0, "seeds": 6,
}  # fmt: skip


def claims(**each: dict[str, Any]) -> Claims:
    return Claims(families={"f": "First?", "g": "Second?"}, claims={name: BASE | claim for name, claim in each.items()})


class Study:
    """Just what evidence needs of a benchmark: two targets and their average."""

    def __init__(self) -> None:
        self.averages = {"Avg5": ["t", "u"]}


def evidence(**rows: np.ndarray) -> Evidence:
    """Runs whose mIoU on both targets are 50 + these numbers, one a seed, and whose images are all alike."""
    entries = [
        Entry(row, seed, "", Made(), {(t, "mIoU"): Measured(50 + float(value)) for t in ("t", "u")})
        for row, values in rows.items()
        for seed, value in enumerate(values)
    ]
    return Evidence.of(Study(), entries)  # type: ignore[arg-type]


def spread(mean: float, sd: float = 0.5, n: int = 6) -> np.ndarray:
    """``n`` numbers of exactly this mean and standard deviation."""
    values = np.arange(n) - (n - 1) / 2
    return mean + sd * values / values.std(ddof=1)


NOTHING = np.zeros(12)


@pytest.mark.parametrize(
    ("mean", "sd", "verdict", "remark"),
    [
        (2.0, 0.5, "reproduced", ""),
        (0.5, 0.2, "reproduced", "smaller than what would matter"),
        (0.0, 0.5, "refuted", ""),
        (-2.0, 0.5, "refuted", "opposite shown"),
        (0.5, 0.8, "undecided", "takes 8 seeds"),
        (0.9, 2.0, "undecided", "takes 34 seeds"),
    ],
)
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_verdicts(mean: float, sd: float, verdict: str, remark: str, direction: str) -> None:
    sign = 1 if direction == "higher" else -1
    (found,) = judge(claims(one={"direction": direction}), evidence(a=sign * spread(mean, sd), b=NOTHING))
    assert (found.verdict, found.remark) == (verdict, remark)
    (part,) = found.parts
    low, high = sorted(sign * end for end in (part.paired.low, part.paired.high))
    assert (low > 0) == (verdict == "reproduced")
    assert (high < 1.0) == (verdict == "refuted" or "smaller" in remark)


def test_no_verdict_before_all_seeds() -> None:
    (found,) = judge(claims(one={"seeds": 7}), evidence(a=spread(5.0), b=NOTHING))
    assert (found.verdict, found.remark, found.n) == ("undecided", "6 of 7 seeds", 6)
    (found,) = judge(claims(one={}), evidence(a=NOTHING))
    assert (found.verdict, found.remark, found.n) == ("undecided", "no run yet", 0)
    (found,) = judge(claims(one={}), evidence(a=spread(5.0, n=8), b=NOTHING))
    assert (found.verdict, found.n) == ("reproduced", 8), "more seeds than asked for are used"


def test_holm_is_over_the_claims_of_a_family_slowly() -> None:
    means = {"one": 0.62, "two": 0.70, "three": 2.0, "four": 0.02}
    each = {name: {"row": f"a_{name}", "family": "g" if name == "four" else "f"} for name in means}
    rows = {f"a_{name}": spread(mean) for name, mean in means.items()}
    found = {each.name: each for each in judge(claims(**each), evidence(b=NOTHING, **rows))}
    ordered = sorted(("one", "two", "three"), key=lambda name: found[name].p)
    assert ordered == ["three", "two", "one"]
    highest = 0.0
    for rank, name in enumerate(ordered):
        highest = max(highest, min(1.0, (3 - rank) * found[name].p))
        assert found[name].p_holm == pytest.approx(highest)
    assert found["four"].p_holm == found["four"].p, "another family"


def test_a_claim_that_waits_counts_in_its_family() -> None:
    """So its arrival cannot take a verdict back that was given before."""
    runs = evidence(a=spread(0.65), b=NOTHING)
    (alone,) = judge(claims(one={}), runs)
    beside, _, _ = judge(claims(one={}, two={"row": "c"}, three={"row": "d"}), runs)
    assert alone.verdict == "reproduced"
    assert beside.verdict == "undecided"
    assert beside.p_holm == pytest.approx(3 * alone.p)


def test_the_best_must_beat_each_and_loses_to_one() -> None:
    best = {"reference": ["b", "c"], "rule": "best"}
    runs = {"a": spread(3.0), "b": NOTHING}
    (found,) = judge(claims(one=best), evidence(c=spread(1.0, 0.5)[::-1], **runs))
    assert found.verdict == "reproduced"
    assert found.p == max(part.p for part in found.parts)
    (found,) = judge(claims(one=best), evidence(c=spread(2.6, 0.5)[::-1], **runs))
    assert (found.verdict, found.weakest.against) == ("undecided", "c")
    (found,) = judge(claims(one=best), evidence(c=spread(3.3, 0.2), **runs))
    assert (found.verdict, found.weakest.against) == ("refuted", "c")
    assert found.p_refuted == pytest.approx(2 * found.parts[1].p_refuted)


def test_wrong_verdicts_are_rare() -> None:
    """Family-wise, of five claims: a false *reproduced* where there is nothing, a false *refuted* where there is δ."""
    rng, trials = np.random.default_rng(3), 400
    study = claims(**{f"c{k}": {"row": f"a{k}"} for k in range(5)})
    for truth, wrong in ((0.0, "reproduced"), (1.0, "refuted")):
        alarms = 0
        for _ in range(trials):
            rows = {f"a{k}": truth + rng.normal(0, 0.2 + 0.3 * k, 6) for k in range(5)}
            found = judge(study, evidence(b=rng.normal(0, 0.3, 6), **rows))
            alarms += any(each.verdict == wrong for each in found)
        assert alarms / trials <= 0.025 + 2.5 * np.sqrt(0.025 * 0.975 / trials)


def test_planned_power_is_kept() -> None:
    """The share of studies that show δ, or refute it where there is nothing, is what the power said."""
    rng, trials = np.random.default_rng(5), 600
    study = claims(one={})
    (plan,) = judge(study, evidence(a=spread(0.0, 0.75), b=NOTHING))
    for truth, verdict in ((1.0, "reproduced"), (0.0, "refuted")):
        hits = sum(
            judge(study, evidence(a=rng.normal(truth, 0.75, 6), b=NOTHING))[0].verdict == verdict for _ in range(trials)
        )
        assert hits / trials == pytest.approx(plan.power, abs=0.06)


def test_adjusting_twice_is_adjusting_once() -> None:
    found = judge(claims(one={}, two={"row": "c"}), evidence(a=spread(0.6), b=NOTHING, c=spread(0.7)))
    assert adjust(found) == found


# ---- what is shown of them

STUDY: dict[str, Any] = {
    "families": {"method": "Does FLEX-Seg help?", "premise": "Where does it go wrong?"},
    "claims": {
        "gain": {"text": "FLEX-Seg scores higher.", "place": "main table", "family": "method", "row": "flexseg_tuned",
                 "reference": "dginstyle", "target": "Avg5", "published": 2.11, "smallest": 1.0, "seeds": 6},
        "best": {"text": "FLEX-Seg is the best.", "place": "policies", "family": "method", "row": "flexseg_tuned",
                 "reference": ["dginstyle", "constant_weight"], "rule": "best", "target": "Avg2", "smallest": 0.5,
                 "seeds": 6},
        "edges": {"text": "Boundaries are <b>harder</b>.", "place": "figure", "family": "premise", "row": "dginstyle",
                  "target": "Avg3", "measure": "boundary error", "reference_measure": "interior error",
                  "smallest": 1.0, "seeds": 6},
        "later": {"text": "Two full rows differ.", "place": "–", "family": "premise", "row": "flexseg",
                  "reference": "dginstyle", "target": "Avg5", "smallest": 1.0, "seeds": 12},
    },
}  # fmt: skip
ROWS = ["dginstyle", "flexseg_tuned", "constant_weight"]


@pytest.fixture(scope="module")
def built(build_results: Callable[..., Built], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Three rows with six seeds, and claims about them and a fourth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flexseg.analysis.stats.records.code_digest", lambda *_: "today")
        return build_results(
            tmp_path_factory.mktemp("claims"), ROWS, list(range(6)), 16, False, claims=STUDY, predictions=0
        )


@pytest.fixture
def both(built: Built, tmp_path: Path) -> Built:
    """All runs in the reference file; three seeds of two rows here."""
    benchmark, results = built
    top = Path(shutil.copytree(results.parent, tmp_path / "both"))
    benchmark = load_benchmark("streetworld", top / "benchmarks")
    selected = select_rows(benchmark, rows=",".join(ROWS))
    entries = entries_of(load_records(selected, results))
    add_runs(reference_path(benchmark, benchmark.home), selected, entries)
    return select_rows(benchmark, rows="dginstyle,flexseg_tuned", seeds="0,1,2"), results


def test_each_side_is_judged_alone(built: Built, both: Built) -> None:
    found = standing(load_records(*built))
    assert list(found.sides) == [HERE]
    assert [each.name for each in found.here] == ["gain", "best", "edges", "later"]
    assert [each.verdict for each in found.here] == ["reproduced", "reproduced", "reproduced", "undecided"]
    assert found.here[3].remark == "no run yet"
    found = standing(load_records(*both))
    assert list(found.sides) == [REFERENCE, HERE]
    assert tally(found.reference) == {"reproduced": 3, "refuted": 0, "undecided": 1}
    assert [each.remark for each in found.here] == ["3 of 6 seeds", "no run yet", "3 of 6 seeds", "no run yet"]
    empty = standing(load_records(both[0], both[1] / "none"))
    assert list(empty.sides) == [REFERENCE]


def test_runs_of_another_definition_are_left_out_and_named(both: Built) -> None:
    benchmark = both[0]
    (benchmark.methods / "boundary_policy.py").write_text("x = 1\n")
    found = standing(load_records(*both))
    assert found.other == {"constant_weight": ["method file"]}
    assert found.reference[1].n == 0
    assert found.reference[0].verdict == "reproduced"


def test_the_table_shows_published_beside_measured(both: Built) -> None:
    table = claims_table(Scores(load_records(*both)))
    assert [title for title, _ in table.groups()] == ["", REFERENCE, HERE]
    sections = dict(table.sections())
    gain, best = ([cell.text for cell in row.cells] for row in sections["Does FLEX-Seg help?"])
    assert gain[:3] == ["FLEX-Seg scores higher.", "main table", "+2.11"]
    assert gain[4:6] == ["6", "✓ reproduced"]
    assert gain[7:] == ["3", "? undecided (3 of 6 seeds)"]
    assert best[0].startswith("FLEX-Seg is the best. (Of 2 contrasts, the weakest: against “Constant boundary weight")
    assert best[6:] == ["–", "0", "–"]


def test_every_product_shows_them(both: Built, tmp_path: Path) -> None:
    benchmark, results = both
    paths = write_tables(benchmark, results)
    names = [path.name for path in paths]
    assert {"claims.csv", "claims.md", "claims.tex"} <= set(names)
    lines = next(path for path in paths if path.name == "claims.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 5, "a line for each side and contrast"
    for kind, name in (("claims", "claims.pdf"), ("page", "index.html"), ("summary", "summary.md")):
        write_report(benchmark, kind, results, tmp_path / name)  # type: ignore[arg-type]
    text = " ".join(page.extract_text() for page in PdfReader(tmp_path / "claims.pdf").pages)
    for part in ("By the repository's runs, of 4 claims: 3 reproduced", "Example CPU", "What these seeds can show"):
        assert part in " ".join(text.split())
    page = (tmp_path / "index.html").read_text()
    assert '<section id="claims"' in page
    assert "Boundaries are &lt;b&gt;harder&lt;/b&gt;." in page
    assert "data:image/svg+xml;base64," in page
    assert "claims" in (tmp_path / "summary.md").read_text()
    assert "claims" in [plate.name for plate in all_plates(Scores(load_records(benchmark, results)))]


def test_the_report_from_the_reference_alone(both: Built, tmp_path: Path) -> None:
    benchmark, _ = both
    write_report(benchmark, "claims", tmp_path / "nothing", tmp_path / "claims.pdf")
    text = " ".join(" ".join(page.extract_text() for page in PdfReader(tmp_path / "claims.pdf").pages).split())
    assert "By the repository's runs, of 4 claims" in text
    assert "By these runs" not in text


def test_the_report_of_nothing_says_so(both: Built, tmp_path: Path) -> None:
    benchmark, _ = both
    reference_path(benchmark, benchmark.home).unlink()
    write_report(benchmark, "claims", tmp_path / "nothing", tmp_path / "claims.pdf")
    text = " ".join(" ".join(page.extract_text() for page in PdfReader(tmp_path / "claims.pdf").pages).split())
    assert "Neither the repository nor these results have a run that a claim needs." in text


def test_the_same_inputs_give_the_same_bytes(both: Built, tmp_path: Path) -> None:
    benchmark, results = both
    for name in ("a", "b"):
        write_report(benchmark, "claims", results, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_without_claims_there_is_no_product(small: Built, tmp_path: Path) -> None:
    benchmark, results = small
    with pytest.raises(UserError, match="makes no claims: name a file of them"):
        write_report(benchmark, "claims", results, tmp_path / "claims.pdf")
    scores = Scores(load_records(*small), replicates=50)
    write_page(scores, tmp_path / "index.html")
    assert 'id="claims"' not in (tmp_path / "index.html").read_text()
    assert frame_claims(scores).empty


def test_the_frame_is_signed_and_its_picture_has_a_line_for_each_contrast(both: Built) -> None:
    scores = Scores(load_records(*both))
    frame = frame_claims(scores)
    assert len(frame) == 2 * 5
    assert list(frame["title"])[:3] == [
        "FLEX-Seg scores higher.", "FLEX-Seg is the best. – against DGInStyle data (baseline)",
        "– against Constant boundary weight 2.5",
    ]  # fmt: skip
    assert (frame.dropna(subset="low")["low"] <= frame.dropna(subset="low")["high"]).all()
    (axes,) = plot_claims(scores).axes
    assert len(axes.get_yticks()) == 5
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_claims(frame[:0])


def test_power_is_told_for_each_contrast(both: Built) -> None:
    scores = Scores(load_records(*both))
    table = claim_power_table(scores, standing(scores.records))
    assert len(table.rows) == 5
    assert [cell.text for cell in table.rows[-1].cells][1:] == ["0", "–", "–", "–", "–", "–", "1.00", "–", "–"]


def test_verify_says_which_verdicts_change(both: Built) -> None:
    benchmark, results = both
    path = reference_path(benchmark, benchmark.home)
    reference = read_reference(path, benchmark)
    records = load_records(benchmark, results)
    console = Console(file=io.StringIO(), width=200)
    print_claims(*changes_of(records, reference), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Claims by the reference: 3 reproduced, 0 refuted, 1 undecided." in text
    assert "would change no verdict" in text
    worse = [
        Entry(e.row, e.seed, e.definition, e.made, {
            key: Measured(m.value + (20 if e.row == "dginstyle" and key[1] == "mIoU" else 0), m.groups)
            for key, m in e.measured.items()
        })
        for e in reference.entries
    ]  # fmt: skip
    add_runs(path, benchmark.whole, worse, replace=True)
    print_claims(*changes_of(records, read_reference(path, benchmark)), console)
    assert "gain: refuted → undecided with these runs (FLEX-Seg scores higher.)" in console.file.getvalue()  # type: ignore[attr-defined]
