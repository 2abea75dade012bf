"""The journey of docs/own_data.md, on a folder that nobody knows: from its files to a table, and all that is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import BaseModel

from flexseg.benchmark import load_benchmark
from flexseg.benchmark.class_block import Classes
from flexseg.classes import CITYSCAPES, IGNORE, TRAIN_ID
from flexseg.cli import main
from flexseg.data.label_maps import KEYS
from flexseg.data.sets import DataSet, load_set
from flexseg.tasks.check import find_tests_in_training
from flexseg.world.frame import render

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
FOREIGN = {
    2: ("road",),
    5: ("sidewalk",),
    9: ("building",),
    14: ("wall", "fence"),
    21: ("pole",),
    27: ("traffic light", "traffic sign"),
    31: ("vegetation",),
    36: ("terrain",),
    40: ("sky",),
    44: ("person",),
    52: ("rider", "bicycle", "motorcycle"),
    60: ("car", "truck", "bus", "train"),
}
"""The ids of the foreign data set, with the street world's classes that they cover; 255 is void."""


def write_photos(folder: Path, counts: dict[str, int]) -> None:
    """Street-world frames as JPEG files, with masks of twelve ids and a palette of odd colours."""
    table = np.full(256, IGNORE, np.uint8)
    for number, names in FOREIGN.items():
        table[[TRAIN_ID[name] for name in names]] = number
    palette = [part for place in range(256) for part in (place * 7 % 256, 255 - place, place * 3 % 256)]
    for split, count in counts.items():
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            frame = render("places", "train" if split == "train" else "test", number, height=64, width=96)
            Image.fromarray(frame.image).save(folder / "images" / split / f"{number:04d}.jpg", quality=92)
            ids = table[frame.label]
            mask = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
            mask.putpalette(palette)
            mask.save(folder / "masks" / split / f"{number:04d}.png")


def block(after: str, kind: str = "yaml") -> str:
    """The first code block behind this text of the page."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE[PAGE.index(after) :], re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A top folder with the methods and the page's benchmark, beside ``photos``."""
    home = tmp_path / "home"
    (home / "benchmarks").mkdir(parents=True)
    shutil.copytree(ROOT / "methods", home / "methods", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "benchmarks" / "my_photos.yaml").write_text(block("benchmarks/my_photos.yaml`"))
    write_photos(tmp_path / "photos", {"train": 8, "val": 4})
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("FLEXSEG_DATA", raising=False)
    return home


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def fill_in(home: Path) -> Path:
    """Fill in the classes as the page shows it."""
    path = home / "datasets" / "photos.yaml"
    filled = yaml.safe_load(block("Filled in"))
    text = path.read_text()
    for number, (title, class_name) in filled.items():
        text = re.sub(rf"\b{number}: \[.*?\]", f"{number}: [{title}, {class_name}]", text)
    path.write_text(text)
    return path


def shorten(home: Path) -> None:
    """The page's benchmark with fewer images and steps."""
    path = home / "benchmarks" / "my_photos.yaml"
    content = yaml.safe_load(path.read_text())
    content["domains"]["source"] |= {"train": 6, "val": 2}
    content["training"] |= {"iterations": 4, "batch_size": 2, "warmup": 1}
    content["model"]["backbone"]["base_channels"], content["model"]["decode_head"]["in_channels"] = 4, 4
    content["seeds"] = [0]
    path.write_text(yaml.safe_dump(content))


