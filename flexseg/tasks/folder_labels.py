"""What the labels of a folder hold: their encoding, and which ids or colours occur, with their share of the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from flexseg.classes import CLASSES
from flexseg.data.images import PNG, decode_image, decode_raw, read_file
from flexseg.data.label_maps import TODO, load_map, map_names
from flexseg.data.layouts import Pair, name_some
from flexseg.data.sets import Encoding
from flexseg.errors import UserError

MOST_COLOURS = 255
"""The most colours of labels whose colours are classes."""
Colour = tuple[int, int, int]
WAYS = {
    "index": "8-bit ids",
    "colours": "colours",
    "red16": "16-bit colour with the id in red",
    "grey16": "16-bit grey",
    "bits": "1-bit black and white",
    "other": "pictures with an alpha channel or of an unusual mode",
}
CONVERT = (
    "Write them anew as 8-bit PNG files with one id per class, for instance "
    "`Image.fromarray(ids.astype(np.uint8)).save(path)` with Pillow"
)


@dataclass
class Content:
    """What a sample of pairs holds.

    Attributes:
        encoding: how label files hold ids. pixels, images: by id (or colour), its pixels and in how many labels it is.
        sizes: of the images, (height, width). palette: of the ids that occur, if all files agree.
        notes: what a user should know, a line each.
    """

    encoding: Encoding
    pixels: Counter[int]
    images: Counter[int]
    sizes: Counter[tuple[int, int]]
    labels: int
    palette: dict[int, Colour] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """The ids, or the colours 65536·R + 256·G + B, that occur, rising."""
        return sorted(self.pixels)

    def share(self, value: int) -> float:
        """The share of all pixels that an id or a colour has."""
        return self.pixels[value] / self.pixels.total()


def split_colour(value: int) -> Colour:
    """(R, G, B) of 65536·R + 256·G + B."""
    return value >> 16, value >> 8 & 255, value & 255


def count_runs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that occur and their numbers of pixels; colours (H, W, 3) as 65536·R + 256·G + B."""
    flat = pixels.astype(np.int64)
    flat = (flat[..., 0] << 16 | flat[..., 1] << 8 | flat[..., 2]).ravel() if flat.ndim == 3 else flat.ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])  # labels have long runs: far less to sort
    values, which = np.unique(flat[starts], return_inverse=True)
    return values, np.bincount(which, weights=np.diff(np.r_[starts, flat.size])).astype(np.int64)


def examine_labels(pairs: Sequence[Pair], advance: Callable[[int], None]) -> Content:
    """Decode pairs and count what their labels hold.

    Raises:
        UserError: a file cannot be read, sizes differ, the labels are encoded in different ways or in one that cannot
            be used, or there are too many colours.
    """
    seen = _Seen()
    for pair in pairs:
        try:
            seen.add(pair)
        except UserError as error:
            seen.problems.append(str(error))
        advance(1)
    if seen.problems:
        shown = "".join(f"\n  {problem}" for problem in seen.problems[:5])
        more = f"\n  … and {len(seen.problems) - 5} more" if len(seen.problems) > 5 else ""
        raise UserError(f"{len(seen.problems)} of {len(pairs)} pairs cannot be used; nothing was written:{shown}{more}")
    return seen.content()


class _Seen:
    """What was seen so far."""

    def __init__(self) -> None:
        self.ways: dict[str, list[str]] = {}
        self.ids, self.in_ids = Counter[int](), Counter[int]()
        self.colours, self.in_colours = Counter[int](), Counter[int]()
        self.sizes = Counter[tuple[int, int]]()
        self.palettes: dict[int, set[Colour]] = {}
        self.problems: list[str] = []
        self.too_many = ""
        self.deepest, self.labels = 0, 0
        self.palette_files = 0

    def add(self, pair: Pair) -> None:
        image = decode_image(pair.image, read_file(pair.image))
        content = read_file(pair.label)
        if content[:8] != PNG:
            raise UserError(
                f"{pair.label} is no PNG: other formats blur ids or are not read. Get the labels as PNG files; "
                "converting a JPEG does not bring its ids back"
            )
        raw = decode_raw(pair.label, content)
        if raw.pixels.shape[:2] != image.shape[:2]:
            (height, width), (rows, columns) = image.shape[:2], raw.pixels.shape[:2]
            raise UserError(
                f"{pair.label} is {rows}×{columns} pixels, its image {pair.image.name} is {height}×{width}: a label "
                "must have its image's size"
            )
        self.sizes[image.shape[0], image.shape[1]] += 1
        self.ways.setdefault(raw.encoding, []).append(pair.label.name)
        self.labels += 1
        values, counts = count_runs(raw.pixels)
        if raw.encoding == "colours":
            self._add_colours(pair, values, counts)
            return
        self.deepest = max(self.deepest, int(values.max()))
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.ids[value] += count
            self.in_ids[value] += 1
            if raw.palette is not None and value < len(raw.palette):
                self.palettes.setdefault(value, set()).add(tuple(raw.palette[value].tolist()))
        if raw.palette is not None:
            self.palette_files += 1
            inside = raw.pixels.clip(max=len(raw.palette) - 1)
            for value, count in zip(*map(np.ndarray.tolist, count_runs(raw.palette[inside])), strict=True):
                self.colours[value] += count
                self.in_colours[value] += 1

    def _add_colours(self, pair: Pair, values: np.ndarray, counts: np.ndarray) -> None:
        together = len(self.colours.keys() | set(values.tolist()))
        if together > MOST_COLOURS:
            alone = len(values) > MOST_COLOURS
            where = f"{pair.label} alone has {len(values):,}" if alone else f"in the first {self.labels}"
            self.too_many = self.too_many or (
                f"the labels hold more than {MOST_COLOURS} different colours ({where}), so their colours are not "
                "classes: were they saved as JPEG or resized on the way, or are these images? Get the labels as they "
                "were released; nothing was written"
            )
            return
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.colours[value] += count
            self.in_colours[value] += 1

    def content(self) -> Content:
        if len(self.ways) > 1:
            listed = "; ".join(f"{WAYS[way]}: {len(names)} ({name_some(names)})" for way, names in self.ways.items())
            raise UserError(
                f"the labels are encoded in {len(self.ways)} different ways, and a data set has one: {listed}. Move "
                "the others away, or describe them as a data set of their own; nothing was written"
            )
        if self.too_many:
            raise UserError(self.too_many)
        ((way, names),) = self.ways.items()
        if way not in ("index", "colours", "red16"):
            largest = f", up to {self.deepest}" if way == "grey16" else ""
            hint = "Ids beyond 255 are often class · 1000 + instance, or these are depths. " if way == "grey16" else ""
            raise UserError(
                f"the labels are {WAYS[way]} ({name_some(names)}{largest}), which are not read: ids have 8 bits. "
                f"{hint}{CONVERT}; nothing was written"
            )
        notes = list[str]()
        if way == "index" and any(len(colours) > 1 for colours in self.palettes.values()):
            one = next(value for value, colours in self.palettes.items() if len(colours) > 1)
            notes.append(
                f"palettes differ between files (the id {one} has several colours): colours are taken, not ids"
            )
            if self.palette_files < self.labels:
                raise UserError(
                    "some labels are grey and others have palettes that differ: these are two kinds of labels"
                )
            if len(self.colours) > MOST_COLOURS:
                raise UserError(
                    f"the palettes hold more than {MOST_COLOURS} different colours, so they are not classes"
                )
            return Content("colours", self.colours, self.in_colours, self.sizes, self.labels, {}, notes)
        if way == "colours":
            return Content("colours", self.colours, self.in_colours, self.sizes, self.labels)
        palette = {value: next(iter(colours)) for value, colours in sorted(self.palettes.items())}
        encoding: Encoding = "index" if way == "index" else "red16"
        return Content(encoding, self.ids, self.in_ids, self.sizes, self.labels, palette, notes)


