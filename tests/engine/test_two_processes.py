"""The transformer trunks with the whole recipe on two processes: the losses of one, equal states, exact resuming."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flexseg.engine.checkpoint import load_tensors

SCRIPT = Path(__file__).with_name("two_processes.py")
TRUNKS = ("daformer", "hrda")


@pytest.fixture(scope="module")
def found(methods: Path, patience: float, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Where one process and two left their results."""
    folders = {}
    for devices in (1, 2):
        folders[devices] = tmp_path_factory.mktemp(f"devices-{devices}")
        _launch(devices, folders[devices], methods, patience)
    return folders


def _launch(devices: int, output: Path, methods: Path, patience: float) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "NODE_RANK", "RANK")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), str(devices), str(output), str(methods)]
    with (output / "log.txt").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(timeout=patience)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        assert process.returncode == 0, log.read()[-3000:]


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
