"""The index of a domain: which image has which label, its condition, size, hash and pixels of each class.

An index is written once, after every pair was decoded and checked (:mod:`flexseg.data.indexing`). A domain of the
street world is stored beside its index, in Cityscapes' layout; any other data set stays where it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flexseg.classes import NUM_CLASSES
from flexseg.console import printable
from flexseg.data.label_maps import LabelMap
from flexseg.errors import UserError
from flexseg.files import digest, disk_errors, replacing

INDEX_NAME = "index.parquet"
SEAL = "content"
"""The key of a table's metadata that holds the digest of everything else in its file."""


def index_schema(num_classes: int = NUM_CLASSES) -> pa.Schema:
    """The columns of an index, one row per image; those from ``height`` on are the :func:`facts_of` a pair."""
    return pa.schema(
        {
            "id": pa.string(),
            "image": pa.string(),
            "label": pa.string(),
            "split": pa.string(),
            "condition": pa.string(),
            "height": pa.int64(),
            "width": pa.int64(),
            "sha256": pa.string(),
            "label_sha256": pa.string(),
            "class_pixels": pa.list_(pa.int64(), num_classes),
        }
    )


SCHEMA = index_schema()
"""The columns of an index for Cityscapes' classes; other sets of classes differ in the last column's width."""


@dataclass(frozen=True)
class Index:
    """A domain's index: the folder of its data, the fingerprint of its definition, and the table of its images.

    ``table`` has the columns id, image, label (paths below ``root``), split, condition, height, width (pixels),
    sha256 (of the image's bytes), label_sha256, and class_pixels ((C,) int64: pixels of each trainId). Labels are
    decoded with ``encoding`` and the map named ``label_map``; without one they are Cityscapes' trainIds already.
    ``mapping`` is that map, if it is not one of the suite's to Cityscapes' classes. ``notes`` say what a reader of
    results must know of the data, a line each: images without a label, files that are not used, and what is unusual
    about the labels.
    """

    root: Path
    fingerprint: str
    table: pd.DataFrame
    label_map: str = ""
    encoding: str = "index"
    notes: tuple[str, ...] = ()
    mapping: LabelMap | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the hashes of all images and labels: equal if and only if the data are equal."""
        return digest(self.table[["id", "sha256", "label_sha256"]].to_numpy().tolist())

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split.

        Raises:
            UserError: the split holds no image.
        """
        rows = self.table[self.table["split"] == name]
        if rows.empty:
            raise UserError(f"{self.root} has no images in its split {name!r}")
        return rows


def facts_of(
    image: np.ndarray, label: np.ndarray, image_bytes: bytes, label_bytes: bytes, num_classes: int = NUM_CLASSES
) -> dict[str, Any]:
    """Compute what an index records of a decoded pair: height, width, sha256, label_sha256 and class_pixels.

    Args:
        image: (H, W, 3). label: (H, W) uint8 trainIds. image_bytes, label_bytes: the files that they were decoded from.
    """
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "sha256": hashlib.sha256(image_bytes).hexdigest(),
        "label_sha256": hashlib.sha256(label_bytes).hexdigest(),
        "class_pixels": np.bincount(label.ravel(), minlength=num_classes)[:num_classes].astype(np.int64),
    }


class Damaged(ValueError):
    """The bytes of a table are not those that were written."""


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Write a table whole, with a digest of its content and its ``metadata``; equal ones give equal bytes."""
    sealed = table.replace_schema_metadata({**metadata, SEAL: _digest_table(table, metadata)})
    content = pa.BufferOutputStream()
    pq.write_table(sealed, content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


def read_table(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Read a table and its metadata as :func:`write_table` wrote them.

    Raises:
        Damaged: some of its bytes are others now. OSError: it cannot be read.
    """
    content = path.read_bytes()  # so that every error below is one of the content
    try:
        table = pq.read_table(pa.BufferReader(content))
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        table = table.replace_schema_metadata(None)
        written = metadata.pop(SEAL, None)  # none: by an earlier version of this library
        table.validate(full=True)
        whole = written is None or written == _digest_table(table, metadata)
    except Exception as error:  # pyarrow raises anything at all on damaged bytes
        reason = " ".join(str(error).rpartition("'<Buffer>': ")[2].split()) or type(error).__name__
        raise Damaged(printable(reason[:100])) from error
    if not whole:
        raise Damaged("its content has changed")
    return table, metadata


def _digest_table(table: pa.Table, metadata: Mapping[str, str]) -> str:
    """A digest of columns of text and of whole numbers; it does not depend on how pyarrow stores them."""
    total = hashlib.sha256(json.dumps([table.column_names, sorted(metadata.items())]).encode())
    for column in table.columns:
        array = column.combine_chunks()
        if pa.types.is_fixed_size_list(array.type):
            array = array.flatten()
        if pa.types.is_string(array.type):
            content = "\0".join(array.to_pylist()).encode()
        else:
            content = array.to_numpy(zero_copy_only=False).astype("<i8").tobytes()
        total.update(len(content).to_bytes(8, "little") + content)
    return total.hexdigest()


def write_index(folder: Path, index: Index) -> None:
    """Write an index into ``folder`` atomically; equal indices give equal bytes."""
    metadata = {"fingerprint": index.fingerprint, "label_map": index.label_map, "encoding": index.encoding}
    if index.notes:
        metadata["notes"] = json.dumps(index.notes)
    schema = index_schema(len(index.table["class_pixels"].iloc[0]))
    table = pa.Table.from_pandas(index.table, schema=schema, preserve_index=False).replace_schema_metadata(None)
    write_table(folder / INDEX_NAME, table, metadata)


def read_index(
    folder: Path,
    fingerprint: str | None = None,
    root: Path | None = None,
    load: Callable[[str], LabelMap | None] | None = None,
) -> Index:
    """Read the index in ``folder``; with ``fingerprint``, check that it is the expected data.

    ``root`` is the folder of the data, if they are not beside their index; ``load`` finds the label map of the recorded
    name, where that is not one of the suite's to Cityscapes' classes.

    Raises:
        UserError: there is none, it is damaged, or it belongs to another definition or to an earlier version of this
            library. DiskError: the disk does not let it be read.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise UserError(f"{path} does not exist: write the domain first with `flexseg dataset`")
    try:
        with disk_errors(path):
            table, metadata = read_table(path)
    except Damaged as error:
        raise UserError(f"{path} cannot be read ({error}): delete it and run `flexseg dataset` again") from error
    found = metadata.get("fingerprint", "")
    if fingerprint is not None and found != fingerprint:
        raise UserError(
            f"{folder} holds data of another definition ({found or 'unknown'}, expected {fingerprint}): "
            "write the domain again with `flexseg dataset`"
        )
    lacking = [name for name in SCHEMA.names if name not in table.column_names]
    if lacking:
        raise UserError(
            f"{path} was written by an earlier version of this library (it lacks {', '.join(lacking)}): "
            "write the domain again with `flexseg dataset`"
        )
    notes = tuple(json.loads(metadata.get("notes", "[]")))
    label_map, encoding = metadata.get("label_map", ""), metadata.get("encoding", "index")
    mapping = load(label_map) if load else None
    return Index(root or folder, found, table.to_pandas(), label_map, encoding, notes, mapping)
