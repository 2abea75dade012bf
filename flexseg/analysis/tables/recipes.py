"""How every row of a benchmark trains, in words: what its schedule says beyond iterations, crops and learning rates."""

from __future__ import annotations

from typing import Any

from flexseg.benchmark import Training
from flexseg.benchmark.schedule import RareClasses

PHOTOMETRIC = {"mmseg": "photometric distortion", "jitter_blur": "colour jitter and blur"}


def optimiser_text(training: Training) -> str:
    """``AdamW``, or SGD with its momentum."""
    if training.optimizer != "sgd":
        return "AdamW"
    return f"SGD (momentum {training.momentum:g})" if training.momentum else "SGD"


def recipe_parts(training: Training) -> list[str]:
    """The parts of the recipe that the benchmark has, a few words each; none where training is plain."""
    parts = []
    if training.resize is not None:
        parts.append("frames of {} × {} px before cropping".format(*training.resize))
    if training.mix is not None:
        parts.append("source and generated images drawn {:g} : {:g}".format(*training.mix))
    if training.sampling is not None:
        parts.append(_sampling(training.sampling))
    if training.max_class_share is not None:
        parts.append(f"no class over {100 * training.max_class_share:g} % of a crop")
    if training.photometric is not None:
        parts.append(PHOTOMETRIC[training.photometric])
    if training.feature_distance is not None:
        parts.append(f"feature distance to the frozen encoder (weight {training.feature_distance.weight:g})")
    if training.accumulate is not None:
        parts.append(f"a batch in {training.accumulate} parts")
    return parts


def _sampling(sampling: Any) -> str:
    if isinstance(sampling, RareClasses):
        return f"rare class sampling (T = {sampling.temperature:g})"
    return f"class-uniform sampling of {100 * sampling.share:g} % of the draws"


def initial_weights(model: dict[str, Any]) -> str:
    """``random weights``, or which file the backbone starts from."""
    weights = model.get("weights")
    return f"the ImageNet weights {weights['file']}" if weights else "random weights"


def trunk_parts(model: dict[str, Any]) -> list[str]:
    """The types of a trunk's parts, with HRDA around them where there is."""
    parts = [str(part["type"]) for part in model.values() if isinstance(part, dict) and "type" in part]
    return [*parts, "HRDA"] if "hrda" in model else parts
