"""Match path templates against a folder: the images and labels of a layout, by the names of files alone."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from flexseg.data.sets import FIELD, DataSet, Layout

Fields = dict[str, str]
DENIED, DANGLING = "permission denied", "it is a link to nowhere"
LASTING = frozenset({DENIED, DANGLING, os.strerror(errno.ELOOP)})
"""Reasons why a place cannot be read that are the same at every try; a disk or a network may fail but once."""


class Tree:
    """A folder whose subfolders are listed once each, when first asked for.

    Hidden files are left out: no data set has any, but macOS writes ``._x.png`` beside each ``x.png`` that it unpacks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unread: dict[Path, str] = {}
        """Folders and entries that were asked for and cannot be read, with the reason: what is in them is not known."""
        self.unnamed: set[Path] = set()
        """Files that would match but whose names are not UTF-8: no table can hold them."""
        self._seen: dict[str, _Listing] = {}

    def _list(self, folder: str) -> _Listing:
        if folder not in self._seen:
            self._seen[folder] = self._scan(folder)
        return self._seen[folder]

    def _scan(self, folder: str) -> _Listing:
        folders: list[str] = []
        files: list[str] = []
        unknown: dict[str, str] = {}
        dangling: list[str] = []
        opened = False
        try:
            with os.scandir(self.root / folder) as entries:
                opened = True
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    try:
                        (folders if entry.is_dir() else files).append(entry.name)
                        if entry.is_symlink() and not os.path.exists(entry.path):
                            dangling.append(entry.name)
                    except OSError as error:  # a loop of links, an entry that a network mount does not answer for
                        unknown[entry.name] = error.strerror or str(error)
        except (FileNotFoundError, NotADirectoryError) as error:
            if opened:
                self.unread[self.root / folder] = error.strerror or str(error)
        except PermissionError:
            place = self.root / folder
            while place != self.root and not os.access(place.parent, os.X_OK):  # a folder above it is closed
                place = place.parent
            self.unread[place] = DENIED
        except OSError as error:  # it broke off: what was listed so far is not the whole
            self.unread[self.root / folder] = error.strerror or str(error)
        return _Listing(frozenset(folders), frozenset(files), unknown, frozenset(dangling))

    def folders(self, folder: str) -> frozenset[str]:
        """The names of the folders in ``folder``, a path below the root; none where that does not exist."""
        return self._list(folder).folders

    def files(self, folder: str) -> frozenset[str]:
        """The names of the files in ``folder``, likewise."""
        return self._list(folder).files

    def unknown(self, folder: str, folders: bool) -> dict[str, str]:
        """The names of what cannot be told to be a file or a folder, with the reason.

        Args:
            folders: whether folders are wanted, so that a link to nowhere may hide one.
        """
        found = self._list(folder)
        return found.unknown | (dict.fromkeys(found.dangling, DANGLING) if folders else {})

    def has(self, path: str) -> bool:
        """Whether the file ``path`` exists."""
        folder, _, name = path.rpartition("/")
        return name in self.files(folder)


class _Listing(NamedTuple):
    folders: frozenset[str]
    files: frozenset[str]
    unknown: dict[str, str]
    dangling: frozenset[str]


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
    for name, reason in tree.unknown(folder, bool(rest)).items():
        if pattern.fullmatch(name) if FIELD.search(part) else name == part:
            tree.unread[tree.root / folder / name] = reason
    for name, fields in matches:
        if not _is_text(name):
            tree.unnamed.add(tree.root / folder / name)
            continue
        path = f"{folder}/{name}" if folder else name
        if not rest:
            yield path, fields
            continue
        # A field that a folder name has set is fixed below that folder.
        for below, more in _walk(tree, rest, allowed | {key: re.escape(value) for key, value in fields.items()}, path):
            yield below, fields | more


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8; Python keeps the other bytes of names as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def images_of(tree: Tree, layout: Layout, where: Fields) -> Iterator[tuple[str, Fields]]:
    """The images of ``layout`` whose fields match ``where``, with their fields."""
    return _walk(tree, layout.image.split("/"), layout.fields | where)


def labels_of(tree: Tree, layout: Layout, where: Fields) -> Iterator[str]:
    """The labels of ``layout`` whose fields match ``where``, whether they have an image or not."""
    beside = [_pattern(text, tuple(sorted(layout.fields.items()))) for text in layout.besides]
    for template in layout.label:
        for path, _ in _walk(tree, template.split("/"), layout.fields | where):
            if not _matches(beside, path):  # such as a converted label
                yield path


PICTURES = (
    *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpeg", ".jpg", ".jxl", ".pgm", ".png", ".ppm", ".tga"),
    *(".tif", ".tiff", ".webp"),
)


def strays_of(tree: Tree, layout: Layout, fields: Iterable[Fields]) -> list[str]:
    """The pictures that lie among the images with these ``fields`` or their labels and match no template of ``layout``.

    So an image whose ending the layout does not list is not lost in silence, and neither is one in a folder below, or
    one beside folders that the layout expects (such as prompts or cities) or in another folder there.
    """
    allowed = tuple(sorted(layout.fields.items()))
    paths = [_pattern(text, allowed) for text in (layout.image, *layout.label, *layout.besides)]
    besides = {_pattern(text.rpartition("/")[2], allowed) for text in layout.besides}
    own, near = dict[str, set[re.Pattern[str]]](), set[str]()
    for each in fields:
        for text in (layout.image, *layout.label):
            folder = text.format(**each).rpartition("/")[0]
            own.setdefault(folder, set(besides)).add(_pattern(text.rpartition("/")[2], allowed))
            above, _, last = text.rpartition("/")[0].rpartition("/")
            if above and FIELD.search(last):
                near.add(above.format(**each))
    near.update(f"{above}/{name}" for above in list(near) for name in tree.folders(above))
    for folder in own:
        near.update(_folders_below(tree, folder))
    found = [path for folder in own for path, name in _pictures(tree, folder) if not _matches(own[folder], name)]
    others = near - own.keys()
    found += [path for folder in others for path, _ in _pictures(tree, folder) if not _matches(paths, path)]
    return sorted(found)


def _folders_below(tree: Tree, folder: str, depth: int = 2) -> Iterator[str]:
    """The folders in ``folder``, and those in them; no deeper, as a link may lead back."""
    for name in tree.folders(folder) if depth else ():
        below = f"{folder}/{name}" if folder else name
        yield below
        yield from _folders_below(tree, below, depth - 1)


def _pictures(tree: Tree, folder: str) -> Iterator[tuple[str, str]]:
    """The path and the name of each picture in ``folder``, going by its ending."""
    for name in tree.files(folder):
        if name.lower().endswith(PICTURES):
            yield f"{folder}/{name}" if folder else name, name


def _matches(patterns: Iterable[re.Pattern[str]], text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern in patterns)


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
