"""Runs in this process on the smoke benchmark's data: short, small, and started as the workflow starts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.benchmark.identity import RunDirectory

SMALL = {"dim": 8, "kernels": [3, 5]}
ROWS = {
    "dginstyle": Row(method="dginstyle", title="Baseline"),
    "flexseg": Row(method="flexseg", title="FLEX-Seg", has_decay=0.5, momentum=0.5, rings="label", **SMALL),
    "switched_off": Row(method="flexseg", title="Off", gap=False, ube=False, has=False, **SMALL),
    "source_only": Row(method="source_only", title="Source"),
}


@pytest.fixture(scope="session")
def tiny(smoke: Benchmark) -> Benchmark:
    """Nine iterations of two images, a checkpoint every third, a line of the log every iteration."""
    training = smoke.training.model_copy(
        update={"iterations": 9, "batch_size": 2, "checkpoint_every": 3, "log_every": 1, "crop": (32, 64), "warmup": 2}
    )
    return smoke.model_copy(update={"training": training, "rows": ROWS})


Train = Callable[..., RunDirectory]


@pytest.fixture(scope="session")
def train_in(methods: Path) -> Train:
    """``train_in(results, benchmark, row, seed=0, methods=…, **options)``: train a run and return its directory."""
    from flexseg.tasks.jobs import Resources, train_run

    def train(results: Path, benchmark: Benchmark, row: str, seed: int = 0, **options: Any) -> RunDirectory:
        run = Run(benchmark.with_methods(options.pop("methods", methods)), row, seed, results)
        resources = Resources(**{key: options.pop(key) for key in ("workers", "threads") if key in options})
        train_run(run, resources, **options)
        return run.directory

    return train


@pytest.fixture(scope="session")
def undisturbed(
    tiny: Benchmark, smoke_data: Path, train_in: Train, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunDirectory]:
    """``undisturbed(row, seed=0)``: that run of ``tiny``, trained once a session without interruption. Read only."""
    results = tmp_path_factory.mktemp("undisturbed")
    (results / "smoke").mkdir()
    (results / "smoke" / "data").symlink_to(smoke_data / "smoke" / "data")
    return lambda row, seed=0: train_in(results, tiny, row, seed)


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """``interrupt_at(n)``: the next trainings are interrupted after iteration ``n`` (``None``: no more)."""
    import flexseg.engine.train as module

    original, place = module.train, {"at": None}

    def train(job: Any, fabric: Any, progress: Any = None, workers: int = 0) -> None:
        def report(iteration: int, loss: float) -> None:
            if iteration == place["at"]:
                raise KeyboardInterrupt

        original(job, fabric, report, workers)

    monkeypatch.setattr(module, "train", train)
    return lambda at: place.update(at=at)


@pytest.fixture(scope="session")
def log_of() -> Callable[[RunDirectory], list[dict[str, float]]]:
    """The lines of a run's log, without the speed, which no two runs share."""

    def read(directory: RunDirectory) -> list[dict[str, float]]:
        lines = [json.loads(line) for line in directory.log.read_text().splitlines()]
        for line in lines:
            assert line.pop("images_per_second") > 0
        return lines

    return read
