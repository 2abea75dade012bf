"""What the methods that change normalisation share: where they work, what they leave alone, and that they evaluate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import assert_finite_gradients, build_model, lite, make_method, mit, module_of, places, resnet, unet

from flexseg.errors import RunError
from flexseg.models import Segmentor, build_segmentor

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("ibn_net", {"variant": "a"}),
    ("ibn_net", {"variant": "b"}),
    ("iternorm", {}),
    ("switchable_whitening", {}),
    ("robustnet", {}),
]
EACH = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=["ibn_a", "ibn_b", "iternorm", "sw", "isw"])


def unet_norms(conv: int) -> list[str]:
    """The norm behind this convolution of each of the first three stages of a UNet's encoder."""
    return [f"encoder.{stage}.{min(stage, 1)}.convs.{conv}.bn" for stage in range(3)]


TRUNKS = {"unet": unet(), "resnet18": resnet(), "resnet50": resnet(50, type="ResNet"), "lite": lite(weights=False)}


BOTTLENECKS = resnet(50, type="ResNet")
INVERTED = [
    f"encoder.{stage}.{block}.expand.norm" for stage, count in ((1, 2), (2, 2), (3, 6)) for block in range(count)
]
LITE_ENDS = ["encoder.0.1.project.norm", "encoder.1.norm", "encoder.2.norm"]
BLOCKS = [f"layer{stage}.{block}.bn1" for stage, count in ((1, 3), (2, 4), (3, 6)) for block in range(count)]
PLACES: list[tuple[str, str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("ibn_net", "InstanceBatchNorm", {"variant": "a"}, BOTTLENECKS, BLOCKS),
    ("ibn_net", "InstanceBatchNorm", {"variant": "a", "stages": 1}, resnet(), ["layer1.0.bn1", "layer1.1.bn1"]),
    ("ibn_net", "InstanceBatchNorm", {"variant": "a"}, unet(), unet_norms(0)),
    ("ibn_net", "InstanceNorm", {"variant": "b"}, BOTTLENECKS, ["bn1", "layer1.norm", "layer2.norm"]),
    ("ibn_net", "InstanceNorm", {"variant": "b"}, resnet(), ["stem.1", "stem.4", "layer1.norm", "layer2.norm"]),
    ("ibn_net", "InstanceNorm", {"variant": "b"}, unet(), unet_norms(1)),
    ("ibn_net", "InstanceNorm", {"stages": 1}, unet(enc_num_convs=[1] * 5), ["encoder.0.0.convs.0.bn"]),
    ("iternorm", "IterativeWhitening", {}, resnet(type="ResNet"), ["bn1", "layer1.norm", "layer2.norm"]),
    ("switchable_whitening", "SwitchableWhitening2d", {}, BOTTLENECKS, ["bn1", "layer1.norm", "layer2.norm"]),
    ("iternorm", "IterativeWhitening", {}, unet(), unet_norms(1)),
    ("switchable_whitening", "SwitchableWhitening2d", {"stages": 2}, unet(), unet_norms(1)[:2]),
    ("robustnet", "Standardisation", {}, BOTTLENECKS, ["bn1", "layer1.norm", "layer2.norm"]),
    ("robustnet", "Standardisation", {}, unet(), unet_norms(1)),
    ("blindnet", "Standardisation", {}, resnet(), ["stem.1", "stem.4", "layer1.norm", "layer2.norm"]),
    ("blindnet", "Standardisation", {}, unet(), unet_norms(1)),
    ("ibn_net", "InstanceBatchNorm", {"variant": "a"}, lite(), INVERTED),
    ("ibn_net", "InstanceNorm", {"variant": "b"}, lite(frozen_stages=2), LITE_ENDS),
    ("iternorm", "IterativeWhitening", {}, lite(num_stages=3), LITE_ENDS),
    ("switchable_whitening", "SwitchableWhitening2d", {}, lite(), LITE_ENDS),
    ("robustnet", "Standardisation", {}, lite(), LITE_ENDS),
    ("blindnet", "Standardisation", {}, lite(), LITE_ENDS),
    ("san_saw", "SemanticNormalisation", {}, lite(), ["encoder.1.san", "encoder.2.san"]),
]
"""A method, its layer, its options, a trunk, and where in that the layer stands."""


def build(name: str, options: dict[str, Any], config: dict[str, Any], seed: int = 0) -> Segmentor:
    """The model of a method on a trunk, of the weights of ``seed``, refused where the method would be."""
    return build_model(make_method(name, options, seed=seed), config, seed)


@pytest.mark.parametrize(("name", "layer", "options", "config", "expected"), PLACES)
def test_layers_stand_where_they_were_published(
    name: str, layer: str, options: dict[str, Any], config: dict[str, Any], expected: list[str]
) -> None:
    assert places(build(name, options, config), getattr(module_of(name), layer)) == expected


@EACH
def test_a_backbone_without_batch_norm_is_refused(name: str, options: dict[str, Any]) -> None:
    """Although this head has BatchNorm: what would be changed is the backbone."""
    wanted = f"^{name} needs a backbone with BatchNorm, which this benchmark's MixVisionTransformer does not have$"
    with pytest.raises(RunError, match=wanted):
        build(name, options, mit())


@EACH
@pytest.mark.parametrize("trunk", TRUNKS)
def test_what_is_not_replaced_starts_like_the_plain_trunk(name: str, options: dict[str, Any], trunk: str) -> None:
    torch.manual_seed(3)
    plain = build_segmentor(TRUNKS[trunk]).state_dict()
    state = build(name, options, TRUNKS[trunk], seed=3).state_dict()
    shared = plain.keys() & state.keys()
    assert {key for key in plain if key.endswith("conv.weight") or "conv1" in key} <= shared
    assert all(torch.equal(plain[key], state[key]) for key in shared if plain[key].shape == state[key].shape)
    assert plain.keys() != state.keys()
    again = build(name, options, TRUNKS[trunk], seed=4).state_dict()
    for key in state.keys() - shared:
        assert torch.equal(state[key], again[key]), f"{key} draws random numbers"


@EACH
@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_all_weights_get_a_finite_gradient(name: str, options: dict[str, Any], trunk: str, half: bool) -> None:
    torch.manual_seed(0)
    images, aim = torch.randn(3, 3, 64, 128), torch.randn(3, 19, 1, 1)
    model = build(name, options, TRUNKS[trunk]).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(images).logits
    (logits.float() * aim).square().mean().backward()
    assert_finite_gradients(model)
    first = next(key for key, _ in model.named_parameters() if key.endswith("weight"))
    assert model.get_parameter(first).grad.abs().max() > 0


@pytest.mark.parametrize(("name", "options"), [*VARIANTS, ("san_saw", {})])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_evaluation_repeats_itself_and_reads_no_neighbour(name: str, options: dict[str, Any], trunk: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 3, 64, 128)
    model = build(name, options, TRUNKS[trunk]).train()
    with torch.no_grad():
        for _ in range(3):
            model(images)
        model.eval()
        together = model.predict(images)
        assert torch.equal(together, model.predict(images))
        torch.testing.assert_close(together[1:2], model.predict(images[1:2]), rtol=1e-3, atol=1e-4)


@EACH
def test_more_stages_change_more(name: str, options: dict[str, Any]) -> None:
    plain = build_segmentor(TRUNKS["unet"]).state_dict().keys()
    changed = [
        {key.split(".")[2] for key in plain ^ build(name, {**options, "stages": n}, TRUNKS["unet"]).state_dict().keys()}
        for n in (1, 2, 3)
    ]
    assert changed == [{"0"}, {"0", "1"}, {"0", "1", "2"}]
