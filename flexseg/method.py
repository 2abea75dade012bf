"""The contract between a method and the engine.

A method is a class in ``methods/<name>.py``. It says who it is, which options it has, and overrides the hooks where it
differs from plain training; every hook defaults to the plain baseline. A hook gets what it needs as arguments.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from flexseg.benchmark.schedule import Sampling
from flexseg.benchmark.schema import ORIGINS
from flexseg.classes import NUM_CLASSES
from flexseg.components.losses import (
    log_probabilities,
    mean_over_valid,
    negative_log_likelihood,
    pixel_cross_entropy,
)
from flexseg.data.draws import Purpose, generator
from flexseg.data.sampling import NO_CLASS, Drawing, base_drawing
from flexseg.errors import RunError, UserError, did_you_mean
from flexseg.models import Output, Segmentor, build_segmentor
from flexseg.shows import Show


class Batch(NamedTuple):
    """What one step trains on, on this device.

    ``indices`` (B,) are the images' places in the training pool, ``slots`` (B,) their places in the whole batch over
    all devices; ``images`` (B, 3, H, W) normalised float, ``labels`` (B, H, W) int64 trainIds with 255 void.
    """

    iteration: int
    slots: np.ndarray
    indices: np.ndarray
    images: Tensor
    labels: Tensor

    def repeated(self, count: int) -> Batch:
        """The batch of ``count`` views of the same images behind each other, without the images."""
        return Batch(
            self.iteration,
            np.tile(self.slots, count),
            np.tile(self.indices, count),
            self.images[:0],
            self.labels.repeat(count, 1, 1),
        )

    def rotation(self, seed: int) -> int:
        """How far to roll the batch so that each image meets another one, drawn by iteration; 0 for a single image."""
        size = len(self.labels)
        return int(self.generators(seed)[0].integers(1, size)) if size > 1 else 0

    def generators(self, seed: int) -> list[np.random.Generator]:
        """A generator for each image, which depends on the run's seed, the iteration and the slot alone."""
        return [generator(seed, Purpose.TRANSFORM, self.iteration, int(slot)) for slot in self.slots]


@dataclass(frozen=True)
class Setup:
    """What a method may know of the run: its seed and length, and what the training images are.

    ``origins`` (N,) int8 is 0 for a source image and 1 for a generated one; ``class_pixels`` (N, C) int64 counts the
    pixels of each class in each training image. Both are empty where only a model is built. ``mix`` and ``sampling``
    are the benchmark's recipe for drawing images, None where images are drawn uniformly. ``batch_size`` counts the
    images of a step over all devices.
    """

    seed: int
    iterations: int
    origins: np.ndarray
    class_pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, NUM_CLASSES), dtype=np.int64))
    mix: tuple[float, float] | None = None
    sampling: Sampling | None = None
    batch_size: int = 1

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return self.class_pixels.shape[1]

    @property
    def draws_uniformly(self) -> bool:
        """Whether the base draw is uniform over all images."""
        return self.mix is None and self.sampling is None

    @cached_property
    def base(self) -> Drawing:
        """The base draw: how the benchmark's recipe draws images."""
        return base_drawing(self.origins, self.class_pixels, self.mix, self.sampling)

    def draw(self, iteration: int, slot: int) -> tuple[int, int]:
        """The image that the base draw puts into a slot, and the class for which it drew it (-1: none)."""
        return self.base.draw(generator(self.seed, Purpose.CHOOSE, iteration, slot))

    def class_for(self, iteration: int, slot: int, image: int) -> int:
        """The class that a slot's crop should show, or -1: that of the base draw, if it drew this ``image``.

        For another image it is drawn by the probabilities with which the base draw would have drawn the image for it,
        so that a method which chooses images leaves the recipe's crops as they are.
        """
        if self.sampling is None:
            return NO_CLASS
        drawn, wanted = self.draw(iteration, slot)
        if drawn == image:
            return wanted
        return self.base.class_for(image, generator(self.seed, Purpose.CLASS, iteration, slot))


def option(default: Any, help: str, *, origin: str = "published") -> Any:
    """An option of a method: its default, what it does, and where the default comes from (:data:`ORIGINS`).

    Raises:
        ValueError: an unknown origin.
    """
    if origin not in ORIGINS:
        raise ValueError(f"origin {origin!r} is unknown{did_you_mean(origin, ORIGINS)}; known: {', '.join(ORIGINS)}")
    return dataclasses.field(default=default, metadata={"help": help, "origin": origin})


