"""What every method file keeps to, and one clear message for each way to break the contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexseg.benchmark import Benchmark
from flexseg.engine.run import RunDirectory
from flexseg.engine.train import Job, Trainer, assemble, launch_fabric
from flexseg.errors import RunError, UserError
from flexseg.method import (
    HOOKS,
    Method,
    NoOptions,
    Setup,
    check_needs,
    describe_options,
    load_method,
    method_names,
    option,
    parse_options,
)

METHODS = Path(__file__).parents[2] / "methods"
NAMES = method_names(METHODS)
SMALL = {"dim": 16}
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def make_job(smoke: Benchmark, smoke_data: Path) -> MakeJob:
    """``make_job(name, **training)``: a job of a method on the smoke data, small and with a constant rate."""
    from flexseg.data.pool import load_pool
    from flexseg.jobs import open_index

    def make(name: str, **training: Any) -> Job:
        method = load_method(name, METHODS)
        known = {field.name for field in dataclasses.fields(method.Options)}
        options = parse_options(method, {key: value for key, value in SMALL.items() if key in known})
        indices = {domain: open_index(smoke, domain, smoke_data) for domain in method.data}
        pool = load_pool([(index, "train") for index in indices.values()])
        schedule = smoke.training.model_copy(
            update={"iterations": 100, "batch_size": 2, "warmup": 0, "power": 0.0, "crop": (32, 64)} | training
        )
        return Job(RunDirectory(smoke_data), {}, method, options, schedule, smoke.model, 0, pool, indices)

    return make


def test_the_methods_are_here() -> None:
    assert {"source_only", "dginstyle", "flexseg", "boundary_policy"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_method_says_who_it_is(name: str) -> None:
    method = load_method(name, METHODS)
    assert method.name == name
    assert method.title
    for key, value in describe_options(parse_options(method, {})).items():
        assert value["help"], f"{key} says nothing"
        assert value["value"] == value["default"], key


@pytest.mark.parametrize("name", NAMES)
def test_method_takes_a_step_with_finite_losses(name: str, make_job: MakeJob) -> None:
    job = make_job(name)
    trainer = Trainer(job, launch_fabric())
    rate, terms, total = trainer.step(0)
    assert rate == pytest.approx(job.training.learning_rate)
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


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_on_one_repeated_batch(name: str, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(make_job(name), launch_fabric())
    batch = assemble(trainer.job, trainer.method, 0, trainer.slots, torch.device("cpu"))
    import flexseg.engine.train as module

    monkeypatch.setattr(module, "assemble", lambda job, method, iteration, *_: batch._replace(iteration=iteration))
    losses = [float(trainer.step(iteration)[2].detach()) for iteration in range(30)]
    assert all(np.isfinite(losses))
    assert max(losses[-3:]) < 0.9 * max(losses[:3]), losses  # GAP joins in once its bank holds something


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str, make_job: MakeJob) -> None:
    """Otherwise data parallelism over several devices would wait for it for ever."""
    trainer = Trainer(make_job(name), launch_fabric())
    trainer.step(0)
    missing = [key for key, value in trainer.learner.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_void_is_no_error_and_keeps_the_graph(name: str, make_job: MakeJob) -> None:
    trainer = Trainer(make_job(name), launch_fabric())
    batch = assemble(trainer.job, trainer.method, 0, trainer.slots, torch.device("cpu"))
    terms = trainer.wrapped(batch._replace(labels=torch.full_like(batch.labels, 255)))
    total = torch.stack(list(terms.values())).sum()
    assert float(total.detach()) == 0
    total.backward()
    for key, value in trainer.learner.named_parameters():
        assert value.grad is not None, key
        assert torch.isfinite(value.grad).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_state_comes_back(name: str, make_job: MakeJob) -> None:
    job = make_job(name)
    trainer, other = Trainer(job, launch_fabric()), Trainer(job, launch_fabric())
    for iteration in range(3):
        trainer.step(iteration)
    state = trainer.method.state()
    other.method.load_state({key: value.copy() for key, value in state.items()})
    again = other.method.state()
    assert state.keys() == again.keys()
    for key, value in state.items():
        assert isinstance(value, np.ndarray)
        assert value.dtype == again[key].dtype
        np.testing.assert_array_equal(value, again[key])
    np.testing.assert_array_equal(trainer.method.choose(50, range(8)), other.method.choose(50, range(8)))


@pytest.mark.parametrize("name", NAMES)
def test_choosing_depends_on_the_slot_alone(name: str, make_job: MakeJob) -> None:
    trainer = Trainer(make_job(name), launch_fabric())
    together = trainer.method.choose(7, range(6))
    assert together.dtype == np.int64
    assert ((together >= 0) & (together < len(trainer.job.pool))).all()
    apart = [int(trainer.method.choose(7, [slot])[0]) for slot in (5, 0, 3, 1, 4, 2)]
    assert [apart[place] for place in (1, 3, 5, 2, 4, 0)] == together.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_finite(name: str, make_job: MakeJob) -> None:
    trainer = Trainer(make_job(name), launch_fabric())
    batch = assemble(trainer.job, trainer.method, 0, trainer.slots, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        terms = trainer.learner(batch)
    total = torch.stack(list(terms.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in trainer.learner.parameters() if p.grad is not None)
    reference = Trainer(trainer.job, launch_fabric()).learner(batch)
    for key, value in terms.items():
        torch.testing.assert_close(value.float(), reference[key].float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_evaluated_is_the_trunk(name: str, make_job: MakeJob) -> None:
    """The finished model has the names of a fresh one: it can be loaded without the method's training modules."""
    job = make_job(name)
    trainer = Trainer(job, launch_fabric())
    fresh = job.method(job.options, Setup(0, 1, np.zeros(0, np.int8))).build_model(job.model)
    assert trainer.method.finish(trainer.learner.model).state_dict().keys() == fresh.state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
