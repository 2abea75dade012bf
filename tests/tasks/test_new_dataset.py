"""Folders of one's own: how images and labels are found, what is said of them, and which ones are refused."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from flexseg.classes import CLASSES, IGNORE
from flexseg.console import terminal
from flexseg.data.layouts import locate, take_inventory
from flexseg.data.sets import DataSet, load_set, set_names
from flexseg.errors import UserError
from flexseg.tasks.folder_labels import voc_colour
from flexseg.tasks.new_dataset import Found, describe_folder, print_found
from flexseg.world.official import write_official

SIZE = (12, 16)
RNG = np.random.default_rng(0)
Label = Callable[[Path, int], None]


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)


def save_label(path: Path, ids: tuple[int, ...] = (0, 3, 7), size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.repeat(np.array(ids, np.uint8), 8), size)).save(path)


def save_colours(path: Path, colours: list[tuple[int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.repeat(np.array(colours, np.uint8), 8, axis=0), (*SIZE, 3))).save(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A top folder without data sets; ``data`` beside it is the folder that is described."""
    monkeypatch.delenv("FLEXSEG_DATA", raising=False)
    (tmp_path / "home" / "benchmarks").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    return tmp_path / "home"


@pytest.fixture
def data(home: Path) -> Path:
    return home.parent / "data"


def describe(home: Path, name: str = "mine", images: int = 0) -> tuple[DataSet, Found]:
    """Describe the folder, and read what was written."""
    folder = home.parent / "data"
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    found = describe_folder(folder, name, images, home / "datasets")
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before, "the folder is only read"
    return load_set(name, home / "datasets"), found


def pairs_of(dataset: DataSet) -> dict[str, list[tuple[str, str, str]]]:
    """By split: the id of each pair, and its files below the root; no image may lack its label."""
    located = locate(dataset, None)
    found = {}
    for split in dataset.splits:
        inventory = take_inventory(dataset, located, split)
        assert not inventory.unlabelled
        assert not inventory.strays
        root = located.root
        found[split] = [
            (each.id, each.image.relative_to(root).as_posix(), each.label.relative_to(root).as_posix())
            for each in inventory.pairs
        ]
    return found


