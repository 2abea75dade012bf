"""Decode an image and its label, with every check for bad files: one clear error that names the file.

The suite's own data are RGB images and trainId labels. Labels of a data set hold that set's ids; a label map turns them
into trainIds (:mod:`flexseg.data.label_maps`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from flexseg.classes import IGNORE, NUM_CLASSES
from flexseg.data.label_maps import LabelMap, load_map
from flexseg.errors import UserError

VALID_IDS = np.zeros(256, dtype=bool)
"""Of Cityscapes' trainIds."""
VALID_IDS[[*range(NUM_CLASSES), IGNORE]] = True

IDS = (("L", "P"), "a label holds ids in 8 bits, not colours. Take the label that the archive holds")
COLOURS = (("RGB", "RGBA", "P"), "these labels are colours. Take the label that the archive holds")
"""The modes of labels, and the advice for others."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""What Pillow may take an image for: some of its readers start other programs (EPS)."""
LOSSLESS = ("PNG",)
"""Likewise a label: JPEG would blur its ids."""
PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a PNG; byte 24 is the number of bits a channel."""
RED = 2
"""The index of red in the pixels that OpenCV decodes, which are B, G, R or B, G, R, A."""


def read_file(path: Path) -> bytes:
    """Read a file; a pipe or a device is refused, as reading it might never end.

    Raises:
        UserError: it is no file. OSError: it cannot be read.
    """
    if not path.is_file() and path.exists():
        raise UserError(f"{path} is no file")
    return path.read_bytes()


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(
        f"{path} cannot be decoded ({reason}): the file is damaged or truncated. Delete it and write or unpack it again"
    )


def _open(path: Path, content: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Read the header of a picture."""
    try:
        return Image.open(io.BytesIO(content), formats=formats)
    except UnidentifiedImageError as error:  # whose text is only an address in memory
        kind = "picture" if formats == FORMATS else " or ".join(formats)
        raise _damaged(path, f"it is no {kind}" if content else "it is empty") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large for an image of a data set, or its header is damaged: {error}") from error
    except (OSError, SyntaxError) as error:
        raise _damaged(path, error) from error


def _decode(
    path: Path, content: bytes, modes: tuple[str, ...], hint: str, formats: tuple[str, ...] = LOSSLESS
) -> Image.Image:
    picture = _open(path, content, formats)
    if picture.mode in ("RGB", "RGBA") and content[:8] == PNG and content[24:25] == b"\x10":
        raise UserError(f"{path} has 16 bits a channel, of which only 8 would be used: save it with 8 bits")
    try:
        picture.load()
    except (OSError, SyntaxError) as error:
        raise _damaged(path, error) from error
    if picture.mode not in modes:
        raise UserError(f"{path} is a picture of mode {picture.mode}, expected {' or '.join(modes)}: {hint}")
    return picture


def decode_image(path: Path, content: bytes, convert: bool = True) -> np.ndarray:
    """Decode an image: (H, W, 3) uint8 RGB.

    Pixels stay as they are stored: an orientation in a photograph's metadata is not applied, as labels are drawn on the
    stored pixels (Mapillary Vistas holds such photographs).

    Args:
        convert: drop an alpha channel (UrbanSyn and SYNTHIA may have one). Pictures of one channel or with a palette
            are refused in any case: a label in the place of an image must not pass.

    Raises:
        UserError: the bytes are not a complete picture, or it has another mode.
    """
    modes = ("RGB", "RGBA") if convert else ("RGB",)
    hint = "is it a label, or a converted copy? Take the image that the archive holds"
    picture = _decode(path, content, modes, hint, FORMATS)
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def decode_label(
    path: Path, content: bytes, label_map: LabelMap | str | None = None, encoding: str = "index"
) -> np.ndarray:
    """Decode a label: (H, W) uint8 trainIds of the label map's classes and 255.

    Args:
        label_map: a label map or its id; none: the file holds Cityscapes' trainIds already.
        encoding: how the file holds ids: ``index``, 8 bits of grey or a palette's index; ``red16``, the red channel of
            16-bit colour (SYNTHIA); ``colours``, the map's colours.

    Raises:
        UserError: the bytes are not a complete picture, or hold another id (the first ones are named).
    """
    if not label_map:
        label = decode_ids(path, content)
        wrong = np.unique(label[~VALID_IDS[label]])
        if wrong.size:
            raise UserError(
                f"{path} holds the id {', '.join(map(str, wrong[:5]))}: a label holds trainIds 0–{NUM_CLASSES - 1} "
                f"and {IGNORE} for void. Is this a labelIds file, or a label of another data set?"
            )
        return label
    mapping = load_map(label_map) if isinstance(label_map, str) else label_map
    if encoding == "red16":
        raw = _red_channel(path, content)
    elif encoding == "colours":
        raw = _ids_of_colours(path, content, mapping)
    else:
        picture = _decode(path, content, *IDS)
        raw = np.asarray(picture)
        if picture.mode == "P" and (mapping.colours or not mapping.where):  # whose classes have any colours
            _check_palette(path, picture, raw, mapping)
    return mapping.apply(raw, path)


def decode_ids(path: Path, content: bytes) -> np.ndarray:
    """Decode a picture of 8-bit numbers as it is: (H, W) uint8, grey or a palette's index.

    Raises:
        UserError: it is damaged, or a picture of another kind.
    """
    return np.asarray(_decode(path, content, *IDS))


