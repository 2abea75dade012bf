"""Every method on two processes: they end alike, and as one process does where a method takes no notice of the device.

Two processes with equal halves compute what one computes on the whole, if the method draws no random number in a step
and no image's part in the loss depends on how many others are there. Whether that is so is found out in one process: a
batch that holds every image twice must then give what the batch with each once gives.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import METHODS, launch
from safetensors.torch import load_file
from torch import Tensor

from flexseg.engine.train import launch_fabric
from flexseg.method_files import method_names

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("two_ranks.py")
NAMES = method_names(METHODS)
CURVES = ["curve-plain", "curve-hard", "curve-rare", "curve-prototypes"]

Outcomes = dict[str, dict[str, Any]]


def outcome(output: Path, name: str) -> dict[str, Any] | None:
    """What became of a method, the first failure of its processes; None if one of them did not get that far."""
    records = [output / f"{name}.{rank}.json" for rank in range(2)]
    found = [json.loads(record.read_text()) for record in records if record.is_file()]
    # Where one process fails, the other one loses its connection, or is gone before it can say anything.
    failures = [each for each in found if each["failed"]]
    plain = [each for each in failures if "Connection" not in each["failed"]]
    if failures:
        return (plain or failures)[0]
    return found[0] | {"drew": any(each["drew"] for each in found)} if len(found) == 2 else None


def run_all(results: Path, output: Path, methods: Path, names: list[str], patience: float) -> Outcomes:
    """One launch for all; a method that breaks it costs itself, and the others are launched again."""
    outcomes: Outcomes = {}
    while missing := [name for name in names if name not in outcomes]:
        command = [sys.executable, str(SCRIPT), str(results), str(output), str(methods), *missing]
        _, printed = launch(command, output / "log.txt", patience)
        outcomes |= {name: found for name in missing if (found := outcome(output, name)) is not None}
        if missing[0] not in outcomes:
            outcomes[missing[0]] = {"failed": printed[-3000:], "refused": "", "drew": False}
    return outcomes


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-ranks")


@pytest.fixture(scope="module")
def outcomes(smoke_data: Path, output: Path, patience: float) -> Outcomes:
    return run_all(smoke_data, output, METHODS, [*CURVES, *NAMES], patience)


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("two_ranks", SCRIPT)
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def done(outcomes: Outcomes, name: str) -> dict[str, Any]:
    """The outcome of a method that trained."""
    if outcomes[name]["refused"]:
        pytest.skip(outcomes[name]["refused"])
    assert not outcomes[name]["failed"], outcomes[name]["failed"]
    return outcomes[name]


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_end_alike(name: str, outcomes: Outcomes, output: Path) -> None:
    """In weights, their averages, the method's state and all buffers that are not a device's own statistics."""
    done(outcomes, name)
    first, second = (load_file(output / f"{name}.{rank}.apart") for rank in range(2))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.isfinite(value).all(), key
        if not key.startswith("loss/"):
            assert torch.equal(value, second[key]), f"{key} differs between the processes"
    assert any(not torch.equal(value, second[key]) for key, value in first.items()), "both had the same half"


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """What differs by more than rounding, of the losses and of the first gradient; nothing if all is the same.

    Rounding turns a ReLU on or off here and there, and the deepest maps hold few pixels: a gradient may then change by
    some percent.
    """
    for key in (key for key in other if key.startswith("loss/")):
        if not torch.allclose(one[key], other[key], rtol=1e-3 if key.startswith("loss/0/") else 1e-2, atol=1e-4):
            return f"{key} is {float(one[key]):.6g} and {float(other[key]):.6g}"
    keys = [key for key in other if key.startswith("gradient/")]
    ours, theirs = (torch.cat([tensors[key].flatten() for key in keys]) for tensors in (one, other))
    apart = float((ours - theirs).norm() / theirs.norm())
    return f"gradients are {apart:.1%} apart" if apart > 0.1 else ""


@pytest.mark.parametrize("name", NAMES)
def test_equal_halves_are_the_whole(name: str, outcomes: Outcomes, output: Path, script: Any, smoke_data: Path) -> None:
    if done(outcomes, name)["drew"]:
        pytest.skip("each process draws its own random numbers in a step")
    alone, drew = script.trained(script.make_job(name, smoke_data, METHODS, 2), launch_fabric(), 2)
    assert not drew
    whole, _ = script.trained(script.make_job(name, smoke_data, METHODS, 4), launch_fabric(), 2)
    if apart := difference(whole, alone):
        pytest.skip(f"a batch that holds every image twice is another one for it: {apart}")
    for rank in range(2):
        assert difference(load_file(output / f"{name}.{rank}.equal"), whole) == ""


@pytest.mark.parametrize("name", CURVES)
def test_different_halves_give_the_loss_curve_of_the_whole(
    name: str, outcomes: Outcomes, output: Path, script: Any, smoke_data: Path
) -> None:
    """With the same images, chosen by the same hardness; prototypes are the same, their loss is a mean of each half."""
    done(outcomes, name)
    whole = script.curve(script.make_curve_job(name, smoke_data, METHODS), launch_fabric())
    first, second = (load_file(output / f"{name}.{rank}.curve") for rank in range(2))
    assert first.keys() == second.keys() == whole.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), f"{key} differs between the processes"
    compared = [key for key in whole if name != "curve-prototypes" or key.startswith("state/0/")]
    assert compared
    for key in compared:
        assert torch.allclose(first[key], whole[key], rtol=5e-4, atol=1e-5), f"{key}: {first[key]} and {whole[key]}"
    losses = [float(value) for key, value in whole.items() if key.startswith("loss/")]
    assert max(losses) > 1.05 * min(losses), "the curve must move to be compared"


def test_the_comparison_is_made_for_the_plain_baseline(outcomes: Outcomes, output: Path) -> None:
    """It draws nothing, and its halves give the same gradients, which a comparison must be able to tell apart."""
    assert not done(outcomes, "dginstyle")["drew"]
    equal, apart = (load_file(output / f"dginstyle.0.{way}") for way in ("equal", "apart"))
    assert difference(equal, apart) != ""


BROKEN = """
import numpy as np
import torch
from torch import nn
from torch.distributed import get_rank, is_initialized

from flexseg.method import Method


class Broken(Method):
    name = "{name}"
    title = "Broken"
    {body}
"""
BODIES = {
    "a_late_one": "def after_step(self, batch): assert get_rank() == 0, 'I am the second'",
    "deaf": "def build_training_modules(self, model): return nn.Linear(2, 2)",
    "fine": "",
    "own_way": "def state(self): return {'rank': np.array([get_rank() if is_initialized() else 0])}",
}


@pytest.mark.slow
def test_a_broken_method_is_named_and_costs_no_other(smoke_data: Path, tmp_path: Path, patience: float) -> None:
    """One process raises alone, a parameter gets no gradient, the processes keep different states."""
    for name, body in BODIES.items():
        (tmp_path / f"{name}.py").write_text(BROKEN.format(name=name, body=body))
    found = run_all(smoke_data, tmp_path, tmp_path, list(BODIES), patience)
    assert "I am the second" in found["a_late_one"]["failed"]
    assert "got no gradient" in found["deaf"]["failed"]
    test_both_processes_end_alike("fine", found, tmp_path)
    with pytest.raises(AssertionError, match="state/rank differs between the processes"):
        test_both_processes_end_alike("own_way", found, tmp_path)
