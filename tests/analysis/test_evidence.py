"""What runs keep for claims: the jackknife of images, contrasts from it, the reference file and what may be added."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flexseg.analysis.stats import bootstrap
from flexseg.analysis.stats.evidence import Entry, Evidence, Made, Measured, entries_of
from flexseg.analysis.stats.metrics import mean_iou_of_counts
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.reference import add_runs, pack, read_reference, unpack
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import seed_covariance
from flexseg.benchmark import Benchmark
from flexseg.benchmark.claims import MEASURES, Term

Built = tuple[Benchmark, Path]


@pytest.fixture(scope="module")
def built(build_results, tmp_path_factory: pytest.TempPathFactory) -> Built:  # type: ignore[no-untyped-def]
    """Two rows with six seeds on 48 images of each target."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flexseg.analysis.stats.records.code_digest", lambda *_: "today")
        return build_results(
            tmp_path_factory.mktemp("evidence"), ["dginstyle", "flexseg"], list(range(6)), 48, False, predictions=0
        )


@pytest.fixture
def entries(built: Built) -> list[Entry]:
    return entries_of(load_records(*built))


def test_groups_are_dealt_evenly_and_for_good() -> None:
    groups = bootstrap.image_groups("night", 200)
    assert sorted(np.bincount(groups)) == [12] * 8 + [13] * 8
    assert groups[:8].tolist() == bootstrap.image_groups("night", 200)[:8].tolist()
    assert groups.tolist() != bootstrap.image_groups("adverse", 200).tolist()
    assert np.abs(np.diff(np.sort(groups % 4))).max() == 1
    assert bootstrap.image_groups("night", 5).max() == 4


def test_the_jackknife_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    counts, groups = rng.integers(1, 50, (40, 3, 5)), bootstrap.image_groups("x", 40)
    counts[:, 1:] += counts[:, :1]
    found = bootstrap.jackknife(groups, counts, mean_iou_of_counts)
    whole = mean_iou_of_counts(counts.sum(0))
    for group in range(16):
        without = mean_iou_of_counts(sum(counts[image] for image in range(40) if groups[image] != group))
        assert found[group] == pytest.approx(15 / 4 * (without - whole))
    assert not len(bootstrap.jackknife(np.zeros(1, int), counts[:1], mean_iou_of_counts))


def test_of_a_sum_it_gives_the_textbooks_variance() -> None:
    """N σ² of a sum of N images; times (15/16)², as a sum, unlike a share, is smaller without a group."""
    images = np.random.default_rng(2).normal(0, 3.0, (4000, 160, 1))
    found = [bootstrap.jackknife(np.arange(160) % 16, each, lambda sums: sums[..., 0]) for each in images]
    assert np.mean([each.var(ddof=1) for each in found]) == pytest.approx(160 * 9.0 * (15 / 16) ** 2, rel=0.05)


def test_its_variance_is_the_bootstraps(built: Built, entries: list[Entry]) -> None:
    """Of a paired difference on one seed, on the average of five targets with 48 images each."""
    scores = Scores(load_records(*built))
    ratios = []
    for seed in range(6):
        replicates = scores._column_replicates("flexseg", seed, "Avg5", "mIoU")
        replicates = replicates - scores._column_replicates("dginstyle", seed, "Avg5", "mIoU")
        pair = {entry.row: entry for entry in entries if entry.seed == seed}
        ours = [
            pair["flexseg"].measured[t, "mIoU"].groups - pair["dginstyle"].measured[t, "mIoU"].groups
            for t in scores.benchmark.targets
        ]
        ratios.append(sum(each.var(ddof=1) for each in ours) / 25 / replicates.var(ddof=1))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.25)


def entry(row: str, seed: int, value: float, groups: np.ndarray | None = None, target: str = "night") -> Entry:
    measured = {(target, measure): Measured(value, np.empty(0) if groups is None else groups) for measure in MEASURES}
    return Entry(row, seed, "0" * 8, Made(), measured)


TERMS = [Term(1.0, "flexseg", "night", "mIoU"), Term(-1.0, "dginstyle", "night", "mIoU")]


def test_a_contrast_is_paired_over_the_seeds_that_all_rows_have(built: Built) -> None:
    rng = np.random.default_rng(4)
    groups = {(row, seed): rng.normal(size=16) for row in ("flexseg", "dginstyle") for seed in range(4)}
    runs = [entry("flexseg", seed, 30.0 + seed**2, groups["flexseg", seed]) for seed in range(3)]
    runs += [entry("dginstyle", seed, 29.0 + seed, groups["dginstyle", seed]) for seed in (0, 1, 2, 3)]
    found = Evidence.of(built[0], runs).paired(TERMS)
    assert (found.n, found.value) == (3, pytest.approx(np.mean([1.0, 1.0, 3.0])))
    assert found.sd == pytest.approx(np.std([1.0, 1.0, 3.0], ddof=1))
    differences = np.transpose([groups["flexseg", s] - groups["dginstyle", s] for s in range(3)])
    assert found.shared == pytest.approx(max(0.0, seed_covariance(differences)))
    assert found.images == pytest.approx(15)


