"""Find a data set's files on disk: its root, its layout, and which image has which label.

Nothing is decoded here: only the names of files are read, each folder once.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from flexseg.data.diagnosis import diagnose, name_archives
from flexseg.data.places import Missing, roots
from flexseg.data.sets import ANY, DataSet, Layout, Listing
from flexseg.data.templates import Tree, count_pairs, images_of, label_of, labels_of
from flexseg.errors import UserError


class Pair(NamedTuple):
    """An image with its label."""

    id: str
    image: Path
    label: Path
    condition: str


@dataclass(frozen=True)
class Located:
    """Where a data set is, and in which layout."""

    root: Path
    layout: Layout


@dataclass(frozen=True)
class Inventory:
    """What a split holds.

    Attributes:
        pairs: sorted by id. unlabelled: images without a label. absent: names in the split's list without an image.
        orphans: labels without an image; harmless, but they tell which images of an incomplete set are missing.
        denied: folders that may not be read.
    """

    pairs: list[Pair]
    unlabelled: list[Path]
    absent: list[str]
    orphans: list[Path]
    denied: list[Path]


def locate(dataset: DataSet, root: Path | str | None, override: str = "") -> Located:
    """Find where ``dataset`` is, and in which of its layouts: the one with the most pairs, or the first of equals.

    Args:
        root: the data root. override: the set's own folder, absolute or below the data root.

    Raises:
        Missing: nothing usable is there; the message says what was found instead, which path would be right, and
            which archive is missing.
    """
    places = roots(dataset, root, override)
    for place in places:
        tree = Tree(place)
        counts = {layout.name: count_pairs(tree, dataset, layout) for layout in dataset.layouts if not layout.refused}
        if any(counts.values()):
            return Located(tree.root, dataset.layout(max(counts, key=counts.__getitem__)))
    below = None if Path(override).expanduser().is_absolute() or not root else Path(root).expanduser().absolute()
    raise diagnose(dataset, places, below, override)


def take_inventory(dataset: DataSet, located: Located, split: str, conditions: Iterable[str] = ()) -> Inventory:
    """List what a split holds, complete or not.

    Args:
        conditions: take only images of these; of all if none are given.

    Raises:
        UserError: an unknown split or condition, an unreadable list, or two images of one id.
    """
    layout, tree, wanted = located.layout, Tree(located.root), set(conditions)
    where = dataset.where(layout, split)
    if where is None:
        raise UserError(
            f"{dataset.title} in {located.root} has no split {split!r}: in this layout ({layout.name}) there is "
            f"{' or '.join(layout.splits)}"
        )
    listing = dataset.listing(layout, split)
    listed = _read_listing(dataset, tree, split, listing) if listing else None
    name_pattern = layout.image.rpartition("/")[2]
    pairs, unlabelled, seen, named = [], [], set(), set()
    own = set()
    for image, fields in images_of(tree, layout, where):
        name = layout.id.format(**fields)
        label = label_of(tree, layout, fields)
        own.add(label)
        if listed is not None:
            forms = {name, name_pattern.format(**fields), Path(image).stem}
            if not forms & listed:
                continue
            named |= forms
        condition = condition_of(dataset, fields)
        seen.add(condition)
        if wanted and condition not in wanted:
            continue
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
    orphans = [] if listing else [located.root / label for label in labels_of(tree, layout, where) if label not in own]
    return Inventory(pairs, unlabelled, sorted((listed or set()) - named), orphans, tree.denied)


def list_pairs(dataset: DataSet, located: Located, split: str, conditions: Iterable[str] = ()) -> list[Pair]:
    """List the pairs of a split, sorted by id; like :func:`take_inventory`, but nothing may be missing.

    Raises:
        UserError: as there; images without labels; names in the split's list without an image.
    """
    found = take_inventory(dataset, located, split, conditions)
    if found.denied:
        raise UserError(f"{found.denied[0]} of {dataset.title} may not be read: change its permissions")
    if found.unlabelled:
        remedy = dataset.remedy(f"unpack {name_archives(dataset, 'labels')} completely into {located.root}")
        raise UserError(
            f"{len(found.unlabelled)} of {len(found.pairs) + len(found.unlabelled)} images of {dataset.title}, split "
            f"{split!r}, have no label, first {found.unlabelled[0]}: {remedy}"
        )
    if found.absent:
        raise UserError(
            f"{len(found.absent)} images of {dataset.title}, split {split!r}, are named in its list but not there, "
            f"first {found.absent[0]}: unpack {name_archives(dataset, 'images')} completely into {located.root}"
        )
    return found.pairs


def condition_of(dataset: DataSet, fields: dict[str, str]) -> str:
    if "condition" in fields:
        return fields["condition"]
    for condition, where in dataset.conditions.items():
        if all(re.fullmatch(expression, fields.get(name, "")) for name, expression in where.items()):
            return condition
    return ANY


def _read_listing(dataset: DataSet, tree: Tree, split: str, listing: Listing) -> set[str]:
    """Read the names of a split's images from its list, without folders."""
    path = next((tree.root / file for file in listing.file if tree.has(file)), None)
    if path is None:
        raise Missing(
            f"the split {split!r} of {dataset.title} is given by a list, but {' or '.join(listing.file)} is not in "
            f"{tree.root}: unpack {name_archives(dataset, 'lists')} ({dataset.homepage}) there",
            "incomplete",
        )
    try:
        names = _read_names(path, listing)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list of images ({error}): unpack it again") from error
    if not names:
        raise UserError(f"{path} names no image: unpack it again")
    return names


def _read_names(path: Path, listing: Listing) -> set[str]:
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
