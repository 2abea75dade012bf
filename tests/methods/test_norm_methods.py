"""What the methods that change normalisation share: where they work, what they leave alone, and that they evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.engine.checkpoint import load_tensors
from flexseg.errors import RunError, UserError
from flexseg.method import Setup, parse_options
from flexseg.method_files import load_method
from flexseg.models import Segmentor, build_segmentor

METHODS = Path(__file__).parents[2] / "methods"
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("ibn_net", {"variant": "a"}),
    ("ibn_net", {"variant": "b"}),
    ("iternorm", {}),
    ("switchable_whitening", {}),
    ("robustnet", {}),
]
EACH = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=["ibn_a", "ibn_b", "iternorm", "sw", "isw"])
HEAD = {"type": "FCNHead", "channels": 8, "num_convs": 1, "concat_input": False}
TRUNKS: dict[str, dict[str, Any]] = {
    "unet": {
        "backbone": {"type": "UNet", "base_channels": 4, "strides": [2, 1, 1, 1, 1]},
        "decode_head": HEAD | {"in_channels": 4, "in_index": 4},
    },
    "resnet18": {
        "backbone": {"type": "ResNetV1c", "depth": 18, "stem_channels": 16, "base_channels": 8},
        "decode_head": HEAD | {"in_channels": 64, "in_index": 3},
    },
    "resnet50": {
        "backbone": {"type": "ResNet", "depth": 50, "stem_channels": 16, "base_channels": 8},
        "decode_head": HEAD | {"in_channels": 256, "in_index": 3},
    },
}
MIT = {
    "backbone": {
        "type": "MixVisionTransformer",
        "embed_dims": 16,
        "num_layers": [1, 1, 1, 1],
        "num_heads": [1, 2, 5, 8],
        "sr_ratios": [8, 4, 2, 1],
    },
    "decode_head": {"type": "DAFormerHead", "in_channels": [16, 32, 80, 128], "embed_dims": 8, "channels": 8},
}


def build(name: str, options: dict[str, Any], config: dict[str, Any], seed: int = 0) -> Segmentor:
    """The model of a method on a trunk, of the weights of ``seed``, refused where the method would be."""
    method = load_method(name, METHODS)
    instance = method(parse_options(method, options), Setup(seed, 1, np.zeros(0, np.int8)))
    torch.manual_seed(seed)
    return instance.build_model(config)


@EACH
def test_a_backbone_without_batch_norm_is_refused(name: str, options: dict[str, Any]) -> None:
    """Although this head has BatchNorm: what would be changed is the backbone."""
    wanted = f"^{name} needs a backbone with BatchNorm, which this benchmark's MixVisionTransformer has not$"
    with pytest.raises(RunError, match=wanted):
        build(name, options, MIT)


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
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    first = next(key for key, _ in model.named_parameters() if key.endswith("weight"))
    assert model.get_parameter(first).grad.abs().max() > 0


@EACH
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
def test_options_that_make_no_sense_are_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"methods/{name}\.py: .*stages must be at least 1, not 0"):
        parse_options(load_method(name, METHODS), {**options, "stages": 0})


@EACH
def test_more_stages_change_more(name: str, options: dict[str, Any]) -> None:
    plain = build_segmentor(TRUNKS["unet"]).state_dict().keys()
    changed = [
        {key.split(".")[2] for key in plain ^ build(name, {**options, "stages": n}, TRUNKS["unet"]).state_dict().keys()}
        for n in (1, 2, 3)
    ]
    assert changed == [{"0"}, {"0", "1"}, {"0", "1", "2"}]


@EACH
def test_a_trained_run_can_be_evaluated(name: str, options: dict[str, Any], smoke: Benchmark, results: Path) -> None:
    from flexseg.tasks.jobs import load_trained, train_run

    training = smoke.training.model_copy(update={"iterations": 6, "batch_size": 2, "checkpoint_every": 2})
    row = Row.model_validate({"method": name, "title": name, **options})
    benchmark = smoke.model_copy(update={"training": training, "rows": {"row": row}})
    run = Run(benchmark, "row", 0, results)
    train_run(run)
    model = load_trained(run)
    weights = load_tensors(run.directory.weights)[0]
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    with torch.inference_mode():
        logits = model.predict(torch.randn(2, 3, 48, 96))
    assert logits.shape == (2, 19, 48, 96)
    assert torch.isfinite(logits).all()
