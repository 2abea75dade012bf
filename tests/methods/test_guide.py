"""The walk-through of ``docs/methods.md`` is read from it and carried out, in a copy of the repository.

Its commands run as they stand, in their order, except for those of :data:`INSTEAD`, which take long.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_job, open_domains

from flexseg.benchmark import Benchmark, load_benchmark
from flexseg.engine.train import Trainer, launch_fabric
from flexseg.method import HOOKS, NEEDS, ORIGINS
from flexseg.method_files import load_method, method_names

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "methods.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.split("  #")[0].split(" # ")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()
]
NAME = re.findall(r"`methods/(\w+)\.py` then:", TEXT)[0]
CODE = next(text for kind, text in BLOCKS if kind == "python")
ROW = next(text for kind, text in BLOCKS if kind == "yaml").splitlines()[1]
INSTEAD = {
    "flexseg bench step streetworld": lambda line: f"{line} --steps 2 --rounds 1",
    "snakemake --cores all --config rows=": lambda line: f"{line} --dry-run",  # training for an hour
    "flexseg compare streetworld": lambda line: line.replace("streetworld", "smoke"),  # what was not trained
}
LEFT_OUT = {".git", ".venv", "results", "reports", ".snakemake", "__pycache__", "flexseg.egg-info"}
LEFT_OUT |= {".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"}


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A methods folder with the guide's file, and nothing else."""
    (tmp_path / f"{NAME}.py").write_text(CODE)
    return tmp_path


def test_the_guides_method_trains(guide: Path, smoke: Benchmark, smoke_data: Path) -> None:
    (name,) = method_names(guide)
    method = load_method(name, guide)
    pool = open_domains(smoke, smoke_data, *method.data)
    schedule = smoke.training.model_copy(update={"iterations": 30, "warmup": 0, "power": 0.0})
    job = make_job(smoke, name, pool, {"smoothing": 0.2}, method=method, training=schedule)
    trainer = Trainer(job, launch_fabric())
    losses = [float(trainer.step(iteration)[2].detach()) for iteration in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_the_guides_commands_name_its_method() -> None:
    assert COMMANDS[0].startswith(f"flexseg new-method {NAME} ")
    assert len(COMMANDS) > 5
    assert all(NAME in command for command in COMMANDS if command != "flexseg show methods")
    for start in INSTEAD:
        assert [command for command in COMMANDS if command.startswith(start)], f"no command begins with {start!r}"


def test_every_hook_need_and_origin_is_explained() -> None:
    hooks, needs = (
        re.split(r"^\|---\|---\|\n", part, flags=re.MULTILINE)[1]
        for part in TEXT.split("| hook |")[1].split("| `needs` |")
    )
    table = re.findall(
        r"`(\w+)\(", "\n".join(line.split("|")[1] for line in hooks.splitlines() if line.startswith("|"))
    )
    assert sorted(table) == sorted(HOOKS)
    assert re.findall(r'^\| `"(\w+)"` \|', needs, re.MULTILINE) == list(NEEDS)
    for origin in ORIGINS:
        assert f'`"{origin}"`' in TEXT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, with its tests; its default benchmark renders few images, which takes less time."""
    shutil.copytree(ROOT, tmp_path / "copy", ignore=lambda _, names: LEFT_OUT & set(names))
    default = tmp_path / "copy" / "benchmarks" / "streetworld.yaml"
    default.write_text(default.read_text().replace("train: 600", "train: 40").replace("val: 120", "val: 20"))
    for name in ("results", "reports"):
        (tmp_path / "copy" / name).mkdir()
    return tmp_path / "copy"


@pytest.fixture
def run(copy: Path, patience: float) -> Callable[[str], str]:
    """Run a line in the copy, whose own library comes first; what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def shell(line: str) -> str:
        print("$", line, flush=True)
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    return shell


@pytest.mark.slow
def test_the_walk_through(copy: Path, run: Callable[[str], str]) -> None:
    first, *others = COMMANDS
    assert f"methods/{NAME}.py" in run(first)
    written = (copy / "methods" / f"{NAME}.py").read_text()
    for line in ("title = ", "paper = "):
        assert re.findall(f"^    {line}.*$", written, re.MULTILINE) == re.findall(f"^    {line}.*$", CODE, re.MULTILINE)
    (copy / "methods" / f"{NAME}.py").write_text(CODE)
    run(f"ruff check methods/{NAME}.py && ruff format --check methods/{NAME}.py")
    outputs = {}
    for command in others:
        replaced = [change(command) for start, change in INSTEAD.items() if command.startswith(start)]
        outputs[command] = run((replaced or [command])[0])
    assert "ε, share of the uniform distribution" in outputs["flexseg show methods"]
    contract = next(text for command, text in outputs.items() if "pytest" in command)
    assert re.search(r"^\d\d passed", contract, re.MULTILINE), contract
    table = (copy / "reports" / "smoke" / f"rows-{NAME}+dginstyle" / "summary.md").read_text()
    assert "Label smoothing" in table or NAME in table

    path = copy / "benchmarks" / "streetworld.yaml"
    text = path.read_text().replace("\nrows:\n", f"\nrows:\n{ROW}\n")
    path.write_text(text.replace("  default:\n    [", f"  default:\n    [{NAME}, "))
    benchmark = load_benchmark("streetworld", path.parent)
    assert benchmark.row(NAME).options == {"smoothing": 0.2}
    assert NAME in benchmark.studies["default"]
    assert "ready" in run("flexseg check streetworld")
