"""Frames: an image with its label at training size, decoded from the data set's own files or read from a cache.

Decoding and resizing 1914×1052 PNGs again for each draw is what slows down training in this field. The cache holds each
frame decoded once, for all runs and processes: one file per frame, the (H, W, 3) image and then the (H, W) label as raw
bytes, mapped into memory, so that a crop reads only its own lines. A file's name is a digest of what it was made from
(the hashes of image and label, the label map, the size), so benchmarks, splits and subsets share what they have in
common, another release of a data set never meets the old one's frames, and no list of contents can go stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from flexseg.benchmark.schedule import Resize, resized
from flexseg.data.images import decode_image, decode_label, read_file
from flexseg.data.index import Index
from flexseg.data.label_maps import LabelMap, load_map
from flexseg.errors import UserError
from flexseg.files import MACHINE, DiskError, describe_disk_error, digest, replacing

SUFFIX = ".frame"
RESERVE = 1 << 30
"""Bytes that a cache leaves free on its disk, as the runs that use it have results to write."""
ABANDONED_AFTER = 3600
"""Seconds after which a half-written file is assumed to be left by a killed writer."""

_FORMAT = 1
_TRAILER = struct.Struct("<8sIIII32s")
_MAGIC = b"FLXFRAME"


@dataclass(frozen=True)
class Frame:
    """One image with its label: its files, their hashes, and their (height, width) on disk and after the resize."""

    image: Path
    label: Path
    image_sha256: str
    label_sha256: str
    native: tuple[int, int]
    size: tuple[int, int]
    label_map: LabelMap | None
    encoding: str

    def read_image(self) -> np.ndarray:
        """Read, check, decode and resize the image: (H, W, 3) uint8.

        Resized bilinearly, without a low-pass filter when shrinking, as the field's pipelines (mmcv) do.

        Raises:
            UserError: the file is missing, damaged, or not the one that was indexed.
        """
        content = _read(self.image, self.image_sha256)
        image = decode_image(self.image, content, convert=self.label_map is not None)
        return image if self.size == self.native else _resize(image, self.size, cv2.INTER_LINEAR)

    def read_label(self) -> np.ndarray:
        """Read, check, decode and resize (nearest neighbour) the label: (H, W) uint8 train_ids.

        Raises:
            UserError: the file is missing, damaged, or not the one that was indexed.
        """
        content = _read(self.label, self.label_sha256)
        label = decode_label(self.label, content, self.label_map, self.encoding)
        return label if self.size == self.native else _resize(label, self.size, cv2.INTER_NEAREST)

    @cached_property
    def key(self) -> str:
        """A digest of all that the pixels depend on, such as the label map's content: a name outlives a correction."""
        content = [] if self.label_map is None else [self.label_map.table.tobytes().hex(), str(self.label_map.colours)]
        return digest([_FORMAT, self.image_sha256, self.label_sha256, *content, self.encoding, *self.size])

    @cached_property
    def stored(self) -> Frame:
        """The frame as the cache holds it: not resized if that enlarges it, as reading more bytes costs more time."""
        larger = self.size[0] * self.size[1] > self.native[0] * self.native[1]
        return replace(self, size=self.native) if larger else self

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded pixels: four per pixel."""
        return 4 * self.size[0] * self.size[1]


def rows_of(index: Index, split: str, places: Sequence[int] | None = None) -> pd.DataFrame:
    """The rows of a split, or only those at ``places``.

    Raises:
        UserError: the split holds no image.
    """
    rows = index.split(split)
    return rows if places is None else rows.iloc[list(places)]


def frames_of(
    index: Index, split: str, resize: Resize | None = None, places: Sequence[int] | None = None
) -> list[Frame]:
    """The frames of a split, in order, resized or in their own size; ``places``: only these rows.

    Raises:
        UserError: the split holds no image.
    """
    rows = rows_of(index, split, places)
    label_map = index.mapping or (load_map(index.label_map) if index.label_map else None)
    frames = []
    for row in rows.itertuples():
        native = int(row.height), int(row.width)
        files = index.root / row.image, index.root / row.label, row.sha256, row.label_sha256
        frames.append(Frame(*files, native, resized(resize, native), label_map, index.encoding))
    return frames


class FrameCache:
    """The frames in a folder. Several threads, processes and machines may read and write it at the same time.

    A frame's bytes are checked against their checksum when a process first reads it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[str] = set()

    def path(self, frame: Frame) -> Path:
        """The path of the (stored) frame, whether it exists or not."""
        size = "native" if frame.size == frame.native else f"{frame.size[0]}x{frame.size[1]}"
        return self.folder / size / frame.key[:2] / (frame.key + SUFFIX)

    def read_image(self, frame: Frame) -> np.ndarray:
        """The image (H, W, 3) uint8 of a frame: that of ``frame.read_image()``, called if the cache lacks it.

        Raises:
            UserError: its file in the cache is damaged, or no frame of this key; or as ``Frame.read_image``.
        """
        stored = frame.stored
        content = self._content(stored)
        if content is None:
            return frame.read_image()
        height, width = stored.size
        image = content[: 3 * height * width].reshape(height, width, 3)
        return image if frame.size == stored.size else _resize(image, frame.size, cv2.INTER_LINEAR)

    def read_label(self, frame: Frame) -> np.ndarray:
        """The label (H, W) uint8 of a frame, likewise.

        Raises:
            UserError: as ``read_image``.
        """
        stored = frame.stored
        content = self._content(stored)
        if content is None:
            return frame.read_label()
        label = content[3 * stored.nbytes // 4 : stored.nbytes].reshape(stored.size)
        return label if frame.size == stored.size else _resize(label, frame.size, cv2.INTER_NEAREST)

    def _content(self, stored: Frame) -> np.ndarray | None:
        """The bytes of a frame's file, mapped and checked; None if there is none."""
        path = self.path(stored)
        try:
            content = np.asarray(np.memmap(path, np.uint8, "r"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(error, path, _REMEDY) from error
        if path.name not in self._checked:
            if not _is_whole(content, stored):
                raise UserError(f"{path} is damaged, or no frame of {stored.size[0]}×{stored.size[1]}: {_REMEDY}")
            self._checked.add(path.name)
        return content

    def write(self, frame: Frame) -> bool:
        """Decode a frame into the cache unless it is there and whole; return whether it was written.

        Raises:
            UserError: its image or label is missing, damaged, or not the one that was indexed.
            OSError: the disk is full.
        """
        stored = frame.stored
        with contextlib.suppress(UserError):
            if self._content(stored) is not None:
                return False
        image, label = stored.read_image(), stored.read_label()
        pixels = image.tobytes() + label.tobytes()
        with replacing(self.path(stored)) as temporary:
            temporary.write_bytes(pixels + _pack_trailer(stored, zlib.crc32(pixels)))
        return True


@dataclass(frozen=True)
class Need:
    """The disk space of cached frames: their number and bytes, those still to be written, and what is free."""

    folder: Path
    frames: int
    bytes: int
    missing: int
    missing_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        there = f", {self.frames - self.missing:,} of them there already" if self.missing < self.frames else ""
        return (
            f"{self.frames:,} frames of {_format_gigabytes(self.bytes)} in {self.folder}{there}: "
            f"{_format_gigabytes(self.missing_bytes)} to write, {_format_gigabytes(self.free_bytes)} free on that disk"
        )

    def require(self) -> None:
        """Check that the disk has room.

        Raises:
            UserError: it has not; says how much is needed and how much is free.
        """
        if self.missing and self.missing_bytes + RESERVE > self.free_bytes:
            raise UserError(
                f"the frame cache does not fit on the disk: {self} ({_format_gigabytes(RESERVE)} must stay free). "
                "Make room, choose another folder with FLEXSEG_CACHE, or train without the cache"
            )


def cache_folder(results: Path) -> Path:
    """Where frames are cached: the environment's ``FLEXSEG_CACHE``, else a folder in the results."""
    return Path(os.environ.get("FLEXSEG_CACHE") or results / "frames")


def existing_folder(folder: Path) -> Path:
    """``folder`` itself, or the nearest folder above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.isdir(place))


def measure_need(frames: Sequence[Frame], folder: Path) -> Need:
    """Measure how much disk space the frames take in the cache in ``folder``. Lists folders and opens no file."""
    cache = FrameCache(folder)
    wanted = {cache.path(frame.stored): frame.stored.nbytes + _TRAILER.size for frame in frames}
    there = {path for parent in {path.parent for path in wanted} for path in _list_files(parent)}
    missing = [size for path, size in wanted.items() if path not in there]
    free = shutil.disk_usage(existing_folder(folder)).free
    return Need(folder, len(wanted), sum(wanted.values()), len(missing), sum(missing), free)


def write_frames(
    frames: Sequence[Frame], folder: Path, workers: int = 1, progress: Callable[[int], None] | None = None
) -> int:
    """Decode the frames into the cache in ``folder``, in ``workers`` threads; return how many were written.

    Frames that are there are checked, and written again if damaged; so a second call resumes an interrupted one.
    ``progress`` is called with 1 for each frame.

    Raises:
        UserError: the disk has no room for them (nothing is written), or an image or label is missing or damaged.
        OSError: the disk is full all the same.
    """
    measure_need(frames, folder).require()
    cache = FrameCache(folder)
    unique = {cache.path(frame.stored): frame.stored for frame in frames}
    for parent in {path.parent for path in unique}:
        _remove_abandoned(parent)
    pool = ThreadPoolExecutor(workers)  # threads suffice: reading, hashing, decoding and resizing release the lock
    try:
        written = 0
        for done in as_completed([pool.submit(cache.write, frame) for frame in unique.values()]):
            written += done.result()
            if progress is not None:
                progress(1)
        return written
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_REMEDY = "delete it (missing frames are decoded each time), or write the frames again"


def _unreadable(error: Exception, path: Path, remedy: str) -> UserError:
    """Say that a file cannot be read; the machine's own errors are told from those of the file."""
    if isinstance(error, OSError) and error.errno in MACHINE:
        return DiskError(describe_disk_error(error, path))
    return UserError(f"{path} cannot be read ({error}): {remedy}")


def _read(path: Path, expected: str) -> bytes:
    try:
        content = read_file(path)
    except OSError as error:
        raise _unreadable(error, path, "restore it, or make its domain again with `flexseg dataset`") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise UserError(
            f"{path} is not the file that was indexed (its hash differs): restore it, or make its domain again"
        )
    return content


def _resize(pixels: np.ndarray, size: tuple[int, int], how: int) -> np.ndarray:
    return cv2.resize(pixels, (size[1], size[0]), interpolation=how)


def _pack_trailer(frame: Frame, checksum: int) -> bytes:
    return _TRAILER.pack(_MAGIC, *frame.size, checksum, 0, bytes.fromhex(frame.key))


def _is_whole(content: np.ndarray, frame: Frame) -> bool:
    """Whether a file's bytes are this frame's pixels and their trailer."""
    if content.size != frame.nbytes + _TRAILER.size:
        return False
    pixels, trailer = content[: frame.nbytes], content[frame.nbytes :]
    return trailer.tobytes() == _pack_trailer(frame, zlib.crc32(pixels.data))


def _list_files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from (folder / name for name in os.listdir(folder))


def _remove_abandoned(folder: Path) -> None:
    """Remove half-written files that killed writers left."""
    for path in _list_files(folder):
        if path.suffix == ".part":
            with contextlib.suppress(FileNotFoundError):  # its writer lives, and has just renamed it
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                    path.unlink()


def _format_gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
