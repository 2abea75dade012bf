"""The values that a benchmark file may hold: names, texts and numbers, each with its bounds and their reason.

A name becomes a folder, a target of the workflow and a word on a command line, so one pattern holds for all of them.
Numbers are bounded where a larger one can only be a mistake, which would otherwise be found after hours, or as a full
disk.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,79}")


def check_name(name: str) -> str:
    """Return a name that is one.

    Raises:
        ValueError: it could be something else for a shell, a file system or Snakemake.
    """
    if PATTERN.fullmatch(name):
        return name
    usable = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80].strip("_")
    hint = f", such as {usable}" if PATTERN.fullmatch(usable) else ""
    shown = name if len(name) <= 80 else f"{name[:80]}…"
    raise ValueError(
        f"{shown!r} cannot be a name: it becomes a folder and a word on command lines, so take a letter first, then up "
        f"to 79 letters, digits, _ and -{hint}"
    )


def _check_method(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,79}", name):
        raise ValueError(f"{name[:80]!r} is no name of a method: it is that of a file in methods/, without .py")
    return name


def _check_text(longest: int, lines: bool) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text) > longest:
            raise ValueError(f"the text has {len(text):,} characters, more than {longest:,}")
        wrong = [character for character in text if not (character.isprintable() or (lines and character in "\n\t"))]
        if wrong:
            raise ValueError(f"the character {wrong[0]!r} cannot be printed: leave it out")
        return text

    return check


def at_most(limit: float, why: str) -> AfterValidator:
    """A validator that refuses larger numbers and says why."""

    def check(value: Any) -> Any:
        if value > limit:
            raise ValueError(f"{value:,} is more than {limit:,}: {why}")
        return value

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(check_name)]
MethodName = Annotated[str, AfterValidator(_check_method)]
Text = Annotated[str, AfterValidator(_check_text(400, lines=False))]
"""A title or a label: one line that can be printed."""
LongText = Annotated[str, AfterValidator(_check_text(10_000, lines=True))]

_IMAGE = at_most(32_768, "no image has so many pixels on a side")
Side = Annotated[int, Field(gt=0), _IMAGE]
"""Pixels along one side of an image."""
Pixels = tuple[Side, Side]
"""Height and width in pixels."""
Width = Annotated[int, Field(gt=0), at_most(1000, "a boundary is not so wide")]
"""Pixels around a boundary."""
Images = Annotated[int, Field(gt=0), at_most(10**8, "no data set has so many images")]
Rendered = Annotated[int, Field(ge=0), at_most(10**6 - 1, "the names of rendered images have six digits")]
Steps = Annotated[int, Field(gt=0), at_most(10**8, "no training takes so many steps")]
Batch = Annotated[int, Field(gt=0), at_most(2**16, "no step takes so many images")]
Rate = Annotated[float, Field(gt=0), at_most(100.0, "no training survives such a rate")]
Factor = Annotated[float, Field(gt=0), at_most(1e6, "it can only be a mistake")]
Seed = Annotated[int, Field(ge=0), at_most(2**31 - 1, "not every random generator takes a larger seed")]


class Strict(BaseModel):
    """Part of a benchmark file: an unknown key is an error, numbers are finite, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_plain(value: Any, place: str = "") -> None:
    """Check what is handed on as it stands (a method's options, a trunk): finite numbers and printable keys.

    Raises:
        ValueError: names the place.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_plain(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            check_plain(item, f"{place}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: {value} is no finite number")
    elif isinstance(value, int) and abs(value) > 2**53:
        raise ValueError(f"{place}: the number is beyond ±2⁵³: it can only be a mistake")


def fit_into(box: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Height and width of an image as large as fits into ``box``, turned if the image is upright.

    Rounds like mmcv's ``rescale_size``.
    """
    factor = min(max(box) / max(height, width), min(box) / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)
