"""Files of claims: what they say, every mistake as one message, the studies that they make, and the shipped file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flexseg.benchmark import Benchmark, benchmark_names, load_benchmark, select_rows
from flexseg.benchmark.claims import Claims, Term, first_seeds, read_claims
from flexseg.benchmark.identity import Run, evidence_files
from flexseg.errors import UserError
from flexseg.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "benchmarks" / "claims.yaml"
ROWS = [
    "source_only", "dginstyle", "flexseg", "flexseg_no_gap", "flexseg_no_ube", "flexseg_no_has", "gap_alone",
    "ube_alone", "has_alone", "dginstyle_aligned", "flexseg_aligned", "constant_weight", "gap_one", "gap_two",
    "has_linear", "has_at_once", "has_exchanged", "boundary_ignore", "boundary_reduce", "boundary_clip",
    "dginstyle_few", "dginstyle_many", "flexseg_few", "flexseg_many", "dginstyle_second", "flexseg_second",
    "flexseg_unscaled",
]  # fmt: skip
"""The rows that a benchmark of the paper's claims has."""
BASE: dict[str, Any] = {
    "text": "FLEX-Seg scores higher.", "place": "main table", "family": "method", "row": "flexseg",
    "reference": "dginstyle", "target": "Avg5", "smallest": 1.0, "seeds": 6,
}  # fmt: skip


def content(**claims: dict[str, Any]) -> dict[str, Any]:
    return {"families": {"method": "Does it help?"}, "claims": {name: BASE | claim for name, claim in claims.items()}}


