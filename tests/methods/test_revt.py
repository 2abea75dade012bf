"""ReVT: what the networks share before they part, what each learns from, and what their mean is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from builders import assert_finite_gradients, build_model, equal_tensors, make_method, mit, unet
from torch import Tensor, nn

from flexseg.benchmark import Benchmark
from flexseg.data.augment import bilateral, pixmix
from flexseg.data.draws import Purpose, generator
from flexseg.data.transforms import changed_view, normalise
from flexseg.engine.optimise import WeightAverage, build_optimizer
from flexseg.engine.train import Learner
from flexseg.method import Batch
from flexseg.models import channels_last

HEAD = {"type": "FCNHead", "channels": 8, "num_convs": 1, "concat_input": False}
UNET = unet() | {"decode_head": HEAD | {"in_channels": 4, "in_index": 4}}
RESNET: dict[str, Any] = {
    "backbone": {"type": "ResNetV1c", "depth": 18, "stem_channels": 8, "base_channels": 8},
    "neck": {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": 8, "num_outs": 4},
    "decode_head": HEAD
    | {"in_channels": [8] * 4, "in_index": [0, 1, 2, 3], "input_transform": "resize_concat", "dropout_ratio": 0.0},
    "auxiliary_head": HEAD | {"in_channels": 8, "in_index": 2, "loss_decode": {"type": "CrossEntropyLoss"}},
}
MIT = mit()


def make_batch(iteration: int, slots: range = range(2), void: bool = False) -> Batch:
    rng = np.random.default_rng(iteration)
    images = rng.integers(0, 256, (8, 32, 64, 3), dtype=np.uint8)
    labels = np.full((8, 32, 64), 255) if void else rng.integers(0, 19, (8, 32, 64))
    chosen = np.array(slots)
    return Batch(
        iteration, chosen, chosen, torch.from_numpy(normalise(images[chosen])), torch.from_numpy(labels[chosen])
    )


def fresh_batches(iteration: int = 100) -> Iterator[Batch]:
    while True:
        yield make_batch(iteration)
        iteration += 1


class Run:
    """A method trained as the engine trains it, on made-up batches; parts before iteration 3 of 6."""

    def __init__(self, smoke: Benchmark, config: dict[str, Any] = UNET, name: str = "revt", **options: Any) -> None:
        self.method = make_method(name, options, seed=5, iterations=6, pool=4)
        model = build_model(self.method, config)
        self.learner = Learner(model, self.method.build_training_modules(model), self.method, anchor=None)
        channels_last(self.learner)
        self.optimizer = build_optimizer(self.learner, smoke.training)
        self.average = WeightAverage(self.learner, 0.5)

    def step(self, iteration: int) -> dict[str, Tensor]:
        torch.manual_seed(iteration)
        terms = self.learner(make_batch(iteration))
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        self.optimizer.step()
        self.average.update(iteration)
        return terms

    @property
    def networks(self) -> list[nn.Module]:
        return [self.learner.model, *self.learner.training_modules]


def same(one: nn.Module, other: nn.Module) -> bool:
    return equal_tensors(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("config", [UNET, RESNET], ids=["unet", "resnet"])
def test_until_they_part_the_networks_are_one(smoke: Benchmark, config: dict[str, Any]) -> None:
    """In weights, statistics, the optimiser's moments and the average; then they are not."""
    run = Run(smoke, config)
    for iteration in range(3):
        own, *others = run.networks
        assert all(same(own, other) for other in others), iteration
        run.step(iteration)
    own, *others = run.networks
    for other in others:
        assert same(own, other)
        for ours, theirs in zip(own.parameters(), other.parameters(), strict=True):
            for key, value in run.optimizer.state[ours].items():
                assert torch.equal(value, run.optimizer.state[theirs][key]), key
    for key, value in run.average.tensors.items():
        if key.startswith("model."):
            for number in range(2):
                assert torch.equal(value, run.average.tensors[key.replace("model", f"training_modules.{number}", 1)])
    run.step(3)
    assert not any(same(one, other) for one in run.networks for other in run.networks if one is not other)


@pytest.mark.parametrize("part_at", [0.5, 0.0], ids=["before", "after"])
def test_the_first_trains_as_the_baseline_does(smoke: Benchmark, part_at: float) -> None:
    """After they part too, as the others share nothing with it: its gradient is that of its own loss."""
    ours, plain = Run(smoke, part_at=part_at), Run(smoke, name="source_only")
    for iteration in range(3):
        terms, theirs = ours.step(iteration), plain.step(iteration)
        assert (terms.keys() == theirs.keys()) == (part_at > 0)
    assert same(ours.learner.model, plain.learner.model)


def watch(run: Run) -> list[list[Tensor]]:
    """The images that each network's backbone is given from now on."""
    seen: list[list[Tensor]] = []
    for network in run.networks:
        mine: list[Tensor] = []
        network.backbone.register_forward_pre_hook(lambda _, given, mine=mine: mine.append(given[0]))
        seen.append(mine)
    return seen


