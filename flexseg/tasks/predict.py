"""Predict a user's own images with a trained run: overlays to look at, and label maps as numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from flexseg.benchmark import Protocol, Run, Size
from flexseg.classes import Grouping, scored_classes
from flexseg.console import printable, progress_bar, terminal
from flexseg.errors import UserError
from flexseg.files import describe_disk_error, disk_errors, file_stem, replacing
from flexseg.tasks.export import at_training_scale, check_target, describe_scale
from flexseg.tasks.jobs import load_trained

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""The images in a folder; a file that is named by itself may have any suffix."""
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""What Pillow may take a file for: some of its readers start other programs (EPS)."""
OVERLAY, LABELS = "_overlay.png", "_trainIds.png"
"""The endings of the two files per image."""
BEHIND = (124, 117, 104)
"""The colour behind transparent pixels: ImageNet's mean, which is 0 to the network, as in mmcv."""
FONT = 11, 40
"""Smallest and largest font size of the legend, in pixels."""


def predict_images(
    run: Run,
    images: Sequence[Path],
    output: Path,
    *,
    target: str = "",
    height: int | None = None,
    threads: int = 1,
) -> list[Path]:
    """Write an overlay with a legend and a ``train_id`` map of every image into ``output``; return the overlays.

    Args:
        images: files, or folders of them.
        target: resize the images as this target's test images; by default as those of all targets, or to the scale of
            the training images (:func:`flexseg.tasks.export.at_training_scale`).
        height: resize them to this height in pixels instead, so that objects are as large as in training.

    Raises:
        UserError: the run is not finished, or there is no such target; or, after all other images are done, some cannot
            be read or are too large: says which and why.
    """
    import torch

    from flexseg.engine.inference import predict_logits

    run.require_trained()
    check_target(run.benchmark, target)
    protocol = adapt_protocol(at_training_scale(run, target), target, height)
    files = list(find_images(images))
    if not files:
        raise UserError(f"no image ({', '.join(SUFFIXES)}) in {', '.join(map(str, images)) or 'nothing'}")
    scale = describe_scale(protocol.size_of(target))
    terminal(stderr=True).print(f"The network is shown the images {scale}; --height changes that.", soft_wrap=True)
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_trained(run).to(device)
    classes = scored_classes(run.benchmark.class_set, protocol.classes)
    merge = torch.tensor(classes.merge, dtype=torch.uint8, device=device)

    def label_of(photo: np.ndarray) -> np.ndarray:
        return merge[predict_logits(model, photo, protocol, device=device).argmax(dim=0)].cpu().numpy()

    written, failures = [], []
    with progress_bar(f"{run.row}, seed {run.seed}", len(files)) as advance, disk_errors(output):
        for path, name in zip(files, output_names(files), strict=True):
            try:
                photo = read_photo(path)
                label = _predict(label_of, path, photo)
            except UserError as error:
                failures.append(printable(str(error)))
            else:
                _save(label, output / f"{name}{LABELS}")
                _save(overlay(photo, label, classes), output / f"{name}{OVERLAY}")
                written.append(output / f"{name}{OVERLAY}")
            advance(1, path.name)
    if failures:
        done = f"the other {len(written)} are in {output}" if written else "nothing was written"
        raise UserError(f"{len(failures)} of {len(files)} images failed, {done}:\n  " + "\n  ".join(failures))
    return written


def _predict(label_of: Callable[[np.ndarray], np.ndarray], path: Path, photo: np.ndarray) -> np.ndarray:
    try:
        return label_of(photo)
    except (MemoryError, RuntimeError) as error:  # torch raises either where memory is short
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} ({photo.shape[0]}×{photo.shape[1]} pixels) cannot be predicted: {reason}") from error


def adapt_protocol(protocol: Protocol, target: str = "", height: int | None = None) -> Protocol:
    """Adapt a protocol to images without labels: one size for all, and the prediction covers the whole image.

    Crops and the preparation of labels belong to scoring and are left out.
    """
    rule = protocol.size_of(target)
    size = Size(fit=rule.fit, height=rule.height) if height is None else Size(height=height)
    return protocol.model_copy(update={"size": size, "sizes": None})


def find_images(places: Sequence[Path]) -> Iterator[Path]:
    """Yield the files among ``places`` and the images in the folders, sorted by name, except our own output.

    Our output is told by its name, and by both files being there.
    """
    for place in places:
        if os.path.isdir(place):
            names = set(os.listdir(place))
            own = {name for name in names if name.endswith(OVERLAY) and name.removesuffix(OVERLAY) + LABELS in names}
            own |= {name.removesuffix(OVERLAY) + LABELS for name in own}
            yield from sorted(place / name for name in names - own if Path(name).suffix.lower() in SUFFIXES)
        else:
            yield place


