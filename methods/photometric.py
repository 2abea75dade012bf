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

import numpy as np

from flexseg.data.photometric import HUES, photometric_distortion
from flexseg.method import Method, option


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
        changed = photometric_distortion(
            image, rng, options.brightness, options.contrast, options.saturation, options.hue, options.probability
        )
        return changed, label
