"""Damaged files of a run: what was written is what is read, or one error says where and what to do."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from builders import Train, resnet

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.benchmark.identity import RunDirectory
from flexseg.engine.checkpoint import load_tensors, save_tensors
from flexseg.engine.ledger import Log
from flexseg.errors import UserError
from flexseg.files import DiskError, read_json, write_json
from flexseg.tasks.check import check_benchmark
from flexseg.tasks.jobs import evaluate_row, load_trained, recording
from flexseg.tensor_files import check_seal

Damage = Callable[[bytes], bytes]
Interrupt = Callable[..., None]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda content: content[: len(content) // 2],
    "a hole of zeros": lambda content: content[:-400] + bytes(200) + content[-200:],
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "other metadata": lambda content: content.replace(b'"fingerprint":"', b'"fingerprinx":"'),
    "no header": lambda content: b"\xff" * 8 + content[8:],
    "longer": lambda content: content + b"\0",
    "empty": lambda _: b"",
    "text": lambda _: b"<html>not found</html>" * 100,
}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.arange(500.0), "b": torch.ones(3, dtype=torch.int64)}, {"fingerprint": "f" * 16})
    return path


def test_what_was_saved_is_read(sealed: Path) -> None:
    tensors, metadata = load_tensors(sealed)
    assert torch.equal(tensors["a"], torch.arange(500.0))
    assert metadata == {"fingerprint": "f" * 16}
    assert torch.equal(safetensors.torch.load_file(sealed)["a"], tensors["a"]), "any other program reads it too"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(sealed: Path, damage: Damage) -> None:
    sealed.write_bytes(damage(sealed.read_bytes()))
    with pytest.raises(UserError, match=r"x\.safetensors cannot be read .*: delete its run's directory"):
        load_tensors(sealed)


def test_a_file_without_a_digest_is_read_as_it_is(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "old.safetensors", {"fingerprint": "1"})
    assert load_tensors(tmp_path / "old.safetensors")[1] == {"fingerprint": "1"}
    check_seal(tmp_path / "old.safetensors")
    with pytest.raises(UserError, match="holds other tensors than those that its run recorded"):
        check_seal(tmp_path / "old.safetensors", expected="0" * 64)


def test_damaged_weights_are_not_evaluated(tiny: Benchmark, train: Train, results: Path) -> None:
    directory = train("dginstyle")
    run, record = Run(tiny, "dginstyle", 0, results), read_json(directory.record)
    assert record["weights_sha256"]
    load_trained(run)
    whole = directory.weights.read_bytes()
    directory.weights.write_bytes(DAMAGES["a hole of zeros"](whole))
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read .*not those that were written"):
        evaluate_row(tiny, "dginstyle", results, receipt=results / "receipt.json")
    assert not directory.failure.exists(), "the disk's fault is not the method's"
    directory.weights.write_bytes(whole)
    write_json(directory.record, record | {"weights_sha256": "0" * 64})
    with pytest.raises(UserError, match="other tensors than those that its run recorded"):
        load_trained(run)


@pytest.mark.parametrize("name", ["a hole of zeros", "truncated", "text"])
def test_a_damaged_checkpoint_is_not_resumed_from(
    name: str, tiny: Benchmark, train: Train, undisturbed: Train, interrupt: Interrupt, tmp_path: Path
) -> None:
    interrupt(4, "dginstyle")
    directory = RunDirectory(tmp_path / "results" / "smoke" / "dginstyle" / "seed-0")
    directory.checkpoint.write_bytes(DAMAGES[name](directory.checkpoint.read_bytes()))
    with pytest.raises(UserError, match=r"checkpoint\.safetensors cannot be read .*: delete it to start over"):
        train("dginstyle", receipt=tmp_path / "receipt.json")
    assert not directory.failure.exists()
    directory.checkpoint.unlink()
    assert train("dginstyle").weights.read_bytes() == undisturbed("dginstyle").weights.read_bytes()


def test_a_checkpoint_of_other_parameters_is_no_failure_of_the_method(
    train: Train, interrupt: Interrupt, tmp_path: Path
) -> None:
    interrupt(4, "dginstyle")
    directory = RunDirectory(tmp_path / "results" / "smoke" / "dginstyle" / "seed-0")
    tensors, metadata = load_tensors(directory.checkpoint)
    name = next(key for key in tensors if key.startswith("learner/"))
    save_tensors(directory.checkpoint, tensors | {name: torch.zeros(1, 2, 3)}, metadata)
    with pytest.raises(UserError, match=f"does not fit this run .*{name.removeprefix('learner/')}.*: delete it"):
        train("dginstyle", receipt=tmp_path / "receipt.json")
    assert not directory.failure.exists()


LINES = [{"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.25}, {"iteration": 3, "loss": 0.125}]


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda content: content, [1, 2, 3]),
        (lambda content: content[:50], [1]),  # the rest never reached the disk
        (lambda content: content[:20], []),
        (lambda _: b"", []),
        (lambda content: content[:40] + bytes(len(content) - 40), [1]),
        (lambda content: content[:34] + b"\xff" * 5 + content[39:], [1, 3]),
        (lambda content: content + b'{"iteration": 4, "lo', [1, 2, 3]),
    ],
    ids=["whole", "cut in the second line", "cut in the first", "empty", "zeros", "torn inside", "longer"],
)
def test_a_log_holds_whole_lines_and_says_its_gaps(
    damage: Damage, kept: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.jsonl"
    log = Log(path, 0)
    for line in LINES:
        log.write(line)
    known = log.length
    path.write_bytes(damage(path.read_bytes()))
    again = Log(path, known)
    assert again.length == known, "the checkpoint's length stays right"
    again.write({"iteration": 9})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["iteration"] for line in lines if "iteration" in line] == [*kept, 9]
    assert any("gap" in line for line in lines) == (len(kept) < 3)
    assert ("have a gap" in capsys.readouterr().out) == (len(kept) < 3)


def damage_records(path: Path, kind: str) -> None:
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "body":
        content = bytearray(path.read_bytes())
        middle = len(content) // 3
        content[middle : middle + 64] = bytes(64)
        path.write_bytes(bytes(content))
    else:
        table = pq.read_table(path)
        changed = table.drop_columns(["confusion"]) if kind == "column" else table.slice(1)
        pq.write_table(changed, path)


@pytest.mark.parametrize("kind", ["truncated", "body", "column", "row", "picture gone", "picture damaged"])
def test_damaged_records_are_made_again(kind: str, tiny: Benchmark, train: Train, results: Path) -> None:
    directory = train("dginstyle")
    evaluate_row(tiny, "dginstyle", results)
    path, (picture,) = directory.records("night"), (directory.predictions / "night").iterdir()
    before = path.read_bytes(), picture.read_bytes()
    if kind == "picture gone":
        picture.unlink()
    elif kind == "picture damaged":
        picture.write_bytes(picture.read_bytes()[:30])
    else:
        damage_records(path, kind)
    evaluate_row(tiny, "dginstyle", results)
    assert (path.read_bytes(), picture.read_bytes()) == before


def test_records_are_written_after_their_pictures(
    tiny: Benchmark, train: Train, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flexseg.engine import evaluate

    directory = train("dginstyle")
    seen: list[list[str]] = []
    original = pq.write_table

    def write_table(table: pa.Table, where: Any, **options: Any) -> None:
        target = Path(where).name.split(".")[1]
        seen.append([path.suffix for path in (directory.predictions / target).iterdir()])
        original(table, where, **options)

    monkeypatch.setattr(evaluate.pq, "write_table", write_table)
    evaluate_row(tiny, "dginstyle", results)
    assert seen == [[".png"]] * len(tiny.targets)


def test_a_row_is_evaluated_by_one_process_at_a_time(tiny: Benchmark, train: Train, results: Path) -> None:
    directory = train("dginstyle")
    with directory.hold("evaluated"), pytest.raises(UserError, match="seed-0 is being evaluated by process"):
        evaluate_row(tiny, "dginstyle", results, receipt=results / "receipt.json")
    assert not directory.failure.exists()
    evaluate_row(tiny, "dginstyle", results)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EFBIG, "File too large"), DiskError),
        (OSError(errno.EIO, "Input/output error"), DiskError),
        (OSError(errno.EMFILE, "Too many open files"), DiskError),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), DiskError),
        (MemoryError(), UserError),
    ],
)
def test_errors_of_the_machine_are_not_booked_as_the_methods(
    error: Exception, kind: type[UserError], tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "row" / "seed-0")
    directory.open({"method": "a"})
    with pytest.raises(kind), recording(directory, recorded=True):
        raise error
    assert not directory.failure.exists()


BODIES = {
    "a file that is not there": ("open('/nowhere/at/all')", "FileNotFoundError"),
    "the end of the process": ("raise SystemExit(0)", "SystemExit"),
    "too few indices": ("return np.zeros(1, dtype=int)", r"choose\(\) gave int64 of shape \(1,\)"),
    "fractions": ("return np.zeros(len(slots))", r"choose\(\) gave float64"),
    "images that are not there": ("return np.full(len(slots), 10**6)", r"choose\(\) gave the image 1000000"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_a_method_does_wrong_is_its_own_failure(name: str, tiny: Benchmark, train: Train, tmp_path: Path) -> None:
    body, reason = BODIES[name]
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.py").write_text(
        "import numpy as np\nfrom flexseg.method import Method\n\n\nclass Bad(Method):\n"
        f'    name = "bad"\n    title = "Bad"\n\n    def choose(self, iteration, slots):\n        {body}\n'
    )
    benchmark = tiny.model_copy(update={"rows": tiny.rows | {"row": Row(method="bad", title="Row")}})
    receipt = tmp_path / "receipt.json"
    directory = train("row", benchmark=benchmark, methods=tmp_path / "methods", receipt=receipt)
    assert read_json(receipt)["status"] == "failed"
    assert re.search(reason, read_json(directory.failure)["reason"])


def test_weights_that_are_not_finite_are_no_finished_run(tiny: Benchmark, train: Train, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.py").write_text(
        "import torch\nfrom flexseg.method import Method\n\n\nclass Bad(Method):\n"
        '    name = "bad"\n    title = "Bad"\n\n    def finish(self, model, modules, batches):\n'
        "        next(model.parameters()).data.fill_(float('nan'))\n        return model\n"
    )
    benchmark = tiny.model_copy(update={"rows": tiny.rows | {"row": Row(method="bad", title="Row")}})
    directory = train("row", benchmark=benchmark, methods=tmp_path / "methods", receipt=tmp_path / "receipt.json")
    assert "weights are not finite after finish()" in read_json(directory.failure)["reason"]
    assert not directory.record.exists()


SHAPES = [b"[]", b'"text"', b"null", b"7", b"", b"{", b"[" * 100_000, b"\xff\xfe{}", b'{"fingerprint": 5}', b"{}"]
SHAPES += [b'{"status": "finished"}', b'{"status": "finished", "fingerprint": [1], "definition": {}}', b'{"a": NaN}']
SHAPES += [
    b'{"status": NaN}',
    b'{"status": 1e400}',
    b'{"status": "finished", "definition": []}',
    b"{}" + b" " * 70_000_000,
]


@pytest.mark.parametrize("content", SHAPES, ids=lambda content: repr(content[:30]))
@pytest.mark.parametrize("name", ["run.json", "failure.json", "config.json"])
def test_records_of_another_shape(name: str, content: bytes, tiny: Benchmark, tmp_path: Path) -> None:
    run = Run(tiny, "dginstyle", 0, tmp_path)
    run.directory.root.mkdir(parents=True)
    (run.directory.root / name).write_bytes(content)
    state = run.state
    assert state.status in ("failed", "missing", "stale")
    assert state.reason
    assert len(state.reason) < 1200
    if name == "config.json":
        with pytest.raises(UserError, match=r"config\.json"):
            run.directory.open(run.definition)


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "row" / "seed-0")
    directory.evaluation.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    stale = directory.evaluation / f".night.parquet.{host}-{gone.pid}.part"
    alive = directory.root / f".model.safetensors.{host}-{os.getpid()}.part"
    elsewhere = directory.root / ".model.safetensors.another-host-1.part"
    old = directory.root / ".run.json.another-host-1.part"
    for path in (stale, alive, elsewhere, old):
        path.touch()
    os.utime(old, (0, 0))
    with directory.hold():
        assert [path.exists() for path in (stale, alive, elsewhere, old)] == [False, True, True, False]


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_json(tmp_path / ("x" * 250 + ".json"), {"a": 1})
    assert read_json(tmp_path / ("x" * 250 + ".json")) == {"a": 1}


def test_one_value_per_channel_is_found_before_training(smoke: Benchmark, tmp_path: Path) -> None:
    model = resnet() | {
        "decode_head": {
            "type": "ASPPHead", "in_channels": 64, "in_index": 3, "channels": 16, "dilations": [1, 2],
        }
    }  # fmt: skip

    def with_batch(size: int, parts: int | None) -> Benchmark:
        training = smoke.training.model_copy(update={"batch_size": size, "accumulate": parts})
        return smoke.model_copy(update={"model": model, "training": training})

    check_benchmark(with_batch(2, None), tmp_path)
    for size, parts in ((1, None), (2, 2)):
        with pytest.raises(UserError, match=r"rows\.\w+: decode_head\.image_pool\S* normalises over a batch"):
            check_benchmark(with_batch(size, parts), tmp_path)
