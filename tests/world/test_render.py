"""The world is a pure function of its arguments, has every class everywhere, and refuses nonsense."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from flexseg.classes import CLASS_NAMES, IGNORE, NUM_CLASSES
from flexseg.world import DOMAINS, SPLITS, Frame, render
from flexseg.world.mesh import LABEL

FRAMES = 40
ENOUGH = 12
"""Pixels of a class that count as an instance that can be learnt."""


def digest(frame: Frame) -> str:
    """One number for everything in a frame."""
    h = hashlib.sha256(frame.condition.encode())
    for array in (frame.image, frame.label, frame.painted):
        h.update(array.tobytes())
    return h.hexdigest()


CASES = [(domain, SPLITS[i % 3], 3 + i) for i, domain in enumerate(DOMAINS)]


@pytest.fixture(scope="module")
def digests() -> dict[tuple[str, str, int], str]:
    return {case: digest(render(*case)) for case in CASES}


def test_the_order_of_calls_does_not_matter(digests: dict[tuple[str, str, int], str]) -> None:
    np.random.seed(0)  # noqa: NPY002 – global state must have no say
    for case in reversed(CASES):
        render("night", "val", 1)
        assert digest(render(*case)) == digests[case]


def test_another_process_paints_the_same_bytes(digests: dict[tuple[str, str, int], str]) -> None:
    program = f"""
import hashlib
from flexseg.world import render
for case in {CASES[::-1]!r}:
    f = render(*case)
    h = hashlib.sha256(f.condition.encode())
    for a in (f.image, f.label, f.painted):
        h.update(a.tobytes())
    print(h.hexdigest())
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.split() == [digests[case] for case in CASES[::-1]]


def test_other_indices_splits_and_domains_are_other_images() -> None:
    cases = [(d, s, i) for d in DOMAINS for s in SPLITS for i in (0, 1)]
    images = [render(*case, height=48, width=96) for case in cases]
    assert len({digest(f) for f in images}) == len(cases)
    # labels are shared only where the generated domain takes the source's
    assert len({f.label.tobytes() for f in images}) == len(cases) - 6


@pytest.mark.parametrize("domain", [d for d in DOMAINS if d != "generated"])
def test_every_class_appears_large_enough(domain: str) -> None:
    images = np.zeros(256, int)
    for index in range(FRAMES):
        frame = render(domain, "train", index)
        counts = np.bincount(frame.label.ravel(), minlength=256)
        assert not counts[NUM_CLASSES:IGNORE].any(), "labels are 0 to 18 and 255"
        assert np.array_equal(frame.painted, frame.label)
        images += counts >= ENOUGH
    rare = {name: int(images[i]) for i, name in enumerate(CLASS_NAMES) if images[i] < 0.09 * FRAMES}
    assert not rare
    assert images[IGNORE] > 0.3 * FRAMES


@pytest.mark.parametrize("size", [(96, 192), (101, 203), (128, 128), (64, 200), (32, 32)])
def test_any_size(size: tuple[int, int]) -> None:
    for domain in DOMAINS:
        frame = render(domain, "test", 2, height=size[0], width=size[1])
        assert frame.image.shape == (*size, 3)
        assert frame.label.shape == frame.painted.shape == size
        assert frame.image.dtype == frame.label.dtype == frame.painted.dtype == np.uint8
        assert frame.image.flags.c_contiguous


def test_geometry_scales_with_the_size() -> None:
    for index in range(4):
        small = render("clear_city", "val", index).label
        large = render("clear_city", "val", index, height=192, width=384).label
        assert (large[::2, ::2] == small).mean() > 0.93


def test_road_lies_below_sky() -> None:
    for domain in DOMAINS:
        label = render(domain, "train", 1).label
        rows = np.arange(label.shape[0])[:, None] + np.zeros(label.shape)
        assert rows[label == LABEL["road"]].mean() > rows[label == LABEL["sky"]].mean() + 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"domain": "mars"}, "clear_city"),
        ({"split": "dev"}, "train, val, test"),
        ({"index": -1}, "index"),
        ({"misalignment": -0.5}, "misalignment"),
        ({"misalignment": float("nan")}, "misalignment"),
        ({"height": 0}, "32"),
        ({"width": 31}, "32"),
        ({"height": -96}, "32"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, object], says: str) -> None:
    call: dict[str, object] = {"domain": "generated", "split": "train", "index": 0, **arguments}
    with pytest.raises(ValueError, match=says):
        render(**call)
