"""Labels that decode and are wrong all the same: other ids, nothing labelled, unusual shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flexseg.benchmark.blocks import SetDomain
from flexseg.classes import NUM_CLASSES, TRAIN_ID
from flexseg.data.label_maps import load_map
from flexseg.data.layouts import locate
from flexseg.data.plausible import check_content
from flexseg.data.sets import load_set, set_names
from flexseg.errors import UserError
from flexseg.tasks.datasets import build_index
from flexseg.world.official import write_official

SHARES = {"road": 0.37, "building": 0.23, "vegetation": 0.16, "car": 0.07, "sky": 0.04, "sidewalk": 0.06}
"""About those of Cityscapes' training labels."""


def table(images: int, void: float = 0.1, **shares: float) -> pd.DataFrame:
    """Images of 1000×1000 pixels whose classes have these shares of the labelled pixels."""
    counts = np.zeros(NUM_CLASSES)
    for name, share in (SHARES | shares).items():
        counts[TRAIN_ID[name]] = share
    pixels = (counts / max(counts.sum(), 1e-9) * (1 - void) * 1e6).astype(np.int64)
    ids = [f"{place:05d}" for place in range(images)]
    return pd.DataFrame({"id": ids, "sha256": ids, "height": 1000, "width": 1000, "class_pixels": [pixels] * images})


CITY = load_set("cityscapes")


def test_labels_as_they_should_be() -> None:
    assert check_content(CITY, "val", table(500)) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (table(5, road=0), "road occur nowhere"),
        (table(5, sky=0, building=0), "building, sky occur nowhere"),
        (table(5, void=0.8), "80% of the pixels are void, and at most 50%"),
        (table(1, void=1), "all 1 labels are void throughout"),
    ],
)
def test_what_cannot_be_this_set(found: pd.DataFrame, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_content(CITY, "val", found)


def test_what_is_unusual_is_remarked_on() -> None:
    assert check_content(CITY, "val", table(5, car=0.9)) == [
        "car has 51.1% of the labelled pixels, 0.5% to 30.0% are usual"
    ]
    mixed = pd.concat([table(6), table(2, void=1).assign(id=["x", "y"], sha256=["8", "9"])])
    assert check_content(CITY, "val", mixed) == ["2 of 8 labels are void throughout: x, y"]
    few = check_content(CITY, "val", table(4, road=0))
    assert few == ["road occur nowhere"], "a few images may be so, but few are"
    assert check_content(CITY, "val", table(1, sky=0)) == []


def test_a_part_that_was_converted_is_named() -> None:
    """Where half of the labels hold other ids, every class occurs and the whole looks as it should."""
    mixed = pd.concat([table(6), table(2, void=0.8).assign(id=["x", "y"], sha256=["8", "9"])])
    assert check_content(CITY, "val", mixed) == ["2 of 8 labels are void in more than 50% of their pixels: x, y"]


def test_images_that_are_there_twice_are_named() -> None:
    twice = table(6).assign(sha256=["1", "2", "3", "1", "5", "1"])
    assert check_content(CITY, "val", twice) == ["2 of 6 images are copies of others: 00003, 00005"]


@pytest.mark.parametrize("name", set_names())
def test_every_set_says_what_is_plausible(name: str) -> None:
    plausible = load_set(name).plausible
    assert plausible.void < 1
    assert all(low < high for low, high in plausible.shares.values())


@pytest.mark.parametrize("name", ["gta5", "cityscapes", "mapillary", "idd"])
def test_labels_converted_in_place_are_refused(name: str, tmp_path: Path) -> None:
    """Whoever converts labels to trainIds under their old names gets no index, whatever the ids happen to mean."""
    dataset = load_set(name)
    split = "all" if name == "gta5" else "val"
    pairs = write_official(dataset, tmp_path / name, split, 6, sizes=((48, 96),))
    part = SetDomain.model_validate({"dataset": name, "test": {"split": split, "expected": 6}})
    located = locate(dataset, tmp_path)
    build_index(part, located, "f")
    mapping = load_map(dataset.map_of(located.layout))
    for pair in pairs:
        with Image.open(pair.label) as opened:
            converted = mapping.table[np.asarray(opened)]
        Image.fromarray(converted).save(pair.label)
    if np.array_equal(mapping.table[:19], np.arange(19)):
        return  # its labels are trainIds
    with pytest.raises(UserError, match=r"occur nowhere|of the pixels are void|holds the id|cannot be used"):
        build_index(part, located, "f")


@pytest.mark.parametrize("name", set_names())
def test_rendered_stand_ins_are_plausible(name: str, tmp_path: Path) -> None:
    dataset = load_set(name)
    split = next(iter(dataset.splits))
    write_official(dataset, tmp_path / name, split, 6, sizes=((48, 96),))
    part = {"split": split, "expected": 6}
    located = locate(dataset, tmp_path, name)
    assert len(build_index(SetDomain.model_validate({"dataset": name, "test": part}), located, "f").table) == 6
