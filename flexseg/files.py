"""Files that appear whole or not at all, and digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flexseg.errors import UserError

DISK = {
    errno.ENOSPC: "no space left on the disk: free some and start the same command again, it goes on",
    errno.EDQUOT: "your quota of the disk is used up: free some and start the same command again, it goes on",
    errno.EFBIG: "the file would be larger than this file system or `ulimit -f` allows",
    errno.EIO: "the disk fails to read or write: see that it is well, and start the same command again",
    errno.EROFS: "the file system may only be read: run the command in a folder that you may write",
    errno.EACCES: "permission denied: run the command in a folder that is yours, or change the permissions",
    errno.EPERM: "not permitted: run the command in a folder that is yours, or change the permissions",
    errno.EMFILE: "too many files are open: allow more with `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENAMETOOLONG: "the name is longer than the file system allows: use a shorter one",
    errno.EEXIST: "a file, or a link to nowhere, is where a folder should be: move it away",
    errno.ENOTDIR: "a file, or a link to nowhere, is where a folder should be: move it away",
    errno.EISDIR: "a folder is where a file should be: move it away",
    errno.ELOOP: "its links lead in a circle",
    errno.ENOENT: "there is no such file or folder",
    errno.ESTALE: "the network file system has lost it: start the same command again",
    errno.ENOMEM: "memory ran out",
}
"""What an error of the file system means, and what to do."""


class DiskError(UserError):
    """The file system refused something. It is the machine's fault, so the same command may succeed later."""


def describe_disk_error(error: OSError, place: Path | str = "") -> str:
    """One line for an error of the file system: where, what, what to do.

    Args:
        place: what was being read or written, for errors that name no file.
    """
    where = os.fsdecode(error.filename2 or error.filename or place or "the file system")
    shown = where if len(where) <= 200 else f"{where[:120]}…{where[-40:]}"
    reason = DISK.get(error.errno or 0) or error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{shown}: {reason}"


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn every error of the file system into a :class:`DiskError` of one line; ``place`` as above."""
    try:
        yield
    except OSError as error:
        raise DiskError(describe_disk_error(error, place)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is renamed to ``path``, on failure removed.

    So a reader never sees half a file, whatever kills the writer. The file is flushed to disk before it is renamed, so
    a full disk shows here, as ``OSError``, while the previous version of ``path`` is still intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole. Non-finite numbers are refused (``ValueError``)."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it, or its folder, and start again") from error


def digest(value: Mapping[str, Any] | list[Any] | str) -> str:
    """SHA-256 of the canonical JSON of ``value`` (sorted keys, no white space), as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
