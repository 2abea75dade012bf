"""Label maps: which class each id of a data set is, one YAML file per map in ``data/label_maps``.

A file names its source and, for every id, its name and the class that it counts as (or ``void``)::

    classes:
      7: [Bike Lane, road]
      8: [Animal, person, [64, 128, 64]]    # with its colour, where labels are colours

``base`` takes all ids of another map first; ``others: void`` says that ids beyond the table are void, not errors.
The maps of the suite name Cityscapes' classes; another set of classes says what it takes them for
(:class:`flexseg.classes.ClassSet`). A data set of one's own brings its maps in its own file, under ``label_maps``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from flexseg.classes import CITYSCAPES, IGNORE, ClassSet
from flexseg.errors import UserError, did_you_mean
from flexseg.yaml_files import read_yaml

MAPS = Path(__file__).parent / "label_maps"
KEYS = frozenset(("source", "base", "others", "classes"))
"""The keys of a map."""
TODO = "TODO"
"""What `flexseg new-dataset` writes in the place of a class that a person has to name."""


@dataclass(frozen=True)
class LabelMap:
    """From the ids of a data set to trainIds.

    ``table`` (256,) uint8 holds the trainId of each id, 255 for void; ``known`` (256,) bool tells which ids may occur.
    ``names`` and ``colours`` (R, G, B) are by id; not every map has colours. ``source`` says where the map comes from,
    ``classes`` whose trainIds these are. ``where`` a map of one's own stands, for messages; empty for the suite's.
    """

    id: str
    source: str
    table: np.ndarray
    known: np.ndarray
    names: dict[int, str]
    colours: dict[int, tuple[int, int, int]]
    classes: ClassSet = CITYSCAPES
    where: str = ""

    def apply(self, raw: np.ndarray, path: Path | str) -> np.ndarray:
        """(H, W) uint8 ids of the data set → (H, W) uint8 trainIds. ``path`` is named in the message.

        Raises:
            UserError: an id is not in the map.
        """
        known = self.known[raw]
        if not known.all():
            wrong = np.unique(raw[~known])
            if self.where:
                raise UserError(
                    f"{path} holds the id {', '.join(map(str, wrong[:5]))}, of which {self.where} says nothing: "
                    "add it under `classes:` there, with its class, or as void, which 255 usually is"
                )
            named = [name for place, name in sorted(self.names.items()) if place < 256]
            raise UserError(
                f"{path} holds the id {', '.join(map(str, wrong[:5]))}, which is not in the label map {self.id!r} "
                f"({len(named)} ids from {named[0]!r} to {named[-1]!r}): is it a label of another release or data set?"
            )
        return self.table[raw]

    def ids_of(self, train_id: int) -> np.ndarray:
        """All named ids (sorted, uint8) that count as ``train_id``; for 255 those that are void."""
        ids = np.array(sorted(self.names), dtype=np.uint8)
        return ids[self.table[ids] == train_id]

    @cached_property
    def of_colour(self) -> np.ndarray:
        """(2²⁴,) int16: the id of the colour 65536·R + 256·G + B, −1 for unknown colours."""
        lookup = np.full(1 << 24, -1, dtype=np.int16)
        for place, (red, green, blue) in self.colours.items():
            lookup[red << 16 | green << 8 | blue] = place
        return lookup


def map_names() -> list[str]:
    """The ids of all label maps, sorted."""
    return sorted(path.stem for path in MAPS.glob("*.yaml"))


def _read(name: str) -> dict[str, Any]:
    path = MAPS / f"{name}.yaml"
    if not path.is_file():
        names = map_names()
        raise UserError(f"there is no label map {name!r}{did_you_mean(name, names)}: choose one of {', '.join(names)}")
    return _complete(read_yaml(path, numbered=True), path)


def _refuse_todo(content: dict[str, Any], classes: ClassSet, where: Path | str) -> None:
    """Refuse a map whose classes are not all filled in."""
    entries = content["classes"].items() if isinstance(content["classes"], dict) else ()
    open_ids = [number for number, entry in entries if isinstance(entry, list) and TODO in entry[1:2]]
    if not open_ids or TODO in classes.ids:
        return
    first = open_ids[0]
    title = content["classes"][first][0]
    shown = f"{', '.join(map(str, open_ids[:10]))}{', …' if len(open_ids) > 10 else ''}"
    raise UserError(
        f"{where} is not filled in yet: {len(open_ids)} ids still say {TODO} ({shown}). Write there what each "
        f"counts as, a class of {classes.id} ({_list_classes(classes)}) or void, such as "
        f"`{first}: [{title}, {classes.names[0]}]`; docs/own_data.md shows how"
    )


def _list_classes(classes: ClassSet) -> str:
    return f"{', '.join(classes.names[:12])}{', …' if len(classes) > 12 else ''}"


def _complete(content: Any, where: Path | str) -> dict[str, Any]:
    """A map's description with the ids of its ``base``."""
    try:
        if not content["source"]:
            raise ValueError("source is empty")
        if unknown := content.keys() - KEYS:
            raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
        base = _read(content["base"]) if "base" in content else {"classes": {}}
        return base | content | {"classes": base["classes"] | content["classes"]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} does not describe a label map: {error!r}") from error


def load_map(name: str, classes: ClassSet = CITYSCAPES) -> LabelMap:
    """Read the suite's label map of this id, to the trainIds of ``classes``.

    Raises:
        UserError: there is none, its file is wrong, or it names classes of which the set does not say what they are.
    """
    if classes.is_default:
        return _load_default(name)
    return build_map(name, _read(name), classes, f"the label map {name!r}")


@lru_cache
def _load_default(name: str) -> LabelMap:
    return build_map(name, _read(name), CITYSCAPES, MAPS / f"{name}.yaml")


def build_map(name: str, content: Any, classes: ClassSet, where: Path | str) -> LabelMap:
    """The label map that ``content`` describes, the keys of such a file; ``where`` it stands is named in messages.

    Raises:
        UserError: as :func:`load_map`; or classes are still to be filled in.
    """
    content = _complete(content, where)
    _refuse_todo(content, classes, where)
    table, known = np.full(256, IGNORE, dtype=np.uint8), np.zeros(256, dtype=bool)
    names, colours, strange = {}, {}, dict[str, None]()
    try:
        known[:] = {"void": True, None: False}[content.get("others")]
        for number, (title, class_name, *colour) in content["classes"].items():
            if not -1 <= number <= 255:
                raise ValueError(f"the id {number} does not fit into 8 bits")
            place = number % 256  # Cityscapes' licence plate, −1, is 255 in a file of 8 bits
            if class_name not in classes.ids:
                strange[str(class_name)] = None
                continue
            table[place], known[place], names[place] = classes.ids[class_name], True, title
            if colour:
                red, green, blue = colour[0]
                colours[place] = (red, green, blue)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} does not describe a label map: {error!r}") from error
    if strange:
        hint = did_you_mean(next(iter(strange)), classes.ids)
        raise UserError(
            f"{where} does not describe a label map: it names {', '.join(strange)}, of which the classes {classes.id} "
            f"say nothing{hint}. Name a class of that set ({_list_classes(classes)}) or void, or say in the "
            "benchmark what they count as: under `takes:` of a class, or under `void:`"
        )
    table.setflags(write=False)
    known.setflags(write=False)
    return LabelMap(name, content["source"], table, known, names, colours, classes)
