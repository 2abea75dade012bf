"""SET: amplitude and phase against a discrete Fourier transform by hand, what becomes of them, and what learns."""

from __future__ import annotations

import cmath
import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from builders import FOUNDATION, assert_finite_gradients, build_model, frozen_vit, make_method, module_of
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg.models import Segmentor, build_segmentor

module = module_of("set_tokens")


def build(**options: Any) -> Segmentor:
    return build_model(make_method("set_tokens", options), frozen_vit())


def adapter(channels: int = 3, scale: float = 0.5, within: bool = True) -> Any:
    torch.manual_seed(1)
    made = module.SpectralTokens(2, channels, 5, 2, scale, 14, within)
    made.of_phase.up.data *= 300
    return made


def transform(x: np.ndarray) -> np.ndarray:
    """X[k, l] = Σ x[m, n] exp(−2πi (k m / R + l n / C)) of one channel (R, C): all frequencies."""
    rows, columns = x.shape
    return np.array(
        [
            [
                sum(
                    x[m, n] * cmath.exp(-2j * math.pi * (k * m / rows + j * n / columns))
                    for m in range(rows)
                    for n in range(columns)
                )
                for j in range(columns)
            ]
            for k in range(rows)
        ]
    )


def back(half: np.ndarray, columns: int) -> np.ndarray:
    """The real map whose left half of frequencies this is; the others follow by symmetry, so most count twice."""
    rows = len(half)
    found = np.zeros((rows, columns))
    for m in range(rows):
        for n in range(columns):
            for k in range(rows):
                for j in range(half.shape[1]):
                    twice = 1 if j == 0 or 2 * j == columns else 2
                    found[m, n] += (
                        twice * (half[k, j] * cmath.exp(2j * math.pi * (k * m / rows + j * n / columns))).real
                    )
    return found / (rows * columns)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 6), seed=st.integers(0, 1000))
