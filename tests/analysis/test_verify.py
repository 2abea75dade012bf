"""Verdicts on repeated results: exact repetition, noise, real differences, and files that cannot be trusted."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_ind

from flexseg.analysis.stats import verify as v
from flexseg.analysis.stats.evidence import definition_digest, definition_parts, entries_of
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.reference import Reference, add_runs, read_reference
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import holm
from flexseg.benchmark import Benchmark
from flexseg.benchmark.claims import MEASURES
from flexseg.cli.print import print_verification
from flexseg.errors import UserError

ROWS = ["source_only", "dginstyle", "flexseg_no_ube", "flexseg_no_has", "constant_weight"]
Built = tuple[Benchmark, Path]


@pytest.fixture
def built(small: Built) -> Built:
    """Five complete rows of three seeds."""
    benchmark, results = small
    return benchmark.model_copy(update={"rows": {row: benchmark.rows[row] for row in ROWS}}), results


@pytest.fixture
def scores(built: Built) -> Scores:
    return Scores(load_records(*built))


def write(scores: Scores, path: Path) -> Path:
    """The reference file of these very results."""
    add_runs(path, scores.benchmark, entries_of(scores.records))
    return path


@pytest.fixture
def path(scores: Scores, tmp_path: Path) -> Path:
    return write(scores, tmp_path / "streetworld.reference.csv")


def changed(path: Path, benchmark: Benchmark, change: Callable[[str, str, int], float]) -> Reference:
    """The reference with ``change(row, target, seed)`` added to each mIoU."""
    reference = read_reference(path, benchmark)
    entries = []
    for entry in reference.entries:
        measured = {
            (target, measure): replace(each, value=each.value + change(entry.row, target, entry.seed))
            for (target, measure), each in entry.measured.items()
        }
        entries.append(replace(entry, measured=measured))
    return replace(reference, entries=tuple(entries))


def shown(found: v.Verification, cells: bool = False, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_verification(found, console, cells=cells)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_same_results_are_reproduced(scores: Scores, path: Path) -> None:
    found = v.verify(scores, read_reference(path, scores.benchmark))
    assert found.judged == found.count("reproduced") == 5 * 8
    assert not found.differs
    text = shown(found, width=200)
    assert "of 40 cells 40 reproduced, 0 within noise, 0 differ after Holm over all." in text
    assert "reproduced, number by number" in text
    assert "instruction set" not in text


def test_the_file_holds_what_the_tables_say_and_is_small(scores: Scores, path: Path) -> None:
    reference = read_reference(path, scores.benchmark)
    assert [(entry.row, entry.seed) for entry in reference.entries] == sorted(product(scores.benchmark.rows, range(3)))
    for entry, column in product(reference.entries, scores.columns):
        for measure in MEASURES:
            value = scores.per_seed(entry.row, column, measure)[entry.seed]
            assert entry.value(scores.members(column), measure) == pytest.approx(value, abs=1e-4)
    assert {entry.made.commit for entry in reference.entries} == {"0123456789ab"}
    assert {entry.made.date for entry in reference.entries} == {"2026-01-01"}
    assert path.stat().st_size < 1000 * len(reference.entries)


def test_a_small_difference_is_noise_and_a_large_one_is_not(scores: Scores, path: Path) -> None:
    def shift(row: str, column: str, seed: int) -> float:
        return {"constant_weight": 0.02, "dginstyle": 15.0}.get(row, 0.0)

    found = v.verify(scores, changed(path, scores.benchmark, shift))
    for column in scores.columns:
        assert found.cells["constant_weight", column].verdict == "within noise"
        assert found.cells["constant_weight", column].difference == pytest.approx(-0.02, abs=1e-6)
        assert found.cells["dginstyle", column].verdict == "differs"
        assert found.cells["source_only", column].verdict == "reproduced"
    assert found.differs
    text = shown(found)
    assert "These results differ from the reference: dginstyle on " in text
    assert "✗ −15.0" in text


def test_within_noise_says_why_numbers_need_not_be_equal(scores: Scores, path: Path) -> None:
    found = v.verify(scores, changed(path, scores.benchmark, lambda row, column, seed: 0.001 * (seed + 1)))
    assert found.count("within noise") == 40
    text = shown(found, width=200)
    assert "confirmed" in text
    assert "instruction set" in text
    assert "@ 2.50GHz, and its instruction set was not recorded." in text
    wide = replace(found, kernels=["held to AVX2"], kernels_there=["AVX512"])
    assert "computed with held to AVX2, the reference with AVX512" in shown(wide, width=300)
    same = shown(replace(found, kernels=["held to AVX2"], kernels_there=["held to AVX2"]), width=300)
    assert "Both were computed with the same kernels (held to AVX2), so a seed should have given equal numbers." in same


def test_equal_weights_are_the_same_bits(built: Built, tmp_path: Path) -> None:
    benchmark, results = built
    copy = Path(shutil.copytree(results, tmp_path / "results"))
    held = {"held": True, "torch": "AVX2", "mkl": "COMPATIBLE", "libc": "glibc 2.36"}
    for place, path in enumerate(sorted(copy.glob("*/*/seed-*/run.json"))):
        info = json.loads(path.read_text())
        path.write_text(json.dumps(info | {"weights_sha256": f"{place:064x}"[::-1], "kernels": held}))
    scores = Scores(load_records(benchmark, copy))
    reference = read_reference(write(scores, tmp_path / "streetworld.reference.csv"), benchmark)
    found = v.verify(scores, reference)
    assert found.kernels_there == ["held to AVX2, MKL COMPATIBLE, glibc 2.36"]
    assert found.count("same bits") == found.judged == 40
    assert "repeated bit by bit" in shown(found)
    assert "≡ same bits" in shown(found)
    others = [
        replace(entry, made=replace(entry.made, weights="0" * 16)) if entry.row == "dginstyle" else entry
        for entry in reference.entries
    ]
    found = v.verify(scores, replace(reference, entries=tuple(others)))
    assert {found.cells["dginstyle", column].verdict for column in scores.columns} == {"reproduced"}
    assert "reproduced, number by number" in shown(found)


def test_one_seed_that_differs_is_not_reproduced(scores: Scores, path: Path) -> None:
    def shift(size: float) -> Reference:
        cell = ("constant_weight", "night", 1)
        return changed(path, scores.benchmark, lambda *each: size * (each == cell))

    found = v.verify(scores, shift(2e-6 * 5))
    assert found.cells["constant_weight", "night"].verdict == "within noise"
    assert found.count("reproduced") == 37, "and the averages Avg2 and Avg5"
    assert v.verify(scores, shift(5e-7)).count("reproduced") == 40


def test_what_is_not_run_is_missing(built: Built, path: Path, tmp_path: Path) -> None:
    benchmark, results = built
    shutil.copytree(results, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / benchmark.name / "constant_weight")
    shutil.rmtree(tmp_path / "part" / benchmark.name / "dginstyle" / "seed-2")
    part = Scores(load_records(benchmark, tmp_path / "part"))
    found = v.verify(part, read_reference(path, benchmark))
    assert {found.cells["constant_weight", column].verdict for column in part.columns} == {"missing"}
    cell = found.cells["dginstyle", "night"]
    assert (cell.verdict, cell.n_here, cell.n_there) == ("reproduced", 2, 3)
    assert not found.differs
    text = shown(found)
    assert "Not judged: missing here: 8." in text
    assert "other definition" not in text
    assert "constant_weight: seeds 0, 1, 2 missing: not run." in text
    assert len(entries_of(part.records)) == 5 * 3 - 4, "what is not finished adds nothing"


def wait_for_a_package(built: Built, top: Path, row: str, seeds: list[int]) -> Scores:
    """The scores as they are where a row's package is missing: those seeds were not run."""
    benchmark, results = built
    shutil.copytree(results, top)
    for seed in seeds:
        folder = top / benchmark.name / row / f"seed-{seed}"
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "failure.json").write_text(json.dumps({"status": "not run", "reason": "pip install nothing"}))
    return Scores(load_records(benchmark, top))


