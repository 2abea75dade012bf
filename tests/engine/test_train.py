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

from flexseg.benchmark import Benchmark, Training
from flexseg.benchmark.identity import RunDirectory
from flexseg.engine.checkpoint import load_tensors
from flexseg.engine.train import default_workers
from flexseg.errors import RunError
from flexseg.files import read_json

Train = Callable[..., RunDirectory]
Undisturbed = Callable[..., RunDirectory]
Log = Callable[[RunDirectory], list[dict[str, float]]]
Interrupt = Callable[[int | None], None]


def weights(directory: RunDirectory) -> dict[str, torch.Tensor]:
    return load_tensors(directory.weights)[0]


def same(a: RunDirectory, b: RunDirectory) -> bool:
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
def test_same_seed_gives_the_same_bytes(
    row: str, tiny: Benchmark, results: Path, train_in: Train, undisturbed: Undisturbed, log_of: Log
) -> None:
    first, second = undisturbed(row), train_in(results, tiny, row)
    assert first.weights.read_bytes() == second.weights.read_bytes()
    assert log_of(first) == log_of(second)


def test_another_seed_gives_other_weights(undisturbed: Undisturbed) -> None:
    assert not same(undisturbed("dginstyle", 0), undisturbed("dginstyle", 1))


def test_rows_differ(undisturbed: Undisturbed) -> None:
    assert not same(undisturbed("dginstyle"), undisturbed("flexseg"))
    assert not same(undisturbed("dginstyle"), undisturbed("source_only"))


def test_flexseg_with_everything_off_is_plain_training(undisturbed: Undisturbed, log_of: Log) -> None:
    assert same(undisturbed("dginstyle"), undisturbed("switched_off"))
    assert log_of(undisturbed("dginstyle")) == log_of(undisturbed("switched_off"))


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
@pytest.mark.parametrize("places", [[1], [3], [4], [9], [3, 6], [5, 5, 8], [2, 4, 6, 8]])
def test_resumed_run_is_the_undisturbed_one_to_the_bit(
    row: str,
    places: list[int],
    tiny: Benchmark,
    results: Path,
    train_in: Train,
    undisturbed: Undisturbed,
    interrupt_at: Interrupt,
    log_of: Log,
) -> None:
    for place in places:
        interrupt_at(place)
        with pytest.raises(KeyboardInterrupt):
            train_in(results, tiny, row)
    interrupt_at(None)
    directory = train_in(results, tiny, row)
    expected = undisturbed(row)
    assert directory.weights.read_bytes() == expected.weights.read_bytes()
    assert log_of(directory) == log_of(expected)
    assert not directory.checkpoint.exists()
    assert not directory.failure.exists()


RECIPE = {
    "mix": (1.0, 2.0),
    "sampling": {"kind": "rare_classes", "temperature": 0.1, "min_pixels": 20, "min_crop_pixels": 10},
    "max_class_share": 0.75,
    "photometric": "mmseg",
    "optimizer": "sgd",
    "momentum": 0.9,
    "accumulate": 2,
    "feature_distance": {"stage": 0},
}


@pytest.fixture(scope="module")
def whole_recipe(tiny: Benchmark) -> Benchmark:
    """``tiny`` with every part of the recipe on."""
    return tiny.model_copy(update={"training": Training(**(tiny.training.model_dump() | RECIPE))})


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
def test_resumed_with_the_whole_recipe_is_the_undisturbed_run_to_the_bit(
    row: str,
    whole_recipe: Benchmark,
    results: Path,
    train_in: Train,
    undisturbed: Undisturbed,
    interrupt_at: Interrupt,
    log_of: Log,
) -> None:
    expected = train_in(results, whole_recipe, row)
    reference, lines = expected.weights.read_bytes(), log_of(expected)
    assert not same(expected, undisturbed(row))
    assert all(line["loss/fd"] >= 0 for line in lines)
    assert lines[-1]["loss/fd"] > 0
    assert all(0 <= line["fd/cells"] <= 1 for line in lines)
    shutil.rmtree(expected.root)
    for place in (1, 4, 8):
        interrupt_at(place)
        with pytest.raises(KeyboardInterrupt):
            train_in(results, whole_recipe, row)
    interrupt_at(None)
    directory = train_in(results, whole_recipe, row)
    assert directory.weights.read_bytes() == reference
    assert log_of(directory) == lines


@pytest.mark.parametrize("row", ["dginstyle", "flexseg"])
def test_batches_made_ahead_are_the_same(
    row: str, tiny: Benchmark, results: Path, train_in: Train, undisturbed: Undisturbed, interrupt_at: Interrupt
) -> None:
    """Also for a method whose choice looks back, which must not run ahead; and from a checkpoint on."""
    interrupt_at(4)
    with pytest.raises(KeyboardInterrupt):
        train_in(results, tiny, row, workers=2)
    interrupt_at(None)
    assert train_in(results, tiny, row, workers=2).weights.read_bytes() == undisturbed(row).weights.read_bytes()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_workers_leave_the_processor_that_trains_alone() -> None:
    from types import SimpleNamespace as Some

    for kind, world, most in (("cpu", 1, 0), ("cuda", 1, 8), ("cuda", 10**6, 1)):
        fabric: Any = Some(device=torch.device(kind), world_size=world)
        assert min(most, 1) <= default_workers(fabric) <= most


