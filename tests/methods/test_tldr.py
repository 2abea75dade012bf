"""TLDR: colours, Gram matrices and both texture terms written out, what they are measured from, and their end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    AUXILIARY,
    HEAD,
    assert_finite_gradients,
    make_batch,
    make_method,
    mit,
    module_of,
    resnet,
    set_up,
    unet,
)
from torch import Tensor

from flexseg.errors import RunError
from flexseg.method import cross_entropy
from flexseg.models import Segmentor

module = module_of("tldr")
TRUNKS = {
    "unet": unet(),
    "resnet": resnet() | {"auxiliary_head": AUXILIARY},
    "mit": mit() | {"decode_head": HEAD | {"in_channels": 64}},
}
STAGES = {
    "unet": [f"encoder.{number}" for number in (1, 2, 3, 4)],
    "resnet": [f"layer{number}" for number in (1, 2, 3, 4)],
    "mit": [f"layers.{number}.2" for number in range(4)],
}


def ready(trunk: str = "unet", iterations: int = 10, **options: Any) -> tuple[Any, Segmentor, Any]:
    method = make_method("tldr", options, iterations=iterations)
    return method, *set_up(method, TRUNKS[trunk])


def drift(model: Segmentor) -> None:
    """As training would: the encoder is no longer the frozen one."""
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(1.5)


def gram_of(features: np.ndarray) -> np.ndarray:
    """G of one image's map (C, h, w) or tokens (P, C), entry by entry."""
    rows = features.reshape(len(features), -1) if features.ndim == 3 else features.T
    return np.array([[np.mean(one * other) for other in rows] for one in rows])


def grams_of(features: Tensor) -> np.ndarray:
    return np.array([gram_of(each) for each in features.detach().double().numpy()])


def test_colours_are_transferred() -> None:
    """Mean and covariance are those of the style; the pixels are an affine image of their own colours."""
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, 3, 3, generator=draw)
    images = torch.randn(2, 3, 8, 16, generator=draw) * 2 + 1
    styles = (mixing @ torch.randn(2, 3, 128, generator=draw)).view(2, 3, 8, 16) - 3
    found = module.transfer_colours(images, styles)
    for x, wanted, plain in zip(found.flatten(2), styles.flatten(2), images.flatten(2), strict=True):
        np.testing.assert_allclose(x.mean(dim=1), wanted.mean(dim=1), atol=1e-4)
        np.testing.assert_allclose(np.cov(x), np.cov(wanted), rtol=1e-2, atol=1e-3)
        design = np.vstack([plain, np.ones(128)]).T
        _, rest, _, _ = np.linalg.lstsq(design, x.numpy().T, rcond=None)
        assert rest.max() < 1e-4
    torch.testing.assert_close(module.transfer_colours(images, images), images, rtol=1e-3, atol=1e-3)
    flat = module.transfer_colours(torch.zeros(2, 3, 8, 16), styles)
    assert torch.isfinite(flat).all()


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_loss_by_hand(trunk: str) -> None:
    """Each term from the maps that the model makes of the images, of the changed ones and of the styles."""
    method, model, frozen = ready(trunk, threshold=0.001)
    drift(model)
    assert list(method._stages) == STAGES[trunk]
    batch = make_batch(3)._replace(iteration=4)
    passes: list[Tensor] = []
    maps: dict[str, list[Tensor]] = {path: [] for path in STAGES[trunk]}
    outputs: list[Any] = []
    handles = [
        model.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0])),
        model.register_forward_hook(lambda *call: outputs.append(call[2])),
    ]
    for path, seen in maps.items():
        part = model.backbone.get_submodule(path)
        handles.append(part.register_forward_hook(lambda *call, seen=seen: seen.append(call[2])))
    terms = method.forward(model, batch)
    for handle in handles:
        handle.remove()
    assert len(passes) == 2
    turn = batch.rotation(0)
    assert turn in (1, 2)
    styles = batch.images[[(place - turn) % 3 for place in range(3)]]
    torch.testing.assert_close(passes[1], module.transfer_colours(batch.images, styles))
    torch.testing.assert_close(terms["ce"], 0.5 * cross_entropy(outputs[0].logits, batch.labels))
    torch.testing.assert_close(terms["ce_stylised"], 0.5 * cross_entropy(outputs[1].logits, batch.labels))
    assert ("auxiliary_stylised" in terms) == (trunk == "resnet")

    first = frozen_maps(frozen, trunk, batch.images)
    regularisation = generalisation = 0.0
    marked = []
    for level, path in enumerate(STAGES[trunk]):
        own, changed = (grams_of(each) for each in maps[path])
        channels = own.shape[1]
        far = own - grams_of(first[path])
        regularisation += 5e-3 * 0.1**level * float(np.sqrt((far**2).sum())) / channels
        if level < 2:
            style = own[[(place - turn) % 3 for place in range(3)]]
            mask = changed - own > 0.001
            marked.append(mask.mean())
            generalisation += 5e-3 * 0.1**level * float(np.sqrt((((style - changed) * mask) ** 2).sum())) / channels
    assert 0 < min(marked) <= max(marked) < 1
    assert float(terms["texture_regularisation"].detach()) == pytest.approx(0.6 * regularisation, rel=1e-3)
    assert float(terms["texture_generalisation"].detach()) == pytest.approx(0.6 * generalisation, rel=1e-3)
    sum(terms.values()).backward()
    assert_finite_gradients(model)
    assert all(parameter.grad is None for parameter in frozen.parameters())


