"""Explain why a data set cannot be used where it was looked for: what is there instead, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from flexseg.data.places import VARIABLE, Missing, candidates
from flexseg.data.sets import FIELD, DataSet, Layout
from flexseg.data.templates import DENIED, Tree, count_pairs, images_of, labels_of, split_filters

PACKED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz")


def diagnose(dataset: DataSet, places: list[Path], root: Path | None, override: str = "") -> Missing:
    """Explain why no pair of ``dataset`` was found.

    Args:
        places: the folders that were tried. root: the data root, if they are below it. override: as in ``locate``.
    """
    trees = [Tree(place) for place in places if os.path.isdir(place)]
    for tree in trees:
        if problem := _diagnose_incomplete(tree, dataset):
            if tree.unread:
                break
            return problem
    if unread := {place: reason for tree in trees for place, reason in tree.unread.items()}:
        return Missing(f"{dataset.title} cannot be seen: {describe_unread(unread)}", "missing")
    place, other = _find_below_other_root(dataset, places, root, override) or (_find_nearby(dataset, places), None)
    if place:
        text = f"give its domain `root: {place}`, or move that folder"
        if other:
            text += f"; or, if all your data sets are there, set {VARIABLE} (or data_root) to {other}"
        tried = " or ".join(map(str, places))
        return Missing(f"{dataset.title} is not in {tried} but in {place}: {text}", "missing")
    looked = ", ".join(map(str, places))
    text = f"{dataset.title} was not found: there is no file such as {to_glob(dataset.layouts[0].image)} in {looked}. "
    links = [place for place in places if os.path.islink(place) and not os.path.exists(place)]
    if links:
        text += f"{links[0]} is a link to {os.readlink(links[0])}, which is not there. "
    archives = {name for archive in dataset.archives for name in archive.file.split() if name.endswith(PACKED)}
    packed = [tree.root / name for tree in trees for name in sorted(tree.files("") & archives)]
    text += f"{packed[0]} is not unpacked yet. " if packed else ""
    if dataset.file:
        text += f"If the folder has moved, correct `folders:` in {dataset.file}, or give its domain a `root:`"
        return Missing(text, "missing")
    text += f"Get {name_archives(dataset, 'images', 'labels')} "
    text += f"from {dataset.homepage} ({dataset.licence}) and unpack it into {places[0]}"
    return Missing(text, "missing")


def describe_unread(unread: Mapping[Path, str]) -> str:
    """What cannot be read, in words, with what to do: the first place of :attr:`flexseg.data.templates.Tree.unread`."""
    place, reason = next(iter(unread.items()))
    if reason == DENIED:
        return (
            f"{place} may not be read (permission denied). Change that, perhaps with `chmod -R u+rX {place}`, or ask "
            "its owner"
        )
    return f"{place} cannot be read ({reason}), so what is in it is not known. See that it is well, or move it away"


def to_glob(template: str) -> str:
    """A template as a glob pattern, to show to people."""
    return FIELD.sub("*", template)


def name_archives(dataset: DataSet, *holding: str) -> str:
    """The names of the archives that hold any of these things."""
    names = [archive.file for archive in dataset.archives if any(what in archive.holds for what in holding)]
    return ", ".join(names) or "the data"


class _Traces(NamedTuple):
    """What was found of layouts with one image template: an image, a label of any, and the label it should have."""

    layouts: list[Layout]
    image: str | None
    label: str | None
    wanted: str


def _find_traces(tree: Tree, dataset: DataSet, layouts: list[Layout]) -> _Traces:
    parts = {layout.name: split_filters(dataset, layout) for layout in layouts}
    first = layouts[0]
    image = next((found for where in parts[first.name] for found in images_of(tree, first, where)), None)
    labels = (path for layout in layouts for where in parts[layout.name] for path in labels_of(tree, layout, where))
    texts = [text for layout in layouts for text in layout.label]
    wanted = " or ".join(text.format(**image[1]) if image else to_glob(text) for text in texts)
    return _Traces(layouts, image[0] if image else None, next(labels, None), wanted)


def _diagnose_incomplete(tree: Tree, dataset: DataSet) -> Missing | None:
    """Explain why a folder without any pair cannot be used, if it has some of the set's files."""
    refused = [layout for layout in dataset.layouts if layout.refused]
    usable = [layout for layout in dataset.layouts if not layout.refused]
    for layout in refused:
        if count_pairs(tree, dataset, layout):
            return Missing(f"{tree.root} cannot be used as {dataset.title}: {layout.refused}", "refused")
    images = dict.fromkeys(layout.image for layout in usable)
    found = [_find_traces(tree, dataset, [layout for layout in usable if layout.image == image]) for image in images]
    with_image, with_label = [f for f in found if f.image], [f for f in found if f.label]
    both = [f for f in with_image if f.label]
    if both:
        text = f"no image has its label: {both[0].image} goes with {both[0].wanted}, but the labels there are others "
        text += f"({both[0].label}). Unpack all of {name_archives(dataset, 'images', 'labels')} there"
    elif with_image and with_label:
        text = f"images of one release ({with_image[0].image}) and labels of another ({with_label[0].label}): "
        text += f"their labels would be {with_image[0].wanted}, from {name_archives(dataset, 'labels')}"
    elif with_image:
        text = f"images ({with_image[0].image}) but no label such as {with_image[0].wanted}: "
        text += _suggest_remedy(tree, dataset, with_image[0], "labels")
    elif with_label:
        text = f"labels ({with_label[0].label}) but no image such as {to_glob(with_label[0].layouts[0].image)}: "
        text += _suggest_remedy(tree, dataset, with_label[0], "images")
    else:
        return None
    return Missing(f"{dataset.title} is incomplete: {tree.root} holds {text}", "incomplete")


