"""MRFP: each perturbation against its formula, where and when it works, and that nothing is left behind."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from builders import assert_finite_gradients, build_model, make_batch, make_method, mit, module_of, resnet, unet
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from flexseg.errors import RunError
from flexseg.method import Batch, Method
from flexseg.models import Segmentor

module = module_of("mrfp")
UNET, RESNET = unet(), resnet()
PARTS = ("np", "hrfp", "hrfp_plus")
TRUNKS = pytest.mark.parametrize("config", [UNET, RESNET], ids=["unet", "resnet"])


def built(config: dict[str, Any], **options: Any) -> tuple[Any, Segmentor]:
    method = make_method("mrfp", options, iterations=100)
    return method, build_model(method, config)


def alone(part: str) -> dict[str, Any]:
    return {name: name == part for name in PARTS} | {"probability": 1.0}


def batch() -> Batch:
    return make_batch(seed=1, shape=(64, 96), void=0)


def watched(method: Any, model: Segmentor, **kinds: str) -> dict[str, Tensor]:
    """What these modules give (or, for ``input``, are given) in one of the method's passes."""
    seen: dict[str, Tensor] = {}

    def keep(path: str, kind: str) -> Any:
        return lambda _, inputs, output: seen.__setitem__(path, (inputs[0] if kind == "input" else output).detach())

    torch.manual_seed(3)
    with method._perturb(model, True, True, True):
        # Behind the method's own hooks, so that what they change is seen.
        handles = [model.get_submodule(path).register_forward_hook(keep(path, kind)) for path, kind in kinds.items()]
        model(batch().images)
    for handle in handles:
        handle.remove()
    return seen


