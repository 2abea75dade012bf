"""Every data set and layout, written and read again: the trainIds that come back are those that were rendered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flexseg.data.images import decode_pair
from flexseg.data.label_maps import load_map
from flexseg.data.layouts import list_pairs, locate
from flexseg.data.sets import load_set, set_names
from flexseg.world import render
from flexseg.world.official import encode_ids, write_official

SIZES = ((40, 80), (49, 33))  # an odd one, upright
FORMS = [
    (name, layout.name, split)
    for name in set_names()
    for layout in load_set(name).layouts
    if not layout.refused
    for split in load_set(name).splits
    if load_set(name).where(layout, split) is not None
]


@pytest.mark.parametrize(("name", "layout", "split"), FORMS)
def test_what_was_rendered_comes_back(name: str, layout: str, split: str, tmp_path: Path) -> None:
    dataset = load_set(name)
    root = tmp_path / dataset.folders[0]
    written = write_official(dataset, root, split, 4, layout=layout, sizes=SIZES, domain="adverse")
    located = locate(dataset, tmp_path)
    assert (located.root, located.layout.name) == (root, layout)
    assert list_pairs(dataset, located, split) == sorted(written)
    assert len({pair.id for pair in written}) == 4
    assert not any("/" in pair.id for pair in written)
    known = dataset.splits[split].conditions
    assert {pair.condition for pair in written} <= set(known) or not known
    map_id, encoding = dataset.map_of(located.layout), dataset.encoding_of(located.layout)
    expressible = np.isin(np.arange(256), load_map(map_id).table)
    for place, pair in enumerate(written):
        image, label = decode_pair(
            pair.image, pair.image.read_bytes(), pair.label, pair.label.read_bytes(), map_id, encoding
        )
        height, width = SIZES[place % 2]
        frame = render("adverse", "train", place, height=height, width=width)
        assert (label == np.where(expressible[frame.label], frame.label, 255)).all()
        assert image.shape == frame.image.shape
        assert pair.image.suffix != ".png" or (image == frame.image).all()


@pytest.mark.parametrize("map_id", ["mapillary_openseg", "gta5", "synthia", "idd", "train_ids_void19"])
def test_every_id_of_the_map_is_drawn(map_id: str) -> None:
    """Void ids too, by the seed alone; what the set cannot express is void."""
    mapping = load_map(map_id)
    label = np.random.default_rng(0).choice([*range(19), 255], (64, 64)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    ids = encode_ids(label, mapping, np.random.default_rng(1))
    assert set(np.unique(ids)) == set(mapping.names)
    assert (ids == encode_ids(label, mapping, np.random.default_rng(1))).all()
    assert (ids != encode_ids(label, mapping, np.random.default_rng(2))).any()


def test_files_are_of_the_data_sets_kind(tmp_path: Path) -> None:
    kinds = {}
    for name in ("gta5", "mapillary", "cityscapes", "synthia", "urbansyn", "bdd100k"):
        dataset = load_set(name)
        split = next(iter(dataset.splits))
        (pair,) = write_official(dataset, tmp_path / name, split, 1, sizes=[(40, 50)])
        kinds[name] = tuple((Image.open(path).format, Image.open(path).mode) for path in (pair.image, pair.label))
    assert kinds == {
        "gta5": (("PNG", "RGB"), ("PNG", "P")),
        "mapillary": (("JPEG", "RGB"), ("PNG", "P")),
        "cityscapes": (("PNG", "RGB"), ("PNG", "L")),
        "synthia": (("PNG", "RGBA"), ("PNG", "RGB")),  # Pillow sees the upper 8 of its 16 bits
        "urbansyn": (("PNG", "RGBA"), ("PNG", "L")),
        "bdd100k": (("JPEG", "RGB"), ("PNG", "L")),
    }


def test_clutter_lies_among_the_files(tmp_path: Path) -> None:
    """References without labels, coloured labels, instances: there to be left alone."""
    write_official(load_set("acdc"), tmp_path, "val", 4, sizes=[(40, 40)])
    assert len(list(tmp_path.glob("rgb_anon/*/val_ref/*/*.png"))) == 4
    assert len(list(tmp_path.glob("gt/*/val/*/*"))) == 20
    write_official(load_set("cityscapes"), tmp_path, "val", 2, sizes=[(40, 40)])
    assert len(list(tmp_path.glob("gtFine/val/*/*_color.png"))) == 2


def test_lists_grow(tmp_path: Path) -> None:
    """Splits that share a file of lists stand side by side in it."""
    dataset = load_set("gta5")
    write_official(dataset, tmp_path, "official_train", 3, sizes=[(40, 40)])
    write_official(dataset, tmp_path, "official_val", 2, first=3, sizes=[(40, 40)])
    write_official(dataset, tmp_path, "all", 6, sizes=[(40, 40)])
    located = locate(dataset, tmp_path)
    found = {split: [pair.id for pair in list_pairs(dataset, located, split)] for split in list(dataset.splits)[:3]}
    assert found == {
        "all": ["00001", "00002", "00003", "00004", "00005", "00006"],
        "official_train": ["00001", "00002", "00003"],
        "official_val": ["00004", "00005"],
    }
