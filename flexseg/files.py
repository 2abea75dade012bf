"""Files that appear whole or not at all, and digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import socket
import time
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
MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE}
)
"""Errors that are the machine's, whoever asked for the file; others may be a mistake of who named it."""
STALE_SECONDS = 24 * 3600.0
"""The age at which a file that a process of another machine began to write counts as given up."""
JSON_BYTES, JSON_DEPTH = 64 * 2**20, 64
"""The largest size, and how deep lists and mappings may lie in each other, of a JSON file that is read."""


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
    name = path.name
    if len(os.fsencode(name)) > 120:  # else a name that the file system just allows would have no room for the ending
        name = f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}"
    temporary = path.with_name(f".{name}.{_own_ending(os.getpid())}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # name the file that was wanted
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk there is none, and this must not hide the reason
            temporary.unlink(missing_ok=True)


def file_stem(name: str) -> str:
    """The stem of the files about an image of this name: the name itself, if endings can still be put to it."""
    content = os.fsencode(name)
    if len(content) <= 200:
        return name
    return f"{content[:80].decode(errors='ignore')}-{hashlib.sha256(content).hexdigest()[:16]}"


def _own_ending(process: int) -> str:
    return f"{socket.gethostname()}-{process}.part"


def remove_stale_parts(folder: Path) -> None:
    """Remove from ``folder`` what killed processes left of files that they were writing (:func:`replacing`).

    A file of this machine goes once its process is gone; of other machines only its age is known (``STALE_SECONDS``).
    """
    for path in folder.glob(".*.part"):
        found = re.search(r"-(\d+)\.part$", path.name)
        if found is None or not path.is_file():
            continue
        if path.name.endswith(f".{_own_ending(int(found[1]))}"):
            given_up = not _is_alive(int(found[1]))
        else:
            given_up = time.time() - path.stat().st_mtime > STALE_SECONDS
        if given_up:
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole. Non-finite numbers are refused (``ValueError``)."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file as :func:`write_json` writes it.

    Raises:
        UserError: it is damaged: no UTF-8, no JSON, numbers that are not finite, beyond ``JSON_BYTES`` or
            ``JSON_DEPTH``.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(JSON_BYTES + 1)
        if len(content) > JSON_BYTES:
            raise ValueError(f"more than {JSON_BYTES >> 20} MiB")
        value = json.loads(content.decode(), parse_float=_finite, parse_constant=_finite)
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}): delete it, or its folder, and start again") from error
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _check_depth(value: Any) -> None:
    """Refuse nesting beyond ``JSON_DEPTH``, and text that no file can hold (lone surrogates)."""
    level = [value]
    for _ in range(JSON_DEPTH):
        deeper: list[Any] = []
        for each in level:
            if isinstance(each, str):
                each.encode()
            elif isinstance(each, dict):
                deeper += [*each, *each.values()]
            elif isinstance(each, list):
                deeper += each
        level = deeper
        if not level:
            return
    raise ValueError("too deeply nested")


def digest(value: Mapping[str, Any] | list[Any] | str) -> str:
    """SHA-256 of the canonical JSON of ``value`` (sorted keys, no white space), as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
