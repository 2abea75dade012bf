"""RandAugment without geometry: a few random changes of colour and sharpness for every image; a control.

A method of domain generalisation should gain more than a strong general augmentation does. The policy is RandAugment's
(Cubuk et al., *RandAugment: Practical Automated Data Augmentation with a Reduced Search Space*, CVPR-W 2020): N
operations are drawn evenly, with replacement, and applied with one strength s = M/10. Published for ImageNet and a
ResNet-50: N = 2, M = 9. Its shears, shifts and rotations are left out, so that no row
differs from another in geometry; blur and noise are added (**assumed**), as is common in segmentation:

    identity, autocontrast, equalize         as they are
    color, contrast, brightness, sharpness   blended with grey, with the mean grey, with black, with a smoothed image:
                                             d + f·(x − d), f = 1 ± 0.9·s with a random sign (published: 0.1 to 1.9)
    posterize                                8 − round(4·s) bits per channel (published: 4 to 8)
    solarize                                 levels from 256·(1 − s) on are inverted (published: thresholds 0 to 256)
    blur                                     Gaussian, standard deviation ``blur``·s pixels
    noise                                    Gaussian, standard deviation ``noise``·s levels, for each channel

That every operation grows from nothing at M = 0, and that blends go both ways, is **assumed**: the published ranges are
walked from end to end, from less colour to more and from harsh to mild posterizing. A blur of one pixel fits the small
images of the street world; it had to shrink with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from flexseg.method import Method, option

FULL = 10
"""The magnitude M of full strength."""

Operation = Callable[[np.ndarray, float, Any, np.random.Generator], np.ndarray]
"""Image (H, W, 3) uint8, strength s, the method's options and a generator → image (H, W, 3) uint8."""


def _apply(change: Callable[..., Image.Image]) -> Operation:
    return lambda image, strength, options, rng: np.array(change(Image.fromarray(image)))


def _blend(enhancer: Callable[[Image.Image], Any]) -> Operation:
    def blend(image: np.ndarray, strength: float, options: Any, rng: np.random.Generator) -> np.ndarray:
        factor = 1 + rng.choice([-1, 1]) * 0.9 * strength
        return np.array(enhancer(Image.fromarray(image)).enhance(factor))

    return blend


def _posterize(image: np.ndarray, strength: float, options: Any, rng: np.random.Generator) -> np.ndarray:
    return image & np.uint8(256 - 2 ** round(4 * strength))


def _solarize(image: np.ndarray, strength: float, options: Any, rng: np.random.Generator) -> np.ndarray:
    return np.where(image >= 256 * (1 - strength), 255 - image, image)


def _blur(image: np.ndarray, strength: float, options: Any, rng: np.random.Generator) -> np.ndarray:
    sigma = options.blur * strength
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image


def _noise(image: np.ndarray, strength: float, options: Any, rng: np.random.Generator) -> np.ndarray:
    noise = options.noise * strength * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength, options, rng: image,
    "autocontrast": _apply(ImageOps.autocontrast),
    "equalize": _apply(ImageOps.equalize),
    "color": _blend(ImageEnhance.Color),
    "contrast": _blend(ImageEnhance.Contrast),
    "brightness": _blend(ImageEnhance.Brightness),
    "sharpness": _blend(ImageEnhance.Sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "blur": _blur,
    "noise": _noise,
}


class RandAugment(Method):
    name = "randaugment"
    title = "RandAugment without geometry"
    paper = "Cubuk et al., RandAugment, CVPR-W 2020"

    @dataclass(frozen=True)
    class Options:
        operations: int = option(2, "N, operations per image")
        magnitude: float = option(9.0, "M, their strength, of 10")
        blur: float = option(1.0, "standard deviation of the blur at M = 10, in pixels", origin="assumed")
        noise: float = option(25.0, "standard deviation of the noise at M = 10, in levels of 0–255", origin="assumed")

        def __post_init__(self) -> None:
            if self.operations < 0 or not 0 <= self.magnitude <= FULL:
                raise ValueError(f"operations must not be negative and magnitude lie between 0 and {FULL}: {self}")
            if self.blur < 0 or self.noise < 0:
                raise ValueError(f"blur and noise must not be negative: {self}")

    def transform(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        names = list(OPERATIONS)
        for place in rng.integers(len(names), size=self.options.operations):
            image = OPERATIONS[names[place]](image, self.options.magnitude / FULL, self.options, rng)
        return image, label
