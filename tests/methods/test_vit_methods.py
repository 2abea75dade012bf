"""What every method keeps to (``test_every_method.py``), on a small frozen ViT: for methods that adapt such a trunk,
and for plain training, which there trains the head alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flexseg.benchmark import Benchmark, load_benchmark
from flexseg.errors import RunError
from flexseg.method import Setup, parse_options
from flexseg.method_files import load_method

ROOT = Path(__file__).parents[2]
RECIPE = "needs transformers: pip install --no-deps -r requirements-foundation.lock"
pytestmark = [
    pytest.mark.parametrize("name", ["dginstyle", "lora", "rein"]),
    pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason=RECIPE),
]
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}
MODEL = {
    "backbone": {"type": "FrozenViT", "weights": "random", "config": TINY},
    "decode_head": {"type": "DAFormerHead", "in_channels": [32] * 4, "channels": 16, "embed_dims": 16},
}

# The same tests, which find this module's `smoke` in the place of the one they know.
_spec = importlib.util.spec_from_file_location("every_method", Path(__file__).with_name("test_every_method.py"))
assert _spec is not None
assert _spec.loader is not None
every: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(every)
make_trainer = every.make_trainer
globals().update({key: value for key, value in vars(every).items() if key.startswith("test_")})


@pytest.fixture(scope="session")
def smoke() -> Benchmark:
    """The smoke benchmark with a frozen ViT as its trunk."""
    return load_benchmark("smoke", ROOT / "benchmarks").model_copy(update={"model": MODEL})


def test_a_batch_of_void_is_no_error_and_keeps_the_graph(name: str, make_trainer: Callable[..., Any]) -> None:
    """As for every method, of the parameters that are trained."""
    trainer = make_trainer(name)
    batch = every.first_batch(trainer)
    terms = trainer.wrapped(batch._replace(labels=torch.full_like(batch.labels, 255)))
    total = torch.stack(list(terms.values())).sum()
    assert float(total.detach()) == 0
    total.backward()
    for key, value in trainer.learner.named_parameters():
        assert (value.grad is not None) == value.requires_grad, key
        assert value.grad is None or torch.isfinite(value.grad).all(), key


def test_the_frozen_transformer_does_not_move_and_all_else_does(name: str, make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(name)
    before = {key: value.clone() for key, value in trainer.learner.model.state_dict().items()}
    for iteration in range(3):
        trainer.step(iteration)
    after = trainer.learner.model.state_dict()
    parameters = dict(trainer.learner.model.named_parameters())
    still = {key for key in parameters if torch.equal(before[key], after[key])}
    frozen = {key for key, value in parameters.items() if not value.requires_grad}
    assert still == frozen
    assert frozen
    trained = {key for key in parameters if key.startswith("backbone.")} - frozen
    assert bool(trained) == (name != "dginstyle")
    averaged = trainer.average.tensors
    for key in frozen:
        assert torch.equal(averaged[f"model.{key}"], before[key]), key


def test_another_trunk_is_refused_in_one_sentence(name: str) -> None:
    method = load_method(name, ROOT / "methods")
    instance = method(parse_options(method, {}), Setup(0, 1, torch.zeros(0, dtype=torch.int8).numpy()))
    trunk = load_benchmark("smoke", ROOT / "benchmarks").model
    if not method.needs:
        instance.build_model(trunk)
        return
    with pytest.raises(RunError, match=rf"^{name} needs a frozen vision transformer[^.\n]*UNet is not$"):
        instance.build_model(trunk)
