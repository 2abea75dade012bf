"""The real Snakefile and commands with a benchmark that makes claims: its product, its studies, its reference."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

Result = subprocess.CompletedProcess[str]
Command = Callable[..., Result]
CLAIMS = {
    "families": {"method": "Does it help?"},
    "claims": {
        "gain": {"text": "FLEX-Seg scores higher.", "place": "main table", "family": "method", "row": "flexseg",
                 "reference": "dginstyle", "target": "Avg5", "smallest": 1.0, "seeds": 7},
        "ube": {"text": "UBE helps.", "place": "component table", "family": "method", "row": "flexseg",
                "reference": "no_ube", "target": "Avg5", "smallest": 1.0, "seeds": 6},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(make_copy: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a benchmark like the smoke test that makes claims."""
    copy = make_copy(tmp_path_factory.mktemp("workflow") / "copy")
    content = {"extends": "smoke", "claims": "small.claims.yaml",
               "rows": {"no_ube": {"extends": "flexseg", "ube": False}}}  # fmt: skip
    (copy / "benchmarks" / "claiming.yaml").write_text(yaml.safe_dump(content))
    (copy / "benchmarks" / "small.claims.yaml").write_text(yaml.safe_dump(CLAIMS))
    return copy


def planned(result: Result) -> set[str]:
    """The outputs of the training jobs of a dry run."""
    assert result.returncode == 0, result.stdout
    return set(re.findall(r"output: results/claiming/(\w+/seed-\d+)/trained.json", result.stdout))


def snakemake(*config: str) -> list[str]:
    return ["snakemake", "-n", "--config", "benchmark=claiming", *config]


def test_the_product_exists_only_with_claims(copy: Path, run_in: Command) -> None:
    with_claims = run_in(copy, "snakemake", "-n", "reports/claiming/claims.pdf", "--config", "benchmark=claiming")
    assert with_claims.returncode == 0, with_claims.stdout
    assert "reports/claiming/claims.pdf" in with_claims.stdout
    without = run_in(copy, "snakemake", "-n", "reports/smoke/claims.pdf", "--config", "benchmark=smoke")
    assert without.returncode
    assert "No rule to produce" in without.stdout


def test_studies_of_claims_run_their_rows_with_their_seeds(copy: Path, run_in: Command) -> None:
    first = {f"{row}/seed-{seed}" for row in ("flexseg", "dginstyle") for seed in range(7)}
    ube = {f"{row}/seed-{seed}" for row in ("flexseg", "no_ube") for seed in range(6)}
    assert planned(run_in(copy, *snakemake("study=evidence"))) == first | ube
    assert planned(run_in(copy, *snakemake("study=claim_ube"))) == ube
    assert planned(run_in(copy, *snakemake("study=claim_ube", "seeds=3"))) == {"flexseg/seed-3", "no_ube/seed-3"}
    assert len(planned(run_in(copy, *snakemake()))) == 2
    unknown = run_in(copy, *snakemake("study=claim_ubee"))
    assert "no study is named 'claim_ubee' (did you mean 'claim_ube'?)" in unknown.stdout


def test_a_claim_runs_from_end_to_end_and_becomes_evidence(copy: Path, run_in: Command) -> None:
    report = "reports/claiming/claim_ube_seeds-0/claims.pdf"
    table = "results/claiming/tables/claim_ube_seeds-0/claims.md"
    wanted = [report, table, "--config", "benchmark=claiming", "study=claim_ube", "seeds=0"]
    done = run_in(copy, "snakemake", *wanted)
    assert done.returncode == 0, done.stdout
    assert (copy / report).read_bytes().startswith(b"%PDF-")
    assert "UBE helps." in (copy / table).read_text()
    add = ["flexseg", "reference", "add", "claiming", "--study", "evidence"]
    added = run_in(copy, *add)
    assert added.returncode == 0, added.stdout
    assert "18 runs are not finished" in added.stdout
    assert "2 runs added, 0 were there already, 2 in all" in added.stdout
    assert "0 runs added, 2 were there already, 2 in all" in run_in(copy, *add).stdout
    verified = run_in(copy, "flexseg", "verify", "claiming", "--study", "claim_ube", "--seeds", "0")
    assert verified.returncode == 0, verified.stdout
    assert "Claims by the reference:" in verified.stdout
    assert "would change no verdict" in verified.stdout
    due = run_in(copy, "snakemake", "-n", *wanted).stdout
    assert "rule train" not in due, "what was trained is not trained again"
    assert "rule product" in due, "the reports show the new evidence"
