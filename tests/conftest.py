"""What several rooms share: the repository, its smoke benchmark with its data rendered once, and short runs of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from flexseg.benchmark import Benchmark, Row, Run, load_benchmark
from flexseg.benchmark.identity import RunDirectory

ROOT = Path(__file__).parents[1]
# As the workflow trains. Two threads would compete with the other worker, and torch 2.13 frees memory twice in the
# backward pass of a narrow ResNet-18 with the channels last if it has more than one (plain mmseg, none of our code).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The commands that tests start compute with the kernels of the tests' own process, which has loaded its libraries
# before anything could be held (flexseg/kernels.py).
os.environ.setdefault("FLEXSEG_NATIVE_KERNELS", "1")
# An example that takes long says something about the machine, not about the property.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def patience() -> float:
    """Seconds after which a test calls what it waits for a hang, the same for all tests.

    Only a hang may reach it. How long something takes depends on the machine and on what else that is doing, and is
    nothing that a test can prove.
    """
    return 3600.0


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def methods() -> Path:
    """The repository's own methods."""
    return ROOT / "methods"


@pytest.fixture(scope="session")
def smoke() -> Benchmark:
    """``benchmarks/smoke.yaml``."""
    return load_benchmark("smoke", ROOT / "benchmarks")


@pytest.fixture(scope="session")
def smoke_content() -> Callable[[], dict[str, Any]]:
    """A fresh copy of the content of ``benchmarks/smoke.yaml``, to be edited."""
    return lambda: yaml.safe_load((ROOT / "benchmarks" / "smoke.yaml").read_text())


@pytest.fixture(scope="session")
def smoke_data(smoke: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder in which every domain of the smoke benchmark is rendered. Read only."""
    from flexseg.tasks.datasets import make_dataset

    results = tmp_path_factory.mktemp("smoke-data")
    for domain in smoke.domains:
        make_dataset(smoke, domain, results)
    return results


@pytest.fixture
def results(smoke_data: Path, tmp_path: Path) -> Path:
    """An empty results folder of the smoke benchmark that shares the rendered data."""
    folder = tmp_path / "results"
    (folder / "smoke").mkdir(parents=True)
    (folder / "smoke" / "data").symlink_to(smoke_data / "smoke" / "data")
    return folder


@pytest.fixture(scope="session")
def tiny(smoke: Benchmark) -> Benchmark:
    """The smoke benchmark in nine iterations of two images, with a checkpoint every third, a line of the log each."""
    training = smoke.training.model_copy(
        update={"iterations": 9, "batch_size": 2, "checkpoint_every": 3, "log_every": 1, "crop": (32, 64), "warmup": 2}
    )
    small = {"dim": 8, "kernels": [3, 5]}
    rows = {
        "dginstyle": Row(method="dginstyle", title="Baseline"),
        "flexseg": Row(method="flexseg", title="FLEX-Seg", has_decay=0.5, momentum=0.5, rings="label", **small),
        "switched_off": Row(method="flexseg", title="Off", gap=False, ube=False, has=False, **small),
        "source_only": Row(method="source_only", title="Source"),
    }
    return smoke.model_copy(update={"training": training, "rows": rows})


@pytest.fixture(scope="session")
def train_in(methods: Path) -> Callable[..., RunDirectory]:
    """``train_in(results, benchmark, row, seed=0, methods=…, **options)``: train a run and return its directory."""
    from flexseg.tasks.jobs import Resources, train_run

    def train(results: Path, benchmark: Benchmark, row: str, seed: int = 0, **options: Any) -> RunDirectory:
        run = Run(benchmark.with_methods(options.pop("methods", methods)), row, seed, results)
        resources = Resources(**{key: options.pop(key) for key in ("workers", "threads") if key in options})
        train_run(run, resources, **options)
        return run.directory

    return train


@pytest.fixture
def train(tiny: Benchmark, results: Path, train_in: Callable[..., RunDirectory]) -> Callable[..., RunDirectory]:
    """``train(row, seed=0, benchmark=tiny, **options)``: train a run in this test's ``results``."""
    return lambda row, *seed, benchmark=tiny, **options: train_in(results, benchmark, row, *seed, **options)


@pytest.fixture
def interrupt(train: Callable[..., RunDirectory], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``interrupt(at, row, …)``: ``train(row, …)`` as it is interrupted after iteration ``at``."""
    import flexseg.engine.train as module

    original = module.train

    def interrupted(at: int, *run: Any, **options: Any) -> None:
        def report(iteration: int, loss: float) -> None:
            if iteration == at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, "train", lambda job, fabric, _, *rest: original(job, fabric, report, *rest))
            with pytest.raises(KeyboardInterrupt):
                train(*run, **options)

    return interrupted


@pytest.fixture(scope="session")
def log_of() -> Callable[[RunDirectory], list[dict[str, float]]]:
    """The lines of a run's log, without the speed, which no two runs share."""

    def read(directory: RunDirectory) -> list[dict[str, float]]:
        lines = [json.loads(line) for line in directory.log.read_text().splitlines()]
        for line in lines:
            assert line.pop("images_per_second") > 0
        return lines

    return read


@pytest.fixture(autouse=True)
def _torch_as_found() -> Iterator[None]:
    """What training sets for its process must not leak from one test into the next."""
    import sys

    yield
    if "torch" in sys.modules:
        sys.modules["torch"].use_deterministic_algorithms(False)