def test_a_row_without_its_package_fails_nothing(built: Built, path: Path, tmp_path: Path) -> None:
    """The reference was written without the row; then the row is not in it, and the others are judged as ever."""
    part = wait_for_a_package(built, tmp_path / "part", "constant_weight", built[0].seeds)
    write(part, tmp_path / "new.csv")
    kept = [line for line in path.read_text().splitlines() if line[0] != "#" and "constant_weight" not in line]
    assert [line for line in (tmp_path / "new.csv").read_text().splitlines() if line[0] != "#"] == kept
    found = v.verify(part, read_reference(tmp_path / "new.csv", built[0]))
    assert not found.differs
    assert found.count("reproduced") == 32
    assert {found.cells["constant_weight", column].verdict for column in part.columns} == {"no reference"}
    assert "constant_weight: seeds 0, 1, 2 not run: pip install nothing." in shown(found)


def test_nothing_run_is_said_so(built: Built, path: Path, tmp_path: Path) -> None:
    benchmark, _ = built
    found = v.verify(Scores(load_records(benchmark, tmp_path)), read_reference(path, benchmark))
    assert found.judged == 0
    assert not found.differs
    assert "nothing can be said" in shown(found)


def test_another_definition_gets_no_verdict_and_is_named(scores: Scores, path: Path) -> None:
    parts = definition_parts(scores.benchmark, "constant_weight")
    name, other = definition_digest(parts), parts | {"options": "0" * 8, "training": "0" * 8}
    text = path.read_text().replace(json.dumps(parts, sort_keys=True), json.dumps(other, sort_keys=True))
    path.write_text(text.replace(name, definition_digest(other)))
    reference = changed(path, scores.benchmark, lambda row, column, seed: 20.0 * (row == "constant_weight"))
    found = v.verify(scores, reference)
    assert {found.cells["constant_weight", column].verdict for column in scores.columns} == {"other definition"}
    assert not found.differs
    assert "constant_weight: other definition than the reference's: options, training." in found.notes
    assert "? −20.0" in shown(found)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"averages": {"Avg2": ["night", "mixed"]}}, "averages"),
        ({"targets": ["adverse", "night", "clear_city", "mixed"]}, "targets"),
    ],
)
def test_what_is_evaluated_is_part_of_the_definition(scores: Scores, change: dict, part: str) -> None:
    before = definition_parts(scores.benchmark, "constant_weight")
    after = definition_parts(scores.benchmark.model_copy(update=change), "constant_weight")
    assert [name for name in before if before[name] != after[name]] == [part]


