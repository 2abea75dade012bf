"""Data sets on disk and the contact sheet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flexseg.world import DOMAINS, VERSIONS, render
from flexseg.world.sheet import colour_label, contact_sheet
from flexseg.world.write import write_domain

SIZE = {"height": 40, "width": 72}


def test_layout_is_that_of_cityscapes(tmp_path: Path) -> None:
    told: list[int] = []
    paths = write_domain(tmp_path, "adverse", "val", 4, **SIZE, progress=told.append)
    assert told == [1, 2, 3, 4]
    assert len(paths) == 4
    for index, path in enumerate(paths):
        frame = render("adverse", "val", index, **SIZE)
        c = frame.condition
        assert path == tmp_path / "leftImg8bit" / "val" / c / f"{c}_{index:06d}_000000_leftImg8bit.png"
        label = tmp_path / "gtFine" / "val" / c / f"{c}_{index:06d}_000000_gtFine_labelTrainIds.png"
        assert np.array_equal(cv2.imread(str(path))[:, :, ::-1], frame.image)
        assert np.array_equal(cv2.imread(str(label), cv2.IMREAD_UNCHANGED), frame.label)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 8, "nothing temporary is left"


def test_a_version_is_written_as_it_is_rendered(tmp_path: Path) -> None:
    for version in VERSIONS:
        (path,) = write_domain(tmp_path / str(version), "source", "val", 1, version=version, **SIZE)
        assert np.array_equal(
            cv2.imread(str(path))[:, :, ::-1], render("source", "val", 0, version=version, **SIZE).image
        )


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    def run() -> dict[Path, bytes]:
        write_domain(tmp_path, "generated", "train", 2, **SIZE, misalignment=0.5)
        return {p: p.read_bytes() for p in tmp_path.rglob("*.png")}

    first = run()
    victim = next(iter(first))
    victim.write_bytes(b"torn")
    assert run() == first


def test_misalignment_reaches_the_images(tmp_path: Path) -> None:
    a, b = (write_domain(tmp_path / str(m), "generated", "train", 1, **SIZE, misalignment=m)[0] for m in (0.0, 2.0))
    assert a.read_bytes() != b.read_bytes()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("flexseg.world.write.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_domain(tmp_path, "source", "train", 1, **SIZE)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_negative_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count"):
        write_domain(tmp_path, "source", "train", -1, **SIZE)


def test_contact_sheet_has_a_row_a_domain() -> None:
    sheet = contact_sheet(2, **SIZE)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] == (len(DOMAINS) + 2) * (SIZE["height"] + 2)
    first = render("source", "train", 0, **SIZE)
    x = sheet.shape[1] - 2 * 2 * (SIZE["width"] + 2)
    assert np.array_equal(sheet[: SIZE["height"], x : x + SIZE["width"]], first.image)
    x += SIZE["width"] + 2
    assert np.array_equal(sheet[: SIZE["height"], x : x + SIZE["width"]], colour_label(first.label))
