"""Indexing a data set in place: what is recorded, what is read again, and what survives an interruption."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flexseg.data import indexing
from flexseg.data.index import SCHEMA, Index, read_index, write_index
from flexseg.data.indexing import index_set, recall, select
from flexseg.data.layouts import Located, list_pairs, locate
from flexseg.data.sets import DataSet, load_set
from flexseg.errors import UserError
from flexseg.world.official import write_official

IDS = np.array([0, 7, 8, 11, 26, 33], np.uint8)
"""Some of Cityscapes' label ids, and their trainIds."""
TRAIN_IDS = np.array([255, 0, 1, 2, 13, 18], np.uint8)

TOY: dict[str, Any] = {
    "name": "toy",
    "title": "Toy",
    "homepage": "https://toy.example",
    "archives": [{"file": "toy.zip", "holds": "images and labels"}],
    "licence": "none",
    "citation": "none",
    "folders": ["toy"],
    "label_map": "cityscapes_label_ids",
    "layouts": [
        {
            "name": "plain",
            "image": "images/{split}/{condition}/{id}.jpg",
            "label": "labels/{split}/{condition}/{id}.png",
        }
    ],
    "splits": {"val": {"images": 12}, "train": {}},
    "known_bad": {"n0": "known since ever"},
}
SCRIPT = """
import signal, sys, time
from pathlib import Path
import test_indexing as toy
from flexseg.data import indexing
indexing.FLUSH_SECONDS = 0.0
def slow(path, *rest, decode=indexing.decode_pair, asked=[]):
    asked.append(path)
    if len(asked) > int(sys.argv[3]):
        signal.pause()
    time.sleep(0.01)
    with open(sys.argv[4], "a") as log:
        log.write(path.name + chr(10))
    return decode(path, *rest)
indexing.decode_pair = slow
dataset, located = toy.located(Path(sys.argv[1]))
print(len(indexing.index_set(dataset, located, "val", Path(sys.argv[2])).table))
"""


def located(root: Path) -> tuple[DataSet, Located]:
    """The toy set below the data root ``root``."""
    dataset = DataSet.model_validate(TOY)
    return dataset, locate(dataset, root)


def write_pair(root: Path, name: str, condition: str, split: str = "val", size: tuple[int, int] = (6, 10)) -> None:
    rng = np.random.default_rng([ord(letter) for letter in name])
    image = root / "toy" / "images" / split / condition / f"{name}.jpg"
    label = root / "toy" / "labels" / split / condition / f"{name}.png"
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for path, picture in ((image, pixels), (label, IDS[rng.integers(0, len(IDS), size)])):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The toy set: twelve pairs of two conditions."""
    for i in range(6):
        write_pair(tmp_path / "data", f"d{i}", "day")
        write_pair(tmp_path / "data", f"n{i}", "night", size=(7, 5))
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded in this process, as they are."""
    names: list[str] = []
    decode = indexing.decode_pair

    def noted(path: Path, *rest: Any) -> Any:
        names.append(path.stem)
        return decode(path, *rest)

    monkeypatch.setattr(indexing, "decode_pair", noted)
    return names


def image_of(root: Path, name: str) -> Path:
    return next((root / "toy" / "images").rglob(f"{name}.jpg"))


def label_of(root: Path, name: str) -> Path:
    return next((root / "toy" / "labels").rglob(f"{name}.png"))


