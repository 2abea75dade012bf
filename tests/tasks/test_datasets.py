"""Data sets of a benchmark: indexed in place, opened again, in part and at their own size, cached and shown."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from flexseg.benchmark import Benchmark, Part, SetDomain, World, WorldDomain, fingerprint, load_benchmark
from flexseg.data.layouts import take_inventory
from flexseg.data.pool import open_pool
from flexseg.data.sets import load_set
from flexseg.errors import UserError
from flexseg.tasks import datasets
from flexseg.tasks.datasets import (
    cache_frames,
    domain_folder,
    make_dataset,
    open_index,
    remove_folder,
    render_domain,
    sets_folder,
    training_pool,
)
from flexseg.world.official import write_official

Load = Callable[..., Benchmark]
DOMAINS: dict[str, Any] = {
    "source": {"dataset": "gta5", "train": {"split": "all", "expected": 5}},
    "generated": {
        "dataset": "generated",
        "root": "painted",
        "resize": [24, 24],
        "train": {"split": "all", "images": 3, "expected": 6},
    },
    "fewer": {
        "dataset": "generated",
        "root": "painted",
        "resize": [24, 24],
        "train": {"split": "all", "images": 2, "expected": 6},
    },
    "night": {"dataset": "mapillary", "label_map": "mapillary_daformer", "test": {"split": "val", "expected": 3}},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a few frames of GTA5, of a generator and of Mapillary. Read only."""
    root = tmp_path_factory.mktemp("data")
    for name, home, split, count in (("gta5", "gta5", "all", 5), ("generated", "painted", "all", 6)):
        write_official(load_set(name), root / home, split, count, sizes=[(40, 70)])
    write_official(load_set("mapillary"), root / "mapillary", "val", 3, sizes=[(48, 64), (64, 41)], domain="places")
    return root


