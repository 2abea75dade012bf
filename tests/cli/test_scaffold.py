"""``flexseg new-method``: what it writes trains and is tidy, and what it refuses is left alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg.benchmark import Row, Run, load_benchmark, select_rows
from flexseg.cli import main
from flexseg.cli.new_method import render, write_method
from flexseg.errors import UserError
from flexseg.method import describe_options, parse_options
from flexseg.method_files import load_method, method_names

HOSTILE = ["", "1st", "my method", "my-method", "../escape", "a/b", "a.b", "x;rm -rf", "été", "{x}", "a\nb", "a\x00b"]
WORDS = ["class", "None", "lambda", "_helper", "__init__", "Idea", "on", "yes", "null", "data", "tables", "tuning"]
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True).filter(lambda name: yaml.safe_load(name) == name)


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top folder of a repository with one method and the repository's benchmarks."""
    for folder, pattern in (("methods", "dginstyle.py"), ("benchmarks", "*.yaml")):
        (tmp_path / folder).mkdir()
        for path in (root / folder).glob(pattern):
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str = "idea", title: str = "", paper: str = "", benchmark: str = "streetworld") -> Any:
    return write_method(name, title, paper, benchmark, Path("methods"), Path("benchmarks"))


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


# The name


@pytest.mark.parametrize("name", [*HOSTILE, *WORDS, "a" * 61, "dginstyle", "gap_alone", "source_only"])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(
    here: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the last three, one is a file here and two are rows of the benchmark."""
    before = everything(here)
    assert call("new-method", "--", name) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "Traceback" not in shown
    assert everything(here) == before


def test_refusals_say_what_would_do(here: Path) -> None:
    for name, message in (
        ("my method", r"is none \(how about my_method\?\)"),
        ("My-Method", r"is none \(how about my_method\?\)"),
        ("été", r"lower-case ASCII letters, digits and underscores, not 'été'$"),
        ("class", "is a keyword of Python"),
        ("on", "YAML reads 'on' as True"),
        ("dginstyle", r"methods/dginstyle\.py exists"),
        ("gap_alone", "benchmark streetworld has a row 'gap_alone' already"),
    ):
        with pytest.raises(UserError, match=message):
            write(name)
    with pytest.raises(UserError, match="no benchmark is named 'smok'"):
        write(benchmark="smok")
    with pytest.raises(UserError, match="the title is one line of printable text"):
        write(title="two\nlines")
    with pytest.raises(UserError, match="the paper is one line of printable text"):
        write(paper="\x1b[31m")


def test_a_link_is_not_written_through(here: Path) -> None:
    (here / "methods" / "idea.py").symlink_to(here / "elsewhere.py")
    with pytest.raises(UserError, match="exists"):
        write()
    assert not (here / "elsewhere.py").exists()


def test_nothing_but_the_method_is_written(here: Path) -> None:
    before = everything(here)
    write()
    assert everything(here).keys() - before.keys() == {here / "methods" / "idea.py"}
    assert before.items() <= everything(here).items()


# The method's file

TEXTS = st.text(st.characters(codec="utf-8"), max_size=200).filter(lambda text: text.strip().isprintable())


def tidy(text: str, root: Path) -> str:
    """What ruff has to say of a method's file with this text, and nothing if it is fine."""
    found = []
    for command in (["check", "--no-cache", "-q"], ["format", "--no-cache", "--diff", "-q"]):
        command = [sys.executable, "-m", "ruff", *command, "--stdin-filename", "methods/anything.py", "-"]
        ran = subprocess.run(command, cwd=root, input=text, capture_output=True, text=True, check=False)
        found.append(ran.stdout + ran.stderr if ran.returncode else "")
    return "".join(found)


@pytest.mark.parametrize(
    ("title", "paper"),
    [
        ("", ""),
        ('"""', "'''"),
        ("\\", "a\\"),
        ('Tom\'s "idea" {x} # NAME', 'He said "so"'),
        ("long " * 50, "https://example.org/" + "x" * 200),
        ("道路" * 30, "道 路 " * 60),
    ],
)
def test_the_file_is_tidy_whatever_its_texts(root: Path, title: str, paper: str) -> None:
    text = render("idea", title.strip(), paper.strip())
    assert tidy(text, root) == ""
    assert tidy(text.replace("import numpy as np\n", ""), root) != ""


@settings(max_examples=60, deadline=None)
@given(NAMES, TEXTS, TEXTS)
def test_the_file_says_what_was_given(name: str, title: str, paper: str) -> None:
    text = render(name, title.strip(), paper.strip())
    tree = ast.parse(text)
    (defined,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert defined.name not in imported
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in defined.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert (values["name"], values["title"], values["paper"]) == (name, title.strip(), paper.strip())
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("name", ["method", "tensor", "none", "true_", "exception", "option", "np", "a__b_", "x1"])
def test_names_that_look_like_others_are_fine(here: Path, name: str) -> None:
    write(name)
    method = load_method(name, here / "methods")
    assert (method.name, method.title != "") == (name, True)


def test_the_docstring_asks_for_what_a_reader_needs(here: Path) -> None:
    write(title="An idea", paper="A. Author, An idea, ICLR 2030")
    text = ast.get_docstring(ast.parse((here / "methods" / "idea.py").read_text()))
    assert text is not None
    assert text.startswith("An idea: ")
    for part in ("Paper:", "Formula", "Published:", "Here:"):
        assert part in text


def test_command_says_what_to_do_next(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("new-method", "idea", "--benchmark", "smoke", "--title", "An idea", "--paper", "A. Author") == 0
    shown = capsys.readouterr().out
    assert "methods/idea.py" in shown
    assert "No benchmark file needs an edit" in shown
    assert "a row `idea: {method: idea, title: ...}` into" in shown
    assert "snakemake --cores all --config benchmark=smoke rows=idea,dginstyle" in shown
    assert method_names(here / "methods") == ["dginstyle", "idea"]
    assert call("show", "methods") == 0
    assert "idea: An idea" in capsys.readouterr().out
    assert call("check", "smoke", "--rows", "idea,dginstyle") == 0


def test_the_file_trains_like_the_plain_baseline(here: Path, results: Path) -> None:
    """To the bit, on the smoke benchmark, by its name alone; and its option does something."""
    import safetensors.torch

    from flexseg.tasks.jobs import train_run

    write(benchmark="smoke")
    benchmark = select_rows(load_benchmark("smoke", here / "benchmarks"), rows="dginstyle,idea")
    method = load_method("idea", here / "methods")
    for key, value in describe_options(parse_options(method, {})).items():
        assert value["help"], key
        assert value["origin"] == "own"
    with pytest.raises(UserError, match="weight must be positive"):
        parse_options(method, {"weight": 0.0})
    half = Row.model_validate({"method": "idea", "weight": 0.5})
    benchmark = benchmark.model_copy(update={"rows": benchmark.rows | {"half": half}})
    weights = {}
    for row in ("dginstyle", "idea", "half"):
        train_run(Run(benchmark, row, 0, results))
        weights[row] = safetensors.torch.load_file(Run(benchmark, row, 0, results).directory.weights)
    plain = weights["dginstyle"]
    assert all(torch.equal(plain[key], weights["idea"][key]) for key in plain)
    assert not all(torch.equal(plain[key], weights["half"][key]) for key in plain)
