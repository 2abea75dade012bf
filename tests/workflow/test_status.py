"""The state of runs, read from hand-made files: running, interrupted, failed, and the time left."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from flexseg.analysis.stats.progress import Standing, duration, outlook, standings
from flexseg.benchmark import Benchmark, fingerprint, load_benchmark, select_rows
from flexseg.cli.print import print_status

NOW = 1_800_000_000.0


class Place:
    """A results folder in which runs are put in any state, at a time of one's choice."""

    def __init__(self, root: Path, top: Path) -> None:
        chosen = select_rows(load_benchmark("streetworld", root / "benchmarks"), rows="dginstyle,flexseg")
        training = chosen.training.model_copy(update={"iterations": 960, "batch_size": 8})  # what the texts below count
        self.benchmark: Benchmark = chosen.model_copy(update={"training": training})
        self.results, self.methods = top / "results", root / "methods"

    def folder(self, row: str, seed: int) -> Path:
        folder = self.results / "streetworld" / row / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def definition(self, row: str, seed: int) -> dict[str, Any]:
        return self.benchmark.run_definition(row, seed)

    def start(self, row: str, seed: int, log: str | bytes = "", ago: float = 10.0, other: bool = False) -> Path:
        """A run that was started and whose files were last touched ``ago`` seconds before now."""
        folder, definition = self.folder(row, seed), self.definition(row, seed)
        name = "0" * 16 if other else fingerprint(definition)
        (folder / "config.json").write_text(json.dumps({"fingerprint": name, "definition": definition}))
        (folder / "train.jsonl").write_bytes(log if isinstance(log, bytes) else log.encode())
        for path in folder.iterdir():
            os.utime(path, (NOW - ago, NOW - ago))
        return folder

    def finish(self, row: str, seed: int, seconds: object = 100.0, targets: list[str] | None = None) -> Path:
        """A run that was trained, and evaluated on ``targets`` (None: all)."""
        folder, name = self.folder(row, seed), fingerprint(self.definition(row, seed))
        run = {
            "status": "finished",
            "fingerprint": name,
            "definition": self.definition(row, seed),
            "train_seconds": seconds,
        }
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "evaluation").mkdir(exist_ok=True)
        evaluation = fingerprint(self.benchmark.evaluation_definition())
        for target in self.benchmark.targets if targets is None else targets:
            metadata = {"fingerprint": name, "evaluation": evaluation}
            table = pa.table({"image": ["a"]}).replace_schema_metadata(metadata)
            pq.write_table(table, folder / "evaluation" / f"{target}.parquet")
        return folder

    def fail(self, row: str, seed: int, reason: object = "the loss is not finite") -> Path:
        folder = self.folder(row, seed)
        (folder / "failure.json").write_text(json.dumps({"status": "failed", "reason": reason}))
        return folder

    def of(self, row: str, seed: int) -> Standing:
        return next(each for each in standings(self.benchmark, self.results, NOW)
                    if (each.row, each.seed) == (row, seed))  # fmt: skip

    def shown(self, width: int = 100, retry: bool = False) -> tuple[str, bool]:
        console = Console(file=io.StringIO(), width=width)
        failed = print_status(self.benchmark, self.results, console, retry=retry)
        return console.file.getvalue(), failed  # type: ignore[attr-defined]


