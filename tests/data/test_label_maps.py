"""Label maps: every id of every data set against tables written here, and one clear message for a wrong file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexseg.classes import CLASS_NAMES, CLASSES
from flexseg.data import label_maps
from flexseg.data.label_maps import load_map, map_names
from flexseg.errors import UserError

# trainIds by id, as the data sets' own tools and the papers of the field have them; 255 is void.
CITYSCAPES = [
    255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 255, 255, 16, 17, 18,
]  # fmt: skip
SYNTHIA = [
    255, 10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17, 255, 255, 6, 9, 12, 14, 15, 16, 3, 255,
]  # fmt: skip
MAPILLARY = [
    255, 255, 1, 4, 255, 255, 3, 255, 255, 255, 255, 255, 255, 0, 255, 1, 255, 2, 255, 11, 12, 12, 12, 255, 0, 255,
    255, 10, 255, 9, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 255, 255, 255, 5, 255, 5, 6, 255, 7, 255,
    18, 255, 15, 13, 255, 17, 16, 255, 255, 14, 255, 255, 255, 255,
]  # fmt: skip
IDD = [
    0, 255, 255, 1, 255, 9, 11, 255, 12, 17, 18, 255, 13, 14, 15, 255, 255, 16, 255, 255, 3, 4, 255, 255, 7, 6, 5,
    255, 255, 2, 255, 255, 8, 10, 255, 255, 255, 255, 255, 255,
]  # fmt: skip
OPENSEG = {7: 0, 8: 0, 9: 1, 10: 0, 11: 1, 14: 0, 23: 0, 41: 255, 44: 5, 46: 7, 49: 7}
WILDDASH2 = [14, 13, 255, 255, 0]  # beyond Cityscapes
CAMVID11 = [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18, 255]
CAMVID32 = {  # by colour
    (64, 128, 64): 11, (192, 0, 128): 2, (0, 128, 192): 18, (0, 128, 64): 2, (128, 0, 0): 2, (64, 0, 128): 13,
    (64, 0, 192): 11, (192, 128, 64): 11, (192, 192, 128): 5, (64, 64, 128): 4, (128, 0, 192): 0, (192, 0, 64): 0,
    (128, 128, 64): 7, (192, 0, 192): 18, (128, 64, 64): 13, (64, 192, 128): 1, (64, 64, 0): 11, (128, 64, 128): 0,
    (128, 128, 192): 1, (0, 0, 192): 1, (192, 128, 128): 7, (128, 128, 128): 10, (64, 128, 192): 13, (0, 0, 64): 5,
    (0, 64, 64): 7, (192, 64, 128): 13, (128, 128, 0): 8, (192, 128, 192): 13, (64, 0, 64): 2, (192, 192, 0): 8,
    (0, 0, 0): 255, (64, 192, 0): 2,
}  # fmt: skip

TABLES = {
    "train_ids": dict(enumerate(range(19))) | {255: 255},
    "train_ids_void19": dict(enumerate(range(19))) | {19: 255, 255: 255},
    "cityscapes_label_ids": dict(enumerate(CITYSCAPES)) | {255: 255},
    "gta5": dict(enumerate(CITYSCAPES)) | dict.fromkeys(range(34, 256), 255),
    "synthia": dict(enumerate(SYNTHIA)),
    "mapillary_daformer": dict(enumerate(MAPILLARY)),
    "mapillary_openseg": dict(enumerate(MAPILLARY)) | OPENSEG,
    "wilddash2": dict(enumerate(CITYSCAPES + WILDDASH2)) | {255: 255},
    "idd": dict(enumerate(IDD)),
    "camvid11": dict(enumerate(CAMVID11)),
    "camvid32": dict(enumerate(CAMVID32.values())),
}


@pytest.mark.parametrize("name", map_names())
def test_every_id_of_every_map(name: str) -> None:
    """Which ids are known, and what each is, over all 256; a map without a table here fails."""
    mapping, expected = load_map(name), TABLES[name]
    assert np.flatnonzero(mapping.known).tolist() == sorted(expected)
    assert {place: int(mapping.table[place]) for place in expected} == expected
    assert (mapping.table[~mapping.known] == 255).all(), "an unknown id must never become a class"
    assert mapping.source


def test_the_two_maps_of_mapillary_differ_in_eleven_ids() -> None:
    one, other = load_map("mapillary_daformer"), load_map("mapillary_openseg")
    places = np.flatnonzero(one.table != other.table)
    assert [(one.names[i], int(one.table[i]), int(other.table[i])) for i in places.tolist()] == [
        ("Bike Lane", 255, 0),
        ("Crosswalk - Plain", 255, 0),
        ("Curb Cut", 255, 1),
        ("Parking", 255, 0),
        ("Pedestrian Area", 255, 1),
        ("Service Lane", 255, 0),
        ("Lane Marking - Crosswalk", 255, 0),
        ("Manhole", 0, 255),
        ("Street Light", 255, 5),
        ("Traffic Sign Frame", 255, 7),
        ("Traffic Sign (Back)", 255, 7),
    ]
    assert one.names == other.names
    assert one.colours == other.colours


def test_names_stand_at_their_ids() -> None:
    """A slip by one in a table would move the names as well: ids that several sets share tell."""
    for name in ("cityscapes_label_ids", "gta5", "wilddash2"):
        mapping = load_map(name)
        named = {mapping.names[i]: int(mapping.table[i]) for i in mapping.names}
        assert {title: named[title] for title in CLASS_NAMES} == {title: i for i, title in enumerate(CLASS_NAMES)}
    mapillary = load_map("mapillary_daformer")
    assert (mapillary.names[13], mapillary.names[27], mapillary.names[65]) == ("Road", "Sky", "Unlabeled")
    # Where Mapillary's colour is Cityscapes', so is the class (Motorcycle and Bicycle, Fence and Wall, …).
    colours = {entry.colour: i for i, entry in enumerate(CLASSES)}
    same = {i: colours[colour] for i, colour in mapillary.colours.items() if colour in colours}
    assert len(same) == 19
    assert {i: int(mapillary.table[i]) for i in same} == same
    assert load_map("idd").names[32] == "vegetation"


def test_camvids_colours() -> None:
    mapping = load_map("camvid32")
    assert {colour: int(mapping.table[i]) for i, colour in mapping.colours.items()} == CAMVID32


def test_ids_of_a_class_are_all_of_them() -> None:
    assert load_map("mapillary_daformer").ids_of(0).tolist() == [13, 24, 41]
    assert load_map("synthia").ids_of(255).tolist() == [0, 13, 14, 22]
    assert load_map("cityscapes_label_ids").ids_of(255).tolist()[-1] == 255, "the licence plate, −1"
    assert load_map("camvid11").ids_of(3).size == 0


def test_an_id_that_is_not_in_the_map_is_named() -> None:
    raw = np.array([[7, 66], [123, 65]], dtype=np.uint8)
    with pytest.raises(UserError, match=r"x\.png holds the id 66, 123, .* 'mapillary_daformer' \(66 ids .*release"):
        load_map("mapillary_daformer").apply(raw, Path("x.png"))


def test_an_unknown_map() -> None:
    with pytest.raises(UserError, match=r"no label map 'mapilary_daformer' .*did you mean 'mapillary_daformer'"):
        load_map("mapilary_daformer")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("source: x\nclasses: {1: [a, street]}", "street"),
        ("source: x\nclasses: {256: [a, road]}", "256 does not fit"),
        ("source: x\nclasses: {1: road}", "does not describe a label map"),
        ("source: x\nclass: {}", "unknown key class"),
        ("classes: {1: [a, road]}", "source"),
        ("[", "is not valid YAML"),
    ],
)
def test_a_wrong_file(text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(label_maps, "MAPS", tmp_path)
    with pytest.raises(UserError, match=problem):
        label_maps._load_default.__wrapped__("mine")
