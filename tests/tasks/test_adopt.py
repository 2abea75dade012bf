"""Importing a publication: the row counts like one's own, and nothing is lost or half there where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark import Benchmark, Run, select_rows
from flexseg.cli import main
from flexseg.errors import UserError
from flexseg.files import read_json
from flexseg.tasks.adopt import adopt_publication
from flexseg.tasks.jobs import evaluate_row
from flexseg.tasks.publication import Publication, read_publication
from flexseg.tasks.publish import Terms, publish_row

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, smoke: Benchmark, smoke_data: Path) -> tuple[Publication, Path]:
    """A publication of the smoke benchmark's ``dginstyle``, and the results that it was made from. Read only."""
    from flexseg.tasks.jobs import train_run

    home = tmp_path_factory.mktemp("publisher")
    results = home / "results"
    (results / "smoke").mkdir(parents=True)
    (results / "smoke" / "data").symlink_to(smoke_data / "smoke" / "data")
    train_run(Run(smoke, "dginstyle", 0, results))
    evaluate_row(smoke, "dginstyle", results)
    folder = home / "published"
    terms = Terms("CC-BY-4.0", ("A. Author",))
    publish_row("smoke", "dginstyle", folder, seeds="", terms=terms, overwrite=False,
                benchmarks=ROOT / "benchmarks", results=results)  # fmt: skip
    return read_publication(folder), results


def test_a_published_row_counts_like_ones_own(
    published: tuple[Publication, Path], smoke: Benchmark, results: Path
) -> None:
    publication, theirs = published
    folder = adopt_publication(publication, smoke, "theirs", results)
    assert folder == results / "smoke" / "theirs"
    benchmark = select_rows(smoke, rows="theirs", results=results)
    assert benchmark.seeds_of("theirs") == [0]
    run = Run(benchmark, "theirs", 0, results)
    assert run.trained
    assert run.fingerprint == Run(smoke, "dginstyle", 0, theirs).fingerprint
    scores, original = Scores(load_records(benchmark, results), 20), Scores(load_records(smoke, theirs), 20)
    assert scores.mean("theirs", "Avg5") == original.mean("dginstyle", "Avg5")
    assert not scores.is_fixed("theirs")
    (note,) = scores.records.notes("theirs")
    assert note.startswith("foreign: published runs, manifest ")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    evaluate_row(benchmark, "theirs", results)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before, "it has been evaluated"


def test_its_digest_is_that_of_the_publication(
    published: tuple[Publication, Path], smoke: Benchmark, results: Path
) -> None:
    from flexseg.files import file_digest

    publication, _ = published
    folder = adopt_publication(publication, smoke, "theirs", results)
    written = read_json(folder / "row.json")
    assert written["publication"] == file_digest(publication.folder / "manifest-sha256.txt")
    assert written["published_seeds"] == [0]


@pytest.mark.parametrize("row", ["dginstyle", "there"])
def test_a_row_is_never_overwritten(
    published: tuple[Publication, Path], smoke: Benchmark, results: Path, row: str
) -> None:
    (results / "smoke" / "there").mkdir()
    (results / "smoke" / "there" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="another name with --row"):
        adopt_publication(published[0], smoke, row, results)
    assert (results / "smoke" / "there" / "mine.txt").read_text() == "mine"


def test_another_protocol_or_other_seeds_are_refused(
    published: tuple[Publication, Path], smoke: Benchmark, results: Path
) -> None:
    protocol = smoke.protocol.model_copy(update={"boundary_band": 4, "id": "other"})
    with pytest.raises(
        UserError, match=r"not that of benchmark smoke \('other'\): protocol.boundary_band, protocol.id"
    ):
        adopt_publication(published[0], smoke.model_copy(update={"protocol": protocol}), "theirs", results)
    with pytest.raises(UserError, match="has the seeds 0 and benchmark smoke 5, 6: none is in both"):
        adopt_publication(published[0], smoke.model_copy(update={"seeds": [5, 6]}), "theirs", results)
    assert sorted(path.name for path in (results / "smoke").iterdir()) == ["data"], "nothing is left behind"


def test_an_import_that_is_cut_off_leaves_nothing(
    published: tuple[Publication, Path], smoke: Benchmark, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []

    def copy(source: Path, target: Path, **_: object) -> None:
        copied.append(source)
        if len(copied) == 3:
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("flexseg.tasks.adopt.shutil.copyfile", copy)
    with pytest.raises(KeyboardInterrupt):
        adopt_publication(published[0], smoke, "theirs", results)
    assert sorted(path.name for path in (results / "smoke").iterdir()) == ["data"]


def test_records_of_other_images_are_not_evaluated_again(
    published: tuple[Publication, Path], smoke: Benchmark, results: Path
) -> None:
    folder = adopt_publication(published[0], smoke, "theirs", results)
    (folder / "seed-0" / "evaluation" / "night.parquet").unlink()
    with pytest.raises(UserError, match="not of this evaluation or these test images"):
        evaluate_row(select_rows(smoke, rows="theirs", results=results), "theirs", results)


def test_the_command(
    published: tuple[Publication, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flexseg.cli.share.BENCHMARKS", ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["import", str(published[0].folder), "--row", "theirs"])
    assert not stop.value.code
    assert "flexseg compare smoke dginstyle theirs" in capsys.readouterr().out
    assert (tmp_path / "results" / "smoke" / "theirs" / "seed-0" / "run.json").is_file()
