"""The method that ``methods/README.md`` walks through is read from it, and trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flexseg.benchmark import Benchmark
from flexseg.engine.run import RunDirectory
from flexseg.engine.train import Job, Trainer, launch_fabric
from flexseg.method import load_method, method_names, parse_options


@pytest.fixture
def guide(methods: Path, tmp_path: Path) -> Path:
    """A methods folder with the guide's file, and nothing else."""
    text = (methods / "README.md").read_text()
    name = re.search(r"Save this as `methods/(\w+)\.py`", text)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert name is not None
    assert code is not None
    (tmp_path / f"{name.group(1)}.py").write_text(code.group(1))
    return tmp_path


def test_the_guides_method_trains(guide: Path, smoke: Benchmark, smoke_data: Path) -> None:
    from flexseg.data.pool import load_pool
    from flexseg.jobs import open_index

    (name,) = method_names(guide)
    method = load_method(name, guide)
    options = parse_options(method, {"smoothing": 0.2})
    indices = {domain: open_index(smoke, domain, smoke_data) for domain in method.data}
    pool = load_pool([(index, "train") for index in indices.values()])
    schedule = smoke.training.model_copy(update={"iterations": 30, "warmup": 0, "power": 0.0})
    job = Job(RunDirectory(smoke_data), {}, method, options, schedule, smoke.model, 0, pool, indices)
    trainer = Trainer(job, launch_fabric())
    losses = [float(trainer.step(iteration)[2].detach()) for iteration in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_the_guides_commands_name_its_method(guide: Path, methods: Path) -> None:
    (name,) = method_names(guide)
    commands = re.findall(r"^snakemake .*$", (methods / "README.md").read_text(), re.MULTILINE)
    assert commands
    assert all(f"rows={name}" in command for command in commands)