def frozen_maps(frozen: Any, trunk: str, images: Tensor) -> dict[str, Tensor]:
    """Stage by stage, of an encoder as it was before training."""
    if trunk != "unet":
        maps = frozen.encoder(images)
        return dict(
            zip(STAGES[trunk], maps if trunk == "resnet" else [each.flatten(2).mT for each in maps], strict=True)
        )
    found: dict[str, Tensor] = {}
    x = images
    for number, stage in enumerate(frozen.encoder):
        x = found[f"encoder.{number}"] = stage(x)
    return found


def test_nothing_is_far_from_the_frozen_encoder_at_first() -> None:
    method, model, _ = ready("mit")  # whose norms are the same in training
    assert float(method.forward(model, make_batch(2))["texture_regularisation"].detach()) < 1e-8
    drift(model)
    assert float(method.forward(model, make_batch(2))["texture_regularisation"].detach()) > 1e-5


def test_the_frozen_encoder_never_moves_and_the_texture_terms_end() -> None:
    method, model, frozen = ready(iterations=4, threshold=0.0)
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    drift(model)
    seen = []
    for iteration in (0, 2, 4, 9):
        terms = method.forward(model, make_batch(2)._replace(iteration=iteration))
        seen.append([float(terms[f"texture_{key}"].detach()) for key in ("regularisation", "generalisation")])
    (one, two), half, *rest = seen
    assert min(one, two) > 0
    assert half[0] == pytest.approx(one / 2, rel=1e-3)
    assert rest == [[0.0, 0.0]] * 2
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())


def test_textures_pass_their_gradient_to_style_and_stylised_image() -> None:
    """But not to the frozen encoder's; and only where the mask is set."""
    ours = torch.randn(2, 3, 3, requires_grad=True)
    theirs = torch.randn(2, 3, 3, requires_grad=True)
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[0, 1, 2] = True
    loss = module.distance(ours, theirs, mask)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(abs(float((ours - theirs)[0, 1, 2].detach())) / 3)
    for each in (ours, theirs):
        assert each.grad is not None
        assert each.grad.nonzero().tolist() == [[0, 1, 2]]


def test_a_single_image_is_its_own_style() -> None:
    method, model, _ = ready()
    terms = method.forward(model, make_batch(1))
    assert float(terms["texture_generalisation"].detach()) < 1e-6


def test_too_few_stages_are_refused() -> None:
    with pytest.raises(RunError, match="tldr has weights for 5 stages, but this backbone has 4 of them"):
        ready(regularisation=[1.0] * 5)
