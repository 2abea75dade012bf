"""Two rows side by side: the numbers of the tables, the right way round, and results that may not be compared."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from flexseg.analysis.stats.compare import Comparison, check_per, compare, load_pair
from flexseg.analysis.stats.metrics import iou_of_counts, mean_iou_of_counts
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference, blocked_noise, half_width
from flexseg.benchmark import Benchmark, fingerprint
from flexseg.benchmark.identity import differences
from flexseg.cli.print import print_comparison
from flexseg.errors import UserError

Built = tuple[Benchmark, Path]


def shown(comparison: Comparison, width: int = 80, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, **options)  # type: ignore[arg-type]
    print_comparison(comparison, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_it_is_b_minus_a_and_the_numbers_of_the_tables(scores: Scores) -> None:
    found = compare(scores, "source_only", "dginstyle")
    expected = scores.against("dginstyle", "source_only")
    assert [line.label for line in found.lines] == list(scores.columns)
    for line in found.lines:
        assert line.difference == expected[line.label]
        assert line.difference.value == pytest.approx(line.b.value - line.a.value)
        assert line.difference.value > 5  # by construction dginstyle is better by about 7 and more
        assert line.b == scores.mean("dginstyle", line.label)
    text = shown(found, 200)
    assert "A = Source only\nB = DGInStyle data (baseline)\n" in text
    assert "B − A: above zero, B is higher" in text
    assert "“DGInStyle data (baseline)” against “Source only”, mIoU on Avg5: it is higher, +7" in text


def test_the_other_way_round_has_the_other_sign(scores: Scores) -> None:
    one, other = compare(scores, "source_only", "dginstyle"), compare(scores, "dginstyle", "source_only")
    for forth, back in zip(one.lines, other.lines, strict=True):
        assert forth.difference.value == pytest.approx(-back.difference.value)
        assert forth.difference.low == pytest.approx(-back.difference.high)
    assert "it is lower, −7" in other.verdict


def test_any_quantity(scores: Scores) -> None:
    found = compare(scores, "source_only", "dginstyle", "Boundary ERROR")
    assert found.quantity.name == "boundary error"
    assert found.lines[0].difference == scores.against("dginstyle", "source_only", "boundary error")["adverse"]
    assert "boundary error in percent, lower is better" in shown(found, 120)
    with pytest.raises(UserError, match=r"no quantity 'boundry mIoU' \(did you mean 'boundary mIoU'\?\)"):
        compare(scores, "source_only", "dginstyle", "boundry mIoU")
    with pytest.raises(UserError, match="leave --quantity 'boundary error' out"):
        compare(scores, "source_only", "dginstyle", "boundary error", "class")
    with pytest.raises(UserError, match=r"per 'clas' \(did you mean 'class'\?\)"):
        check_per("clas")


def test_classes_are_means_over_the_targets_that_have_them(scores: Scores) -> None:
    found = compare(scores, "source_only", "dginstyle", per="class")
    assert len(found.lines) == 19
    records = [scores.records.runs["dginstyle", seed].targets for seed in (0, 1, 2)]
    values = [np.nanmean([iou_of_counts(r[t].total("classes"))[2] for t in scores.benchmark.targets]) for r in records]
    assert found.lines[2].label == "building"
    assert found.lines[2].b.value == pytest.approx(100 * np.mean(values))
    for line in found.lines:
        assert line.difference.low < line.difference.value < line.difference.high
        assert line.difference.p <= line.difference.p_holm


def test_conditions_are_compared_on_their_own_images(scores: Scores) -> None:
    found = compare(scores, "source_only", "dginstyle", per="condition")
    expected = [("adverse", name) for name in ("fog", "night", "rain", "snow")]
    expected += [("mixed", name) for name in ("clear", "dusk", "rain")]
    assert [(line.group, line.label) for line in found.lines] == expected
    rain = next(line for line in found.lines if (line.group, line.label) == ("adverse", "rain"))
    values = []
    for seed in (0, 1, 2):
        record = scores.records.runs["dginstyle", seed].targets["adverse"]
        own = record.condition_of == sorted(record.conditions).index("rain")
        values.append(100 * mean_iou_of_counts(record.per_image("classes")[own].sum(0)))
    assert rain.b.value == pytest.approx(np.mean(values))
    assert rain.b == scores.condition_mean("dginstyle", "adverse", "rain")
    assert "adverse, rain" in shown(found)


def test_a_benchmark_without_conditions_says_so(scores: Scores) -> None:
    records = scores.records
    one = records.benchmark.model_copy(update={"targets": ["night"], "averages": {}})
    with pytest.raises(UserError, match="has more than one condition"):
        compare(Scores(replace(records, benchmark=one)), "source_only", "dginstyle", per="condition")


def test_a_row_with_a_missing_target_or_seed_is_paired_over_the_others(scores: Scores) -> None:
    found = compare(scores, "dginstyle", "flexseg")  # its last seed has no record of night
    counts = {line.label: line.difference.n for line in found.lines}
    assert counts == {c: 2 if c in ("night", "Avg2", "Avg5") else 3 for c in scores.columns}
    assert any("B, seed 2 target night: not evaluated" in note for note in found.notes)
    assert {line.difference.n for line in compare(scores, "dginstyle", "flexseg", per="class").lines} == {2}


def test_what_has_no_run_is_shown_with_dashes(scores: Scores) -> None:
    runs = {key: run for key, run in scores.records.runs.items() if key[0] != "flexseg"}
    empty = Scores(replace(scores.records, runs=runs), replicates=100)
    for per in ("target", "class", "condition"):
        found = compare(empty, "dginstyle", "flexseg", per=check_per(per))
        assert {line.difference.n for line in found.lines} == {0}
        assert "not comparable, as no seed has finished both" in " ".join(shown(found).split())


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("per", ["target", "class", "condition"])
def test_it_fits_the_terminal(scores: Scores, width: int, per: str) -> None:
    text = shown(compare(scores, "source_only", "dginstyle", per=check_per(per)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_colour_says_nothing_that_signs_do_not(scores: Scores) -> None:
    found = compare(scores, "source_only", "dginstyle")
    plain = shown(found)
    assert "\x1b" not in plain
    assert "\x1b[32m" in shown(found, force_terminal=True, color_system="standard")
    assert "\x1b[31m" in shown(
        compare(scores, "dginstyle", "source_only"), force_terminal=True, color_system="standard"
    )
    assert "\x1b[31m" not in shown(found, force_terminal=True, color_system="standard", no_color=True)


def test_the_bar_shows_the_interval_and_zero(scores: Scores) -> None:
    found = compare(scores, "source_only", "dginstyle")
    ends = {"night": (-1.0, 2.0, 0.2), "places": (1.0, 2.0, 0.01)}
    lines = [
        replace(line, difference=Difference((low + high) / 2, low, high, p, 3))
        for line in found.lines[:5]
        for low, high, p in [ends.get(line.label, (float("nan"), float("nan"), float("nan")))]
    ]
    text = shown(replace(found, lines=lines), 100)
    bars = {line.split()[0]: line for line in text.splitlines() if line.split()[:1]}
    night, places, adverse = bars["night"], bars["places"], bars["adverse"]
    zero = adverse.index("│")
    assert night[zero] == "┼"
    assert places[zero] == "│"
    assert "○" in night
    assert "●" in places
    assert night.index("─") < zero < places.index("─") < places.index("●")
    assert night.rindex("─") == places.rindex("─")


# --- two results folders ---


@pytest.fixture
def before(small: Built, tmp_path: Path) -> Path:
    """Another results folder, with the runs of ``dginstyle`` alone."""
    benchmark, results = small
    for seed in benchmark.seeds:
        source = results / benchmark.name / "dginstyle" / f"seed-{seed}"
        shutil.copytree(source, tmp_path / "before" / benchmark.name / "dginstyle" / f"seed-{seed}")
    return tmp_path / "before"


def each_run(before: Path) -> list[Path]:
    return sorted(before.glob("*/*/seed-*/run.json"))


def test_the_same_results_differ_by_nothing(small: Built, before: Path) -> None:
    pair = load_pair(*small, "dginstyle", "dginstyle", before)
    found = compare(Scores(pair.records, 200), pair.a, pair.b)
    assert [line.difference.value for line in found.lines] == [0.0] * 8
    assert [line.difference.n for line in found.lines] == [3] * 8
    assert pair.notes == []
    assert found.a == f"DGInStyle data (baseline), {before}"
    assert "no difference could be shown" in found.verdict


def test_images_that_both_see_alike_do_not_widen_the_interval_of_a_class(small: Built, before: Path) -> None:
    """Against itself the resampled difference is 0: what is left is the seeds' noise, of all rows with every seed."""
    pair = load_pair(*small, "dginstyle", "dginstyle", before)
    scores = Scores(pair.records)
    road = compare(scores, pair.a, pair.b, per="class").lines[0]
    targets, rows = scores.benchmark.targets, []
    for row in scores.benchmark.rows:
        runs = [run for run in pair.records.of_row(row) if set(run.targets) == set(targets)]
        if len(runs) == 3:
            rows.append(
                [np.mean([100 * iou_of_counts(run.targets[t].total("classes"))[0] for t in targets]) for run in runs]
            )
    noise = blocked_noise(np.array(rows))
    assert noise is not None
    assert road.difference.value == 0
    assert road.difference.high == pytest.approx(half_width(noise.variance * 2 / 3, 0.0, noise.freedom, 24))


