"""Digests of Python files see what the code does, not what it looks like; and what it imports from beside it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from builders import METHODS

from flexseg.benchmark import Benchmark, Run
from flexseg.errors import UserError
from flexseg.method_files import load_method
from flexseg.sources import files_digest, source_digest, source_files

CODE = '''
"""What it is."""
from flexseg.method import Method


class Mine(Method):
    """A class."""

    name = "mine"
    title = "Mine"

    def losses(self, batch, output):
        """What it does."""
        # why
        return {"ce": output.logits.mean() * 2}
'''


def digest(tmp_path: Path, code: str) -> str:
    path = tmp_path / "file.py"
    path.unlink(missing_ok=True)
    path.write_text(code)
    return source_digest(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What it is."""', '"""Something else."""'),
        ('"""What it is."""', ""),
        ('        """What it does."""\n', ""),
        ("# why", "# because"),
        ("* 2}", "*    2}"),
        ('{"ce": output', "{\n  'ce':\n  output"),
    ],
)
def test_looks_do_not_count(tmp_path: Path, old: str, new: str) -> None:
    assert old in CODE
    assert digest(tmp_path, CODE) == digest(tmp_path, CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("* 2}", "* 2.0}"),
        ("* 2}", "* -2}"),
        ('"ce"', '"ce "'),
        ("mean()", "mean(0)"),
        ('title = "Mine"', 'title = "Ours"'),
        ("class Mine(Method)", "class Mine(object)"),
        ("        # why\n", "        pass\n"),
    ],
)
def test_what_the_code_does_counts(tmp_path: Path, old: str, new: str) -> None:
    assert old in CODE
    assert digest(tmp_path, CODE) != digest(tmp_path, CODE.replace(old, new))


def test_a_file_that_is_no_python_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    assert digest(tmp_path, "class (:\n# a\n") != digest(tmp_path, "class (:\n# b\n")
    assert source_digest(tmp_path / "none.py") == "missing"


def test_equal_trees_are_told_apart_by_their_shape(tmp_path: Path) -> None:
    """The same nodes in another nesting are another program."""
    assert digest(tmp_path, "if a:\n    b\n    c\n") != digest(tmp_path, "if a:\n    b\nc\n")
    assert digest(tmp_path, "f(a, b=c)") != digest(tmp_path, "f(a, c)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of methods in which ``mine`` uses two helpers, one through the other, and builds on ``other``."""
    body = "    name = {0!r}\n    title = {0!r}\n    factor = {1}\n"
    files = {
        "_one": "from ._two import TWO\n\nONE = TWO - 1\n",
        "_two": "TWO = 2\n",
        "_unused": "raise RuntimeError\n",
        "other": "from flexseg.method import Method\n\n\nclass Other(Method):\n" + body.format("other", 1),
        "mine": textwrap.dedent(
            """
            from flexseg_methods.other import Other

            from . import _one


            class Mine(Other):
                name = "mine"
                title = "Mine"
                factor = _one.ONE
            """
        ),
    }
    home = tmp_path / "methods"
    home.mkdir()
    for name, text in files.items():
        (home / f"{name}.py").write_text(text)
    return home


def test_methods_share_helpers_and_build_on_each_other(folder: Path) -> None:
    mine = load_method("mine", folder)
    assert (mine.factor, mine.__mro__[1].__name__) == (1, "Other")  # type: ignore[attr-defined]
    assert [path.name for path in source_files(folder / "mine.py")] == ["mine.py", "_one.py", "_two.py", "other.py"]


def test_a_changed_helper_changes_the_method_and_its_runs(folder: Path, smoke: Benchmark) -> None:
    row = smoke.rows["dginstyle"].model_copy(update={"method": "mine"})
    benchmark = smoke.model_copy(update={"rows": {"mine": row}}).with_methods(folder)
    before = Run(benchmark, "mine", 0).fingerprint
    (folder / "_unused.py").write_text("raise ValueError  # another file\n")
    (folder / "_two.py").write_text("TWO = 2  # the same\n")
    assert Run(benchmark, "mine", 0).fingerprint == before
    (folder / "_two.py").write_text("TWO = 20\n")
    assert Run(benchmark, "mine", 0).fingerprint != before
    assert load_method("mine", folder).factor == 19  # type: ignore[attr-defined]


def test_a_file_that_did_not_change_is_not_executed_twice(folder: Path) -> None:
    (folder / "other.py").write_text((folder / "other.py").read_text() + "\n\nprint('executed')\n")
    first = load_method("other", folder)
    assert load_method("other", folder) is first
    assert load_method("dginstyle", METHODS).name == "dginstyle"
    again = load_method("other", folder)
    assert again is not first, "another folder came between"


def test_a_broken_helper_is_named(folder: Path) -> None:
    (folder / "_two.py").write_text("TWO = 2\nTHREE = TWO / 0\n")
    with pytest.raises(UserError, match=r"_two.py, line 2, which mine.py imports, cannot be imported: ZeroDivision"):
        load_method("mine", folder)
    (folder / "_two.py").write_text("TWO = (\n")
    with pytest.raises(UserError, match=r"_two.py, line 1, which mine.py imports, cannot be imported: SyntaxError"):
        load_method("mine", folder)


def test_one_file_has_the_digest_of_that_file(folder: Path) -> None:
    assert files_digest([folder / "other.py"]) == source_digest(folder / "other.py")
    assert files_digest(source_files(folder / "mine.py")) != source_digest(folder / "mine.py")
