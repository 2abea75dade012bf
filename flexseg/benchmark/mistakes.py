"""The mistakes in a benchmark file, in words."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from flexseg.benchmark.blocks import SetDomain, WorldDomain
from flexseg.benchmark.class_block import Classes
from flexseg.benchmark.schedule import ClassUniform, Fit, RareClasses, RareSubset, Separate
from flexseg.errors import did_you_mean

TAGS: dict[Any, type[BaseModel]] = {
    "<world>": WorldDomain,
    "<data set>": SetDomain,
    "rare_classes": RareClasses,
    "class_uniform": ClassUniform,
    "rare_subset": RareSubset,
    "separate": Separate,
    "<size>": Fit,
    "<fit>": Fit,
    "<name>": Classes,
    "<classes>": Classes,
}
"""The tags by which pydantic's errors name the alternatives of a block."""


SHOWN = 20
"""How many mistakes are listed; the rest are counted."""


def problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """What pydantic found wrong with a ``root``, a line each: place and mistake, with the nearest known key."""
    lines = []
    found = error.errors()
    for problem in found[:SHOWN]:
        loc = [part for part in problem["loc"] if part not in TAGS and part != "[key]"]
        place = ".".join(str(part) for part in loc) or "file"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            model = root
            for part in problem["loc"][:-1]:
                if part in TAGS:
                    model = TAGS[part]
                    continue
                field = model.model_fields.get(str(part))
                annotation = getattr(field, "annotation", None)
                for inner in (annotation, *get_args(annotation)):  # a model, one or none, or a mapping of models
                    if isinstance(inner, type) and issubclass(inner, BaseModel):
                        model = inner
            message = f"unknown key{did_you_mean(str(problem['loc'][-1]), model.model_fields)}"
        lines.append(f"  {place}: {message}")
    return [*lines, f"  … and {len(found) - SHOWN} more"] if len(found) > SHOWN else lines