def test_the_journey(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the page tells it; the workflow's rules are called one by one, with fewer steps."""
    assert call("new-dataset", "../photos") == 0
    shown = capsys.readouterr().out
    for line in block("It prints", "text").splitlines():
        if "photos" not in line and re.search(r"^[│ ]+(images|labels|encoding|known as|not used)", line):
            assert line.strip("│ ").split() == next(
                found.strip("│ ").split() for found in shown.splitlines() if found.startswith(line[:12])
            )
    assert call("check", "my_photos") == 2
    assert "12 ids still say TODO (2, 5, 9, 14, " in capsys.readouterr().err
    assert call("doctor", "my_photos") == 1
    assert "datasets/photos.yaml: label_maps.photos is not filled in yet" in capsys.readouterr().out
    assert call("dataset", "my_photos", "photos") == 2
    assert "such as `2: [id 2, road]`; docs/own_data.md" in capsys.readouterr().err

    fill_in(here)
    shorten(here)
    assert call("doctor", "my_photos", "--full", "--workers", "1") == 0
    assert "all decoded and checked" in capsys.readouterr().out
    assert call("check", "my_photos") == 0
    for domain in ("source", "photos"):
        assert call("dataset", "my_photos", domain) == 0
    for row in ("source_only", "with_photos"):
        assert call("train", "my_photos", row, "0") == 0
        assert call("evaluate", "my_photos", row) == 0
    assert call("tables", "my_photos") == 0
    table = Path("results/my_photos/tables/per_class.csv").read_text()
    assert "two-wheeler" in table
    assert "motorcycle" not in table
    caption = Path("results/my_photos/tables/comparison.md").read_text()
    assert "training never saw a target, except in “With photographs of the same set”" in caption
    assert call("report", "my_photos", "comparison", "my.pdf") == 0
    assert Path("my.pdf").read_bytes()[:4] == b"%PDF"


def test_the_classes_of_both_sides_are_the_same(here: Path) -> None:
    """What the page takes the street world's classes for is what its map takes the photographs' ids for."""
    call("new-dataset", "../photos")
    fill_in(here)
    benchmark = load_benchmark("my_photos", here / "benchmarks")
    classes = benchmark.class_set
    mapped = load_set("photos", here / "datasets").load_map("photos", classes)
    assert mapped is not None
    assert len(classes) == 12
    for number, names in FOREIGN.items():
        assert {classes.ids[name] for name in names} == {mapped.table[number]}
    assert mapped.table[255] == IGNORE
    assert set(CITYSCAPES.names) <= classes.ids.keys()


def test_an_id_that_the_map_does_not_know_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("new-dataset", "../photos")
    path = fill_in(here)
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if not re.match(r" +(255|40): ", line)) + "\n")
    capsys.readouterr()
    assert call("doctor", "my_photos", "--full", "--workers", "1") == 1
    shown = capsys.readouterr().out
    assert re.search(
        r"0000.png holds the id 40(, 255)?, of which datasets/photos.yaml: label_maps.photos says nothing", shown
    )
    assert "or as void, which 255 usually is" in shown
    assert "mend them, or what datasets/photos.yaml says of them" in shown


def test_a_row_that_trains_on_its_test_images_is_named(here: Path) -> None:
    path = here / "benchmarks" / "my_photos.yaml"
    assert find_tests_in_training(load_benchmark("my_photos", here / "benchmarks")) == []
    path.write_text(path.read_text().replace("train: train, test: val", "train: val, test: val"))
    (line,) = find_tests_in_training(load_benchmark("my_photos", here / "benchmarks"))
    assert "row with_photos may be trained on the very images that it is tested on" in line


def test_the_palette_of_ones_own_labels_says_nothing(here: Path) -> None:
    """Where the benchmark shows one class in a colour that the palette has for another id."""
    path = here / "benchmarks" / "my_photos.yaml"
    path.write_text(path.read_text().replace("[244, 35, 232]", "[14, 253, 6]"))  # sidewalk as the palette shows road
    call("new-dataset", "../photos")
    fill_in(here)
    assert call("doctor", "my_photos", "--full", "--workers", "1") == 0


def test_a_folder_that_has_moved(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("new-dataset", "../photos")
    fill_in(here)
    (here.parent / "photos").rename(here.parent / "elsewhere")
    assert call("doctor", "my_photos") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "If the folder has moved, correct `folders:` in datasets/photos.yaml, or give its domain a `root:`" in shown


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys that a file of this model may have, those inside of lists and mappings included."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _models_in(field.annotation):
            yield from keys_of(inner, f"{prefix}{name}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)


@pytest.mark.parametrize(
    ("heading", "wanted"),
    [
        (
            "## Every key of a data set's file",
            lambda: {*keys_of(DataSet)} - {"name", "file", "rendered"} | {f"label_maps.{key}" for key in KEYS},
        ),
        ("## Every key of `classes:`", lambda: set(keys_of(Classes))),
    ],
)
def test_the_page_lists_every_key(heading: str, wanted: Callable[[], set[str]]) -> None:
    text = PAGE[PAGE.index(f"\n{heading}\n") :].split("\n## ")[1]
    assert set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)) == wanted()
