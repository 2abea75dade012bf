"""Install the plain Python files of detectron2, without a compiler and without running any of them.

detectron2 has no release on the package index, and its own set-up compiles operators for detection, which semantic
segmentation does not use. What the suite's adapter needs are the Python files of one commit. They are read from a
checkout, an unpacked archive, a ``.zip`` or ``.tar.gz``, or the address of one; nothing is unpacked to disk. One
SHA-256 over all of them is compared, then they are packed into a wheel, which pip installs.

The digest is over the files and not over an archive, because a server may pack the same files again in other bytes. In
a checkout this computes it::

    find detectron2 projects/DeepLab/deeplab projects/Panoptic-DeepLab/panoptic_deeplab projects/PointRend/point_rend \\
        -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import http.client
import io
import os
import re
import stat
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from flexseg.console import progress_bar
from flexseg.errors import UserError
from flexseg.models.detectron2 import ARCHIVE, COMMIT, RECIPE, SHA256

PARTS = {
    "detectron2": "detectron2",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
}
"""The folders of the source that its own set-up installs, and as what."""
NEEDED = (
    "cloudpickle",
    "fvcore<0.1.6,>=0.1.5",
    "hydra-core>=1.1",
    "iopath<0.1.10,>=0.1.7",
    "omegaconf<2.4,>=2.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "termcolor>=1.1",
    "yacs>=0.1.8",
)
"""What detectron2 declares, less what the suite needs anyway or what its trunks never import (black, tensorboard)."""

ARCHIVE_BYTES = 64 * 2**20
UNPACKED_BYTES = 256 * 2**20
ENTRIES = 20_000
PYTHON_BYTES = 32 * 2**20
"""What an archive may hold at most, packed and unpacked, and all its Python files. The pinned one has 1, 5 and 3 MB."""
GIVE = "Give the source of detectron2: a checkout, an unpacked archive, a .zip or .tar.gz, or the address of one"
GZIP = b"\x1f\x8b"
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What reading a damaged archive, an encrypted one, or one that was packed in a way that we cannot read, raises."""


class Entry(NamedTuple):
    """Something in a folder or an archive. ``plain``: it is a file, not a link, a device or a folder."""

    name: str
    plain: bool
    size: int
    read: Callable[[], bytes]


def install_detectron2(source: str, sha256: str = "", python: str = sys.executable) -> str:
    """Install detectron2's Python files from ``source`` into the environment of ``python``.

    Args:
        source: a folder, an archive, or the address of an archive.
        sha256: of the Python files, if they are wanted of another commit than the pinned one.

    Returns:
        The version that :mod:`importlib.metadata` finds from then on, such as ``0.6+g02b5c4e295e9``; of another commit
        ``0.6+py`` and the first digits of the digest.

    Raises:
        UserError: there is no source, it cannot be read, is not detectron2 or not the wanted files, what detectron2
            needs is not installed, or pip refuses. Nothing is installed then.
    """
    if not source:
        raise UserError(f"which detectron2? {GIVE}. The pinned commit is here: `{RECIPE}`")
    wanted = sha256.strip().lower() or SHA256
    if not re.fullmatch("[0-9a-f]{64}", wanted):
        raise UserError(f"--sha256 {sha256!r} is no SHA-256, which has 64 hexadecimal digits")
    files = read_sources(source)
    found = digest_of(files)
    if found != wanted:
        asked = f"commit {COMMIT}" if wanted == SHA256 else "the digest asked for"
        raise UserError(
            f"{source} does not hold the Python files of {asked}: their SHA-256 is {found}, not {wanted}. "
            f"Get that commit ({ARCHIVE}), or take these files as they are, with which the suite is not tested: "
            f"--sha256 {found} (make: DETECTRON2_SHA256={found})"
        )
    _require_needed()
    release = version_of(files, source)
    version = f"{release}+g{COMMIT[:12]}" if found == SHA256 else f"{release}+py{found[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        _pip_install(write_wheel(files, version, found, Path(folder)), python)
    return version


