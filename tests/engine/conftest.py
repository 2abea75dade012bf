"""Runs that are compared with others: trained once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flexseg.benchmark import Benchmark
from flexseg.benchmark.identity import RunDirectory


@pytest.fixture(scope="session")
def undisturbed(
    tiny: Benchmark, smoke_data: Path, train_in: Callable[..., RunDirectory], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunDirectory]:
    """``undisturbed(row, seed=0)``: that run of ``tiny``, trained once a session without interruption. Read only."""
    results = tmp_path_factory.mktemp("undisturbed")
    (results / "smoke").mkdir()
    (results / "smoke" / "data").symlink_to(smoke_data / "smoke" / "data")
    return lambda row, seed=0: train_in(results, tiny, row, seed)
