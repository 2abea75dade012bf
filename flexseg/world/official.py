"""Street-world frames in the official form of a data set: its layout, label encoding, ids, lists and stray files.

They try out what reads the real data sets, on data that anyone may have. The images are the street world's and say
nothing about the data set whose form they take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from flexseg.classes import CLASSES, IGNORE
from flexseg.data.label_maps import LabelMap, load_map
from flexseg.data.layouts import Pair, condition_of
from flexseg.data.sets import DataSet, Encoding, Layout, Listing
from flexseg.world.frame import render
from flexseg.world.write import write_png

CELL = 8
"""Side in pixels of the patches of one class that share an id of the data set."""
JPEG_QUALITY = 95
SPECIAL = re.compile(r"[][\\^$.|?*+(){}]")
"""The special characters of regular expressions."""


def write_official(
    dataset: DataSet,
    root: Path,
    split: str,
    count: int,
    *,
    layout: str = "",
    label_map: str = "",
    sizes: Sequence[tuple[int, int]] = ((96, 192),),
    domain: str = "source",
    first: int = 0,
) -> list[Pair]:
    """Render ``count`` frames and write them below ``root`` as images and labels of ``dataset``.

    Args:
        root: the data set's own folder.
        layout: of the set; else the first one that has the split. label_map: of the ids; else the set's.
        sizes: (height, width) in pixels, taken in turn.
        domain, first: the street-world frames, of the domain's training images from number ``first`` on.

    Returns:
        The pairs, in the order of the frames. A second run writes the same images and labels. A class that the data set
        cannot express is written as void.

    Raises:
        UserError: the set has no such split, layout or label map.
    """
    having = (form for form in dataset.layouts if dataset.where(form, split) is not None)
    form = dataset.layout(layout) if layout else next(having)
    mapping, encoding = load_map(dataset.map_of(form, label_map)), dataset.encoding_of(form)
    pairs = []
    for place in range(count):
        height, width = sizes[place % len(sizes)]
        frame = render(domain, "train", first + place, height=height, width=width)
        fields = _fields(dataset, form, split, place, first + place + 1)
        image, label = root / form.image.format(**fields), root / form.label[0].format(**fields)
        ids = encode_ids(frame.label, mapping, np.random.default_rng([0, first + place]))
        _write_image(image, frame.image, dataset.alpha)
        _write_label(label, ids, mapping, encoding, dataset.palette)
        for template in form.besides:
            _write_clutter(root / template.format(**fields))
        pairs.append(Pair(form.id.format(**fields), image, label, condition_of(dataset, fields)))
    if listing := dataset.listing(form, split):
        _write_list(root, listing, pairs)
    return pairs


def encode_ids(label: np.ndarray, mapping: LabelMap, rng: np.random.Generator) -> np.ndarray:
    """(H, W) trainIds → (H, W) uint8 ids of a data set, drawn patch by patch among all that mean the class.

    Void is drawn among all void ids; so is a class that the map does not have.
    """
    height, width = label.shape
    draws = rng.random((-(-height // CELL), -(-width // CELL))).repeat(CELL, 0).repeat(CELL, 1)[:height, :width]
    void = mapping.ids_of(IGNORE)
    ids = np.empty_like(label)
    for train_id in np.unique(label):
        choices = mapping.ids_of(int(train_id))
        choices = choices if choices.size else void
        here = label == train_id
        ids[here] = choices[(draws[here] * choices.size).astype(np.int64)]
    return ids


def _fields(dataset: DataSet, layout: Layout, split: str, place: int, number: int) -> dict[str, str]:
    """The fields of frame ``place``: fixed by the split, or the examples in turn."""
    where = dataset.where(layout, split) or {}
    fixed = {name: [text] for name, text in where.items() if not SPECIAL.search(text)}
    found = dataset.split(split)
    values: Mapping[str, Sequence[str]] = layout.example | fixed | found.example
    if "condition" in layout.image_fields and found.conditions:
        values = {**values, "condition": list(found.conditions)}
    return {name: texts[place % len(texts)].format(n=number) for name, texts in values.items()}


def _write_image(path: Path, pixels: np.ndarray, alpha: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".jpg", ".jpeg"):
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
        return
    opaque = [np.full((*pixels.shape[:2], 1), 255, dtype=np.uint8)] if alpha else []
    write_png(path, np.concatenate([pixels[:, :, ::-1], *opaque], axis=2))


def _write_label(path: Path, ids: np.ndarray, mapping: LabelMap, encoding: Encoding, palette: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if encoding == "red16":  # B, G, R: red is the class, green counts instances
        instances = np.arange(ids.size, dtype=np.uint16).reshape(ids.shape) // CELL
        write_png(path, np.stack([np.zeros_like(instances), instances, ids.astype(np.uint16)], axis=2))
    elif encoding == "colours":
        write_png(path, _colours(mapping)[ids][:, :, ::-1])
    elif palette:
        picture = Image.fromarray(ids)
        picture.putpalette(_colours(mapping).tobytes())
        picture.save(path)
    else:
        write_png(path, ids)


def _colours(mapping: LabelMap) -> np.ndarray:
    """(256, 3) uint8: the colour of every id, its own or its class's."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for train_id, entry in enumerate(CLASSES):
        table[mapping.table == train_id] = entry.colour
    for place, colour in mapping.colours.items():
        table[place] = colour
    return table


def _write_clutter(path: Path) -> None:
    """A small file of the right type that must not be taken for an image or a label: it holds no valid id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".png", ".jpg"):
        cv2.imwrite(str(path), np.full((5, 5), 200, dtype=np.uint8))
    else:
        path.write_text("{}\n")


def _write_list(root: Path, listing: Listing, pairs: Sequence[Pair]) -> None:
    """Add images to the list of their split, beside what it and other splits already name there."""
    path = root / listing.file[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not listing.key:
        known = path.read_text().splitlines() if path.is_file() else []
        names = [pair.image.relative_to(root).as_posix() for pair in pairs]
        path.write_text("\n".join(dict.fromkeys([*known, *names])) + "\n")
        return
    from scipy.io import loadmat, savemat

    content: dict[str, Any] = {}
    if path.is_file():
        content = {key: value.ravel() for key, value in loadmat(path).items() if not key.startswith("__")}
    numbers = {*map(int, content.get(listing.key, [])), *(int(pair.id) for pair in pairs)}
    savemat(path, content | {listing.key: np.array(sorted(numbers))})
