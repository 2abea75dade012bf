"""Real processes that are killed, and two that share a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from flexseg.benchmark import Run, load_benchmark
from flexseg.engine.checkpoint import load_tensors
from flexseg.files import read_json

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]

PROBE = '''"""FLEX-Seg that writes down what each process holds."""

import os
from pathlib import Path

import numpy as np
import torch

from flexseg.method_files import load_method

FlexSeg = load_method("flexseg", Path(__file__).parent)


class Probe(FlexSeg):
    name = "probe"
    title = "Probe"

    def after_step(self, batch):
        super().after_step(batch)
        rank = torch.distributed.get_rank()
        held = {f"bank/{key}": value.numpy() for key, value in self._prototypes.state_dict().items()} | self.state()
        np.savez(f"probe-{rank}-{batch.iteration}.npz", indices=batch.indices, slots=batch.slots, **held)
'''

WAITS = '''"""FLEX-Seg that goes no further than the iteration that it is told, so that no killer comes too late."""

import os
import time
from pathlib import Path

from flexseg.method_files import load_method

FlexSeg = load_method("flexseg", Path(__file__).parent)


class Waits(FlexSeg):
    name = "waits"
    title = "Waits"

    def after_step(self, batch):
        super().after_step(batch)
        while batch.iteration == int(os.environ.get("LAST_ITERATION", -1)):
            time.sleep(0.01)
'''


@pytest.fixture(scope="module")
def copy(make_copy: Callable[[Path], Path], smoke_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the smoke data, and a benchmark that is long enough to be killed in the middle."""
    folder = make_copy(tmp_path_factory.mktemp("interruption") / "copy")
    content = yaml.safe_load((folder / "benchmarks" / "smoke.yaml").read_text())
    content["training"] |= {"iterations": 60, "checkpoint_every": 6, "log_every": 5, "batch_size": 2}
    content["rows"]["flexseg"] |= {"method": "waits", "dim": 16, "momentum": 0.9}
    (folder / "benchmarks" / "long.yaml").write_text(yaml.safe_dump(content))
    content["training"] |= {"iterations": 4, "log_every": 1, "checkpoint_every": 3}
    (folder / "benchmarks" / "short.yaml").write_text(yaml.safe_dump(content))
    (folder / "methods" / "probe.py").write_text(PROBE)
    (folder / "methods" / "waits.py").write_text(WAITS)
    for name in ("long", "short"):
        (folder / "results" / name).mkdir()
        (folder / "results" / name / "data").symlink_to(smoke_data / "smoke" / "data")
    return folder


def iteration_of(checkpoint: Path) -> int:
    return int(json.loads(load_tensors(checkpoint)[1]["progress"])["iteration"]) if checkpoint.is_file() else 0


def interrupt(
    copy: Path, variables: dict[str, str], number: signal.Signals, after: int, patience: float
) -> tuple[int, str]:
    """Start the run, send the signal once a checkpoint beyond iteration ``after`` is there; exit code and output.

    It goes on meanwhile, but not for more than two checkpoints.
    """
    checkpoint = copy / "results" / "long" / "flexseg" / "seed-0" / "checkpoint.safetensors"
    process = subprocess.Popen(
        ["flexseg", "train", "long", "flexseg", "0"],
        cwd=copy,
        env=variables | {"LAST_ITERATION": str(after + 14)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + patience
        while iteration_of(checkpoint) <= after:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.005)
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=patience)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, output


def test_interrupted_and_killed_run_ends_as_the_undisturbed_one(
    copy: Path,
    environment: Callable[[Path], dict[str, str]],
    run_in: Command,
    methods: Path,
    smoke_data: Path,
    tmp_path: Path,
    patience: float,
) -> None:
    from flexseg.tasks.jobs import train_run

    variables = environment(copy)
    code, output = interrupt(copy, variables, signal.SIGINT, 0, patience)
    assert code == 130, output
    assert "interrupted; start the same command again to go on" in output
    assert "Traceback" not in output
    run = copy / "results" / "long" / "flexseg" / "seed-0"
    reached = iteration_of(run / "checkpoint.safetensors")
    assert 0 < reached < 60
    assert not (run / "failure.json").exists()
    code, _ = interrupt(copy, variables, signal.SIGKILL, reached, patience)
    assert code == -signal.SIGKILL
    later = iteration_of(run / "checkpoint.safetensors")
    assert reached < later < 60, "it went on, and was not done yet"
    assert not (run / "model.safetensors").exists()
    done = run_in(copy, "flexseg", "train", "long", "flexseg", "0")
    assert done.returncode == 0, done.stdout

    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "data").symlink_to(smoke_data / "smoke" / "data")
    benchmark = load_benchmark("long", copy / "benchmarks")
    train_run(Run(benchmark, "flexseg", 0, tmp_path))
    undisturbed = Run(benchmark, "flexseg", 0, tmp_path).directory
    assert (run / "model.safetensors").read_bytes() == undisturbed.weights.read_bytes()
    lines = [
        [json.loads(line) for line in path.read_text().splitlines()] for path in (run / "train.jsonl", undisturbed.log)
    ]
    for ours, theirs in zip(*lines, strict=True):
        ours.pop("images_per_second")
        theirs.pop("images_per_second")
        assert ours == theirs
    assert [line["iteration"] for line in lines[0]] == list(range(5, 61, 5))


def test_two_processes_share_a_run(copy: Path, run_in: Command) -> None:
    """Data parallelism over two processes: same weights, hardness and prototypes on both, and the run finishes."""
    done = run_in(copy, "flexseg", "train", "short", "probe", "0", "--devices", "2")
    assert done.returncode == 0, done.stdout
    run = copy / "results" / "short" / "probe" / "seed-0"
    record = read_json(run / "run.json")
    assert record["devices"] == 2
    assert [json.loads(line)["iteration"] for line in (run / "train.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    seen: set[int] = set()
    for iteration in range(4):
        first, second = (dict(np.load(copy / f"probe-{rank}-{iteration}.npz")) for rank in range(2))
        assert first["slots"].tolist() == [0]
        assert second["slots"].tolist() == [1]
        seen |= {int(first["indices"][0]), int(second["indices"][0])}
        assert set(np.flatnonzero(first["visits"]).tolist()) == seen, "each process knows the other's losses"
        buffers = [key for key in first if key not in ("indices", "slots")]
        assert any("bank" in key for key in buffers)
        for key in buffers:
            np.testing.assert_array_equal(first[key], second[key], err_msg=f"{key} at iteration {iteration}")
