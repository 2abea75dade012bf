"""The block ``classes:`` of a benchmark file: what networks tell apart, where that is not Cityscapes' 19 classes."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from pydantic import Discriminator, Field, Tag, model_validator

from flexseg.benchmark.values import Name, Strict, Text
from flexseg.classes import CLASS_SETS, IGNORE, MOST, VOID, ClassSet, SemanticClass
from flexseg.errors import did_you_mean

Part = Annotated[int, Field(ge=0, le=255)]


class ClassEntry(Strict):
    """One class: its name, its colour (R, G, B from 0 to 255), and whether it is countable.

    ``takes`` are names of other sets' classes that count as this one: the label maps of known data sets name
    Cityscapes' classes.
    """

    name: Text
    colour: tuple[Part, Part, Part]
    thing: bool = False
    takes: list[Text] = Field(default_factory=list)


class Classes(Strict):
    """A set of classes of a benchmark's own, in the order of their trainIds.

    ``ignore`` is how files that hold these trainIds write void; ``void`` are names of other sets' classes that are void
    here.
    """

    name: Name
    members: list[ClassEntry] = Field(min_length=1, max_length=MOST)
    ignore: Annotated[int, Field(ge=0, le=255)] = IGNORE
    void: list[Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _whole(self) -> Classes:
        if self.name in CLASS_SETS:
            raise ValueError(f"name: {self.name} is a set that the suite has: choose another name")
        taken = [name for entry in self.members for name in entry.takes] + self.void
        if twice := sorted({name for name in taken if taken.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} would count as two things: name each under one `takes:` or `void:`")
        assert self.class_set  # raises what is wrong with it
        return self

    @cached_property
    def class_set(self) -> ClassSet:
        """The set, checked."""
        takes = {other: entry.name for entry in self.members for other in entry.takes} | dict.fromkeys(self.void, VOID)
        entries = tuple(SemanticClass(entry.name, entry.colour, entry.thing) for entry in self.members)
        return ClassSet(self.name, entries, self.ignore, takes)


AnyClasses = Annotated[
    Annotated[Name, Tag("<name>")] | Annotated[Classes, Tag("<classes>")],
    Discriminator(lambda value: "<classes>" if isinstance(value, dict | Classes) else "<name>"),
]
"""A set of the suite by its name, or a set of one's own."""


def class_set_of(classes: str | Classes) -> ClassSet:
    """The set that a benchmark's ``classes`` names or lists.

    Raises:
        ValueError: there is no set of this name.
    """
    if isinstance(classes, Classes):
        return classes.class_set
    if classes not in CLASS_SETS:
        raise ValueError(
            f"classes: no class set is named {classes!r}{did_you_mean(classes, CLASS_SETS)}; known are "
            f"{', '.join(CLASS_SETS)}. List others: `classes: {{name: …, members: [{{name: …, colour: …}}, …]}}`"
        )
    return CLASS_SETS[classes]
