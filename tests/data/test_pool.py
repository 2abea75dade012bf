"""A pool is the same in memory, read on demand and read from cached frames; nothing is decoded to describe it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from flexseg.data.frames import frames_of, write_frames
from flexseg.data.index import Index
from flexseg.data.pool import Pool, open_pool, spread
from flexseg.errors import UserError


@pytest.fixture
def index(domain: Any, counts: dict[str, int]) -> Index:
    return domain.index(counts)


def assert_same(one: Pool, other: Pool) -> None:
    for left, right in zip([*one.images, *one.labels], [*other.images, *other.labels], strict=True):
        np.testing.assert_array_equal(left, right)
    assert (one.ids, one.conditions) == (other.ids, other.conditions)
    for name in ("origins", "sizes", "class_pixels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_sizes_and_class_pixels_are_those_of_the_labels(index: Index) -> None:
    pool = open_pool([(index, "test"), (index, "train")])
    assert isinstance(pool.images, list)
    assert pool.sizes.tolist() == [[5, 9]] * 2 + [[6, 8]] * 4
    assert_same(pool, Pool.of(pool.images, pool.labels, pool.ids, pool.conditions, pool.origins))


def test_places_choose_rows_of_the_split(index: Index) -> None:
    every, some = open_pool([(index, "train")]), open_pool([(index, "test"), (index, "train", [1, 3])])
    assert some.ids == ["e", "f", "b", "d"]
    assert some.conditions == ["clear", "clear", "clear", "fog"]
    assert some.origins.tolist() == [0, 0, 1, 1]
    for place, original in ((2, 1), (3, 3)):
        np.testing.assert_array_equal(some.images[place], every.images[original])
        np.testing.assert_array_equal(some.labels[place], every.labels[original])
        np.testing.assert_array_equal(some.class_pixels[place], every.class_pixels[original])


@pytest.mark.parametrize("resize", [None, (3, 5), (12, 14)])
def test_lazy_and_cached_pools_equal_the_one_in_memory(
    index: Index, tmp_path: Path, resize: tuple[int, int] | None
) -> None:
    parts = [(index, "train"), (index, "test", [1])]
    held = open_pool(parts, resize)
    lazy = open_pool(parts, resize, memory=0)
    assert not isinstance(lazy.images, list)
    assert_same(held, lazy)
    with ThreadPoolExecutor(4) as threads:
        for place, image in enumerate(threads.map(lambda number: lazy.images[number % 5], range(40))):
            np.testing.assert_array_equal(image, held.images[place % 5])
    np.testing.assert_array_equal(np.stack(lazy.images[1:3]), np.stack(held.images[1:3]))

    cache = tmp_path / "frames"
    write_frames(frames_of(index, "train", resize, [0, 2, 3]), cache)  # the others are decoded
    assert_same(held, open_pool(parts, resize, frames=cache, memory=0))
    assert_same(held, open_pool(parts, resize, frames=cache))


def test_resize_is_bilinear_and_nearest(index: Index, domain: Any) -> None:
    pool = open_pool([(index, "train")], (3, 5), memory=0)
    image, label = (np.asarray(Image.open(path)) for path in (domain.image("b"), domain.label("b")))
    np.testing.assert_array_equal(pool.images[1], cv2.resize(image, (5, 3), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_array_equal(pool.labels[1], cv2.resize(label, (5, 3), interpolation=cv2.INTER_NEAREST))
    assert pool.sizes.tolist() == [[3, 5]] * 4
    assert pool.class_pixels.sum() > 4 * 15, "class pixels are those of the labels before the resize"


def test_memory_is_held_up_to_its_budget(index: Index) -> None:
    exact = 4 * 4 * 6 * 8
    assert isinstance(open_pool([(index, "train")], memory=exact).labels, list)
    assert not isinstance(open_pool([(index, "train")], memory=exact - 1).labels, list)


def test_a_lazy_pool_names_the_file_that_changed_or_is_gone(index: Index, domain: Any) -> None:
    pool = open_pool([(index, "train")], memory=0)
    domain.write("b")
    domain.label("c", condition="fog").unlink()
    for broken, message in (
        (lambda: pool.images[1], r"b_leftImg8bit\.png is not the file that was indexed"),
        (lambda: pool.labels[1], r"b_gtFine_labelTrainIds\.png is not the file that was indexed"),
        (lambda: pool.labels[2], r"c_gtFine_labelTrainIds\.png cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            broken()
    assert pool.images[0].shape == (6, 8, 3)


def test_labels_are_decoded_by_the_map_of_their_index(index: Index, tmp_path: Path) -> None:
    mapped = Index(index.root, index.fingerprint, index.table, "train_ids_void19")
    pool = open_pool([(mapped, "train")], memory=0)
    np.testing.assert_array_equal(pool.labels[0], open_pool([(index, "train")]).labels[0])
    wrong = Index(index.root, index.fingerprint, index.table, "camvid11")
    with pytest.raises(UserError, match="not in the label map 'camvid11'"):
        open_pool([(wrong, "train")])


def test_spread() -> None:
    assert spread(10, 3) == [0, 4, 9]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(5, 1) == [0]
    assert spread(5, 0) == []
