"""Finding a data set's files where they lie: its root, its layout, and which image has which label.

Nothing is decoded here: only names of files are read, each folder once.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from flexseg.data.sets import ANY, FIELD, DataSet, Layout, Listing
from flexseg.data.templates import Tree, images_of, label_of, labels_of
from flexseg.errors import UserError

VARIABLE = "FLEXSEG_DATA"
"""The environment's variable that names the data root where a benchmark names none."""


class Pair(NamedTuple):
    """An image with its label."""

    id: str
    image: Path
    label: Path
    condition: str


@dataclass(frozen=True)
class Located:
    """Where a data set lies, and how."""

    root: Path
    layout: Layout


@dataclass(frozen=True)
class Inventory:
    """What a split holds: pairs sorted by id, images without a label, names in its list without an image."""

    pairs: list[Pair]
    unlabelled: list[Path]
    absent: list[str]


class Missing(UserError):
    """A data set cannot be used as it lies: nothing was found, half of it, or labels that do not serve."""

    def __init__(self, message: str, state: Literal["missing", "incomplete", "refused"]) -> None:
        super().__init__(message)
        self.state = state


def data_root(setting: str = "") -> Path | None:
    """The folder below which data sets lie: ``setting``, else the environment's ``FLEXSEG_DATA``, else none."""
    chosen = setting or os.environ.get(VARIABLE, "")
    return Path(chosen).expanduser().absolute() if chosen else None


def roots(dataset: DataSet, root: Path | str | None, override: str = "") -> list[Path]:
    """The folders where a set may lie, in the order in which they are tried.

    Raises:
        Missing: there is no data root to look in.
    """
    place = Path(override).expanduser()
    if override and place.is_absolute():
        return [place]
    if not root:
        raise Missing(
            f"{dataset.title} cannot be looked for: no data root is known. Set the environment's {VARIABLE} or the "
            "benchmark's data_root to the folder that holds your data sets",
            "missing",
        )
    below = Path(root).expanduser().absolute()
    if not below.is_dir():
        raise Missing(f"{dataset.title} cannot be looked for: the data root {below} is no folder", "missing")
    return [below / place] if override else [below / folder for folder in dataset.folders]


def locate(dataset: DataSet, root: Path | str | None, override: str = "") -> Located:
    """Find where ``dataset`` lies, and in which of its layouts: the one with the most pairs, the first one of equals.

    Args:
        root: the data root. override: the set's own folder, absolute or below the data root.

    Raises:
        Missing: nothing usable is there; the message says what was found instead, which path would be right, and
            which archive is missing.
    """
    places = roots(dataset, root, override)
    trees = [Tree(place) for place in places if place.is_dir()]
    for tree in trees:
        counts = {layout.name: _count(tree, dataset, layout) for layout in dataset.layouts if not layout.refused}
        if any(counts.values()):
            return Located(tree.root, dataset.layout(max(counts, key=counts.__getitem__)))
    for tree in trees:
        if problem := _half(tree, dataset):
            raise problem
    if elsewhere := _elsewhere(places, dataset):
        raise Missing(
            f"{dataset.title} does not lie in {_or(places)} but in {elsewhere}: "
            f"give its domain `root: {elsewhere}`, or move that folder",
            "missing",
        )
    looked = ", ".join(map(str, places))
    raise Missing(
        f"{dataset.title} was not found: no file such as {_stars(dataset.layouts[0].image)} lies in {looked}. "
        f"Get {_archives(dataset, 'images', 'labels')} from {dataset.homepage} ({dataset.licence}) and unpack it into "
        f"{places[0]}",
        "missing",
    )


def _stars(template: str) -> str:
    """A template as people write patterns of files."""
    return FIELD.sub("*", template)


def _or(items: Iterable[object]) -> str:
    return " or ".join(map(str, items))


def _archives(dataset: DataSet, *holding: str) -> str:
    """The archives that hold one of these things, by name."""
    names = [archive.file for archive in dataset.archives if any(what in archive.holds for what in holding)]
    return ", ".join(names) or "the data"


