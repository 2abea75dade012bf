"""The data sets as data: one YAML file each, in ``flexseg/data/sets`` or in one's own ``datasets/``, checked when read.

A file says where a set comes from, which folders and files it consists of (its *layouts*, as templates), which splits
it has, and how its labels are read. Adding a data set is adding a file.

Templates are paths with named fields, ``rgb_anon/{condition}/{split}/{sequence}/{id}_rgb_anon.png``. A field stands for
a non-empty text without a slash, or for what a regular expression under ``fields`` allows. The label's template is
filled with the fields of the image, so pairing is data too.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from flexseg.classes import CITYSCAPES, TRAIN_ID, ClassSet
from flexseg.data.label_maps import LabelMap, build_map, load_map, map_names
from flexseg.errors import UserError, did_you_mean
from flexseg.yaml_files import read_yaml

SETS = Path(__file__).parent / "sets"
ANY = "any"
"""The condition of all images of a set that has no conditions."""

Encoding = Literal["index", "red16", "colours"]
FIELD = re.compile(r"\{(\w+)\}")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_as_list)]
"""A list of strings; a single string is short for a list of one."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Strict):
    """A file to download, and what it holds."""

    file: str
    holds: Literal["images", "labels", "images and labels", "lists"]


class Listing(_Strict):
    """A file that names the images of a split.

    A text file names one image per line, by its id or by a path; a MATLAB file holds a vector of image numbers under
    ``key``, which ``number`` (a format such as ``{:05d}``) turns into ids.
    """

    file: Texts
    """Places below the set's root that are tried in turn."""
    key: str = ""
    number: str = "{:d}"


class Split(_Strict):
    """A labelled part of a set."""

    images: int | None = None
    """How many images the published set has; None if that is not fixed."""
    conditions: dict[str, int] = Field(default_factory=dict)
    """Likewise for each condition."""
    where: dict[str, str] = Field(default_factory=dict)
    """Regular expressions for whole fields of the image's template. Empty: ``split`` is the split's name."""
    listing: Listing | None = None
    example: dict[str, Texts] = Field(default_factory=dict)
    """As :attr:`Layout.example`, for this split."""


class Layout(_Strict):
    """How the files of a set are arranged below its root."""

    name: str
    image: str
    label: Texts
    """Alternatives: the first one that exists is an image's label."""
    id: str = "{id}"
    """An image's id: unique in its split, without slashes, as it names the files of predictions."""
    fields: dict[str, str] = Field(default_factory=dict)
    """A regular expression for a field; otherwise a field is any text without a slash."""
    splits: list[str] = Field(default_factory=list)
    """The splits that this layout has; empty: all."""
    where: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Replaces a split's :attr:`Split.where` and :attr:`Split.listing`."""
    label_map: str = ""
    """The one label map that fits this layout; empty: the set's."""
    encoding: Encoding | None = None
    refused: str = ""
    """Why these labels cannot be used. Such a layout is recognised, and this reason given."""
    example: dict[str, Texts] = Field(default_factory=dict)
    """What the fields look like (``{n}`` is a number), taken in turn: for data written in this layout."""
    besides: list[str] = Field(default_factory=list)
    """Other files among the images and labels that are neither."""

    @property
    def image_fields(self) -> set[str]:
        """The names of the fields of the image's template."""
        return set(FIELD.findall(self.image))

    @model_validator(mode="after")
    def _fields_are_known(self) -> Layout:
        fields = self.image_fields
        used = {field for text in (*self.label, self.id) for field in FIELD.findall(text)}
        used |= {*self.fields, *(field for where in self.where.values() for field in where)}
        if not self.refused and used - fields:
            raise ValueError(f"layout {self.name}: {', '.join(sorted(used - fields))} is not a field of {self.image}")
        return self


Share = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]
"""A smallest and a largest share of the pixels."""


class Plausible(_Strict):
    """What the labels of any larger part of a set are like, so that labels with other ids are noticed.

    ``classes`` must occur, and void has at most the share ``void`` of all pixels: anything else is an error. The share
    of a class among the labelled pixels is in ``shares``, or is remarked on.
    """

    images: int = 5
    """In fewer images than this anything is plausible."""
    classes: list[str] = Field(default_factory=list)
    void: float = Field(default=1.0, gt=0, le=1)
    shares: dict[str, Share] = Field(default_factory=dict)


