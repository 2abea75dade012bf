"""How every row trains: schedule, optimiser, and the recipe around it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, Tag, model_validator

from flexseg.benchmark.values import Batch, Factor, Pixels, Rate, Steps, Strict, at_most, fit_into
from flexseg.classes import CLASSES, ClassSet
from flexseg.errors import did_you_mean

THINGS = ("traffic light", "traffic sign", *(c.name for c in CLASSES if c.thing))
"""What DAFormer's code counts as things: the countable classes, traffic lights and signs."""


class RareClasses(Strict):
    """Rare class sampling (Hoyer et al., DAFormer, CVPR 2022): a class by P(c) = softmax((1 − f_c) / T), then an image.

    Only images with more than ``min_pixels`` of the class at their size on disk are drawn. An image is cropped again,
    up to ten times, until the crop has more than ``min_crop_pixels`` of it.
    """

    kind: Literal["rare_classes"]
    temperature: Factor = 0.01
    min_pixels: PositiveInt = 3000
    min_crop_pixels: int = Field(default=1500, ge=0)


class ClassUniform(Strict):
    """Class-uniform sampling (Zhu et al., CVPR 2019; RobustNet): this share of the draws is for a class, all alike."""

    kind: Literal["class_uniform"]
    share: float = Field(default=0.5, gt=0, le=1)


class RareSubset(Strict):
    """``images`` different ones, chosen once by rare class sampling, then drawn uniformly, each cropped for its class.

    As DGInStyle chooses its 6,000 frames of GTA5 (Jia et al., ECCV 2024; ``tools/rcs_sample_gta.py`` of its code). The
    choice depends on ``seed``, not on the run's: all runs share it, as there.
    """

    kind: Literal["rare_subset"]
    images: PositiveInt
    temperature: Factor = 0.01
    min_pixels: PositiveInt = 3000
    min_crop_pixels: int = Field(default=1500, ge=0)
    seed: int = Field(default=0, ge=0)


Rule = Annotated[RareClasses | ClassUniform | RareSubset, Field(discriminator="kind")]


class Separate(Strict):
    """A rule for source images and one for generated ones; images of a kind without a rule are drawn uniformly.

    Without ``mix`` a kind is drawn in proportion to the number of images that its rule draws from, as when two lists of
    images are joined.
    """

    kind: Literal["separate"]
    source: Rule | None = None
    generated: Rule | None = None


Sampling = Annotated[RareClasses | ClassUniform | RareSubset | Separate, Field(discriminator="kind")]


def rule_for(sampling: Sampling | None, *, generated: bool) -> Rule | None:
    """The rule by which images of one kind are drawn; None where they are drawn uniformly."""
    if isinstance(sampling, Separate):
        return sampling.generated if generated else sampling.source
    return sampling


class FeatureDistance(Strict):
    """Thing-class feature distance to the encoder as it was before training (Hoyer et al., DAFormer, CVPR 2022).

    ``stage`` of the encoder gives the maps, from 0, -1 the deepest; a cell counts if the share ``cell_share`` of
    its pixels is of one of ``classes``, by default the things.
    """

    weight: Factor = 0.005
    classes: tuple[str, ...] = THINGS
    cell_share: float = Field(default=0.75, gt=0.5, le=1)
    stage: int = -1

    @model_validator(mode="after")
    def _some(self) -> FeatureDistance:
        if not self.classes:
            raise ValueError("classes: name a class; for no distance leave feature_distance out")
        return self

    def classes_in(self, classes: ClassSet) -> tuple[str, ...]:
        """The names of the classes in a set of classes; where the default is kept, those of its things.

        Raises:
            ValueError: one of them is no class of it, or it has no things.
        """
        if self.classes == THINGS and not classes.is_default:
            if not classes.things:
                raise ValueError(
                    f"classes: {classes.id} has no things: name the classes, or leave feature_distance out"
                )
            return classes.things
        for name in self.classes:
            if name not in classes.names:
                raise ValueError(f"classes: there is no class {name!r}{did_you_mean(name, classes.names)}")
        return self.classes


class Fit(Strict):
    """As large as fits into this height and width, the ratio of the sides kept (mmseg's ``Resize``)."""

    fit: Pixels

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """The size of an image of this height and width."""
        return fit_into(self.fit, height, width)


Resize = Annotated[
    Annotated[Pixels, Tag("<size>")] | Annotated[Fit, Tag("<fit>")],
    Discriminator(lambda value: "<fit>" if isinstance(value, dict | Fit) else "<size>"),
]
"""One size (height, width) for all images, or one that keeps their ratio."""


def resized(resize: Resize | None, size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of an image of this ``size`` after the resize."""
    return resize(*size) if isinstance(resize, Fit) else resize or size


Scale = Annotated[PositiveFloat, at_most(100.0, "an image would fill the memory")]


class Training(Strict):
    """The schedule, equal for every row: iterations, images per step, crop (height, width), optimiser, averaging.

    Keys from ``resize`` on are optional and, if left out, no part of a run's definition. ``resize`` brings every
    training image to one size, or into one box, before it is cropped; ``max_class_share`` crops again while one class
    covers more than this share; ``mix`` is the ratio of source to generated images among the draws (by default all
    images are alike), one of which may be 0; ``sampling`` how images are drawn; ``photometric`` how colours change;
    ``decay_all`` whether biases and normalisation decay too; ``accumulate`` the number of parts into which a device's
    batch is cut, to save memory; ``feature_distance`` an additional loss.
    """

    iterations: Steps
    batch_size: Batch
    crop: Pixels
    scale: tuple[Scale, Scale] = (1.0, 1.0)
    flip: bool = True
    learning_rate: Rate
    head_learning_rate_factor: Factor = 1.0
    weight_decay: Annotated[float, Field(ge=0), at_most(100.0, "no weight survives it")] = 0.01
    warmup: int = Field(default=0, ge=0)
    power: Annotated[float, Field(ge=0), at_most(100.0, "the rate would be 0 from the first step on")] = 1.0
    ema: float = Field(default=0.0, ge=0, lt=1)
    log_every: Steps = 20
    checkpoint_every: Steps = 250
    resize: Resize | None = None
    optimizer: Literal["adamw", "sgd"] | None = None
    momentum: float | None = Field(default=None, ge=0, lt=1)
    decay_all: bool | None = None
    accumulate: Batch | None = None
    max_class_share: float | None = Field(default=None, gt=0, le=1)
    mix: tuple[NonNegativeFloat, NonNegativeFloat] | None = None
    sampling: Sampling | None = None
    photometric: Literal["mmseg", "jitter_blur"] | None = None
    feature_distance: FeatureDistance | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale: the smallest factor comes first")
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup ({self.warmup}) must be shorter than iterations ({self.iterations})")
        if self.momentum is not None and self.optimizer != "sgd":
            raise ValueError("momentum belongs to optimizer: sgd")
        if self.mix is not None and not any(self.mix):
            raise ValueError("mix: source and generated images cannot both have the share 0")
        if self.accumulate is not None and self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} parts of a batch of {self.batch_size} are not even")
        return self