class RawLabel(NamedTuple):
    """A label of which nothing is known yet.

    ``pixels`` are (H, W) uint8 or uint16 ids, or (H, W, 3) uint8 colours; ``palette`` (N, 3) uint8, R, G, B, if it has
    one. Labels in other ``encoding`` than ``index``, ``colours`` and ``red16`` cannot be used: 16 bits of grey, 1 bit,
    or something else.
    """

    encoding: Literal["index", "colours", "red16", "grey16", "bits", "other"]
    pixels: np.ndarray
    palette: np.ndarray | None = None


def decode_raw(path: Path, content: bytes) -> RawLabel:
    """Decode a picture that may be a label, or any other picture that may be an image.

    Raises:
        UserError: the bytes are not a complete picture of a format that images may have.
    """
    picture = _open(path, content, FORMATS)
    deep = content[:8] == PNG and content[24:25] == b"\x10"
    if deep and picture.mode in ("RGB", "RGBA"):
        return RawLabel("red16", _red_channel(path, content))
    try:
        picture.load()
    except (OSError, SyntaxError) as error:
        raise _damaged(path, error) from error
    if picture.mode == "P":
        palette = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return RawLabel("index", np.asarray(picture), palette)
    if picture.mode == "L":
        return RawLabel("index", np.asarray(picture))
    if picture.mode in ("RGB", "RGBA"):
        return RawLabel("colours", np.asarray(picture.convert("RGB")))
    if picture.mode.startswith("I"):
        return RawLabel("grey16", np.asarray(picture).astype(np.uint16))
    return RawLabel("bits" if picture.mode == "1" else "other", np.asarray(picture.convert("L")))


def _check_palette(path: Path, picture: Image.Image, ids: np.ndarray, label_map: LabelMap) -> None:
    """Refuse a palette that contradicts the ids: it shows an id of a class in the colour of another class.

    Where the map states the set's own colours, any other colour is refused; elsewhere a palette of arbitrary colours
    says nothing.
    """
    palette = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    classes = label_map.classes.classes
    class_of_colour = {each.colour: train_id for train_id, each in enumerate(classes)}
    for place in np.unique(ids[ids < len(palette)]).tolist():
        train_id = int(label_map.table[place])
        if train_id == IGNORE or not label_map.known[place]:
            continue
        expected = {label_map.colours.get(place, classes[train_id].colour), classes[train_id].colour}
        found = tuple(palette[place].tolist())
        if not label_map.colours and class_of_colour.get(found, train_id) == train_id:
            continue
        if found not in expected | {(place, place, place)}:  # grey: a palette that says nothing
            raise UserError(
                f"{path}: its palette shows the id {place} in the colour {found}, but {classes[train_id].name} has "
                f"{sorted(expected)[0]}: are these ids of another kind, such as trainIds? Take the label that the "
                "archive holds"
            )


def _red_channel(path: Path, content: bytes) -> np.ndarray:
    """Read the ids in the red channel of a 16-bit PNG; Pillow would keep only its upper 8 bits, which are 0."""
    _open(path, content, LOSSLESS)  # its size is bounded then
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _damaged(path, " ".join(str(error).split())) from error
    if pixels is None:
        raise _damaged(path, "it is no whole picture")
    if pixels.dtype != np.uint16 or pixels.ndim != 3:
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        raise UserError(
            f"{path} is a picture of {pixels.dtype.itemsize * 8} bits in {channels} channels, expected 16 bits in 3 or "
            "4: its ids are the red channel. Is this a coloured or a converted label?"
        )
    red = pixels[:, :, RED]
    if red.max(initial=0) > IGNORE:
        raise UserError(f"{path} holds the id {red.max()} in its red channel: ids have 8 bits there")
    return red.astype(np.uint8)


def _ids_of_colours(path: Path, content: bytes, label_map: LabelMap) -> np.ndarray:
    """Read the ids of an RGB label by the colours of ``label_map``."""
    colours = np.asarray(_decode(path, content, *COLOURS).convert("RGB")).astype(np.int32)
    ids = label_map.of_colour[(colours[:, :, 0] << 16) | (colours[:, :, 1] << 8) | colours[:, :, 2]]
    if (ids < 0).any():
        wrong = np.unique(colours[ids < 0], axis=0)
        shown = ", ".join(str(tuple(colour)) for colour in wrong[:3].tolist())
        if label_map.where:
            raise UserError(
                f"{path} holds the colour {shown}, of which {label_map.where} says nothing: add it under "
                "`classes:` there as an id of its own, with its class or as void"
            )
        raise UserError(
            f"{path} holds the colour {shown}, which is none of the {len(label_map.colours)} of the label map "
            f"{label_map.id!r}: was it resized, or is it a label of another data set?"
        )
    return ids.astype(np.uint8)


def decode_pair(
    image_path: Path,
    image_bytes: bytes,
    label_path: Path,
    label_bytes: bytes,
    label_map: LabelMap | str | None = None,
    encoding: str = "index",
) -> tuple[np.ndarray, np.ndarray]:
    """Decode an image with its label and check that their sizes agree: (H, W, 3) RGB and (H, W) trainIds, both uint8.

    ``label_map`` and ``encoding`` are as for :func:`decode_label`. Without a map the data are the suite's own, and
    images must be RGB.

    Raises:
        UserError: either is damaged, the label holds a wrong id, or the sizes differ.
    """
    image = decode_image(image_path, image_bytes, convert=bool(label_map))
    label = decode_label(label_path, label_bytes, label_map, encoding)
    if image.shape[:2] != label.shape:
        raise UserError(
            f"{label_path} is {label.shape[0]}×{label.shape[1]} pixels, its image {image_path.name} is "
            f"{image.shape[0]}×{image.shape[1]}: a label must have its image's size"
        )
    return image, label