def _suggest_remedy(tree: Tree, dataset: DataSet, found: _Traces, half: Literal["images", "labels"]) -> str:
    """Say how to get the missing half: move it up if it is in a folder below, or unpack its archive."""
    for folder in _subfolders([tree.root]):
        there = _find_traces(Tree(folder), dataset, found.layouts)
        if path := there.label if half == "labels" else there.image:
            top = path.split("/")[0]
            return f"its {half} are one level too deep, in {folder}: move {folder / top} to {tree.root / top}"
    return f"unpack {name_archives(dataset, half)} ({dataset.homepage}) there"


def _subfolders(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders one and two levels below."""
    for folder in folders:
        children = [folder / name for name in sorted(Tree(folder).folders(""))]
        yield from children
        yield from (child / name for child in children for name in sorted(Tree(child).folders("")))


def _has_pairs(dataset: DataSet, place: Path) -> bool:
    tree = Tree(place)
    return any(count_pairs(tree, dataset, layout) for layout in dataset.layouts if not layout.refused)


def _find_below_other_root(
    dataset: DataSet, places: list[Path], root: Path | None, override: str
) -> tuple[Path, Path] | None:
    """Look for the set below another root, one level below ``root`` or up to two above: its folder and that root."""
    if root is None:
        return None
    below = [root / name for name in sorted(Tree(root).folders("")) if root / name not in places]
    for other in (*below, *list(root.parents)[:2]):
        for place in candidates(dataset, other, override):
            if place != other and os.path.isdir(place) and _has_pairs(dataset, place):
                return place, other
    return None


def _find_nearby(dataset: DataSet, places: list[Path]) -> Path | None:
    """Look for the set up to two levels below and three above the places that were tried."""
    existing = [place for place in places if os.path.isdir(place)]
    above = [parent for place in existing for parent in list(place.parents)[:3]]
    folders = dict.fromkeys([*_subfolders(existing), *above])
    return next((folder for folder in folders if _has_pairs(dataset, folder)), None)
