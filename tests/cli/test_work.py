"""``flexseg init``: what a working folder holds, and what it refuses; how selections are named; unknown keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexseg.benchmark import Benchmark, benchmark_names, load_benchmark, select_rows
from flexseg.benchmark.identity import tables_folder
from flexseg.cli import main
from flexseg.method_files import method_names
from flexseg.shipped import home

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_a_checkout_is_its_own_suite() -> None:
    assert home() == ROOT


def test_a_working_folder_holds_all_that_a_run_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", str(tmp_path / "mine")) == 0
    folder = tmp_path / "mine"
    assert benchmark_names(folder / "benchmarks") == benchmark_names(ROOT / "benchmarks")
    assert method_names(folder / "methods") == method_names(ROOT / "methods")
    assert (folder / "benchmarks" / "streetworld_small.reference.csv").is_file()
    assert {path.name for path in (folder / "profiles").iterdir()} == {"default", "gpu", "slurm"}
    assert load_benchmark("smoke", folder / "benchmarks").methods == folder / "methods"
    assert "include: snakefile()" in (folder / "Snakefile").read_text()
    assert f"cd {folder}" in capsys.readouterr().out


def test_some_benchmarks_bring_those_that_they_extend(tmp_path: Path) -> None:
    assert run("init", str(tmp_path / "mine"), "--benchmarks", "gta5_hrda, streetworld_camvid") == 0
    found = benchmark_names(tmp_path / "mine" / "benchmarks")
    assert found == ["gta5_daformer", "gta5_hrda", "streetworld", "streetworld_camvid"]
    for name in found:
        load_benchmark(name, tmp_path / "mine" / "benchmarks")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there"], "there is not empty (notes.txt), and nothing in it is overwritten"),
        (["there/notes.txt"], "is a file: name a new or empty folder"),
        (["new", "--benchmarks", "smok"], "no benchmark is named 'smok' (did you mean 'smoke'?)"),
    ],
)
def test_what_init_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    assert run("init", *arguments) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there" / "notes.txt").read_text() == "mine"


def test_run_finds_wrong_names_before_snakemake_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "smokee") == 2
    assert "did you mean 'smoke'?" in capsys.readouterr().err
    assert run("run", "smoke", "--profile", "slrum") == 2
    assert "there is no profile 'slrum' (did you mean 'slurm'?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "rows", "seeds", "wanted"),
    [
        ("default", "", "", ""),
        ("factorial", "", "", "factorial"),
        ("default", "flexseg,dginstyle", "", "rows-flexseg+dginstyle"),
        ("factorial", "flexseg", "", "rows-flexseg"),
        ("default", "", "0,2", "seeds-0+2"),
        ("factorial", "", "1", "factorial_seeds-1"),
    ],
)
def test_each_selection_has_reports_of_its_own(study: str, rows: str, seeds: str, wanted: str) -> None:
    benchmark = select_rows(load_benchmark("streetworld", ROOT / "benchmarks"), study, rows, seeds)
    assert benchmark.selection == wanted
    assert tables_folder(benchmark, Path("results")) == Path("results/streetworld/tables", wanted)


def test_long_selections_end_in_a_digest(smoke: Benchmark) -> None:
    def name(rows: int) -> str:
        more = {f"a_row_with_a_name_{number}": smoke.rows["dginstyle"] for number in range(rows)}
        return select_rows(smoke.model_copy(update={"rows": more}), rows=",".join(more)).selection

    assert len(name(20)) <= 80
    assert name(20) != name(21)
    assert name(20) == name(20)


def test_a_study_cannot_take_a_folder_of_the_reports(smoke: Benchmark, tmp_path: Path) -> None:
    from flexseg.errors import UserError

    text = (ROOT / "benchmarks" / "smoke.yaml").read_text().replace("studies:\n", "studies:\n  figures: [flexseg]\n")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"studies\.figures: .* rename the study"):
        load_benchmark("mine", tmp_path)


def test_methods_are_shown_by_a_part_of_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "methods", "whiten") == 0
    shown = capsys.readouterr().out
    assert "switchable_whitening" in shown
    assert "robustnet" not in shown
    assert run("show", "methods", "whitten") == 2


def test_facts_of_the_world_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ("--height", "32", "--width", "64", "--images", "1")
    assert run("show", "boundaries", *size) == 0
    assert "the label at stride 4" in capsys.readouterr().out
    table = tmp_path / "wrong.csv"
    assert run("show", "misalignment", *size, "--version", "1", "--output", str(table)) == 0
    assert "at 0.5" in capsys.readouterr().out
    lines = table.read_text().splitlines()
    assert lines[0] == "strength,by,name,pixels,wrong"
    assert len(lines) == 1 + 4 * (1 + 5 + 19)
    assert run("show", "world", str(tmp_path / "sheet.png"), *size[:4], "--samples", "1", "--version", "2") == 0
    assert (tmp_path / "sheet.png").is_file()
    assert run("show", "boundaries", "--version", "9") == 2
    assert "there is no version 9 of the street world" in capsys.readouterr().err


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from flexseg import __version__

    assert run("--version") == 0
    assert capsys.readouterr().out == f"flexseg {__version__}\n"
