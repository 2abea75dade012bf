"""Test-time sizes against mmcv, windows against mmseg's own sliding inference and against a loop over pixels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import interpolate

from flexseg.benchmark.blocks import Protocol, Size
from flexseg.data.transforms import normalise
from flexseg.engine import inference
from flexseg.engine.inference import (
    label_size,
    predict,
    predict_logits,
    prepare_image,
    prepare_label,
    prepared_size,
    scaled_size,
)


class Surroundings(nn.Module):
    """Logits of a pixel's colour, of the mean of what is shown and of the place in it: every window tells its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(19, 3, generator=torch.Generator().manual_seed(0))
        self.shown: list[tuple[int, ...]] = []

    def predict(self, images: Tensor) -> Tensor:
        self.shown.append(tuple(images.shape))
        logits = torch.einsum("kc,bchw->bkhw", self.weight, images - images.mean(dim=(2, 3), keepdim=True))
        rows, columns = torch.arange(images.shape[2])[:, None], torch.arange(images.shape[3])[None]
        return logits + 0.01 * (rows + 3 * columns)


def slide(window: tuple[int, int], stride: tuple[int, int]) -> Protocol:
    return Protocol(id="slide", boundary_band=2, inference="slide", window=window, stride=stride)


def of_size(size: Size) -> Protocol:
    return Protocol(id="sized", boundary_band=2, size=size)


@given(st.integers(20, 6000), st.integers(20, 6000), st.sampled_from([(512, 1024), (1024, 2048), (540, 960)]))
@settings(max_examples=200)
def test_fit_is_mmcvs_rescale_size(height: int, width: int, fit: tuple[int, int]) -> None:
    from mmcv.image import rescale_size

    assert scaled_size(Size(fit=fit), height, width) == rescale_size((width, height), fit)[::-1]


@pytest.mark.parametrize(
    ("size", "original", "prepared"),
    [
        (Size(), (375, 1242), (375, 1242)),
        (Size(fit=(512, 1024)), (1024, 2048), (512, 1024)),  # Cityscapes
        (Size(fit=(512, 1024)), (720, 1280), (512, 910)),  # BDD100K: 910.2
        (Size(fit=(512, 1024)), (2448, 3264), (512, 683)),  # Mapillary: 682.7 is rounded up
        (Size(fit=(512, 1024)), (3264, 2448), (683, 512)),  # on its side
        (Size(fit=(540, 960)), (1080, 1920), (540, 960)),  # ACDC, Dark Zurich
        (Size(height=1536), (2448, 3264), (1536, 2048)),
        (Size(height=1536), (1080, 1920), (1536, 2730)),  # RobustNet cuts 2730.7 down
        (Size(height=1536, crop=(1536, 1536), labels=True), (1080, 1920), (1536, 1536)),
    ],
)
def test_prepared_sizes(size: Size, original: tuple[int, int], prepared: tuple[int, int]) -> None:
    assert prepared_size(size, *original) == prepared
    assert label_size(size, *original) == (prepared if size.labels else original)
    assert prepare_image(np.zeros((*original, 3), np.uint8), size).shape == (*prepared, 3)


def test_crop_cuts_from_the_middle_and_fills_up_with_black_and_void() -> None:
    image = np.full((4, 7, 3), 9, np.uint8)
    image[1:3, :] = np.arange(7)[None, :, None]
    label = image[..., 0].copy()
    size = Size(crop=(8, 3), labels=True)
    found, found_label = prepare_image(image, size), prepare_label(label, size)
    expected = np.zeros((8, 3, 3), np.uint8)
    expected[2:6] = image[:, 2:5]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_label[2:6], label[:, 2:5])
    assert (found_label[[0, 1, 6, 7]] == 255).all()


@pytest.mark.parametrize("height", [10, 15, 30, 60])
def test_image_and_label_are_not_displaced_against_each_other(height: int) -> None:
    label = np.zeros((30, 60), np.uint8)
    label[:, 20:40] = 1
    size = Size(height=height, labels=True)
    image = prepare_image(np.repeat(255 * label[..., None], 3, axis=2), size)
    np.testing.assert_array_equal(prepare_label(label, size), image[..., 0] > 127)


def test_labels_stay_as_they_are_unless_the_protocol_prepares_them() -> None:
    label = np.zeros((30, 60), np.uint8)
    assert prepare_label(label, Size(height=10)) is label


@pytest.mark.parametrize("pixels", [1, 1000, 2**21])
@pytest.mark.parametrize("size", [(20, 40), (21, 43), (12, 40), (9, 11), (13, 16)])
def test_sliding_windows_are_those_of_mmseg(
    size: tuple[int, int], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmseg.models.segmentors import EncoderDecoder

    monkeypatch.setattr(inference, "PIXELS", pixels)
    model = Surroundings()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    theirs = SimpleNamespace(
        test_cfg=SimpleNamespace(stride=(8, 11), crop_size=(12, 16)),
        out_channels=19,
        encode_decode=lambda crop, _: model.predict(crop),
    )
    expected = EncoderDecoder.slide_inference(theirs, images, [{}])
    one_by_one = len(model.shown)
    found = predict(model, images, slide((12, 16), (8, 11)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    together = max(pixels // (2 * min(12, size[0]) * min(16, size[1])), 1)
    assert len(model.shown) - one_by_one == -(-one_by_one // together), "several windows a forward"


def test_sliding_against_a_loop_over_pixels() -> None:
    model = Surroundings()
    image = np.random.default_rng(0).integers(0, 256, (11, 17, 3), dtype=np.uint8)
    found = predict_logits(model, image, slide((6, 8), (4, 5))).numpy()
    normalised = torch.from_numpy(np.ascontiguousarray(normalise(image[None])))
    windows = [(y, x) for y in (0, 4, 5) for x in (0, 5, 9)]
    answers = {(y, x): model.predict(normalised[:, :, y : y + 6, x : x + 8])[0].numpy() for y, x in windows}
    for i, j in np.ndindex(11, 17):
        seen = [a[:, i - y, j - x] for (y, x), a in answers.items() if y <= i < y + 6 and x <= j < x + 8]
        np.testing.assert_allclose(found[:, i, j], np.mean(seen, axis=0), rtol=1e-4, atol=1e-4)


def test_logits_have_the_size_of_the_label() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    model = Surroundings()
    found = predict_logits(model, image, of_size(Size(fit=(16, 32))))
    assert model.shown == [(1, 3, 16, 27)]
    small = model.predict(torch.from_numpy(normalise(prepare_image(image, Size(fit=(16, 32)))[None])))
    torch.testing.assert_close(found, interpolate(small, (30, 50), mode="bilinear", align_corners=False)[0])


def test_each_target_has_its_size() -> None:
    image = np.zeros((30, 50, 3), np.uint8)
    whole = Protocol(id="x", boundary_band=2, sizes={"other": Size(height=15, crop=(16, 16), labels=True)})
    assert predict_logits(Surroundings(), image, whole).shape == (19, 30, 50)
    assert predict_logits(Surroundings(), image, whole, "target").shape == (19, 30, 50)
    assert predict_logits(Surroundings(), image, whole, "other").shape == (19, 16, 16)
