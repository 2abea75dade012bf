"""What a method shows of itself in the reports, declared as data: curves, maps and vectors.

A method lists these in its class attribute ``shows``; ``run.json`` of a finished run keeps them, and the reports draw
from there what was logged and observed. So a figure needs no code outside the method's file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Curves:
    """Quantities that :meth:`~flexseg.method.Method.log` gives, over training, a panel each.

    ``panels`` maps what is logged (``part/quantity``) to what stands over its panel. Rows that log any of it share one
    figure, called ``name``.
    """

    name: str
    heading: str
    panels: Mapping[str, str]
    caption: str = ""


@dataclass(frozen=True)
class Maps:
    """Maps of the sample images that :meth:`~flexseg.method.Method.observe` gives, over the moments of training.

    ``units`` maps each array (K, H, W) to what stands at its colour bar. ``prediction`` (train ids), if it is observed,
    stands above them. Maps that a run did not observe, e.g. of a part that is switched off, are left out.
    """

    name: str
    heading: str
    units: Mapping[str, str]
    caption: str = ""


@dataclass(frozen=True)
class Vectors:
    """Unit vectors by group and class that :meth:`~flexseg.method.Method.observe` gives, at the end of training.

    ``vectors`` names the array (G, C, D), ``counts`` that of how often each was updated (G, C): those never updated are
    left out. ``groups`` are the names of the groups; with another number of them than the array has, they are numbered.
    """

    name: str
    heading: str
    vectors: str
    counts: str
    groups: tuple[str, ...] = field(default=())
    caption: str = ""


Show = Curves | Maps | Vectors
KINDS: dict[str, type[Show]] = {"curves": Curves, "maps": Maps, "vectors": Vectors}


def describe_shows(shows: Iterable[Show]) -> list[dict[str, Any]]:
    """The declarations as JSON knows them, each with its ``kind``."""
    return [
        {"kind": kind, **dataclasses.asdict(show)}
        for show in shows
        for kind, known in KINDS.items()
        if isinstance(show, known)
    ]


def read_shows(described: Any) -> tuple[Show, ...]:
    """What :func:`describe_shows` wrote; what cannot be read is left out."""
    found: list[Show] = []
    for entry in described if isinstance(described, list) else []:
        try:
            values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in entry.items()}
            show = KINDS[str(values.pop("kind"))](**values)
        except (AttributeError, KeyError, TypeError):
            continue
        if not mistake_in(show):
            found.append(show)
    return tuple(found)


def mistake_in(show: object) -> str:
    """What is wrong with a declaration, in words that follow “shows”; empty if nothing is."""
    if not isinstance(show, Curves | Maps | Vectors):
        return f"may hold Curves, Maps and Vectors of flexseg.shows, not {show!r}"
    if not isinstance(show.name, str) or not re.fullmatch(r"[a-z0-9_]+", show.name):
        return f"has a figure named {show.name!r}: use small letters, digits and underscores, as it names a file"
    for part in ("heading", "caption"):
        if not isinstance(getattr(show, part), str):
            return f"{show.name!r}: its {part} must be text, not {getattr(show, part)!r}"
    if not show.heading:
        return f"{show.name!r} needs a heading"
    if isinstance(show, Vectors):
        if not all(isinstance(each, str) and each for each in (show.vectors, show.counts)):
            return f"{show.name!r} must name the observed arrays of its vectors and counts"
        if not isinstance(show.groups, tuple) or not all(isinstance(each, str) for each in show.groups):
            return f"{show.name!r}: groups must be a tuple of names, not {show.groups!r}"
        return ""
    part, values = ("panels", show.panels) if isinstance(show, Curves) else ("units", show.units)
    texts = isinstance(values, Mapping) and all(isinstance(each, str) for pair in values.items() for each in pair)
    if not texts or not values:
        return f"{show.name!r}: {part} must map names to labels, not {values!r}"
    return ""
