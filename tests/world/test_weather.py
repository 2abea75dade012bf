"""Conditions and what they do to a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flexseg.world import DOMAINS, render, weather
from flexseg.world.appearance import LIGHTS, draw_style
from flexseg.world.domains import Look
from flexseg.world.geometry import rasterise
from flexseg.world.painting import paint
from flexseg.world.palettes import BASE_PALETTE, KIND_SLOTS
from flexseg.world.scene import build_scene


def shoot(condition: str, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """One street in one condition, without sensor effects: image and sky mask."""
    spec = replace(
        DOMAINS["clear_city"], look=Look({condition: 1.0}, noise=(0, 0), blur=(0, 0), vignette=(0, 0), jpeg=(99, 99))
    )
    scene = build_scene(np.random.default_rng(seed), replace(spec.layout, bonnet=0.0))
    geometry = rasterise(scene, 96, 192)
    style = draw_style(np.random.default_rng(1), spec.look, 0)
    image = paint(scene, geometry, spec, style, np.random.default_rng(2))
    return image.astype(float), geometry.surface[::2, ::2] == 0


def test_adverse_conditions_come_in_equal_parts() -> None:
    seen = [render("adverse", "train", i, height=32, width=64).condition for i in range(12)]
    assert seen == ["fog", "night", "rain", "snow"] * 3


@pytest.mark.parametrize(
    ("domain", "allowed"),
    [
        ("source", {"clear"}),
        ("clear_city", {"clear", "overcast"}),
        ("night", {"night"}),
        ("generated", set(LIGHTS)),
        ("mixed", set(LIGHTS)),
        ("places", {"clear", "overcast", "dusk", "rain", "fog"}),
    ],
)
def test_conditions_of_a_domain(domain: str, allowed: set[str]) -> None:
    seen = {render(domain, "train", i, height=32, width=64).condition for i in range(40)}
    assert seen <= allowed
    assert len(seen) >= min(len(allowed), 4)


def test_night_is_darker_but_not_black() -> None:
    day, _ = shoot("clear")
    night, _ = shoot("night")
    assert night.mean() < 0.7 * day.mean()
    assert night.mean() > 25
    assert (night.max(axis=2) < 8).mean() < 0.05


def test_fog_follows_koschmieder() -> None:
    rgb = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)
    depth = np.repeat(np.array([0.0, 10.0, 100.0, 1e6])[:, None], 6, axis=1)
    air = np.array([0.6, 0.7, 0.8])
    out = weather.fog(rgb, depth, 0.03, air)
    assert np.allclose(out[0], rgb[0])
    assert np.allclose(out[2], rgb[2] * np.exp(-3) + air * (1 - np.exp(-3)), atol=1e-6)
    assert np.allclose(out[3], air)
    assert np.all(np.diff(np.ptp(out, axis=1).mean(axis=1)) < 0)


def test_fog_takes_contrast_from_what_is_far() -> None:
    clear, sky = shoot("overcast")
    fog, _ = shoot("fog")
    rows = slice(36, 52)  # about the horizon: the far end of the street
    far = ~sky[rows]
    assert fog[rows][far].std() < 0.65 * clear[rows][far].std()
    near = slice(75, 96)
    assert fog[near].std() > 0.35 * clear[near].std()


def test_snow_whitens_the_ground() -> None:
    overcast, _ = shoot("overcast")
    snow, _ = shoot("snow")
    assert snow[60:].mean() > overcast[60:].mean() + 15


def test_wet_ground_mirrors_and_darkens() -> None:
    scene = build_scene(np.random.default_rng(3), DOMAINS["adverse"].layout)
    view = rasterise(scene, 96, 192).view
    rgb = np.full((96, 192, 3), 0.2, np.float32)
    rgb[:40, 80:110] = 3.0
    ground = np.zeros((96, 192), np.float32)
    ground[60:] = 1
    dry, wet = rgb, weather.wet_ground(rgb, ground, view, 0.9)
    assert np.array_equal(wet[:60], dry[:60])
    assert wet[60:, 85:105].mean() > dry[60:, 85:105].mean()
    assert wet[60:, :40].mean() < dry[60:, :40].mean()


@pytest.mark.parametrize("fall", ["rain", "snow"])
def test_what_falls_covers_little(fall: str) -> None:
    rgb = np.full((96, 192, 3), 0.2, np.float32)
    dice = np.random.default_rng(4)
    out = weather.rain(rgb, dice, 0.8) if fall == "rain" else weather.snowfall(rgb, dice, 0.8, np.full(3, 0.8))
    changed = (np.abs(out - rgb).max(axis=2) > 0.01).mean()
    assert 0.01 < changed < 0.35
    assert out.min() >= 0.2 - 1e-6


def test_every_palette_names_known_slots() -> None:
    used = {name for slots in KIND_SLOTS.values() for name in slots}
    assert used <= set(BASE_PALETTE)
    for spec in DOMAINS.values():
        assert set(spec.look.palette) <= used
        assert set(spec.look.conditions) <= set(LIGHTS)
