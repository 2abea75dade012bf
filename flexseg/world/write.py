"""Write a domain's split to disk in the layout of Cityscapes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from flexseg.world.frame import render


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels in OpenCV's order of channels, of 8 or 16 bits, whole or not at all."""
    ok, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not ok:
        raise OSError(f"could not encode {path.name}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_domain(
    root: Path,
    domain: str,
    split: str,
    count: int,
    *,
    height: int,
    width: int,
    version: int = 1,
    misalignment: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Render images 0 to ``count − 1`` below ``root`` and return the image paths in order.

    Images go to ``leftImg8bit/<split>/<condition>/<condition>_<index>_000000_leftImg8bit.png``, labels (8-bit train
    ids) to ``gtFine/…_gtFine_labelTrainIds.png``. A second run writes the same bytes. ``progress`` is called with the
    number of images written so far.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, not {count}")
    paths = []
    for index in range(count):
        frame = render(domain, split, index, version=version, height=height, width=width, misalignment=misalignment)
        stem = f"{frame.condition}_{index:06d}_000000"
        image = Path(root) / "leftImg8bit" / split / frame.condition / f"{stem}_leftImg8bit.png"
        label = Path(root) / "gtFine" / split / frame.condition / f"{stem}_gtFine_labelTrainIds.png"
        for path, pixels in ((image, frame.image[:, :, ::-1]), (label, frame.label)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, pixels)
        paths.append(image)
        if progress is not None:
            progress(index + 1)
    return paths
