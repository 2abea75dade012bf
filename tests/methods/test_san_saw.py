"""SAN-SAW: where its modules sit in a trunk, the terms of its loss, and void."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import assert_finite_gradients, build_model, equal_tensors, make_batch, make_method, mit, resnet, unet
from torch.nn import functional

from flexseg.components.san import SemanticNormalisation, watch_normalisation
from flexseg.components.saw import channel_groups, group_whitening_losses
from flexseg.errors import RunError
from flexseg.method import Batch, Method
from flexseg.models import Segmentor, build_segmentor

CLASSES = [0, 10, 2, 1, 8]
TRUNKS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "unet": (unet(), {"encoder.1.san": 8, "encoder.2.san": 16}),
    "resnet50": (resnet(50), {"layer1.san": 32, "layer2.san": 64}),
}
EACH = pytest.mark.parametrize("trunk", TRUNKS)


def make(trunk: str = "unet", **options: Any) -> tuple[Method, Segmentor]:
    method = make_method("san_saw", options)
    return method, build_model(method, TRUNKS[trunk][0])


def some_batch(count: int = 2) -> Batch:
    return make_batch(count, classes=12, block=8)


@EACH
def test_sits_at_the_ends_of_the_two_stages_and_stays(trunk: str) -> None:
    _, model = make(trunk)
    config, places = TRUNKS[trunk]
    found = {k: m.weight.numel() for k, m in model.backbone.named_modules() if isinstance(m, SemanticNormalisation)}
    assert found == places
    torch.manual_seed(0)
    plain = build_segmentor(config).state_dict()
    state = model.state_dict()
    assert equal_tensors(plain, state)
    added = {key for key in state if key not in plain}
    leaves = ("classifier.weight", "classifier.bias", "attention.weight", "weight", "bias")
    assert added == {f"backbone.{place}.{leaf}" for place in places for leaf in leaves}
    images = some_batch().images
    with torch.no_grad():
        before = model.eval().predict(images)
        model.get_parameter(f"backbone.{next(iter(places))}.classifier.weight").mul_(300)
        assert not torch.allclose(before, model.predict(images), atol=1e-4)


def test_terms_are_the_sums_over_both_stages() -> None:
    method, model = make(classifier_weight=0.2, san_weight=0.3, saw_weight=0.4, relax=0)
    batch = some_batch()
    with watch_normalisation(model) as seen:
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
    assert_finite_gradients(model)
    assert void or all(value.grad.abs().max() > 0 for key, value in model.named_parameters() if ".san." in key)


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
    with pytest.raises(RunError, match=r"^san_saw needs a backbone with BatchNorm, which this benchmark's MixVision"):
        build_model(make_method("san_saw"), mit())
    with pytest.raises(RunError, match=r"^san_saw needs 20 stages with BatchNorm behind the first$"):
        make(stages=20)
