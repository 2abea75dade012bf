"""The transformer trunks with the whole recipe on two processes: the losses of one, equal states, exact resuming."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import launch

from flexseg.engine.checkpoint import load_tensors

SCRIPT = Path(__file__).with_name("two_processes.py")
TRUNKS = ("daformer", "hrda")


@pytest.fixture(scope="module")
def found(methods: Path, patience: float, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Where one process and two left their results."""
    folders = {}
    for devices in (1, 2):
        folders[devices] = tmp_path_factory.mktemp(f"devices-{devices}")
        command = [sys.executable, str(SCRIPT), str(devices), str(folders[devices]), str(methods)]
        status, printed = launch(command, folders[devices] / "log.txt", patience)
        assert status == 0, printed[-3000:]
    return folders


def results(found: dict[int, Path], devices: int, trunk: str, which: str) -> dict[str, Any]:
    return json.loads((found[devices] / f"{trunk}.json").read_text())[which]


@pytest.mark.parametrize("trunk", TRUNKS)
def test_two_processes_have_the_losses_of_one(found: dict[int, Path], trunk: str) -> None:
    one, two = (results(found, devices, trunk, "exact")["steps"] for devices in (1, 2))
    terms = {"ube"} | ({"auxiliary"} if trunk == "hrda" else set())
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == terms
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert one[0]["ube"] != pytest.approx(one[-1]["ube"], rel=1e-3), "nothing was learnt"


@pytest.mark.parametrize("trunk", TRUNKS)
def test_processes_end_in_the_same_state(found: dict[int, Path], trunk: str) -> None:
    whole = results(found, 2, trunk, "whole")
    assert whole["apart"] == 0
    assert whole["steps"][-1]["gap"] > 0
    assert whole["steps"][-1]["fd"] > 0


@pytest.mark.parametrize("trunk", TRUNKS)
def test_half_precision_has_nearly_the_same_losses(found: dict[int, Path], trunk: str) -> None:
    half, full = (results(found, 1, trunk, which)["steps"] for which in ("half", "whole"))
    for ours, theirs in zip(half, full, strict=True):
        assert ours != theirs, "that was no other precision"
        assert ours == pytest.approx(theirs, rel=0.05, abs=0.002)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_an_interrupted_run_ends_in_the_same_weights(found: dict[int, Path], trunk: str, devices: int) -> None:
    straight, interrupted = (found[devices] / trunk / name for name in ("straight", "interrupted"))
    weights = "model.safetensors"
    assert (straight / weights).read_bytes() == (interrupted / weights).read_bytes()
    assert load_tensors(straight / weights)[0]
    lines = [json.loads(line)["iteration"] for line in (interrupted / "train.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4]
