"""Training: exact to the bit, and resumed exactly from anywhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import METHODS, RECIPE, Log, Train, equal_tensors, make_job, open_domains

from flexseg.benchmark import Benchmark, Training
from flexseg.benchmark.identity import RunDirectory
from flexseg.engine.batches import assemble
from flexseg.engine.checkpoint import load_tensors
from flexseg.engine.train import build_learner, default_workers
from flexseg.errors import RunError
from flexseg.files import read_json
from flexseg.method_files import method_names

Interrupt = Callable[..., None]


def weights(directory: RunDirectory) -> dict[str, torch.Tensor]:
    return load_tensors(directory.weights)[0]


def same(a: RunDirectory, b: RunDirectory) -> bool:
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    return equal_tensors(ours, theirs)


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
def test_same_seed_gives_the_same_bytes(row: str, train: Train, undisturbed: Train, log_of: Log) -> None:
    first, second = undisturbed(row), train(row)
    assert first.weights.read_bytes() == second.weights.read_bytes()
    assert log_of(first) == log_of(second)


@pytest.mark.parametrize("other", [("dginstyle", 1), ("flexseg", 0), ("source_only", 0)])
def test_another_seed_or_row_gives_other_weights(other: tuple[str, int], undisturbed: Train) -> None:
    assert not same(undisturbed("dginstyle", 0), undisturbed(*other))


def test_flexseg_with_everything_off_is_plain_training(undisturbed: Train, log_of: Log) -> None:
    assert same(undisturbed("dginstyle"), undisturbed("switched_off"))
    assert log_of(undisturbed("dginstyle")) == log_of(undisturbed("switched_off"))


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
@pytest.mark.parametrize("places", [[1], [3], [4], [9], [3, 6], [5, 5, 8], [2, 4, 6, 8]])
def test_resumed_run_is_the_undisturbed_one_to_the_bit(
    row: str, places: list[int], train: Train, undisturbed: Train, interrupt: Interrupt, log_of: Log
) -> None:
    for place in places:
        interrupt(place, row)
    directory = train(row)
    expected = undisturbed(row)
    assert directory.weights.read_bytes() == expected.weights.read_bytes()
    assert log_of(directory) == log_of(expected)
    assert not directory.checkpoint.exists()
    assert not directory.failure.exists()


@pytest.fixture(scope="module")
def whole_recipe(tiny: Benchmark) -> Benchmark:
    """``tiny`` with every part of the recipe on."""
    rest = {"max_class_share": 0.75, "momentum": 0.9, "accumulate": 2, "feature_distance": {"stage": 0}}
    return tiny.model_copy(update={"training": Training(**(tiny.training.model_dump() | RECIPE | rest))})


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
def test_resumed_with_the_whole_recipe_is_the_undisturbed_run_to_the_bit(
    row: str, whole_recipe: Benchmark, train: Train, undisturbed: Train, interrupt: Interrupt, log_of: Log
) -> None:
    expected = train(row, benchmark=whole_recipe)
    reference, lines = expected.weights.read_bytes(), log_of(expected)
    assert not same(expected, undisturbed(row))
    assert all(line["loss/fd"] >= 0 for line in lines)
    assert lines[-1]["loss/fd"] > 0
    assert all(0 <= line["fd/cells"] <= 1 for line in lines)
    shutil.rmtree(expected.root)
    for place in (1, 4, 8):
        interrupt(place, row, benchmark=whole_recipe)
    directory = train(row, benchmark=whole_recipe)
    assert directory.weights.read_bytes() == reference
    assert log_of(directory) == lines


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
def test_batches_made_ahead_are_the_same(row: str, train: Train, undisturbed: Train, interrupt: Interrupt) -> None:
    """Also for a method whose choice looks back, which must not run ahead; and from a checkpoint on."""
    interrupt(4, row, workers=2)
    assert train(row, workers=2).weights.read_bytes() == undisturbed(row).weights.read_bytes()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_workers_leave_the_processor_that_trains_alone() -> None:
    from types import SimpleNamespace as Some

    for kind, world, most in (("cpu", 1, 0), ("cuda", 1, 8), ("cuda", 10**6, 1)):
        fabric: Any = Some(device=torch.device(kind), world_size=world)
        assert min(most, 1) <= default_workers(fabric) <= most


def test_checkpoint_holds_hardness_and_prototypes(results: Path, interrupt: Interrupt) -> None:
    interrupt(8, "flexseg")
    path = results / "smoke" / "flexseg" / "seed-0" / "checkpoint.safetensors"
    tensors, metadata = load_tensors(path)
    assert json.loads(metadata["progress"])["iteration"] == 6
    assert tensors["method/average"].dtype == torch.float64
    assert tensors["method/visits"].sum() > 6
    assert tensors["method/average"][tensors["method/visits"] > 0].count_nonzero()
    bank = [name for name in tensors if name.startswith("learner/training_modules.") and "bank" in name]
    assert bank
    assert any(tensors[name].count_nonzero() for name in bank)


def test_what_a_finished_run_leaves(tiny: Benchmark, undisturbed: Train, log_of: Log) -> None:
    directory = undisturbed("flexseg")
    assert sorted(path.name for path in directory.root.iterdir()) == [
        "config.json",
        "model.safetensors",
        "observations",
        "run.json",
        "train.jsonl",
    ]
    record = read_json(directory.record)
    config = read_json(directory.config)
    assert record["fingerprint"] == config["fingerprint"] == load_tensors(directory.weights)[1]["fingerprint"]
    assert record["status"] == "finished"
    assert record["options"]["kernels"]["value"] == [3, 5]
    assert record["options"]["momentum"]["origin"] == "assumed"
    assert [show["name"] for show in record["shows"]] == ["has", "components", "prototypes", "uncertainty"]
    assert record["options"]["alpha"] == {
        "value": 3.0,
        "default": 3.0,
        "origin": "published",
        "help": record["options"]["alpha"]["help"],
    }
    assert set(record["data"]) == {"source", "generated"}
    assert "components/gap.py" in record["library_files"]
    assert {"method.py", "engine/evaluate.py", "models/segmentor.py"} <= set(record["library_files"])
    for key in ("library", "git", "versions", "machine", "device", "threads", "precision", "started", "finished"):
        assert key in record
    assert record["train_seconds"] > 0
    assert record["images_per_second"] > 0
    assert record["peak_memory_bytes"] > 50e6
    assert record["versions"]["torch"] == torch.__version__
    log = log_of(directory)
    assert [line["iteration"] for line in log] == list(range(1, 10))
    rate = tiny.training.learning_rate
    assert log[0]["learning_rate"] == pytest.approx(rate / 2)
    assert log[4]["learning_rate"] == pytest.approx(rate * 5 / 9)
    for line in log:
        terms = [value for key, value in line.items() if key.startswith("loss/")]
        assert set(line) >= {"loss/ube", "loss/gap", "has/threshold", "has/effective_sample_size"}
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-5)
        assert 0 < line["has/threshold"] < 1
        assert 1 <= line["has/effective_sample_size"] <= 24
        assert 0 <= line["has/generated_share"] <= 1


def test_finished_weights_hold_the_model_alone(undisturbed: Train) -> None:
    assert weights(undisturbed("flexseg")).keys() == weights(undisturbed("dginstyle")).keys()


def test_final_weights_are_the_average(tiny: Benchmark, results: Path, train: Train) -> None:
    plain = tiny.model_copy(update={"training": tiny.training.model_copy(update={"ema": 0.0})})
    raw = train("dginstyle", benchmark=plain)
    averaged = train("dginstyle", supersede=True)
    shelf = results / "smoke" / "dginstyle" / "superseded"
    (aside,) = shelf.iterdir()
    assert not same(RunDirectory(aside), averaged)
    assert raw.root == averaged.root


def test_a_finished_run_is_not_trained_again(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = train("dginstyle")
    before = {path.name: path.read_bytes() for path in directory.root.iterdir()}
    monkeypatch.setattr("flexseg.engine.train.train", lambda *_: pytest.fail("it is trained again"))
    receipt = tmp_path / "receipt.json"
    train("dginstyle", receipt=receipt)
    assert {path.name: path.read_bytes() for path in directory.root.iterdir()} == before
    assert read_json(receipt) == {"fingerprint": read_json(directory.config)["fingerprint"], "status": "finished"}


def test_all_methods_start_from_the_same_weights(tiny: Benchmark, smoke_data: Path) -> None:
    pool = open_domains(tiny, smoke_data, "source")
    starts: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    for name in method_names(METHODS):
        for seed in (0, 1):
            torch.manual_seed(hash(name) % 1000)  # whatever was drawn before must not matter
            with contextlib.suppress(RunError):  # a method that refuses the trunk, or waits for a package
                model = build_learner(make_job(tiny, name, pool, seed=seed))[0].model
                starts[name, seed] = {key: value.clone() for key, value in model.state_dict().items()}
    reference = starts["dginstyle", 0]
    for name in {name for name, _ in starts}:
        # A method may have parts of its own (another norm's statistics); what it shares with plain training is equal.
        own = starts[name, 0]
        shared = [key for key in reference if key in own and own[key].shape == reference[key].shape]
        assert len(shared) > len(reference) / 2, name
        assert all(torch.equal(reference[key], own[key]) for key in shared), name
    assert not all(torch.equal(reference[key], value) for key, value in starts["dginstyle", 1].items())


def test_all_uniform_methods_see_the_same_crops(tiny: Benchmark, smoke_data: Path) -> None:
    """A slot's image and crop depend on (seed, iteration, slot) alone, not on the slots beside it."""
    pool = open_domains(tiny, smoke_data, "source", "generated")
    batches = []
    for name, slots in (("dginstyle", [range(4)]), ("boundary_policy", [range(2), range(2, 4)])):
        job = make_job(tiny, name, pool)
        _, instance = build_learner(job)
        parts = [assemble(job, instance, 5, part) for part in slots]
        batches.append(
            {
                key: np.concatenate([np.asarray(getattr(part, key)) for part in parts])
                for key in ("images", "labels", "indices", "slots")
            }
        )
    for key, value in batches[0].items():
        np.testing.assert_array_equal(value, batches[1][key], err_msg=key)
    assert batches[0]["images"].shape == (4, 3, 32, 64)
    assert batches[0]["labels"].dtype == np.int64
    assert len(set(batches[0]["indices"].tolist())) > 1