@pytest.fixture
def place(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("flexseg.analysis.stats.progress.time.time", lambda: NOW)
    return Place(root, tmp_path)


def line(iteration: object = 480, speed: object = 40.0) -> str:
    return json.dumps({"iteration": iteration, "loss": 1.0, "images_per_second": speed}) + "\n"


def test_nothing_was_run(place: Place) -> None:
    text, failed = place.shown()
    assert not failed
    assert text.endswith("streetworld: 6 missing\n")
    assert "· missing" in text
    assert "to go" not in text, "no run shows how long one takes"


def test_a_growing_log_is_a_running_run(place: Place) -> None:
    place.start("flexseg", 1, line(460) + line(480))
    found = place.of("flexseg", 1)
    assert (found.state, found.done, found.total) == ("running", 480, 960)
    assert found.left == pytest.approx(
        480 * 8 / 40 - 10
    )  # iterations · images per step / images per second, since then
    text, _ = place.shown()
    assert "▶ 50 %" in text
    assert "flexseg, seed 1: running, 480/960 iterations, about 1 min 26 s left" in text
    assert text.endswith("streetworld: 1 running, 5 missing\n")


def test_a_run_that_has_just_been_started_is_running(place: Place) -> None:
    place.start("flexseg", 1)
    found = place.of("flexseg", 1)
    assert (found.state, found.done, found.left) == ("running", 0, None)
    assert "flexseg, seed 1: running, 0/960 iterations\n" in place.shown()[0]


def test_a_slow_run_may_be_quiet_for_longer(place: Place) -> None:
    place.start("flexseg", 0, line(speed=0.5), ago=600)  # a logging step takes 20 · 8 / 0.5 = 320 s
    place.start("flexseg", 1, line(speed=40.0), ago=600)
    assert place.of("flexseg", 0).state == "running"
    assert place.of("flexseg", 1).state == "interrupted"


def test_a_wrong_clock_does_no_harm(place: Place) -> None:
    place.start("flexseg", 1, line(), ago=-3600)
    found = place.of("flexseg", 1)
    assert found.state == "running"
    assert found.left == pytest.approx(96)


def test_an_interrupted_run_says_where_it_resumes(place: Place) -> None:
    folder = place.start("flexseg", 1, line())
    save_file({"x": np.zeros(1)}, folder / "checkpoint.safetensors", {"progress": json.dumps({"iteration": 250})})
    os.utime(folder / "checkpoint.safetensors", (NOW - 4000, NOW - 4000))
    assert place.of("flexseg", 1).state == "running"
    for path in folder.iterdir():
        os.utime(path, (NOW - 4000, NOW - 4000))
    found = place.of("flexseg", 1)
    assert (found.state, found.done, found.kept) == ("interrupted", 480, 250)
    assert "flexseg, seed 1: interrupted at 480/960, goes on from 250\n" in place.shown()[0]
    (folder / "checkpoint.safetensors").write_bytes(b"\xff" * 40)
    os.utime(folder / "checkpoint.safetensors", (NOW - 4000, NOW - 4000))
    assert "flexseg, seed 1: interrupted at 480/960, starts from the beginning\n" in place.shown()[0]


def test_an_unfinished_run_of_another_configuration_is_stale(place: Place) -> None:
    place.start("flexseg", 1, line(), other=True)
    assert place.of("flexseg", 1).state == "stale"


@pytest.mark.parametrize(
    "log",
    [
        b"", b"\n", b"{", b"[]\n", b"null\n", b"\xff\xfe\n", line("x", "y"), line(None, None), line(-5, -1.0),
        line(True, True), '{"iteration": 1e999, "images_per_second": NaN}\n', line(10**30, 1e-300), line()[:-5],
    ],
)  # fmt: skip
def test_a_damaged_log_costs_only_its_own_content(place: Place, log: str | bytes) -> None:
    place.start("flexseg", 1, log)
    found = place.of("flexseg", 1)
    assert found.state == "running"
    assert 0 <= found.done <= 960
    assert "streetworld: 1 running, 5 missing" in place.shown()[0]


def test_half_a_line_at_the_end_is_still_being_written(place: Place) -> None:
    place.start("flexseg", 1, line(460) + line(480)[:-3])
    assert place.of("flexseg", 1).done == 460


def test_a_trained_run_waits_for_its_evaluation(place: Place) -> None:
    place.finish("flexseg", 0)
    place.finish("flexseg", 1, targets=[])
    place.finish("flexseg", 2, targets=["adverse", "night", "clear_city"])
    text, failed = place.shown()
    assert not failed
    assert "flexseg, seed 1: not evaluated\n" in text
    assert "flexseg, seed 2: not evaluated on mixed, places\n" in text
    assert text.endswith("streetworld: 1 finished, 2 trained, 3 missing\n")


@pytest.mark.parametrize("key", [b"fingerprint", b"evaluation"])
def test_records_of_another_run_or_evaluation_do_not_count(place: Place, key: bytes) -> None:
    path = place.finish("flexseg", 0) / "evaluation" / "night.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | {key: b"0"}), path)
    assert place.of("flexseg", 0).reason == "not evaluated on night"
    path.write_bytes(b"PAR1")
    assert place.of("flexseg", 0).reason == "not evaluated on night"


def test_failures_are_last_and_can_be_forgotten(place: Place) -> None:
    place.finish("dginstyle", 0)
    training = place.fail("flexseg", 0, "the loss is not\n finite")
    evaluation = place.finish("flexseg", 1, targets=[])
    place.fail("flexseg", 1, "no memory left")
    for folder in (training, evaluation):
        (folder / "trained.json").write_text("{}")
    (training.parent / "evaluated.json").write_text("{}")
    text, failed = place.shown(width=60)
    assert failed
    assert text.splitlines()[-4:] == [
        "streetworld: 1 finished, 2 failed, 3 missing",
        "flexseg, seed 0: failed: the loss is not finite",
        "flexseg, seed 1: failed in the evaluation: no memory left",
        "Mend the cause (a changed method file is tried again by itself), or try the same again: "
        "flexseg status streetworld --retry",
    ]
    text, failed = place.shown(retry=True)
    assert not failed
    assert text.endswith("forgotten: start snakemake again to try them again\n")
    assert not list(place.results.rglob("failure.json")) + list(place.results.rglob("trained.json"))
    assert not list(place.results.rglob("evaluated.json"))
    assert (evaluation / "run.json").is_file(), "a training that succeeded is kept"
    assert place.shown()[0].endswith("streetworld: 1 finished, 1 trained, 4 missing\n")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"reason": 3}', b"{}"])
