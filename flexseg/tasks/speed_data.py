"""Measure the input pipeline: images per second from files and from cached frames, and how many are needed."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flexseg.benchmark import Benchmark, World, WorldDomain
from flexseg.benchmark.schedule import Training
from flexseg.data.draws import Purpose, generator
from flexseg.data.frames import Frame, FrameCache, frames_of, write_frames
from flexseg.data.index import Index
from flexseg.data.loading import Prefetcher
from flexseg.data.pool import spread
from flexseg.errors import UserError
from flexseg.tasks.datasets import build_index, open_index, render_domain

GTA5_SIZE = (1052, 1914)
"""Height and width of a GTA5 image, used if the benchmark's own images are missing."""
WARM_ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """Images per second of one way to read them, by number of workers: on first reading, and again from memory."""

    cold: dict[int, float]
    warm: dict[int, float]


def measure_data(
    benchmark: Benchmark,
    results: Path,
    images: int,
    step_seconds: float,
    console: Console,
    workers: Sequence[int] = (1, 2),
) -> dict[str, Speed]:
    """Print and return how many training images per second the workers prepare, and how many a GPU's step needs.

    *files* reads, checks, decodes and resizes an image and its label, *cache* reads the cached frame; both then crop
    and, as the benchmark's recipe has it, change colours, and normalise. *First* reads files that the operating system
    was asked to drop from its memory (unless the disk is cached elsewhere), *again* reads them from memory: the median
    of three rounds. A worker is a thread; OpenCV gets one thread, so that only the workers count.

    If the source's images are missing, as many of GTA5's size are rendered into a temporary folder.

    Args:
        images: how many are read per round.
        step_seconds: how long a training step takes on a GPU (an assumption).
    """
    training = benchmark.training
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=results) as name, _one_opencv_thread():
        folder = Path(name)
        index, source = _find_or_render(benchmark, results, images, folder)
        places = spread(len(index.split("train")), images)
        frames = frames_of(index, "train", training.resize, places)
        started = time.perf_counter()
        write_frames(frames, folder / "frames", max(workers))
        seconds = time.perf_counter() - started
        cached = [FrameCache(folder / "frames").path(frame.stored) for frame in frames]
        original = [path for frame in frames for path in (frame.image, frame.label)]
        speeds = {
            "files": _measure(frames, training, lambda: Frame, original, workers),
            "cache": _measure(frames, training, lambda: FrameCache(folder / "frames"), cached, workers),
        }
        _print_setting(frames, source, training, seconds, max(workers), console)
    _print_speeds(speeds, workers, training.batch_size, step_seconds, console)
    return speeds


def _find_or_render(benchmark: Benchmark, results: Path, images: int, folder: Path) -> tuple[Index, str]:
    """Find the source's images, or render some; return their index and what they are."""
    from flexseg.data.layouts import Located
    from flexseg.data.sets import load_set

    domain = benchmark.domains[benchmark.source]
    try:
        return open_index(benchmark, benchmark.source, results), f"of {domain.title or benchmark.source}"
    except UserError as error:
        reason = str(error).splitlines()[0]
    world = benchmark.world
    if world is None or not domain.rendered:
        world = World(version=1, height=GTA5_SIZE[0], width=GTA5_SIZE[1])
    root, stand_in = folder / "rendered", WorldDomain(world="source", train=images)
    render_domain(stand_in, root, world, "source")
    index = build_index(stand_in, Located(root, load_set(stand_in.dataset).layouts[0]), "", name="source")
    return index, f"rendered here, as the benchmark's are missing ({reason})"


def _measure(
    frames: Sequence[Frame],
    training: Training,
    reader: Callable[[], type[Frame] | FrameCache],
    files: Sequence[Path],
    workers: Sequence[int],
) -> Speed:
    from flexseg.data.crops import prepare
    from flexseg.data.sampling import NO_CLASS
    from flexseg.data.transforms import normalise

    cold, warm = {}, {}
    for count in workers:
        source = reader()  # a new one, as a cache checks each frame once

        def assemble(place: int, source: type[Frame] | FrameCache = source) -> np.ndarray:
            image, label = source.read_image(frames[place]), source.read_label(frames[place])
            crop, _ = prepare(image, label, NO_CLASS, training, generator(0, Purpose.CROP, place, 0))
            return normalise(crop[None])

        if _drop_from_memory(files):
            cold[count] = _rate(assemble, len(frames), count)
        _rate(assemble, len(frames), count)
        warm[count] = statistics.median(_rate(assemble, len(frames), count) for _ in range(WARM_ROUNDS))
    return Speed(cold, warm)


def _rate(assemble: Callable[[int], np.ndarray], count: int, workers: int) -> float:
    started = time.perf_counter()
    with Prefetcher(assemble, range(count), workers) as batches:
        for _ in batches:
            pass
    return count / (time.perf_counter() - started)


def _drop_from_memory(files: Sequence[Path]) -> bool:
    """Ask the operating system to forget the content of these files; False where it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not on the disk yet cannot be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _print_setting(
    frames: Sequence[Frame], source: str, training: Training, seconds: float, workers: int, console: Console
) -> None:
    def shape(size: tuple[int, int]) -> str:
        return f"{size[1]}×{size[0]}"

    first, rate = frames[0], len(frames) / seconds
    files = statistics.mean(path.stat().st_size for frame in frames for path in (frame.image, frame.label)) * 2
    cached = statistics.mean(frame.stored.nbytes for frame in frames)
    console.print(
        f"{len(frames)} images {source}: {shape(first.native)}, {files / 1e6:.2f} MB with the label, "
        f"to {shape(first.size)}, crop {shape(training.crop)}.\n"
        f"A cached frame takes {cached / 1e6:.2f} MB, 25,000 of them {25_000 * cached / 1e9:.0f} GB; {workers} workers "
        f"wrote {rate:.1f} per second: 25,000 take {25_000 / rate / 60:.0f} min.",
        highlight=False,
    )


def _print_speeds(
    speeds: dict[str, Speed], workers: Sequence[int], batch: int, step_seconds: float, console: Console
) -> None:
    table = Table(title="Training images per second", title_justify="left")
    table.add_column("read from")
    for count in workers:
        for when in ("first", "again"):
            table.add_column(f"{count} worker{'s' if count > 1 else ''}, {when}", justify="right")
    for name, speed in speeds.items():
        cells = []
        for count in workers:
            cells += [f"{speed.cold[count]:.1f}" if count in speed.cold else "–", f"{speed.warm[count]:.1f}"]
        table.add_row(name, *cells)
    console.print(table)
    if step_seconds > 0:
        need = batch / step_seconds
        rest = " and ".join(f"{need / speed.warm[workers[0]]:.2f} reading the {name}" for name, speed in speeds.items())
        console.print(
            f"A step of {batch} images in {step_seconds:g} s (assumed: --step) needs {need:.1f} images/s: "
            f"workers kept busy: {rest}.",
            highlight=False,
        )
