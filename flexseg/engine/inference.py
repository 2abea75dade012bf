"""Predicting at test time: an image is brought to the protocol's size and shown to the model, whole or in windows.

Images are resized bilinearly without smoothing, as in OpenCV and so mmcv, labels by nearest neighbour; both take pixel
centres at half-integers, so neither is displaced against the other.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flexseg.benchmark.blocks import Protocol, Size
from flexseg.benchmark.values import fit_into
from flexseg.classes import IGNORE
from flexseg.data.transforms import normalise
from flexseg.models.windows import windows

PIXELS = 2**21
"""Pixels that pass through the network at once, over all images or windows: one frame of Cityscapes."""


def scaled_size(size: Size, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image after ``fit`` or ``height``, before ``crop``; unchanged if there is neither.

    ``height`` cuts the width down to whole pixels, as RobustNet
    (Choi et al., CVPR 2021) does for Mapillary Vistas.
    """
    if size.fit is not None:
        return fit_into(size.fit, height, width)
    if size.height is not None:
        return size.height, width * size.height // height
    return height, width


def prepared_size(size: Size, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image as the network sees it."""
    return scaled_size(size, height, width) if size.crop is None else size.crop


def label_size(size: Size, height: int, width: int) -> tuple[int, int]:
    """Height and width at which predictions are compared with the labels."""
    return prepared_size(size, height, width) if size.labels else (height, width)


def prepare_image(image: np.ndarray, size: Size) -> np.ndarray:
    """(H, W, 3) uint8 → (H', W', 3) uint8 as the network sees it; pixels beyond the image are black."""
    return _prepare(image, size, cv2.INTER_LINEAR, 0)


def prepare_label(label: np.ndarray, size: Size) -> np.ndarray:
    """(H, W) uint8 → the label that predictions are compared with: itself unless ``size.labels``; void beyond it."""
    return _prepare(label, size, cv2.INTER_NEAREST_EXACT, IGNORE) if size.labels else label


def _prepare(pixels: np.ndarray, size: Size, interpolation: int, fill: int) -> np.ndarray:
    height, width = scaled_size(size, *pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        pixels = cv2.resize(pixels, (width, height), interpolation=interpolation)
    if size.crop is None or size.crop == (height, width):
        return pixels
    prepared = np.full((*size.crop, *pixels.shape[2:]), fill, pixels.dtype)
    source, target = [], []  # the middle of both
    for have, want in zip((height, width), size.crop, strict=True):
        kept = min(have, want)
        first, place = (have - kept) // 2, (want - kept) // 2
        source.append(slice(first, first + kept))
        target.append(slice(place, place + kept))
    prepared[tuple(target)] = pixels[tuple(source)]
    return prepared


def predict(model: Any, images: Tensor, protocol: Protocol) -> Tensor:
    """Logits (B, C, H, W) of normalised images (B, 3, H, W), shown whole or in the protocol's windows.

    Where windows overlap, their logits are averaged. As many windows as ``PIXELS`` allow are shown at once.

    Args:
        model: in eval mode, on the device of the images; its ``predict`` gives logits at the size of its input.
    """
    if protocol.window is None or protocol.stride is None:
        return model.predict(images)
    batch, _, *size = images.shape
    boxes = windows(size, protocol.window, protocol.stride)
    _, _, tall, wide = boxes[0]
    together = max(PIXELS // (batch * tall * wide), 1)
    # Classes last, as a channels-last trunk gives them: what follows is then faster on a CPU.
    total: Tensor | None = None
    seen = torch.zeros(size, device=images.device)
    for start in range(0, len(boxes), together):
        places = [(slice(y, y + tall), slice(x, x + wide)) for y, x, _, _ in boxes[start : start + together]]
        shown = torch.cat([images[:, :, rows, columns] for rows, columns in places])
        logits = model.predict(shown.contiguous(memory_format=torch.channels_last))
        if total is None:
            total = torch.zeros(batch, *size, logits.shape[1], device=images.device).permute(0, 3, 1, 2)
        for (rows, columns), part in zip(places, logits.split(batch), strict=True):
            total[:, :, rows, columns] += part
            seen[rows, columns] += 1
    assert total is not None, "an image has at least one window"
    return total.div_(seen)


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) → (B, C, *size), bilinearly; the logits themselves if they have that size."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return interpolate(logits.float(), size, mode="bilinear", align_corners=False)


@torch.inference_mode()
def predict_logits(
    model: Any, image: np.ndarray, protocol: Protocol, target: str = "", device: torch.device | str = "cpu"
) -> Tensor:
    """Logits (C, H, W) of one image (H, W, 3) uint8, on ``device``, as the protocol evaluates those of ``target``.

    They have the size of the image, or of the label where the protocol prepares the labels of ``target`` too.

    Args:
        model: in eval mode, on ``device``.
        target: the name of a target of the benchmark; without it, the protocol's general size of test images holds.
    """
    size = protocol.size_of(target)
    images = torch.from_numpy(normalise(prepare_image(image, size)[None])).to(device)
    return resize_logits(predict(model, images, protocol), label_size(size, *image.shape[:2]))[0]
