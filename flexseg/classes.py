"""The classes that networks tell apart: the 19 of Cityscapes, or a set of a benchmark's own.

Labels everywhere in the suite are 8-bit maps of ``train_id``: the place of a class in its set, from 0 on; 255 is void.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

IGNORE = 255
"""The ``train_id`` of void pixels: never a class, never in a loss, never counted."""


class SemanticClass(NamedTuple):
    """One evaluation class: its name, display colour (R, G, B) and whether it is countable (a thing)."""

    name: str
    colour: tuple[int, int, int]
    thing: bool


CLASSES: tuple[SemanticClass, ...] = (
    SemanticClass("road", (128, 64, 128), False),
    SemanticClass("sidewalk", (244, 35, 232), False),
    SemanticClass("building", (70, 70, 70), False),
    SemanticClass("wall", (102, 102, 156), False),
    SemanticClass("fence", (190, 153, 153), False),
    SemanticClass("pole", (153, 153, 153), False),
    SemanticClass("traffic light", (250, 170, 30), False),
    SemanticClass("traffic sign", (220, 220, 0), False),
    SemanticClass("vegetation", (107, 142, 35), False),
    SemanticClass("terrain", (152, 251, 152), False),
    SemanticClass("sky", (70, 130, 180), False),
    SemanticClass("person", (220, 20, 60), True),
    SemanticClass("rider", (255, 0, 0), True),
    SemanticClass("car", (0, 0, 142), True),
    SemanticClass("truck", (0, 0, 70), True),
    SemanticClass("bus", (0, 60, 100), True),
    SemanticClass("train", (0, 80, 100), True),
    SemanticClass("motorcycle", (0, 0, 230), True),
    SemanticClass("bicycle", (119, 11, 32), True),
)

NUM_CLASSES = len(CLASSES)
CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
TRAIN_ID: dict[str, int] = {c.name: i for i, c in enumerate(CLASSES)}
VOID = "void"
"""What label maps call pixels of no class."""
MOST = 254
"""The most classes of a set: a label has 8 bits, and 255 is void."""


@dataclass(frozen=True)
class ClassSet:
    """What a network tells apart.

    Attributes:
        id: its name.
        classes: in the order of their ``train_id``.
        ignore: how files whose ids are those of this set write void; in memory it is always 255.
        takes: what the names of other sets' classes count as here: a class of this set, or ``"void"``. So the label
            maps of data sets, which name Cityscapes' classes, serve any set that says what becomes of those.

    Raises:
        ValueError: no class or too many, a name or an id twice, or a name that counts as what is no class.
    """

    id: str
    classes: tuple[SemanticClass, ...]
    ignore: int = IGNORE
    takes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MOST:
            raise ValueError(f"a class set has 1 to {MOST} classes, not {len(self.classes)}")
        names = [each.name for each in self.classes]
        for name in names:
            if names.count(name) > 1 or name == VOID:
                raise ValueError(f"{'two classes are' if name != VOID else 'a class cannot be'} named {name!r}")
        if self.ignore < len(self.classes) or self.ignore > IGNORE:
            what = "the id of a class" if self.ignore >= 0 else "no id"
            limits = f"{len(self.classes)} to {IGNORE}"
            raise ValueError(f"ignore: {self.ignore} is {what}: void is written as a number from {limits}")
        for other, name in self.takes.items():
            if other in names:
                raise ValueError(f"takes: {other!r} is a class of this set itself")
            if name not in (*names, VOID):
                raise ValueError(f"takes: {other!r} counts as {name!r}, which is no class of this set")

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their ``train_id``."""
        return tuple(each.name for each in self.classes)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The ``train_id`` of every name that can stand for a class or void: its own ones, and those that it takes."""
        own = {name: place for place, name in enumerate(self.names)} | {VOID: IGNORE}
        return own | {other: own[name] for other, name in self.takes.items()}

    @property
    def things(self) -> tuple[str, ...]:
        """The names of the countable classes."""
        return tuple(each.name for each in self.classes if each.thing)

    @property
    def is_default(self) -> bool:
        """Whether these are Cityscapes' 19 classes."""
        return self == CITYSCAPES

    def describe(self) -> dict[str, Any]:
        """All of it as plain values: part of what defines a run."""
        classes = [[each.name, list(each.colour), each.thing] for each in self.classes]
        return {"id": self.id, "classes": classes, "ignore": self.ignore, "takes": dict(self.takes)}


