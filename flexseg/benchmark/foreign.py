"""Rows that were not trained here: a network from elsewhere, predictions of anybody's code, or published runs."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from flexseg.files import file_digest

Kind = Literal["checkpoint", "network", "predictions", "publication"]
KINDS: tuple[Kind, ...] = ("checkpoint", "network", "predictions", "publication")
"""Keys of a row that name what was made elsewhere.

An mmseg checkpoint, an exported network, a folder of label maps; or the digest of a publication, whose runs ``flexseg
import`` has put where a trained row's would be.
"""


@dataclass(frozen=True)
class Foreign:
    """What a row holds that was made elsewhere.

    Attributes:
        kind: a checkpoint of mmseg's with its ``config``, an exported network, predictions, or a publication.
        path: the file, or the folder of predictions; of a publication its digest.
        config: mmseg's configuration of a checkpoint.
    """

    kind: Kind
    path: Path
    config: Path | None = None

    @property
    def has_seeds(self) -> bool:
        """Whether it was trained with seeds, as published runs are, which count like one's own."""
        return self.kind == "publication"

    @property
    def missing(self) -> str:
        """Which of its files is not there; empty if all are. Published runs say so themselves."""
        if self.kind == "publication":
            return ""
        wanted = {self.path: self.path.is_dir() if self.kind == "predictions" else self.path.is_file()}
        if self.config is not None:
            wanted[self.config] = self.config.is_file()
        lost = [str(path) for path, there in wanted.items() if not there]
        what = "folder" if self.kind == "predictions" else "file"
        return f"there is no {what} {lost[0]}" if lost else ""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, of a folder's files by names and contents, or of a publication's manifest."""
        if self.kind == "publication":
            return str(self.path)
        return _folder_digest(self.path) if self.path.is_dir() else digest_of(self.path)

    def definition(self) -> dict[str, Any]:
        """All that decides what it predicts; of missing files their names."""
        if self.missing:
            return {"kind": self.kind, "missing": self.missing}
        config = {"config_sha256": digest_of(self.config)} if self.config else {}
        return {"kind": self.kind, "sha256": self.digest} | config

    def describe(self) -> str:
        """For notes below tables: ``net.pth, SHA-256 0123456789ab…``."""
        if self.kind == "publication":
            return f"published runs, manifest {self.digest[:12]}…"
        what = {"checkpoint": "checkpoint", "network": "exported network", "predictions": "predictions"}[self.kind]
        return f"{what} {self.path.name}, SHA-256 {self.digest[:12]}…"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, computed once as long as it does not change."""
    state = path.stat()
    return _file_digest(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=100_000)
def _file_digest(path: Path, *_: int) -> str:
    return file_digest(path)


def _folder_digest(folder: Path) -> str:
    total = hashlib.sha256()
    names = sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)
    for path in names:
        total.update(f"{path.relative_to(folder).as_posix()}\0{digest_of(path)}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
