"""What every method keeps to, tried on each file of ``methods/``: a new file is tested without an edit here."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import METHODS, assert_finite_gradients, equal_tensors, make_job, make_method, open_domains

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.data.images import VALID_IDS
from flexseg.engine.batches import assemble
from flexseg.engine.checkpoint import Progress, load_checkpoint, load_tensors, save_checkpoint
from flexseg.engine.train import Trainer, launch_fabric
from flexseg.errors import MissingExtra, RunError
from flexseg.files import read_json
from flexseg.method import Batch, check_needs, describe_options, parse_options
from flexseg.method_files import load_method, method_names
from flexseg.tasks.datasets import open_index

NAMES = method_names(METHODS)
SMALL = {"dim": 16}
CHOOSING = ("active_boundary", "class_wise", "disentangled")
"""Terms over few pixels, which rounding exchanges for others."""
LITTLE = {"iterations": 100, "batch_size": 2, "warmup": 0, "power": 0.0, "crop": (32, 64)}
MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def make_trainer(smoke: Benchmark, smoke_data: Path) -> MakeTrainer:
    """``make_trainer(name)``: a small run of a method on the smoke benchmark's data and trunk, at a constant rate.

    Skips the test if the method refuses that trunk.
    """
    indices = {domain: open_index(smoke, domain, smoke_data) for domain in ("source", "generated")}
    kinds = ("source",), ("generated",), ("source", "generated")
    pools = {data: open_domains(smoke, smoke_data, *data) for data in kinds}  # no file is read, as one may be broken
    schedule = smoke.training.model_copy(update=LITTLE)

    def make(name: str) -> Trainer:
        method = load_method(name, METHODS)
        known = {field.name for field in dataclasses.fields(method.Options)}
        options = {key: value for key, value in SMALL.items() if key in known}
        own = {domain: indices[domain] for domain in method.data}
        job = make_job(smoke, name, pools[method.data], options, training=schedule, indices=own)
        try:
            return Trainer(job, launch_fabric())
        except RunError as refusal:
            if not method.needs and not isinstance(refusal, MissingExtra):
                raise
            pytest.skip(str(refusal))

    return make


def first_batch(trainer: Trainer) -> Batch:
    return assemble(trainer.job, trainer.method, 0, trainer.slots)


def test_says_who_it_is(name: str) -> None:
    method = load_method(name, METHODS)
    assert method.name == name
    assert method.title
    for key, value in describe_options(parse_options(method, {})).items():
        assert value["help"], f"{key} says nothing"
        assert value["value"] == value["default"], key


def test_refuses_in_one_sentence_a_trunk_without_what_it_needs(name: str) -> None:
    method = make_method(name)
    if not method.needs:
        check_needs(method, torch.nn.Identity())
        return
    with pytest.raises(RunError, match=rf"^{name} needs [^.\n]+$"):
        check_needs(method, torch.nn.Identity())


def test_takes_a_step_with_finite_losses_and_every_gradient(name: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(name)
    rate, terms, total = trainer.step(0)
    assert rate == pytest.approx(trainer.job.training.learning_rate)
    assert terms
    assert torch.isfinite(total)
    assert total.ndim == 0
    for key, value in terms.items():
        assert isinstance(key, str)
        assert value.ndim == 0
        assert torch.isfinite(value)
    for key, number in trainer.method.log().items():
        assert "/" in key
        assert np.isfinite(number)
    # A parameter without a gradient is one that data parallelism over several devices would wait for.
    missing = [key for key, value in trainer.learner.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []


def test_loss_falls_on_one_repeated_batch(
    name: str, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flexseg.engine.train as module

    trainer = make_trainer(name)
    batch = first_batch(trainer)
    monkeypatch.setattr(module, "assemble", lambda job, method, iteration, *_: batch._replace(iteration=iteration))
    losses = [float(trainer.step(iteration)[2].detach()) for iteration in range(30)]
    assert all(np.isfinite(losses))
    # GAP joins in once its bank holds something; a noise-robust loss falls slowly, as its gradient is small where p is.
    assert max(losses[-3:]) < 0.96 * max(losses[:3]), losses


def test_a_batch_of_void_is_no_error_and_keeps_the_graph(name: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(name)
    batch = first_batch(trainer)
    terms = trainer.wrapped(batch._replace(labels=torch.full_like(batch.labels, 255)))
    total = torch.stack(list(terms.values())).sum()
    if trainer.method.learns_without_labels:
        assert np.isfinite(float(total.detach()))
    else:
        assert float(total.detach()) == 0
    total.backward()
    assert_finite_gradients(trainer.learner)


def test_goes_on_exactly_from_a_checkpoint(name: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """As a killed run does: all that later steps depend on is in the modules, the optimiser or the method's state."""
    whole, resumed, path = make_trainer(name), make_trainer(name), tmp_path / "checkpoint.safetensors"
    for iteration in range(3):
        whole.step(iteration)
    state = whole.method.state()
    save_checkpoint(path, name, Progress(3), whole.learner, whole.average.tensors, whole.optimizer, state)
    done, loaded = load_checkpoint(path, name, resumed.learner, resumed.average.tensors, resumed.optimizer)
    resumed.method.load_state(loaded)
    assert done.iteration == 3
    assert_same_state(whole, resumed)
    np.testing.assert_array_equal(whole.method.choose(50, range(8)), resumed.method.choose(50, range(8)))
    losses = [[float(trainer.step(i)[2].detach()) for i in (3, 4, 5)] for trainer in (whole, resumed)]
    assert losses[0] == losses[1]
    assert_same_state(whole, resumed)
    assert equal_tensors(whole.learner.state_dict(), resumed.learner.state_dict())
    assert equal_tensors(whole.average.tensors, resumed.average.tensors)


