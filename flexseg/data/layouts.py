"""Find a data set's files on disk: its root, its layout, and which image has which label.

Nothing is decoded here: only the names of files are read, each folder once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from flexseg.benchmark.blocks import Part
from flexseg.console import printable
from flexseg.data.diagnosis import describe_unread, diagnose, name_archives
from flexseg.data.places import Missing, roots
from flexseg.data.sets import ANY, DataSet, Layout, Listing
from flexseg.data.templates import LASTING, Tree, count_pairs, images_of, label_of, labels_of, strays_of
from flexseg.errors import UserError

WORDS = ("true", "false", "yes", "no", "on", "off", "null")
"""What YAML does not read as text."""
ADVISED = 50
"""How many ids a piece of advice writes out."""


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
        pairs: sorted by id. unlabelled: images without a label, by id. absent: names in the split's list without an
            image.
        orphans: labels without an image. They tell which images of an incomplete set are missing.
        strays: pictures among the images or labels that the layout does not expect.
        unnamed: files whose names are not UTF-8. unread: places that cannot be read, with the reason.
    """

    pairs: list[Pair]
    unlabelled: dict[str, Path]
    absent: list[str]
    orphans: list[Path]
    strays: list[Path]
    unnamed: list[Path]
    unread: dict[Path, str]

    def without(self, skip: Collection[str], part: Part) -> list[str]:
        """The ids of the images that may lack their label: those that are skipped, and those that ``part`` allows.

        They are allowed by its number of ``unlabelled`` images, or of the pairs that are ``expected``.
        """
        others = [name for name in self.unlabelled if name not in skip]
        wanted = part.unlabelled is None and part.expected == len(self.pairs)
        allowed = wanted or len(others) <= (part.unlabelled or 0)
        return sorted(name for name in self.unlabelled if name in skip or allowed)

    def numbers(self, without: Collection[str], skip: Collection[str]) -> set[int]:
        """The numbers of images that ``expected:`` may name: those with a label, all that are whole, and the used."""
        return {len(self.pairs), len(self.pairs) + len(without), len(self.pairs) - len(self._skipped(skip))}

    def _skipped(self, skip: Collection[str]) -> list[str]:
        return [pair.id for pair in self.pairs if pair.id in skip]

    def notes(self, without: Collection[str], skip: Collection[str] = ()) -> list[str]:
        """What is there and not used, in words, a line each: images by their ids, other files by name.

        Args:
            without: the images that may lack their label. skip: those that the benchmark leaves out.
        """
        skipped = set(skip)
        kinds = {
            "image(s) has no label and is": list(without),
            "label(s) has no image and is": _names(self.orphans),
            "picture(s) has a name of another form and is": [
                f"{path.parent.name}/{path.name}" for path in sorted(self.strays)
            ],
            "file(s) has a name in another encoding than UTF-8 and is": _names(self.unnamed),
        }
        notes = [f"{_count(found, what)} not used: {name_some(found)}" for what, found in kinds.items() if found]
        if left := self._skipped(skipped):
            notes.insert(0, f"{len(left)} of {len(self.pairs)} pairs are left out by `skip:`: {name_some(left)}")
        return notes


def _count(found: Collection[str], what: str) -> str:
    """``3 images have`` or ``1 image has``, of ``image(s) has``."""
    if len(found) == 1:
        return f"1 {what.replace('(s)', '')}"
    return f"{len(found)} {what.replace('(s)', 's').replace(' has ', ' have ').replace(' is', ' are')}"


def _names(paths: Iterable[Path], folder: bool = False) -> list[str]:
    return [f"{path.parent.name}/{path.name}" if folder else path.name for path in sorted(paths)]


def name_some(names: Sequence[str]) -> str:
    """The first three names; bytes that are no text are shown as such."""
    return ", ".join(map(printable, names[:3])) + (", …" if len(names) > 3 else "")


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
        if failed := {path: reason for path, reason in tree.unread.items() if reason not in LASTING}:
            # What was listed is not the whole, and another layout may only seem to have the most pairs.
            raise Missing(f"{dataset.title} cannot be seen: {describe_unread(failed)}", "incomplete")
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
    pairs, unlabelled, seen, named = [], {}, set(), set()
    own, everywhere = set(), []
    for image, fields in images_of(tree, layout, where):
        name = layout.id.format(**fields)
        label = label_of(tree, layout, fields)
        own.add(label)
        everywhere.append(fields)
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
            unlabelled[name] = located.root / image
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
    orphans = [located.root / label for label in labels_of(tree, layout, where) if label not in own and not listing]
    strays = [located.root / path for path in strays_of(tree, layout, everywhere)]
    absent = sorted((listed or set()) - named)
    return Inventory(pairs, unlabelled, absent, orphans, strays, sorted(tree.unnamed), tree.unread)


