"""The loader of method files and their options: one clear message for each way to break the contract."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import METHODS

from flexseg.errors import RunError, UserError
from flexseg.method import Method, NoOptions, Setup, check_needs, describe_options, option, parse_options
from flexseg.method_files import ends_the_process, load_method, method_names
from flexseg.shows import Curves, describe_shows, read_shows


def test_the_methods_are_here() -> None:
    assert {"source_only", "dginstyle", "flexseg", "boundary_policy"} <= set(method_names(METHODS))


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
        "origin": "assumed",
        "help": described["kernels"]["help"],
    }


def test_no_options_is_an_empty_dataclass() -> None:
    assert parse_options(load_method("dginstyle", METHODS), {}) == NoOptions()


def test_option_keeps_its_default_and_what_it_says() -> None:
    @dataclasses.dataclass(frozen=True)
    class Options:
        a: int = option(3, "the a", origin="assumed")

    assert describe_options(Options(5)) == {"a": {"value": 5, "default": 3, "origin": "assumed", "help": "the a"}}


# Files that break the contract

HEAD = "from dataclasses import dataclass\nfrom flexseg.method import Method, option\n\n\n"
GOOD = HEAD + 'class Mine(Method):\n    name = "mine"\n    title = "Mine"\n'


def load(tmp_path: Path, source: str, name: str = "mine") -> type[Method]:
    (tmp_path / f"{name}.py").write_text(source)
    return load_method(name, tmp_path)


SHOWS = "from flexseg.shows import Curves, Maps, Vectors\n" + GOOD + "\n    shows = (%s)\n"


def test_a_minimal_method_loads(tmp_path: Path) -> None:
    method = load(tmp_path, GOOD)
    assert (method.name, method.data, method.needs) == ("mine", ("source", "generated"), ())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os\n\nclass Mine(:\n    pass\n", r"mine\.py, line 3 cannot be imported: SyntaxError"),
        ("x = 1\ny = 1 / 0\n", r"mine\.py, line 2 cannot be imported: ZeroDivisionError"),
        ("import a_package_that_is_not_there\n", r"mine\.py, line 1 cannot be imported: ModuleNotFoundError"),
        ("import sys\n\nsys.exit(0)\n", r"mine\.py, line 3 cannot be imported: SystemExit"),
        ("x = 1\n", "must define one subclass of flexseg.method.Method, it defines 0"),
        ("from flexseg.method import Method\n", "it defines 0"),
        (GOOD + '\n\nclass Second(Method):\n    name = "mine"\n', "it defines 2"),
        (GOOD.replace('"mine"', '"yours"'), "the method's name is 'yours', it must be the file's: name = 'mine'"),
        (GOOD.replace('    name = "mine"\n', ""), "the method's name is ''"),
        (GOOD.replace('    title = "Mine"\n', ""), "give the method a title"),
        (
            GOOD + "\n    def loses(self, batch, output):\n        return {}\n",
            "'loses' is not a hook.*did you mean 'losses'",
        ),
        (GOOD + "\n    def aftr_step(self, batch):\n        pass\n", "did you mean 'after_step'"),
        (GOOD + "\n    def zzz(self):\n        pass\n", "'zzz' is not a hook.*ooks.* build_model, .*losses"),
        (GOOD + "\n    class Options:\n        a: int = 1\n", "Options must be a dataclass"),
        (
            "from __future__ import annotations\n"
            + GOOD
            + "\n    @dataclass\n    class Options:\n        a: Flot = 1\n",
            "a field of Options has a type that the file does not define",
        ),
        (GOOD + '\n    needs = ("bach_norm",)\n', "needs 'bach_norm' is unknown; known: batch_norm"),
        (GOOD + '\n    data = ("target",)\n', "data must name 'source', 'generated' or both"),
        (GOOD + "\n    shows = []\n", r"shows must be a tuple of Curves, Maps and Vectors, not \[\]"),
        (GOOD + "\n    shows = ('loss',)\n", "shows may hold Curves, Maps and Vectors of flexseg.shows, not 'loss'"),
        (SHOWS % "Curves('A b', 'H', {'a': 'b'}),", "shows has a figure named 'A b': use small letters"),
        (SHOWS % "Curves('a', '', {'a': 'b'}),", "shows 'a' needs a heading"),
        (SHOWS % "Curves('a', 'H', {}),", "shows 'a': panels must map names to labels, not {}"),
        (SHOWS % "Maps('a', 'H', {'entropy': 1}),", "shows 'a': units must map names to labels"),
        (SHOWS % "Maps('a', 'H', {'e': ''}, 1),", "shows 'a': its caption must be text, not 1"),
        (SHOWS % "Vectors('a', 'H', '', 'n'),", "shows 'a' must name the observed arrays"),
        (SHOWS % "Vectors('a', 'H', 'v', 'n', 'xy'),", "shows 'a': groups must be a tuple of names, not 'xy'"),
        (SHOWS % "Curves('a', 'H', {'a': 'b'}), Maps('a', 'H', {'e': ''}),", "shows has two figures named 'a'"),
        (GOOD + "\n    data = ()\n", "data must name 'source', 'generated' or both"),
    ],
)
def test_broken_file_is_one_clear_message(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, source)


def test_options_are_checked_after_another_folders_methods_were_loaded(tmp_path: Path) -> None:
    """Their types are looked up in a module that the other folder's has replaced."""
    method = load_method("noise_robust")
    load(tmp_path, GOOD)
    assert parse_options(method, {"kind": "symmetric"}).kind == "symmetric"