def _wheres(dataset: DataSet, layout: Layout) -> list[dict[str, str]]:
    return [where for split in dataset.splits if (where := dataset.where(layout, split)) is not None]


def _count(tree: Tree, dataset: DataSet, layout: Layout) -> int:
    """How many pairs of any labelled split lie below a root in this layout."""
    wheres = {tuple(sorted(where.items())) for where in _wheres(dataset, layout)}
    return sum(
        label_of(tree, layout, fields) is not None
        for where in wheres
        for _, fields in images_of(tree, layout, dict(where))
    )


class _Found(NamedTuple):
    """What lies there of the layouts that share an image's template: an image, a label of any, the labels it needs."""

    layouts: list[Layout]
    image: str | None
    label: str | None
    wanted: str


def _found(tree: Tree, dataset: DataSet, layouts: list[Layout]) -> _Found:
    wheres = {layout.name: _wheres(dataset, layout) for layout in layouts}
    first = layouts[0]
    image = next((found for where in wheres[first.name] for found in images_of(tree, first, where)), None)
    labels = (path for layout in layouts for where in wheres[layout.name] for path in labels_of(tree, layout, where))
    texts = [text for layout in layouts for text in layout.label]
    wanted = _or([text.format(**image[1]) for text in texts] if image else map(_stars, texts))
    return _Found(layouts, image[0] if image else None, next(labels, None), wanted)


def _half(tree: Tree, dataset: DataSet) -> Missing | None:
    """Why a folder in which there is no pair cannot be used although some of the set's files lie there."""
    refused = [layout for layout in dataset.layouts if layout.refused]
    usable = [layout for layout in dataset.layouts if not layout.refused]
    for layout in refused:
        if _count(tree, dataset, layout):
            return Missing(f"{tree.root} cannot be used as {dataset.title}: {layout.refused}", "refused")
    images = dict.fromkeys(layout.image for layout in usable)
    found = [_found(tree, dataset, [layout for layout in usable if layout.image == image]) for image in images]
    with_image, with_label = [f for f in found if f.image], [f for f in found if f.label]
    both = [f for f in with_image if f.label]
    if both:
        text = f"no image has its label: {both[0].image} goes with {both[0].wanted}, but the labels there are others "
        text += f"({both[0].label}). Unpack all of {_archives(dataset, 'images', 'labels')} there"
    elif with_image and with_label:
        text = f"images of one release ({with_image[0].image}) and labels of another ({with_label[0].label}): "
        text += f"their labels would be {with_image[0].wanted}, from {_archives(dataset, 'labels')}"
    elif with_image:
        text = f"images ({with_image[0].image}) but no label such as {with_image[0].wanted}: "
        text += _mislaid(tree, dataset, with_image[0], "labels")
    elif with_label:
        text = f"labels ({with_label[0].label}) but no image such as {_stars(with_label[0].layouts[0].image)}: "
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
    return f"unpack {_archives(dataset, half)} ({dataset.homepage}) there"


