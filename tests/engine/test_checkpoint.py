"""Checkpoints: everything comes back exactly, and a damaged or foreign file is one clear message."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from flexseg.engine import checkpoint as module
from flexseg.engine.checkpoint import (
    Progress,
    load_checkpoint,
    load_tensors,
    load_weights,
    save_checkpoint,
    save_tensors,
)
from flexseg.errors import UserError
from flexseg.files import replacing, write_json


def make(seed: int) -> tuple[nn.Module, dict[str, torch.Tensor], torch.optim.AdamW]:
    torch.manual_seed(seed)
    learner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    learner.to(memory_format=torch.channels_last)
    groups = [{"params": learner[0].parameters(), "base_lr": 0.1}, {"params": learner[1:].parameters()}]
    average = {name: torch.randn_like(value.float()) for name, value in learner.state_dict().items()}
    return learner, average, torch.optim.AdamW(groups, lr=0.01, fused=True)


def step(learner: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    loss = learner(torch.randn(2, 3, 6, 6)).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


STATE = {
    "hardness": np.array([1.0 / 3, -0.0, 1e-320, np.pi]),
    "seen": np.array([True, False, True, True]),
    "count": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learner, average, optimizer = make(0)
    for seed in range(3):
        step(learner, optimizer, seed)
    progress = Progress(17, 1.25, 345)
    save_checkpoint(path, "abc", progress, learner, average, optimizer, STATE)
    other, other_average, other_optimizer = make(1)
    found, state = load_checkpoint(path, "abc", other, other_average, other_optimizer)
    assert found == progress
    assert state.keys() == STATE.keys()
    for key, value in STATE.items():
        assert state[key].dtype == value.dtype
        assert state[key].shape == value.shape
        assert state[key].tobytes() == value.tobytes()
    for (name, value), again in zip(learner.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, again), name
        assert value.dtype == again.dtype
    assert all(torch.equal(average[name], other_average[name]) for name in average)
    ours, theirs = optimizer.state_dict(), other_optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for index, quantities in ours["state"].items():
        assert set(quantities) == {"step", "exp_avg", "exp_avg_sq"}
        for key, value in quantities.items():
            assert torch.equal(value, theirs["state"][index][key])
    for seed in (8, 9):
        step(learner, optimizer, seed)
        step(other, other_optimizer, seed)
    for value, again in zip(learner.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(value, again)


def test_checkpoint_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, "abc", Progress(), *make(0), {})
    learner, average, optimizer = make(1)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with pytest.raises(UserError, match=r"checkpoint of another run \(abc\): delete it"):
        load_checkpoint(path, "xyz", learner, average, optimizer)
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.99])
def test_damaged_checkpoint(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, "abc", Progress(), *make(0), STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if 0 < keep < 1 else int(keep)])
    with pytest.raises(UserError, match=r"cannot be read .*delete"):
        load_checkpoint(path, "abc", *make(1))


def test_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="cannot be read"):
        load_tensors(path)


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(nn.Linear(1, 1), tmp_path / "nothing.safetensors")


def test_weights_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_tensors(path, nn.Linear(3, 2).state_dict(), {"fingerprint": "abc"})
    model = nn.Linear(3, 4)
    before = model.weight.detach().clone()
    with pytest.raises(UserError, match=r"weights of another model; first differences: .*weight"):
        load_weights(model, path)
    assert torch.equal(model.weight, before)
    with pytest.raises(UserError, match="first differences: bias"):
        load_weights(nn.Linear(3, 2, bias=False), path)
    same = nn.Linear(3, 2)
    load_weights(same, path)
    assert torch.equal(same.weight, load_tensors(path)[0]["weight"])


def test_file_is_safetensors_with_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.arange(3)}, {"fingerprint": "abc"})
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert content[8:9] == b"{"
    assert b'"a"' in content[8 : 8 + header]
    assert load_tensors(path)[1] == {"fingerprint": "abc"}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_tensors(path, {"a": torch.zeros(2)}, {})
    before = path.read_bytes()

    monkeypatch.setattr(safetensors.torch, "save_file", broken(number))
    with pytest.raises(UserError, match=r"no space left while writing .*checkpoint is intact"):
        save_tensors(path, {"a": torch.ones(2)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def broken(number: int) -> Any:
    """As ``save_file`` breaks off half way; the words are those of the library, as the test below shows."""

    def save_file(tensors: Any, path: Path, metadata: Any = None) -> None:
        path.write_bytes(b"half")
        raise SafetensorError(f"Error while serializing: I/O error: no (os error {number})")

    return save_file


def test_another_disk_error_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors.torch, "save_file", broken(errno.EACCES))
    with pytest.raises(PermissionError):
        save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2)}, {})
    assert not list(tmp_path.iterdir())


def test_disk_errors_are_recognised_by_the_words_of_the_library(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError) as error:
        safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "nowhere" / "a.safetensors")
    assert module._error_number(error.value) == errno.ENOENT


def test_tensors_are_written_from_where_they_lie(tmp_path: Path) -> None:
    """A checkpoint of MiT-B5 is 1.4 GB: no copy of it is made. What safetensors refuses is copied all the same."""
    weight = torch.arange(6.0).view(2, 3)
    tensors = {"weight": weight, "again": weight, "row": weight[1], "turned": weight.T, "empty": torch.zeros(0, 3)}
    ready = module._separate(tensors)
    assert [name for name, value in ready.items() if value.data_ptr() == weight.data_ptr()] == ["weight"]
    path = tmp_path / "a.safetensors"
    save_tensors(path, tensors, {})
    found, _ = load_tensors(path)
    assert all(torch.equal(value, found[name]) for name, value in tensors.items())
    (tmp_path / "b").touch()
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_checkpoints_are_written_in_one_place() -> None:
    """Both weights and checkpoints go through ``save_tensors``, so that both survive a full disk."""
    names: list[Any] = [name for name in vars(module) if name.startswith("save")]
    assert names == ["save_tensors", "save_checkpoint"]
