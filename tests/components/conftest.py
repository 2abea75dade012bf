"""Random label maps, blocky as real ones, and two processes with half a batch each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor


def _make_labels(
    seed: int, batch: int = 2, height: int = 13, width: int = 17, classes: int = 5, void: float = 0.1, block: int = 4
) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (batch, -(-height // block), -(-width // block)), generator=g)
    label = coarse.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :height, :width].clone()
    label[torch.rand(label.shape, generator=g) < void] = 255
    return label


@pytest.fixture(scope="session")
def make_labels() -> Callable[..., Tensor]:
    """``make_labels(seed, batch, height, width, classes, void, block) -> (batch, height, width)`` int64."""
    return _make_labels


RANK = """
import sys
import torch
import torch.distributed as dist

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
data, half = torch.load(f"{folder}/data.pt"), slice(2 * rank, 2 * rank + 2)
%s
torch.save(out, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="session")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory, patience: float) -> Callable[[str, Any], list[Any]]:
    """``on_two_ranks(body, data)``: what ``body`` calls ``out`` on each; it knows ``data``, ``rank``, ``half``."""

    def run(body: str, data: Any) -> list[Any]:
        folder = tmp_path_factory.mktemp("ranks")
        torch.save(data, folder / "data.pt")
        command = [sys.executable, "-c", RANK % body, str(folder)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
        try:
            assert [worker.wait(timeout=patience) for worker in workers] == [0, 0]
        finally:
            for worker in workers:
                worker.kill()
        return [torch.load(folder / f"{rank}.pt") for rank in range(2)]

    return run