def test_passes_before_and_after(smoke: Benchmark) -> None:
    run = Run(smoke)
    seen = watch(run)
    assert set(run.step(2)) == {"ce"}
    assert [len(images) for images in seen] == [1, 0, 0]
    assert set(run.step(3)) == {"ce", "ce_pixmix", "ce_bilateral"}
    assert [len(images) for images in seen] == [2, 1, 1]


def test_each_sees_its_own_change_of_the_same_crops(smoke: Benchmark) -> None:
    mixing = {"rounds": 2, "beta": 1.5, "pictures": 3}
    filtering = {"diameter": 5, "sigma": 90.0}
    run = Run(smoke, **mixing, **filtering, filtered=0.9)
    seen = watch(run)
    whole = make_batch(4, range(6))
    run.learner(whole)
    draws = [generator(5, Purpose.TRANSFORM, 4, slot).spawn(2) for slot in range(6)]
    pixmixed = changed_view(whole.images, [pair[0] for pair in draws], partial(pixmix, **mixing))
    filtered = changed_view(whole.images, [pair[1] for pair in draws], partial(bilateral, share=0.9, **filtering))
    assert torch.equal(seen[0][0], whole.images)
    assert torch.equal(seen[1][0], pixmixed)
    assert torch.equal(seen[2][0], filtered)
    assert not torch.equal(pixmixed, whole.images)
    assert not torch.equal(filtered, whole.images)
    run.learner(make_batch(4, range(2, 5)))  # as another device would
    for images in seen:
        assert torch.equal(images[1], images[0][2:5])


@pytest.mark.parametrize("config", [UNET, RESNET, MIT], ids=["unet", "resnet", "mit"])
@pytest.mark.parametrize("iteration", [0, 3], ids=["before", "after"])
def test_every_parameter_gets_a_finite_gradient(smoke: Benchmark, config: dict[str, Any], iteration: int) -> None:
    for void in (False, True):
        run = Run(smoke, config)
        total = torch.stack(list(run.learner(make_batch(iteration, void=void)).values())).sum()
        total.backward()
        assert (float(total.detach()) == 0) is void
        assert_finite_gradients(run.learner)
        sizes = [float(sum(value.grad.abs().sum() for value in network.parameters())) for network in run.networks]
        assert all((size > 0) is not void for size in sizes)


def test_half_precision_after_parting(smoke: Benchmark) -> None:
    run = Run(smoke)
    with torch.autocast("cpu", torch.bfloat16):
        terms = run.learner(make_batch(3))
    reference = Run(smoke).learner(make_batch(3))
    for key, value in terms.items():
        torch.testing.assert_close(value.float(), reference[key], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("config", [UNET, RESNET], ids=["unet", "resnet"])
def test_the_mean_of_encoders_with_the_first_decoder(smoke: Benchmark, config: dict[str, Any]) -> None:
    run = Run(smoke, config, part_at=0.0, statistics=1)
    run.step(0)
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in run.networks]
    fresh = run.method.build_model(config)
    finished = run.method.finish(run.learner.model, run.learner.training_modules, fresh_batches())
    assert finished.state_dict().keys() == fresh.state_dict().keys()
    for name, value in finished.named_parameters():
        averaged = name.startswith(("backbone.", "neck."))
        expected = sum(state[name].double() for state in before) / 3 if averaged else before[0][name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
        assert averaged or torch.equal(value, before[0][name])
    for network, state in zip(run.networks[1:], before[1:], strict=True):
        assert equal_tensors(network.state_dict(), state)
    fresh.load_state_dict(finished.state_dict())
    images = make_batch(0).images
    with torch.inference_mode():
        assert torch.equal(fresh.eval().predict(images), finished.eval().predict(images))


def test_statistics_are_those_of_fresh_batches(smoke: Benchmark) -> None:
    """Each BatchNorm ends with the means over the batches of its input's mean and unbiased variance."""
    run = Run(smoke, part_at=0.0, statistics=3)
    run.step(0)
    batches = fresh_batches()
    model = run.method.finish(run.learner.model, run.learner.training_modules, batches)
    assert next(batches).iteration == 103
    assert model.training
    twin, inputs = copy.deepcopy(model), {}
    norms = {name: layer for name, layer in twin.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    assert len(norms) > 10
    for name, layer in norms.items():
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.setdefault(name, []).append(given[0]))
    with torch.no_grad():
        for iteration in (100, 101, 102):
            twin(make_batch(iteration).images)
    for name, seen in inputs.items():
        layer = model.get_submodule(name)
        flat = [images.double().transpose(0, 1).flatten(1) for images in seen]
        mean, variance = (
            torch.stack(values).mean(0) for values in ([x.mean(1) for x in flat], [x.var(1) for x in flat])
        )
        torch.testing.assert_close(layer.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var.double(), variance, rtol=1e-4, atol=1e-6)
        assert layer.momentum == 0.1


def test_an_encoder_without_batch_norm_needs_no_batch(smoke: Benchmark) -> None:
    run = Run(smoke, MIT, part_at=0.0)
    run.step(0)
    statistics = {key: value.clone() for key, value in run.learner.model.named_buffers()}
    assert any("running_mean" in key for key in statistics)  # the head has BatchNorm
    finished = run.method.finish(run.learner.model, run.learner.training_modules, iter(()))
    assert equal_tensors(dict(finished.named_buffers()), statistics)