def test_damaged_files_have_a_state(place: Place, content: bytes) -> None:
    (place.folder("flexseg", 0) / "failure.json").write_bytes(content)
    (place.folder("flexseg", 1) / "config.json").write_bytes(content)
    (place.folder("flexseg", 2) / "run.json").write_bytes(content)
    place.shown()
    assert place.of("flexseg", 0).state == "failed"
    assert place.of("flexseg", 1).state == "stale"


def test_the_time_left_follows_finished_runs_of_the_same_row(place: Place) -> None:
    place.finish("dginstyle", 0, 100.0)
    place.finish("flexseg", 0, 180.0)
    place.finish("flexseg", 1, 220.0)
    found = standings(place.benchmark, place.results, NOW)  # due: dginstyle twice, flexseg once
    ahead = outlook(found, cores=2)
    assert ahead is not None
    assert (ahead.seconds, ahead.workers, ahead.running_now) == ((2 * 100 + 200) / 2, 2, False)
    one = outlook(found, cores=1)
    many = outlook(found, cores=64)
    assert one is not None
    assert many is not None
    assert (one.seconds, one.workers) == (400, 1)
    assert (many.seconds, many.workers) == (200, 3), "not faster than its longest run"
    assert "a run takes" in place.shown()[0]
    assert "3 min 20 s" in place.shown()[0]


def test_running_runs_show_how_many_run_in_parallel(place: Place) -> None:
    place.finish("dginstyle", 0, 100.0)
    place.start("flexseg", 0, line())  # 86 s left
    ahead = outlook(standings(place.benchmark, place.results, NOW), cores=8)
    assert ahead is not None
    assert (ahead.workers, ahead.running_now) == (1, True)
    assert ahead.seconds == pytest.approx(86 + 4 * 100)
    assert "to go with one run at a time, as now; evaluation and reports come on top" in place.shown(200)[0]


def test_an_interrupted_run_resumes_from_its_checkpoint(place: Place) -> None:
    place.finish("flexseg", 0, 96.0)
    folder = place.start("flexseg", 1, line(480), ago=4000)
    save_file({"x": np.zeros(1)}, folder / "checkpoint.safetensors", {"progress": json.dumps({"iteration": 240})})
    os.utime(folder / "checkpoint.safetensors", (NOW - 4000, NOW - 4000))
    ahead = outlook([each for each in standings(place.benchmark, place.results, NOW)
                     if (each.row, each.seed) in (("flexseg", 0), ("flexseg", 1))], cores=8)  # fmt: skip
    assert ahead is not None
    assert ahead.seconds == pytest.approx(96 * 0.75)


def test_a_running_run_gives_the_pace_if_none_is_finished(place: Place) -> None:
    place.start("flexseg", 0, line(480), ago=0)  # 96 s for the second half
    ahead = outlook(standings(place.benchmark, place.results, NOW), cores=8)
    assert ahead is not None
    assert ahead.seconds == pytest.approx(96 + 5 * 192)


@pytest.mark.parametrize("seconds", [None, "fast", -1, 0, float("nan"), True])
def test_an_invalid_training_time_is_not_counted(place: Place, seconds: object) -> None:
    place.finish("flexseg", 0, seconds)
    assert place.of("flexseg", 0).seconds is None
    assert "to go" not in place.shown()[0]


def test_all_done_has_nothing_left(place: Place) -> None:
    for row in ("dginstyle", "flexseg"):
        for seed in (0, 1, 2):
            place.finish(row, seed)
    text, failed = place.shown()
    assert not failed
    assert "to go" not in text
    assert text.endswith("streetworld: 6 finished\n")
    assert text.count("✓") == 7  # six and the legend's


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3599.7, "1 h 00 min"),
     (3840, "1 h 04 min"), (86399, "1 d 0 h"), (183600, "2 d 3 h"), (-5, "0 s")],
)  # fmt: skip
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
