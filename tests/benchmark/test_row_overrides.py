"""Rows with a schedule or a trunk of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flexseg.analysis.tables.origins import exceptions, training_changes
from flexseg.benchmark import Benchmark, Run, load_benchmark, select_rows
from flexseg.errors import UserError
from flexseg.files import read_json

Content = dict[str, Any]


@pytest.fixture
def load(smoke_content: Callable[[], Content], tmp_path: Path) -> Callable[..., Benchmark]:
    """``load(rows)``: the smoke benchmark with these rows beside its own."""

    def read(**rows: Any) -> Benchmark:
        content = smoke_content()
        content["rows"] |= rows
        content["studies"]["default"] += list(rows)
        (tmp_path / "edited.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_benchmark("edited", tmp_path)

    return read


def test_a_rows_changes_are_part_of_what_defines_it(load: Callable[..., Benchmark]) -> None:
    benchmark = load(
        longer={"extends": "dginstyle", "training": {"iterations": 20}},
        again={"extends": "longer", "title": "Again"},
    )
    assert benchmark.training_of("dginstyle") is benchmark.training
    assert benchmark.training_of("longer").iterations == benchmark.training_of("again").iterations == 20
    assert benchmark.training_of("longer").ema == benchmark.training.ema
    definitions = {row: benchmark.run_definition(row, 0) for row in ("dginstyle", "longer")}
    assert definitions["longer"]["training"] == definitions["dginstyle"]["training"] | {"iterations": 20}
    assert definitions["longer"]["model"] == benchmark.model
    assert "training" not in definitions["longer"]["options"]
    assert exceptions(benchmark) == "equal for every row but longer (iterations 20), again (iterations 20)"
    assert exceptions(select_rows(benchmark, rows="dginstyle")) == "equal for every row"


def test_what_a_row_changes_of_the_recipe_is_said_in_words(load: Callable[..., Benchmark]) -> None:
    rare = {"kind": "rare_classes", "min_pixels": 12, "min_crop_pixels": 6}
    benchmark = load(
        both={"extends": "dginstyle", "training": {"sampling": rare, "feature_distance": {"stage": 3}}},
        alone={"extends": "dginstyle", "training": {"mix": [0, 1], "photometric": None}},
    )
    shared = benchmark.model_copy(update={"training": benchmark.training.model_copy(update={"photometric": "mmseg"})})
    sampling, distance = "rare class sampling (T = 0.01, more than 12 pixels)", "feature distance to the frozen encoder"
    assert training_changes(benchmark, "both") == {
        "sampling": sampling,
        "feature_distance": f"{distance} (weight 0.005, stage 3)",
    }
    assert training_changes(benchmark, "alone")["photometric"] == "photometric null"
    assert training_changes(shared, "alone") == {
        "mix": "source and generated images drawn 0 : 1",
        "photometric": "without photometric distortion",
    }


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"iteration": 20}, r"rows.longer.training: the schedule has no key 'iteration' \(did you mean 'iterations'"),
        ({"iterations": -1}, "rows.longer.training: .*iterations"),
        ({"ema": 1.5}, "rows.longer.training: .*ema"),
        ({"warmup": 50}, "warmup .50. must be shorter than iterations"),
    ],
)
def test_a_wrong_change_is_named(load: Callable[..., Benchmark], training: Content, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(longer={"extends": "dginstyle", "training": training})


def test_a_row_trains_by_its_own_schedule_on_its_own_trunk(
    load: Callable[..., Benchmark], smoke: Benchmark, smoke_data: Path, tmp_path: Path, methods: Path
) -> None:
    from flexseg.tasks.jobs import load_trained, train_run

    trunk = smoke.model | {"backbone": smoke.model["backbone"] | {"base_channels": 6}}
    trunk["decode_head"] = trunk["decode_head"] | {"in_channels": 6}
    benchmark = load(own={"extends": "dginstyle", "training": {"iterations": 5, "warmup": 0}, "model": trunk})
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "data").symlink_to(smoke_data / "smoke" / "data")
    run = Run(benchmark.with_methods(methods), "own", 0, tmp_path)
    train_run(run)
    directory = run.directory
    assert directory.log.read_text().count("\n") == 3  # iterations 2, 4 and the last
    assert load_trained(run).feature_channels == 8
    assert read_json(directory.record)["parameters"] > 200_000


def test_a_rows_own_trunk_must_take_the_crop(load: Callable[..., Benchmark], smoke: Benchmark, methods: Path) -> None:
    from flexseg.tasks.check import check_benchmark

    benchmark = load(own={"extends": "dginstyle", "training": {"crop": [32, 48]}})
    with pytest.raises(UserError, match="the trunk of row own takes multiples of 32 pixels only, not 32×48"):
        check_benchmark(benchmark.with_methods(methods))
