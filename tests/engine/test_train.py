"""Training: exact to the bit, resumed exactly from anywhere, and one clear message for everything that goes wrong."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexseg.benchmark import Benchmark, Row
from flexseg.cli import main
from flexseg.engine.checkpoint import load_tensors
from flexseg.engine.run import RunDirectory
from flexseg.errors import RunError, UserError
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


def with_row(benchmark: Benchmark, **row: Any) -> Benchmark:
    return benchmark.model_copy(update={"rows": benchmark.rows | {"row": Row(title="Row", **row)}})


def write_method(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    title = name.title().replace("_", "")
    (folder / f"{name}.py").write_text(
        "import torch\nfrom flexseg.method import Method, cross_entropy\n\n\n"
        f'class {title}(Method):\n    name = "{name}"\n    title = "{title}"\n\n{body}'
    )
    return folder


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
    from flexseg.data.pool import load_pool
    from flexseg.engine.train import Job, build_learner
    from flexseg.jobs import open_index
    from flexseg.method import load_method, method_names, parse_options

    pool = load_pool([(open_index(tiny, "source", smoke_data), "train")])
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
    from flexseg.data.pool import load_pool
    from flexseg.engine.train import Job, assemble, build_learner
    from flexseg.jobs import open_index
    from flexseg.method import load_method, parse_options

    pool = load_pool([(open_index(tiny, domain, smoke_data), "train") for domain in ("source", "generated")])
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


NAN = """
    def losses(self, batch, output):
        loss = cross_entropy(output.logits, batch.labels)
        return {"ce": loss * float("nan") if batch.iteration == 4 else loss, "zero": 0 * loss}
"""


def test_non_finite_loss_names_iteration_terms_and_images(
    tiny: Benchmark, results: Path, train_in: Train, tmp_path: Path
) -> None:
    methods = write_method(tmp_path / "methods", "bad", NAN)
    benchmark = with_row(tiny, method="bad")
    with pytest.raises(RunError, match=r"not finite at iteration 4 \(ce = nan, zero = 0\); images: \w+_000") as error:
        train_in(results, benchmark, "row", methods=methods)
    directory = RunDirectory(results / "smoke" / "row" / "seed-0")
    named = str(error.value).split("images: ")[1].split(".")[0].split(", ")
    assert len(named) == tiny.training.batch_size
    known = {
        path.name.removesuffix("_leftImg8bit.png") for path in (results / "smoke" / "data").rglob("*_leftImg8bit.png")
    }
    assert set(named) <= known
    failure = read_json(directory.failure)
    assert failure["reason"] == str(error.value)
    assert failure["status"] == "failed"
    assert "Traceback" in failure["traceback"]
    assert failure["fingerprint"] == read_json(directory.config)["fingerprint"]
    assert not directory.weights.exists()
    receipt = tmp_path / "receipt.json"
    train_in(results, benchmark, "row", methods=methods, receipt=receipt)
    assert read_json(receipt)["status"] == "failed"


def test_infinite_loss_too(tiny: Benchmark, results: Path, train_in: Train, tmp_path: Path) -> None:
    methods = write_method(tmp_path / "methods", "bad", NAN.replace('"nan"', '"inf"'))
    with pytest.raises(RunError, match=r"not finite at iteration 4 \(ce = inf"):
        train_in(results, with_row(tiny, method="bad"), "row", methods=methods)


def test_method_that_raises_is_recorded_with_its_line(
    tiny: Benchmark, results: Path, train_in: Train, tmp_path: Path
) -> None:
    body = "    def after_step(self, batch):\n        raise KeyError('lost')\n"
    methods = write_method(tmp_path / "methods", "bad", body)
    benchmark, receipt = with_row(tiny, method="bad"), tmp_path / "receipt.json"
    directory = train_in(results, benchmark, "row", methods=methods, receipt=receipt)
    reason = read_json(directory.failure)["reason"]
    assert reason == "KeyError: 'lost' (methods/bad.py, line 10)"
    assert read_json(receipt)["status"] == "failed"
    with pytest.raises(RunError, match=r"KeyError: 'lost'.*failure.json"):
        train_in(results, benchmark, "row", methods=methods)


def test_failed_run_is_tried_again_and_may_succeed(
    tiny: Benchmark, results: Path, train_in: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file, the same settings, but what it needed is there now."""
    body = (
        "    def after_step(self, batch):\n        import os\n"
        "        if batch.iteration == 5 and 'NEEDED' not in os.environ:\n"
        "            raise RuntimeError('NEEDED is not set')\n"
    )
    methods = write_method(tmp_path / "methods", "bad", body)
    benchmark = with_row(tiny, method="bad")
    with pytest.raises(RunError, match="NEEDED is not set"):
        train_in(results, benchmark, "row", methods=methods)
    monkeypatch.setenv("NEEDED", "1")
    directory = train_in(results, benchmark, "row", methods=methods)
    assert directory.finished
    assert not directory.failure.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [("class Bad(:\n", r"bad\.py, line 1 cannot be imported"), ("x = 1\n", "must define one subclass")],
)
def test_broken_method_file_costs_its_row_alone(
    source: str, message: str, tiny: Benchmark, results: Path, train_in: Train, tmp_path: Path
) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.py").write_text(source)
    receipt = tmp_path / "receipt.json"
    benchmark = with_row(tiny, method="bad")
    directory = train_in(results, benchmark, "row", methods=tmp_path / "methods", receipt=receipt)
    with pytest.raises(RunError, match=message):
        train_in(results, benchmark, "row", methods=tmp_path / "methods")
    assert read_json(directory.failure)["status"] == "failed"


