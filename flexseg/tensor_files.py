"""Safetensors files that carry the digest of their content, so that damage shows whenever they are read.

The format says how long each tensor is, nothing about its bytes: a hole of zeros or a flipped bit is read as weights.
Files without a digest, as other programs write them, are read as they are. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from flexseg.errors import UserError
from flexseg.files import digest

SEAL = "sha256"
"""The key of the metadata that holds the digest of everything else in the file."""
UNSEALED = "0" * 64
_HEADER_BYTES = 100 * 2**20  # the format's own limit


def seal(path: Path) -> str:
    """Put the digest into a file that was written with ``{SEAL: UNSEALED}`` among its metadata; return the tensors'.

    The metadata are also sorted, as safetensors writes them in any order: equal content has equal bytes.
    """
    with path.open("rb+") as file:
        header, size = _read_header(file)
        metadata = header.pop("__metadata__")
        del metadata[SEAL]
        tensors = _digest_tensors(header, file)
        sealed = dict(sorted((metadata | {SEAL: _digest_all(tensors, metadata)}).items()))
        text = json.dumps({"__metadata__": sealed} | header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:
            raise ValueError(f"the header of {path} does not fit")
        file.seek(8)
        file.write(text.ljust(size))
    return tensors


def check_seal(path: Path, expected: str | None = None) -> None:
    """Read the file at ``path`` and compare it with its digest; one without a digest passes.

    Args:
        expected: the digest of its tensors, as :func:`seal` returned it and another file kept it.

    Raises:
        UserError: the bytes are not those that were written. OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            header, _ = _read_header(file)
            metadata = header.pop("__metadata__", {})
            sealed = metadata.pop(SEAL, None)
            if sealed is None and expected is None:
                return
            tensors = _digest_tensors(header, file)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its header cannot be read") from error
    if sealed not in (None, _digest_all(tensors, metadata)):
        raise UserError(f"{path} is damaged: its bytes are not those that were written")
    if expected not in (None, tensors):
        raise UserError(f"{path} holds other tensors than those that its run recorded")


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file (its metadata, then each tensor's type, shape and place) and its size in bytes.

    Raises:
        ValueError: there is none.
    """
    size = int.from_bytes(file.read(8), "little")
    if size > _HEADER_BYTES:
        raise ValueError("its header is too long")
    header = json.loads(file.read(size).decode())
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    return header, size


def _digest_tensors(header: dict[str, Any], file: BinaryIO) -> str:
    """SHA-256 of names, types, shapes and places of the tensors, and of their bytes, which ``file`` is read for."""
    found = hashlib.sha256(digest(header).encode())
    while block := file.read(2**20):
        found.update(block)
    return found.hexdigest()


def _digest_all(tensors: str, metadata: dict[str, str]) -> str:
    return digest({"tensors": tensors, "metadata": metadata})