def test_method_does_not_change_the_batch(name: str, make_job: MakeJob) -> None:
    trainer = Trainer(make_job(name), launch_fabric())
    batch = assemble(trainer.job, trainer.method, 0, trainer.slots, torch.device("cpu"))
    images, labels = batch.images.clone(), batch.labels.clone()
    trainer.wrapped(batch)
    trainer.method.after_step(batch)
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.labels, labels)


def test_source_only_sees_no_generated_image() -> None:
    assert load_method("source_only", METHODS).data == ("source",)
    assert load_method("dginstyle", METHODS).data == ("source", "generated")


# Options


def test_unknown_option_names_the_nearest_and_all() -> None:
    method = load_method("flexseg", METHODS)
    with pytest.raises(UserError) as error:
        parse_options(method, {"lamda_gap": 0.1})
    assert "methods/flexseg.py has no option 'lamda_gap' (did you mean 'lambda_gap'?)" in str(error.value)
    assert "momentum" in str(error.value)
    with pytest.raises(UserError, match="none"):
        parse_options(load_method("dginstyle", METHODS), {"lambda_gap": 0.1})


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"alpha": "strong"}, "alpha"),
        ({"gap": "perhaps"}, "gap"),
        ({"kernels": "3,5"}, "kernels"),
        ({"rings": "square"}, "rings"),
        ({"dim": 1.5}, "dim"),
    ],
)
def test_option_of_a_wrong_type_is_named(options: dict[str, Any], place: str) -> None:
    with pytest.raises(UserError, match=rf"methods/flexseg\.py: .*{place}"):
        parse_options(load_method("flexseg", METHODS), options)


def test_options_are_filled_in_and_turned_into_their_types() -> None:
    options = parse_options(load_method("flexseg", METHODS), {"kernels": [3, 9], "alpha": 2})
    assert options.kernels == (3, 9)
    assert options.alpha == 2.0
    assert isinstance(options.alpha, float)
    assert options.gap is True
    described = describe_options(options)
    assert described["kernels"] == {
        "value": (3, 9),
        "default": (3, 5, 7),
        "assumed": True,
        "help": described["kernels"]["help"],
    }


def test_no_options_is_an_empty_dataclass() -> None:
    assert parse_options(load_method("dginstyle", METHODS), {}) == NoOptions()