def test_variances_of_the_targets_of_an_average_add_up(built: Built) -> None:
    benchmark, rng = built[0], np.random.default_rng(5)
    shared = {target: rng.normal(size=16) for target in benchmark.targets}
    runs = []
    for row, seed in [(row, seed) for row in ("flexseg", "dginstyle") for seed in range(6)]:
        scale = 1.0 if row == "flexseg" else 0.0
        measured = {(t, m): Measured(30.0 + seed, scale * shared[t]) for t in benchmark.targets for m in MEASURES}
        runs.append(Entry(row, seed, "0" * 8, Made(), measured))
    found = Evidence.of(benchmark, runs).paired([replace(term, target="Avg2") for term in TERMS])
    wanted = (shared["adverse"].var(ddof=1) + shared["night"].var(ddof=1)) / 4
    assert found.shared == pytest.approx(wanted)
    assert 15 <= found.images <= 30
    interaction = [*(replace(term, target="Avg2") for term in TERMS),
                   *(replace(term, target="Avg3", weight=-term.weight) for term in TERMS)]  # fmt: skip
    assert Evidence.of(benchmark, runs).paired(interaction).shared > wanted


def test_runs_that_know_no_groups_are_compared_over_seeds_alone(built: Built) -> None:
    runs = [entry(row, seed, 30.0 + seed) for row in ("flexseg", "dginstyle") for seed in range(6)]
    assert Evidence.of(built[0], runs).paired(TERMS).shared == 0
    assert Evidence.of(built[0], runs[:7]).paired(TERMS).n == 1
    assert Evidence.of(built[0], runs[:6]).paired(TERMS).n == 0


def test_packing() -> None:
    values = np.array([0.0, 0.02, -0.02, 1.234, -40.96, 40.94, 99.0, -99.0])
    found = unpack(pack(values))
    assert found[:6] == pytest.approx(values[:6], abs=0.0101)
    assert found[6:].tolist() == pytest.approx([40.94, -40.96])
    assert len(pack(values)) == 16
    assert not len(unpack(""))


def test_a_file_gives_the_same_intervals_as_the_runs(built: Built, entries: list[Entry], tmp_path: Path) -> None:
    benchmark, path = built[0], tmp_path / "x.csv"
    add_runs(path, benchmark, entries)
    here, there = Evidence.of(benchmark, entries), read_reference(path, benchmark).evidence(benchmark)
    for column in ("night", "Avg5"):
        one, other = (each.paired([replace(t, target=column) for t in TERMS]) for each in (here, there))
        assert (one.value, one.sd) == pytest.approx((other.value, other.sd), abs=1e-6)
        assert one.half == pytest.approx(other.half, rel=0.02)


def test_adding_twice_changes_nothing_and_the_order_does_not_matter(
    built: Built, entries: list[Entry], tmp_path: Path
) -> None:
    benchmark, path, other = built[0], tmp_path / "x.csv", tmp_path / "y.csv"
    assert add_runs(path, benchmark, entries) == [f"{path}: 12 runs added, 0 were there already, 12 in all"]
    whole = path.read_bytes()
    assert add_runs(path, benchmark, entries) == [f"{path}: 0 runs added, 12 were there already, 12 in all"]
    assert path.read_bytes() == whole
    for part in (entries[7:], entries[:3], entries[3:7]):
        add_runs(other, benchmark, part)
    assert other.read_bytes() == whole


def test_two_branches_merge_line_by_line(built: Built, entries: list[Entry], tmp_path: Path) -> None:
    """As `merge=union` joins them: the lines of both, in any order."""
    benchmark = built[0]
    for name, part in (("a", entries[:5]), ("b", entries[5:])):
        add_runs(tmp_path / name, benchmark, part)
    lines = [(tmp_path / name).read_text().splitlines() for name in "ab"]
    head = len([line for line in lines[0] if line.startswith("#")]) + 1
    merged = dict.fromkeys([*lines[0][:head], *lines[1], *lines[0]])
    (tmp_path / "merged").write_text("\n".join(merged) + "\n")
    assert len(read_reference(tmp_path / "merged", benchmark).entries) == 12