Make = Any


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write the smoke benchmark with these claims and changes of the benchmark, and load it."""

    def write(claims: dict[str, Any], name: str = "claims.yaml", **changes: Any) -> Benchmark:
        folder = tmp_path / "benchmarks"
        folder.mkdir(exist_ok=True)
        shutil.copytree(ROOT / "methods", tmp_path / "methods", dirs_exist_ok=True)
        smoke = read_yaml(ROOT / "benchmarks" / "smoke.yaml") | {"claims": name} | changes
        (folder / "smoke.yaml").write_text(yaml.safe_dump(smoke))
        (folder / name).write_text(yaml.safe_dump(claims))
        return load_benchmark("smoke", folder)

    return write


def test_a_contrast_is_a_row_minus_its_reference() -> None:
    (terms,) = Claims(**content(one={})).claims["one"].contrasts.values()
    assert terms == [Term(1, "flexseg", "Avg5", "mIoU"), Term(-1, "dginstyle", "Avg5", "mIoU")]


def test_minus_changes_only_the_keys_that_it_names() -> None:
    claims = Claims(
        **content(
            targets={"target": "Avg2", "minus": {"target": "Avg3"}},
            rows={"minus": {"row": "a", "reference": "b"}},
            measures={"reference": [], "measure": "boundary error", "reference_measure": "interior error",
                      "minus": {"target": "Avg3"}},
        )
    ).claims  # fmt: skip
    assert claims["targets"].contrasts["dginstyle"][2:] == [
        Term(-1, "flexseg", "Avg3", "mIoU"), Term(1, "dginstyle", "Avg3", "mIoU"),
    ]  # fmt: skip
    assert claims["rows"].rows == ["flexseg", "dginstyle", "a", "b"]
    assert claims["measures"].contrasts["flexseg"] == [
        Term(1, "flexseg", "Avg5", "boundary error"), Term(-1, "flexseg", "Avg5", "interior error"),
        Term(-1, "flexseg", "Avg3", "boundary error"), Term(1, "flexseg", "Avg3", "interior error"),
    ]  # fmt: skip


def test_the_best_has_a_contrast_with_each() -> None:
    claim = Claims(**content(one={"reference": ["a", "b"], "rule": "best", "published": {"b": 1.5}})).claims["one"]
    assert list(claim.contrasts) == ["a", "b"]
    assert (claim.published_for("a"), claim.published_for("b")) == (None, 1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smalest": 1.0}, r"claims.one.smalest: unknown key \(did you mean 'smallest'\?\)"),
        ({"minus": {"tarrget": "Avg3"}}, r"claims.one.minus.tarrget: unknown key \(did you mean 'target'\?\)"),
        ({"measure": "IoU"}, "claims.one.measure: Input should be 'mIoU', 'boundary error' or 'interior error'"),
        ({"seeds": 3}, "claims.one.seeds: 3 seeds are too few for a verdict: it takes 6 or more"),
        ({"smallest": 0}, "claims.one.smallest: Input should be greater than 0"),
        ({"family": "methods"}, r"claims.one.family: no family is named 'methods' \(did you mean 'method'\?\)"),
        ({"reference": []}, "compared with what"),
        ({"reference": ["dginstyle", "flexseg"]}, "`rule: best` goes with several reference rows"),
        ({"rule": "best"}, "`rule: best` goes with several reference rows"),
        ({"published": {"dginstile": 1.0}}, r"'dginstile' is no reference \(did you mean 'dginstyle'\?\)"),
        ({"reference": ["a", "b"], "rule": "best", "minus": {"target": "Avg3"}}, "minus goes with one reference"),
        ({"reference": ["a", "b"], "rule": "best", "published": 1.0}, "of several references give each its own"),
        ({"row": "flexsegg"}, r"claims.one: no row is named 'flexsegg' \(did you mean 'flexseg'\?\)"),
        ({"minus": {"reference": "x"}}, "claims.one: no row is named 'x'"),
        ({"target": "Avg6"}, r"claims.one: no target or average is named 'Avg6' \(did you mean 'Avg"),
    ],
)
def test_a_mistake_is_one_message(make: Make, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make(content(one=change))
    assert "claims.yaml" in str(error.value)


def test_every_mistake_is_listed_and_the_way_out_is_named(make: Make) -> None:
    with pytest.raises(UserError, match="`claims: null`") as error:
        make(content(one={"row": "x"}, two={"target": "y"}))
    assert str(error.value).count("\n") == 2


def test_files_that_are_no_claims(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a file of claims is named claims.yaml or NAME.claims.yaml"):
        make(content(one={}), "promises.yaml")
    with pytest.raises(UserError, match=r"claims are a mapping of keys, this is list"):
        make([1])
    (tmp_path / "benchmarks" / "claims.yaml").unlink()
    with pytest.raises(UserError, match=r"claims.yaml"):
        load_benchmark("smoke", tmp_path / "benchmarks")
    with pytest.raises(UserError, match="is no benchmark: it holds claims"):
        load_benchmark("claims", SHIPPED.parent)


def test_claims_are_no_benchmark_and_are_inherited(make: Make, tmp_path: Path) -> None:
    make(content(one={}), "own.claims.yaml")
    (tmp_path / "benchmarks" / "more.yaml").write_text("extends: smoke\n")
    (tmp_path / "benchmarks" / "none.yaml").write_text("extends: smoke\nclaims: null\n")
    assert benchmark_names(tmp_path / "benchmarks") == ["more", "none", "smoke"]
    more = load_benchmark("more", tmp_path / "benchmarks")
    assert more.claimed is not None
    assert [path.name for path in evidence_files(more)] == ["own.claims.yaml"]
    none = load_benchmark("none", tmp_path / "benchmarks")
    assert none.claimed is None
    assert evidence_files(none) == []
    assert "evidence" not in none.studies


def test_studies_have_the_rows_and_seeds_of_their_claims(make: Make) -> None:
    rows = {"dginstyle": {"method": "dginstyle"}, "flexseg": {"method": "flexseg"},
            "other": {"method": "flexseg", "gap": False}}  # fmt: skip
    benchmark = make(content(one={"seeds": 7}, two={"row": "other"}), rows=rows, seeds=[0, 3],
                     tuning={"row": "flexseg", "seeds": [2], "grid": {"gap": [True]}})  # fmt: skip
    evidence = select_rows(benchmark, "evidence")
    assert list(evidence.rows) == ["flexseg", "dginstyle", "other"]
    assert evidence.seeds == [0, 3, 1, 4, 5, 6, 7], "its own first, and none that settings were chosen on"
    assert evidence.seeds_of("flexseg") == evidence.seeds
    assert evidence.seeds_of("other") == [0, 3, 1, 4, 5, 6]
    assert evidence.selection == "evidence"
    one = select_rows(benchmark, "claim_two")
    assert (list(one.rows), one.seeds_of("dginstyle")) == (["other", "dginstyle"], [0, 3, 1, 4, 5, 6])
    assert select_rows(benchmark, "evidence", seeds="1,2").seeds_of("other") == [1, 2]
    assert select_rows(benchmark).seeds_of("flexseg") == [0, 3]
    assert select_rows(benchmark).whole.row("other").method == "flexseg"


def test_claims_change_no_run(make: Make) -> None:
    plain, claiming = load_benchmark("smoke", ROOT / "benchmarks"), make(content(one={}))
    for row in plain.rows:
        evidence = select_rows(claiming, "evidence")
        assert Run(plain, row, 0).fingerprint == Run(evidence, row, 0).fingerprint


def test_a_study_of_the_same_name_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"studies.evidence is the study of its claims: rename yours"):
        make(content(one={}), studies={"default": ["flexseg"], "evidence": ["flexseg"]})


def test_first_seeds() -> None:
    assert first_seeds([0, 1, 2], [], 2) == [0, 1]
    assert first_seeds([5, 0], [1], 5) == [5, 0, 2, 3, 4]


def test_the_shipped_claims_fit_the_rows_of_a_benchmark_of_the_paper() -> None:
    claims = read_claims(SHIPPED, dict.fromkeys(ROWS, True), ["Avg2", "Avg3", "Avg5"])
    assert len(claims.claims) == 22
    assert set(claims.studies["evidence"].values()) <= {6, 12}


def test_published_sizes_are_those_of_the_published_numbers() -> None:
    """Differences of two numbers of the paper's tables, where both are known."""
    import csv

    with (ROOT / "flexseg/analysis/published/flexseg_aaai2026.csv").open() as file:
        numbers = {
            (each["gap"] + each["ube"] + each["has"], each["target"]): float(each["miou"])
            for each in csv.DictReader(file)
            if each["trunk"] == "DAFormer, MiT-B5" and each["table"] in ("main", "ablation")
        }
    cells = {"dginstyle": "000", "gap_alone": "100", "ube_alone": "010", "flexseg_no_has": "110", "flexseg": "111"}
    claims, checked = Claims(**read_yaml(SHIPPED)).claims, 0
    for name, claim in claims.items():
        if set(claim.rows) <= set(cells) and not isinstance(claim.published, dict) and claim.measure == "mIoU":
            terms = claim.contrasts[claim.reference[0]]
            assert claim.published == pytest.approx(
                sum(term.weight * numbers[cells[term.row], term.target] for term in terms), abs=0.006
            ), name
            checked += 1
    assert checked == 7


@pytest.mark.parametrize("name", benchmark_names(ROOT / "benchmarks"))
def test_shipped_benchmarks_that_make_claims_can_run_them(name: str) -> None:
    benchmark = load_benchmark(name, ROOT / "benchmarks")
    if benchmark.claimed is None:
        assert not benchmark.claims
        return
    evidence = select_rows(benchmark, "evidence")
    assert set(evidence.rows) == {row for claim in benchmark.claimed.claims.values() for row in claim.rows}
    assert all(len(evidence.seeds_of(row)) >= 6 for row in evidence.rows)