def read_sources(source: str) -> dict[str, bytes]:
    """The Python files of detectron2 in a folder, an archive or at an address, by their path in the source.

    Raises:
        UserError: it cannot be had or read, is no detectron2, or holds what no source does: paths that lead out of it,
            links in the place of Python files, absurd sizes.
    """
    path = Path(source).expanduser()
    if "://" in source:
        files = _read_archive(io.BytesIO(_download(source)), source)
    elif path.is_dir():
        files = _collect(_entries_of_folder(path), source)
    elif not path.is_file():
        raise UserError(f"{source} is neither a folder nor a file. {GIVE}")
    elif path.stat().st_size > ARCHIVE_BYTES:
        raise UserError(f"{source} is larger than {ARCHIVE_BYTES >> 20} MiB, which no source of detectron2 is")
    else:
        with path.open("rb") as file:
            files = _read_archive(file, source)
    return _choose(files, source)


def digest_of(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the lines that ``sha256sum`` prints for ``files``, sorted by path."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def version_of(files: Mapping[str, bytes], source: str) -> str:
    """The version that detectron2 gives itself, read and not run."""
    found = re.search(rb'^__version__ = "(\d{1,4}(?:\.\d{1,4}){0,3})"', files["detectron2/__init__.py"], re.MULTILINE)
    if found is None:
        raise UserError(f"{source}: detectron2/__init__.py gives no __version__, so this is no source of detectron2")
    return found[1].decode()


def write_wheel(files: Mapping[str, bytes], version: str, digest: str, folder: Path) -> Path:
    """Write a wheel of these files into ``folder``: pip installs it without running anything of it."""
    about = f"detectron2-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {each}\n" for each in NEEDED)
    summary = f"The plain Python files of detectron2, without its compiled part (their SHA-256: {digest})"
    content = {_installed(name): data for name, data in files.items()} | {
        f"{about}/METADATA": (
            f"Metadata-Version: 2.1\nName: detectron2\nVersion: {version}\nSummary: {summary}\n"
            f"Home-page: https://github.com/facebookresearch/detectron2\nLicense: Apache-2.0\n{needed}"
        ).encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: flexseg\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    lines = csv.writer(record, lineterminator="\n")
    for name, data in content.items():
        encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.writerow([name, f"sha256={encoded}", len(data)])
    lines.writerow([f"{about}/RECORD", "", ""])
    path = folder / f"detectron2-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in (content | {f"{about}/RECORD": record.getvalue().encode()}).items():
            wheel.writestr(name, data)
    return path


def _installed(name: str) -> str:
    """The path in the environment of a file of the source."""
    part = _part_of(name)
    assert part is not None
    return PARTS[part] + name.removeprefix(part)


def _part_of(name: str) -> str | None:
    return next((part for part in PARTS if name.startswith(f"{part}/")), None)


def _require_needed() -> None:
    missing = []
    for name in (re.split("[<>=]", each)[0] for each in NEEDED):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise UserError(
            f"detectron2 needs {', '.join(missing)}, which this environment lacks: "
            f"`pip install --no-deps --requirement requirements.lock` (or `make env`), then the same command"
        )


def _pip_install(wheel: Path, python: str) -> None:
    # -P: a pip.py in the working directory is not pip.
    options = ["--no-deps", "--no-index", "--force-reinstall", "--quiet", "--disable-pip-version-check"]
    command = [python, "-P", "-m", "pip", "install", *options, str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace")
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UserError(f"pip could not install detectron2 into the environment of {python}: {' '.join(said[-3:])}")


def _download(url: str) -> bytes:
    if not url.startswith(("https://", "http://", "file://")):
        raise UserError(f"{url!r} is not an address that begins with https://, http:// or file://. {GIVE}")
    parts, size = [], 0
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            with progress_bar("Downloading detectron2 (bytes)", total) as advance:
                while size <= ARCHIVE_BYTES and (block := answer.read(2**20)):
                    parts.append(block)
                    size += len(block)
                    advance(len(block))
        if size < total and size <= ARCHIVE_BYTES:
            raise OSError(f"it broke off after {size} of {total} bytes")
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        reason = " ".join(str(cause).split()) or type(error).__name__
        raise UserError(
            f"{url} cannot be downloaded ({reason}). Without a network, get the archive elsewhere and give its path"
        ) from error
    if size > ARCHIVE_BYTES:
        raise UserError(f"{url} gives more than {ARCHIVE_BYTES >> 20} MiB, which no source of detectron2 has")
    return b"".join(parts)


def _entries_of_folder(folder: Path) -> Iterator[Entry]:
    """What is in the folders of :data:`PARTS`. Links to folders are not followed."""
    if (folder / "modeling").is_dir() and not (folder / "detectron2").is_dir():
        raise UserError(f"{folder} is the package alone: give the folder above it, which holds projects/ too")

    def refuse(error: OSError) -> None:
        raise error

    for part in PARTS:
        if not (folder / part).is_dir():
            continue
        for place, _, names in os.walk(folder / part, onerror=refuse):
            for path in (Path(place, name) for name in names):
                status = path.lstat()
                name = path.relative_to(folder).as_posix()
                yield Entry(name, stat.S_ISREG(status.st_mode), status.st_size, path.read_bytes)


def _read_archive(file: BinaryIO, source: str) -> dict[str, bytes]:
    start = file.read(4)
    file.seek(0)
    entries = _entries_of_zip(file) if start == b"PK\x03\x04" else _entries_of_tar(file, source, start[:2] == GZIP)
    try:
        return _collect(entries, source)
    except DAMAGED as error:
        raise UserError(
            f"{source} cannot be read ({' '.join(str(error).split()) or type(error).__name__}): it is no .zip or "
            f".tar.gz, or damaged. {GIVE}"
        ) from error


def _entries_of_zip(file: BinaryIO) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            plain = not info.is_dir() and kind in (0, stat.S_IFREG)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("packed in an unusual way")
            # This gives no more than the size that is declared, whatever the packed bytes hold.
            yield Entry(info.filename, plain, info.file_size, partial(archive.read, info))


def _entries_of_tar(file: BinaryIO, source: str, packed: bool) -> Iterator[Entry]:
    def read(member: tarfile.TarInfo) -> bytes:
        content = archive.extractfile(member)
        return content.read() if content else b""

    unpacked = gzip.GzipFile(fileobj=file) if packed else file
    with tarfile.open(fileobj=_Bounded(unpacked, source), mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            yield Entry(member.name, member.isreg(), member.size, partial(read, member))


class _Bounded:
    """Stops reading what unpacks to absurd sizes; headers of a tar file can declare and fill gigabytes, too."""

    def __init__(self, file: gzip.GzipFile | BinaryIO, source: str) -> None:
        self._file, self._source, self._left = file, source, UNPACKED_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise UserError(f"{self._source} unpacks to more than {UNPACKED_BYTES >> 20} MiB: no detectron2 does")
        return self._file.read(size)


def _collect(entries: Iterable[Entry], source: str) -> dict[str, bytes]:
    """The Python files by name, where nothing else is amiss."""
    files: dict[str, bytes] = {}
    total = 0
    for count, entry in enumerate(entries, 1):
        path = PurePosixPath(entry.name)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.name:
            raise UserError(f"{source} holds {entry.name!r}, which leads out of it: it is no source of detectron2")
        if count > ENTRIES:
            raise UserError(f"{source} holds more than {ENTRIES} files: it is no source of detectron2")
        if path.suffix != ".py" or entry.name.endswith("/"):
            continue
        if not (entry.plain and entry.name.isascii() and entry.name.isprintable()):
            raise UserError(f"{source}: {entry.name!r} is no plain file, or has an odd name: no detectron2 has such")
        if str(path) in files:
            raise UserError(f"{source} holds {entry.name!r} twice: it is no source of detectron2")
        total += entry.size
        if total > PYTHON_BYTES:
            raise UserError(f"{source} holds more than {PYTHON_BYTES >> 20} MiB of Python files: no detectron2 does")
        files[str(path)] = entry.read()
    return files


def _choose(files: Mapping[str, bytes], source: str) -> dict[str, bytes]:
    """The files of :data:`PARTS`, which may lie below a folder of any name, by their path from there."""
    inside = "detectron2/modeling/__init__.py"
    tops = [name.removesuffix(inside) for name in files if name == inside or name.endswith(f"/{inside}")]
    tops = [top for top in tops if f"{top}detectron2/__init__.py" in files]
    if not tops:
        raise UserError(f"{source} is no source of detectron2: {inside} is not in it. {GIVE}")
    top = min(tops, key=len)
    chosen = {name.removeprefix(top): data for name, data in files.items() if name.startswith(top)}
    chosen = {name: data for name, data in chosen.items() if _part_of(name)}
    lacking = [part for part in PARTS if not any(_part_of(name) == part for name in chosen)]
    if lacking:
        raise UserError(f"{source} lacks {', '.join(lacking)}: give the whole source, not the package alone")
    return chosen
