"""Choosing the rows and seeds of a benchmark: by study, by name, by a method's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexseg.benchmark import Benchmark, fingerprint, load_benchmark, select_rows
from flexseg.errors import UserError

ROOT = Path(__file__).parents[2]


def test_select_rows_of_a_study(smoke: Benchmark) -> None:
    assert list(select_rows(smoke).rows) == ["dginstyle", "flexseg"]
    with pytest.raises(UserError, match=r"no study is named 'defualt'.*did you mean 'default'"):
        select_rows(smoke, "defualt")


def test_select_rows_by_name_in_the_order_given(smoke: Benchmark) -> None:
    selected = select_rows(smoke, rows="flexseg, dginstyle")
    assert list(selected.rows) == ["flexseg", "dginstyle"]
    assert selected.studies == {"default": ["flexseg", "dginstyle"]}
    assert selected.reference == "dginstyle"
    alone = select_rows(smoke, rows="flexseg")
    assert alone.reference == "flexseg", "without the reference row the first one stands in"


def test_select_rows_takes_a_method_file_as_a_row(smoke: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "my_idea.py").write_text("")
    selected = select_rows(smoke.with_methods(tmp_path), rows="my_idea,dginstyle")
    assert (selected.row("my_idea").method, selected.row("my_idea").options) == ("my_idea", {})
    with pytest.raises(UserError, match=r"no row is named 'my_ideas'.*ows: dginstyle, flexseg"):
        select_rows(smoke.with_methods(tmp_path), rows="my_ideas")


def test_selecting_changes_no_fingerprint(smoke: Benchmark) -> None:
    streetworld = load_benchmark("streetworld", ROOT / "benchmarks")
    for benchmark in (smoke, streetworld):
        for row in benchmark.studies["default"]:
            selected = select_rows(benchmark, rows=row, seeds="5,0")
            names = [fingerprint(each.run_definition(row, 0)) for each in (selected, benchmark)]
            assert names[0] == names[1]


def test_select_seeds(smoke: Benchmark) -> None:
    assert select_rows(smoke, seeds="3,1").seeds == [3, 1]
    assert select_rows(smoke).seeds == smoke.seeds
    for wrong in ("one", "1,,2", "1.5"):
        with pytest.raises(UserError, match="seeds are different whole numbers from 0 on"):
            select_rows(smoke, seeds=wrong)
    for wrong in ("1,1", "-1"):
        with pytest.raises(UserError, match="seeds are different whole numbers from 0 on"):
            select_rows(smoke, seeds=wrong)


def test_no_rows_at_all(smoke: Benchmark) -> None:
    with pytest.raises(UserError, match="no rows are selected"):
        select_rows(smoke, rows=" , ")