CITYSCAPES = ClassSet("cityscapes19", CLASSES)
"""The 19 evaluation classes of Cordts et al., *The Cityscapes Dataset*, CVPR 2016."""
SYNTHIA = ClassSet(
    "synthia16",
    tuple(each for each in CLASSES if each.name not in ("terrain", "truck", "train")),
    takes=dict.fromkeys(("terrain", "truck", "train"), VOID),
)
"""The 16 classes that SYNTHIA labels, on which the field trains and tests with SYNTHIA as the source."""
CLASS_SETS = {each.id: each for each in (CITYSCAPES, SYNTHIA)}
"""The sets that a benchmark may name instead of listing its classes."""


@dataclass(frozen=True)
class Grouping:
    """A coarser set of classes that a protocol scores, for targets whose labels distinguish fewer.

    Each of its classes is a group of those of a class set and keeps the ``train_id`` of one of them, so that records
    keep their form. ``groups`` maps the name of each class to the names of the merged ones; the class keeps the id of
    the first.
    """

    id: str
    groups: Mapping[str, tuple[str, ...]]
    classes: ClassSet = CITYSCAPES

    def __post_init__(self) -> None:
        merged = sorted(name for group in self.groups.values() for name in group)
        if merged != sorted(self.classes.names):
            raise ValueError(
                f"grouping {self.id}: each of the {len(self.classes)} classes belongs to exactly one group"
            )

    @cached_property
    def members(self) -> dict[int, tuple[int, ...]]:
        """The ``train_id`` of each class → the ids that it merges, both rising."""
        groups = [[self.classes.ids[name] for name in group] for group in self.groups.values()]
        return {ids[0]: tuple(sorted(ids)) for ids in sorted(groups)}

    @cached_property
    def merge(self) -> tuple[int, ...]:
        """(C,): the ``train_id`` into which each class is merged."""
        merged = {train_id: kept for kept, ids in self.members.items() for train_id in ids}
        return tuple(merged[train_id] for train_id in range(len(self.classes)))

    @cached_property
    def names(self) -> dict[int, str]:
        """The ``train_id`` of each class → its name."""
        return dict(sorted((self.classes.ids[group[0]], name) for name, group in self.groups.items()))

    @property
    def coarser(self) -> bool:
        """Whether anything is merged."""
        return len(self.groups) < len(self.classes)

    @property
    def colours(self) -> dict[int, tuple[int, int, int]]:
        """The ``train_id`` of each class → its colour."""
        return {train_id: self.classes.classes[train_id].colour for train_id in self.names}


# The 11 classes on which SegNet (Badrinarayanan et al., TPAMI 2017) scores CamVid: walls are buildings there, lights
# are signs, terrain is vegetation, riders belong to the bicycle, larger vehicles are cars.
CAMVID = Grouping(
    "camvid11",
    {
        "road": ("road",),
        "pavement": ("sidewalk",),
        "building": ("building", "wall"),
        "fence": ("fence",),
        "pole": ("pole",),
        "sign or symbol": ("traffic sign", "traffic light"),
        "tree": ("vegetation", "terrain"),
        "sky": ("sky",),
        "pedestrian": ("person",),
        "car": ("car", "truck", "bus", "train"),
        "bicyclist": ("bicycle", "rider", "motorcycle"),
    },
)
GROUPINGS = {CAMVID.id: CAMVID}
"""The coarser sets that a protocol may name."""


def scored_classes(classes: ClassSet, grouping: str | None = None) -> Grouping:
    """What a protocol scores of a class set: all of its classes, or the groups of the ``grouping`` that it names."""
    if grouping and grouping != classes.id:
        return GROUPINGS[grouping]
    return Grouping(classes.id, {name: (name,) for name in classes.names}, classes)