def test_checkpoint_holds_hardness_and_prototypes(
    tiny: Benchmark, results: Path, train_in: Train, interrupt_at: Interrupt
) -> None:
    interrupt_at(8)
    with pytest.raises(KeyboardInterrupt):
        train_in(results, tiny, "flexseg")
    path = results / "smoke" / "flexseg" / "seed-0" / "checkpoint.safetensors"
    tensors, metadata = load_tensors(path)
    assert json.loads(metadata["progress"])["iteration"] == 6
    assert tensors["method/hardness"].dtype == torch.float64
    assert tensors["method/seen"].any()
    assert tensors["method/hardness"][tensors["method/seen"]].min() > 0
    bank = [name for name in tensors if name.startswith("learner/training_modules.") and "bank" in name]
    assert bank
    assert any(tensors[name].count_nonzero() for name in bank)


def test_what_a_finished_run_leaves(tiny: Benchmark, undisturbed: Undisturbed, log_of: Log) -> None:
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
    assert [show["name"] for show in record["shows"]] == ["has", "prototypes", "uncertainty"]
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


def test_finished_weights_hold_the_model_alone(undisturbed: Undisturbed) -> None:
    assert weights(undisturbed("flexseg")).keys() == weights(undisturbed("dginstyle")).keys()


def test_final_weights_are_the_average(tiny: Benchmark, results: Path, train_in: Train) -> None:
    plain = tiny.model_copy(update={"training": tiny.training.model_copy(update={"ema": 0.0})})
    raw = train_in(results, plain, "dginstyle")
    averaged = train_in(results, tiny, "dginstyle", supersede=True)
    shelf = results / "smoke" / "dginstyle" / "superseded"
    (aside,) = shelf.iterdir()
    assert not same(RunDirectory(aside), averaged)
    assert raw.root == averaged.root


def test_a_finished_run_is_not_trained_again(
    tiny: Benchmark, results: Path, train_in: Train, interrupt_at: Interrupt, tmp_path: Path
) -> None:
    directory = train_in(results, tiny, "dginstyle")
    before = {path.name: path.read_bytes() for path in directory.root.iterdir()}
    interrupt_at(1)
    receipt = tmp_path / "receipt.json"
    train_in(results, tiny, "dginstyle", receipt=receipt)
    assert {path.name: path.read_bytes() for path in directory.root.iterdir()} == before
    assert read_json(receipt) == {"fingerprint": read_json(directory.config)["fingerprint"], "status": "finished"}


def test_all_methods_start_from_the_same_weights(tiny: Benchmark, smoke_data: Path, methods: Path) -> None:
    from flexseg.data.pool import open_pool
    from flexseg.engine.batches import Job
    from flexseg.engine.train import build_learner
    from flexseg.method import parse_options
    from flexseg.method_files import load_method, method_names
    from flexseg.tasks.datasets import open_index

    pool = open_pool([(open_index(tiny, "source", smoke_data), "train")])
    starts: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    for name in method_names(methods):
        method = load_method(name, methods)
        for seed in (0, 1):
            torch.manual_seed(hash(name) % 1000)  # whatever was drawn before must not matter
            job = Job(
                RunDirectory(smoke_data),
                {},
                method,
                parse_options(method, {}),
                tiny.training,
                tiny.model,
                seed,
                pool,
                {},
            )
            with contextlib.suppress(RunError):  # a method that refuses the trunk, or waits for a package
                model = build_learner(job)[0].model
                starts[name, seed] = {key: value.clone() for key, value in model.state_dict().items()}
    reference = starts["dginstyle", 0]
    for name in {name for name, _ in starts}:
        # A method may have parts of its own (another norm's statistics); what it shares with plain training is equal.
        own = starts[name, 0]
        shared = [key for key in reference if key in own and own[key].shape == reference[key].shape]
        assert len(shared) > len(reference) / 2, name
        assert all(torch.equal(reference[key], own[key]) for key in shared), name
    assert not all(torch.equal(reference[key], value) for key, value in starts["dginstyle", 1].items())


def test_all_uniform_methods_see_the_same_crops(tiny: Benchmark, smoke_data: Path, methods: Path) -> None:
    """A slot's image and crop depend on (seed, iteration, slot) alone, not on the slots beside it."""
    from flexseg.data.pool import open_pool
    from flexseg.engine.batches import Job, assemble
    from flexseg.engine.train import build_learner
    from flexseg.method import parse_options
    from flexseg.method_files import load_method
    from flexseg.tasks.datasets import open_index

    pool = open_pool([(open_index(tiny, domain, smoke_data), "train") for domain in ("source", "generated")])
    batches = []
    for name, slots in (("dginstyle", [range(4)]), ("boundary_policy", [range(2), range(2, 4)])):
        method = load_method(name, methods)
        job = Job(
            RunDirectory(smoke_data), {}, method, parse_options(method, {}), tiny.training, tiny.model, 0, pool, {}
        )
        _, instance = build_learner(job)
        parts = [assemble(job, instance, 5, part, torch.device("cpu")) for part in slots]
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
