"""`flexseg bench data` reads what it claims to read, says when data are missing, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import flexseg.tasks.speed_data as module
from flexseg.benchmark import Benchmark, load_benchmark
from flexseg.data.frames import Frame
from flexseg.tasks.speed_data import WARM_ROUNDS, measure_data

ROOT = Path(__file__).parents[2]
IMAGES = 3


def small(benchmark: Benchmark) -> Benchmark:
    training = benchmark.training.model_copy(update={"resize": (24, 40), "crop": (16, 16), "batch_size": 2})
    return benchmark.model_copy(update={"training": training})


def test_files_are_decoded_each_time_and_cached_frames_never(
    smoke: Benchmark, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    original = Frame.read_image

    def counted(frame: Frame) -> np.ndarray:
        decoded.append(frame.image)
        return original(frame)

    monkeypatch.setattr(Frame, "read_image", counted)
    console = Console(record=True, width=200)
    before = {*results.iterdir()}
    speeds = measure_data(small(smoke), results, IMAGES, 0.5, console)
    assert len(decoded) == IMAGES * (1 + 2 * (1 + 1 + WARM_ROUNDS)), "written once; read by one worker, then by two"
    assert len({*decoded}) == IMAGES
    assert {*results.iterdir()} == before
    text = console.export_text()
    assert f"{IMAGES} images of Source" in text
    assert "needs 4.0 images/s" in text
    for name in ("files", "cache"):
        assert min([*speeds[name].cold.values(), *speeds[name].warm.values()]) > 0
        assert speeds[name].cold.keys() == speeds[name].warm.keys() == {1, 2}


def test_missing_data_are_reported_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXSEG_DATA", raising=False)
    monkeypatch.delattr(os, "posix_fadvise")
    monkeypatch.setattr(module, "GTA5_SIZE", (40, 64))
    console = Console(record=True, width=400)
    speeds = measure_data(small(load_benchmark("gta5_daformer", ROOT / "benchmarks")), tmp_path, 2, 0, console, [1])
    text = console.export_text()
    assert "2 images rendered here, as the benchmark's are missing (GTA5" in text
    assert "64×40" in text
    assert speeds["cache"].cold == {}, "what cannot be dropped from memory is not called a first reading"
    assert not any(tmp_path.iterdir())
