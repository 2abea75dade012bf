"""One method on top of another: whose hooks are called, whose options are read, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import METHODS, assert_finite_gradients, make_batch, unet

from flexseg.benchmark import Benchmark, Row
from flexseg.composition import OWN
from flexseg.errors import RunError, UserError
from flexseg.method import Method, Setup
from flexseg.method_files import load_method, load_row, method_names

HOSTS = ("robustnet", "shade", "switchable_whitening", "ibn_net", "wildnet", "blindnet", "mrfp", "revt", "pasta")
FAST = {"dim": 8, "max_pixels": 64}


def compose(on: str, **options: object) -> tuple[Method, torch.nn.Module, torch.nn.Module | None]:
    """FLEX-Seg on another method, with its model and training modules, on a UNet."""
    method, chosen = load_row(Row(method="flexseg", base=on, **FAST | options), METHODS)
    made = method(chosen, Setup(0, 10, np.zeros(6, np.int8)))
    torch.manual_seed(0)
    model = made.build_model(unet())
    return made, model, made.build_training_modules(model)


@pytest.mark.parametrize("on", HOSTS)
def test_flexseg_on_another_method(on: str) -> None:
    """The loss of the one, the terms and the network of the other; hardness sees every image."""
    made, model, modules = compose(on)
    batch = make_batch(3, iteration=1)._replace(indices=np.array([4, 0, 2]))
    terms = made.forward(model, batch)
    assert {"ube", "gap"} <= terms.keys()
    assert "ce" not in terms, "the cross entropy of the method below is replaced"
    torch.stack(list(terms.values())).sum().backward()
    assert_finite_gradients(model)
    assert modules is not None
    made.after_step(batch)
    assert made.log()["has/threshold"] < 1
    seen = made.state()["top.visits"]
    assert seen.tolist() == [1, 0, 1, 0, 1, 0]


def test_own_terms_of_the_method_below_stay() -> None:
    made, model, _ = compose("shade")
    below = load_method("shade", METHODS)
    alone = below(below.Options(), Setup(0, 10, np.zeros(6, np.int8)))
    torch.manual_seed(0)
    plain = alone.build_model(unet())
    alone.build_training_modules(plain)
    batch = make_batch(2)
    values = []
    for method, network in ((made, model), (alone, plain)):
        torch.manual_seed(1)
        values.append(method.forward(network, batch)["style_consistency"])
    torch.testing.assert_close(*values)


def test_options_of_both_are_checked() -> None:
    method, options = load_row(Row(method="flexseg", base="shade", gap=False, shade_weight=3.0), METHODS)
    assert (options.gap, options.shade_weight, options.shade_bases) == (False, 3.0, 64)
    made = method(options, Setup(0, 10, np.zeros(6, np.int8)))
    assert made._below.options.weight == 3.0
    assert made._top.options.gap is False
    for wrong, message in (
        ({"shade_weight": -1.0}, "weight must not be negative"),
        ({"shade_wieght": 1.0}, "did you mean 'shade_weight'"),
        ({"weight": 1.0}, "no option 'weight'"),
        ({"lambda_gap": "much"}, "lambda_gap"),
    ):
        with pytest.raises(UserError, match=message):
            load_row(Row(method="flexseg", base="shade", **wrong), METHODS)


@pytest.mark.parametrize("top", method_names(METHODS))
def test_only_a_method_that_changes_the_loss_can_stand_on_others(top: str) -> None:
    try:
        method = load_method(top, METHODS)
    except UserError as error:  # of an optional package
        pytest.skip(str(error))
    changes = [hook for hook in OWN if hook in vars(method)]
    if changes:
        with pytest.raises(UserError, match=rf"{top}\.py cannot stand on pasta: its {changes[0]}\(\)"):
            load_row(Row(method=top, base="pasta"), METHODS)
    else:
        assert load_row(Row(method=top, base="pasta"), METHODS)[0].title == f"{method.title} on PASTA"


def test_a_method_that_asks_for_no_loss_is_no_ground(tmp_path: Path) -> None:
    for name in ("flexseg", "mine"):
        (tmp_path / f"{name}.py").write_text((METHODS / "flexseg.py").read_text())
    (tmp_path / "mine.py").write_text(
        "from flexseg.method import Method, cross_entropy\n\n\nclass Mine(Method):\n"
        '    name = "mine"\n    title = "Mine"\n\n    def forward(self, model, batch):\n'
        '        return {"ce": cross_entropy(model(batch.images).logits, batch.labels)}\n'
    )
    method, options = load_row(Row(method="flexseg", base="mine", **FAST), tmp_path)
    made = method(options, Setup(0, 10, np.zeros(6, np.int8)))
    model = made.build_model(unet())
    made.build_training_modules(model)
    with pytest.raises(RunError, match=r"mine\.py does not ask supervise\(\)"):
        made.forward(model, make_batch())


def test_state_goes_back_to_its_owner() -> None:
    first, model, _ = compose("pasta")
    batch = make_batch(2)
    first.forward(model, batch)
    first.after_step(batch)
    second, *_ = compose("pasta")
    second.load_state(first.state())
    assert {name: value.tobytes() for name, value in second.state().items()} == {
        name: value.tobytes() for name, value in first.state().items()
    }
    assert second.looks_back
    assert second.choose(5, range(4)).tolist() == first.choose(5, range(4)).tolist()


def test_every_hook_is_passed_on() -> None:
    method, _ = load_row(Row(method="flexseg", base="pasta"), METHODS)
    passed = {name for name, value in vars(method).items() if inspect.isfunction(value) or isinstance(value, property)}
    hooks = {name for name, value in vars(Method).items() if inspect.isfunction(value) or isinstance(value, property)}
    own = {"__init__", "_supervise", "supervise", "losses"}
    assert {name for name in hooks if not name.startswith("_")} - own == passed - own


def test_a_row_on_another_method_is_another_run(smoke: Benchmark) -> None:
    rows = {
        "plain": Row(method="flexseg"),
        "on_shade": Row(extends="plain", base="shade"),
        "on_pasta": Row(extends="plain", base="pasta"),
    }
    benchmark = smoke.model_copy(update={"rows": smoke.rows | rows})
    definitions = [benchmark.run_definition(name, 0) for name in rows]
    assert "base" not in definitions[0]
    assert [d["base"] for d in definitions[1:]] == ["shade", "pasta"]
    assert len({d["base_digest"] for d in definitions[1:]}) == 2
    assert [path.name for path in benchmark.method_files("on_shade")] == ["flexseg.py", "shade.py"]
    assert dataclasses.fields(load_row(benchmark.row("on_shade"), METHODS)[1])[-1].name == "shade_remembered"
