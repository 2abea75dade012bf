"""BlindNet: each term against loops over what the trunk computes, who gets a gradient, and batches without a pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import AUXILIARY, assert_finite_gradients, make_batch, make_method, module_of, resnet, set_up, unet
from torch import Tensor, nn

from flexseg.method import Batch, cross_entropy, upsample

module = module_of("blindnet")
UNET = unet()
RESNET = resnet(strides=[1, 2, 1, 1], dilations=[1, 1, 2, 4]) | {"auxiliary_head": AUXILIARY}
TRUNKS = pytest.mark.parametrize("config", [UNET, RESNET], ids=["unet", "resnet"])
WEIGHTS = ("covariance", "cross_covariance", "class_wise", "disentangled")


def method_of(**options: Any) -> Any:
    return make_method("blindnet", {"dim": 8, "views": 4, "negatives": 3} | options, iterations=20)


def batch_of(iteration: int = 0) -> Batch:
    return make_batch(seed=iteration, iteration=iteration, classes=4, block=16, void=5)


# Covariances


def standardised(seed: int) -> Tensor:
    x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(seed))
    return (x - x.mean((2, 3), True)) / x.var((2, 3), unbiased=False, keepdim=True).sqrt()


def test_covariance_terms_are_loops_over_channels() -> None:
    plain, changed = standardised(0), standardised(1)
    alike, cross = 0.0, 0.0
    for f, g in zip(plain.flatten(2).double(), changed.flatten(2).double(), strict=True):
        for i in range(5):
            cross += (float(f[i] @ g[i]) / 41 + 1e-5 - 1) ** 2 / 10
            for j in range(5):
                alike += (float(f[i] @ f[j]) / 41 - float(g[i] @ g[j]) / 41) ** 2 / 50
    found = module.covariance_losses(plain, changed)
    torch.testing.assert_close(torch.stack(found), torch.tensor([alike, cross]), rtol=1e-4, atol=1e-6)


def test_only_the_changed_view_learns_from_the_covariances() -> None:
    plain, changed = standardised(0).requires_grad_(), standardised(1).requires_grad_()
    sum(module.covariance_losses(plain, changed)).backward()
    assert plain.grad is None
    assert changed.grad.abs().max() > 0


def test_covariances_are_computed_in_full_precision() -> None:
    plain, changed = standardised(0), standardised(1)
    full = torch.stack(module.covariance_losses(plain, changed))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.stack(module.covariance_losses(plain, changed)), full)


# The trunk


@TRUNKS
def test_a_pass_shows_the_standardised_features_and_the_maps(config: dict[str, Any]) -> None:
    """Not their rectified copy, which the ReLU behind the layer writes over them."""
    model, _ = set_up(method_of(), config)
    images = batch_of().images
    seen = module._run(model, images)
    of_stem = [64] if config is UNET else [64, 64]  # of a stem of three convolutions the first two
    assert [f.shape[3] for f in seen.standardised] == [*of_stem, 32, 16]
    for f in seen.standardised:
        assert f.min() < -0.5
        torch.testing.assert_close(f.mean((2, 3)), torch.zeros(f.shape[:2]), atol=1e-4, rtol=0)
        torch.testing.assert_close(f.var((2, 3), unbiased=False), torch.ones(f.shape[:2]), atol=1e-2, rtol=0)
    assert seen.maps["backbone"].shape == ((2, 64, 2, 4) if config is UNET else (2, 64, 8, 16))
    assert seen.maps["head"] is seen.output.features
    assert not any(m._forward_hooks for m in model.modules())


def test_views_pass_one_after_the_other() -> None:
    """BatchNorm normalises each by its own statistics, and its running ones see both."""
    method = method_of()
    model, _ = set_up(method)
    batch, passed = batch_of(), []
    model.register_forward_pre_hook(lambda _, given: passed.append(given[0]))
    method.forward(model, batch)
    assert len(passed) == 2
    assert torch.equal(passed[0], batch.images)
    assert not torch.equal(passed[1], batch.images)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert int(norm.num_batches_tracked) == 2


# The terms together


@TRUNKS
def test_terms_are_those_of_the_formula(config: dict[str, Any]) -> None:
    method = method_of(levels=["backbone", "head"])
    model, modules = set_up(method, config)
    assert set(modules.keys()) == {"backbone", "head"}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    batch = batch_of()
    # As if it knew the images: where x' is taken for something else, that is a class of the image.
    batch = batch._replace(labels=upsample(model(batch.images).logits, (64, 128)).argmax(dim=1))
    model.load_state_dict(state)
    torch.manual_seed(7)
    terms = method.forward(model, batch)
    model.load_state_dict(state)
    view = method._changed(batch)
    torch.manual_seed(7)
    plain, changed = module._run(model, batch.images), module._run(model, view)
    ce = [cross_entropy(each.output.logits, batch.labels) for each in (plain, changed)]
    torch.testing.assert_close(terms["ce"], (ce[0] + ce[1]) / 2)
    layers = [
        torch.stack(module.covariance_losses(f, g))
        for f, g in zip(plain.standardised, changed.standardised, strict=True)
    ]
    expected = 0.2 * torch.stack(layers).mean(dim=0)
    torch.testing.assert_close(torch.stack([terms["covariance"], terms["cross_covariance"]]), expected)
    contrasts = [torch.stack(method._contrasts(level, plain, changed, batch.labels)) for level in ("backbone", "head")]
    expected = 0.3 * torch.stack(contrasts).mean(dim=0)
    torch.testing.assert_close(torch.stack([terms["class_wise"], terms["disentangled"]]), expected)
    assert all(float(terms[name].detach()) > 0 for name in WEIGHTS)
    if config is RESNET:  # of x alone
        alone = cross_entropy(plain.output.auxiliary[0][1], batch.labels)
        torch.testing.assert_close(terms["auxiliary"], 0.4 * alone)


class _Trunk:
    feature_channels = 4


def fake(logits: Tensor, features: Tensor) -> Any:
    return module._Pass(module.Output(logits, features, ()), [], {"head": features})


def test_contrasts_are_loops_over_the_pixels_that_qualify() -> None:
    """With as many views and negatives as pixels of a class nothing is left to chance."""
    method = method_of(views=6, negatives=6, max_classes=4, max_anchors=99)
    labels = torch.tensor([0, 0, 1, 1, 2, 2]).repeat(2, 3, 1)  # six pixels of each class in both images
    labels[1] += 3
    plain, changed = labels.clone(), labels.clone()
    plain[0, 0, 0], changed[0, 0, :4], changed[0, 1, 4] = 1, torch.tensor([1, 2, 2, 5]), 1
    changed[1, 2, 5], plain[1, 1, 0] = 3, 4
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 4, 3, 6, generator=g).requires_grad_() for _ in range(2)]
    logits = [nn.functional.one_hot(each, 19).permute(0, 3, 1, 2).float() for each in (plain, changed)]
    method.build_training_modules(_Trunk())
    k, q = (method._projections["head"](each.permute(0, 2, 3, 1).flatten(0, 2)).double() for each in maps)
    truth, taken = labels.flatten(), changed.flatten()  # the images have no class in common
    image = torch.arange(2).repeat_interleave(18)

    def nce(i: int, negatives: Tensor) -> Tensor:
        scores = torch.cat([(q[i] @ k[i])[None], negatives @ q[i]]) / 0.07
        return scores.logsumexp(0) - scores[0]

    class_wise = torch.stack([nce(i, k[(image == image[i]) & (truth != truth[i])]) for i in range(36)]).mean()
    # In the first image (0, 1) turned from 0 to 2, (0, 2) from 1 to 2 and (1, 4) from 2 to 1; of 5 there is none, and
    # (0, 0) was wrong before. In the second one (2, 5) turned from 5 to 3.
    disentangled = torch.stack([nce(i, q[truth == taken[i]]) for i in (1, 2, 10, 35)]).mean()
    found = method._contrasts("head", fake(logits[0], maps[0]), fake(logits[1], maps[1]), labels)
    torch.testing.assert_close(torch.stack(found).double(), torch.stack([class_wise, disentangled]), rtol=1e-4, atol=0)
    sum(found).backward()
    assert maps[0].grad is None
    assert torch.isfinite(maps[1].grad).all()
    assert maps[1].grad.abs().sum(dim=1).min() > 0


def test_hard_pixels_are_those_that_the_plain_view_gets_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    method = method_of()
    method.build_training_modules(_Trunk())
    logits, features = torch.randn(2, 1, 19, 3, 6), torch.randn(1, 4, 3, 6)
    labels, asked = torch.zeros(1, 6, 12, dtype=torch.int64), []
    sample = module.sample_views
    monkeypatch.setattr(module, "sample_views", lambda *given: asked.append(given) or sample(*given))
    method._contrasts("head", fake(logits[0], features), fake(logits[1], features), labels)
    assert torch.equal(asked[0][1], logits[0].argmax(dim=1).flatten(1))


def test_equal_views_leave_no_pixel_to_disentangle() -> None:
    method = method_of(strength=0.0, hue=0.0, blur=(0.0, 0.0))
    model, _ = set_up(method)
    batch = batch_of()
    levels = method._changed(batch)  # rounded to what an image can hold
    terms = method.forward(model, batch._replace(images=levels))
    values = {name: float(terms[name].detach()) for name in WEIGHTS}
    assert values["disentangled"] == 0
    assert values["covariance"] < 1e-6
    assert values["cross_covariance"] < 1e-3
    assert values["class_wise"] > 0


@TRUNKS
@pytest.mark.parametrize("labels", ["full", "one class", "void"])
def test_every_parameter_gets_a_finite_gradient(config: dict[str, Any], labels: str) -> None:
    method = method_of(levels=["backbone", "head"], views=1, negatives=1)  # few, as a map has eight pixels
    model, modules = set_up(method, config)
    batch = batch_of()
    if labels != "full":
        batch = batch._replace(labels=torch.full_like(batch.labels, 255 if labels == "void" else 3))
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.forward(model, batch)
    torch.stack(list(terms.values())).sum().backward()
    assert_finite_gradients(model, modules)
    if labels == "void":
        assert all(float(term.detach()) == 0 for term in terms.values())
        assert all((each.grad == 0).all() for each in [*model.parameters(), *modules.parameters()])
    if labels == "one class":  # of which no other is a negative
        assert float(terms["class_wise"].detach()) == 0
    if labels == "full":
        assert all(each.grad.abs().max() > 0 for each in modules.parameters())


@pytest.mark.parametrize("name", ["blindnet", "robustnet"])
def test_view_depends_on_iteration_and_slot_alone(name: str) -> None:
    method, batch = make_method(name, iterations=20), batch_of(3)
    whole = method._changed(batch)
    assert torch.equal(whole[1:], method._changed(batch._replace(slots=batch.slots[1:], images=batch.images[1:])))
    assert not torch.equal(whole, method._changed(batch._replace(iteration=4)))