def test_option_keeps_its_default_and_what_it_says() -> None:
    @dataclasses.dataclass(frozen=True)
    class Options:
        a: int = option(3, "the a", assumed=True)

    assert describe_options(Options(5)) == {"a": {"value": 5, "default": 3, "assumed": True, "help": "the a"}}


# Files that break the contract

HEAD = "from dataclasses import dataclass\nfrom flexseg.method import Method, option\n\n\n"
GOOD = HEAD + 'class Mine(Method):\n    name = "mine"\n    title = "Mine"\n'


def load(tmp_path: Path, source: str, name: str = "mine") -> type[Method]:
    (tmp_path / f"{name}.py").write_text(source)
    return load_method(name, tmp_path)


def test_a_minimal_method_loads(tmp_path: Path) -> None:
    method = load(tmp_path, GOOD)
    assert (method.name, method.data, method.needs) == ("mine", ("source", "generated"), ())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os\n\nclass Mine(:\n    pass\n", r"mine\.py, line 3 cannot be imported: SyntaxError"),
        ("x = 1\ny = 1 / 0\n", r"mine\.py, line 2 cannot be imported: ZeroDivisionError"),
        ("import a_package_that_is_not_there\n", r"mine\.py, line 1 cannot be imported: ModuleNotFoundError"),
        ("x = 1\n", "must define one subclass of flexseg.method.Method, it defines 0"),
        ("from flexseg.method import Method\n", "it defines 0"),
        (GOOD + '\n\nclass Second(Method):\n    name = "mine"\n', "it defines 2"),
        (GOOD.replace('"mine"', '"yours"'), "the method's name is 'yours', it must be the file's: name = 'mine'"),
        (GOOD.replace('    name = "mine"\n', ""), "the method's name is ''"),
        (GOOD.replace('    title = "Mine"\n', ""), "give the method a title"),
        (
            GOOD + "\n    def loses(self, batch, output):\n        return {}\n",
            "'loses' is no hook.*did you mean 'losses'",
        ),
        (GOOD + "\n    def aftr_step(self, batch):\n        pass\n", "did you mean 'after_step'"),
        (GOOD + "\n    def zzz(self):\n        pass\n", "'zzz' is no hook.*ooks.* build_model, .*losses"),
        (GOOD + "\n    class Options:\n        a: int = 1\n", "Options must be a dataclass"),
        (GOOD + '\n    needs = ("bach_norm",)\n', "needs 'bach_norm' is unknown; known: batch_norm"),
        (GOOD + '\n    data = ("target",)\n', "data must name 'source', 'generated' or both"),
        (GOOD + "\n    data = ()\n", "data must name 'source', 'generated' or both"),
    ],
)
def test_broken_file_is_one_clear_message(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, source)


def test_helpers_of_a_methods_own_begin_with_an_underscore(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "\n    def _helper(self):\n        pass\n")
    (tmp_path / "_shared.py").write_text("x = 1\n")
    assert method_names(tmp_path) == ["mine"]


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no method is named 'flexsge' .did you mean 'flexseg'.*dginstyle"):
        load_method("flexsge", METHODS)


def test_hooks_are_those_of_the_design() -> None:
    assert set(HOOKS) == {
        "build_model",
        "build_training_modules",
        "transform",
        "choose",
        "losses",
        "after_step",
        "log",
        "state",
        "load_state",
        "finish",
    }


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).title == "Mine"
    assert load(tmp_path, GOOD.replace("Mine", "Changed")).title == "Changed"


def test_refusal_names_the_need(tmp_path: Path) -> None:
    method = load(tmp_path, GOOD + '\n    needs = ("batch_norm",)\n')
    instance = method(NoOptions(), Setup(0, 1, np.zeros(0, np.int8)))
    check_needs(instance, torch.nn.Sequential(torch.nn.BatchNorm2d(2)))
    with pytest.raises(RunError, match="mine needs a trunk with BatchNorm, which this benchmark's trunk has not"):
        check_needs(instance, torch.nn.GroupNorm(1, 2))
