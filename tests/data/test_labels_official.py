"""Decoding the data sets' own encodings, and their quirks, each from bytes that are written here."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from flexseg.classes import CLASSES
from flexseg.data.images import decode_image, decode_label, decode_pair
from flexseg.data.label_maps import load_map
from flexseg.data.sets import load_set
from flexseg.errors import UserError

PATH = Path("x.png")


def saved(picture: Image.Image, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """As OpenCV writes it: B, G, R, of 8 or 16 bits."""
    ok, content = cv2.imencode(".png", pixels)
    assert ok
    return content.tobytes()


def test_a_palettes_index_counts_and_not_its_colour() -> None:
    """GTA5: pole and polegroup, car and licence plate have one colour. Ids beyond the table are void."""
    ids = np.array([[7, 17, 18], [26, 34, 35], [0, 33, 200]], dtype=np.uint8)
    colours = {7: (128, 64, 128), 17: (153, 153, 153), 18: (153, 153, 153), 26: (0, 0, 142), 33: (119, 11, 32)}
    picture = Image.fromarray(ids)
    picture.putpalette([channel for place in range(256) for channel in colours.get(place, (0, 0, 142))])
    found = decode_label(PATH, saved(picture), "gta5")
    assert found.tolist() == [[0, 5, 255], [13, 255, 255], [255, 18, 255]]
    with pytest.raises(UserError, match=r"x\.png is a picture of mode RGB, expected L or P"):
        decode_label(PATH, saved(picture.convert("RGB")), "gta5")


@pytest.mark.parametrize(("palette", "fits"), [("grey", True), ("classes", False)])
def test_a_palette_of_other_ids_is_noticed(palette: str, fits: bool) -> None:
    """Labels that were converted to trainIds show road, 0 now, in the colour of road."""
    ids = np.array([[7, 8, 11]], dtype=np.uint8)
    colours = [(place, place, place) if palette == "grey" else CLASSES[place % 19].colour for place in range(256)]
    picture = Image.fromarray(ids)
    picture.putpalette([channel for colour in colours for channel in colour])
    if fits:
        assert decode_label(PATH, saved(picture), "gta5").tolist() == [[0, 1, 2]]
        return
    with pytest.raises(UserError, match=r"its palette shows the id 7 in the colour \(220, 220, 0\), but road has"):
        decode_label(PATH, saved(picture), "gta5")


def test_a_palette_of_arbitrary_colours_says_nothing() -> None:
    """As of labels that were painted with the palette of another tool; only another class's colour contradicts."""
    picture = Image.fromarray(np.array([[0, 1, 18, 255]], dtype=np.uint8))
    picture.putpalette([channel for place in range(256) for channel in (place, 255 - place, 7)])
    for label_map in ("train_ids", "train_ids_void19"):
        assert decode_label(PATH, saved(picture), label_map).tolist() == [[0, 1, 18, 255]]
    picture.putpalette([channel for place in range(256) for channel in CLASSES[(place + 1) % 19].colour])
    with pytest.raises(UserError, match="its palette shows the id 0"):
        decode_label(PATH, saved(picture), "train_ids")
    mapillary = Image.fromarray(np.array([[13, 27]], dtype=np.uint8))
    mapillary.putpalette([channel for place in range(256) for channel in (place, 255 - place, 7)])
    with pytest.raises(UserError, match="its palette shows the id 13"):
        decode_label(PATH, saved(mapillary), "mapillary_daformer")


def red16(ids: np.ndarray, channels: int = 3) -> bytes:
    pixels = np.full((*ids.shape, channels), 777, dtype=np.uint16)
    pixels[:, :, 2] = ids  # B, G, R
    return png(pixels)


@pytest.mark.parametrize("channels", [3, 4])
def test_synthias_ids_are_the_red_channel_of_16_bits(channels: int) -> None:
    content = red16(np.array([[0, 3, 22], [1, 21, 14]], dtype=np.uint16), channels)
    assert decode_label(PATH, content, "synthia", "red16").tolist() == [[255, 0, 255], [10, 3, 255]]


