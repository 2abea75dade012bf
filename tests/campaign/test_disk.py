"""A disk that is full or may only be read, for every writer: one line, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from work import Work

WRITERS = {
    "dataset": (("flexseg", "dataset", "smoke", "night"), ("results/smoke/data/night",)),
    "train": (("flexseg", "train", "smoke", "flexseg", "0"), ("results/smoke/flexseg/seed-0",)),
    "evaluate": (("flexseg", "evaluate", "smoke", "flexseg"), ("results/smoke/flexseg/seed-0/evaluation",)),
    "tables": (("flexseg", "tables", "smoke"), ("results/smoke/tables",)),
    "comparison": (("flexseg", "report", "smoke", "comparison", "results/r/c.pdf"), ()),
    "ablation": (("flexseg", "report", "smoke", "ablation", "results/r/a.pdf"), ()),
    "page": (("flexseg", "report", "smoke", "page", "results/r/index.html"), ()),
    "summary": (("flexseg", "report", "smoke", "summary", "results/r/summary.md"), ()),
    "figures": (("flexseg", "report", "smoke", "figures", "results/r/captions.md"), ()),
    "export": (("flexseg", "export", "smoke", "flexseg", "0", "--output", "results/export"), ()),
    "predict": (("flexseg", "predict", "smoke", "flexseg", "0", "photo.png", "--output", "results/p"), ()),
    "cache": (("flexseg", "cache", "smoke"), ()),
    "world": (("flexseg", "show", "world", "results/world.png"), ()),
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small or read-only disk needs root")


@pytest.fixture
def mounted(undisturbed: Work, tmp_path: Path) -> Iterator[Work]:
    """A copy whose ``results`` is a disk of its own, with the results on it."""
    work = undisturbed.copy(tmp_path / "work")
    photo = next((work.results / "data" / "night" / "leftImg8bit").rglob("*.png"))
    shutil.copy(photo, work.folder / "photo.png")
    (work.folder / "results").rename(work.folder / "kept")
    (work.folder / "results").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", work.folder / "results"], check=True)
    shutil.copytree(work.folder / "kept", work.folder / "results", dirs_exist_ok=True)
    try:
        yield work
    finally:
        subprocess.run(["umount", "-l", work.folder / "results"], check=True)


def one_line(output: str) -> None:
    assert "Traceback" not in output, output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output
    assert "results" in errors[0]


def resize(work: Work, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{size}", work.folder / "results"], check=True)


@needs_root
@pytest.mark.parametrize("disk", ["full", "read-only"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_on_a_bad_disk(name: str, disk: str, mounted: Work) -> None:
    words, removed = WRITERS[name]
    for each in removed:
        shutil.rmtree(mounted.folder / each)
    if disk == "full":
        filling = mounted.folder / "results" / "filling"
        with filling.open("wb") as file:
            try:
                while file.write(bytes(2**20)):
                    file.flush()
            except OSError:
                pass
    else:
        resize(mounted, "ro")
    code, output = mounted.run(*words)
    if disk == "full":
        filling.unlink()
    else:
        resize(mounted, "rw")
    assert code == 2, output
    one_line(output)
    assert mounted.leftovers() == []
    assert not list((mounted.folder / "results").rglob("failure.json"))
    code, output = mounted.run(*words)
    assert code == 0 or "1.1 GB must stay free" in output, output  # the cache asks for more than this disk has
