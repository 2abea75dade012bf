"""SAN-SAW: where its modules sit in a trunk, the terms of its loss, and void."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from flexseg.components.san import SemanticNormalisation, watched
from flexseg.components.saw import channel_groups, group_whitening_losses
from flexseg.errors import RunError, UserError
from flexseg.method import Batch, Method, Setup, parse_options
from flexseg.method_files import load_method
from flexseg.models import Segmentor, build_segmentor

METHODS = Path(__file__).parents[2] / "methods"
CLASSES = [0, 10, 2, 1, 8]
HEAD = {"type": "FCNHead", "channels": 8, "num_convs": 1, "concat_input": False}
TRUNKS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "unet": (
        {
            "backbone": {"type": "UNet", "base_channels": 4, "strides": [2, 1, 1, 1, 1]},
            "decode_head": HEAD | {"in_channels": 4, "in_index": 4},
        },
        {"encoder.1.san": 8, "encoder.2.san": 16},
    ),
    "resnet50": (
        {
            "backbone": {"type": "ResNetV1c", "depth": 50, "stem_channels": 16, "base_channels": 8},
            "decode_head": HEAD | {"in_channels": 256, "in_index": 3},
        },
        {"layer1.san": 32, "layer2.san": 64},
    ),
}
EACH = pytest.mark.parametrize("trunk", TRUNKS)


def make(trunk: str = "unet", seed: int = 0, **options: Any) -> tuple[Method, Segmentor]:
    method = load_method("san_saw", METHODS)
    instance = method(parse_options(method, options), Setup(seed, 1, np.zeros(0, np.int8)))
    torch.manual_seed(seed)
    return instance, instance.build_model(TRUNKS[trunk][0])


def some_batch(seed: int = 0, count: int = 2) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 12, (count, 8, 16), generator=draw)
    labels[:, 0] = 255
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = torch.randn(count, 3, 64, 128, generator=draw)
    return Batch(0, np.arange(count), np.arange(count), images, labels)


@EACH
def test_sits_at_the_ends_of_the_two_stages_and_stays(trunk: str) -> None:
    _, model = make(trunk)
    config, places = TRUNKS[trunk]
    found = {k: m.weight.numel() for k, m in model.backbone.named_modules() if isinstance(m, SemanticNormalisation)}
    assert found == places
    torch.manual_seed(0)
    plain = build_segmentor(config).state_dict()
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.items())
    added = {key for key in state if key not in plain}
    leaves = ("classifier.weight", "classifier.bias", "attention.weight", "weight", "bias")
    assert added == {f"backbone.{place}.{leaf}" for place in places for leaf in leaves}
    images = some_batch().images
    with torch.no_grad():
        before = model.eval().predict(images)
        model.get_parameter(f"backbone.{next(iter(places))}.classifier.weight").mul_(300)
        assert not torch.allclose(before, model.predict(images), atol=1e-4)


@EACH
def test_an_image_is_predicted_without_its_neighbours(trunk: str) -> None:
    _, model = make(trunk)
    images = some_batch(count=3).images
    with torch.no_grad():
        for _ in range(3):
            model(images)
        together = model.eval().predict(images)
        torch.testing.assert_close(together[1:2], model.predict(images[1:2]), rtol=1e-3, atol=1e-4)


def test_terms_are_the_sums_over_both_stages() -> None:
    method, model = make(classifier_weight=0.2, san_weight=0.3, saw_weight=0.4, relax=0)
    batch = some_batch()
    with watched(model) as seen:
        model(batch.images)
    ce = san = saw = 0.0
    for stage in seen:
        logits = functional.interpolate(stage.logits, (64, 128), mode="bilinear", align_corners=False)
        ce += float(functional.cross_entropy(logits, batch.labels, ignore_index=255).detach())
        stride = 64 // stage.before.shape[2]
        small = batch.labels[:, ::stride, ::stride]
        away = stage.behind - stage.module.target(stage.before, small)
        huber = torch.where(away.abs() < 1, away.square() / 2, away.abs() - 0.5)
        san += float(huber.permute(0, 2, 3, 1)[small != 255].mean().detach())
        weight = stage.module.classifier.weight.detach().flatten(1)
        saw += float(group_whitening_losses(stage.behind, *channel_groups(weight, CLASSES), 0).mean().detach())
    terms = {key: float(value.detach()) for key, value in method.forward(model, batch).items()}
    assert terms.keys() == {"ce", "classifiers", "san", "saw"}
    assert len(seen) == 2
    assert min(terms.values()) > 0
    assert terms["classifiers"] == pytest.approx(0.2 * ce, rel=1e-4)
    assert terms["san"] == pytest.approx(0.3 * san, rel=1e-4)
    assert terms["saw"] == pytest.approx(0.4 * saw, rel=1e-3)


@EACH
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("void", [False, True], ids=["labels", "void"])
def test_every_weight_gets_a_finite_gradient(trunk: str, half: bool, void: bool) -> None:
    method, model = make(trunk, relax=0)
    batch = some_batch()
    if void:
        batch = batch._replace(labels=torch.full_like(batch.labels, 255))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        terms = method.forward(model.train(), batch)
    total = torch.stack(list(terms.values())).sum()
    assert torch.isfinite(total)
    assert (float(total.detach()) == 0) == void
    total.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if ".san." in key and not void:
            assert parameter.grad.abs().max() > 0, key


def test_an_image_of_void_adds_nothing_to_whitening() -> None:
    method, model = make(relax=0)
    model.eval()  # so that no image touches another
    batch = some_batch()
    half = batch._replace(labels=torch.cat([batch.labels[:1], torch.full_like(batch.labels[1:], 255)]))
    alone = batch._replace(images=batch.images[:1], labels=batch.labels[:1])
    ours, theirs = method.forward(model, half), method.forward(model, alone)
    assert float(ours["saw"]) == pytest.approx(float(theirs["saw"]) / 2, rel=1e-3)
    assert float(ours["san"]) == pytest.approx(float(theirs["san"]), rel=1e-3)


def test_a_backbone_without_batch_norm_is_refused() -> None:
    method = load_method("san_saw", METHODS)
    mit = {"type": "MixVisionTransformer", "embed_dims": 16, "num_layers": [1, 1, 1, 1], "num_heads": [1, 2, 5, 8]}
    config = {"backbone": mit, "decode_head": HEAD | {"in_channels": 128, "in_index": 3}}
    with pytest.raises(RunError, match=r"^san_saw needs a backbone with BatchNorm, which this benchmark's MixVision"):
        method(parse_options(method, {}), Setup(0, 1, np.zeros(0, np.int8))).build_model(config)
    with pytest.raises(RunError, match=r"^san_saw needs 20 stages with BatchNorm behind the first$"):
        make(stages=20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": 0}, "stages must be at least 1, not 0"),
        ({"clusters": 1}, "clusters must be at least 2, not 1"),
        ({"saw_weight": -1}, "saw_weight must be a number from 0"),
        ({"classes": [3]}, "classes names two or more different trainIds"),
        ({"classes": [3, 3]}, "classes names two or more different trainIds"),
        ({"classes": [3, 19]}, "classes holds trainIds from 0 to 18"),
    ],
)
def test_options_that_make_no_sense_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"methods/san_saw\.py: .*{message}"):
        parse_options(load_method("san_saw", METHODS), values)
