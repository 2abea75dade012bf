"""Index a data set in place: every pair is decoded and checked once, in parallel, with a journal of the results.

A data set of 25,000 pairs takes many minutes to decode, so the result for each pair is written down at once, in
``<cache>/<dataset>/<layout>-<split>-<label map>/*.parquet``. Parts appear there by rename, and a pair whose files have
the size and time of the record is not read again: an interruption loses a few seconds of work, and all processes and
benchmarks share the results. A damaged pair is recorded with its problem and does not stop the others; only
:func:`select` refuses to use it.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from flexseg.classes import CITYSCAPES, NUM_CLASSES, ClassSet
from flexseg.console import printable
from flexseg.data.images import decode_pair, read_file
from flexseg.data.index import SCHEMA, Damaged, facts_of, index_schema, read_table, write_table
from flexseg.data.label_maps import LabelMap
from flexseg.data.layouts import Located, Pair, advise_skip, list_pairs
from flexseg.data.sets import DataSet
from flexseg.errors import UserError, did_you_mean
from flexseg.files import digest

FORMAT = 1
"""Version of the journal: records of another one are not used."""
FLUSH_SECONDS = 2.0
"""How many seconds of work an interruption may lose."""
BATCH = 4
"""Pairs that a worker gets at a time."""

FILES = ("image", "label", "image_size", "image_time", "label_size", "label_time")
"""The key of a record: both paths below the root, and both files' bytes and times of change (ns)."""
FACTS = ("height", "width", "sha256", "label_sha256", "class_pixels")


def journal_schema(num_classes: int = NUM_CLASSES) -> pa.Schema:
    """The columns of a journal."""
    schema = index_schema(num_classes)
    return pa.schema(
        [
            *(pa.field(name, pa.string() if name in ("image", "label") else pa.int64()) for name in FILES),
            pa.field("touched", pa.int64()),
            *(schema.field(name) for name in FACTS),
            pa.field("problem", pa.string()),
        ]
    )


