"""The cache of decoded frames: the same pixels, whole or not at all, and never another frame's."""

from __future__ import annotations

import shutil
from collections import namedtuple
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexseg.data.frames as module
from flexseg.data.frames import Frame, FrameCache, cache_folder, frames_of, measure_need, write_frames
from flexseg.data.index import Index
from flexseg.errors import UserError

SIZE = (3, 5)
TRAILER = 56


@pytest.fixture
def frames(domain: Any, counts: dict[str, int]) -> list[Frame]:
    """Four frames of 6×8 pixels, to be 3×5."""
    return frames_of(domain.index(counts), "train", SIZE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def forget(frames: list[Frame]) -> None:
    """Remove the files that the frames were made from."""
    for frame in frames:
        frame.image.unlink()
        frame.label.unlink()


def test_frames_are_those_decoded_and_resized(frames: list[Frame], folder: Path) -> None:
    decoded = [(frame.read_image(), frame.read_label()) for frame in frames]
    seen: list[int] = []
    assert write_frames(frames, folder, workers=2, progress=seen.append) == len(frames) == sum(seen)
    forget(frames)
    cache = FrameCache(folder)
    for frame, (image, label) in zip(frames, decoded, strict=True):
        assert image.shape == (*SIZE, 3)
        np.testing.assert_array_equal(cache.read_image(frame), image)
        np.testing.assert_array_equal(cache.read_label(frame), label)
        assert not cache.read_image(frame).flags.writeable


def test_a_second_call_writes_only_what_is_missing(frames: list[Frame], folder: Path) -> None:
    assert write_frames(frames[:3], folder) == 3
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.frame")}
    assert write_frames(frames, folder) == 1
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert write_frames(frames, folder) == 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign", "trailer"])
def test_a_damaged_frame_is_refused_and_written_again(frames: list[Frame], folder: Path, damage: str) -> None:
    write_frames(frames, folder)
    path, other = (FrameCache(folder).path(frame.stored) for frame in frames[:2])
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[7] ^= 1
    elif damage == "truncate":
        del content[-70:]
    elif damage == "empty":
        content.clear()
    elif damage == "foreign":
        content = bytearray(other.read_bytes())
    else:
        content[-1] ^= 1
    path.write_bytes(content)
    for read in (FrameCache(folder).read_image, FrameCache(folder).read_label):
        with pytest.raises(UserError, match=f"{path.name} (is damaged|cannot be read).*write the frames again"):
            read(frames[0])
    assert write_frames(frames, folder) == 1
    np.testing.assert_array_equal(FrameCache(folder).read_image(frames[0]), frames[0].read_image())


def test_other_data_sizes_and_maps_give_other_frames(domain: Any, folder: Path) -> None:
    def keys(resize: tuple[int, int] | None = SIZE, label_map: str = "") -> list[str]:
        index = domain.index({"train": 4})
        index = Index(index.root, index.fingerprint, index.table, label_map)
        return [frame.key for frame in frames_of(index, "train", resize)]

    first = keys()
    assert keys() == first
    assert len({*first, *keys((5, 3)), *keys(None), *keys(label_map="train_ids"), *keys(label_map="gta5")}) == 20
    domain.write("b")
    assert [new == old for new, old in zip(keys(), first, strict=True)] == [True, False, True, True]


def test_enlarged_frames_are_stored_at_native_size(domain: Any, folder: Path) -> None:
    index = domain.index({"train": 4})
    large, native = frames_of(index, "train", (12, 14)), frames_of(index, "train")
    assert write_frames(large, folder) == 4
    assert write_frames(native, folder) == 0
    assert {path.stat().st_size for path in folder.rglob("*.frame")} == {6 * 8 * 4 + TRAILER}
    image, label = large[0].read_image(), large[0].read_label()
    forget(native)
    np.testing.assert_array_equal(FrameCache(folder).read_image(large[0]), image)
    np.testing.assert_array_equal(FrameCache(folder).read_label(large[0]), label)


def test_need_tells_what_is_missing(frames: list[Frame], folder: Path) -> None:
    one = 3 * 5 * 4 + TRAILER
    need = measure_need(frames, folder)
    assert (need.frames, need.bytes, need.missing, need.missing_bytes) == (4, 4 * one, 4, 4 * one)
    assert not folder.exists()
    write_frames(frames[:3], folder)
    need = measure_need(frames, folder)
    assert (need.missing, need.missing_bytes) == (1, one)
    assert "4 frames" in str(need)
    assert "3 of them there already" in str(need)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    frames: list[Frame], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, module.RESERVE + 4 * (60 + TRAILER) - 1))
    with pytest.raises(
        UserError, match=r"does not fit on the disk: 4 frames of 0\.0 GB .* 1\.1 GB free.*FLEXSEG_CACHE"
    ):
        write_frames(frames, folder)
    assert not folder.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, module.RESERVE + 4 * (60 + TRAILER)))
    assert write_frames(frames, folder) == 4


def test_a_frame_that_cannot_be_decoded_is_named_and_the_others_stay(frames: list[Frame], folder: Path) -> None:
    frames[3].image.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"d_leftImg8bit\.png is not the file that was indexed"):
        write_frames(frames, folder)
    assert measure_need(frames, folder).missing == 1


def test_an_interrupted_writer_leaves_whole_frames(
    frames: list[Frame], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(frames, folder, progress=interrupt)
    left = measure_need(frames, folder).missing
    assert left < 4
    (some,) = {path.parent for path in list(folder.rglob("*.frame"))[:1]}
    half = some / f".{'0' * 64}.frame.1.part"
    half.write_bytes(b"half")
    assert write_frames(frames, folder) == left
    assert half.exists(), "perhaps its writer lives"
    monkeypatch.setattr(module, "ABANDONED_AFTER", -1)
    write_frames(frames, folder)
    assert not half.exists()


def test_two_processes_may_write_the_same_frames(frames: list[Frame], folder: Path) -> None:
    with ProcessPoolExecutor(2) as processes:
        written = [processes.submit(write_frames, frames, folder, 2) for _ in range(2)]
        assert 4 <= sum(count.result() for count in written) <= 8
    assert len(list(folder.rglob("*.*"))) == 4, "no half-written file is left"
    np.testing.assert_array_equal(FrameCache(folder).read_label(frames[2]), frames[2].read_label())


def test_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLEXSEG_CACHE", raising=False)
    assert cache_folder(Path("results")) == Path("results/frames")
    monkeypatch.setenv("FLEXSEG_CACHE", str(tmp_path))
    assert cache_folder(Path("results")) == tmp_path
