"""`flexseg validate`: finished runs on the source's own validation images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from flexseg.benchmark import Benchmark, Run
from flexseg.errors import UserError


@pytest.fixture
def short(smoke: Benchmark) -> Benchmark:
    training = smoke.training.model_copy(update={"iterations": 4, "warmup": 1})
    return smoke.model_copy(update={"training": training, "seeds": [0, 1]})


def test_finished_runs_are_scored_and_others_left_out(
    short: Benchmark, methods: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flexseg.data.pool import open_pool
    from flexseg.data.transforms import normalise
    from flexseg.tasks.jobs import load_trained, open_index, train_run
    from flexseg.tasks.validate import validate

    with pytest.raises(UserError, match="no run of these rows is finished"):
        validate(short, results, Console())
    train_run(Run(short, "dginstyle", 1, results))
    path = validate(short, results, Console())
    assert path == results / "smoke" / "tables" / "validation.csv"
    with path.open() as file:
        (line,) = csv.DictReader(file)
    assert (line["row"], line["seed"]) == ("dginstyle", "1")
    assert "dginstyle" in capsys.readouterr().out

    pool = open_pool([(open_index(short, short.source, results), "val")])
    model = load_trained(Run(short, "dginstyle", 1, results))
    confusion = np.zeros((19, 19))
    # All at once, as they are evaluated: in another batch they are rounded otherwise.
    with torch.inference_mode():
        predictions = model.predict(torch.from_numpy(normalise(np.stack(pool.images)))).argmax(1).numpy()
    for truth, guess in zip(np.stack(pool.labels).ravel(), predictions.ravel(), strict=True):
        if truth != 255:
            confusion[truth, guess] += 1
    present = confusion.sum(1) > 0
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    expected = 100 * (np.diag(confusion)[present] / union[present]).mean()
    # Within ten pixels, which may be another class's where two are nearly as likely.
    assert float(line["source_val_miou"]) == pytest.approx(expected, abs=1e-3)


def test_a_source_without_validation_images_is_named(short: Benchmark, methods: Path, results: Path) -> None:
    from flexseg.tasks.validate import validate

    source = short.domains["source"].model_copy(update={"val": 0})
    without = short.model_copy(update={"domains": short.domains | {"source": source}})
    with pytest.raises(UserError, match=r"domains\.source\.val: the source has no images"):
        validate(without, results, Console())