def list_pairs(
    dataset: DataSet, located: Located, split: str, conditions: Iterable[str] = (), skip: Collection[str] = ()
) -> list[Pair]:
    """List the pairs of a split, sorted by id; like :func:`take_inventory`, but nothing may be missing.

    Args:
        skip: ids of images that may lack their label.

    Raises:
        UserError: as there; images without labels; names in the split's list without an image; places that cannot be
            read.
    """
    found = take_inventory(dataset, located, split, conditions)
    require_whole(dataset, located, split, found, skip)
    return found.pairs


def require_whole(dataset: DataSet, located: Located, split: str, found: Inventory, skip: Collection[str] = ()) -> None:
    """Refuse an inventory in which something is missing.

    Args:
        skip: ids of images that may lack their label.

    Raises:
        UserError: as :func:`list_pairs`.
    """
    if found.unread:
        raise UserError(f"{dataset.title}, split {split!r}: {describe_unread(found.unread)}")
    lacking = {name: path for name, path in found.unlabelled.items() if name not in skip}
    if lacking:
        remedy = dataset.remedy(
            f"unpack {name_archives(dataset, 'labels')} completely into {located.root}, or {allow_unlabelled(lacking)}"
        )
        raise UserError(
            f"{len(lacking)} of {len(found.pairs) + len(found.unlabelled)} images of {dataset.title}, split "
            f"{split!r}, have no label, first {next(iter(lacking.values()))}"
            + "".join(f"; {note}" for note in found.notes((), ()))
            + f": {remedy}"
        )
    if found.absent:
        raise UserError(
            f"{len(found.absent)} images of {dataset.title}, split {split!r}, are named in its list but not there, "
            f"first {found.absent[0]}: unpack {name_archives(dataset, 'images')} completely into {located.root}"
        )


def allow_unlabelled(lacking: Collection[str]) -> str:
    """How to go on without the labels of these images, in words."""
    return f"{advise_skip(lacking)}, or say `unlabelled: {len(lacking)}` beside the split"


def advise_skip(names: Collection[str], these: str = "") -> str:
    """How to leave out the images of these ids, in words; as it is written in the benchmark file, if they are few."""
    shown = f" (skip: [{', '.join(map(quote_id, names))}])" if len(names) <= ADVISED else ""
    return f"name {these or ('its id' if len(names) == 1 else 'their ids')} under the domain's `skip:`{shown}"


def quote_id(name: str) -> str:
    """An id as it is written in a YAML file: in quotes where it could be read as something else."""
    if re.fullmatch(r"[A-Za-z][\w.-]*", name) and name.lower() not in WORDS:
        return name
    return f'"{"".join(map(_escape, name))}"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


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
        if not path.is_file():  # reading a pipe would wait for ever
            raise ValueError("it is no file")
        names = _read_names(path, listing)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list of images ({error}): unpack it again") from error
    if not names:
        raise UserError(f"{path} names no image: unpack it again")
    return names


def _read_names(path: Path, listing: Listing) -> set[str]:
    if not listing.key:
        return {Path(line.strip()).name for line in path.read_text().splitlines() if line.strip()}
    state = path.stat()
    numbers = _read_vector(path, listing.key, state.st_mtime_ns, state.st_size)
    return {listing.number.format(int(number)) for number in numbers}


@lru_cache
def _read_vector(path: Path, key: str, *_: int) -> tuple[float, ...]:
    """Read the numbers of a MATLAB file's variable; the further arguments tell when it was read before.

    Another process does so, as the reader can crash on a damaged file.

    Raises:
        ValueError: the file is damaged or has no such variable.
    """
    command = (
        "import json, sys; from scipy.io import loadmat; path, key = sys.argv[1:];"
        "print(json.dumps(loadmat(path, variable_names=[key])[key].ravel().tolist()))"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", command, path, key], capture_output=True, text=True, errors="replace"
    )
    if found.returncode:
        reason = found.stderr.strip().rpartition("\n")[2]
        if reason == f"KeyError: {key!r}":
            raise ValueError(f"it has no variable {key}")
        raise ValueError(printable(reason) if found.returncode == 1 else "it is damaged")
    numbers = json.loads(found.stdout)
    if not all(isinstance(number, int | float) and float(number).is_integer() for number in numbers):
        raise ValueError(f"its variable {key} holds more than whole numbers")
    return tuple(numbers)