def test_results_of_another_definition_are_compared_and_said_to_be(small: Built, before: Path) -> None:
    for path in each_run(before):
        run = json.loads(path.read_text())
        run["definition"]["training"]["iterations"] = 480
        run |= {"fingerprint": fingerprint(run["definition"]), "library": "yesterday"}
        path.write_text(json.dumps(run))
        for record in path.parent.glob("evaluation/*.parquet"):
            table = pq.read_table(record)
            metadata = table.schema.metadata | {b"fingerprint": run["fingerprint"].encode()}
            pq.write_table(table.replace_schema_metadata(metadata), record)
    pair = load_pair(*small, "dginstyle", "dginstyle", before)
    assert pair.notes == [
        f"Defined differently: training.iterations: 480 → {small[0].training.iterations}.",
        "Made by other code of the library: yesterday there, today here.",
    ]
    pair = load_pair(*small, "dginstyle", "flexseg_no_ube", before)
    found = compare(Scores(pair.records, 200), pair.a, pair.b)
    assert [line.difference.n for line in found.lines] == [3] * 8
    assert found.lines[0].a == Scores(load_records(*small)).mean("dginstyle", "adverse")
    assert found.lines[0].b == Scores(load_records(*small)).mean("flexseg_no_ube", "adverse")
    assert pair.notes == []  # two rows need not use the same files of the library


