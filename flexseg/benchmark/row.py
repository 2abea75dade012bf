"""A row of the tables: how one trains, or what was made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from flexseg.benchmark.foreign import KINDS, Foreign
from flexseg.benchmark.values import MethodName, Seed, Strict, Text, check_plain


class Row(Strict):
    """A row of the tables: a method with options, which are all the keys that are not named here.

    ``base`` names the method on which it stands (:mod:`flexseg.composition`), without which it changes plain training.
    ``training`` changes keys of the benchmark's schedule and ``model`` exchanges its trunk, for this row alone: for
    controls, such as a longer training, which the reports mark as such. ``published`` is the row's name in the files
    of published numbers, where its component switches do not give it.

    A row that was not trained here (:mod:`flexseg.benchmark.foreign`) has one of ``checkpoint`` with its mmseg
    ``config``, ``network`` or ``predictions`` in place of a method; such a network is evaluated once, not per seed.
    ``publication`` and ``published_seeds`` are what ``flexseg import`` writes.
    """

    model_config = ConfigDict(extra="allow")

    method: MethodName | Literal[""] = ""
    base: MethodName | Literal[""] = ""
    extends: str = ""
    title: Text = ""
    generated: str = ""
    tuned: bool = False
    training: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    published: Text = ""
    checkpoint: Text = ""
    config: Text = ""
    network: Text = ""
    predictions: Text = ""
    publication: Text = ""
    published_seeds: list[Seed] = Field(default_factory=list)

    @model_validator(mode="after")
    def _plain(self) -> Row:
        check_plain(self.options)
        check_plain(self.model, "model")
        given = [kind for kind in KINDS if getattr(self, kind)]
        if not given:
            if self.config:
                raise ValueError(
                    "config belongs to a checkpoint: name it too; a trunk from a configuration is `model:`"
                )
            return self
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two things: a row is one of them")
        if bool(self.config) != (given == ["checkpoint"]):
            what = "needs its mmseg config beside it" if not self.config else "and config do not go together"
            raise ValueError(f"{given[0]} {what}")
        trained: dict[str, Any] = {
            "method": self.method,
            "base": self.base,
            "extends": self.extends,
            "generated": self.generated,
        }
        trained |= {"training": self.training, "model": self.model, **self.options}
        if wrong := [key for key, value in trained.items() if value]:
            raise ValueError(f"{given[0]} is not trained here, so {', '.join(wrong)} would not be used: leave it out")
        return self

    @property
    def foreign(self) -> Foreign | None:
        """What was made elsewhere, if the row is not trained here."""
        for kind in KINDS:
            if path := getattr(self, kind):
                config = Path(self.config).expanduser() if self.config else None
                return Foreign(kind, Path(path) if kind == "publication" else Path(path).expanduser(), config)
        return None

    @property
    def options(self) -> dict[str, Any]:
        """The options as written, not yet checked by the method."""
        return dict(self.model_extra or {})
