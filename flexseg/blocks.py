"""The blocks of a benchmark file that stand by themselves: the world, its domains, the protocol and the schedule."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator


class Strict(BaseModel):
    """Part of a benchmark file: an unknown key is an error, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class World(Strict):
    """The street world that renders the domains: its version and image size in pixels."""

    version: PositiveInt
    height: int = Field(ge=32)
    width: int = Field(ge=32)


class Domain(Strict):
    """One domain of the street world: which, how strongly misaligned, and how many images of each split."""

    world: str
    title: str = ""
    analogue_of: str = ""
    misalignment: float = Field(default=0.0, ge=0)
    train: int = Field(default=0, ge=0)
    val: int = Field(default=0, ge=0)
    test: int = Field(default=0, ge=0)

    @property
    def splits(self) -> dict[str, int]:
        """Number of images of each split that is not empty."""
        counts = {"train": self.train, "val": self.val, "test": self.test}
        return {split: count for split, count in counts.items() if count}


class Protocol(Strict):
    """How a model is evaluated. Its ``id`` stands in every record; records of different ids never meet in a table.

    Widths are in pixels of the label: ``boundary_width`` of the band that is counted apart, ``boundary_widths`` of
    boundary IoU and F1, ``rings`` the outer distances of the thin, medium and thick ring around a boundary.
    """

    id: str
    label_map: Literal["cityscapes19"] = "cityscapes19"
    inference: Literal["whole"] = "whole"
    checkpoint: Literal["last"] = "last"
    boundary_width: PositiveInt
    boundary_widths: tuple[PositiveInt, ...] = (1, 2, 4)
    rings: tuple[PositiveInt, ...] = (1, 2, 3)
    calibration_bins: PositiveInt = 15

    @model_validator(mode="after")
    def _rising(self) -> Protocol:
        for name, values in (("boundary_widths", self.boundary_widths), ("rings", self.rings)):
            if not values or any(a >= b for a, b in pairwise(values)):
                raise ValueError(f"{name}: at least one width in pixels, in rising order, not {list(values)}")
        return self


class Training(Strict):
    """The schedule, equal for every row: iterations, images per step, crop (height, width), optimiser, averaging."""

    iterations: PositiveInt
    batch_size: PositiveInt
    crop: tuple[PositiveInt, PositiveInt]
    scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    flip: bool = True
    learning_rate: PositiveFloat
    head_learning_rate_factor: PositiveFloat = 1.0
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: int = Field(default=0, ge=0)
    power: float = Field(default=1.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 250

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale: the smallest factor comes first")
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup ({self.warmup}) must be shorter than iterations ({self.iterations})")
        return self
