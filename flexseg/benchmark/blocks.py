"""Blocks of a benchmark file: the world, the domains, and the protocol of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from flexseg.benchmark.values import Images, Name, Pixels, Rendered, Side, Strict, Text, Width, at_most


class World(Strict):
    """The street world that renders the domains: its version and image size in pixels."""

    version: PositiveInt
    height: Annotated[Side, Field(ge=32)]
    width: Annotated[Side, Field(ge=32)]


class Part(Strict):
    """What a benchmark takes of a data set: one of its splits, or ``images`` of it, drawn by the run's seed.

    ``expected`` is how many pairs there must be, if not as many as its authors released; ``unlabelled`` how many of
    its images may lack a label, and are left out.
    """

    split: Text
    images: Images | None = None
    expected: Images | None = None
    unlabelled: Annotated[int, Field(ge=0), at_most(10**8, "no data set has so many images")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"split": value} if isinstance(value, str) else value


class _Domain(Strict):
    """What all domains have in common."""

    rendered: ClassVar[bool]
    """Whether the suite renders the images itself."""

    title: Text = ""
    analogue_of: Text = ""

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that are taken, by ``train``, ``val`` and ``test``."""
        raise NotImplementedError

    def has(self, split: str) -> bool:
        """Whether there are images for training (``train``), validation (``val``) or evaluation (``test``)."""
        return split in self.parts

    def size(self, split: str) -> int | None:
        """The number of images of a split, if the file gives it."""
        part = self.parts.get(split)
        return 0 if part is None else part.expected if self.rendered else part.images


class WorldDomain(_Domain):
    """A domain of the street world: which one, how strongly misaligned, and how many images of each split."""

    rendered: ClassVar[Literal[True]] = True
    dataset: ClassVar[str] = "streetworld"
    root: ClassVar[str] = ""
    label_map: ClassVar[str] = ""
    skip: ClassVar[Sequence[str]] = ()
    conditions: ClassVar[Sequence[str]] = ()
    resize: ClassVar[Pixels | None] = None

    world: Name
    misalignment: Annotated[float, Field(ge=0), at_most(1000.0, "it is a multiple of the usual one")] = 0.0
    train: Rendered = 0
    val: Rendered = 0
    test: Rendered = 0

    @property
    def parts(self) -> dict[str, Part]:
        counts = {"train": self.train, "val": self.val, "test": self.test}
        return {split: Part(split=split, expected=count) for split, count in counts.items() if count}

    def definition(self, world: World | None) -> dict[str, Any]:
        """All that decides its pixels, in this ``world``: the key of its data."""
        assert world is not None
        return {
            "world": world.model_dump(),
            "domain": self.world,
            "misalignment": self.misalignment,
            "splits": {split: part.expected for split, part in self.parts.items()},
        }


def _read_id(value: Any) -> Any:
    """An id that YAML reads as a whole number is text all the same."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"an id is text: put {value!r} in quotes, as it is written in the name of its file")
    return value


class SetDomain(_Domain):
    """A data set on disk in its own layout: which one, where if not in its usual place, and what is taken of it.

    ``root`` is absolute or below the data root; ``label_map`` replaces the data set's own map to the 19 classes;
    ``skip`` are ids that are left out; ``conditions`` those that are kept, all if empty. ``resize`` is the size of this
    domain's training images, where it is not the schedule's. Its ``misalignment`` is unknown.
    """

    rendered: ClassVar[Literal[False]] = False
    misalignment: ClassVar[float | None] = None

    dataset: Name
    root: Text = ""
    label_map: Name | Literal[""] = ""
    skip: list[Annotated[str, BeforeValidator(_read_id)]] = Field(default_factory=list)
    conditions: list[Text] = Field(default_factory=list)
    resize: Pixels | None = None
    train: Part | None = None
    val: Part | None = None
    test: Part | None = None

    @property
    def parts(self) -> dict[str, Part]:
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {split: part for split, part in parts.items() if part is not None}

    def definition(self, world: World | None) -> dict[str, Any]:
        """All that decides its pixels, wherever they are stored: the key of its data."""
        kept = {"dataset", "label_map", "skip", "conditions", "resize", "train", "val", "test"}
        return self.model_dump(include=kept, exclude_none=True)


def _kind(value: Any) -> str:
    on_disk = value.get("dataset") is not None if isinstance(value, dict) else isinstance(value, SetDomain)
    return "<data set>" if on_disk else "<world>"


Domain = Annotated[
    Annotated[WorldDomain, Tag("<world>")] | Annotated[SetDomain, Tag("<data set>")],
    Discriminator(_kind),
]
"""A domain is rendered (key ``world``) or on disk (key ``dataset``)."""


class Size(Strict):
    """How a test image is resized for the network; its aspect ratio is kept.

    ``fit``: as large as fits into this height and width, or into the two swapped for an upright image (mmseg's
    ``Resize`` with ``keep_ratio``). ``height``: to this height. ``crop``: then cropped around the middle, or padded
    with black and void. ``labels``: resize the labels too; otherwise the prediction is resized to the labels.
    """

    fit: Pixels | None = None
    height: Side | None = None
    crop: Pixels | None = None
    labels: bool = False

    @model_validator(mode="after")
    def _one_rule(self) -> Size:
        if self.fit is not None and self.height is not None:
            raise ValueError("fit and height are two rules for one size: keep one of them")
        if self.crop is not None and not self.labels:
            raise ValueError("crop needs labels: true, or a prediction would not cover its label")
        return self


class Protocol(Strict):
    """How a model is evaluated. Its ``id`` is in every record; records of different ids never share a table.

    In pixels of the label: ``boundary_band`` is the width of the band that is counted separately,
    ``boundary_tolerances`` are those of boundary IoU and F1, ``distance_rings`` the outer distances of the thin, medium
    and thick ring around a boundary. ``size`` is that of the test images (by default their own), ``sizes`` that of
    single targets; ``classes`` a coarser set of classes, into which predictions are merged; ``window`` and ``stride``
    (height, width) are for sliding inference.
    """

    id: Text
    label_map: Literal["cityscapes19"] = "cityscapes19"
    inference: Literal["whole", "slide"] = "whole"
    checkpoint: Literal["last"] = "last"
    boundary_band: Width
    boundary_tolerances: Annotated[tuple[Width, ...], Field(max_length=20)] = (1, 2, 4)
    distance_rings: Annotated[tuple[Width, ...], Field(max_length=20)] = (1, 2, 3)
    calibration_bins: Annotated[PositiveInt, at_most(1000, "a bin would hold nothing")] = 15
    classes: Name | None = None
    window: Pixels | None = None
    stride: Pixels | None = None
    size: Size | None = None
    sizes: dict[str, Size] | None = None

    @model_validator(mode="after")
    def _rising(self) -> Protocol:
        for name, values in (
            ("boundary_tolerances", self.boundary_tolerances),
            ("distance_rings", self.distance_rings),
        ):
            if not values or any(a >= b for a, b in pairwise(values)):
                raise ValueError(f"{name}: at least one width in pixels, in rising order, not {list(values)}")
        if self.inference == "slide":
            if self.window is None or self.stride is None:
                raise ValueError("inference: slide needs a window and a stride, each (height, width) in pixels")
            if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
                raise ValueError(f"stride {self.stride} is larger than the window {self.window}: it would skip pixels")
        elif self.window is not None or self.stride is not None:
            raise ValueError("window and stride belong to inference: slide")
        return self

    def size_of(self, target: str) -> Size:
        """The size of a target's test images."""
        return (self.sizes or {}).get(target) or self.size or Size()
