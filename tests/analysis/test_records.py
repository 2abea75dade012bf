"""Nothing is left out, nothing that does not belong is let in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flexseg.analysis.stats.bootstrap import image_weights
from flexseg.analysis.stats.definitions import quantities
from flexseg.analysis.stats.metrics import class_counts
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import paired_interval, t_interval
from flexseg.benchmark import Benchmark, Protocol
from flexseg.benchmark.identity import STALE
from flexseg.errors import UserError

Built = tuple[Benchmark, Path]


def remeta(path: Path, **changes: str) -> None:
    """Change metadata of a record file."""
    table = pq.read_table(path)
    pq.write_table(
        table.replace_schema_metadata(table.schema.metadata | {key.encode(): value for key, value in changes.items()}),
        path,
    )


def test_every_run_is_there_with_its_reason(small: Built) -> None:
    records = load_records(*small)
    assert len(records.runs) == 30
    last = "flexseg_tuned_aligned"
    assert records.notes(last) == ["seed 0 missing: not run", "seed 2 failed: non-finite loss at iteration 371"]
    assert records.notes("flexseg_tuned") == [f"seed 2 {STALE}"]
    assert records.notes("flexseg") == ["seed 2 target night: not evaluated"]
    assert records.other_code("flexseg_no_gap") == ["feedfacefeedface"]
    assert records.other_code("dginstyle") == []


def test_stale_and_unevaluated_runs_do_not_enter_a_mean(small: Built) -> None:
    scores = Scores(load_records(*small), replicates=50)
    assert scores.mean("flexseg_tuned", "Avg5").n == 2
    assert scores.mean("flexseg", "Avg5").n == 2
    assert scores.mean("flexseg", "Avg3").n == 3
    assert scores.against("flexseg", "dginstyle")["night"].n == 2


@pytest.mark.parametrize("key", ["protocol", "label_map", "boundary_band", "boundary_tolerances", "distance_rings"])
def test_other_protocols_are_refused_by_both_names(builder, key: str) -> None:
    benchmark, results = builder(["dginstyle", "flexseg"], [0, 1], 4, incidents=False)
    remeta(results / "streetworld/flexseg/seed-1/evaluation/night.parquet", **{key: "other-v9"})
    ours = getattr(benchmark.protocol, "id" if key == "protocol" else key)
    ours = re.escape(str(list(ours) if isinstance(ours, tuple) else ours))
    with pytest.raises(UserError, match=rf"(?s)night\.parquet.*'other-v9'.*'{ours}'"):
        load_records(benchmark, results)


def test_records_from_before_the_boundary_counts_are_refused_with_what_to_do(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg"], [0, 1], 4, incidents=False)
    path = results / "streetworld/flexseg/seed-1/evaluation/night.parquet"
    table = pq.read_table(path).drop_columns(["ring_pixels", "ring_correct", "boundary_iou", "boundary_f1"])
    metadata = {k: v for k, v in table.schema.metadata.items() if k not in (b"boundary_tolerances", b"distance_rings")}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match=r"not recorded.*flexseg evaluate streetworld flexseg"):
        load_records(benchmark, results)
    # with the metadata but without the columns the file is damaged, which costs one target of one run
    pq.write_table(table, path)
    notes = load_records(benchmark, results).notes("flexseg")
    assert notes == ["seed 1 target night: records cannot be read (KeyError): evaluate this run again"]


def test_other_images_cost_one_target_or_are_refused_where_nobody_can_tell(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg"], [0, 1], 4, incidents=False)
    path = results / "streetworld/flexseg/seed-1/evaluation/night.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    found = load_records(benchmark, results)
    assert found.all_notes() == [
        (
            "flexseg",
            "seed 1 target night: records of other images or labels than the other runs': evaluate this run again",
        )
    ]
    path = results / "streetworld/flexseg/seed-0/evaluation/night.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(UserError, match="different test images"):
        load_records(benchmark, results)


def test_order_of_images_does_not_matter(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg"], [0, 1], 6, incidents=False)
    before = Scores(load_records(benchmark, results), 50).against("flexseg", "dginstyle")
    path = results / "streetworld/flexseg/seed-1/evaluation/night.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([3, 1, 5, 0, 2, 4]), path)
    assert Scores(load_records(benchmark, results), 50).against("flexseg", "dginstyle") == before


def test_damaged_files_are_reasons_and_no_crash(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg"], [0, 1, 2], 4, incidents=False)
    run = results / "streetworld/flexseg"
    (run / "seed-0/evaluation/night.parquet").write_bytes(b"PAR1 not really")
    (run / "seed-1/run.json").write_text("{")
    remeta(run / "seed-2/evaluation/night.parquet", fingerprint="f" * 16)
    notes = load_records(benchmark, results).notes("flexseg")
    assert notes[0].startswith("seed 0 target night: records cannot be read")
    assert notes[1] == "seed 1 failed: run.json cannot be read"
    assert notes[2] == "seed 2 target night: records of another run"


def test_a_failure_replaces_a_stale_run_but_no_current_one(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg"], [0, 1], 4, incidents=False)
    for seed in (0, 1):
        failure = {"status": "failed", "reason": "two\nlines", "traceback": "", "fingerprint": ""}
        (results / f"streetworld/flexseg/seed-{seed}/failure.json").write_text(json.dumps(failure))
    path = results / "streetworld/flexseg/seed-1/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 16}))
    records = load_records(benchmark, results)
    assert records.runs["flexseg", 0].status == "finished"
    assert records.notes("flexseg") == ["seed 1 failed: two lines"]


def test_a_changed_method_file_makes_its_runs_stale(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg"], [0], 4, incidents=False)
    (benchmark.methods / "flexseg.py").write_text("changed = True\n")
    # its records are not used, so they may be of an older evaluation
    path = results / "streetworld/flexseg/seed-0/evaluation/night.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"protocol": b"older"}), path)
    records = load_records(benchmark, results)
    assert records.runs["flexseg", 0].status == "stale"
    assert records.runs["dginstyle", 0].status == "finished"


def test_reduction_keeps_the_counts(small: Built) -> None:
    benchmark, results = small
    record = load_records(benchmark, results).runs["dginstyle", 0].targets["adverse"]
    table = pq.read_table(results / "streetworld/dginstyle/seed-0/evaluation/adverse.parquet")
    confusion = np.array(table["confusion"].to_pylist()).reshape(-1, 19, 19)
    np.testing.assert_array_equal(record.per_image("classes")[:, 0], [np.diag(each) for each in confusion])
    total, pixels = record.total("nll")
    assert total / pixels == pytest.approx(1.25)
    for name, shape in (("boundary_iou", (3, 3, 19)), ("boundary_f1", (3, 4, 19))):
        raw = np.array(table[name].to_pylist()).reshape(-1, *shape)
        np.testing.assert_array_equal(record.per_image(name), raw)
        np.testing.assert_array_equal(record.total(name), raw.sum(0))
    rings = [np.array(table[name].to_pylist()) for name in ("ring_pixels", "ring_correct")]
    np.testing.assert_array_equal(record.total("rings"), np.sum(rings, axis=1))
    assert record.total("rings").sum(1).tolist() == [confusion.sum(), np.trace(confusion.sum(0))]
    boundary = np.array(table["boundary_confusion"].to_pylist()).sum(0).reshape(19, 19)
    np.testing.assert_array_equal(record.total("band"), class_counts(boundary))
    np.testing.assert_array_equal(record.total("interior"), class_counts(confusion.sum(0) - boundary))
    names = np.array(table["condition"].to_pylist())
    assert record.conditions == {name: (names == name).sum() for name in ("fog", "night", "rain", "snow")}
    for place, name in enumerate(record.conditions):
        own = class_counts(confusion[names == name].sum(0))
        np.testing.assert_array_equal(record.total("conditions")[place], own)


@pytest.fixture(scope="module")
def scores(small: Built) -> Scores:
    """The scores of the simulated runs from 30 resamplings."""
    return Scores(load_records(*small), replicates=30)


@pytest.mark.parametrize("quantity", list(quantities(Protocol(id="any", boundary_band=2))))
def test_every_quantity_has_its_own_paired_contrast(scores: Scores, quantity: str) -> None:
    """The interval of any quantity, from its definition applied to each resampling of the images, one at a time."""
    known, rows = scores.quantities[quantity], ("source_only", "dginstyle")
    replicates = np.zeros((30, 3, 2))
    for place, target in enumerate(("adverse", "night")):
        weights = image_weights(target, 24, 30)
        for seed in range(3):
            for row, sign in zip(rows, (1, -1), strict=True):
                counts = scores.records.runs[row, seed].targets[target].per_image(known.counts)
                for index, drawn in enumerate(weights.astype(float)):
                    replicates[index, seed, place] += sign * known.of(np.tensordot(drawn, counts, 1))
    pairs = scores.per_seed(rows[0], "Avg2", quantity) - scores.per_seed(rows[1], "Avg2", quantity)
    expected = paired_interval(pairs, replicates.mean(2), 24, scores.noise("Avg2", quantity))
    found = scores.against(*rows, quantity)["Avg2"]
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    if quantity not in ("negative log-likelihood", "calibration error"):  # the same in all simulated records
        assert found.high > found.low
    if quantity == "mIoU":
        assert abs(found.high - found.low - 2 * t_interval(pairs).half) > 0.01  # the images do matter here


def test_the_source_only_row_is_found_by_its_method(small: Built, builder) -> None:
    assert Scores(load_records(*small), 20).source_only == "source_only"
    assert Scores(load_records(*builder(["dginstyle", "flexseg"], [0], 4, incidents=False)), 20).source_only == ""


def test_averages_are_means_of_targets_and_contrasts_are_paired(small: Built) -> None:
    scores = Scores(load_records(*small), replicates=50)
    values = [scores.per_seed("dginstyle", target) for target in scores.benchmark.targets]
    np.testing.assert_allclose(scores.per_seed("dginstyle", "Avg5"), np.mean(values, axis=0))
    difference = scores.against("flexseg_no_ube", "dginstyle")["Avg5"]
    pairs = scores.per_seed("flexseg_no_ube", "Avg5") - scores.per_seed("dginstyle", "Avg5")
    assert difference.value == pytest.approx(pairs.mean())
    # the seeds' common drift (sd 0.8) cancels: the paired interval is narrower than that of either row
    assert difference.high - difference.value < scores.mean("dginstyle", "Avg5").half