def require_at_least(options: Any, **least: int) -> None:
    """Check options against their smallest values.

    Raises:
        ValueError: one of them is smaller, or no number.
    """
    for name, value in least.items():
        if not getattr(options, name) >= value:
            raise ValueError(f"{name} must be at least {value}, not {getattr(options, name)}")


@dataclass(frozen=True)
class NoOptions:
    """The options of a method that has none."""


class Method:
    """Plain training on source and generated images; the base of every method.

    Class attributes: ``name`` (the file's stem), ``title``, ``paper`` (authors, title, venue), ``data`` (the domains it
    trains on, ``"source"``, ``"generated"`` or both), ``needs`` (keys of :data:`NEEDS`, e.g. ``"batch_norm"``),
    ``Options``, ``shows`` (the logged and observed values that the reports draw, see :mod:`flexseg.shows`), and
    ``learns_without_labels`` (whether a batch without a labelled pixel may have a loss other than 0).
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    data: ClassVar[tuple[str, ...]] = ("source", "generated")
    needs: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type] = NoOptions
    shows: ClassVar[tuple[Show, ...]] = ()
    learns_without_labels: ClassVar[bool] = False

    def __init__(self, options: Any, setup: Setup) -> None:
        self.options = options
        self.setup = setup

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        """Build the model from the benchmark's trunk configuration (mmseg's vocabulary).

        Raises:
            RunError: the trunk lacks what the method ``needs``, before a method changes parts of it.
        """
        model = build_segmentor(config)
        check_needs(self, model.backbone)
        return model

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        """Modules that are trained and saved with the model but not needed afterwards, e.g. a projection head."""
        return None

    def transform(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change one cropped sample: (H, W, 3) uint8 and (H, W) uint8, with a generator of its own."""
        return image, label

    def choose(self, iteration: int, slots: Sequence[int]) -> np.ndarray:
        """The training images (len(slots),) int64 that fill these slots.

        Must be a function of (seed, iteration, slot) and saved state, not of earlier calls. By default the base draw
        of the benchmark's recipe, ``self.setup.draw``, which is uniform unless the recipe says otherwise.
        """
        return np.array([self.setup.draw(iteration, slot)[0] for slot in slots], dtype=np.int64)

    @property
    def looks_back(self) -> bool:
        """Whether :meth:`choose` or :meth:`transform` depend on earlier steps: then no batch is prepared ahead."""
        return False

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        """All terms whose sum is minimised: by default one pass, its :meth:`losses`, and those of auxiliary heads.

        Override it where a batch passes the model more than once, or is changed on the way through. It runs inside the
        module that data parallelism wraps; every trainable parameter must get a gradient, even if it is zero.
        """
        output = model(batch.images)
        return weight_terms(self.losses(batch, output), output) | auxiliary_losses(output, batch.labels)

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The named terms of one pass: by default :meth:`supervise`."""
        return self.supervise(batch, output, label_log_probabilities(output, batch.labels))

    def supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
        """The named terms that compare a prediction with its labels: by default the mean cross entropy.

        Override it to put another loss in the place of the cross entropy; such a method can then stand on others (see
        :mod:`flexseg.composition`), whose passes may show several views of an image: ``batch`` has the labels, the
        indices and the slots of each view.

        Args:
            log_p: (B, H, W, C) float32, the log-probabilities at the size of the labels.
        """
        return {"ce": mean_over_valid(negative_log_likelihood(log_p, batch.labels), batch.labels)}

    def after_step(self, batch: Batch) -> None:
        """Act after the optimiser's step."""

    def log(self) -> dict[str, float]:
        """Values to log beside the losses, named ``part/quantity``; the reports draw those that ``shows`` names."""
        return {}

    def observe(self, model: Segmentor, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        """Arrays to look at, asked for at a few moments of training on the same K images; by default none.

        By name, e.g. ``prediction`` (K, H, W) uint8, ``entropy`` (K, H, W) float16; the reports draw those that
        ``shows`` names. Must change nothing and draw no random number; the model is in eval mode, without gradients.

        Args:
            images: (K, 3, H, W) normalised. labels: (K, H, W) int64.
        """
        return {}

    def state(self) -> dict[str, np.ndarray]:
        """What must survive an interruption, besides modules and optimiser."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state` returned."""

    def finish(self, model: Segmentor, modules: nn.Module | None, batches: Iterator[Batch]) -> Segmentor:
        """The model that is evaluated, of the architecture that :meth:`build_model` builds.

        Args:
            model: the trained model, with the averaged weights.
            modules: those of :meth:`build_training_modules`, also with averaged weights.
            batches: endless fresh training batches, e.g. to recompute BatchNorm statistics after a change of weights.
        """
        return model


HOOKS = tuple(name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_"))


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Resize logits (B, C, h, w) to ``size`` by bilinear interpolation, as mmseg does before its losses."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def label_log_probabilities(output: Output, labels: Tensor) -> Tensor:
    """log p_c of a pass at the size of ``labels`` (B, H, W): (B, H, W, C) float32."""
    return log_probabilities(upsample(output.logits, labels.shape[-2:]))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over valid pixels at label resolution; zero, with a gradient, where all is void.

    Args:
        logits: (B, C, h, w). labels: (B, H, W) int64.
    """
    return mean_over_valid(pixel_cross_entropy(upsample(logits, labels.shape[-2:]), labels), labels)


def weight_terms(terms: Mapping[str, Tensor], output: Output) -> dict[str, Tensor]:
    """Multiply the terms of a pass by its ``weight`` (HRDA's 1 − λ), unless that is 1."""
    if output.weight == 1.0:
        return dict(terms)
    return {name: output.weight * term for name, term in terms.items()}


def auxiliary_losses(output: Output, labels: Tensor) -> dict[str, Tensor]:
    """The weighted cross entropies of the auxiliary maps, ``auxiliary``, ``auxiliary1``, …; none without such maps.

    A map of a part of the image, its ``box``, is compared with that part of the labels (B, H, W) int64.
    """
    terms = {}
    for number, part in enumerate(output.auxiliary):
        top, left, height, width = part.box or (0, 0, *labels.shape[-2:])
        seen = labels[:, top : top + height, left : left + width]
        terms[f"auxiliary{number or ''}"] = part.weight * cross_entropy(part.logits, seen)
    return terms


def _has_batch_norm(backbone: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())


def _is_frozen_vit(backbone: nn.Module) -> bool:
    return bool(getattr(backbone, "is_frozen_vit", False))  # of flexseg.models.vit, imported only where it is built


NEEDS: dict[str, tuple[Callable[[nn.Module], bool], str]] = {
    "batch_norm": (_has_batch_norm, "needs a backbone with BatchNorm, which this benchmark's {backbone} does not have"),
    "vit": (_is_frozen_vit, "needs a frozen vision transformer as backbone, which this benchmark's {backbone} is not"),
}
"""What a method may require of the backbone: a test, and the message where it fails."""


def check_needs(method: type[Method] | Method, backbone: nn.Module) -> None:
    """Refuse a backbone that the method cannot work on.

    Raises:
        RunError: with the reason, which reaches the tables.
    """
    for need in method.needs:
        satisfied, refusal = NEEDS[need]
        if not satisfied(backbone):
            raise RunError(f"{method.name} {refusal.format(backbone=type(backbone).__name__)}")


@functools.cache
def checker(options: type) -> TypeAdapter[Any]:
    """What checks values against a dataclass of options, made once.

    Types are written as text and looked up in the module that defines the class, which must still be loaded:
    hence a method's is made when its file is imported, as another folder of methods can follow in the same process.
    """
    return TypeAdapter(options)


def parse_options(method: type[Method], values: Mapping[str, Any]) -> Any:
    """Check the options of a row against the method's ``Options`` and fill in the defaults.

    Raises:
        UserError: an unknown option (with the nearest one) or a value of a wrong type.
    """
    known = {field.name for field in dataclasses.fields(method.Options)}
    for key in values:
        if key not in known:
            options = ", ".join(sorted(known)) or "none"
            raise UserError(
                f"methods/{method.name}.py has no option {key!r}{did_you_mean(key, known)}. Its options: {options}"
            )
    try:
        return checker(method.Options).validate_python(dict(values))
    except ValidationError as error:
        places = ["".join(f"{part}: " for part in problem["loc"]) for problem in error.errors()]
        messages = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
        problems = "; ".join(place + message for place, message in zip(places, messages, strict=True))
        raise UserError(f"methods/{method.name}.py: {problems}") from error


def describe_options(options: Any) -> dict[str, dict[str, Any]]:
    """Every option with its value, default, the origin of its default (:data:`ORIGINS`), and what it does."""
    return {
        each.name: {
            "value": getattr(options, each.name),
            "default": each.default,
            "origin": each.metadata.get("origin", "published"),
            "help": each.metadata.get("help", ""),
        }
        for each in dataclasses.fields(options)
    }
