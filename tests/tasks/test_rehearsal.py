"""A rehearsal shrinks sizes, steps and numbers of images, lists the changes, and keeps the rest of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from flexseg.benchmark import load_benchmark
from flexseg.benchmark.reading import read_content
from flexseg.errors import UserError
from flexseg.tasks.rehearse import Change, Settings, rehearse, shrink

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAPERS = ("gta5_daformer", "gta5_hrda", "gta5_resnet50", "gta5_resnet101")


def keys_of(content: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of nested mappings by its dotted place."""
    if not isinstance(content, dict):
        return {place: content}
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= keys_of(value, f"{place}.{key}" if place else str(key))
    return found


@pytest.mark.parametrize("name", PAPERS)
def test_the_small_file_is_valid_and_every_change_is_listed(name: str, tmp_path: Path) -> None:
    content = read_content(name, BENCHMARKS)
    small, changes = shrink(content, Settings())
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(small))
    benchmark = load_benchmark(name, tmp_path)
    assert benchmark.seeds == [0]
    assert benchmark.training.iterations == 4
    before, after = keys_of(content), keys_of(small)
    listed = tuple(change.key for change in changes)
    differing = {key for key in before.keys() | after.keys() if before.get(key, 0) != after.get(key, 0)}
    unlisted = {key for key in differing if not key.startswith(listed)}
    assert unlisted <= {"extends", "data_root", "tuning"}


def test_sizes_shrink_together() -> None:
    small, changes = shrink(read_content("gta5_hrda", BENCHMARKS), Settings(shrink=4))
    assert (small["training"]["crop"], small["training"]["resize"]) == ([256, 256], {"fit": [360, 640]})
    assert (small["model"]["hrda"]["detail"], small["model"]["hrda"]["stride"]) == ([128, 128], [64, 64])
    assert (small["protocol"]["window"], small["protocol"]["stride"]) == ([256, 256], [128, 128])
    assert small["protocol"]["sizes"]["acdc"] == {"fit": [270, 480]}
    assert small["training"]["sampling"]["source"]["min_pixels"] == 187
    assert small["domains"]["generated"]["resize"] == [256, 256]
    assert Change("training.iterations", 40000, 4) in changes


def test_a_smaller_trunk_is_listed_and_must_fit() -> None:
    small, changes = shrink(read_content("gta5_daformer", BENCHMARKS), Settings(trunk="b0"))
    assert small["model"]["decode_head"]["in_channels"] == [32, 64, 160, 256]
    assert "model.backbone.num_layers" in {change.key for change in changes}
    with pytest.raises(UserError, match="there is no MiT 'b9'"):
        shrink(read_content("gta5_daformer", BENCHMARKS), Settings(trunk="b9"))
    with pytest.raises(UserError, match=r"ResNet, which no MiT can replace"):
        shrink(read_content("gta5_resnet50", BENCHMARKS), Settings(trunk="b0"))


def test_a_benchmark_that_only_evaluates_is_not_rehearsed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only evaluates the runs of 'streetworld'"):
        rehearse("streetworld_camvid", tmp_path, Settings(), "default", "", 1, BENCHMARKS, tmp_path, Console())
