"""The wheel, installed where the checkout is not: an empty folder, the workflow, and other workflows that import it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]
MODULE = """
from flexseg.shipped import snakefile

rule mine:
    default_target: True
    input: "reports/smoke/comparison.pdf"

module flexseg:
    snakefile: snakefile()
    config: {"benchmark": "smoke"}

use rule * from flexseg as flexseg_*
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, patience: float) -> Run:
    """``installed(folder, *command)``: run a command in a fresh environment with the wheel and what it needs."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(place)]
    # From a copy, as a build leaves a folder behind.
    source = place / "source"
    kept = ["flexseg", "benchmarks", "methods", "profiles", "docs", "Snakefile", "setup.py", "pyproject.toml"]
    kept += ["README.md", "LICENSE", "CITATION.cff", "snakemake_logger_plugin_flexseg"]
    source.mkdir()
    for name in [name for name in kept if (ROOT / name).exists()]:
        (source / name).symlink_to(ROOT / name)
    subprocess.run([*build, "."], cwd=source, check=True, timeout=patience)
    (wheel,) = place.glob("*.whl")
    home = place / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    for path in Path(sysconfig.get_path("purelib")).iterdir():  # all that the suite needs, but not the checkout
        if "flexseg" not in path.name.lower() and not path.name.startswith("__editable__") and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, env=clean, timeout=patience)
    path = os.pathsep.join([str(home / "bin"), clean.get("PATH", "")])

    def run(folder: Path, *command: str) -> Result:
        program = (
            [str(home / "bin" / command[0]), *command[1:]] if command[0] in ("flexseg", "python") else list(command)
        )
        if command[0] == "snakemake":
            program = [str(python), "-m", "snakemake", *command[1:]]
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        variables = clean | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(program, cwd=folder, env=variables, text=True, timeout=patience, check=False, **both)  # type: ignore[call-overload]

    return run


def test_an_empty_folder_becomes_a_study(installed: Run, tmp_path: Path) -> None:
    where = installed(tmp_path, "python", "-c", "import flexseg; print(flexseg.__file__)").stdout
    assert not Path(where.strip()).is_relative_to(ROOT), "the checkout is not what is tested"
    assert installed(tmp_path, "flexseg", "init", "mine").returncode == 0
    folder = tmp_path / "mine"
    content = yaml.safe_load((folder / "benchmarks" / "smoke.yaml").read_text())
    content |= {
        "domains": {name: content["domains"][name] for name in ("source", "generated", "night")}, "targets": ["night"],
        "averages": {}, "training": content["training"] | {"iterations": 4, "warmup": 1}, "title": "Mine",
    }  # fmt: skip
    (folder / "benchmarks" / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    done = installed(folder, "flexseg", "run", "mine", "--rows", "dginstyle", "--cores", "1", "--", "evaluated_nowhere")
    assert done.returncode != 0, "targets are handed on to Snakemake"
    assert "evaluated_nowhere" in done.stdout
    product = "reports/mine/rows-dginstyle/summary.md"
    done = installed(folder, "flexseg", "run", "mine", "--rows", "dginstyle", "--cores", "1", "--", product)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "| Night |" in (folder / product).read_text().replace("Avg", "")
    assert (folder / "results" / "mine" / "dginstyle" / "seed-0" / "run.json").is_file()


def test_without_a_folder_the_suites_own_benchmarks_are_there(installed: Run, tmp_path: Path) -> None:
    assert "\nstreetworld: " in installed(tmp_path, "flexseg", "show", "benchmarks").stdout
    done = installed(tmp_path, "flexseg", "run", "smoke", "--", "--dry-run")
    assert "dataset         7" in done.stdout, done.stdout[-2000:]


def test_another_workflow_imports_it(installed: Run, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(MODULE)
    done = installed(tmp_path, "snakemake", "--dry-run", "--cores", "1", "--config", "sample=3")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "flexseg_train" in done.stdout
    assert "results/smoke/flexseg/seed-0/trained.json" in done.stdout


def test_unknown_keys_are_refused(installed: Run, tmp_path: Path) -> None:
    installed(tmp_path, "flexseg", "init", "mine")
    done = installed(tmp_path / "mine", "snakemake", "--dry-run", "--cores", "1", "--config", "row=flexseg")
    assert done.returncode != 0
    assert "--config has no key 'row' (did you mean 'rows'?)" in done.stdout