def _below(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders one and two levels below."""
    for folder in folders:
        children = [folder / name for name in sorted(Tree(folder).folders(""))]
        yield from children
        yield from (child / name for child in children for name in sorted(Tree(child).folders("")))


def _elsewhere(places: list[Path], dataset: DataSet) -> Path | None:
    """A folder up to two levels below or three above the places that were tried, in which the set lies."""
    existing = [place for place in places if place.is_dir()]
    above = [parent for place in existing for parent in list(place.parents)[:3]]
    for folder in dict.fromkeys([*_below(existing), *above]):
        if any(_count(Tree(folder), dataset, layout) for layout in dataset.layouts if not layout.refused):
            return folder
    return None


def take_inventory(dataset: DataSet, located: Located, split: str, conditions: Iterable[str] = ()) -> Inventory:
    """What a split holds, complete or not.

    Args:
        conditions: only images of these; none: all.

    Raises:
        UserError: an unknown split or condition, an unreadable list, or two images of one id.
    """
    layout, tree, wanted = located.layout, Tree(located.root), set(conditions)
    where = dataset.where(layout, split)
    if where is None:
        raise UserError(
            f"{dataset.title} in {located.root} has no split {split!r}: in this layout ({layout.name}) there is "
            f"{_or(layout.splits)}"
        )
    listing = dataset.listing(layout, split)
    listed = _listed(dataset, tree, split, listing) if listing else None
    name_pattern = layout.image.rpartition("/")[2]
    pairs, unlabelled, seen, named = [], [], set(), set()
    for image, fields in images_of(tree, layout, where):
        name = layout.id.format(**fields)
        if listed is not None:
            forms = {name, name_pattern.format(**fields), Path(image).stem}
            if not forms & listed:
                continue
            named |= forms
        condition = condition_of(dataset, fields)
        seen.add(condition)
        if wanted and condition not in wanted:
            continue
        label = label_of(tree, layout, fields)
        if label is None:
            unlabelled.append(located.root / image)
        else:
            pairs.append(Pair(name, located.root / image, located.root / label, condition))
    if unknown := wanted - seen - set(dataset.split(split).conditions):
        raise UserError(
            f"{dataset.title} has no images of the condition {', '.join(sorted(unknown))} in its split {split!r}: "
            f"it has {', '.join(sorted(seen)) or 'no images there'}"
        )
    pairs.sort()
    for one, other in pairwise(pairs):
        if one.id == other.id:
            raise UserError(f"{one.image} and {other.image} are the same image by name ({one.id}): remove one of them")
    return Inventory(pairs, unlabelled, sorted((listed or set()) - named))


def list_pairs(dataset: DataSet, located: Located, split: str, conditions: Iterable[str] = ()) -> list[Pair]:
    """The pairs of a split, sorted by id; as :func:`take_inventory`, but nothing may be missing.

    Raises:
        UserError: as there; images without labels; names in the split's list without an image.
    """
    found = take_inventory(dataset, located, split, conditions)
    if found.unlabelled:
        raise UserError(
            f"{len(found.unlabelled)} of {len(found.pairs) + len(found.unlabelled)} images of {dataset.title}, split "
            f"{split!r}, have no label, first {found.unlabelled[0]}: "
            f"unpack {_archives(dataset, 'labels')} completely into {located.root}"
        )
    if found.absent:
        raise UserError(
            f"{len(found.absent)} images of {dataset.title}, split {split!r}, are named in its list but not there, "
            f"first {found.absent[0]}: unpack {_archives(dataset, 'images')} completely into {located.root}"
        )
    return found.pairs


def condition_of(dataset: DataSet, fields: dict[str, str]) -> str:
    if "condition" in fields:
        return fields["condition"]
    for condition, where in dataset.conditions.items():
        if all(re.fullmatch(expression, fields.get(name, "")) for name, expression in where.items()):
            return condition
    return ANY


def _listed(dataset: DataSet, tree: Tree, split: str, listing: Listing) -> set[str]:
    """The names in the list of a split, without folders."""
    path = next((tree.root / file for file in listing.file if tree.has(file)), None)
    if path is None:
        raise Missing(
            f"the split {split!r} of {dataset.title} is given by a list, and {_or(listing.file)} does not lie in "
            f"{tree.root}: unpack {_archives(dataset, 'lists')} ({dataset.homepage}) there",
            "incomplete",
        )
    try:
        names = _read_list(path, listing)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list of images ({error}): unpack it again") from error
    if not names:
        raise UserError(f"{path} names no image: unpack it again")
    return names


def _read_list(path: Path, listing: Listing) -> set[str]:
    if not listing.key:
        return {Path(line.strip()).name for line in path.read_text().splitlines() if line.strip()}
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, variable_names=[listing.key])
    except (MatReadError, NotImplementedError, TypeError, zlib.error) as error:
        raise ValueError(error) from error
    if listing.key not in content:
        raise ValueError(f"it has no variable {listing.key}")
    return {listing.number.format(int(number)) for number in content[listing.key].ravel()}