def test_method_that_refuses_the_trunk(tiny: Benchmark, results: Path, train_in: Train, tmp_path: Path) -> None:
    methods = write_method(tmp_path / "methods", "bad", '    needs = ("batch_norm",)\n')
    train_in(results, with_row(tiny, method="bad"), "row", methods=methods)
    norm = {"type": "GN", "num_groups": 1}
    model = {part: value | {"norm_cfg": norm} for part, value in tiny.model.items()}
    benchmark = with_row(tiny.model_copy(update={"model": model}), method="bad")
    with pytest.raises(RunError, match="bad needs a backbone with BatchNorm"):
        train_in(results, benchmark, "row", 1, methods=methods)


def full_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """From now on, writing the file ``name`` for the ``number``-th time finds a full disk."""
    original, count = Path.write_bytes, {"n": 0}

    def write_bytes(self: Path, content: bytes) -> int:
        if f".{name}." in self.name:
            count["n"] += 1
            if count["n"] == number:
                original(self, content[:100])
                raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize(
    ("name", "number", "iteration"), [("checkpoint.safetensors", 2, 3), ("model.safetensors", 1, 6)]
)
def test_full_disk_while_saving(
    name: str,
    number: int,
    iteration: int,
    tiny: Benchmark,
    results: Path,
    train_in: Train,
    undisturbed: Undisturbed,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with monkeypatch.context() as patch:
        full_at(patch, name, number)
        with pytest.raises(UserError, match=f"no space left while writing .*{name}.*start the same command again"):
            train_in(results, tiny, "flexseg", receipt=tmp_path / "receipt.json")
    directory = RunDirectory(results / "smoke" / "flexseg" / "seed-0")
    assert not directory.failure.exists(), "a full disk is no failure of the method"
    assert not (tmp_path / "receipt.json").exists()
    assert json.loads(load_tensors(directory.checkpoint)[1]["progress"])["iteration"] == iteration
    assert not list(directory.root.glob(".*")), "no half file is left"
    assert same(train_in(results, tiny, "flexseg"), undisturbed("flexseg"))


def test_full_disk_while_logging(
    tiny: Benchmark, results: Path, train_in: Train, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flexseg.engine import train as module

    original = module._Log.write

    def write(self: Any, values: dict[str, float]) -> None:
        if values["iteration"] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(module._Log, "write", write)
        with pytest.raises(UserError, match=r"no space left while writing below .*seed-0"):
            train_in(results, tiny, "dginstyle")
    assert same(train_in(results, tiny, "dginstyle"), undisturbed("dginstyle"))


def test_run_directory_of_another_configuration(
    tiny: Benchmark, results: Path, train_in: Train, undisturbed: Undisturbed
) -> None:
    other = tiny.model_copy(
        update={"training": tiny.training.model_copy(update={"learning_rate": 0.001, "iterations": 6})}
    )
    directory = train_in(results, other, "dginstyle")
    before = {path.name: path.read_bytes() for path in directory.root.iterdir()}
    with pytest.raises(UserError) as error:
        train_in(results, tiny, "dginstyle")
    assert "training.iterations was 6, now 9" in str(error.value)
    assert "training.learning_rate was 0.001, now 0.003" in str(error.value)
    assert "Nothing was changed" in str(error.value)
    assert {path.name: path.read_bytes() for path in directory.root.iterdir()} == before
    again = train_in(results, tiny, "dginstyle", supersede=True)
    assert same(again, undisturbed("dginstyle"))
    (aside,) = (directory.root.parent / "superseded").iterdir()
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    train_in(results, other, "dginstyle", supersede=True)
    train_in(results, tiny, "dginstyle", supersede=True)
    assert len(list((directory.root.parent / "superseded").iterdir())) == 4 - 1, "what was moved aside stays"


def test_checkpoint_of_other_settings_is_never_continued(
    tiny: Benchmark, results: Path, train_in: Train, interrupt_at: Interrupt
) -> None:
    interrupt_at(5)
    with pytest.raises(KeyboardInterrupt):
        train_in(results, tiny, "dginstyle")
    path = results / "smoke" / "dginstyle" / "seed-0" / "checkpoint.safetensors"
    saved = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train_in(results, tiny, "dginstyle", 1)
    other = results / "smoke" / "dginstyle" / "seed-1" / "checkpoint.safetensors"
    other.write_bytes(saved)
    interrupt_at(None)
    with pytest.raises(UserError, match="is the checkpoint of another run"):
        train_in(results, tiny, "dginstyle", 1)
    assert other.read_bytes() == saved


def test_damaged_checkpoint_is_named(tiny: Benchmark, results: Path, train_in: Train, interrupt_at: Interrupt) -> None:
    interrupt_at(5)
    with pytest.raises(KeyboardInterrupt):
        train_in(results, tiny, "dginstyle")
    path = results / "smoke" / "dginstyle" / "seed-0" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    interrupt_at(None)
    with pytest.raises(UserError, match=r"checkpoint\.safetensors cannot be read"):
        train_in(results, tiny, "dginstyle")


def test_missing_data_is_the_users_to_mend(tiny: Benchmark, tmp_path: Path, train_in: Train) -> None:
    with pytest.raises(UserError, match=r"index\.parquet does not exist: write the domain first"):
        train_in(tmp_path, tiny, "dginstyle", receipt=tmp_path / "receipt.json")
    assert not (tmp_path / "receipt.json").exists()
    assert not (tmp_path / "smoke" / "dginstyle" / "seed-0" / "failure.json").exists()


def test_batch_that_devices_cannot_share(tiny: Benchmark, smoke_data: Path, methods: Path) -> None:
    from flexseg.data.pool import load_pool
    from flexseg.engine.train import Job, Trainer, launch_fabric
    from flexseg.jobs import open_index
    from flexseg.method import load_method, parse_options

    class Three:
        world_size = 3
        device = torch.device("cpu")

    assert launch_fabric("1").world_size == 1
    pool = load_pool([(open_index(tiny, "source", smoke_data), "train")])
    method = load_method("dginstyle", methods)
    job = Job(RunDirectory(smoke_data), {}, method, parse_options(method, {}), tiny.training, tiny.model, 0, pool, {})
    with pytest.raises(RunError, match="batch_size 2 cannot be shared evenly by 3 devices"):
        Trainer(job, Three())  # type: ignore[arg-type]


def test_main_turns_mistakes_into_one_message(capsys: pytest.CaptureFixture[str], monkeypatch: Any, root: Path) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as stop:
        main(["train", "smoke", "flexsge", "0"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "no row is named 'flexsge' (did you mean 'flexseg'?)" in error
    assert "Traceback" not in error
