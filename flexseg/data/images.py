"""Decoding an image and its label, with every check that bad files need: one clear error that names the file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from flexseg.classes import IGNORE, NUM_CLASSES
from flexseg.errors import UserError

VALID_IDS = np.zeros(256, dtype=bool)
VALID_IDS[[*range(NUM_CLASSES), IGNORE]] = True


def _decode(path: Path, content: bytes, modes: tuple[str, ...]) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be decoded ({error}): the file is damaged or truncated. Delete it and write it again"
        ) from error
    if picture.mode not in modes:
        raise UserError(f"{path} is a picture of mode {picture.mode}, expected {' or '.join(modes)}")
    return picture


def decode_image(path: Path, content: bytes) -> np.ndarray:
    """Decode an RGB image: (H, W, 3) uint8.

    Raises:
        UserError: the bytes are no whole picture.
    """
    return np.asarray(_decode(path, content, ("RGB",)))


def decode_label(path: Path, content: bytes) -> np.ndarray:
    """Decode an 8-bit ``train_id`` map: (H, W) uint8 with values 0–18 and 255.

    Raises:
        UserError: the bytes are no whole picture, or hold another id (the first ones are named).
    """
    label = np.asarray(_decode(path, content, ("L", "P")))
    wrong = np.unique(label[~VALID_IDS[label]])
    if wrong.size:
        raise UserError(
            f"{path} holds the id {', '.join(map(str, wrong[:5]))}: a label holds trainIds 0–{NUM_CLASSES - 1} "
            f"and {IGNORE} for void. Is this a labelIds file, or a label of another data set?"
        )
    return label


def decode_pair(
    image_path: Path, image_bytes: bytes, label_path: Path, label_bytes: bytes
) -> tuple[np.ndarray, np.ndarray]:
    """Decode an image with its label and check that their sizes agree: (H, W, 3) and (H, W), both uint8.

    Raises:
        UserError: either is damaged, the label holds a wrong id, or the sizes differ.
    """
    image, label = decode_image(image_path, image_bytes), decode_label(label_path, label_bytes)
    if image.shape[:2] != label.shape:
        raise UserError(
            f"{label_path} is {label.shape[0]}×{label.shape[1]} pixels, its image {image_path.name} is "
            f"{image.shape[0]}×{image.shape[1]}: a label must have its image's size"
        )
    return image, label
