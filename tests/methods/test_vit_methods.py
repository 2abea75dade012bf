"""What every method keeps to (``test_every_method.py``), on a small frozen ViT: for methods that adapt such a trunk,
and for plain training, which there trains the head alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import FOUNDATION, METHODS, frozen_vit, make_method

from flexseg.benchmark import Benchmark, load_benchmark
from flexseg.errors import RunError

BENCHMARKS = METHODS.parent / "benchmarks"
pytestmark = [pytest.mark.parametrize("name", ["dginstyle", "fada", "lora", "rein", "set_tokens", "soma"]), FOUNDATION]

# The same tests, which find this module's `smoke` in the place of the one they know.
_spec = importlib.util.spec_from_file_location("every_method", Path(__file__).with_name("test_every_method.py"))
assert _spec.loader is not None
every: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(every)
make_trainer = every.make_trainer
globals().update({key: value for key, value in vars(every).items() if key.startswith("test_")})


@pytest.fixture(scope="session")
def smoke() -> Benchmark:
    """The smoke benchmark with a frozen ViT as its trunk."""
    return load_benchmark("smoke", BENCHMARKS).model_copy(update={"model": frozen_vit(patch=8)})


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
    method = make_method(name)
    trunk = load_benchmark("smoke", BENCHMARKS).model
    if not method.needs:
        method.build_model(trunk)
        return
    with pytest.raises(RunError, match=rf"^{name} needs a frozen vision transformer[^.\n]*UNet is not$"):
        method.build_model(trunk)
