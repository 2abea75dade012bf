"""The index of a domain: which image has which label, its condition, size and hash.

A domain lies on disk in Cityscapes' directory layout with trainId labels::

    leftImg8bit/<split>/<condition>/<id>_leftImg8bit.png
    gtFine/<split>/<condition>/<id>_gtFine_labelTrainIds.png

so any code that reads Cityscapes reads it. The index is written once, after every pair was decoded and checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flexseg.data.images import decode_pair
from flexseg.errors import UserError
from flexseg.files import digest, file_digest, replacing

IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelTrainIds.png"
INDEX_NAME = "index.parquet"


@dataclass(frozen=True)
class Index:
    """A domain's index: its folder, the fingerprint of its definition, and the table of its images.

    ``table`` has the columns id, image, label (paths below ``root``), split, condition, height, width (pixels),
    sha256 (of the image's bytes) and label_sha256.
    """

    root: Path
    fingerprint: str
    table: pd.DataFrame

    @property
    def digest(self) -> str:
        """SHA-256 over the hashes of all images and labels: equal if and only if the data are."""
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


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    folder = root / "leftImg8bit" / split
    images = sorted(folder.glob(f"*/*{IMAGE_SUFFIX}"))
    if not images:
        raise UserError(f"{folder} holds no image (*/*{IMAGE_SUFFIX}): is {root} the folder of a domain?")
    pairs = []
    for image in images:
        name = image.name.removesuffix(IMAGE_SUFFIX) + LABEL_SUFFIX
        label = root / "gtFine" / split / image.parent.name / name
        if not label.is_file():
            raise UserError(f"{image} has no label: {label} does not exist")
        pairs.append((image, label))
    return pairs


def build_index(
    root: Path, counts: dict[str, int], fingerprint: str, progress: Callable[[int], None] | None = None
) -> Index:
    """Decode and check every pair of the splits in ``counts`` (split → expected number) and write the index.

    Raises:
        UserError: an image without label, a damaged file, a wrong id, differing sizes, or another number of images.
    """
    rows = []
    for split, expected in counts.items():
        pairs = _pairs(root, split)
        if len(pairs) != expected:
            raise UserError(f"{root} holds {len(pairs)} images in its split {split!r}, expected {expected}")
        for image_path, label_path in pairs:
            image, _ = decode_pair(image_path, image_path.read_bytes(), label_path, label_path.read_bytes())
            rows.append(
                {
                    "id": image_path.name.removesuffix(IMAGE_SUFFIX),
                    "image": str(image_path.relative_to(root)),
                    "label": str(label_path.relative_to(root)),
                    "split": split,
                    "condition": image_path.parent.name,
                    "height": image.shape[0],
                    "width": image.shape[1],
                    "sha256": file_digest(image_path),
                    "label_sha256": file_digest(label_path),
                }
            )
            if progress is not None:
                progress(1)
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    with replacing(root / INDEX_NAME) as temporary:
        pq.write_table(table.replace_schema_metadata({"fingerprint": fingerprint}), temporary)
    return read_index(root)


def read_index(root: Path, fingerprint: str | None = None) -> Index:
    """Read the index of the domain in ``root``; with ``fingerprint``, check that it is the expected data.

    Raises:
        UserError: there is none, or it belongs to another definition.
    """
    path = root / INDEX_NAME
    if not path.is_file():
        raise UserError(f"{path} does not exist: write the domain first with `flexseg dataset`")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it and run `flexseg dataset` again") from error
    found = (table.schema.metadata or {}).get(b"fingerprint", b"").decode()
    if fingerprint is not None and found != fingerprint:
        raise UserError(
            f"{root} holds data of another definition ({found or 'unknown'}, expected {fingerprint}): "
            "write the domain again with `flexseg dataset`"
        )
    return Index(root, found, table.replace_schema_metadata(None).to_pandas())
