"""How the rows of a benchmark train, in words: what a schedule says beyond iterations, crops and learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flexseg.benchmark import Training
from flexseg.benchmark.schedule import FeatureDistance, Fit, RareClasses, RareSubset, Resize, Rule, Sampling, Separate

PHOTOMETRIC = {"mmseg": "photometric distortion", "jitter_blur": "colour jitter and blur"}


def optimiser_text(training: Training) -> str:
    """``AdamW``, or SGD with its momentum."""
    if training.optimizer != "sgd":
        return "AdamW"
    return f"SGD (momentum {training.momentum:g})" if training.momentum else "SGD"


def recipe_parts(training: Training) -> list[str]:
    """The parts of the recipe that the benchmark has, a few words each; none where training is plain."""
    return [words(value) for key, words in PARTS.items() if (value := getattr(training, key)) is not None]


def _sampling(sampling: Sampling) -> str:
    if isinstance(sampling, Separate):
        return f"source images by {_rule(sampling.source)}, generated ones by {_rule(sampling.generated)}"
    return _rule(sampling)


def _rule(sampling: Rule | None) -> str:
    if sampling is None:
        return "uniform draws"
    if isinstance(sampling, RareSubset):
        return f"uniform draws from {sampling.images} that rare class sampling chose (T = {sampling.temperature:g})"
    if isinstance(sampling, RareClasses):
        return f"rare class sampling (T = {sampling.temperature:g}, more than {sampling.min_pixels} pixels)"
    return f"class-uniform sampling of {100 * sampling.share:g} % of the draws"


def _resize(size: Resize) -> str:
    sides = size.fit if isinstance(size, Fit) else size
    return f"frames of {sides[0]} × {sides[1]} px before cropping" + (" (at most)" if isinstance(size, Fit) else "")


def _distance(distance: FeatureDistance) -> str:
    stage = "" if distance.stage == -1 else f", stage {distance.stage}"
    return f"feature distance to the frozen encoder (weight {distance.weight:g}{stage})"


PARTS: dict[str, Callable[[Any], str]] = {
    "resize": _resize,
    "mix": lambda ratio: "source and generated images drawn {:g} : {:g}".format(*ratio),
    "sampling": _sampling,
    "max_class_share": lambda share: f"no class over {100 * share:g} % of a crop",
    "photometric": PHOTOMETRIC.__getitem__,
    "feature_distance": _distance,
    "accumulate": lambda count: f"a batch in {count} parts",
}
"""The keys of the schedule that a plain training leaves out, in words."""


def initial_weights(model: dict[str, Any]) -> str:
    """``random weights``, or which file the backbone starts from."""
    weights = model.get("weights")
    return f"the ImageNet weights {weights['file']}" if weights else "random weights"


def trunk_parts(model: dict[str, Any]) -> list[str]:
    """The types of a trunk's parts, with HRDA around them where there is."""
    parts = [str(part["type"]) for part in model.values() if isinstance(part, dict) and "type" in part]
    return [*parts, "HRDA"] if "hrda" in model else parts
