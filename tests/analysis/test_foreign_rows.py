"""Intervals of a network from elsewhere, which was trained once: over test images, and over the seeds of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flexseg.analysis import KINDS, write_report, write_tables
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import half_width, shared_variance
from flexseg.analysis.web.payload import payload
from flexseg.analysis.web.text import facts, methods_text, summary
from flexseg.benchmark import Benchmark, Row, Run

ROWS = ["dginstyle", "flexseg", "source_only"]


@pytest.fixture
def mixed(builder: Callable[..., tuple[Benchmark, Path]], tmp_path: Path) -> tuple[Benchmark, Path]:
    """Three trained rows, and two from elsewhere with the predictions of ``flexseg``'s first and second seed."""
    benchmark, results = builder(ROWS, [0, 1, 2], 24, predictions=1, incidents=False)
    (tmp_path / "net.onnx").write_bytes(b"a network")
    (tmp_path / "other.onnx").write_bytes(b"another one")
    own = {
        "theirs": Row(title="Theirs", network=str(tmp_path / "net.onnx")),
        "others": Row(title="Others", network=str(tmp_path / "other.onnx")),
    }
    benchmark = benchmark.model_copy(update={"rows": benchmark.rows | own})
    for seed, row in enumerate(own):
        source, run = Run(benchmark, "flexseg", seed, results), Run(benchmark, row, 0, results)
        for target in benchmark.targets:
            table = pq.read_table(source.evaluated.records(target))
            path = run.evaluated.records(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            metadata = table.schema.metadata | {b"fingerprint": run.fingerprint.encode()}
            pq.write_table(table.replace_schema_metadata(metadata), path)
    return benchmark, results


def test_a_network_from_elsewhere_counts_once(mixed: tuple[Benchmark, Path]) -> None:
    scores = Scores(load_records(*mixed), replicates=400)
    own = scores.per_seed("flexseg", "Avg5")
    mean = scores.mean("theirs", "Avg5")
    assert mean.n == 1
    assert mean.value == own[0]
    assert [run.seed for run in scores.records.of_row("theirs")] == [0]
    replicates = np.mean([scores._replicates("flexseg", 0, target, "mIoU") for target in mixed[0].targets], axis=0)
    assert mean.half == pytest.approx(half_width(0, float(replicates.var(ddof=1)), 1, 24))
    assert 0.1 < mean.half < 10


def test_it_is_the_same_on_every_seed_of_the_others(mixed: tuple[Benchmark, Path]) -> None:
    """Its difference from a row varies as that row's runs do, and as their images."""
    scores = Scores(load_records(*mixed), replicates=400)
    found, base = scores.against("theirs", "dginstyle")["Avg5"], scores.per_seed("dginstyle", "Avg5")
    assert found.n == 3
    assert found.value == pytest.approx(scores.mean("theirs", "Avg5").value - base.mean())
    noise = scores.noise("Avg5")
    assert noise is not None

    def replicates(row: str, seed: int) -> np.ndarray:
        return np.mean([scores._replicates(row, seed, target, "mIoU") for target in mixed[0].targets], axis=0)

    differences = np.stack([replicates("theirs", 0) - replicates("dginstyle", seed) for seed in range(3)], axis=1)
    shared = shared_variance(differences)
    wanted = half_width(noise.variance / 3, shared, noise.freedom, 24)
    assert (found.high - found.low) / 2 == pytest.approx(wanted)


def test_the_noise_of_the_others_is_theirs_alone(mixed: tuple[Benchmark, Path]) -> None:
    benchmark, results = mixed
    alone = benchmark.model_copy(update={"rows": {name: benchmark.rows[name] for name in ROWS}})
    with_it, without = (Scores(load_records(each, results), replicates=50) for each in (benchmark, alone))
    assert with_it.noise("Avg5") == without.noise("Avg5")
    assert with_it.against("flexseg", "dginstyle")["Avg5"] == without.against("flexseg", "dginstyle")["Avg5"]


def test_two_networks_are_compared_on_images_alone(mixed: tuple[Benchmark, Path]) -> None:
    scores = Scores(load_records(*mixed), replicates=400)
    found, own = scores.against("theirs", "others"), scores.per_seed("flexseg", "Avg5")
    assert found["Avg5"].value == pytest.approx(own[0] - own[1])
    assert found["Avg5"].n == 1
    assert found["Avg5"].low < found["Avg5"].value < found["Avg5"].high
    assert 0 < found["Avg5"].p <= 1
    same = scores.contrast({"theirs": 1.0, "flexseg": 0.0}, "Avg5")
    assert math.isfinite(same.value)


def test_the_page_shows_its_interval_and_counts_no_training_of_it(mixed: tuple[Benchmark, Path]) -> None:
    scores = Scores(load_records(*mixed), replicates=400)
    rows = {row["key"]: row for row in payload(scores)["rows"]}
    at = scores.columns.index("Avg5")
    assert rows["theirs"]["halves"]["mIoU"][at] == pytest.approx(scores.mean("theirs", "Avg5").half, rel=1e-5)
    assert rows["dginstyle"]["halves"] is None
    assert summary(scores).startswith("3 settings of training were run with 3 seeds each")
    assert "2 rows came from elsewhere" in summary(scores)
    assert "not recorded" not in " ".join(value for _, value in facts(scores))
    assert "not recorded" not in " ".join(methods_text(scores))


def test_every_product_shows_it_and_says_what_it_is(mixed: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark, results = mixed
    write_tables(benchmark, results)
    text = (results / benchmark.name / "tables" / "comparison.md").read_text()
    assert "| Theirs¹ |" in text
    assert "foreign: exported network net.onnx, SHA-256 " in text
    for kind in KINDS:
        write_report(
            benchmark, kind, results, tmp_path / f"{kind}.{'pdf' if kind in ('comparison', 'ablation') else 'out'}"
        )
    assert "Theirs" in (tmp_path / "summary.out").read_text()
