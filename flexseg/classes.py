"""The 19 Cityscapes evaluation classes, in trainId order: names, colours, thing or stuff.

Source: Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016.
Labels everywhere in the suite are 8-bit ``train_id`` maps: 0–18 is a class, 255 is void.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

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


@dataclass(frozen=True)
class ClassSet:
    """A set of classes, coarser for targets whose labels distinguish fewer.

    Each of its classes is a group of the 19 and keeps the ``train_id`` of one of them, so that records keep their form.
    ``groups`` maps the name of each class to the names of the merged ones; the class keeps the id of the first.
    """

    id: str
    groups: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        merged = sorted(name for group in self.groups.values() for name in group)
        if merged != sorted(CLASS_NAMES):
            raise ValueError(f"class set {self.id}: each of the {NUM_CLASSES} classes belongs to exactly one group")

    @cached_property
    def members(self) -> dict[int, tuple[int, ...]]:
        """The ``train_id`` of each class → the ids that it merges, both rising."""
        groups = [[TRAIN_ID[name] for name in group] for group in self.groups.values()]
        return {ids[0]: tuple(sorted(ids)) for ids in sorted(groups)}

    @cached_property
    def merge(self) -> tuple[int, ...]:
        """(19,): the ``train_id`` into which each of the 19 classes is merged."""
        merged = {train_id: kept for kept, ids in self.members.items() for train_id in ids}
        return tuple(merged[train_id] for train_id in range(NUM_CLASSES))

    @cached_property
    def names(self) -> dict[int, str]:
        """The ``train_id`` of each class → its name."""
        return dict(sorted((TRAIN_ID[group[0]], name) for name, group in self.groups.items()))

    @property
    def coarser(self) -> bool:
        """Whether anything is merged."""
        return len(self.groups) < NUM_CLASSES


CLASS_SETS: dict[str, ClassSet] = {
    each.id: each
    for each in (
        ClassSet("cityscapes19", {name: (name,) for name in CLASS_NAMES}),
        # The 11 classes on which SegNet (Badrinarayanan et al., TPAMI 2017) scores CamVid: walls are buildings there,
        # lights are signs, terrain is vegetation, riders belong to the bicycle, larger vehicles are cars.
        ClassSet(
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
        ),
    )
}
"""The sets of classes that a protocol may name: all 19, or merged ones."""
