"""How the suite and its methods are cited: one source, and entries that BibTeX reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from flexseg import __version__, citation
from flexseg.method_files import load_method, method_names
from flexseg.sources import paper_of

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "methods"


def test_there_is_one_source() -> None:
    """The file that code hosts read, which goes into installed copies too."""
    assert citation.FILE.resolve() == ROOT / "CITATION.cff"
    assert '"CITATION.cff",' in (ROOT / "setup.py").read_text()
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    work = citation.suite()
    assert work.fields["title"] == content["title"]
    assert __version__ in work.text
    assert f"{{{__version__}}}" in work.bibtex


def test_the_paper_of_the_readme_is_cited_as_there() -> None:
    (entry,) = re.findall(r"```bibtex\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    wanted = {name: value for name, value in re.findall(r"(\w+)\s*= \{(.*)\},?\n", entry) if name != "author"}
    (work,) = citation.cite_methods([paper_of(METHODS / "flexseg.py")])
    assert {name: work.fields[name] for name in wanted} == wanted
    assert citation.cite_methods([paper_of(METHODS / "boundary_policy.py")]) == [work]


@pytest.mark.parametrize("name", method_names(METHODS))
def test_every_paper_is_found_without_importing_its_method(name: str) -> None:
    paper = paper_of(METHODS / f"{name}.py")
    assert paper == load_method(name, METHODS).paper
    for work in citation.cite_methods([paper]):
        assert work.kind != "misc", "its authors, title and year were not understood"
        assert re.fullmatch(r"@\w+\{[a-z0-9]+,\n(  \w+ += \{.*\},\n)+\}", work.bibtex)


def test_entries_are_not_guessed_and_come_once() -> None:
    works = citation.cite_methods(
        [
            "Termöhlen et al., A & B: 50 % of {x}_y, ICCV-W 2023; my own idea",
            "Termöhlen et al., A & B: 50 % of {x}_y, ICCV-W 2023",
            "",
        ]
    )
    assert [(work.key, work.kind) for work in works] == [("termohlen2023", "inproceedings"), ("myownidea", "misc")]
    assert r"title     = {{A \& B: 50 \% of x\_y}}," in works[0].bibtex
    assert "author    = {Termöhlen and others}," in works[0].bibtex
    assert works[1].fields == {"note": "my own idea"}


def test_a_file_without_a_paper_has_none(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    assert paper_of(path) == ""
    for text in ("class X:\n    paper = f'{1}'\n", "def broken(:", "paper = 'outside'\n", "class X:\n    pass\n"):
        path.write_text(text)
        assert paper_of(path) == ""