def rewrite(path: Path, keep: int | None = None, **metadata: str) -> None:
    table = pq.read_table(path)
    changed = table.schema.metadata | {key.encode(): value.encode() for key, value in metadata.items()}
    pq.write_table(table.slice(0, keep).replace_schema_metadata(changed), path)


def test_other_images_are_refused(small: Built, before: Path) -> None:
    for path in before.glob("*/*/seed-*/evaluation/night.parquet"):
        rewrite(path, keep=20)
    with pytest.raises(UserError, match=r"other test images or labels of target night \(20 and 24 images\)"):
        load_pair(*small, "dginstyle", "dginstyle", before)


def test_another_protocol_is_refused(small: Built, before: Path) -> None:
    for path in before.glob("*/*/seed-*/evaluation/night.parquet"):
        rewrite(path, protocol="streetworld-v0")
    with pytest.raises(UserError, match="its protocol is 'streetworld-v0', but benchmark streetworld has"):
        load_pair(*small, "dginstyle", "dginstyle", before)


def test_folders_and_rows_that_are_not_there(small: Built, before: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        load_pair(*small, "dginstyle", "dginstyle", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no finished run of row 'flexseg'.* Rows there: dginstyle"):
        load_pair(*small, "flexseg", "flexseg", before)
    with pytest.raises(UserError, match="is the results folder itself"):
        load_pair(*small, "dginstyle", "dginstyle", small[1])
    with pytest.raises(UserError, match="cannot be compared with itself"):
        load_pair(*small, "dginstyle", "dginstyle")


@pytest.mark.parametrize("content", ["[]", '{"status": "finished", "definition": 3}'])
def test_a_run_of_the_other_folder_that_says_nothing_is_left_out(small: Built, before: Path, content: str) -> None:
    each_run(before)[0].write_text(content)
    pair = load_pair(*small, "dginstyle", "dginstyle", before)
    found = compare(Scores(pair.records, 200), pair.a, pair.b)
    assert {line.difference.n for line in found.lines} == {2}


def test_a_damaged_run_of_the_other_folder_is_named(small: Built, before: Path) -> None:
    each_run(before)[0].write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        load_pair(*small, "dginstyle", "dginstyle", before)


def test_differences_are_named_by_their_place() -> None:
    old = {"training": {"iterations": 960, "ema": 0.9}, "options": {"a": 1}, "method_digest": "0" * 64}
    new = {"training": {"iterations": 480, "ema": 0.9}, "options": {"b": None}, "method_digest": "f" * 64}
    assert differences(old, new) == [
        ("method_digest", "0" * 64, "f" * 64),
        ("options.a", 1, None),
        ("training.iterations", 960, 480),
    ]
    assert differences({"crop": (2, 3)}, {"crop": [2, 3]}) == [], "JSON has lists alone"
    assert differences(old, old) == []
