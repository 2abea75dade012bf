"""A user's own images: read as a person sees them, predicted by the run's protocol, bad ones reported at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import flexseg.tasks.predict as module
from flexseg.benchmark import Benchmark, Protocol, Run
from flexseg.classes import CITYSCAPES, scored_classes
from flexseg.errors import UserError
from flexseg.tasks.predict import adapt_protocol, find_images, output_names, overlay, predict_images, read_photo

ORIENTATION = 0x0112


def scene(height: int = 20, width: int = 30) -> np.ndarray:
    """(H, W, 3) uint8, with no two corners alike."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # taken with the camera on its side: turn clockwise to see it upright
    Image.fromarray(scene()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_photo(tmp_path / "turned.png"), np.rot90(scene(), -1))


def test_every_kind_of_image_becomes_rgb(tmp_path: Path) -> None:
    grey = scene()[:, :, 0]
    stacked = np.repeat(grey[:, :, None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    alpha = np.where(np.arange(30) < 10, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([scene(), np.tile(alpha, (20, 1))])).save(tmp_path / "rgba.png")
    Image.fromarray(scene()).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(scene()).convert("P").save(tmp_path / "palette.png")

    assert np.array_equal(read_photo(tmp_path / "grey.png"), stacked)
    assert np.array_equal(read_photo(tmp_path / "deep.png"), stacked)
    rgba = read_photo(tmp_path / "rgba.png")
    assert np.array_equal(rgba[:, 10:], scene()[:, 10:])
    assert (rgba[:, :10] == module.BEHIND).all()
    for name in ("cmyk.jpg", "palette.png"):
        assert read_photo(tmp_path / name).shape == (20, 30, 3)


def test_folders_are_searched_and_names_stay_distinct(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "a.jpeg", "notes.txt", "a_overlay.png", "a_trainIds.png"):
        (tmp_path / name).touch()
    files = list(find_images([tmp_path, Path("elsewhere/a_2.png"), Path("odd.xyz")]))
    assert [path.name for path in files] == ["a.jpeg", "a.png", "b.JPG", "a_2.png", "odd.xyz"]
    assert output_names(files) == ["a", "a_2", "b", "a_2_2", "odd"]


def test_overlays_blend_and_name_the_classes_that_are_there() -> None:
    photo, label = scene(40, 300), np.full((40, 300), 13, np.uint8)
    label[0, 0] = 10
    sheet = np.asarray(overlay(photo, label, scored_classes(CITYSCAPES)))
    assert sheet.shape[0] > 40
    assert sheet.shape[1] == 300
    assert np.abs(sheet[5, 7] - (photo[5, 7] + np.array([0, 0, 142.0])) / 2).max() <= 0.5
    colours = {tuple(colour) for colour in sheet[40:].reshape(-1, 3)}
    assert {(0, 0, 142), (70, 130, 180)} <= colours, "car and sky are in the legend"
    assert (128, 64, 128) not in colours, "road is not"
    narrow = np.asarray(overlay(photo[:, :8], label[:, :8], scored_classes(CITYSCAPES)))
    assert narrow.shape[1] > 8, "the legend is never cut off"
    assert (narrow[:40, 8:] == 255).all()


def test_the_whole_image_is_shown_at_the_protocols_size(smoke: Benchmark) -> None:
    sizes = {"night": {"height": 32, "crop": (32, 32), "labels": True}}
    protocol = Protocol(**(smoke.protocol.model_dump() | {"size": {"fit": (64, 128)}, "sizes": sizes}))
    assert adapt_protocol(protocol).size_of("") == protocol.size
    night = adapt_protocol(protocol, "night").size_of("")
    assert (night.height, night.crop, night.labels) == (32, None, False)
    assert adapt_protocol(protocol, "night", height=50).size_of("").height == 50


class Brightest(torch.nn.Module):
    """Calls bright pixels sky and others wall, without weights; too small images make it fail as a network would."""

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[2] < 8:
            raise RuntimeError("Kernel size can't be greater\nthan actual input size")
        logits = torch.full((len(images), 19, *images.shape[2:]), -9.0)
        logits[:, 10] = images.mean(dim=1)
        logits[:, 3] = 0
        return logits


@pytest.fixture
def camvid(smoke: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Smoke with CamVid's classes, whose one run is :class:`Brightest`."""
    monkeypatch.setattr(Run, "trained", True)
    monkeypatch.setattr(module, "load_trained", lambda *_: Brightest())
    update = {"classes": "camvid11", "size": {"height": 40}}
    return smoke.model_copy(update={"protocol": Protocol(**(smoke.protocol.model_dump() | update))})


def predicted(benchmark: Benchmark, images: list[Path], output: Path, **options: Any) -> list[Path]:
    return predict_images(Run(benchmark, "dginstyle", 0, Path("results")), images, output, **options)


def test_label_maps_have_the_images_size_and_the_protocols_classes(camvid: Benchmark, tmp_path: Path) -> None:
    image = np.zeros((33, 47, 3), np.uint8)
    image[:12] = 255
    Image.fromarray(image).save(tmp_path / "street.png")
    assert predicted(camvid, [tmp_path / "street.png"], tmp_path / "out") == [tmp_path / "out/street_overlay.png"]
    with Image.open(tmp_path / "out/street_trainIds.png") as opened:
        assert opened.mode == "L"
        label = np.asarray(opened)
    assert label.shape == (33, 47)
    assert (label[:11] == 10).all()
    assert (label[13:] == 2).all(), "a wall is a building to CamVid"


def test_bad_images_are_named_and_the_others_go_on(camvid: Benchmark, tmp_path: Path) -> None:
    Image.fromarray(scene(600, 800)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:20_000])
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(scene()).save(tmp_path / "z.png")
    files = [tmp_path / name for name in ("cut.jpg", "text.png", "missing.png", "a.jpg", "z.png")]
    with pytest.raises(UserError) as caught:
        predicted(camvid, files, tmp_path / "out")
    text = str(caught.value)
    assert text.startswith(f"3 of 5 images failed, the other 2 are in {tmp_path / 'out'}:")
    assert "cut.jpg is damaged (" in text
    assert "text.png is not a readable picture" in text
    assert "missing.png does not exist" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_overlay.png", "a_trainIds.png", "z_overlay.png", "z_trainIds.png"
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"nothing was written[^$]*z.png \(20×30 pixels\) cannot be predicted: Kernel"):
        predicted(camvid, [tmp_path / "z.png"], tmp_path / "none", height=7)
    with pytest.raises(UserError, match="no image"):
        predicted(camvid, [tmp_path / "out"], tmp_path / "none")


def test_long_and_odd_names_lose_no_image(tmp_path: Path) -> None:
    names = ["x" * 250, "x" * 249 + "y", "字" * 80, "a b", "a%20b", "a\nb", "a"]
    found = output_names([tmp_path / f"{name}.png" for name in names])
    assert len(set(found)) == len(names)
    assert all(len(os.fsencode(f".{name}_trainIds.png")) <= 255 for name in found)
    assert found[3:] == names[3:], "a name that fits stays as it is"
    fifo = tmp_path / "pipe.png"
    os.mkfifo(fifo)
    with pytest.raises(UserError, match=r"pipe\.png is no file"):
        read_photo(fifo)
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(UserError, match=r"script\.png is not a readable picture"):
        read_photo(tmp_path / "script.png")


def test_one_bad_name_or_picture_loses_no_other(camvid: Benchmark, tmp_path: Path) -> None:
    places = [
        tmp_path / name for name in (os.fsdecode(b"caf\xe9.png"), "a\nb.png", f"{'x' * 251}.png", "r_overlay.png")
    ]
    for place in places:
        Image.fromarray(scene(40, 60)).save(place, format="png")
    Image.new("LAB", (40, 60)).save(tmp_path / "lab.tif")
    files = [*find_images([tmp_path]), tmp_path / ("y" * 300 + ".png"), tmp_path / "gone\x1b[2J.png"]
    with pytest.raises(UserError) as caught:
        predicted(camvid, files, tmp_path / "out")
    text = str(caught.value)
    assert text.startswith("2 of 7 images failed, the other 5 are in")
    assert "yyy.png: the name is longer than the file system allows" in text
    assert "gone\\x1b[2J.png does not exist" in text
    assert "\x1b" not in text
    assert len(list((tmp_path / "out").iterdir())) == 10
    again = list(find_images([tmp_path, tmp_path / "out"]))
    assert len(again) == 5, "our own output is told from an image that is only called like it"