def test_amplitude_and_phase_are_those_of_the_transform(rows: int, columns: int, seed: int) -> None:
    x = torch.randn(2, rows, columns, 3, generator=torch.Generator().manual_seed(seed))
    amplitude, phase = module.spectrum(x)
    assert amplitude.shape == phase.shape == (2, rows, columns // 2 + 1, 3)
    assert float(phase.min()) > -math.pi + module.CUT - 1e-6
    for channel in range(3):
        wanted = transform(x[1, :, :, channel].numpy().astype(float))[:, : columns // 2 + 1]
        found = amplitude[1, ..., channel] * torch.exp(1j * phase[1, ..., channel])
        np.testing.assert_allclose(amplitude[1, ..., channel], abs(wanted), atol=2e-5)
        np.testing.assert_allclose(found, wanted, atol=5e-5)
    torch.testing.assert_close(module.signal(amplitude, phase, columns), x, rtol=1e-4, atol=2e-5)


def test_what_is_nearly_nothing_has_no_phase_and_no_gradient_of_one() -> None:
    x = (1e-7 * torch.randn(1, 3, 4, 3)).requires_grad_()
    amplitude, phase = module.spectrum(x)
    phase.sum().backward()
    assert amplitude.gt(0).all()
    assert not phase.any()
    assert not x.grad.any()


def test_phases_on_both_sides_of_a_negative_number_are_near_each_other() -> None:
    for angle in (math.pi - 5e-5, -math.pi + 5e-5):
        amplitude, phase = torch.ones(1, 3, 3, 1), torch.zeros(1, 3, 3, 1)
        phase[0, 1, 1] = angle
        found = module.spectrum(module.signal(amplitude, phase, 4))[1]
        assert float(found[0, 1, 1]) == pytest.approx(math.pi, abs=module.CUT)


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("grid", [(2, 3), (3, 4)])
def test_the_change_is_that_of_the_formula(grid: tuple[int, int], within: bool) -> None:
    made, columns = adapter(within=within), grid[1]
    x = torch.randn(2, *grid, 3, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = made.adapt(x, 1)
        for image in range(2):
            maps = x[image].numpy().astype(float)
            spectra = np.stack([transform(maps[..., c])[:, : columns // 2 + 1] for c in range(3)], axis=-1)
            flat = spectra.reshape(-1, 3)
            # As in the method, a real negative value has the phase π, whichever side of the cut rounding puts it on.
            angles = np.where(np.angle(flat) <= module.CUT - math.pi, np.angle(flat) + 2 * math.pi, np.angle(flat))
            # The branches themselves are held to their formula in test_tokens.py.
            more, turn = (
                branch(torch.tensor(part, dtype=torch.float32)[None], 1)[0].numpy().reshape(spectra.shape)
                for branch, part in ((made.of_amplitude, abs(flat)), (made.of_phase, angles))
            )
            if within:
                changed = (abs(spectra) + 0.5 * more) * np.exp(1j * (angles.reshape(spectra.shape) + 0.5 * turn))
            else:
                changed = more * np.exp(1j * turn)
            wanted = np.stack([back(changed[..., c], columns) for c in range(3)], axis=-1)
            wanted = wanted if within else maps + 0.5 * wanted
            np.testing.assert_allclose(found[image].numpy(), wanted, rtol=1e-3, atol=1e-3)


def test_images_of_a_batch_do_not_mix() -> None:
    made, x = adapter(), torch.randn(3, 3, 4, 3)
    with torch.no_grad():
        torch.testing.assert_close(made.adapt(x, 0)[1:2], made.adapt(x[1:2], 0), rtol=1e-4, atol=1e-5)


def test_only_the_amplitude_is_normalised_over_the_tokens() -> None:
    made = adapter()
    assert (made.of_amplitude.normalised, made.of_phase.normalised) == ("scores", "nothing")
    assert made.of_amplitude.idle
    assert made.of_phase.idle
    assert made.of_amplitude.up is None, "its tokens are whole"


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("kind", ["noise", "huge", "constant", "nothing"])
def test_values_and_gradients_stay_finite_in_half_precision(kind: str, within: bool) -> None:
    """Also where amplitudes are 0, which have no phase to differentiate."""
    made = adapter(within=within)
    x = {"noise": 1.0, "huge": 1e4, "constant": 0.0, "nothing": 0.0}[kind] * torch.randn(1, 4, 4, 3)
    x = (x + (kind == "constant")).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        changed = made.adapt(x, 1)
    assert changed.dtype == x.dtype
    assert made.adapt(x.bfloat16(), 1).dtype == torch.bfloat16
    changed.square().mean().backward()
    assert torch.isfinite(changed).all()
    assert torch.isfinite(x.grad).all()
    assert_finite_gradients(made)


@FOUNDATION
@pytest.mark.parametrize("add", ["spectrum", "features"])
def test_it_begins_near_the_frozen_trunk_and_acts_behind_every_block(add: str) -> None:
    model, images = build(add=add, scale=0.0).eval(), torch.randn(2, 3, 28, 49)
    trunk: Any = model.backbone
    assert trunk.adapter.within == (add == "spectrum")
    seen: list[tuple[int, tuple[int, ...]]] = []
    trunk.adapter.register_forward_hook(lambda _, inputs, __: seen.append((inputs[1], trunk.adapter.grid)))
    with torch.inference_mode():
        logits = model(images).logits
        torch.manual_seed(0)
        plain = build_segmentor(frozen_vit()).eval()(images).logits
        torch.testing.assert_close(logits, plain, rtol=1e-3, atol=1e-3)
        assert seen == [(block, (4, 7)) for block in range(3)]
        trunk.adapter.scale.fill_(0.3)
        assert (model(images).logits - plain).abs().max() > 0.01
        # A copy notes the grid of its own images.
        other = copy.deepcopy(model)
        other(torch.randn(1, 3, 14, 14))
    assert (other.backbone.adapter.grid, trunk.adapter.grid) == ((2, 2), (4, 7))


@FOUNDATION
def test_its_size_is_that_of_both_kinds_of_tokens_and_four_shared_layers() -> None:
    """m = 100 behind 3 blocks of width 32: whole for the amplitude, of rank 16 for the phase."""
    model = build()
    ours = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    assert ours == 3 * 100 * 32 + 3 * 16 * (100 + 32) + 4 * 32 * 33 + 1
    assert float(model.backbone.adapter.scale.detach()) == pytest.approx(0.001)
    assert {k for k, p in model.named_parameters() if not p.requires_grad} == {
        k for k, _ in model.named_parameters() if ".transformer." in k
    }