class DataSet(_Strict):
    """One data set: where it comes from, its files on disk, its splits, and how its labels are read."""

    name: str
    title: str
    homepage: str = ""
    archives: list[Archive] = Field(default_factory=list)
    licence: str = ""
    citation: str = ""
    folders: list[str] = Field(min_length=1)
    """Folders where the set is looked for, in turn, absolute or below the data root; ``.`` is the data root itself."""
    label_map: str
    """The label map that is used unless another one is asked for; empty: files hold trainIds and nothing else."""
    other_label_maps: list[str] = Field(default_factory=list)
    """Further label maps that fit the set's ids."""
    label_maps: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Label maps of the set's own, each with the keys of a file of :mod:`flexseg.data.label_maps`."""
    encoding: Encoding = "index"
    """How a label's file holds ids: grey or palette ``index``, the red channel of 16 bits, or ``colours``."""
    palette: bool = False
    """Whether label files carry a palette, whose index is the id."""
    alpha: bool = False
    """Whether image files may carry an alpha channel, which is ignored."""
    layouts: list[Layout]
    splits: dict[str, Split]
    conditions: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Regular expressions for fields that tell the condition, tried in turn, if paths have no field ``condition``."""
    rendered: bool = False
    """Whether the suite renders it itself, so that there is nothing to look for."""
    known_bad: dict[str, str] = Field(default_factory=dict)
    """Images that are known to be unusable, id → reason: listed, left out, not an error."""
    plausible: Plausible = Plausible()
    note: str = ""
    """What a user of the set should know."""
    file: Path | None = None
    """The file of a set of one's own; None for those of the suite."""

    @model_validator(mode="after")
    def _names_are_known(self) -> DataSet:
        maps = {self.label_map, *self.other_label_maps, *(layout.label_map for layout in self.layouts)} - {""}
        if unknown := maps - {*map_names(), *self.label_maps}:
            raise ValueError(f"there is no label map {', '.join(sorted(unknown))}")
        for layout in self.layouts:
            if unknown := {*layout.splits, *layout.where} - set(self.splits):
                raise ValueError(f"layout {layout.name}: there is no split {', '.join(sorted(unknown))}")
        names = [layout.name for layout in self.layouts]
        if len(set(names)) != len(names):
            raise ValueError("two layouts have the same name")
        return self

    def remedy(self, unpack: str) -> str:
        """What to do about missing or damaged files: ``unpack``, in words, or render them again if the suite did so."""
        if self.file:
            unpack = unpack.replace("unpack its archives again", f"correct `images:` in {self.file}")
            return unpack.replace("unpack their archive again", f"mend them, or what {self.file} says of them")
        return "write the domain again with `flexseg dataset`" if self.rendered else unpack

    def split(self, name: str) -> Split:
        """The split of this name.

        Raises:
            UserError: the set has none.
        """
        if name not in self.splits:
            raise UserError(
                f"{self.title} has no labelled split {name!r}{did_you_mean(name, self.splits)}: "
                f"its splits are {', '.join(self.splits)}"
            )
        return self.splits[name]

    def layout(self, name: str) -> Layout:
        """The layout of this name.

        Raises:
            UserError: the set has none.
        """
        for layout in self.layouts:
            if layout.name == name:
                return layout
        names = [layout.name for layout in self.layouts]
        raise UserError(f"{self.title} has no layout {name!r}{did_you_mean(name, names)}: it has {', '.join(names)}")

    def map_of(self, layout: Layout, wanted: str = "") -> str:
        """The id of the label map to read labels of ``layout`` with; ``wanted`` is the user's choice, if any.

        Raises:
            UserError: the wanted map does not fit these labels.
        """
        fitting = [layout.label_map] if layout.label_map else [self.label_map, *self.other_label_maps]
        if wanted and wanted not in fitting:
            raise UserError(
                f"the label map {wanted!r} does not fit the labels of {self.title} in the layout {layout.name!r}: "
                f"choose {' or '.join(fitting)}, or leave label_map out"
            )
        return wanted or fitting[0]

    def load_map(self, name: str, classes: ClassSet = CITYSCAPES) -> LabelMap | None:
        """The label map of this id, to the trainIds of ``classes``; None where files hold Cityscapes' trainIds anyway.

        Raises:
            UserError: it is wrong, or names classes of which ``classes`` say nothing.
        """
        if name in self.label_maps:
            where = f"{self.file}: label_maps.{name}"
            return replace(build_map(name, self.label_maps[name], classes, where), where=where)
        if not name:
            return None if classes.is_default else load_map("train_ids", classes)
        return load_map(name, classes)

    def encoding_of(self, layout: Layout) -> Encoding:
        """How label files of ``layout`` hold ids."""
        return layout.encoding or self.encoding

    def where(self, layout: Layout, split: str) -> dict[str, str] | None:
        """The regular expressions that select the images of ``split`` in ``layout``; None: it has no such split."""
        if layout.splits and split not in layout.splits:
            return None
        chosen = layout.where.get(split, self.split(split).where)
        return chosen or ({"split": split} if "split" in layout.image_fields else {})

    def listing(self, layout: Layout, split: str) -> Listing | None:
        """The file that names the images of ``split``, if there is one."""
        return None if split in layout.where else self.split(split).listing


def set_names() -> list[str]:
    """The names of all data sets that users have on disk, sorted; the one that the suite renders is left out."""
    return sorted(path.stem for path in SETS.glob("*.yaml") if not load_set(path.stem).rendered)


def load_set(name: str, own: Path | None = None) -> DataSet:
    """Read the data set of this name: one of the suite's, or one of the folder ``own``.

    Raises:
        UserError: there is none, or its file is wrong.
    """
    if (SETS / f"{name}.yaml").is_file():
        return _load_known(name)
    path = own / f"{name}.yaml" if own else None
    if path is None or not path.is_file():
        mine = sorted(each.stem for each in own.glob("*.yaml")) if own and own.is_dir() else []
        known = [*set_names(), *mine]
        where = f", and {own} has {', '.join(mine) or 'none'}" if own else ""
        raise UserError(
            f"there is no data set {name!r}{did_you_mean(name, known)}: the suite knows {', '.join(set_names())}{where}"
            ". `flexseg new-dataset` describes a folder of one's own"
        )
    return _read_set(name, path).model_copy(update={"file": path})


@lru_cache
def _load_known(name: str) -> DataSet:
    found = _read_set(name, SETS / f"{name}.yaml")
    if unknown := {*found.plausible.classes, *found.plausible.shares} - set(TRAIN_ID):
        raise UserError(
            f"{SETS / name}.yaml does not describe a data set: there is no class {', '.join(sorted(unknown))}"
        )
    return found


def _read_set(name: str, path: Path) -> DataSet:
    try:
        content = read_yaml(path, numbered=True)
        return DataSet.model_validate({"name": name} | content)
    except ValidationError as error:
        places = (
            ".".join(str(part) for part in problem["loc"]) + ": " + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors()
        )
        raise UserError(f"{path} does not describe a data set:\n  " + "\n  ".join(places)) from error
    except (AttributeError, TypeError) as error:
        raise UserError(f"{path} does not describe a data set: {error}") from error
