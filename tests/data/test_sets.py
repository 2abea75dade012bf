"""The data sets' files: all of them load and are consistent, counts are as published, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexseg.data.label_maps import load_map
from flexseg.data.sets import load_set, set_names
from flexseg.errors import UserError

# Images of the published splits.
COUNTS = {
    "gta5": {"all": 24966, "official_train": 12403, "official_val": 6382, "official_test": 6181},
    "synthia": {"all": 9400},
    "urbansyn": {"all": 7539},
    "generated": {"all": None},
    "cityscapes": {"train": 2975, "val": 500},
    "bdd100k": {"train": 7000, "val": 1000},
    "mapillary": {"train": 18000, "val": 2000},
    "acdc": {"train": 1600, "val": 406},
    "dark_zurich": {"val": 50},
    "foggy_zurich": {"testv1": 16, "testv2": 40},
    "foggy_driving": {"fine": 33, "coarse": 68, "all": 101, "dense": 21},
    "nighttime_driving": {"test": 50},
    "wilddash": {"val": 70, "public": 4256},
    "idd": {"train": 6993, "val": 981},
    "camvid": {"train": 367, "val": 101, "test": 233},
}


@pytest.mark.parametrize("name", set_names())
def test_every_set(name: str) -> None:
    dataset = load_set(name)
    assert {split: found.images for split, found in dataset.splits.items()} == COUNTS[name]
    for found in dataset.splits.values():
        assert not found.conditions or sum(found.conditions.values()) == found.images
    for layout in dataset.layouts:
        if layout.encoding == "colours":
            assert load_map(dataset.map_of(layout)).colours
    assert {"images", "labels"} <= {word for archive in dataset.archives for word in archive.holds.split()}
    assert dataset.homepage.startswith("http")


def test_the_world_is_a_set_that_needs_no_search() -> None:
    dataset = load_set("streetworld")
    assert dataset.rendered
    assert dataset.name not in set_names()
    assert dataset.map_of(dataset.layouts[0]) == "", "labels hold trainIds, and no map lets another id pass"
    assert list(dataset.splits) == ["train", "val", "test"]


def test_acdcs_night_has_six_more() -> None:
    assert load_set("acdc").splits["val"].conditions == {"fog": 100, "night": 106, "rain": 100, "snow": 100}


def test_gta5s_bad_pairs_are_known() -> None:
    assert sorted(load_set("gta5").known_bad) == ["15188", "17705"]


def test_label_maps_that_fit() -> None:
    mapillary, cityscapes = load_set("mapillary"), load_set("cityscapes")
    layout = mapillary.layouts[0]
    assert mapillary.map_of(layout) == "mapillary_daformer"
    assert mapillary.map_of(layout, "mapillary_openseg") == "mapillary_openseg"
    with pytest.raises(UserError, match=r"'train_ids' does not fit .* mapillary_daformer or mapillary_openseg"):
        mapillary.map_of(layout, "train_ids")
    assert cityscapes.map_of(cityscapes.layout("labelIds")) == "cityscapes_label_ids"
    assert cityscapes.map_of(cityscapes.layout("labelTrainIds")) == "train_ids"
    with pytest.raises(UserError, match="does not fit"):  # its files hold trainIds: mapping them again would be wrong
        cityscapes.map_of(cityscapes.layout("labelTrainIds"), "cityscapes_label_ids")


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"no data set 'cityscape' \(did you mean 'cityscapes'\?\)"):
        load_set("cityscape")
    with pytest.raises(UserError, match=r"ACDC has no labelled split 'vall' .*'val'.*: its splits are train, val"):
        load_set("acdc").split("vall")
    with pytest.raises(UserError, match="no layout 'new'"):
        load_set("bdd100k").layout("new")


GOOD = """
title: Mine
homepage: https://example.org
archives: [{file: a.zip, holds: images and labels}]
licence: none
citation: none
folders: [mine]
label_map: train_ids
layouts: [{name: one, image: "a/{split}/{id}.png", label: "b/{split}/{id}.png"}]
splits: {val: {images: 1}}
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("train_ids", "train_idz", "no label map train_idz"),
        ("b/{split}", "b/{city}", "city is not a field of"),
        ("val:", "val: {image: 2}, test:", "image"),
        ("name: one", "name: one, where: {train: {id: a}}", "there is no split train"),
        ("layouts: [", "layouts: [{name: one, image: '{id}', label: '{id}'}, ", "same name"),
        ("title: Mine", "- 1", "is not valid YAML"),
    ],
)
def test_a_wrong_file(old: str, new: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert load_set("mine", tmp_path).name == "mine"
    (tmp_path / "mine.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=problem):
        load_set("mine", tmp_path)
