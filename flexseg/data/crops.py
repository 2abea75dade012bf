"""From a whole training image to a crop: choose the window and change the colours, as the benchmark's recipe says.

A part that ``training`` in the benchmark file does not name is off: nothing is computed or drawn for it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flexseg.benchmark.schedule import RareClasses, RareSubset, Rule, Training, rule_for
from flexseg.classes import IGNORE, NUM_CLASSES
from flexseg.data.photometric import jitter_and_blur, photometric_distortion
from flexseg.data.sampling import NO_CLASS
from flexseg.data.transforms import Window, random_window
from flexseg.errors import RunError

RETRIES = 10
"""How often a crop is redrawn, both for its class and for the share of the largest class; the last one is used."""

COLOURS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "mmseg": photometric_distortion,
    "jitter_blur": jitter_and_blur,
}
"""What ``training.photometric`` names."""


def prepare(
    image: np.ndarray,
    label: np.ndarray,
    wanted: int,
    training: Training,
    rng: np.random.Generator,
    *,
    generated: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Crop a training image and change its colours, as the recipe says.

    Args:
        image: (H, W, 3) uint8. label: (H, W) uint8 trainIds. wanted: the class for which the image was drawn, or -1.
        generated: whether it is a generated image, which may be drawn by a rule of its own.

    Returns:
        (crop_h, crop_w, 3) uint8 and (crop_h, crop_w) uint8, new arrays.
    """
    window, cut = choose_crop(label, wanted, training, rng, rule_for(training.sampling, generated=generated))
    pixels = window.cut_image(image)
    if training.photometric is not None:
        pixels = COLOURS[training.photometric](pixels, rng)
    return pixels, cut


def choose_crop(
    label: np.ndarray, wanted: int, training: Training, rng: np.random.Generator, rule: Rule | None
) -> tuple[Window, np.ndarray]:
    """Draw crops until one shows enough of the class ``wanted``, up to :data:`RETRIES` times: the window and its label.

    Rare class sampling asks for more than ``min_crop_pixels`` of it (Hoyer et al., DAFormer, CVPR 2022: half of what
    an image must have). Class-uniform sampling places the crop around a pixel of the class, drawn among all of them
    (RobustNet: around the centre of the class in a tile of the image).
    """
    if wanted == NO_CLASS:
        return _draw_mixed_crop(label, training, rng, None)
    least, places = 0, None
    if isinstance(rule, RareClasses | RareSubset):
        least = rule.min_crop_pixels
    else:
        places = np.flatnonzero(label == wanted)
    for _ in range(1 + RETRIES):
        focus = None
        if places is not None and len(places):  # resizing an image may remove a few pixels of a class
            row, column = divmod(int(places[rng.integers(len(places))]), label.shape[1])
            focus = (row, column)
        window, cut = _draw_mixed_crop(label, training, rng, focus)
        if np.count_nonzero(cut == wanted) > least:
            break
    return window, cut


def _draw_mixed_crop(
    label: np.ndarray, training: Training, rng: np.random.Generator, focus: tuple[int, int] | None
) -> tuple[Window, np.ndarray]:
    """Draw a crop in which no class has ``max_class_share`` of the labelled pixels (mmseg's ``cat_max_ratio``).

    It must have two classes. The whole window is redrawn, including its scale and mirroring.
    """
    retries = 0 if training.max_class_share is None else RETRIES
    for attempt in range(1 + retries):
        window = random_window(label.shape, training.crop, training.scale, training.flip, rng, focus)
        cut = window.cut_label(label)
        if attempt == retries:
            break
        counts = np.bincount(cut.ravel(), minlength=256)[:IGNORE]
        if np.count_nonzero(counts) > 1 and counts.max() < (training.max_class_share or 1.0) * counts.sum():
            break
    return window, cut


def check_ids(label: np.ndarray, image: str, num_classes: int = NUM_CLASSES) -> None:
    """Check that a label holds only the ids of the classes and void: a loss must never see others.

    Raises:
        RunError: it holds others; names them and the image.
    """
    if ((label >= num_classes) & (label != IGNORE)).any():
        wrong = sorted(set(np.unique(label).tolist()) - {*range(num_classes), IGNORE})
        raise RunError(f"the label of {image} holds {wrong}, which are no classes: is its label map the right one?")
