"""Match path templates against a folder: the images and labels of a layout, by the names of files alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from flexseg.data.sets import FIELD, DataSet, Layout

Fields = dict[str, str]


class Tree:
    """A folder whose subfolders are listed once each, when first asked for.

    Hidden files are left out: no data set has any, but macOS writes ``._x.png`` beside each ``x.png`` that it unpacks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.denied: list[Path] = []
        """Folders that were asked for and may not be read; they count as empty."""
        self._seen: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def _list(self, folder: str) -> tuple[frozenset[str], frozenset[str]]:
        if folder not in self._seen:
            folders: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith("."):
                            (folders if entry.is_dir() else files).append(entry.name)
            except PermissionError:
                self._deny(self.root / folder)
            except OSError:  # not there, or not a folder
                pass
            self._seen[folder] = frozenset(folders), frozenset(files)
        return self._seen[folder]

    def _deny(self, place: Path) -> None:
        while place != self.root and not os.access(place.parent, os.X_OK):  # a folder above it is closed
            place = place.parent
        if place not in self.denied:
            self.denied.append(place)

    def folders(self, folder: str) -> frozenset[str]:
        """The names of the folders in ``folder``, a path below the root; none where that does not exist."""
        return self._list(folder)[0]

    def files(self, folder: str) -> frozenset[str]:
        """The names of the files in ``folder``, likewise."""
        return self._list(folder)[1]

    def has(self, path: str) -> bool:
        """Whether the file ``path`` exists."""
        folder, _, name = path.rpartition("/")
        return name in self.files(folder)


@cache
def _pattern(part: str, allowed: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """Turn a component of a template into a regular expression. A field that occurs twice has one value."""
    expressions, text, end = dict(allowed), "", 0
    for found in FIELD.finditer(part):
        name = found[1]
        text += re.escape(part[end : found.start()])
        text += f"(?P={name})" if f"(?P<{name}>" in text else f"(?P<{name}>{expressions.get(name, '[^/]+')})"
        end = found.end()
    return re.compile(text + re.escape(part[end:]))


def _walk(tree: Tree, parts: list[str], allowed: Fields, folder: str = "") -> Iterator[tuple[str, Fields]]:
    """Yield all files that match the components ``parts`` of a template, with their fields."""
    part, rest = parts[0], parts[1:]
    names = tree.folders(folder) if rest else tree.files(folder)
    if not FIELD.search(part):
        matches: Iterable[tuple[str, Fields]] = [(part, {})] if part in names else []
    else:
        pattern = _pattern(
            part, tuple(sorted((name, allowed[name]) for name in FIELD.findall(part) if name in allowed))
        )
        matches = ((name, found.groupdict()) for name in sorted(names) if (found := pattern.fullmatch(name)))
    for name, fields in matches:
        path = f"{folder}/{name}" if folder else name
        if not rest:
            yield path, fields
            continue
        # A field that a folder name has set is fixed below that folder.
        for below, more in _walk(tree, rest, allowed | {key: re.escape(value) for key, value in fields.items()}, path):
            yield below, fields | more


def images_of(tree: Tree, layout: Layout, where: Fields) -> Iterator[tuple[str, Fields]]:
    """The images of ``layout`` whose fields match ``where``, with their fields."""
    return _walk(tree, layout.image.split("/"), layout.fields | where)


def labels_of(tree: Tree, layout: Layout, where: Fields) -> Iterator[str]:
    """The labels of ``layout`` whose fields match ``where``, whether they have an image or not."""
    for template in layout.label:
        for path, _ in _walk(tree, template.split("/"), layout.fields | where):
            yield path


def label_of(tree: Tree, layout: Layout, fields: Fields) -> str | None:
    """The label of the image with these fields, or None."""
    return next((path for path in (text.format(**fields) for text in layout.label) if tree.has(path)), None)


def split_filters(dataset: DataSet, layout: Layout) -> list[Fields]:
    """The regular expressions that select the images of each split of ``layout``."""
    return [where for split in dataset.splits if (where := dataset.where(layout, split)) is not None]


def count_pairs(tree: Tree, dataset: DataSet, layout: Layout) -> int:
    """Count the pairs of all labelled splits below a root in this layout."""
    distinct = {tuple(sorted(where.items())) for where in split_filters(dataset, layout)}
    return sum(
        label_of(tree, layout, fields) is not None
        for where in distinct
        for _, fields in images_of(tree, layout, dict(where))
    )
