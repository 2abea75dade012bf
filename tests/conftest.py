"""What several rooms share: the repository, and its smoke benchmark with its data rendered once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from flexseg.benchmark import Benchmark, load_benchmark

ROOT = Path(__file__).parents[1]
# As the workflow trains. Two threads would compete with the other worker, and torch 2.13 frees memory twice in the
# backward pass of a narrow ResNet-18 with the channels last if it has more than one (plain mmseg, none of our code).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# An example that takes long says something about the machine, not about the property.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def patience() -> float:
    """Seconds after which a test calls what it waits for a hang, the same for all tests.

    Only a hang may reach it. How long something takes depends on the machine and on what else that is doing, and is
    nothing that a test can prove.
    """
    return 3600.0


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def methods() -> Path:
    """The repository's own methods."""
    return ROOT / "methods"


@pytest.fixture(scope="session")
def smoke() -> Benchmark:
    """``benchmarks/smoke.yaml``."""
    return load_benchmark("smoke", ROOT / "benchmarks")


@pytest.fixture(scope="session")
def smoke_content() -> Callable[[], dict[str, Any]]:
    """A fresh copy of the content of ``benchmarks/smoke.yaml``, to be edited."""
    return lambda: yaml.safe_load((ROOT / "benchmarks" / "smoke.yaml").read_text())


@pytest.fixture(scope="session")
def smoke_data(smoke: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder in which every domain of the smoke benchmark is rendered. Read only."""
    from flexseg.tasks.datasets import make_dataset

    results = tmp_path_factory.mktemp("smoke-data")
    for domain in smoke.domains:
        make_dataset(smoke, domain, results)
    return results


@pytest.fixture
def results(smoke_data: Path, tmp_path: Path) -> Path:
    """An empty results folder of the smoke benchmark that shares the rendered data."""
    folder = tmp_path / "results"
    (folder / "smoke").mkdir(parents=True)
    (folder / "smoke" / "data").symlink_to(smoke_data / "smoke" / "data")
    return folder


@pytest.fixture(autouse=True)
def _torch_as_found() -> Iterator[None]:
    """What training sets for its process must not leak from one test into the next."""
    import sys

    yield
    if "torch" in sys.modules:
        sys.modules["torch"].use_deterministic_algorithms(False)
