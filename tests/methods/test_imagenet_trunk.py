"""Every method on EfficientNet-Lite0 with ImageNet's weights, of which the first two stages are frozen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import LITE_WEIGHTS, METHODS, equal_tensors, lite, make_batch, make_method, set_up

from flexseg.benchmark import Benchmark, Row, load_benchmark
from flexseg.benchmark.schedule import FeatureDistance
from flexseg.components.style import early_stages, stage_channels
from flexseg.engine.recipe import FeatureAnchor
from flexseg.method_files import load_method, method_names
from flexseg.models import build_segmentor
from flexseg.models.efficientnet import EfficientNetLite
from flexseg.models.weights import load_weights

BENCHMARKS = METHODS.parent / "benchmarks"
NAMES = method_names(METHODS)
OTHER_TRUNKS = {name for name in NAMES if set(load_method(name, METHODS).needs) - {"batch_norm"}} | {"detectron2_fpn"}
"""Methods that adapt a frozen transformer, or bring their own trunk."""

# The tests of `test_every_method.py` that depend on the trunk; they find this module's `smoke` instead of theirs.
_spec = importlib.util.spec_from_file_location("every_method", Path(__file__).with_name("test_every_method.py"))
assert _spec is not None
assert _spec.loader is not None
every: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(every)
make_trainer = every.make_trainer
each = pytest.mark.parametrize("name", sorted(set(NAMES) - OTHER_TRUNKS))
test_takes_a_step_with_finite_losses_and_every_gradient = each(
    every.test_takes_a_step_with_finite_losses_and_every_gradient
)
test_goes_on_exactly_from_a_checkpoint = each(every.test_goes_on_exactly_from_a_checkpoint)
test_what_is_evaluated_is_the_trunk = each(every.test_what_is_evaluated_is_the_trunk)


@pytest.fixture(scope="session")
def smoke() -> Benchmark:
    return load_benchmark("smoke", BENCHMARKS).model_copy(update={"model": lite(frozen_stages=1)})


@pytest.fixture(scope="module")
def imagenet() -> EfficientNetLite:
    backbone = EfficientNetLite()
    load_weights(backbone, LITE_WEIGHTS)
    return backbone.eval()


def test_check_builds_a_row_of_every_method(smoke: Benchmark) -> None:
    """What cannot be had here is a line with its reason, as on any other trunk."""
    from flexseg.tasks.check import check_benchmark

    rows = {name: Row(method=name, title=name) for name in NAMES}
    rows |= {f"ibn_{kind}": Row(method="ibn_net", title=kind, variant=kind) for kind in "ab"}
    *lines, ready = check_benchmark(smoke.model_copy(update={"rows": rows}))
    refused = {line.split()[1] for line in lines}
    assert refused <= OTHER_TRUNKS, lines
    assert refused >= {"fada", "lora", "rein", "set_tokens", "soma"}
    assert "ready" in ready


def test_the_five_stages_are_where_styles_are_exchanged(imagenet: EfficientNetLite) -> None:
    stages = early_stages(imagenet)
    assert stages == tuple(f"encoder.{number}" for number in range(5))
    assert [stage_channels(imagenet, path) for path in stages] == [16, 24, 40, 112, 320]


def test_features_of_gap_are_the_fused_map_at_stride_4() -> None:
    """As in the paper: what the classifier sees, of all stages fused, in the largest of their maps."""
    method = make_method("flexseg", {"dim": 8}, iterations=10, pool=4)
    described = lite()
    described["decode_head"] |= {"channels": 24}
    model, prototypes = set_up(method, described)
    batch, seen = make_batch(shape=(64, 128)), []
    prototypes.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.decode_head.fuse.register_forward_hook(lambda *call: seen.append(call[2]))
    terms = method.forward(model, batch)
    fused, given = seen
    assert given.shape == (2, 24, 16, 32)
    assert torch.equal(fused, given)
    assert "gap" in terms
    assert model.feature_channels == 24
    segformer = described | {"decode_head": {"type": "SegformerHead", "in_channels": [24, 40, 112, 320],
                                             "in_index": [1, 2, 3, 4], "channels": 16}}  # fmt: skip
    assert build_segmentor(segformer, pretrained=False)(batch.images).features.shape == (2, 16, 16, 32)


@pytest.mark.parametrize(("stage", "widths"), [(-1, 320), (3, 112), (1, 24)])
def test_the_feature_distance_is_to_imagenets_features(imagenet: EfficientNetLite, stage: int, widths: int) -> None:
    model = build_segmentor(lite(frozen_stages=0))
    settings = FeatureDistance(weight=1.0, classes=["car", "person"], stage=stage, cell_share=0.6)
    anchor = FeatureAnchor(model.backbone, settings)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.01)
    batch = make_batch(shape=(64, 128), block=32, classes=19)
    batch.labels[:, :32] = 13  # car
    found = anchor.encoder(batch.images)
    assert found.shape[1] == widths
    with torch.no_grad():
        torch.testing.assert_close(found, imagenet(batch.images)[stage], rtol=1e-4, atol=1e-4)
    terms = anchor.forward(model.backbone, batch, lambda: {"ce": model(batch.images).logits.mean()})
    assert float(terms["fd"]) > 0
    terms["fd"].backward()
    assert model.backbone.encoder[1][0].project.conv.weight.grad.abs().sum() > 0


def test_revts_networks_part_at_imagenets_weights(imagenet: EfficientNetLite) -> None:
    model, members = set_up(make_method("revt", {"part_at": 0.0}), lite(frozen_stages=0))
    for network in (model, *members):
        assert equal_tensors(network.backbone.state_dict(), imagenet.state_dict())
        assert [key for key, p in network.backbone.named_parameters() if not p.requires_grad]


def test_a_norm_between_frozen_stages_is_trained(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer("iternorm")
    layer = trainer.learner.model.backbone.encoder[1].norm
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    frozen = {key: value.clone() for key, value in trainer.learner.model.backbone.encoder[1][0].state_dict().items()}
    for iteration in range(2):
        trainer.step(iteration)
    assert all((value != before[key]).any() for key, value in layer.state_dict().items())
    assert equal_tensors(trainer.learner.model.backbone.encoder[1][0].state_dict(), frozen)