def test_a_row_without_reference_is_shown(scores: Scores, path: Path) -> None:
    reference = read_reference(path, scores.benchmark)
    kept = tuple(entry for entry in reference.entries if entry.row != "constant_weight")
    found = v.verify(scores, replace(reference, entries=kept))
    assert found.cells["constant_weight", "night"].verdict == "no reference"
    assert found.judged == 32


def test_other_code_is_named(scores: Scores, path: Path) -> None:
    path.write_text(path.read_text().replace('"code": "today"', '"code": "yesterday"'))
    found = v.verify(scores, read_reference(path, scores.benchmark))
    assert "The code that decides a run differs: today here, yesterday in the reference." in found.notes


def test_rows_of_the_reference_may_have_more_seeds_than_others(scores: Scores, path: Path) -> None:
    reference = read_reference(path, scores.benchmark)
    kept = tuple(each for each in reference.entries if each.seed < 2 or each.row == "dginstyle")
    found = v.verify(scores, replace(reference, entries=kept))
    assert found.cells["dginstyle", "night"].verdict == "reproduced"
    cell = found.cells["constant_weight", "night"]
    assert (cell.verdict, cell.n_here, cell.n_there) == ("within noise", 3, 2)


def test_a_reference_of_one_seed_has_no_interval(built: Built, tmp_path: Path) -> None:
    benchmark, results = built
    one = benchmark.model_copy(update={"seeds": [0]})
    single = Scores(load_records(one, results))
    reference = read_reference(write(single, tmp_path / "one.csv"), one)
    assert v.verify(single, reference).count("reproduced") == 40
    found = v.verify(single, changed(tmp_path / "one.csv", one, lambda *_: 3.0))
    assert found.count("no interval") == 40
    assert found.judged == 0
    assert not found.differs


def test_cells_show_the_interval(scores: Scores, path: Path) -> None:
    found = v.verify(scores, changed(path, scores.benchmark, lambda row, column, seed: 0.1))
    text = shown(found, cells=True, width=120)
    cell = found.cells["constant_weight", "Avg5"]
    line = next(line for line in text.splitlines() if line.startswith("constant_weight ") and " Avg5 " in line)
    assert f"{cell.half:.2f}" in line.split()
    assert "≈ within noise" in line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# format:", "# formula:", "its `# format:` line is missing"),
        ('"format": 2', '"format": 1', "its format is 1, not 2"),
        ('# format: {"', "# format: {", "its `# format:` line is no JSON"),
        ("# maker ", "# baker ", "names maker .* which is not in it"),
        ("row,seed,", "row,sead,", "its columns do not begin with row, seed"),
        ("\nconstant_weight,1,", "\nconstant_weight,one,", "invalid literal"),
        ("\nconstant_weight,1,", "\nconstant_weight,2,", "constant_weight, seed 2 is in it twice"),
        ("\nconstant_weight,1,", "\nconstant_weight,1,,", "other columns than the heading|which is not in it"),
        ("\nconstant_weight,1,", "\nconstant_weight,1,x", "names definition 'x"),
        ("/W", "/!", "substring not found|different numbers"),
        ("/W", "/", "is cut off|different numbers"),
    ],
)
def test_a_damaged_file_is_one_clear_message(scores: Scores, path: Path, old: str, new: str, message: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        read_reference(path, scores.benchmark)
    assert str(path) in str(error.value)
    assert "git checkout" in str(error.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-3.0", "101"])
def test_values_that_are_no_miou_are_damage(scores: Scores, path: Path, value: str) -> None:
    lines = path.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("constant_weight,1,"))
    cells = lines[place].split(",")
    lines[place] = ",".join([*cells[:6], value, *cells[7:]])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="is damaged"):
        read_reference(path, scores.benchmark)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"# nothing\n", b"row,column\n"])
