"""Version 1 of the world is frozen: these frames may not change without a new version."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from flexseg import world

GOLDEN = json.loads(Path(__file__).with_name("golden_v1.json").read_text())


def test_version():
    assert GOLDEN["version"] == 1
    assert {frame["domain"] for frame in GOLDEN["frames"]} == set(world.DOMAINS)


@pytest.mark.parametrize("golden", GOLDEN["frames"], ids=lambda frame: f"{frame['domain']}-{frame['index']}")
def test_frame(golden):
    frame = world.render(
        golden["domain"],
        golden["split"],
        golden["index"],
        version=GOLDEN["version"],
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