def test_other_numbers_of_the_same_run_are_kept_out(built: Built, entries: list[Entry], tmp_path: Path) -> None:
    benchmark, path = built[0], tmp_path / "x.csv"
    add_runs(path, benchmark, entries)
    whole = path.read_bytes()
    first = entries[0]
    measured = {key: replace(each, value=each.value + 0.5) for key, each in first.measured.items()}
    lines = add_runs(path, benchmark, [replace(first, measured=measured)])
    assert "dginstyle, seed 0: not added, since it is there with other numbers (2026-01-01, Example CPU" in lines[0]
    assert path.read_bytes() == whole
    lines = add_runs(path, benchmark, [replace(first, measured=measured)], replace=True)
    assert lines[0] == "dginstyle, seed 0: in place of the run that was there"
    kept = next(each for each in read_reference(path, benchmark).entries if each.row == "dginstyle")
    assert kept.value(["night"], "mIoU") == pytest.approx(first.value(["night"], "mIoU") + 0.5)


def test_another_definition_stands_beside_or_replaces(built: Built, entries: list[Entry], tmp_path: Path) -> None:
    benchmark, path = built[0], tmp_path / "x.csv"
    rows = benchmark.rows | {"flexseg": benchmark.rows["flexseg"].model_copy(update={"title": "x"})}
    other = benchmark.model_copy(update={"rows": rows, "training": benchmark.training.model_copy(update={"ema": 0.5})})
    add_runs(path, benchmark, entries)
    from flexseg.analysis.stats.evidence import definition_digest, definition_parts

    changed = replace(entries[-1], definition=definition_digest(definition_parts(other, "flexseg")))
    lines = add_runs(path, other, [changed])
    assert "flexseg, seed 5: added beside a run of another definition (training)" in lines[0]
    reference = read_reference(path, benchmark)
    assert len(reference.entries) == 13
    assert reference.evidence(benchmark).seeds(["flexseg"]) == list(range(6))
    assert reference.evidence(other).seeds(["flexseg"]) == [5]
    assert reference.chosen(other, "dginstyle") == (reference.of_row("dginstyle", entries[0].definition), ["training"])
    add_runs(path, other, [changed], replace=True)
    assert [each.seed for each in read_reference(path, benchmark).entries if each.row == "flexseg"].count(5) == 1


def test_a_run_that_is_known_better_completes_the_one_that_is_there(
    built: Built, entries: list[Entry], tmp_path: Path
) -> None:
    benchmark, path = built[0], tmp_path / "x.csv"
    bare = [
        replace(each, measured={key: Measured(m.value) for key, m in each.measured.items() if key[1] == "mIoU"})
        for each in entries
    ]
    add_runs(path, benchmark, bare)
    assert read_reference(path, benchmark).evidence(benchmark).paired(TERMS).shared == 0
    add_runs(path, benchmark, entries)
    whole = path.read_bytes()
    assert len(read_reference(path, benchmark).entries[0].measured) == 15
    add_runs(path, benchmark, bare)
    assert path.read_bytes() == whole


def test_three_hundred_runs_fit_into_three_hundred_kilobytes(
    built: Built, entries: list[Entry], tmp_path: Path
) -> None:
    made = replace(entries[0].made, weights="0123456789abcdef")
    many = [replace(entries[0], row=f"a_row_of_the_paper_{n // 12}", seed=n % 12, made=made) for n in range(300)]
    rows = {each.row: built[0].rows["dginstyle"] for each in many}
    path = tmp_path / "x.csv"
    add_runs(path, built[0].model_copy(update={"rows": rows}), many)
    print(f"300 runs: {path.stat().st_size / 1000:.0f} kB")
    assert path.stat().st_size < 300_000


def test_the_interval_covers_the_truth_also_from_groups() -> None:
    """Simulated runs on 5 targets of 192 images: the whole way from images to an interval, rows of unequal noise."""
    rng, hits, trials, n = np.random.default_rng(8), 0, 1500, 6
    targets = [f"t{number}" for number in range(5)]
    benchmark = type("Benchmark", (), {"averages": {"Avg5": targets}})()
    terms = [Term(1.0, "a", "Avg5", "mIoU"), Term(-1.0, "b", "Avg5", "mIoU")]
    for _ in range(trials):
        runs = []
        shared = {(row, t): rng.normal(0, 0.5, 16) for row in "ab" for t in targets}
        for row, spread in (("a", 0.3), ("b", 1.2)):
            for seed in range(n):
                noise = rng.normal(0, spread / math.sqrt(5), 5)
                measured = {}
                for place, t in enumerate(targets):
                    groups = shared[row, t] + rng.normal(0, 0.3, 16)
                    measured[t, "mIoU"] = Measured(50 + noise[place] + groups.mean() * 4 / 4, groups / 4)
                runs.append(Entry(row, seed, "", Made(), measured))  # type: ignore[arg-type]
        found = Evidence.of(benchmark, runs).paired(terms)
        hits += found.low <= 0 <= found.high
    assert 0.935 <= hits / trials <= 0.965
