"""Versions of the world are frozen: these frames may not change without a new version."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from flexseg import world

FOLDER = Path(__file__).parent
GOLDEN = {number: json.loads((FOLDER / f"golden_v{number}.json").read_text()) for number in world.VERSIONS}
FRAMES = [(number, frame) for number, golden in GOLDEN.items() for frame in golden["frames"]]


@pytest.mark.parametrize("number", world.VERSIONS)
def test_version(number):
    golden = GOLDEN[number]
    assert golden["version"] == number
    assert {frame["domain"] for frame in golden["frames"]} == set(world.version_of(number).domains)


@pytest.mark.parametrize(
    ("number", "golden"), FRAMES, ids=[f"v{number}-{frame['domain']}-{frame['index']}" for number, frame in FRAMES]
)
def test_frame(number, golden):
    frame = world.render(
        golden["domain"],
        golden["split"],
        golden["index"],
        version=number,
        height=64,
        width=128,
        misalignment=golden["misalignment"],
    )
    # Labels are whole numbers and must agree to the bit; colours pass through floating point, which another processor
    # may round otherwise.
    assert hashlib.sha256(frame.label.tobytes()).hexdigest() == golden["label_sha256"]
    assert frame.condition == golden["condition"]
    blocks = frame.image.reshape(4, 16, 4, 32, 3).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(blocks, golden["block_means"], atol=0.5)
