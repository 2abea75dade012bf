"""Errors of the file system: one line that says where, what and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flexseg.errors import UserError
from flexseg.files import DISK, DiskError, describe_disk_error, disk_errors, replacing


@pytest.mark.parametrize("number", [*DISK, errno.EMLINK, 5555])
def test_every_error_is_one_line(number: int, tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_the_file_of_the_error_is_named_and_not_the_place() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/r/x")
    assert describe_disk_error(error, "/r").startswith("/r/x: permission denied")


def test_a_long_name_is_shortened() -> None:
    error = OSError(errno.ENAMETOOLONG, "File name too long", "/r/" + "x" * 300)
    assert len(describe_disk_error(error)) < 300


@pytest.mark.parametrize("there", ["file", "link"])
def test_something_in_the_way_of_a_folder(tmp_path: Path, there: str) -> None:
    place = tmp_path / "results"
    place.touch() if there == "file" else place.symlink_to(tmp_path / "gone" / "results")
    words = r"results.*: a file, or a link to nowhere, is where a folder should be"
    with pytest.raises(DiskError, match=words), disk_errors(tmp_path), replacing(place / "a" / "b.json"):
        pass
