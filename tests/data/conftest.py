"""A small domain on disk, to be damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flexseg.benchmark import WorldDomain
from flexseg.data.index import Index, read_index, write_index
from flexseg.data.layouts import Located
from flexseg.data.sets import load_set
from flexseg.tasks.datasets import build_index

IMAGE = "{split}/{condition}/{name}_leftImg8bit.png"
LABEL = "{split}/{condition}/{name}_gtFine_labelTrainIds.png"


class Domain:
    """A domain of pairs of random pixels under ``root``, and the paths of its files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(0)

    def image(self, name: str, split: str = "train", condition: str = "clear") -> Path:
        return self.root / "leftImg8bit" / IMAGE.format(split=split, condition=condition, name=name)

    def label(self, name: str, split: str = "train", condition: str = "clear") -> Path:
        return self.root / "gtFine" / LABEL.format(split=split, condition=condition, name=name)

    def write(self, name: str, split: str = "train", condition: str = "clear", size: tuple[int, int] = (6, 8)) -> None:
        pixels = self.rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        ids = self.rng.choice([*range(19), 255], size).astype(np.uint8)
        for path, array in ((self.image(name, split, condition), pixels), (self.label(name, split, condition), ids)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)

    def index(self, counts: dict[str, int], fingerprint: str = "abc") -> Index:
        """Index and check it, as a rendered domain of these splits, and write the index."""
        located = Located(self.root, load_set("streetworld").layouts[0])
        write_index(self.root, build_index(WorldDomain(world="source", **counts), located, fingerprint))
        return read_index(self.root)


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    """Four training images in two conditions, two test images of another size."""
    made = Domain(tmp_path / "domain")
    for name, condition in (("a", "clear"), ("b", "clear"), ("c", "fog"), ("d", "fog")):
        made.write(name, condition=condition)
    for name in ("e", "f"):
        made.write(name, "test", size=(5, 9))
    return made


@pytest.fixture
def counts() -> dict[str, int]:
    """The splits of ``domain``."""
    return {"train": 4, "test": 2}


@pytest.fixture(scope="session")
def save_png() -> Callable[..., None]:
    """``save_png(path, array, mode)``: write a picture of a mode."""

    def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
        picture = Image.fromarray(array)
        (picture.convert(mode) if mode else picture).save(path)

    return save