def test_np_scales_means_and_deviations() -> None:
    x = torch.randn(3, 5, 6, 7) * 2 + 1
    torch.manual_seed(0)
    y = module.perturb_statistics(x, 0.75, 1.5, sensitive=False)
    torch.manual_seed(0)
    alpha, beta = 1 + 0.75 * torch.randn(2, 3, 5, 1, 1)
    for b in range(3):
        for c in range(5):
            mean = x[b, c].mean()
            expected = float(alpha[b, c]) * (x[b, c] - mean) + float(beta[b, c]) * mean
            torch.testing.assert_close(y[b, c], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y.mean(dim=(2, 3)), beta[..., 0, 0] * x.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y.std(dim=(2, 3)), alpha[..., 0, 0].abs() * x.std(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def test_np_plus_perturbs_channels_by_how_much_they_vary_between_images() -> None:
    x = torch.randn(2, 3, 8, 8)
    x -= x.mean(dim=(2, 3), keepdim=True)
    x[0] += torch.tensor([5.0, 1.0, 2.0])[:, None, None]
    x[1] += torch.tensor([1.0, 3.0, 2.0])[:, None, None]  # means differ by 4, 2 and 0: δ / max δ = 1, 1/2, 0
    torch.manual_seed(0)
    y = module.perturb_statistics(x, 0.75, 1.5)
    torch.manual_seed(0)
    alpha, noise = 0.75 * torch.randn(2, 2, 3, 1, 1)
    alpha, beta = 1 + alpha, 1 + 1.5 * torch.tensor([1, 0.5, 0])[:, None, None] * noise
    mean = x.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(y, alpha * (x - mean) + beta * mean, rtol=1e-4, atol=1e-4)


@given(st.sampled_from(["zero", "constant", "one image", "huge"]), st.booleans())
def test_np_stays_finite(kind: str, sensitive: bool) -> None:
    x = {
        "zero": torch.zeros(2, 3, 4, 4),
        "constant": torch.ones(2, 3, 4, 4),
        "one image": torch.randn(1, 3, 4, 4),
        "huge": 1e15 * torch.randn(2, 3, 4, 4),
    }[kind].requires_grad_()
    y = module.perturb_statistics(x, 0.75, 1.5, sensitive)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


@given(st.integers(2, 9), st.integers(1, 5), st.integers(3, 12), st.integers(3, 12))
def test_the_branch_climbs_and_descends(channels: int, width: int, height: int, columns: int) -> None:
    x = torch.randn(2, width, height, columns)
    high = module.climb(x, channels)
    assert high.shape == (2, channels, height * 2, columns * 2)
    assert module.descend(high, width, (height, columns)).shape == x.shape


def test_sizes_and_widths_are_those_of_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """At crops of 768 the stem's map has 192 pixels a side (deepv3.py: factors 1.205, 1.2, 1.2, then half the crop)."""
    seen = []
    monkeypatch.setattr(
        module, "random_layer",
        lambda x, width, size, dilation: seen.append((width, tuple(size), dilation)) or torch.zeros(1, width, *size),
    )  # fmt: skip
    module.descend(module.climb(torch.zeros(1, 64, 192, 192), 256), 64, (192, 192))
    assert [(channels, dilation) for channels, _, dilation in seen] == [
        (64, 1), (64, 1), (128, 2), (256, 2), (128, 1), (64, 1), (64, 2), (64, 2),
    ]  # fmt: skip
    assert [size[0] for _, size, _ in seen] == [231, 277, 333, 384, 384, 321, 256, 192]


def test_a_random_layer_by_hand() -> None:
    x = torch.randn(3, 4, 5, 6)
    torch.manual_seed(0)
    y = module.random_layer(x, 7, (8, 9), dilation=2)
    torch.manual_seed(0)
    weight, gamma = torch.randn(7, 4, 3, 3) * (2 / 36) ** 0.5, 0.5 * torch.randn(7)
    mapped = functional.interpolate(functional.conv2d(x, weight, padding=2, dilation=2), (8, 9), mode="nearest")
    mean = mapped.mean(dim=(0, 2, 3), keepdim=True)
    deviation = (mapped.var(dim=(0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(y, functional.relu(gamma[:, None, None] * (mapped - mean) / deviation))
    assert not torch.equal(y, module.random_layer(x, 7, (8, 9), dilation=2)), "weights are drawn anew"


@TRUNKS
def test_each_part_works_at_its_place_alone(config: dict[str, Any]) -> None:
    stages = ["backbone.encoder.0", "backbone.encoder.1"] if config is UNET else ["backbone.maxpool", "backbone.layer1"]
    places = {stages[0]: "output", stages[1]: "output", "decode_head.conv_seg": "input"}
    plain = watched(*built(config, **alone("none")), **places)
    expected = {"np": (True, True), "hrfp": (True, None), "hrfp_plus": (False, False)}
    for part, (first, second) in expected.items():
        seen = watched(*built(config, **alone(part)), **places)
        changed = [seen[path].shape != plain[path].shape or not torch.equal(seen[path], plain[path]) for path in places]
        assert changed[0] == first, part
        assert changed[1] == (True if second is None else second), part  # HRFP's change is carried on
        assert changed[2], part


@TRUNKS
def test_the_branch_is_added_to_the_first_map(config: dict[str, Any]) -> None:
    path = "backbone.encoder.0" if config is UNET else "backbone.maxpool"
    plain = watched(*built(config, **alone("none")), **{path: "output"})[path]
    seen = watched(*built(config, **alone("hrfp")), **{path: "output"})[path]
    torch.manual_seed(3)
    branch = module.descend(module.climb(plain, 8), plain.shape[1], plain.shape[2:])
    torch.testing.assert_close(seen, plain + branch)


@TRUNKS
def test_the_decoders_features_are_brought_to_the_highest_map(config: dict[str, Any]) -> None:
    early = "backbone.encoder.0" if config is UNET else "backbone.maxpool"
    kinds = {early: "output", "decode_head.conv_seg": "input"}
    plain = watched(*built(config, **alone("none")), **kinds)
    seen = watched(*built(config, **alone("hrfp_plus")), **kinds)["decode_head.conv_seg"]
    features = plain["decode_head.conv_seg"]
    torch.manual_seed(3)
    high = module.climb(plain[early], 8)
    resized = functional.interpolate(features, high.shape[2:], mode="bilinear")
    torch.testing.assert_close(seen, resized + high)


def test_the_parts_together() -> None:
    """Statistics at the first two stages, the branch from the first map as it was, and at no other."""
    method, model = built(UNET, probability=1.0, hrfp_plus=False)
    first, second = "backbone.encoder.0", "backbone.encoder.1"
    seen = watched(method, model, **{first: "output", second: "output"})
    _, same = built(UNET)
    torch.manual_seed(3)
    x = same.get_submodule(first)(batch().images)
    y = module.perturb_statistics(x, 0.75, 1.5)
    y = y + module.descend(module.climb(x, 8), 4, x.shape[2:])
    torch.testing.assert_close(seen[first], y.detach())
    z = module.perturb_statistics(same.get_submodule(second)(y), 0.75, 1.5)
    torch.testing.assert_close(seen[second], z.detach())


def test_parts_are_on_as_often_as_asked_and_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    method, model = built(UNET)
    drawn: list[tuple[bool, ...]] = []
    monkeypatch.setattr(method, "_perturb", lambda _, *on: drawn.append(on) or nullcontext())
    monkeypatch.setattr(Method, "forward", lambda *_: {})
    torch.manual_seed(0)
    for _ in range(2000):
        method.forward(model, batch())
    table = np.array(drawn, dtype=float)
    np.testing.assert_allclose(table.mean(axis=0), 0.5, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(table.T), np.eye(3), atol=0.1)


@TRUNKS
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_steps_follow_the_seed_and_every_parameter_learns(config: dict[str, Any], probability: float) -> None:
    method, model = built(config, probability=probability)
    plain = build_model(make_method("ibn_net"), config)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        terms = method.forward(model, batch())
        assert terms.keys() == {"ce"}
        values.append(float(terms["ce"].detach()))
    assert values[0] == values[1]
    assert (values[1] != values[2]) == (probability == 1)
    terms["ce"].backward()
    assert_finite_gradients(model)
    if probability == 0:
        same = float(make_method("dginstyle").forward(plain, batch())["ce"].detach())
        assert values[0] == same, "without its parts it is IBN-Net (b)"


@TRUNKS
def test_nothing_is_left_when_the_pass_is_over_or_fails(config: dict[str, Any]) -> None:
    method, model = built(config, probability=1.0)
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    method.forward(model, batch())
    with pytest.raises(Exception, match=r"."):
        method.forward(model, batch()._replace(labels=torch.zeros(5, 1, 1, dtype=torch.int64)))
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()] == hooks
    model.eval()
    images = batch().images
    assert torch.equal(model.predict(images), model.predict(images))
    assert method.build_training_modules(model) is None


def test_a_trunk_whose_early_maps_are_unknown_or_too_few() -> None:
    with pytest.raises(RunError, match=r"^mrfp needs a backbone with BatchNorm"):
        built(mit())
    with pytest.raises(RunError, match="np_stages is 9, but the backbone has 5"):
        built(UNET, np_stages=9)