SHARED_MEMORY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ENOENT, errno.ENOSYS})
"""Errors that several workers get where shared memory is not there, full, or may not be written."""
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing about the file that was to be read."""
UNREAD = "unread"
"""Marks a pair that could not be read. It may be readable the next time, so it is not recorded."""
NOTHING = {"height": 0, "width": 0, "sha256": "", "label_sha256": ""}


@dataclass(frozen=True)
class SetIndex:
    """One split of a data set, every pair read and checked.

    ``table`` has one row per pair, ordered by id: id, condition, image and label (paths below ``located.root``),
    height, width, sha256, label_sha256, class_pixels, and ``problem``, which is empty where the pair is sound.
    """

    dataset: DataSet
    located: Located
    split: str
    label_map: str
    encoding: str
    table: pd.DataFrame

    @property
    def problems(self) -> dict[str, str]:
        """The problem of each damaged image, by its id; known bad ones included."""
        return _problems(self.table)


def index_set(
    dataset: DataSet,
    located: Located,
    split: str,
    cache: Path | None,
    label_map: str = "",
    pairs: Sequence[Pair] | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    classes: ClassSet = CITYSCAPES,
) -> SetIndex:
    """Read and check every pair of a split that the journal below ``cache`` does not know yet.

    Args:
        cache: None keeps no journal, for files that are rewritten whenever they are indexed.
        label_map: the user's choice, if any. pairs: those of the split, if the caller has listed them already.
        progress: is called with the number of pairs done since the last call; known pairs are done at once.
        classes: whose trainIds the labels become.

    Raises:
        UserError: the label map does not fit the set; there is no pair; without ``pairs``, the split is incomplete.
    """
    journal = _open_journal(dataset, located, split, cache, label_map, classes)
    pairs = list_pairs(dataset, located, split) if pairs is None else pairs
    if not pairs:
        raise UserError(f"{located.root} holds no image of {dataset.title}, {split}")
    listed = _stat_pairs(pairs, located.root)
    records = journal.read()
    known = _match_records(listed, records)
    waiting = listed[~listed["id"].isin(known["id"])].to_dict("records")
    tasks = [(located.root, waiting[i : i + BATCH], journal) for i in range(0, len(waiting), BATCH)]
    advance = progress or (lambda count: None)
    advance(len(known))
    fresh: list[dict[str, Any]] = []
    saved, time_saved = 0, time.monotonic()
    try:
        for results in _run_parallel(tasks, workers):
            fresh += results
            advance(len(results))
            if time.monotonic() - time_saved > FLUSH_SECONDS:
                journal.add(fresh[saved:])
                saved, time_saved = len(fresh), time.monotonic()
    finally:
        journal.add(fresh[saved:])
    journal.compact()
    # Not from the journal again: another process may be compacting it, or somebody may have removed it.
    table = _match_records(listed, pd.concat([records, journal.to_table(fresh).to_pandas()]))
    return SetIndex(dataset, located, split, journal.name, journal.encoding, table)


def recall(
    dataset: DataSet,
    located: Located,
    split: str,
    cache: Path,
    label_map: str = "",
    pairs: Sequence[Pair] = (),
    classes: ClassSet = CITYSCAPES,
) -> tuple[int, dict[str, str]]:
    """Recall what :func:`index_set` found earlier, without decoding: the number of pairs and the problems by id.

    A problem counts only for ``pairs``, and as long as nothing has touched the files of its pair.
    """
    records = _open_journal(dataset, located, split, cache, label_map, classes).read()
    bad = set(records.loc[records["problem"] != "", "image"])
    suspects = [pair for pair in pairs if _relative(located.root, pair.image) in bad] if bad else []
    problems = _problems(_match_records(_stat_pairs(suspects, located.root), records)) if suspects else {}
    return records["image"].nunique(), problems


def recall_table(
    dataset: DataSet,
    located: Located,
    split: str,
    cache: Path,
    label_map: str,
    pairs: Sequence[Pair],
    fresh: bool,
    classes: ClassSet = CITYSCAPES,
) -> pd.DataFrame:
    """Recall the table of :attr:`SetIndex.table` without decoding; pairs that nothing is known of are left out.

    Args:
        fresh: look at every file, and leave out pairs whose files have changed since.
    """
    records = _open_journal(dataset, located, split, cache, label_map, classes).read()
    if fresh:
        return _match_records(_stat_pairs(pairs, located.root), records)
    images = [_relative(located.root, pair.image) for pair in pairs]
    listed = pd.DataFrame({"id": [pair.id for pair in pairs], "image": images})
    return listed.merge(records.drop_duplicates("image", keep="last"), on="image")


def select(index: SetIndex, split: str, conditions: Sequence[str] = (), skip: Sequence[str] = ()) -> pd.DataFrame:
    """Select the rows of a domain's ``split`` from a set's index (columns of :data:`flexseg.data.index.SCHEMA`).

    The images named in ``skip`` (which may belong to another split) are left out, and so are those that the set's file
    knows as bad (even if their files are sound, or two copies of a set would give two data sets) and, if ``conditions``
    are given, all others.

    Raises:
        UserError: a condition that does not exist, a damaged pair is among those selected, or none is left.
    """
    table, title = index.table, f"{index.dataset.title}, {index.split}"
    there = set(table["condition"])
    for name in conditions:
        if name not in there:
            raise UserError(f"{title}: there is no condition {name!r}{did_you_mean(name, there)}")
    kept = table[~table["id"].isin({*skip, *index.dataset.known_bad})]
    if conditions:
        kept = kept[kept["condition"].isin(conditions)]
    bad = kept[kept["problem"] != ""]
    if len(bad):
        shown = "\n".join(f"  {printable(row.id)}: {row.problem}" for row in bad.head(5).itertuples())
        more = f"\n  … and {len(bad) - 5} more" if len(bad) > 5 else ""
        leave = advise_skip(bad["id"].tolist(), "their ids")
        remedy = index.dataset.remedy(f"unpack their archive again, or leave them out: {leave}")
        raise UserError(
            f"{title}: {len(bad)} of {len(kept)} pairs cannot be used:\n{shown}{more}\n{remedy[0].upper()}{remedy[1:]}"
        )
    if kept.empty:
        raise UserError(f"{title}: no image is left of {len(table)}")
    return kept.assign(split=split)[SCHEMA.names].reset_index(drop=True)


@dataclass(frozen=True)
class Journal:
    """The results for each pair, as a folder of parts that appear whole; readers and writers need no lock.

    A part is never changed. Compacting writes the new part first and then removes the old ones, so a reader that
    misses a part starts again. Without a folder nothing is kept. ``mapping`` is the label map, and None where the files
    hold Cityscapes' trainIds.
    """

    folder: Path | None
    mapping: LabelMap | None
    encoding: str

    @property
    def name(self) -> str:
        """The label map's."""
        return self.mapping.id if self.mapping else ""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.mapping.classes) if self.mapping else NUM_CLASSES

    @cached_property
    def _version(self) -> str:
        used: list[Any] = [self.mapping.table.tolist(), self.mapping.known.tolist()] if self.mapping else []
        if self.mapping and self.mapping.where and self.encoding == "colours":  # a map that people edit
            used.append(sorted(self.mapping.colours.items()))
        return digest([FORMAT, self.encoding, *used])

    @cached_property
    def _schema(self) -> pa.Schema:
        return journal_schema(self.num_classes)

    def to_table(self, rows: Sequence[dict[str, Any]]) -> pa.Table:
        """Records as a table."""
        return pa.Table.from_pylist(list(rows), schema=self._schema)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write a part with these records, if there are any, except those of files that could not be read."""
        if self.folder and (kept := [row for row in rows if UNREAD not in row]):
            self._write(self.folder, self.to_table(kept))

    def read(self) -> pd.DataFrame:
        """Read all records (columns of :func:`journal_schema`); a pair whose files were changed has several."""
        return self._read()[0].to_pandas()

    def compact(self) -> None:
        """Gather all parts into one."""
        records, parts = self._read()
        if self.folder and len(parts) > 1:
            self._write(self.folder, records)
            for part in parts:
                part.unlink(missing_ok=True)

    def _write(self, folder: Path, table: pa.Table) -> None:
        path = folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}.parquet"
        write_table(path, table, {"version": self._version})

    def _read(self) -> tuple[pa.Table, list[Path]]:
        """Read all records, each once, and return them with the parts that they come from."""
        while True:
            parts, tables = sorted(self.folder.glob("*.parquet") if self.folder else ()), [self._schema.empty_table()]
            try:
                for part in parts:
                    tables += self._part(part)
            except FileNotFoundError:  # another process has just compacted it
                continue
            records = pa.concat_tables(tables)
            repeated = records.select([*FILES, "touched"]).to_pandas().duplicated(keep="last")
            return records.filter(pa.array(~repeated)), parts

    def _part(self, part: Path) -> list[pa.Table]:
        """Read the table of a part; none if it is damaged or of another version: its pairs are then decoded again."""
        try:
            table, metadata = read_table(part)
        except Damaged:
            return []
        return [table] if metadata.get("version") == self._version and table.schema.equals(self._schema) else []


def _open_journal(
    dataset: DataSet, located: Located, split: str, cache: Path | None, label_map: str, classes: ClassSet
) -> Journal:
    chosen = dataset.map_of(located.layout, label_map)
    into = "" if classes.is_default else f"-{classes.id}"
    folder = cache and cache / dataset.name / f"{located.layout.name}-{split}-{chosen}{into}"
    return Journal(folder, dataset.load_map(chosen, classes), dataset.encoding_of(located.layout))


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _stat_pairs(pairs: Sequence[Pair], root: Path) -> pd.DataFrame:
    """The pairs as they are on disk now: id, condition, :data:`FILES` and ``touched``."""
    rows = []
    for pair in pairs:
        image, label = _stat(pair.image), _stat(pair.label)
        paths = (_relative(root, pair.image), _relative(root, pair.label))
        rows.append((pair.id, pair.condition, *paths, *image[:2], *label[:2], max(image[2], label[2])))
    return pd.DataFrame(rows, columns=["id", "condition", *FILES, "touched"])


def _stat(path: Path) -> tuple[int, int, int]:
    """Size in bytes, time of the last change of the content and of anything (ns); −1 if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _match_records(listed: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Join the listed pairs with their records, if they have one.

    A sound pair is known by the size and time of its files; a bad one only as long as nothing has touched them, because
    unpacking an archive again restores a file's time, and for a file that was damaged in place its size as well.
    """
    joined = listed.merge(records, on=list(FILES), how="inner", suffixes=("", "_then"))
    usable = joined[(joined["problem"] == "") | (joined["touched"] == joined["touched_then"])]
    columns = ["id", "condition", "image", "label", *FACTS, "problem"]
    return usable.drop_duplicates("id", keep="last")[columns].reset_index(drop=True)


def _problems(table: pd.DataFrame) -> dict[str, str]:
    bad = table[table["problem"] != ""]
    return dict(zip(bad["id"], bad["problem"], strict=True))


Task = tuple[Path, list[dict[str, Any]], Journal]
"""The root of a set, some of its pairs (:data:`FILES` and ``touched``), and the journal that says how to read them."""


def _run_parallel(tasks: Sequence[Task], workers: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the results of all tasks as they come."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(_examine_all, tasks)
        return
    others = set(multiprocessing.active_children())
    try:
        # Fresh interpreters: a fork would copy the locks of this process's threads.
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
        futures = [pool.submit(_examine_all, task) for task in tasks]
    except OSError as error:
        for child in set(multiprocessing.active_children()) - others:  # nobody would give them work, or end them
            child.kill()
        # Processes share their queues in shared memory; too many open files or processes are another matter.
        place = "/dev/shm: " if error.errno in SHARED_MEMORY else ""
        print(f"several workers cannot start here, so one process checks the files: {place}{error.strerror}")
        yield from map(_examine_all, tasks)
        return
    try:
        for done in as_completed(futures):
            yield done.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps because memory ran out: start the same command again with fewer "
            "workers; it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent ends, however it does: a worker would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _examine_all(task: Task) -> list[dict[str, Any]]:
    root, rows, journal = task
    return [_examine(root, row, journal) for row in rows]


def _examine(root: Path, row: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Make the record of a pair: its files, and either its :func:`facts_of` or its problem."""
    image_path, label_path = root / row["image"], root / row["label"]
    record = {name: row[name] for name in (*FILES, "touched")}
    nothing = NOTHING | {"class_pixels": [0] * journal.num_classes}
    try:
        files = image_path, read_file(image_path), label_path, read_file(label_path)
        image, label = decode_pair(*files, journal.mapping, journal.encoding)
    except MemoryError:
        raise
    except UserError as error:
        return record | nothing | {"problem": printable(str(error))}
    except OSError as error:  # gone, a link to nowhere, not ours to read, or a disk that fails
        if error.errno in SCARCE:
            raise
        why = f"{error.filename or image_path} cannot be read ({error.strerror or error}): "
        return record | nothing | {"problem": printable(why + "check that it is there and may be read"), UNREAD: True}
    except Exception as error:  # decoders raise anything at all on damaged files
        why = f"{image_path} or {label_path.name} cannot be read: {error!r}"
        return record | nothing | {"problem": printable(why)}
    return record | facts_of(image, label, files[1], files[3], journal.num_classes) | {"problem": ""}
