"""Evaluating the runs of a row: what is written, kept, made again, and refused."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import Train, open_domains
from PIL import Image

from flexseg.benchmark import Benchmark, Run, fingerprint
from flexseg.benchmark.identity import RunDirectory
from flexseg.data.index import write_index
from flexseg.errors import UserError
from flexseg.files import read_json, write_json
from flexseg.tasks import jobs
from flexseg.tasks.datasets import build_index, domain_folder, locate_domain, open_index

Evaluate = Callable[..., None]


@pytest.fixture
def evaluate(tiny: Benchmark, results: Path) -> Evaluate:
    """``evaluate(benchmark=tiny, receipt=None)``: evaluate the row ``dginstyle`` in this test's ``results``."""
    return lambda benchmark=tiny, **options: jobs.evaluate_row(benchmark, "dginstyle", results, **options)


@pytest.fixture
def evaluated(train: Train, evaluate: Evaluate) -> RunDirectory:
    """A trained and evaluated run."""
    directory = train("dginstyle")
    evaluate(receipt=directory.root.parent / "evaluated.json")
    return directory


def test_evaluating_writes_records_and_predictions(tiny: Benchmark, evaluated: RunDirectory, smoke_data: Path) -> None:
    name = read_json(evaluated.config)["fingerprint"]
    protocol = fingerprint(tiny.evaluation_definition())
    assert read_json(evaluated.root.parent / "evaluated.json") == {"evaluation": protocol, "seeds": {"0": "finished"}}
    assert sorted(path.stem for path in evaluated.evaluation.iterdir()) == sorted(tiny.targets)
    for target in tiny.targets:
        table = pq.read_table(evaluated.evaluation / f"{target}.parquet")
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        assert metadata == {
            "benchmark": "smoke",
            "row": "dginstyle",
            "seed": "0",
            "target": target,
            "fingerprint": name,
            "evaluation": protocol,
            "protocol": "smoke-v1",
            "label_map": "cityscapes19",
            "target_label_map": "",
            "boundary_band": "2",
            "boundary_tolerances": "[1, 2, 4]",
            "distance_rings": "[1, 2, 3]",
            "data": open_index(tiny, target, smoke_data).digest,
        }
        ids = open_index(tiny, target, smoke_data).split("test")["id"].tolist()
        assert table["image"].to_pylist() == ids
        (picture,) = (evaluated.predictions / target).iterdir()
        assert picture.stem == ids[0]
        array = np.asarray(Image.open(picture))
        assert array.shape == (48, 96)
        assert array.dtype == np.uint8
        assert array.max() < 19


def test_records_are_kept_and_only_missing_ones_are_made(
    evaluated: RunDirectory, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in evaluated.evaluation.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "evaluate_model", lambda *_: pytest.fail("everything was there"))
        evaluate()
    damaged = evaluated.evaluation / "night.parquet"
    damaged.write_bytes(before[damaged][:50])
    evaluate()
    assert {path: path.read_bytes() for path in evaluated.evaluation.iterdir()} == before, "the same bytes again"


def test_records_of_other_images_are_made_again(
    tiny: Benchmark, evaluated: RunDirectory, results: Path, evaluate: Evaluate
) -> None:

    before = {path.name: path.read_bytes() for path in evaluated.evaluation.iterdir()}
    shared = results / "smoke" / "data"  # a link to what all tests read: change a copy
    rendered = shared.resolve()
    shared.unlink()
    shutil.copytree(rendered, shared)
    root = domain_folder(results, tiny, "night")
    path = next((root / "leftImg8bit" / "test").rglob("*.png"))
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).copy()
    Image.fromarray(255 - pixels).save(path)
    located = locate_domain(tiny, "night", results)
    write_index(root, build_index(tiny.domains["night"], located, fingerprint(tiny.domain_definition("night"))))
    evaluate()
    after = {path.name: path.read_bytes() for path in evaluated.evaluation.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"night.parquet"}


def test_another_protocol_evaluates_again(tiny: Benchmark, evaluated: RunDirectory, evaluate: Evaluate) -> None:
    wider = tiny.model_copy(update={"protocol": tiny.protocol.model_copy(update={"id": "wide", "boundary_band": 4})})
    before = pq.read_table(evaluated.evaluation / "night.parquet")
    evaluate(wider)
    after = pq.read_table(evaluated.evaluation / "night.parquet")
    assert after.schema.metadata[b"protocol"] == b"wide"
    assert after["confusion"] == before["confusion"]
    assert (
        np.array(after["boundary_confusion"].to_pylist()).sum()
        > np.array(before["boundary_confusion"].to_pylist()).sum()
    )


def test_evaluating_what_is_not_trained(evaluate: Evaluate) -> None:
    with pytest.raises(UserError, match="holds no finished run of these settings: train it first"):
        evaluate()


def test_evaluating_a_failed_run_is_said_in_the_receipt(tiny: Benchmark, results: Path, evaluate: Evaluate) -> None:

    directory = Run(tiny, "dginstyle", 0, results).directory
    write_json(directory.failure, {"status": "failed", "reason": "x"})
    receipt = results / "evaluated.json"
    evaluate(receipt=receipt)
    assert read_json(receipt)["seeds"] == {"0": "failed"}


def test_damaged_weights_are_named(evaluated: RunDirectory, evaluate: Evaluate) -> None:
    (evaluated.evaluation / "night.parquet").unlink()
    evaluated.weights.write_bytes(evaluated.weights.read_bytes()[:200])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        evaluate()


def test_target_that_changed_on_disk(tiny: Benchmark, tmp_path: Path, smoke_data: Path) -> None:
    shutil.copytree(smoke_data / "smoke" / "data" / "night", tmp_path / "smoke" / "data" / "night")
    path = next((tmp_path / "smoke" / "data" / "night").rglob("*_leftImg8bit.png"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="is not the file that was indexed"):
        open_domains(tiny, tmp_path, "night", split="test")
    resized = tiny.model_copy(update={"world": tiny.world.model_copy(update={"height": 64})})
    with pytest.raises(UserError, match="data of another definition"):
        open_index(resized, "night", tmp_path)


def test_full_disk_while_evaluating(
    evaluated: RunDirectory, results: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from flexseg.engine import evaluate as module

    (evaluated.evaluation / "night.parquet").unlink()

    def write_table(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.pq, "write_table", write_table)
        with pytest.raises(UserError, match="no space left on the disk"):
            evaluate(receipt=results / "receipt.json")
    assert not evaluated.failure.exists()
    evaluate()
    assert (evaluated.evaluation / "night.parquet").is_file()
    assert not math.isnan(pq.read_table(evaluated.evaluation / "night.parquet")["nll_sum"][0].as_py())