@dataclass(frozen=True)
class Convention:
    """A way of labelling that is known: in words, the suite's map if one fits exactly, and names and classes of ids."""

    text: str = ""
    label_map: str = ""
    names: dict[int, tuple[str, str]] = field(default_factory=dict)


VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
VOID_NAME = ("void", "void")


def recognise(content: Content, names: Sequence[str]) -> Convention:
    """Recognise how labels are written.

    Args:
        names: of the labels' files or folders, which may say what they hold.
    """
    ids, said = set(content.ids), " ".join(names).lower()
    if content.encoding == "colours":
        return _recognise_colours(ids)
    if content.encoding == "red16":
        if ids <= set(range(23)) and len(ids) > 5:
            return Convention("SYNTHIA's ids, going by the encoding and the range", "synthia")
        return Convention()
    classes, plain = ids - {255}, ids - {0, 1}
    if not plain or ids == {0, 255}:
        if ids == {0, 255}:
            return Convention("binary, 0 and 255: here 255 is probably the foreground and not void")
        return Convention("binary, 0 and 1") if len(ids) == 2 else Convention("a single id")
    if ids == {0, 1, 255}:
        return Convention("binary, 0 and 1; 255 is taken for void", names={255: VOID_NAME})
    if classes == set(range(19)) or ("trainid" in said and classes <= set(range(19))):
        return Convention("Cityscapes' trainIds (0–18, 255 is void)", "train_ids")
    if classes == set(range(20)) and "trainid" in said:
        return Convention("Cityscapes' trainIds with void as 19", "train_ids_void19")
    labels = load_map("cityscapes_label_ids")
    if labels.known[sorted(ids)].all() and "labelids" in said:
        return Convention("Cityscapes' labelIds (7 is road, 26 is car)", "cityscapes_label_ids")
    void = {255: VOID_NAME} if 255 in ids else {}
    text = "255 is taken for void" if void else ""
    if content.palette and all(colour == voc_colour(value) for value, colour in content.palette.items()):
        text = "the palette of PASCAL VOC, which many tools write: its colours say nothing about the classes"
        if classes <= set(range(21)) and "segmentationclass" in said:
            text = "PASCAL VOC's palette and ids"
            void |= {value: (VOC[value], TODO) for value in classes}
        text += "; 255 is taken for void" if 255 in ids else ""
    elif {7, 8, 11, 21, 23, 26} <= ids and labels.known[sorted(ids)].all():
        text = "perhaps Cityscapes' labelIds: if 7 is road and 26 is car, say `label_map: cityscapes_label_ids`"
    return Convention(text, names=void)


def _recognise_colours(ids: set[int]) -> Convention:
    if len(ids) < 5:  # so few may be anybody's
        return Convention()
    colours = {each.colour: each.name for each in CLASSES} | {(0, 0, 0): "void"}
    if all(split_colour(value) in colours for value in ids):
        found = {value: colours[split_colour(value)] for value in ids}
        return Convention("Cityscapes' colours, black is void", names={v: (name, name) for v, name in found.items()})
    for name in map_names():
        known = load_map(name)
        if known.colours and all(known.of_colour[value] >= 0 for value in ids):
            return Convention(f"the colours of the suite's label map {name}", name)
    return Convention()


def voc_colour(index: int) -> Colour:
    """The colour that PASCAL VOC's palette gives an index: its bits, spread over the high bits of R, G and B."""
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> 3 * bit & 1) << 7 - bit
        green |= (index >> 3 * bit + 1 & 1) << 7 - bit
        blue |= (index >> 3 * bit + 2 & 1) << 7 - bit
    return red, green, blue