def assert_same_state(one: Trainer, other: Trainer) -> None:
    ours, theirs = one.method.state(), other.method.state()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert isinstance(value, np.ndarray)
        assert value.dtype == theirs[key].dtype
        np.testing.assert_array_equal(value, theirs[key])


def test_choosing_depends_on_the_slot_alone(name: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(name)
    together = trainer.method.choose(7, range(6))
    assert together.dtype == np.int64
    assert ((together >= 0) & (together < len(trainer.job.pool))).all()
    apart = [int(trainer.method.choose(7, [slot])[0]) for slot in (5, 0, 3, 1, 4, 2)]
    assert [apart[place] for place in (1, 3, 5, 2, 4, 0)] == together.tolist()


def test_batches_come_from_keyed_draws_alone(name: str, make_trainer: MakeTrainer) -> None:
    """No global stream is drawn from, the pool is left as it is, and what is trained on is an image and a label."""
    trainer = make_trainer(name)
    pool = trainer.job.pool
    before = [values.copy() for values in pool.images + pool.labels]
    batches = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (the stream that a method must not use)
        torch.manual_seed(seed)
        batches.append(first_batch(trainer))
    for one, other in zip(batches[0][1:], batches[1][1:], strict=True):
        np.testing.assert_array_equal(one, other)
    height, width = trainer.job.training.crop
    assert batches[0].images.shape == (2, 3, height, width)
    assert torch.isfinite(batches[0].images).all()
    assert batches[0].labels.shape == (2, height, width)
    assert VALID_IDS[batches[0].labels.numpy()].all()
    for old, new in zip(before, pool.images + pool.labels, strict=True):
        np.testing.assert_array_equal(old, new)


def test_half_precision_is_finite(name: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(name)
    batch = first_batch(trainer)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        terms = trainer.learner(batch)
    total = torch.stack(list(terms.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in trainer.learner.parameters() if p.grad is not None)
    torch.manual_seed(0)
    reference = make_trainer(name).learner(batch)
    for key, value in terms.items():
        apart = 0.2 if key in CHOOSING else 0.05
        torch.testing.assert_close(value.float(), reference[key].float(), rtol=apart, atol=apart)


def test_what_is_evaluated_is_the_trunk(name: str, make_trainer: MakeTrainer) -> None:
    """The finished weights go into a fresh model, without the method's training modules, which then says the same."""
    trainer = make_trainer(name)
    job = trainer.job
    trainer.step(0)
    fresh = make_method(name, dataclasses.asdict(job.options)).build_model(job.model)
    finished = trainer.method.finish(trainer.learner.model, trainer.learner.training_modules, trainer.batches(1))
    assert finished.state_dict().keys() == fresh.state_dict().keys()
    fresh.load_state_dict(finished.state_dict())
    images = torch.randn(2, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, again = finished.eval().predict(images), fresh.eval().predict(images)
    assert logits.shape == (2, 19, 48, 96)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-4)


def test_does_not_change_the_batch(name: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(name)
    batch = first_batch(trainer)
    images, labels = batch.images.clone(), batch.labels.clone()
    trainer.wrapped(batch)
    trainer.method.after_step(batch)
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.labels, labels)


def test_trains_where_there_is_no_target(
    name: str, smoke: Benchmark, smoke_data: Path, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """A whole short run, as the workflow starts it, in a folder that holds the method's own domains alone.

    What it leaves is what is evaluated.
    """
    from flexseg.tasks.datasets import domain_folder
    from flexseg.tasks.jobs import load_trained, train_run

    make_trainer(name)  # skips what refuses the trunk
    domains: dict[str, Any] = {"source": smoke.source, "generated": smoke.generated}
    own = {domains[part] for part in load_method(name, METHODS).data}
    for domain in own:
        folder = domain_folder(tmp_path, smoke, domain)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(domain_folder(smoke_data, smoke, domain).resolve())
    training = smoke.training.model_copy(update=LITTLE | {"iterations": 2})
    benchmark = smoke.model_copy(update={"training": training, "rows": {"row": Row(method=name, title="Row")}})
    run = Run(benchmark, "row", 0, tmp_path)
    train_run(run)
    assert set(read_json(run.directory.record)["data"]) == own
    model = load_trained(run)
    assert equal_tensors(model.state_dict(), load_tensors(run.directory.weights)[0])