@pytest.mark.parametrize(
    ("image", "label", "splits", "identity"),
    [
        ("images/{}.jpg", "labels/{}.png", None, "{}"),
        ("images/{}.png", "masks/{}.png", None, "{}"),
        ("img/train/{}.jpg", "ann/train/{}.png", {"train"}, "{}"),
        ("train/images/{}.jpg", "train/gt/{}.png", {"train"}, "{}"),
        ("{split}/images/{}.png", "{split}/annotations/{}.png", {"train", "val"}, "{}"),
        ("images/{split}/{}.jpg", "labels/{split}/{}_mask.png", {"train", "val"}, "{}"),
        ("{split}/{}.png", "{split}annot/{}.png", {"train", "val"}, "{}"),
        ("{split}_images/{}.png", "{split}_labels/{}.png", {"training", "validation"}, "{}"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", None, "{}"),
        ("{}.jpg", "{}.png", None, "{}"),
        ("{}.png", "{}_L.png", None, "{}"),
        ("{}.png", "{}_gt.png", None, "{}"),
        ("deep/{}_rgb.png", "deep/{}_labelIds.png", None, "{}"),
        ("a/image_{}.png", "a/mask_{}.png", None, "{}"),
        ("pictures/{}.webp", "whatever/{}.png", None, "{}"),
        ("data/x/{}.png", "data/masks/semantic/{}.png", None, "{}"),
        ("images/fog/{}.png", "labels/fog/{}.png", None, "{}"),
        ("im/{split}/ulm/{}_leftImg8bit.png", "gt/{split}/ulm/{}_gtFine_labelIds.png", {"train", "val"}, "{}"),
    ],
)
def test_common_layouts(home: Path, data: Path, image: str, label: str, splits: set[str] | None, identity: str) -> None:
    wanted: dict[str, list[tuple[str, str, str]]] = {}
    for split in sorted(splits or {"all"}):
        for number in range(4):
            name = f"0016E5_{number}{len(wanted)}0"
            one, other = (text.replace("{split}", split).replace("{}", name) for text in (image, label))
            save_image(data / one)
            save_label(data / other)
            wanted.setdefault(split, []).append((identity.replace("{}", name), one, other))
    dataset, found = describe(home)
    assert pairs_of(dataset) == wanted
    assert {split: each.images for split, each in dataset.splits.items()} == dict.fromkeys(wanted, 4)
    assert found.content.ids == [0, 3, 7]
    assert dataset.encoding == "index"


OFFICIAL = [(name, layout.name) for name in set_names() for layout in load_set(name).layouts if not layout.refused]


@pytest.mark.parametrize(("name", "layout"), [each for each in OFFICIAL if each[0] != "foggy_driving"])
def test_the_layouts_of_known_data_sets(home: Path, data: Path, name: str, layout: str) -> None:
    """As if nobody knew them, with the files that lie beside their labels. (Foggy Driving has labels of two kinds.)"""
    dataset = load_set(name)
    wanted = set()
    for split in dataset.splits:
        if dataset.where(dataset.layout(layout), split) is not None:
            wanted.update(write_official(dataset, data, split, 3, layout=layout, sizes=((32, 64),)))
    found = describe_folder(data, "mine", 0, home / "datasets")
    pairs = [pair for each in found.inventories.values() for pair in each.pairs]
    assert {(pair.image, pair.label) for pair in pairs} == {(pair.image, pair.label) for pair in wanted}
    assert not any(each.strays for each in found.inventories.values())
    assert found.content.encoding == dataset.encoding_of(dataset.layout(layout))


def test_files_that_are_no_labels_are_left_alone(home: Path, data: Path) -> None:
    """Pictures of the labels, instances and depths beside the labels; folders of one split with the same names."""
    for city in ("ulm", "bonn"):
        for number in range(3):
            save_image(data / f"leftImg8bit/train/{city}/{number}_leftImg8bit.png")
            stem = data / f"gtFine/train/{city}/{number}_gtFine"
            save_label(Path(f"{stem}_labelIds.png"), (7, 11, 26))
            save_label(Path(f"{stem}_instanceIds.png"), (7, 11, 26))
            save_colours(Path(f"{stem}_color.png"), [(1, 2, 3), (4, 5, 6)])
            save_label(data / f"depth/train/{city}/{number}_depth.png")
    dataset, found = describe(home)
    assert dataset.layouts[0].label == ["gtFine/train/{condition}/{id}_gtFine_labelIds.png".replace("train", "{split}")]
    assert [name for name, *_ in pairs_of(dataset)["train"]] == [
        f"{city}-{i}" for city in ("bonn", "ulm") for i in range(3)
    ]
    assert (found.convention.label_map, found.open) == ("cityscapes_label_ids", 0)
    assert dataset.load_map(dataset.label_map) is not None


def test_many_files_of_the_same_name(home: Path, data: Path) -> None:
    """Frames are numbered from 0 on in each of many sequences; depths come before labels by name."""
    for sequence in range(60):
        save_image(data / f"rgb/train/{sequence:03d}/0.jpg")
        save_label(data / f"depth/train/{sequence:03d}/0.png")
        save_label(data / f"semantic/train/{sequence:03d}/0.png")
    dataset, found = describe(home)
    assert dataset.layouts[0].label == ["semantic/{split}/{folder}/{id}.png"]
    assert found.pairs == 60
    assert pairs_of(dataset)["train"][7][0] == "007-0"


def test_lists_divide_a_set_that_has_no_folders_for_splits(home: Path, data: Path) -> None:
    for number in range(6):
        save_image(data / f"JPEGImages/{number}.jpg")
        save_label(data / f"SegmentationClass/{number}.png")
    save_image(data / "JPEGImages/unlabelled.jpg")
    (data / "ImageSets/Main").mkdir(parents=True)
    (data / "ImageSets/Main/train.txt").write_text("unlabelled\n0\n")
    (data / "ImageSets/Segmentation").mkdir()
    (data / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n3\n")
    (data / "ImageSets/Segmentation/val.txt").write_text("4\n5\n")
    dataset, found = describe(home)
    assert {split: [name for name, *_ in pairs] for split, pairs in pairs_of(dataset).items()} == {
        "train": ["0", "1", "2", "3"],
        "val": ["4", "5"],
    }
    assert found.pairs == 6


def test_what_is_not_paired_is_said(home: Path, data: Path) -> None:
    for number in range(4):
        save_image(data / f"images/{number}.jpg")
        save_label(data / f"labels/{number + 1}.png")
    _, found = describe(home)
    shown = io.StringIO()
    print_found(found, terminal(file=shown, width=110))
    text = " ".join(shown.getvalue().split())
    assert "1 image has no label and is not used: 0" in text
    assert "1 label has no image and is not used: 4.png" in text
    assert "test: {split: all, unlabelled: 1}" in text
    assert "fill in its 3 TODOs" in text


def test_shares_are_those_of_the_pixels(home: Path, data: Path) -> None:
    for number, ids in enumerate([(1,), (1, 1, 1, 9), (9,)]):
        save_image(data / f"images/{number}.png")
        save_label(data / f"labels/{number}.png", ids)
    dataset, found = describe(home)
    assert found.content.share(1) == pytest.approx((1 + 0.75) / 3)
    assert found.content.images == {1: 2, 9: 2}
    text = (home / "datasets/mine.yaml").read_text()
    assert "1: [id 1, TODO]" in text
    assert "# 58.33%, in 2 of 3" in text
    assert list(dataset.label_maps["mine"]["classes"].values()) == [["id 1", "TODO"], ["id 9", "TODO"]]
    sampled = describe(home, "sampled", images=2)[1]
    assert sampled.examined == sampled.content.labels == 2


def test_colours_get_ids_and_keep_their_colour(home: Path, data: Path) -> None:
    colours = [(10, 20, 30), (10, 20, 31), (0, 0, 0)]
    for number in range(2):
        save_image(data / f"images/{number}.png")
        save_colours(data / f"labels/{number}.png", [*colours, colours[1]])
    dataset, _ = describe(home)
    assert dataset.encoding == "colours"
    assert dataset.label_maps["mine"]["classes"][0] == ["id 0", "TODO", [10, 20, 31]], "the most frequent one first"
    assert len(dataset.label_maps["mine"]["classes"]) == 3


def test_the_red_channel_of_sixteen_bits(home: Path, data: Path) -> None:
    for number in range(2):
        save_image(data / f"RGB/{number}.png")
        pixels = np.zeros((*SIZE, 3), np.uint16)
        pixels[..., 2] = np.resize([4, 9], SIZE)
        pixels[..., 1] = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) * 300
        (data / "GT/LABELS").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(data / f"GT/LABELS/{number}.png"), pixels)
        save_colours(data / f"GT/COLOR/{number}.png", [(1, 2, 3)])
    dataset, found = describe(home)
    assert (dataset.encoding, found.content.ids) == ("red16", [4, 9])
    assert dataset.layouts[0].label == ["GT/LABELS/{id}.png"]