def output_names(files: Sequence[Path]) -> list[str]:
    """Name each file's output: its stem, numbered from the second file of that stem on."""
    taken: dict[str, None] = {}
    for path in files:
        stem, number = file_stem(path.stem), 1
        name = stem
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken[name] = None
    return list(taken)


def read_photo(path: Path) -> np.ndarray:
    """Read an image of any kind as a person sees it: (H, W, 3) uint8 RGB.

    Its EXIF orientation is applied; grey, palette and CMYK images become RGB, 16 bits become 8, and
    transparent pixels show :data:`BEHIND`.

    Raises:
        UserError: there is no such file, or it is not a complete picture.
    """
    try:
        if not path.is_file() and path.exists():
            raise UserError(f"{path} is no file")
        with Image.open(path, formats=FORMATS) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except UserError:
        raise
    except Exception as error:  # decoders raise anything at all on damaged files
        if isinstance(error, OSError) and error.errno:
            raise UserError(describe_disk_error(error, path)) from error
        reason = "not a readable picture" if isinstance(error, UnidentifiedImageError) else f"damaged ({error})"
        raise UserError(f"{path} is {reason}") from error
    try:
        return _as_seen(picture, path)
    except (ValueError, MemoryError) as error:  # a colour space that Pillow does not convert, or a gigantic picture
        raise UserError(f"{path} is a picture of mode {picture.mode} that cannot be converted: {error}") from error


def _as_seen(picture: Image.Image, path: Path) -> np.ndarray:
    """The pixels of a picture of any mode as (H, W, 3) uint8 RGB."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise UserError(f"{path} is a picture of mode {picture.mode}, whose range is unknown: save it with 8 bits")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        picture = Image.new("RGB", seen.size, BEHIND)
        picture.paste(seen, mask=seen.getchannel("A"))
    return np.asarray(picture.convert("RGB"))


def overlay(photo: np.ndarray, label: np.ndarray, classes: Grouping, alpha: float = 0.5) -> Image.Image:
    """Blend an image with the colours of its classes, and add a legend of those that occur.

    Args:
        photo: (H, W, 3) uint8. label: (H, W) ``train_id`` of ``classes``. alpha: the share of the colours, 0 to 1.
    """
    colours = np.array([each.colour for each in classes.classes.classes], dtype=np.uint8)[label]
    blended = (photo * np.float32(1 - alpha) + colours * np.float32(alpha) + 0.5).astype(np.uint8)
    legend = _legend(label, classes, photo.shape[1])
    sheet = Image.new("RGB", (max(photo.shape[1], legend.width), photo.shape[0] + legend.height), "white")
    sheet.paste(Image.fromarray(blended))
    sheet.paste(legend, (0, photo.shape[0]))
    return sheet


def _legend(label: np.ndarray, classes: Grouping, width: int) -> Image.Image:
    """Draw the classes of a label with colours and shares, in lines of ``width`` pixels if they fit."""
    pixels = np.bincount(label.ravel(), minlength=len(classes.classes))
    found = [train_id for train_id in classes.names if pixels[train_id]]
    size = min(max(width // 55, FONT[0]), FONT[1])
    font = ImageFont.load_default(size)
    texts = [f"{classes.names[train_id]} {_percent(pixels[train_id] / label.size)}" for train_id in found]
    gap, line = size // 2, 2 * size
    widths = [round(font.getlength(text)) + size + 3 * gap for text in texts]  # swatch, gaps and text
    places, x, y = [], 0, 0
    for wide in widths:
        if x and x + wide > width:
            x, y = 0, y + line
        places.append((x, y))
        x += wide
    strip = Image.new("RGB", (max([width, *widths]), y + line), "white")
    draw = ImageDraw.Draw(strip)
    for (x, y), text, train_id in zip(places, texts, found, strict=True):
        top = y + (line - size) // 2
        draw.rectangle((x + gap, top, x + gap + size - 1, top + size - 1), fill=classes.colours[train_id])
        draw.text((x + 2 * gap + size, y + line // 2), text, fill="black", font=font, anchor="lm")
    return strip


def _percent(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _save(picture: np.ndarray | Image.Image, path: Path) -> None:
    made = picture if isinstance(picture, Image.Image) else Image.fromarray(picture, mode="L")
    with replacing(path) as temporary:
        made.save(temporary, format="png")
