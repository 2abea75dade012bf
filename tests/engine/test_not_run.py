"""A row that an optional package is missing for: shown as not run, with the recipe, and no failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.errors import MissingExtra
from flexseg.files import read_json

SOURCE = """
from flexseg.errors import MissingExtra
from flexseg.method import Method


class Mine(Method):
    name = "mine"
    title = "Mine"

    def build_model(self, config):
        raise MissingExtra("mine needs the package nothing: pip install nothing")
"""
AT_IMPORT = (
    'from flexseg.errors import MissingExtra\nraise MissingExtra("mine needs the package nothing: pip install")\n'
)


@pytest.fixture
def place(tiny: Benchmark, tmp_path: Path) -> tuple[Benchmark, Path]:
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "mine.py").write_text(SOURCE)
    return tiny.model_copy(update={"rows": {"row": Row(method="mine", title="Row")}, "reference": "row"}), folder


def test_outcome_is_not_run(
    place: tuple[Benchmark, Path], results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flexseg.analysis.stats.records import load_records
    from flexseg.cli.print import print_status
    from flexseg.tasks.jobs import evaluate_row, train_run

    benchmark, folder = place
    receipt, evaluated = tmp_path / "trained.json", tmp_path / "evaluated.json"
    train_run(Run(benchmark.with_methods(folder), "row", 0, results), receipt=receipt)
    assert read_json(receipt)["status"] == "not run"
    evaluate_row(benchmark.with_methods(folder), "row", results, receipt=evaluated)
    assert read_json(evaluated)["seeds"] == {"0": "not run"}
    (run,) = load_records(benchmark.with_methods(folder), results).runs.values()
    assert (run.status, run.reason) == ("not run", "not run: mine needs the package nothing: pip install nothing")
    capsys.readouterr()
    assert print_status(benchmark.with_methods(folder), results, Console(), retry=False) is False
    said = capsys.readouterr().out
    assert "1 not run" in said
    assert "pip install nothing" in said
    assert "--retry" in said
    print_status(benchmark.with_methods(folder), results, Console(), retry=True)
    assert not Run(benchmark.with_methods(folder), "row", 0, results).directory.failure.exists()


def test_without_a_receipt_the_recipe_is_raised(place: tuple[Benchmark, Path], train: Callable[..., object]) -> None:
    benchmark, folder = place
    with pytest.raises(MissingExtra, match="pip install nothing"):
        train("row", benchmark=benchmark, methods=folder)


def test_a_method_file_may_say_so_when_it_is_imported(
    place: tuple[Benchmark, Path], results: Path, tmp_path: Path
) -> None:
    from flexseg.tasks.jobs import train_run

    benchmark, folder = place
    (folder / "mine.py").write_text(AT_IMPORT)
    train_run(Run(benchmark.with_methods(folder), "row", 0, results), receipt=tmp_path / "receipt.json")
    assert read_json(tmp_path / "receipt.json")["status"] == "not run"