@pytest.fixture
def load(tmp_path: Path, smoke_content: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Load:
    """``load(data, **keys)``: the smoke benchmark with :data:`DOMAINS`, whose data are in ``data``."""
    monkeypatch.delenv("FLEXSEG_CACHE", raising=False)

    def loaded(data: Path, **keys: Any) -> Benchmark:
        content = smoke_content() | {"data_root": str(data)} | keys
        content["domains"] = content["domains"] | DOMAINS
        content["training"] = content["training"] | {"resize": [32, 56]}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
        return load_benchmark("mine", tmp_path)

    return loaded


def test_a_data_set_is_indexed_in_place_and_nothing_is_copied(load: Load, data: Path, tmp_path: Path) -> None:
    benchmark, results = load(data), tmp_path / "results"
    make_dataset(benchmark, "night", results)
    index = open_index(benchmark, "night", results)
    assert (index.root, index.label_map) == (data / "mapillary", "mapillary_daformer")
    assert len(index.split("test")) == 3
    pool = open_pool([(index, "test")])
    assert {label.shape for label in pool.labels} == {(48, 64), (64, 41)}
    assert set(np.unique(np.concatenate([label.ravel() for label in pool.labels]))) <= {*range(19), 255}
    assert not list((results / "mine" / "data" / "night").rglob("*.jpg"))


def test_what_the_reports_show_is_written_beside_the_index(load: Load, data: Path, tmp_path: Path) -> None:
    benchmark, results = load(data, predictions=2), tmp_path / "results"
    make_dataset(benchmark, "night", results)
    shown = sorted((domain_folder(results, benchmark, "night") / "shown").iterdir())
    pool = open_pool([(open_index(benchmark, "night", results), "test")])
    assert [path.name for path in shown] == [f"{pool.ids[i]}.{end}" for i in (0, 2) for end in ("label.png", "png")]
    assert np.array_equal(np.asarray(Image.open(shown[2])), pool.labels[2])


def test_a_rendered_domain_is_rendered_again_and_keeps_no_journal(load: Load, data: Path, tmp_path: Path) -> None:
    benchmark, results = load(data), tmp_path / "results"
    make_dataset(benchmark, "clear_city", results)
    folder = domain_folder(results, benchmark, "clear_city")
    image = next((folder / "leftImg8bit").rglob("*.png"))
    before = {path: path.read_bytes() for path in (folder / "index.parquet", image)}
    image.write_bytes(b"torn")
    stray = folder / "leftImg8bit" / "test" / "clear" / "old_leftImg8bit.png"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(before[image])
    make_dataset(benchmark, "clear_city", results)
    assert {path: path.read_bytes() for path in before} == before
    assert not stray.exists()
    assert {path.name for path in folder.iterdir()} == {"gtFine", "index.parquet", "leftImg8bit"}
    assert not sets_folder(results).exists()
    assert open_index(benchmark, "clear_city", results).label_map == ""


def test_the_index_is_written_last(load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, results = load(data), tmp_path / "results"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flexseg.tasks.datasets._write_examples", full)
    with pytest.raises(UserError, match=r"no space left .* start the same command again"):
        make_dataset(benchmark, "night", results)
    assert not list(domain_folder(results, benchmark, "night").glob("*.parquet"))


def test_moved_data_are_found_again(load: Load, data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    make_dataset(load(data), "night", results)
    shutil.copytree(data, tmp_path / "moved")
    moved = load(tmp_path / "moved")
    assert open_index(moved, "night", results).root == tmp_path / "moved" / "mapillary"


def test_a_runs_subset_follows_its_seed_and_smaller_ones_are_nested_in(load: Load, data: Path, tmp_path: Path) -> None:
    benchmark, results = load(data), tmp_path / "results"
    for domain in ("source", "generated", "fewer"):
        make_dataset(benchmark, domain, results)
    index = {domain: open_index(benchmark, domain, results) for domain in ("source", "generated", "fewer")}

    def taken(domain: str, seed: int) -> set[str]:
        parts = {"source": index["source"], domain: index[domain]}
        pool = training_pool(benchmark, parts, seed, benchmark.training.resize, results)
        assert [pool.images[i].shape for i in (0, 5)] == [(32, 56, 3), (24, 24, 3)], "each domain has its own size"
        assert pool.labels[5].shape == (24, 24)
        assert pool.origins.tolist() == [0] * 5 + [1] * (len(pool) - 5)
        return set(pool.ids[5:])

    assert taken("generated", 0) == taken("generated", 0)
    assert len({frozenset(taken("generated", seed)) for seed in range(6)}) > 1
    assert all(taken("fewer", seed) < taken("generated", seed) for seed in range(4))


def test_the_prompts_that_a_run_sees_follow_its_seed(load: Load, tmp_path: Path) -> None:
    root, results = tmp_path / "data", tmp_path / "results"
    write_official(load_set("generated"), root / "painted", "all", 10, layout="by prompt", sizes=[(40, 70)])
    write_official(load_set("gta5"), root / "gta5", "all", 5, sizes=[(40, 70)])
    part = {"split": "all", "images": 5, "expected": 10}
    benchmark = load(root)
    generated = benchmark.domains["generated"].model_copy(update={"train": Part(**part)})
    benchmark = benchmark.model_copy(update={"domains": benchmark.domains | {"generated": generated}})
    make_dataset(benchmark, "generated", results)
    index = {"generated": open_index(benchmark, "generated", results)}

    def prompts(seed: int) -> tuple[str, ...]:
        return tuple(training_pool(benchmark, index, seed, None, results).conditions)

    assert set().union(*map(prompts, range(6))) == {"fog", "night", "rain", "snow", "sunset"}
    assert prompts(0) == prompts(0)
    assert len({tuple(sorted(prompts(seed))) for seed in range(6)}) > 1


def test_the_number_of_images_must_be_right_or_declared(load: Load, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "gta5", tmp_path / "other" / "gta5")
    image = sorted((tmp_path / "other" / "gta5" / "images").iterdir())[0]
    image.unlink()
    (tmp_path / "other" / "gta5" / "labels" / image.name).unlink()
    with pytest.raises(UserError, match=r"4 of the 5 images of .*, all: .*say `expected: 4`"):
        make_dataset(load(tmp_path / "other"), "source", tmp_path / "results")


def test_skipped_images_may_be_of_any_split(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RobustNet leaves out frames of GTA5's training split; the benchmark takes some of the validation split too."""
    root, results, dataset = tmp_path / "data" / "gta5", tmp_path / "results", load_set("gta5")
    write_official(dataset, root, "official_train", 3, sizes=[(40, 70)])
    write_official(dataset, root, "official_val", 2, first=3, sizes=[(40, 70)])
    monkeypatch.setattr(datasets, "list_domain_pairs", lambda data, at, part, _: take_inventory(data, at, part.split))

    def without(*ids: str, **keys: Any) -> Benchmark:
        parts = {"train": {"split": "official_train"} | keys, "val": "official_val"}
        source = SetDomain.model_validate({"dataset": "gta5", "skip": list(ids)} | parts)
        return load(tmp_path / "data").model_copy(update={"domains": {"source": source}})

    make_dataset(without("00002"), "source", results)
    index = open_index(without("00002"), "source", results)
    assert [list(index.split(name)["id"]) for name in ("train", "val")] == [["00001", "00003"], ["00004", "00005"]]
    with pytest.raises(UserError, match=r"skip names 1 images .* in gta5, official_train, official_val: first"):
        make_dataset(without("00002", "00009"), "source", results)
    make_dataset(without("00002", "00009", expected=3), "source", results)  # a part of the set was asked for
    said = open_index(without("00002", "00009", expected=3), "source", results).notes
    assert any("skip names 1 images that are not in gta5" in note for note in said), "it may be a slip all the same"


def test_cached_frames_are_found_by_trainings(load: Load, data: Path, tmp_path: Path) -> None:
    """Also before the workflow has indexed them, as the guide has it."""
    benchmark, results = load(data), tmp_path / "results"
    lines = cache_frames(benchmark, results, workers=2)
    assert lines[-1].startswith("11 frames written")
    assert cache_frames(benchmark, results, workers=2)[-1].startswith("0 frames written")
    for path in (data / "gta5" / "images").iterdir():
        assert path.is_file()
    index = {domain: open_index(benchmark, domain, results) for domain in ("source", "generated")}
    cached = training_pool(benchmark, index, 0, benchmark.training.resize, results)
    shutil.rmtree(results / "frames")
    fresh = training_pool(benchmark, index, 0, benchmark.training.resize, results)
    for place in range(len(fresh)):
        assert np.array_equal(cached.images[place], fresh.images[place])
        assert np.array_equal(cached.labels[place], fresh.labels[place])


def test_the_label_map_is_part_of_the_definition(load: Load, data: Path) -> None:
    benchmark = load(data)
    other = benchmark.domains["night"].model_copy(update={"label_map": "mapillary_openseg"})
    changed = benchmark.model_copy(update={"domains": benchmark.domains | {"night": other}})
    assert fingerprint(changed.domain_definition("night")) != fingerprint(benchmark.domain_definition("night"))


def test_nothing_is_removed_behind_a_link(tmp_path: Path) -> None:
    """A domain's folder that is a link to somebody's data set, or lies elsewhere: its images stay."""
    domain, theirs = tmp_path / "results/b/data/source", tmp_path / "cityscapes"
    (theirs / "leftImg8bit").mkdir(parents=True)
    (theirs / "leftImg8bit/x.png").touch()
    domain.parent.mkdir(parents=True)
    domain.symlink_to(theirs)
    world = WorldDomain(world="source", train=1)
    with pytest.raises(UserError, match=r"data/source is a link: nothing is removed"):
        render_domain(world, domain, World(version=1, height=32, width=64), "source")
    domain.unlink()
    domain.mkdir()
    (domain / "leftImg8bit").symlink_to(theirs / "leftImg8bit")
    with pytest.raises(UserError, match=r"source/leftImg8bit is a link"):
        render_domain(world, domain, World(version=1, height=32, width=64), "source")
    for outside in (theirs / "leftImg8bit", domain / "../../../../cityscapes/leftImg8bit", domain):
        with pytest.raises(UserError, match="nothing is removed there"):
            remove_folder(outside, domain)
    assert [path.name for path in (theirs / "leftImg8bit").iterdir()] == ["x.png"]
    (domain / "leftImg8bit").unlink()
    (domain / "leftImg8bit").mkdir()
    (domain / "leftImg8bit/old.png").touch()
    render_domain(world, domain, World(version=1, height=32, width=64), "source")
    assert not (domain / "leftImg8bit/old.png").exists()


def test_a_full_disk_takes_no_pictures_away(
    load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = load(data)
    make_dataset(benchmark, "night", tmp_path)
    folder = domain_folder(tmp_path, benchmark, "night")
    (folder / "shown" / "old.png").touch()
    before = sorted(path.name for path in (folder / "shown").iterdir())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Image.Image, "save", refuse)
        with pytest.raises(UserError, match="no space left on the disk"):
            make_dataset(benchmark, "night", tmp_path)
    assert sorted(path.name for path in (folder / "shown").iterdir()) == before
    make_dataset(benchmark, "night", tmp_path)
    assert sorted(path.name for path in (folder / "shown").iterdir()) == [name for name in before if name != "old.png"]
