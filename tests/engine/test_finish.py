"""What follows the last step: averaged weights in all modules, the method's ``finish``, and the recorded cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import Train

from flexseg.benchmark import Benchmark, Row
from flexseg.benchmark.identity import RunDirectory
from flexseg.engine.checkpoint import load_tensors
from flexseg.files import read_json

COST = ("step_flops", "inference_flops", "inference_seconds", "trained_parameters", "train_cpu_seconds")
HEAD = """
from itertools import islice
import torch
from torch import nn
from flexseg.method import Method, auxiliary_losses, weight_terms


class Mine(Method):
    name = "mine"
    title = "Mine"
"""
PROBE = """
    def build_training_modules(self, model):
        self.probe = nn.Linear(1, 1, bias=False)
        self.values = [float(self.probe.weight.detach())]
        return self.probe

    def losses(self, batch, output):
        return super().losses(batch, output) | {"probe": self.probe.weight.square().sum()}

    def after_step(self, batch):
        self.values.append(float(self.probe.weight.detach()))

    def finish(self, model, modules, batches):
        assert modules is self.probe
        average = self.values[0]
        for step, value in enumerate(self.values[1:]):
            decay = min(0.9, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * value
        assert abs(float(modules.weight) - average) < 1e-6, (float(modules.weight), average)
        assert abs(self.values[-1] - average) > 1e-4
        seen = list(islice(batches, 3))
        assert [batch.iteration for batch in seen] == [9, 10, 11]
        assert seen[0].images.shape == (2, 3, 32, 64)
        with torch.no_grad():
            model.decode_head.conv_seg.bias.fill_(7.0)
        return model
"""
TWICE = """
    def forward(self, model, batch):
        outputs = model(batch.images), model(batch.images.flip(-1))
        terms = weight_terms(self.losses(batch, outputs[0]), outputs[0]) | auxiliary_losses(outputs[0], batch.labels)
        return terms | {"mirrored": 0.5 * self.losses(batch._replace(labels=batch.labels.flip(-1)), outputs[1])["ce"]}
"""


@pytest.fixture
def train_mine(tiny: Benchmark, train: Train, tmp_path: Path) -> Callable[[str], RunDirectory]:
    """``train_mine(source)``: train a method that is written so, as the row ``row``."""

    def mine(source: str, **row: object) -> RunDirectory:
        folder = tmp_path / "methods"
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text(HEAD + source)
        rows = {"row": Row(method="mine", title="Row", **row)}
        return train("row", benchmark=tiny.model_copy(update={"rows": rows}), methods=folder)

    return mine


def test_finish_gets_averaged_modules_and_fresh_batches(train_mine: Callable[[str], RunDirectory]) -> None:
    tensors, _ = load_tensors(train_mine(PROBE).weights)
    assert (tensors["decode_head.conv_seg.bias"] == 7.0).all()


def test_a_method_may_pass_the_model_more_than_once(
    train_mine: Callable[[str], RunDirectory], undisturbed: Train
) -> None:
    twice, once = read_json(train_mine(TWICE).record), read_json(undisturbed("dginstyle").record)
    assert twice["step_flops"] == 2 * once["step_flops"]
    for key in ("inference_flops", "parameters", "trained_parameters"):
        assert twice[key] == once[key]
    assert '"loss/mirrored"' in train_mine(TWICE).log.read_text()


def test_cost_of_a_run_is_recorded(undisturbed: Train) -> None:
    plain, gap = read_json(undisturbed("dginstyle").record), read_json(undisturbed("flexseg").record)
    for key in COST:
        assert plain[key] > 0
    assert gap["step_flops"] > plain["step_flops"]
    assert gap["trained_parameters"] > plain["trained_parameters"] == plain["parameters"] == gap["parameters"]
    assert gap["inference_flops"] == plain["inference_flops"]


def test_operations_are_those_of_the_convolutions(smoke: Benchmark) -> None:
    """Against a count by hooks: 2 · kernel · channels in · channels out · places, of each convolution."""
    from torch.utils.flop_counter import FlopCounterMode

    from flexseg.models import build_segmentor

    model = build_segmentor(smoke.model).eval()
    counted = 0

    def hook(layer: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * layer.weight[0].numel() * out.numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(hook)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 64))
    assert counter.get_total_flops() == counted > 0


def test_measuring_changes_no_weight(train: Train, undisturbed: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    import flexseg.engine.train as module

    monkeypatch.setattr(module, "measure_cost", lambda *_: {"step_flops": 0})
    assert train("flexseg").weights.read_bytes() == undisturbed("flexseg").weights.read_bytes()