def test_records_every_pair(root: Path, tmp_path: Path) -> None:
    done: list[int] = []
    index = index_set(*located(root), "val", tmp_path / "cache", progress=done.append)
    assert sum(done) == 12
    assert index.problems == {}
    table = select(index, "test", skip=["d3"])
    assert table.columns.tolist() == SCHEMA.names
    assert table["id"].tolist() == ["d0", "d1", "d2", "d4", "d5", "n1", "n2", "n3", "n4", "n5"], "n0 is known as bad"
    assert set(table["split"]) == {"test"}
    assert table["condition"].tolist() == ["day"] * 5 + ["night"] * 5
    for row in table.itertuples():
        ids = np.asarray(Image.open(root / "toy" / row.label))
        assert (row.height, row.width) == ids.shape
        expected = {int(t): int((ids == i).sum()) for i, t in zip(IDS, TRAIN_IDS, strict=True) if t != 255}
        assert {c: n for c, n in enumerate(row.class_pixels) if n} == {c: n for c, n in expected.items() if n}
    write_index(tmp_path / "domain", Index(index.located.root, "abc", table, index.label_map, index.encoding))
    again = read_index(tmp_path / "domain", "abc", root=index.located.root)
    pd.testing.assert_frame_equal(again.table, table)
    assert again.label_map == "cityscapes_label_ids"
    assert select(index, "test", ["night"])["id"].tolist() == ["n1", "n2", "n3", "n4", "n5"]


def test_worker_processes_find_the_same(root: Path, tmp_path: Path) -> None:
    resize(label_of(root, "d2"))
    alone = index_set(*located(root), "val", tmp_path / "alone")
    done: list[int] = []
    together = index_set(*located(root), "val", tmp_path / "together", workers=2, progress=done.append)
    assert sum(done) == 12
    pd.testing.assert_frame_equal(alone.table, together.table)


def cut(path: Path, to: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * to)])


def resize(path: Path) -> None:
    Image.open(path).resize((9, 6), Image.Resampling.NEAREST).save(path)


def foreign(path: Path) -> None:
    Image.fromarray(np.full((6, 10), 77, np.uint8)).save(path)


BROKEN: list[tuple[Callable[[Path, str], Path], Callable[[Path], None], str]] = [
    (image_of, cut, r"d3\.jpg cannot be decoded .*truncated"),
    (label_of, cut, r"d3\.png cannot be decoded .*truncated"),
    (label_of, resize, r"d3\.png is 6×9 pixels, its image d3\.jpg is 6×10"),
    (label_of, foreign, r"d3\.png holds the id 77, which is not in the label map 'cityscapes_label_ids'"),
]


@pytest.mark.parametrize(("which", "damage", "message"), BROKEN, ids=["image", "label", "size", "id"])
def test_one_bad_pair_is_named_and_does_not_stop_the_others(
    root: Path, tmp_path: Path, which: Any, damage: Any, message: str
) -> None:
    sound = index_set(*located(root), "val", tmp_path / "before").table
    damage(which(root, "d3"))
    index = index_set(*located(root), "val", tmp_path / "after")
    assert list(index.problems) == ["d3"]
    others = index.table["id"] != "d3"
    pd.testing.assert_frame_equal(index.table[others], sound[others])
    with pytest.raises(UserError, match=f"Toy, val: 1 of 11 pairs cannot be used:\n  d3: .*{message}"):
        select(index, "test")
    assert "d3" not in select(index, "test", skip=["d3"])["id"].tolist()
    assert len(select(index, "test", ["night"])) == 5, "another condition does not mind"


def test_a_pair_known_as_bad_is_no_error(root: Path, tmp_path: Path) -> None:
    resize(label_of(root, "n0"))
    index = index_set(*located(root), "val", tmp_path)
    assert list(index.problems) == ["n0"]
    assert len(select(index, "train")) == 11


def test_names_that_do_not_exist(root: Path, tmp_path: Path) -> None:
    index = index_set(*located(root), "val", tmp_path)
    with pytest.raises(UserError, match=r"no condition 'nigt' \(did you mean 'night'\?\)"):
        select(index, "test", ["nigt"])
    assert len(select(index, "test", skip=["d77"])) == 11, "it may be another split's"
    with pytest.raises(UserError, match="no image is left of 12"):
        select(index, "test", ["day"], [f"d{i}" for i in range(6)])


