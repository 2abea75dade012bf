"""Why a data set cannot be used where it was looked for, in words: what lies there instead, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from flexseg.data.places import VARIABLE, Missing, candidates
from flexseg.data.sets import FIELD, DataSet, Layout
from flexseg.data.templates import Tree, count_pairs, images_of, labels_of, wheres

PACKED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz")


def diagnose(dataset: DataSet, places: list[Path], root: Path | None, override: str = "") -> Missing:
    """Why no pair of ``dataset`` was found.

    Args:
        places: the folders that were tried. root: the data root, if they lie below it. override: as in ``locate``.
    """
    trees = [Tree(place) for place in places if os.path.isdir(place)]
    for tree in trees:
        if problem := _half(tree, dataset):
            if tree.denied:
                break
            return problem
    if denied := [folder for tree in trees for folder in tree.denied]:
        return Missing(
            f"{dataset.title} cannot be seen: {denied[0]} may not be read (permission denied). Change that, perhaps "
            f"with `chmod -R u+rX {denied[0]}`, or ask its owner",
            "missing",
        )
    if (elsewhere := _other_root(dataset, places, root, override)) or (elsewhere := _elsewhere(dataset, places)):
        place, other = elsewhere
        text = f"give its domain `root: {place}`, or move that folder"
        if other:
            text += f"; or, if all your data sets lie there, set {VARIABLE} (or data_root) to {other}"
        return Missing(f"{dataset.title} does not lie in {either(places)} but in {place}: {text}", "missing")
    looked = ", ".join(map(str, places))
    text = f"{dataset.title} was not found: no file such as {stars(dataset.layouts[0].image)} lies in {looked}. "
    links = [place for place in places if os.path.islink(place) and not os.path.exists(place)]
    if links:
        text += f"{links[0]} is a link to {os.readlink(links[0])}, which is not there. "
    packed = [tree.root / name for tree in trees for name in sorted(tree.files("")) if _is_archive(dataset, name)]
    text += f"{packed[0]} is not unpacked yet. " if packed else ""
    archives = archives_of(dataset, "images", "labels")
    text += f"Get {archives} from {dataset.homepage} ({dataset.licence}) and unpack it into {places[0]}"
    return Missing(text, "missing")


def _is_archive(dataset: DataSet, name: str) -> bool:
    return name.endswith(PACKED) and any(name in archive.file.split() for archive in dataset.archives)


def stars(template: str) -> str:
    """A template as people write patterns of files."""
    return FIELD.sub("*", template)


def either(items: Iterable[object]) -> str:
    return " or ".join(map(str, items))


def archives_of(dataset: DataSet, *holding: str) -> str:
    """The archives that hold one of these things, by name."""
    names = [archive.file for archive in dataset.archives if any(what in archive.holds for what in holding)]
    return ", ".join(names) or "the data"


class _Found(NamedTuple):
    """What lies there of the layouts that share an image's template: an image, a label of any, the labels it needs."""

    layouts: list[Layout]
    image: str | None
    label: str | None
    wanted: str


def _found(tree: Tree, dataset: DataSet, layouts: list[Layout]) -> _Found:
    parts = {layout.name: wheres(dataset, layout) for layout in layouts}
    first = layouts[0]
    image = next((found for where in parts[first.name] for found in images_of(tree, first, where)), None)
    labels = (path for layout in layouts for where in parts[layout.name] for path in labels_of(tree, layout, where))
    texts = [text for layout in layouts for text in layout.label]
    wanted = either([text.format(**image[1]) for text in texts] if image else map(stars, texts))
    return _Found(layouts, image[0] if image else None, next(labels, None), wanted)


def _half(tree: Tree, dataset: DataSet) -> Missing | None:
    """Why a folder in which there is no pair cannot be used although some of the set's files lie there."""
    refused = [layout for layout in dataset.layouts if layout.refused]
    usable = [layout for layout in dataset.layouts if not layout.refused]
    for layout in refused:
        if count_pairs(tree, dataset, layout):
            return Missing(f"{tree.root} cannot be used as {dataset.title}: {layout.refused}", "refused")
    images = dict.fromkeys(layout.image for layout in usable)
    found = [_found(tree, dataset, [layout for layout in usable if layout.image == image]) for image in images]
    with_image, with_label = [f for f in found if f.image], [f for f in found if f.label]
    both = [f for f in with_image if f.label]
    if both:
        text = f"no image has its label: {both[0].image} goes with {both[0].wanted}, but the labels there are others "
        text += f"({both[0].label}). Unpack all of {archives_of(dataset, 'images', 'labels')} there"
    elif with_image and with_label:
        text = f"images of one release ({with_image[0].image}) and labels of another ({with_label[0].label}): "
        text += f"their labels would be {with_image[0].wanted}, from {archives_of(dataset, 'labels')}"
    elif with_image:
        text = f"images ({with_image[0].image}) but no label such as {with_image[0].wanted}: "
        text += _mislaid(tree, dataset, with_image[0], "labels")
    elif with_label:
        text = f"labels ({with_label[0].label}) but no image such as {stars(with_label[0].layouts[0].image)}: "
        text += _mislaid(tree, dataset, with_label[0], "images")
    else:
        return None
    return Missing(f"{dataset.title} is incomplete: {tree.root} holds {text}", "incomplete")


def _mislaid(tree: Tree, dataset: DataSet, found: _Found, half: Literal["images", "labels"]) -> str:
    """What to do about a missing half: move it from a folder below where it lies, or unpack its archive."""
    for folder in _below([tree.root]):
        there = _found(Tree(folder), dataset, found.layouts)
        if path := there.label if half == "labels" else there.image:
            top = path.split("/")[0]
            return f"its {half} lie one level too deep, in {folder}: move {folder / top} to {tree.root / top}"
    return f"unpack {archives_of(dataset, half)} ({dataset.homepage}) there"


def _below(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders one and two levels below."""
    for folder in folders:
        children = [folder / name for name in sorted(Tree(folder).folders(""))]
        yield from children
        yield from (child / name for child in children for name in sorted(Tree(child).folders("")))


def _has_pairs(dataset: DataSet, place: Path) -> bool:
    tree = Tree(place)
    return any(count_pairs(tree, dataset, layout) for layout in dataset.layouts if not layout.refused)


def _other_root(
    dataset: DataSet, places: list[Path], root: Path | None, override: str
) -> tuple[Path, Path | None] | None:
    """A folder in which the set lies as it should below another data root, one level below or two above; and that."""
    if root is None:
        return None
    below = [root / name for name in sorted(Tree(root).folders("")) if root / name not in places]
    for other in (*below, *list(root.parents)[:2]):
        for place in candidates(dataset, other, override):
            if place != other and os.path.isdir(place) and _has_pairs(dataset, place):
                return place, other
    return None


def _elsewhere(dataset: DataSet, places: list[Path]) -> tuple[Path, Path | None] | None:
    """A folder up to two levels below or three above the places that were tried, in which the set lies."""
    existing = [place for place in places if os.path.isdir(place)]
    above = [parent for place in existing for parent in list(place.parents)[:3]]
    for folder in dict.fromkeys([*_below(existing), *above]):
        if _has_pairs(dataset, folder):
            return folder, None
    return None
