"""Cost and origin of settings, of each row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.cost import COSTS, cost_table, origins_table
from flexseg.analysis.tables.write import write_all
from flexseg.benchmark import Benchmark
from flexseg.benchmark.schema import ORIGINS

ROWS = ["source_only", "dginstyle", "flexseg", "flexseg_tuned", "flexseg_no_has"]
Built = tuple[Benchmark, Path]


@pytest.fixture
def built(builder: Callable[..., Built]) -> Built:
    return builder(ROWS, [0, 1], 6, incidents=False)


def edit(built: Built, row: str, **changes: Any) -> None:
    for seed in built[0].seeds:
        path = built[1] / built[0].name / row / f"seed-{seed}" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def line(built: Built, row: str, make: Callable[[Scores], Any] = cost_table) -> dict[str, str]:
    table = make(Scores(load_records(*built), 50))
    cells = table.rows[list(built[0].rows).index(row)].cells
    return {column.title: cell.text for column, cell in zip(table.columns, cells, strict=True)}


def test_cost_stands_beside_what_is_reached(built: Built) -> None:
    edit(built, "flexseg", train_cpu_seconds=73.0, step_flops=7_250_000_000)
    scores = Scores(load_records(*built), 50)
    found = line(built, "flexseg")
    assert found["Avg5 mIoU"].startswith(f"{scores.mean('flexseg', 'Avg5').value:.1f}")
    assert found["time ×"] == "2.00"  # the others took 36 and 37 s of processor time
    assert found["processor (s)"] == "73"
    assert found["step (GFLOP)"] == "7.3"
    assert found["parameters (M)"] == "0.91"
    assert found["image (ms)"] == "4.0"
    assert found["n"] == "2"
    assert line(built, "dginstyle")["Δ Avg5"] == "reference"
    assert line(built, "dginstyle")["processor (s)"].startswith("36 ± ")
    assert "processor time of training over that of" in cost_table(scores).caption


def test_on_a_gpu_wall_time_is_compared(built: Built) -> None:
    edit(built, "flexseg", device="Example GPU", train_seconds=77.0)
    assert line(built, "flexseg")["time ×"] == "2.00"
    assert "wall time of training over that of" in cost_table(Scores(load_records(*built), 50)).caption


def test_runs_from_before_a_cost_was_measured_have_a_dash(built: Built) -> None:
    edit(built, "flexseg", step_flops=None, train_cpu_seconds=None)
    found = line(built, "flexseg")
    assert found["step (GFLOP)"] == found["processor (s)"] == "–"
    assert line(built, "dginstyle")["step (GFLOP)"] == "5.0"


def test_origins_count_defaults_and_name_what_is_set(built: Built) -> None:
    table = origins_table(Scores(load_records(*built), 50))
    assert [column.title for column in table.columns] == ["Row", *ORIGINS, "set for this row"]
    assert line(built, "dginstyle", origins_table)["set for this row"] == "–"
    tuned = line(built, "flexseg_tuned", origins_table)
    assert "lambda_gap 0.1" in tuned["set for this row"]
    assert tuned["set for this row"].endswith("(on source validation)")
    plain = line(built, "flexseg", origins_table)
    assert "lambda_gap" not in plain["set for this row"]
    assert int(plain["published"]) == int(tuned["published"]) + 1


def test_what_a_row_changes_of_the_training_is_an_origin_too(builder: Callable[..., Built], tmp_path: Path) -> None:
    built = builder(["dginstyle", "daformer"], [0, 1], 6, incidents=False)
    assert "rare class sampling" in line(built, "daformer", origins_table)["set for this row"]
    write_all(Scores(load_records(*built), 50), tmp_path)
    with (tmp_path / "origins.csv").open(newline="") as file:
        found = {each["option"]: each for each in csv.DictReader(file) if each["row"] == "daformer"}
    assert found.keys() == {"training.sampling", "training.feature_distance"}
    distance = found["training.feature_distance"]
    assert (json.loads(distance["value"])["stage"], distance["default"], distance["origin"]) == (3, "null", "set")
    assert "feature distance" in distance["meaning"]


def test_a_rows_own_schedule_is_named(built: Built) -> None:
    benchmark, results = built
    changed = benchmark.row("dginstyle").model_copy(update={"training": {"iterations": 1200}})
    benchmark = benchmark.model_copy(update={"rows": benchmark.rows | {"dginstyle": changed}})
    table = origins_table(Scores(load_records(benchmark, results), 50))
    assert table.rows[1].cells[-1].text == "iterations 1200"


def test_files_hold_every_option_and_every_cost(built: Built, tmp_path: Path) -> None:
    paths = {path.name for path in write_all(Scores(load_records(*built), 50), tmp_path)}
    assert {"cost.csv", "cost.md", "cost.tex", "origins.csv", "origins.md", "origins.tex"} <= paths
    with (tmp_path / "cost.csv").open() as file:
        lines = list(csv.DictReader(file))
    measured = {each["quantity"] for each in lines if each["row"] == "flexseg" and each["seed"] == "1"}
    assert measured == set(COSTS)
    with (tmp_path / "origins.csv").open() as file:
        options = {(each["row"], each["option"]): each for each in csv.DictReader(file)}
    assert options["flexseg_tuned", "lambda_gap"] == {
        "row": "flexseg_tuned", "method": "flexseg", "option": "lambda_gap", "value": "0.1", "default": "0.5",
        "origin": "tuned", "meaning": options["flexseg", "lambda_gap"]["meaning"],
    }  # fmt: skip
    assert options["flexseg", "lambda_gap"]["origin"] == "published"
    assert options["flexseg", "momentum"]["origin"] == "assumed"
