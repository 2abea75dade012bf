"""The copies of a run's log for other programs: complete, each iteration once, and of no influence on the run."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import Log, Train
from safetensors.numpy import load_file

from flexseg.benchmark.identity import RunDirectory
from flexseg.engine.loggers import check_logger
from flexseg.errors import MissingExtra, UserError
from flexseg.files import file_digest

HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None
TENSORBOARD = pytest.mark.skipif(
    not HAS_TENSORBOARD, reason="needs tensorboard: pip install --no-deps -r requirements-tensorboard.lock"
)
EACH = [pytest.param("csv"), pytest.param("tensorboard", marks=TENSORBOARD)]


def steps(directory: RunDirectory, logger: str) -> list[tuple[int, float]]:
    """(iteration, loss) of each line of a copy."""
    folder = directory.root / logger
    if logger == "csv":
        with (folder / "metrics.csv").open() as file:
            return [(int(line["step"]), float(line["loss"])) for line in csv.DictReader(file)]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars("loss")]


@pytest.mark.parametrize("logger", EACH)
def test_a_copy_says_what_the_log_says_and_changes_nothing(train: Train, log_of: Log, logger: str) -> None:
    plain = train("dginstyle")
    weights, log = load_file(plain.weights), log_of(plain)
    assert not [path for path in plain.root.iterdir() if path.name in ("csv", "tensorboard")], (
        "the default costs nothing"
    )
    plain.record.unlink()
    directory = train("dginstyle", logger=logger)
    assert {key: value.tobytes() for key, value in load_file(directory.weights).items()} == {
        key: value.tobytes() for key, value in weights.items()
    }
    assert log_of(directory) == log
    assert steps(directory, logger) == [(line["iteration"], pytest.approx(line["loss"])) for line in log]


@pytest.mark.parametrize("logger", EACH)
def test_a_resumed_run_has_every_iteration_once(
    train: Train, interrupt: Callable[..., None], log_of: Log, logger: str
) -> None:
    """Killed behind its checkpoint, and at first not followed at all."""
    interrupt(4, "dginstyle")
    interrupt(8, "dginstyle", logger=logger)  # from 3, with a checkpoint at 6: 7 and 8 are logged twice
    directory = train("dginstyle", logger=logger)
    assert [step for step, _ in steps(directory, logger)] == list(range(1, 10))
    assert steps(directory, logger) == [(line["iteration"], pytest.approx(line["loss"])) for line in log_of(directory)]


def test_a_finished_run_is_copied_and_not_trained(train: Train, log_of: Log) -> None:
    directory = train("dginstyle")
    before = file_digest(directory.weights), directory.weights.stat().st_mtime_ns
    train("dginstyle", logger="csv")
    assert [step for step, _ in steps(directory, "csv")] == [line["iteration"] for line in log_of(directory)]
    assert (file_digest(directory.weights), directory.weights.stat().st_mtime_ns) == before


def test_a_missing_package_is_said_before_anything_starts(
    train: Train, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexseg.engine.loggers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install .*requirements-tensorboard\.lock"):
        train("dginstyle", logger="tensorboard", receipt=tmp_path / "receipt.json")
    assert not (results / "smoke" / "dginstyle").exists(), "it is not recorded as the row's failure"
    assert not (tmp_path / "receipt.json").exists()


def test_an_unknown_logger_is_an_error() -> None:
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        check_logger("tensorbord")
    check_logger("")
    check_logger("csv")