def save_palette(path: Path, ids: tuple[int, ...], colours: dict[int, tuple[int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.resize(np.repeat(np.array(ids, np.uint8), 8), SIZE)).convert("P")
    picture = Image.frombytes("P", SIZE[::-1], np.resize(np.repeat(np.array(ids, np.uint8), 8), SIZE).tobytes())
    picture.putpalette([part for place in range(256) for part in colours.get(place, (0, 0, 0))])
    picture.save(path)


def test_a_palette_is_shown_and_that_of_voc_recognised(home: Path, data: Path) -> None:
    for number in range(2):
        save_image(data / f"images/{number}.jpg")
        save_palette(data / f"labels/{number}.png", (0, 15, 255), {each: voc_colour(each) for each in range(256)})
    dataset, found = describe(home)
    assert found.content.palette == {0: (0, 0, 0), 15: (192, 128, 128), 255: (224, 224, 192)}
    assert "palette of PASCAL VOC" in found.convention.text
    text = (home / "datasets/mine.yaml").read_text()
    assert "palette (192, 128, 128)" in text
    assert dataset.label_maps["mine"]["classes"][255] == ["void", "void"]


def test_palettes_that_differ_are_read_as_colours(home: Path, data: Path) -> None:
    """As of tools that give every file the palette of its own colours: the index says nothing there."""
    for number, ids in enumerate([(0, 1), (1, 0)]):
        save_image(data / f"images/{number}.jpg")
        save_palette(data / f"labels/{number}.png", (0, 0, 0, 1), {ids[0]: (9, 9, 9), ids[1]: (200, 0, 0)})
    dataset, found = describe(home)
    assert dataset.encoding == "colours"
    assert set(found.content.ids) == {9 << 16 | 9 << 8 | 9, 200 << 16}
    assert "palettes differ" in found.content.notes[0]


@pytest.mark.parametrize(
    ("ids", "folder", "label_map", "said"),
    [
        ((*range(19), 255), "labels", "train_ids", "trainIds"),
        ((0, 3, 18, 255), "labelTrainIds", "train_ids", "trainIds"),
        ((0, 3, 18, 255), "labels", "", "255 is taken for void"),
        ((0, 7, 11, 33), "labelIds", "cityscapes_label_ids", "labelIds"),
        ((7, 8, 11, 21, 23, 26), "labels", "", "perhaps Cityscapes' labelIds"),
        ((0, 255), "labels", "", "255 is probably the foreground"),
        ((0, 1), "labels", "", "binary, 0 and 1"),
        ((0, 1, 255), "labels", "", "255 is taken for void"),
        ((0, 1, 2), "labels", "", ""),
    ],
)
def test_known_conventions(
    home: Path, data: Path, ids: tuple[int, ...], folder: str, label_map: str, said: str
) -> None:
    save_image(data / "images/1.png")
    save_label(data / f"{folder}/1.png", ids, SIZE)
    dataset, found = describe(home)
    assert found.convention.label_map == label_map
    assert said in found.convention.text
    assert bool(said) == bool(found.convention.text)
    assert dataset.label_map == (label_map or "mine")
    assert (found.open == 0) == bool(label_map)


def test_colours_of_cityscapes_are_filled_in(home: Path, data: Path) -> None:
    save_image(data / "images/1.png")
    save_colours(data / "labels/1.png", [*(each.colour for each in CLASSES[:12]), (0, 0, 0)])
    dataset, found = describe(home)
    mapped = dataset.load_map("mine")
    assert mapped is not None
    assert found.open == 0
    assert {mapped.table[place] for place in mapped.names} == {*range(12), IGNORE}


def images(data: Path, names: list[str]) -> None:
    for name in names:
        save_image(data / name)


def test_a_name_that_is_taken_or_none(home: Path, data: Path) -> None:
    images(data, ["images/1.png"])
    save_label(data / "labels/1.png")
    for name, message in (
        ("cityscapes", "is a data set that the suite knows"),
        ("1 a", "cannot be a name.*give|cannot be a name.*choose"),
        ("a/b", "cannot be a name"),
    ):
        with pytest.raises(UserError, match=message):
            describe_folder(data, name, 0, home / "datasets")
    assert not (home / "datasets").exists()
    describe(home)
    written = (home / "datasets/mine.yaml").read_bytes()
    save_label(data / "labels/1.png", (1, 2))
    with pytest.raises(UserError, match="exists and is not overwritten"):
        describe_folder(data, "mine", 0, home / "datasets")
    assert (home / "datasets/mine.yaml").read_bytes() == written
    with pytest.raises(UserError, match="in which nothing is written"):
        describe_folder(home.parent, "other", 0, home / "datasets")


def test_a_name_that_is_no_text(home: Path) -> None:
    folder = Path(os.fsdecode(bytes(home.parent) + b"/\xff"))
    images(folder, ["images/1.png"])
    save_label(folder / "labels/1.png")
    with pytest.raises(UserError, match=r"\\xff has a name that is not UTF-8"):
        describe_folder(folder, "mine", 0, home / "datasets")
    assert not (home / "datasets").exists()


def missing(data: Path) -> None:
    data.rmdir()


def nothing(data: Path) -> None:
    (data / "labels.zip").write_bytes(b"PK")


def no_label(data: Path) -> None:
    images(data, ["a/1.png", "a/2.png", "b/3.png"])


def mixed(data: Path) -> None:
    images(data, [f"images/{number}.jpg" for number in range(6)])
    for number in range(2):
        save_label(data / f"labels/{number}.png")
        save_colours(data / f"labels/{number + 2}.png", [(1, 2, 3), (4, 5, 6)])
        Image.fromarray(np.full(SIZE, 300, np.uint16)).save(data / f"labels/{number + 4}.png")


def other_size(data: Path) -> None:
    images(data, ["images/1.png", "images/2.png"])
    save_label(data / "labels/1.png")
    save_label(data / "labels/2.png", size=(16, 12))


def twice(data: Path) -> None:
    images(data, ["images/1.png", "images/1.jpg", "images/2.jpg"])
    for number in (1, 2):
        save_label(data / f"labels/{number}.png")


def damaged(data: Path) -> None:
    images(data, [f"images/{number}.png" for number in range(4)])
    for number in range(4):
        save_label(data / f"labels/{number}.png")
    for path in (data / "images/1.png", data / "labels/2.png"):
        path.write_bytes(path.read_bytes()[:60])


def many_colours(data: Path) -> None:
    for folder in ("images", "masks"):
        (data / folder).mkdir()
        Image.fromarray(RNG.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(data / folder / "1.png")


def blurred(data: Path) -> None:
    images(data, ["images/1.jpg"])
    save_label(data / "masks/1.jpg")


def grey16(data: Path) -> None:
    images(data, ["images/1.png"])
    (data / "labels").mkdir()
    Image.fromarray(np.full(SIZE, 26001, np.uint16)).save(data / "labels/1.png")


def one_bit(data: Path) -> None:
    images(data, ["images/1.png"])
    (data / "labels").mkdir()
    Image.fromarray(np.resize([True, False], SIZE)).save(data / "labels/1.png")


def tiff(data: Path) -> None:
    images(data, ["images/1.tif"])
    save_label(data / "labels/1.png")


def braces(data: Path) -> None:
    images(data, ["images/{x}/1.png"])
    save_label(data / "labels/{x}/1.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "does not exist: give the folder"),
        (nothing, r"holds no picture .* Unpack labels.zip first"),
        (no_label, r"holds 3 pictures, but none can be paired with a label. They lie in a \(2\), b \(1\)"),
        (
            mixed,
            r"3 different ways.*8-bit ids: 2 \(0.png, 1.png\); colours: 2 \(2.png, 3.png\); 16-bit grey: 2 \(4.png",
        ),
        (
            other_size,
            r"1 of 2 pairs cannot be used; nothing was written:\n.*2.png is 16×12 pixels, its image 2.png is 12×16",
        ),
        (twice, r"1.jpg and .*1.png are the same image by name \(1\): remove one"),
        (
            damaged,
            r"2 of 4 pairs cannot be used(.|\n)*images/1.png cannot be decoded(.|\n)*labels/2.png cannot be decoded",
        ),
        (many_colours, r"more than 255 different colours \(.*masks/1.png alone has (399|400)\).*saved as JPEG"),
        (blurred, r"masks/1.jpg is no PNG: other formats blur ids"),
        (grey16, r"16-bit grey \(1.png, up to 26001\).*class · 1000 \+ instance(.|\n)*8-bit PNG"),
        (one_bit, r"1-bit black and white \(1.png\)"),
        (tiff, r"its images are .tif files, which are not read"),
        (braces, "holds a brace"),
    ],
)
def test_folders_that_cannot_be_described(home: Path, data: Path, make: Callable[[Path], None], message: str) -> None:
    make(data)
    with pytest.raises(UserError, match=message):
        describe_folder(data, "mine", 0, home / "datasets")
    assert not (home / "datasets").exists(), "nothing is written"