def test_helpers_of_a_methods_own_begin_with_an_underscore(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "\n    def _helper(self):\n        pass\n")
    (tmp_path / "_shared.py").write_text("x = 1\n")
    assert method_names(tmp_path) == ["mine"]


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no method is named 'flexsge' .did you mean 'flexseg'.*dginstyle"):
        load_method("flexsge", METHODS)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).title == "Mine"
    assert load(tmp_path, GOOD.replace("Mine", "Changed")).title == "Changed"


def test_refusal_names_the_need(tmp_path: Path) -> None:
    method = load(tmp_path, GOOD + '\n    needs = ("batch_norm",)\n')
    instance = method(NoOptions(), Setup(0, 1, np.zeros(0, np.int8)))
    check_needs(instance, torch.nn.Sequential(torch.nn.BatchNorm2d(2)))
    with pytest.raises(
        RunError, match="mine needs a backbone with BatchNorm, which this benchmark's GroupNorm does not have"
    ):
        check_needs(instance, torch.nn.GroupNorm(1, 2))


# What a method shows


@pytest.mark.parametrize("name", method_names(METHODS))
def test_declared_figures_are_the_same_when_a_run_has_recorded_them(name: str) -> None:
    shows = load_method(name, METHODS).shows
    assert read_shows(json.loads(json.dumps(describe_shows(shows)))) == shows


def test_damaged_declarations_are_left_out() -> None:
    good = Curves("a", "H", {"x/y": "label"})
    described = [*describe_shows([good]), {"kind": "films", "name": "b"}, {"kind": "curves"}, 7,
                 {"kind": "maps", "name": "../b", "heading": "H", "units": {"e": ""}}]  # fmt: skip
    assert read_shows(described) == (good,)
    assert read_shows(None) == ()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (GOOD, ""),
        ("x = 1 / 0\n", ""),
        ("import sys\n\nsys.exit(0)\n", ""),
        ("import os\n\nos._exit(0)\n", r"mine\.py ends the process that imports it \(exit code 0\)"),
        ("import os\n\nos.kill(os.getpid(), 11)\n", r"mine\.py ends the process that imports it \(signal 11\)"),
    ],
)
def test_a_file_that_ends_its_process_is_found_out(source: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    assert re.fullmatch(f".*{found}" if found else "", ends_the_process("mine", tmp_path))


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "x;y", "/tmp/x"])
def test_a_method_is_a_file_in_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "outside.py").write_text(GOOD.replace("mine", "outside"))
    with pytest.raises(UserError, match="no method is named"):
        load_method(name, tmp_path / "methods")