def test_only_what_changed_is_read_again(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = index_set(*located(root), "val", tmp_path / "cache")
    assert len(decoded) == 12
    decoded.clear()
    os.utime(image_of(root, "d1"), ns=(1, 1))
    write_pair(root, "d2", "day", size=(8, 8))
    write_pair(root, "d9", "day")
    index = index_set(*located(root), "val", tmp_path / "cache")
    assert decoded == ["d1", "d2", "d9"]
    assert (len(index.table), index.table["id"].nunique()) == (13, 13)
    unchanged = first.table[~first.table["id"].isin(["d2"])].reset_index(drop=True)
    kept = index.table[index.table["id"].isin(unchanged["id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, unchanged)
    folder = next((tmp_path / "cache" / "toy").iterdir())
    assert folder.name == "plain-val-cityscapes_label_ids"
    assert len(list(folder.iterdir())) == 1, "parts are gathered into one"


def test_a_bad_pair_is_read_again_once_its_file_is_touched(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    path = label_of(root, "d1")
    content, state = path.read_bytes(), path.stat()
    path.write_bytes(content[:-20] + bytes(20))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    dataset, place = located(root)
    pairs = list_pairs(dataset, place, "val")
    assert list(index_set(dataset, place, "val", tmp_path).problems) == ["d1"]
    assert recall(dataset, place, "val", tmp_path, pairs=pairs)[0] == 12
    assert list(recall(dataset, place, "val", tmp_path, pairs=pairs)[1]) == ["d1"]
    decoded.clear()
    assert list(index_set(dataset, place, "val", tmp_path).problems) == ["d1"]
    assert decoded == []
    path.write_bytes(content)  # unpacked again: the old size, and the old time
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert recall(dataset, place, "val", tmp_path, pairs=pairs)[1] == {}
    assert index_set(dataset, place, "val", tmp_path).problems == {}
    assert decoded == ["d1"]


def test_unreadable_files_are_tried_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is away for a while, or a file that is not ours, says nothing of the file."""
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "d3.jpg":
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    problems = index_set(*located(root), "val", tmp_path).problems
    assert problems == {"d3": f"{image_of(root, 'd3')} cannot be read (Input/output error): "
                              "check that it is there and may be read"}  # fmt: skip
    monkeypatch.undo()
    assert index_set(*located(root), "val", tmp_path).problems == {}


def test_two_copies_share_a_journal_without_confusion(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    other = tmp_path / "other"
    for i in range(6):
        write_pair(other, f"d{i}", "day", size=(9, 9))
    index_set(*located(root), "val", tmp_path / "cache")
    index_set(*located(other), "val", tmp_path / "cache")
    decoded.clear()
    assert set(index_set(*located(root), "val", tmp_path / "cache").table["height"]) == {6, 7}
    assert set(index_set(*located(other), "val", tmp_path / "cache").table["height"]) == {9}
    assert decoded == []


def test_records_of_another_map_or_damaged_parts_are_not_used(
    root: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index_set(*located(root), "val", tmp_path)
    folder = tmp_path / "toy" / "plain-val-cityscapes_label_ids"
    cut(next(folder.iterdir()))
    index_set(*located(root), "val", tmp_path)
    assert len(decoded) == 24
    monkeypatch.setattr(indexing, "FORMAT", indexing.FORMAT + 1)
    index_set(*located(root), "val", tmp_path)
    assert len(decoded) == 36
    assert len(list(folder.iterdir())) == 1


def start(root: Path, cache: Path, most: int, log: Path) -> subprocess.Popen[str]:
    """Index the toy set in a process of its own, which writes down what it decodes, and stands still after ``most``."""
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{Path.cwd()}"}
    command = [sys.executable, "-c", SCRIPT, str(root), str(cache), str(most), str(log)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_resumes(root: Path, tmp_path: Path, decoded: list[str], patience: float) -> None:
    for i in range(6, 30):
        write_pair(root, f"d{i}", "day")
    cache, log = tmp_path / "cache", tmp_path / "log"
    process = start(root, cache, 20, log)
    deadline = time.monotonic() + patience
    while len(list(cache.rglob("*.parquet"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = log.read_text().split()
    kept = 4 * len(list(cache.rglob("*.parquet")))
    assert 8 <= kept <= len(before) <= 20
    index = index_set(*located(root), "val", cache)
    assert len(index.table) == 36
    assert len(decoded) == 36 - kept, "what is in the journal is not decoded twice"
    pd.testing.assert_frame_equal(index.table, index_set(*located(root), "val", tmp_path / "fresh").table)


def test_two_processes_at_once(root: Path, tmp_path: Path, decoded: list[str], patience: float) -> None:
    processes = [start(root, tmp_path / "cache", 12, tmp_path / f"log{i}") for i in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=patience)
        assert (process.returncode, output.strip()) == (0, "12"), errors
    assert len(index_set(*located(root), "val", tmp_path / "cache").table) == 12
    assert decoded == []


def test_workers_end_with_their_parent(patience: float) -> None:
    """A parent that is killed cannot tell its workers, who would wait for work for ever."""
    code = (
        "import multiprocessing, os, sys\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from flexseg.data.indexing import _start_worker\n"
        "pool = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), _start_worker)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        os.kill(worker, 0)
        process.kill()
    deadline = time.monotonic() + patience
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            return
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists()


def test_without_shared_memory_one_process_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container whose /dev/shm may not be written."""

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(indexing, "ProcessPoolExecutor", refuse)
    dataset = load_set("generated")
    write_official(dataset, tmp_path / "generated", "all", 6, sizes=((48, 96),))
    index = index_set(dataset, locate(dataset, tmp_path), "all", tmp_path / "cache", workers=2)
    assert len(index.table) == 6
    assert "one process checks the files: /dev/shm: Read-only file system" in capsys.readouterr().out


def test_a_pipe_among_the_images_is_a_problem_and_not_waited_for(tmp_path: Path) -> None:
    dataset = load_set("generated")
    pairs = write_official(dataset, tmp_path / "generated", "all", 3, sizes=((48, 96),))
    pairs[1].image.unlink()
    os.mkfifo(pairs[1].image)
    index = index_set(dataset, locate(dataset, tmp_path), "all", None)
    assert list(index.problems) == [pairs[1].id]
    assert "is no file" in index.problems[pairs[1].id]


def test_workers_that_cannot_start_leave_one_process_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with too few file handles or processes: no folder is blamed for it."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(indexing.ProcessPoolExecutor, "submit", refuse)
    dataset = load_set("generated")
    write_official(dataset, tmp_path / "generated", "all", 6, sizes=((48, 96),))
    index = index_set(dataset, locate(dataset, tmp_path), "all", None, workers=2)
    assert len(index.table) == 6
    assert "so one process checks the files: Too many open files" in capsys.readouterr().out


def test_a_damaged_journal_is_made_again(tmp_path: Path) -> None:
    dataset = load_set("generated")
    write_official(dataset, tmp_path / "generated", "all", 3, sizes=((48, 96),))
    located, cache = locate(dataset, tmp_path), tmp_path / "cache"
    first = index_set(dataset, located, "all", cache).table
    (part,) = cache.rglob("*.parquet")
    content = part.read_bytes()
    for place in range(0, len(content), 211):
        for old in cache.rglob("*.parquet"):
            old.unlink()
        part.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        pd.testing.assert_frame_equal(index_set(dataset, located, "all", cache).table, first)


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    dataset = load_set("generated")
    pairs = write_official(dataset, root / "generated", "all", 3, sizes=((48, 96),))
    pairs[0].image.write_bytes(b"no picture")
    cache = root / "cache"
    for _ in range(2):
        index = index_set(dataset, locate(dataset, root), "all", cache)
        assert "caf\\xe9/generated/images" in index.problems[pairs[0].id]
    write_index(root, Index(root, "f", select(index, "train", skip=[pairs[0].id])))
    assert len(read_index(root, "f").table) == 2


def test_too_many_open_files_are_no_fault_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is advised to leave out images that are sound."""

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(indexing, "read_file", refuse)
    dataset = load_set("generated")
    write_official(dataset, tmp_path / "generated", "all", 3, sizes=((48, 96),))
    with pytest.raises(OSError, match="Too many open files"):
        index_set(dataset, locate(dataset, tmp_path), "all", tmp_path / "cache")
    assert not list(tmp_path.rglob("*.parquet"))
