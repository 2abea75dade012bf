"""Runs that go wrong: what is recorded, what is raised, and that nothing is lost."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from builders import Train, make_job, open_domains
from safetensors import SafetensorError

from flexseg.benchmark import Benchmark, Row
from flexseg.benchmark.identity import RunDirectory
from flexseg.engine.checkpoint import load_tensors
from flexseg.engine.train import Trainer, launch_fabric
from flexseg.errors import RunError, UserError
from flexseg.files import read_json

Interrupt = Callable[..., None]


def same(a: RunDirectory, b: RunDirectory) -> bool:
    """Whether two runs ended in the same bytes."""
    return a.weights.read_bytes() == b.weights.read_bytes()


def with_row(benchmark: Benchmark, **row: Any) -> Benchmark:
    return benchmark.model_copy(update={"rows": benchmark.rows | {"row": Row(title="Row", **row)}})


@pytest.fixture
def train_bad(tiny: Benchmark, train: Train, tmp_path: Path) -> Train:
    """``train_bad(body, …)``: train a method of this body as the row ``row``."""
    folder = tmp_path / "methods"
    folder.mkdir()

    def bad(body: str, *seed: int, benchmark: Benchmark = tiny, **options: Any) -> RunDirectory:
        (folder / "bad.py").write_text(
            "import torch\nfrom flexseg.method import Method, cross_entropy\n\n\n"
            f'class Bad(Method):\n    name = "bad"\n    title = "Bad"\n\n{body}'
        )
        return train("row", *seed, benchmark=with_row(benchmark, method="bad"), methods=folder, **options)

    return bad


NAN = """
    def losses(self, batch, output):
        loss = cross_entropy(output.logits, batch.labels)
        return {"ce": loss * float("nan") if batch.iteration == 4 else loss, "zero": 0 * loss}
"""


def test_non_finite_loss_names_iteration_terms_and_images(
    tiny: Benchmark, results: Path, train_bad: Train, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"not finite at iteration 4 \(ce = nan, zero = 0\); images: \w+_000") as error:
        train_bad(NAN)
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
    train_bad(NAN, receipt=receipt)
    assert read_json(receipt)["status"] == "failed"


def test_infinite_loss_too(train_bad: Train) -> None:
    with pytest.raises(RunError, match=r"not finite at iteration 4 \(ce = inf"):
        train_bad(NAN.replace('"nan"', '"inf"'))


def test_method_that_raises_is_recorded_with_its_line(train_bad: Train, tmp_path: Path) -> None:
    body, receipt = "    def after_step(self, batch):\n        raise KeyError('lost')\n", tmp_path / "receipt.json"
    directory = train_bad(body, receipt=receipt)
    reason = read_json(directory.failure)["reason"]
    assert reason == "KeyError: 'lost' (methods/bad.py, line 10)"
    assert read_json(receipt)["status"] == "failed"
    with pytest.raises(RunError, match=r"KeyError: 'lost'.*failure.json"):
        train_bad(body)


def test_failed_run_is_tried_again_and_may_succeed(train_bad: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file, the same settings, but what it needed is there now."""
    body = (
        "    def after_step(self, batch):\n        import os\n"
        "        if batch.iteration == 5 and 'NEEDED' not in os.environ:\n"
        "            raise RuntimeError('NEEDED is not set')\n"
    )
    with pytest.raises(RunError, match="NEEDED is not set"):
        train_bad(body)
    monkeypatch.setenv("NEEDED", "1")
    directory = train_bad(body)
    assert directory.record.is_file()
    assert directory.weights.is_file()
    assert not directory.failure.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [("class Bad(:\n", r"bad\.py, line 1 cannot be imported"), ("x = 1\n", "must define one subclass")],
)
def test_broken_method_file_costs_its_row_alone(
    source: str, message: str, tiny: Benchmark, train: Train, tmp_path: Path
) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.py").write_text(source)
    receipt = tmp_path / "receipt.json"
    benchmark = with_row(tiny, method="bad")
    directory = train("row", methods=tmp_path / "methods", receipt=receipt, benchmark=benchmark)
    with pytest.raises(RunError, match=message):
        train("row", methods=tmp_path / "methods", benchmark=benchmark)
    assert read_json(directory.failure)["status"] == "failed"


def test_method_that_refuses_the_trunk(tiny: Benchmark, train_bad: Train) -> None:
    needs = '    needs = ("batch_norm",)\n'
    train_bad(needs)
    norm = {"type": "GN", "num_groups": 1}
    model = {part: value | {"norm_cfg": norm} for part, value in tiny.model.items()}
    with pytest.raises(RunError, match="bad needs a backbone with BatchNorm"):
        train_bad(needs, 1, benchmark=tiny.model_copy(update={"model": model}))


def full_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """From now on, writing the file ``name`` for the ``number``-th time finds a full disk."""
    original, count = safetensors.torch.save_file, {"n": 0}

    def save_file(tensors: Any, path: Path, metadata: Any = None) -> None:
        if f".{name}." in path.name:
            count["n"] += 1
            if count["n"] == number:
                path.write_bytes(b"half")
                raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        original(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)


