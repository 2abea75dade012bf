"""The campaign: slow, on the real commands, and outside the suite. ``make campaign`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from work import Work


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # those of the whole session
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("campaign")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The smoke benchmark, run once without any disturbance. Read only."""
    work = Work.make(tmp_path_factory.mktemp("undisturbed") / "work")
    code, output = work.run("snakemake", "--cores", "2", "--config", "benchmark=smoke")
    assert code == 0, output
    return work
