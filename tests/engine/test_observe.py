"""What a run shows of itself: the files, and that looking changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from builders import Train
from safetensors import safe_open
from safetensors.numpy import load_file

from flexseg.data.pool import Pool
from flexseg.engine.observe import moments, sample_images
from flexseg.files import read_json

KINDS = dict.fromkeys(("image", "label", "prediction"), "uint8") | dict.fromkeys(("entropy", "weight"), "float16")
KINDS |= {"prototypes": "float32", "updates": "int64"}


def pool_of(origins: list[int], sizes: list[tuple[int, int]] | None = None) -> Pool:
    sizes = sizes or [(4, 6)] * len(origins)
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    labels = [np.zeros(size, np.uint8) for size in sizes]
    names = [str(place) for place in range(len(origins))]
    return Pool.of(images, labels, names, names, np.array(origins, np.int8))


def test_moments_are_within_the_run() -> None:
    assert moments(960) == {120, 240, 480, 960}
    assert moments(1) == {1}
    assert moments(9) == {1, 2, 4, 9}


def test_samples_are_one_of_the_source_and_two_generated() -> None:
    assert sample_images(pool_of([0, 0, 1, 1, 1])) == [0, 2, 3]
    assert sample_images(pool_of([0, 0])) == [0]
    assert sample_images(pool_of([0, 1, 1], [(4, 6), (5, 5), (4, 6)])) == [0, 2]


def test_flexseg_shows_entropy_weights_and_prototypes(undisturbed: Train) -> None:
    run = undisturbed("flexseg")
    assert sorted(path.name for path in run.observations.iterdir()) == [f"{n:06d}.safetensors" for n in (1, 2, 4, 9)]
    options = read_json(run.record)["options"]
    for path in run.observations.iterdir():
        shown = load_file(path)
        with safe_open(path, framework="numpy") as file:
            assert file.metadata() | {"sha256": ""} == {
                "iteration": str(int(path.stem)),
                "fingerprint": read_json(run.config)["fingerprint"],
                "sha256": "",
            }
        size = shown["label"].shape
        assert size == (3, 48, 96)
        assert shown["image"].shape == (*size, 3)
        assert all(shown[key].shape == size for key in ("prediction", "entropy", "weight"))
        assert {key: value.dtype.name for key, value in shown.items()} == KINDS
        assert shown["entropy"].min() >= 0
        assert shown["entropy"].max() <= math.log(19) + 1e-2
        assert shown["weight"].min() == 1
        assert 1 < shown["weight"].max() <= 1 + options["alpha"]["value"]
        assert (shown["weight"][shown["label"] == 255] == 1).all()
        assert shown["updates"].shape == (2, 19)
        lengths = np.linalg.norm(shown["prototypes"], axis=-1)
        np.testing.assert_allclose(lengths, shown["updates"] > 0, atol=1e-5)
        assert shown["updates"].max() == int(path.stem)


def test_a_method_without_the_hook_writes_nothing(undisturbed: Train) -> None:
    assert not undisturbed("dginstyle").observations.exists()


def test_what_is_switched_off_is_not_shown(undisturbed: Train) -> None:
    shown = load_file(undisturbed("switched_off").observations / "000009.safetensors")
    assert set(shown) == {"image", "label", "prediction", "entropy"}


def test_looking_changes_nothing(undisturbed: Train, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    import flexseg.engine.train as module

    monkeypatch.setattr(module, "moments", lambda _: set())
    blind = train("flexseg")
    assert not blind.observations.exists()
    assert blind.weights.read_bytes() == undisturbed("flexseg").weights.read_bytes()


def test_a_run_that_goes_on_shows_the_same(undisturbed: Train, train: Train, interrupt: Callable[..., None]) -> None:
    interrupt(5, "flexseg")
    again = train("flexseg")
    whole = undisturbed("flexseg").observations
    assert sorted(path.name for path in again.observations.iterdir()) == sorted(path.name for path in whole.iterdir())
    for path in whole.iterdir():
        expected, found = load_file(path), load_file(again.observations / path.name)
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=f"{path.name}: {name}")
