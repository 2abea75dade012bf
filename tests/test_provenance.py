"""Which code made a run: the files that it imported, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flexseg import provenance
from flexseg.provenance import code_digest, loaded_code

LOADED = "from flexseg.provenance import loaded_code; import {}; print(*loaded_code())"


def loaded_by(module: str) -> set[str]:
    """What a process that imports ``module`` counts as its code."""
    done = subprocess.run([sys.executable, "-c", LOADED.format(module)], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_run_counts_what_it_imported() -> None:
    gap = loaded_by("flexseg.components.gap")
    assert "components/gap.py" in gap
    assert "components/has.py" not in gap
    assert {"engine/train.py", "engine/evaluate.py"} <= gap
    assert not {path for path in gap if path.startswith(("world", "analysis", "cli", "published"))}
    assert all((provenance.ROOT / path).is_file() for path in gap)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "components").mkdir()
    for name in ("method.py", "cli.py", "components/gap.py", "components/has.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    code_digest.cache_clear()
    return tmp_path


def test_only_a_runs_own_files_change_its_digest(library: Path) -> None:
    files = ("components/gap.py", "method.py")

    def now() -> str:
        code_digest.cache_clear()
        return code_digest(files)

    before, everything = now(), code_digest()
    for name in ("components/has.py", "cli.py", "components/new.py"):
        (library / name).write_text("changed")
        assert now() == before
    assert code_digest() != everything
    (library / "components/gap.py").write_text("changed")
    changed = now()
    assert changed != before
    (library / "components/gap.py").unlink()
    assert now() not in (before, changed)


@pytest.fixture(autouse=True)
def _forget() -> object:
    yield
    code_digest.cache_clear()


def test_this_process_has_read_the_engine() -> None:
    assert "engine/train.py" in loaded_code()