def test_a_file_that_is_none(scores: Scores, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_reference(tmp_path / "x.csv", scores.benchmark)


def test_another_benchmarks_reference_is_refused(scores: Scores, path: Path) -> None:
    other = scores.benchmark.model_copy(update={"name": "smoke"})
    with pytest.raises(UserError, match="of benchmark 'streetworld', not 'smoke'"):
        read_reference(path, other)


def test_a_cut_file_is_noticed_wherever_a_line_is_cut(scores: Scores, path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 37):
        if whole[length - 1 : length] != b"\n":  # fewer whole lines are a reference of fewer runs
            path.write_bytes(whole[:length])
            with pytest.raises(UserError):
                read_reference(path, scores.benchmark)


def test_one_pooled_variance_is_students_test_of_two_samples() -> None:
    """With the pooled variance of both samples it is the textbook's t-test."""
    rng = np.random.default_rng(0)
    here, there = rng.normal(1, 1, 4), rng.normal(0, 1, 6)
    pooled = (here.var(ddof=1) * 3 + there.var(ddof=1) * 5) / 8
    expected = ttest_ind(here, there)
    half, p = v.judge(here, there, pooled, 8)
    interval = expected.confidence_interval(0.95)
    assert p == pytest.approx(expected.pvalue)
    assert half == pytest.approx((interval.high - interval.low) / 2)


def test_moderate_variances_find_the_prior_they_were_drawn_from() -> None:
    """s² ~ s₀²·d₀/χ²(d₀) · χ²(d)/d, with d₀ = 6 and s₀² = 2: the moderated ones are nearer to the truth."""
    rng = np.random.default_rng(4)
    truth = 2.0 * 6 / rng.chisquare(6, 4000)
    seen = truth * rng.chisquare(2, 4000) / 2
    found, freedom = v.moderate(seen, np.full(4000, 2.0))
    assert freedom[0] - 2 == pytest.approx(6, rel=0.15)
    error, plain, pooled = (np.square(np.log(x / truth)).mean() for x in (found, seen, seen.mean()))
    assert error < 0.8 * min(plain, pooled)


def test_equal_variances_are_pooled_and_hostile_ones_survive() -> None:
    found, freedom = v.moderate(np.full(10, 0.5), np.full(10, 2.0))
    assert found == pytest.approx(0.5)
    assert freedom == pytest.approx(20)
    for variances in ([0.0] * 10, [0.0] * 9 + [1.0], [1e-12] * 5 + [1e6] * 5, [0.3]):
        found, freedom = v.moderate(np.array(variances), np.full(len(variances), 2.0))
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert ((freedom >= 2) & (freedom <= 2 * len(variances))).all()
    assert v.judge(np.array([1.0]), np.array([1.0, 1.0]), 0.0, 20) == (0.0, 1.0)
    assert v.judge(np.array([1.1]), np.array([1.0, 1.0]), 0.0, 20) == (0.0, 0.0)


def _false_alarms(spread: float, shared: float = 0.0, seeds: int = 3, trials: int = 600) -> tuple[float, float]:
    """Faithful repetitions of ten rows: (share of cells outside, share of repetitions with any after Holm).

    The rows' standard deviations run from exp(−spread) to exp(spread); ``shared`` is the seeds' share of the variance.
    """
    rng = np.random.default_rng([int(10 * spread), int(10 * shared), seeds])
    sd = np.exp(np.linspace(-spread, spread, 10))[:, None] * np.sqrt(1 - shared)
    cells, families = 0, 0
    for _ in range(trials):
        seed = rng.normal(0, np.sqrt(shared), 3)
        there = rng.normal(0, sd, (10, 3)) + seed
        here = rng.normal(0, sd, (10, seeds)) + seed[:seeds]
        variances, freedom = v.moderate(there.var(axis=1, ddof=1), np.full(10, 2.0))
        p = np.array([v.judge(here[row], there[row], variances[row], freedom[row])[1] for row in range(10)])
        cells, families = cells + int((p < 0.05).sum()), families + bool((holm(p) < 0.05).any())
    return cells / (10 * trials), families / trials


def test_about_five_percent_of_faithful_cells_are_outside() -> None:
    for seeds in (2, 3):
        cell, family = _false_alarms(0.0, seeds=seeds)
        assert 0.04 < cell < 0.07
        assert family < 0.075
    cell, family = _false_alarms(0.35)  # the noisiest row twice as noisy as the quietest
    assert 0.04 < cell < 0.075
    assert family < 0.1


def test_equal_seeds_that_share_something_make_it_careful() -> None:
    cell, family = _false_alarms(0.0, shared=0.5)
    assert cell < 0.04
    assert family < 0.04
