"""The index of a domain: what it records, and one clear message for each kind of bad file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flexseg.data.index import INDEX_NAME, Index, read_index, write_index
from flexseg.data.pool import open_pool
from flexseg.errors import UserError

Counts = dict[str, int]


def test_index_records_every_pair(domain: Any, counts: Counts) -> None:
    index = domain.index(counts)
    table = index.table
    assert index.fingerprint == "abc"
    assert table["id"].tolist() == ["a", "b", "c", "d", "e", "f"]
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert table["condition"].tolist() == ["clear", "clear", "fog", "fog", "clear", "clear"]
    assert table["height"].tolist() == [6] * 4 + [5] * 2
    assert table["width"].tolist() == [8] * 4 + [9] * 2
    for row in table.itertuples():
        assert hashlib.sha256((index.root / row.image).read_bytes()).hexdigest() == row.sha256
        assert hashlib.sha256((index.root / row.label).read_bytes()).hexdigest() == row.label_sha256
    again = read_index(domain.root, "abc")
    pd.testing.assert_frame_equal(again.table, table)
    assert (again.root, again.label_map, again.encoding) == (domain.root, "", "index")
    assert index.split("test")["id"].tolist() == ["e", "f"]
    with pytest.raises(UserError, match="no images in its split 'val'"):
        index.split("val")


def test_index_counts_the_pixels_of_each_class(domain: Any, counts: Counts) -> None:
    table = domain.index(counts).table
    for row in table.itertuples():
        label = np.asarray(Image.open(domain.root / row.label))
        assert row.class_pixels.dtype == np.int64
        assert row.class_pixels.tolist() == [int((label == c).sum()) for c in range(19)]
    assert np.stack(table["class_pixels"]).shape == (6, 19)


def test_index_of_data_in_another_folder(domain: Any, counts: Counts, tmp_path: Path) -> None:
    table = domain.index(counts).table
    write_index(tmp_path / "elsewhere", Index(domain.root, "xyz", table, "cityscapes_ids", "red16"))
    index = read_index(tmp_path / "elsewhere", "xyz", root=domain.root)
    assert (index.root, index.label_map, index.encoding) == (domain.root, "cityscapes_ids", "red16")
    pd.testing.assert_frame_equal(index.table, table)
    assert (index.root / index.table["image"][0]).is_file()


def test_index_of_an_earlier_version(domain: Any, counts: Counts) -> None:
    domain.index(counts)
    path = domain.root / INDEX_NAME
    older = pq.read_table(path).drop_columns("class_pixels").replace_schema_metadata({"fingerprint": "abc"})
    pq.write_table(older, path)
    with pytest.raises(UserError, match=r"earlier version .*lacks class_pixels.*write the domain again"):
        read_index(domain.root, "abc")


def test_building_twice_writes_the_same_bytes(domain: Any, counts: Counts) -> None:
    domain.index(counts)
    first = (domain.root / INDEX_NAME).read_bytes()
    domain.index(counts)
    assert (domain.root / INDEX_NAME).read_bytes() == first


def test_digest_is_that_of_the_data_alone(domain: Any, counts: Counts) -> None:
    digest = domain.index(counts).digest
    assert domain.index(counts, "another").digest == digest
    domain.write("a")
    assert domain.index(counts).digest != digest


def test_image_without_label(domain: Any, counts: Counts) -> None:
    domain.label("c", condition="fog").unlink()
    with pytest.raises(UserError, match=r"1 of 4 .* have no label, first .*c_leftImg8bit\.png: write the domain again"):
        domain.index(counts)
    assert not (domain.root / INDEX_NAME).exists()


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("keep", [0, 20, 0.5, -1])
def test_truncated_png(domain: Any, counts: Counts, kind: str, keep: float) -> None:
    path = getattr(domain, kind)("b")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if 0 < keep < 1 else int(keep)] if keep != -1 else b"no png")
    with pytest.raises(
        UserError, match=rf"(?s){path.name} cannot be decoded .*damaged or trunc.*Write the domain again"
    ):
        domain.index(counts)


def test_png_with_a_damaged_byte(domain: Any, counts: Counts) -> None:
    path = domain.image("a")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"a_leftImg8bit.png cannot be decoded"):
        domain.index(counts)


@pytest.mark.parametrize("wrong", [19, 33, 254])
def test_label_with_an_unknown_id(domain: Any, counts: Counts, save_png: Callable[..., None], wrong: int) -> None:
    ids = np.full((6, 8), 255, np.uint8)
    ids[2, 3] = wrong
    save_png(domain.label("b"), ids)
    with pytest.raises(UserError, match=rf"b_gtFine_labelTrainIds\.png holds the id {wrong}: .*0–18.*255"):
        domain.index(counts)


def test_label_of_another_size(domain: Any, counts: Counts, save_png: Callable[..., None]) -> None:
    save_png(domain.label("b"), np.zeros((8, 6), np.uint8))
    with pytest.raises(UserError, match=r"b_gtFine.* is 8×6 pixels, its image b_left.* is 6×8"):
        domain.index(counts)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_image_of_another_mode(domain: Any, counts: Counts, save_png: Callable[..., None], mode: str) -> None:
    path = domain.image("a")
    pixels = np.zeros((6, 8, 3), np.uint8)
    if mode == "CMYK":  # PNG has none
        Image.fromarray(pixels).convert("CMYK").save(path, format="jpeg")
    else:
        save_png(path, pixels, mode)
    with pytest.raises(UserError, match=f"a_leftImg8bit.png is a picture of mode {mode}, expected RGB"):
        domain.index(counts)


@pytest.mark.parametrize("mode", ["RGB", "I;16", "1", "LA"])
def test_label_of_another_mode(domain: Any, counts: Counts, mode: str) -> None:
    array = {"RGB": np.zeros((6, 8, 3), np.uint8), "I;16": np.zeros((6, 8), np.uint16)}.get(mode)
    picture = Image.fromarray(array) if array is not None else Image.new(mode, (8, 6))
    picture.save(domain.label("a"))
    with pytest.raises(UserError, match=r"a_gtFine_labelTrainIds\.png is a picture of mode"):
        domain.index(counts)


def test_palette_label_is_read_by_its_index(domain: Any, counts: Counts) -> None:
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8) % 19
    picture = Image.fromarray(ids)
    picture.putpalette([value for c in range(256) for value in (255 - c, c, 7)])
    assert picture.mode == "P"
    picture.save(domain.label("a"))
    pool = open_pool([(domain.index(counts), "train")])
    np.testing.assert_array_equal(pool.labels[0], ids)


@pytest.mark.parametrize("expected", [3, 5])
def test_wrong_number_of_images(domain: Any, expected: int) -> None:
    with pytest.raises(
        UserError, match=f"holds 4 of the {expected} images of Street world, train: write the domain again"
    ):
        domain.index({"train": expected})


def test_split_without_a_folder(domain: Any) -> None:
    with pytest.raises(UserError, match="holds 0 of the 2 images of Street world, val"):
        domain.index({"val": 2})


def test_missing_index(domain: Any) -> None:
    with pytest.raises(UserError, match="does not exist: write the domain first with `flexseg dataset`"):
        read_index(domain.root)


def test_no_changed_byte_passes_in_silence(domain: Any, counts: Counts) -> None:
    index = domain.index(counts)
    path = domain.root / INDEX_NAME
    content, refused = path.read_bytes(), 0
    for place in range(4, len(content) - 8, 37):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            found = read_index(domain.root)
        except UserError:
            refused += 1
        else:  # bytes that mean nothing, such as statistics
            assert found.table.map(str).equals(index.table.map(str))
            assert (found.fingerprint, found.label_map) == (index.fingerprint, index.label_map)
    assert refused


def test_notes_are_kept_beside_the_data(domain: Any, counts: Counts) -> None:
    index = domain.index(counts)
    write_index(domain.root, replace(index, notes=("1 image has no label",)))
    found = read_index(domain.root)
    assert found.notes == ("1 image has no label",)
    assert found.digest == index.digest


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_damaged_index(domain: Any, counts: Counts, keep: float) -> None:
    domain.index(counts)
    path = domain.root / INDEX_NAME
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if 0 < keep < 1 else int(keep)])
    with pytest.raises(UserError, match=r"cannot be read .*delete it and run `flexseg dataset` again"):
        read_index(domain.root)


def test_index_of_another_definition(domain: Any, counts: Counts) -> None:
    domain.index(counts)
    with pytest.raises(UserError, match=r"another definition \(abc, expected xyz\)"):
        read_index(domain.root, "xyz")
    pq.write_table(pa.table({"id": ["a"]}), domain.root / INDEX_NAME)
    with pytest.raises(UserError, match=r"another definition \(unknown, expected xyz\)"):
        read_index(domain.root, "xyz")


def test_pool_holds_the_pixels_in_order(domain: Any, counts: Counts) -> None:
    index = domain.index(counts)
    seen: list[int] = []
    pool = open_pool([(index, "test"), (index, "train")], progress=seen.append)
    assert len(pool) == sum(seen) == 6
    assert pool.ids == ["e", "f", "a", "b", "c", "d"]
    assert pool.conditions == ["clear"] * 4 + ["fog"] * 2
    assert pool.origins.tolist() == [0, 0, 1, 1, 1, 1]
    assert pool.origins.dtype == np.int8
    np.testing.assert_array_equal(pool.images[2], np.asarray(Image.open(domain.image("a"))))
    np.testing.assert_array_equal(pool.labels[5], np.asarray(Image.open(domain.label("d", condition="fog"))))
    assert {image.dtype for image in pool.images + pool.labels} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("kind", ["image", "label"])
def test_file_that_changed_after_indexing(domain: Any, counts: Counts, kind: str) -> None:
    index = domain.index(counts)
    path = getattr(domain, kind)("b")
    picture = np.asarray(Image.open(path)).copy()
    picture[0, 0] = 18 - picture[0, 0] % 19
    Image.fromarray(picture).save(path)
    with pytest.raises(UserError, match=f"{path.name} is not the file that was indexed"):
        open_pool([(index, "train")])


@pytest.mark.parametrize("kind", ["image", "label"])
def test_file_removed_after_indexing(domain: Any, counts: Counts, kind: str) -> None:
    index = domain.index(counts)
    path = getattr(domain, kind)("b")
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} cannot be read"):
        open_pool([(index, "train")])
    assert len(open_pool([(index, "test")])) == 2, "another split does not mind"
