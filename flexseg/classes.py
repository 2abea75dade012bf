"""The 19 Cityscapes evaluation classes, in trainId order: names, colours, thing or stuff.

Source: Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016.
Labels everywhere in the suite are 8-bit ``train_id`` maps: 0–18 is a class, 255 is void.
"""

from __future__ import annotations

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
