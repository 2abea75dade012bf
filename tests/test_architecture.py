"""What may import what: the contracts in pyproject.toml hold, and each of them notices when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Check the library that lies in ``folder`` by its own pyproject.toml, wherever another one is installed."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo", *options]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_modules_import_only_what_they_may() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Contracts: 4 kept, 0 broken." in result.stdout


@pytest.mark.parametrize(
    ("contract", "module", "imported"),
    [
        ("floors", "components/boundary.py", "flexseg.models"),
        ("floors", "engine/train.py", "flexseg.tasks"),
        ("floors", "misplaced.py", "flexseg.errors"),  # a module without a floor
        ("analysis", "analysis/stats/formats.py", "flexseg.analysis.tables"),
        ("circles", "models/windows.py", "flexseg.models.hrda"),
        ("torch", "files.py", "torch"),  # by way of a module that both import
    ],
)
def test_a_contract_notices_when_it_is_broken(tmp_path: Path, contract: str, module: str, imported: str) -> None:
    shutil.copytree(ROOT / "flexseg", tmp_path / "flexseg", ignore=shutil.ignore_patterns("__pycache__", "assets"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "flexseg" / module).open("a") as file:
        file.write(f"\n\ndef added() -> None:\n    import {imported}\n")
    result = lint_imports(tmp_path, "--contract", contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout
    assert f".{Path(module).stem}" in result.stdout