@pytest.mark.parametrize(
    ("name", "number", "iteration"), [("checkpoint.safetensors", 2, 3), ("model.safetensors", 1, 6)]
)
def test_full_disk_while_saving(
    name: str,
    number: int,
    iteration: int,
    results: Path,
    train: Train,
    undisturbed: Train,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with monkeypatch.context() as patch:
        full_at(patch, name, number)
        with pytest.raises(UserError, match=f"no space left while writing .*{name}.*start the same command again"):
            train("flexseg", receipt=tmp_path / "receipt.json")
    directory = RunDirectory(results / "smoke" / "flexseg" / "seed-0")
    assert not directory.failure.exists(), "a full disk is no failure of the method"
    assert not (tmp_path / "receipt.json").exists()
    assert json.loads(load_tensors(directory.checkpoint)[1]["progress"])["iteration"] == iteration
    assert not list(directory.root.glob(".*")), "no half file is left"
    assert same(train("flexseg"), undisturbed("flexseg"))


def test_full_disk_while_logging(train: Train, undisturbed: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from flexseg.engine import train as module

    original = module.Log.write

    def write(self: Any, values: dict[str, float]) -> None:
        if values["iteration"] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(module.Log, "write", write)
        with pytest.raises(UserError, match=r"seed-0: no space left on the disk"):
            train("dginstyle")
    assert same(train("dginstyle"), undisturbed("dginstyle"))


def test_run_directory_of_another_configuration(tiny: Benchmark, train: Train, undisturbed: Train) -> None:
    other = tiny.model_copy(
        update={"training": tiny.training.model_copy(update={"learning_rate": 0.001, "iterations": 6})}
    )
    directory = train("dginstyle", benchmark=other)
    before = {path.name: path.read_bytes() for path in directory.root.iterdir()}
    with pytest.raises(UserError) as error:
        train("dginstyle")
    assert "training.iterations was 6, now 9" in str(error.value)
    assert "training.learning_rate was 0.001, now 0.003" in str(error.value)
    assert "Nothing was changed" in str(error.value)
    assert {path.name: path.read_bytes() for path in directory.root.iterdir()} == before
    again = train("dginstyle", supersede=True)
    assert same(again, undisturbed("dginstyle"))
    (aside,) = (directory.root.parent / "superseded").iterdir()
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    train("dginstyle", supersede=True, benchmark=other)
    train("dginstyle", supersede=True)
    assert len(list((directory.root.parent / "superseded").iterdir())) == 4 - 1, "what was moved aside stays"


def test_checkpoint_of_other_settings_is_never_continued(results: Path, train: Train, interrupt: Interrupt) -> None:
    interrupt(5, "dginstyle")
    path = results / "smoke" / "dginstyle" / "seed-0" / "checkpoint.safetensors"
    saved = path.read_bytes()
    interrupt(5, "dginstyle", 1)
    other = results / "smoke" / "dginstyle" / "seed-1" / "checkpoint.safetensors"
    other.write_bytes(saved)
    with pytest.raises(UserError, match="is the checkpoint of another run"):
        train("dginstyle", 1)
    assert other.read_bytes() == saved


def test_damaged_checkpoint_is_named(results: Path, train: Train, interrupt: Interrupt) -> None:
    interrupt(5, "dginstyle")
    path = results / "smoke" / "dginstyle" / "seed-0" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint\.safetensors cannot be read"):
        train("dginstyle")


def test_missing_data_is_the_users_to_mend(tiny: Benchmark, tmp_path: Path, train_in: Train) -> None:
    with pytest.raises(UserError, match=r"index\.parquet does not exist: write the domain first"):
        train_in(tmp_path, tiny, "dginstyle", receipt=tmp_path / "receipt.json")
    assert not (tmp_path / "receipt.json").exists()
    assert not (tmp_path / "smoke" / "dginstyle" / "seed-0" / "failure.json").exists()


def test_batch_that_devices_cannot_share(tiny: Benchmark, smoke_data: Path) -> None:
    class Three:
        world_size = 3
        device = torch.device("cpu")

    assert launch_fabric("1").world_size == 1
    job = make_job(tiny, "dginstyle", open_domains(tiny, smoke_data, "source"))
    with pytest.raises(RunError, match="batch_size 2 cannot be shared evenly by 3 devices"):
        Trainer(job, Three())


BUILD = """
    def build_model(self, config):
        return super().build_model({**config, "decode_head": {"type": "FCNHaed"}})
"""


def test_a_method_that_cannot_build_its_model_costs_its_own_row(train_bad: Train, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    directory = train_bad(BUILD, receipt=receipt)
    assert read_json(receipt)["status"] == "failed"
    assert "did you mean FCNHead" in read_json(directory.failure)["reason"]


REFUSES = """
    def losses(self, batch, output):
        from flexseg.errors import UserError
        raise UserError("these options do not go together")
"""


def test_a_users_error_of_a_method_is_its_failure(train_bad: Train, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    directory = train_bad(REFUSES, receipt=receipt)
    assert read_json(receipt)["status"] == "failed"
    assert read_json(directory.failure)["reason"] == "these options do not go together"