def test_damaged_and_foreign_16_bit_labels() -> None:
    content = red16(np.arange(4000, dtype=np.uint16).reshape(40, 100) % 23)
    for broken in (content[: len(content) // 2], content[:-20], content[:70] + b"\0\0\0" + content[73:], b""):
        with pytest.raises(UserError, match=r"x\.png cannot be decoded .*damaged or truncated"):
            decode_label(PATH, broken, "synthia", "red16")
    with pytest.raises(UserError, match=r"8 bits in 3 channels, expected 16 bits.*coloured"):
        decode_label(PATH, png(np.zeros((4, 4, 3), np.uint8)), "synthia", "red16")
    with pytest.raises(UserError, match="16 bits in 1 channels"):
        decode_label(PATH, png(np.zeros((4, 4), np.uint16)), "synthia", "red16")
    with pytest.raises(UserError, match="holds the id 300 in its red channel"):
        decode_label(PATH, red16(np.array([[1, 300]], dtype=np.uint16)), "synthia", "red16")
    with pytest.raises(UserError, match="holds the id 23, which is not in the label map 'synthia'"):
        decode_label(PATH, red16(np.array([[1, 23]], dtype=np.uint16)), "synthia", "red16")


def test_camvids_colours_are_ids() -> None:
    dataset = load_set("camvid")
    layout = dataset.layout("original")
    reading = (dataset.map_of(layout), dataset.encoding_of(layout))
    colours = np.array([[[128, 64, 128], [128, 0, 192]], [[64, 128, 192], [0, 0, 0]]], dtype=np.uint8)
    assert decode_label(PATH, saved(Image.fromarray(colours)), *reading).tolist() == [[0, 0], [13, 255]]
    colours[1, 1] = (1, 2, 3)
    with pytest.raises(UserError, match=r"x\.png holds the colour \(1, 2, 3\), which is none of the 32 .*resized"):
        decode_label(PATH, saved(Image.fromarray(colours)), *reading)


def test_void_written_as_19_and_as_255() -> None:
    content = saved(Image.fromarray(np.array([[18, 19, 255]], dtype=np.uint8)))
    assert decode_label(PATH, content, "train_ids_void19").tolist() == [[18, 255, 255]]
    for label_map in ("train_ids", None):
        with pytest.raises(UserError, match="holds the id 19"):
            decode_label(PATH, content, label_map)


def test_a_licence_plate_is_void() -> None:
    """−1 in a file of 8 bits."""
    content = saved(Image.fromarray(np.array([[-1, 26]]).astype(np.uint8)))
    assert decode_label(PATH, content, "cityscapes_label_ids").tolist() == [[255, 13]]


def test_a_map_or_its_id() -> None:
    content = saved(Image.fromarray(np.array([[13, 65]], dtype=np.uint8)))
    by_id = decode_label(PATH, content, "mapillary_daformer")
    assert by_id.tolist() == decode_label(PATH, content, load_map("mapillary_daformer")).tolist() == [[0, 255]]


def test_an_alpha_channel_is_dropped() -> None:
    """UrbanSyn and SYNTHIA hold RGBA; the suite's own data stay strict."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    content, label = saved(Image.fromarray(pixels)), saved(Image.new("L", (6, 4)))
    image, _ = decode_pair(Path("i.png"), content, PATH, label, "train_ids")
    assert (image == pixels[:, :, :3]).all()
    with pytest.raises(UserError, match=r"i\.png is a picture of mode RGBA, expected RGB: "):
        decode_pair(Path("i.png"), content, PATH, label)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_label_in_the_images_place(mode: str) -> None:
    content = saved(Image.new(mode, (6, 4)))
    with pytest.raises(UserError, match=f"is a picture of mode {mode}, expected RGB or RGBA"):
        decode_pair(Path("i.png"), content, PATH, content, "gta5")


def test_exif_orientation_is_ignored() -> None:
    """Mapillary's labels are drawn on the stored pixels, whatever orientation the metadata claim."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    content = saved(Image.new("RGB", (20, 30)), "jpeg", exif=exif)
    label = saved(Image.fromarray(np.full((30, 20), 27, np.uint8)))
    image, _ = decode_pair(Path("i.jpg"), content, PATH, label, "mapillary_daformer")
    assert image.shape == (30, 20, 3)


def test_a_truncated_photograph_is_named() -> None:
    content = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "jpeg")
    with pytest.raises(UserError, match=r"i\.jpg cannot be decoded .*truncated.*unpack it again"):
        decode_image(Path("i.jpg"), content[: len(content) // 2])


def test_the_message_for_other_files_never_changes() -> None:
    for content, reason in ((b"", "it is empty"), (b"<html>404</html>", "it is no picture")):
        with pytest.raises(UserError, match=rf"i\.jpg cannot be decoded \({reason}\)"):
            decode_image(Path("i.jpg"), content)


def test_photographs_of_other_kinds() -> None:
    """Of 16 bits a channel half would be lost; four inks, or grey, are no image of any of these sets."""
    deep = np.random.default_rng(0).integers(0, 2**16, (4, 6, 3), dtype=np.uint16)
    with pytest.raises(UserError, match="16 bits a channel, of which only 8 would be used"):
        decode_image(Path("i.png"), png(deep))
    with pytest.raises(UserError, match="it is no picture"):  # Pillow would start another program
        decode_image(Path("i.png"), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for mode, kind in (("CMYK", "jpeg"), ("L", "jpeg"), ("LA", "png")):
        with pytest.raises(UserError, match=f"of mode {mode}, expected RGB or RGBA: is it .* the archive holds"):
            decode_image(Path("i.jpg"), saved(Image.new(mode, (6, 4)), kind))


def test_sizes_that_differ() -> None:
    """As GTA5's known bad pairs."""
    image, label = saved(Image.new("RGB", (20, 10))), saved(Image.new("L", (10, 20)))
    with pytest.raises(UserError, match=r"x\.png is 20×10 pixels, its image i\.png is 10×20"):
        decode_pair(Path("i.png"), image, PATH, label, "gta5")


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of this size, without its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    fields = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_pictures_of_no_or_gigantic_size_are_named() -> None:
    for size in ((0, 0), (0, 5)):
        with pytest.raises(UserError, match=r"i\.png cannot be decoded"):
            decode_image(Path("i.png"), header(*size))
    with pytest.raises(UserError, match=r"i\.png is too large for an image of a data set"):
        decode_image(Path("i.png"), header(60_000, 60_000))
    with pytest.raises(UserError, match=r"is too large for an image of a data set"):
        decode_label(PATH, header(60_000, 60_000, 16), "synthia", "red16")
    with pytest.raises(UserError, match=r"has 16 bits a channel"):
        decode_image(Path("i.png"), header(4, 4, 16))


@pytest.mark.parametrize("kind", ["jpeg", "webp", "tiff", "gif"])
def test_labels_are_read_from_png_alone(kind: str) -> None:
    """Other kinds blur ids into those of other classes, whatever the file is called."""
    content = saved(Image.fromarray(np.full((16, 16), 7, np.uint8)), kind)
    with pytest.raises(UserError, match=r"cannot be decoded .it is no PNG"):
        decode_label(PATH, content, "cityscapes_label_ids")


def test_no_other_program_is_started_for_a_picture() -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    for decode in (decode_image, decode_label):
        with pytest.raises(UserError, match=r"cannot be decoded .it is no"):
            decode(PATH, content)
