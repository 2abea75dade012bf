"""Photometric distortion: brightness, contrast, saturation and hue at random, and nothing else; a plain control.

What a method of style randomisation gains must be seen beside what changing colours at random gains. The distortion is
that of SSD (Liu et al., *SSD: Single Shot MultiBox Detector*, ECCV 2016, its data augmentation), which mmsegmentation's
recipes share. Each of four changes is made with probability ½, on levels x in 0–255, in this order:

    brightness x + δ, δ ~ U(−32, 32)      contrast x · γ, γ ~ U(0.5, 1.5)
    saturation S · s, s ~ U(0.5, 1.5)     hue H + h mod 180, h ~ U{−18, …, 18}

with the contrast second or, half of the time, last. S and H are those of OpenCV's 8-bit HSV (a step of hue is 2°);
levels are clipped and rounded after every change. The ranges do not depend on the image's size: nothing had to shrink.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from flexseg.method import Method, option

LEVELS = np.arange(256)
HUES = 180
"""The number of hues in OpenCV's 8-bit HSV, 2° apart."""


def _look_up(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def distort(
    image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: int, contrast_last: bool
) -> np.ndarray:
    """The changes with these values: (H, W, 3) uint8 RGB to the same.

    ``brightness`` is added (0 changes nothing), ``contrast`` and ``saturation`` are factors (1 changes nothing),
    ``hue`` is added in OpenCV's steps.
    """
    if brightness:
        image = cv2.LUT(image, _look_up(LEVELS + brightness))
    if not contrast_last and contrast != 1:
        image = cv2.LUT(image, _look_up(LEVELS * contrast))
    if saturation != 1 or hue:  # the way to HSV and back alone would change levels
        tables = np.stack([(LEVELS + hue) % HUES, _look_up(LEVELS * saturation), LEVELS], axis=-1).astype(np.uint8)
        image = cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables[None]), cv2.COLOR_HSV2RGB)
    if contrast_last and contrast != 1:
        image = cv2.LUT(image, _look_up(LEVELS * contrast))
    return image


class Photometric(Method):
    name = "photometric"
    title = "Photometric distortion"
    paper = "Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016 (its augmentation of colours)"

    @dataclass(frozen=True)
    class Options:
        brightness: float = option(32.0, "largest shift of brightness, in levels of 0–255")
        contrast: tuple[float, float] = option((0.5, 1.5), "range of the factor of contrast")
        saturation: tuple[float, float] = option((0.5, 1.5), "range of the factor of saturation")
        hue: int = option(18, "largest turn of hue, in steps of 2°")
        probability: float = option(0.5, "of each of the four changes")

        def __post_init__(self) -> None:
            if not 0 <= self.probability <= 1:
                raise ValueError(f"probability must lie between 0 and 1, not {self.probability}")
            if self.brightness < 0 or not 0 <= self.hue <= HUES // 2:
                raise ValueError(f"brightness must not be negative and hue lie between 0 and {HUES // 2}: {self}")
            for name in ("contrast", "saturation"):
                low, high = getattr(self, name)
                if not 0 <= low <= high:
                    raise ValueError(f"{name} must be a range of factors, the lower first, not {low}, {high}")

    def transform(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        options = self.options
        happens = rng.random(4) < options.probability
        brightness = rng.uniform(-options.brightness, options.brightness) if happens[0] else 0.0
        contrast = rng.uniform(*options.contrast) if happens[1] else 1.0
        saturation = rng.uniform(*options.saturation) if happens[2] else 1.0
        hue = int(rng.integers(-options.hue, options.hue, endpoint=True)) if happens[3] else 0
        return distort(image, brightness, contrast, saturation, hue, bool(rng.integers(2))), label
