"""What a benchmark needs of the machine is estimated before any work, and compared with what is there."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import resnet, unet

from flexseg.benchmark import Benchmark
from flexseg.errors import UserError
from flexseg.files import digest
from flexseg.models import build_segmentor
from flexseg.tasks import needs
from flexseg.tasks.check import check_benchmark
from flexseg.tasks.needs import Needs, compare_needs, measure_needs, saved_bytes


def counted(trunk: Any, images: int, crop: tuple[int, int]) -> int:
    """What a real forward pass keeps, by the memory's own addresses."""
    seen: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storages.append(tensor)
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    storages: list[Any] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = trunk(torch.randn(images, 3, *crop))
    own = {parameter.data_ptr() for parameter in trunk.parameters()}
    assert output is not None
    return sum(size for address, size in seen.items() if address not in own)


@pytest.mark.parametrize("model", [unet(), resnet()], ids=["unet", "resnet"])
def test_activations_are_counted_without_computing(model: dict[str, Any]) -> None:
    trunk = build_segmentor(model)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    estimate = saved_bytes(trunk, 2, (64, 64))
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    assert estimate == pytest.approx(counted(trunk, 2, (64, 64)), rel=0.25)  # kernels keep a little more or less
    assert saved_bytes(trunk, 4, (64, 64)) == pytest.approx(2 * estimate, rel=0.1)


def test_a_trunk_that_cannot_run_on_shapes_is_not_counted() -> None:
    class Refuses(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> float:
            return float(images.sum())

    assert saved_bytes(Refuses(), 1, (8, 8)) == 0


def test_disk_is_needed_for_what_is_not_there(smoke: Benchmark, smoke_data: Path, tmp_path: Path) -> None:
    trunks = {digest(smoke.model): build_segmentor(smoke.model)}
    weights = 4 * sum(parameter.numel() for parameter in trunks[digest(smoke.model)].parameters())
    bare, with_data = (measure_needs(smoke, trunks, place).disk for place in (tmp_path, smoke_data))
    assert with_data == weights * len(smoke.rows) * len(smoke.seeds)
    assert bare > with_data


def test_too_little_disk_is_refused(smoke: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(UserError, match=r"benchmark smoke: its results need .* 0\.0 MB are free"):
        check_benchmark(smoke, tmp_path)


def test_too_little_memory_is_said_and_absurd_needs_are_refused(
    smoke: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare_needs(Needs(1, 1), tmp_path, "smoke") == []
    monkeypatch.setattr(needs, "memory_there", lambda: 10**9)
    assert "needs 2.0 GB of memory or more, and here are 1.0 GB" in compare_needs(Needs(2 * 10**9, 1), tmp_path, "b")[0]
    huge = smoke.model_copy(update={"training": smoke.training.model_copy(update={"crop": (32768, 32768)})})
    huge = huge.model_copy(update={"training": huge.training.model_copy(update={"batch_size": 65536})})
    with pytest.raises(UserError, match=r"take a smaller training\.crop or batch_size"):
        check_benchmark(huge, tmp_path)


def test_a_trunk_larger_than_the_memory_is_an_error(smoke: Benchmark, tmp_path: Path) -> None:
    model = smoke.model | {"backbone": smoke.model["backbone"] | {"base_channels": 10**6}}
    with pytest.raises(UserError, match=r"backbone: UNet cannot be built: .*allocate"):
        check_benchmark(smoke.model_copy(update={"model": model}), tmp_path)
