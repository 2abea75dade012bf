"""``flexseg new-method``: a starting file for a method, filled in from ``template.py.txt``.

The file trains as it is, like the plain baseline, so that every edit can be tried at once. It needs no row in a
benchmark file: where rows are selected, the name of a method file means that method with its defaults.
"""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
import unicodedata
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from flexseg.benchmark import Benchmark, load_benchmark
from flexseg.benchmark.schema import FOLDERS
from flexseg.cli.folders import BENCHMARKS, DEFAULT, METHODS
from flexseg.errors import UserError
from flexseg.files import replacing
from flexseg.yaml_files import parse_yaml

TEMPLATE = Path(__file__).with_name("template.py.txt")
"""Plain training, with an example option and the most used hooks."""


def write_method(name: str, title: str, paper: str, benchmark: str, methods: Path, benchmarks: Path) -> Path:
    """Write ``methods/<name>.py``, which trains as it is.

    Args:
        title: of the method in tables; by default made from the name. paper: authors, title, venue; may be empty.
        benchmark: the one that it will be tried on, none of whose rows may have this name.

    Raises:
        UserError: the name cannot be a method's or is taken, the title or the paper is not one line of text, or the
            benchmark cannot be read. Nothing is written then.
    """
    _check_name(name)
    title, paper = title.strip() or name.replace("_", " ").capitalize(), paper.strip()
    for what, text in (("title", title), ("paper", paper)):
        if not text.isprintable():
            raise UserError(f"the {what} is one line of printable text, not {text!r}")
    method = methods / f"{name}.py"
    if method.exists() or method.is_symlink():
        raise UserError(f"{method} exists: choose another name, or edit that file")
    if not methods.is_dir():
        raise UserError(f"{methods} is no folder: call this in the top folder of the repository")
    if name in load_benchmark(benchmark, benchmarks).rows:
        raise UserError(f"benchmark {benchmark} has a row {name!r} already: choose another name")
    with replacing(method) as temporary:
        temporary.write_text(render(name, title, paper), encoding="utf-8")
    return method


def describe_next_steps(method: Path, benchmark: Benchmark) -> str:
    """What to do with the file, to be printed."""
    name, reference = method.stem, benchmark.reference
    config = "" if benchmark.name == "streetworld" else f"benchmark={benchmark.name} "
    steps = (
        ("flexseg show methods", "can it be read?"),
        (f"python -m pytest tests/methods/test_every_method.py -k {name} -q", "does it fulfil the contract?"),
        (f"snakemake --cores all --config benchmark=smoke rows={name},{reference}", "does it run? (a minute)"),
        (f"snakemake --cores all --config {config}rows={name},{reference}", "train, evaluate and tabulate it"),
    )
    width = max(len(command) for command, _ in steps)
    return "\n".join(
        [
            f"{method}: the method; it trains like the baseline until you edit it",
            "",
            "Fill in the docstring and change what differs, then",
            *(f"  {command:{width}}  # {why}" for command, why in steps),
            f"No benchmark file needs an edit: `rows={name}` takes the method with its defaults. To set options, or",
            f"to have it in the tables of a study, write a row `{name}: {{method: {name}, title: ...}}` into",
            f"benchmarks/{benchmark.name}.yaml and name it in a list under `studies`.",
        ]
    )


def _check_name(name: str) -> None:
    nearest = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    usable = name.isascii() and nearest != name and re.fullmatch(r"[a-z]\w*", nearest, re.ASCII)
    hint = f" (how about {nearest}?)" if usable else ""
    if not name.isidentifier():
        raise UserError(f"a method's name is a Python identifier, as its file is a module: {name!r} is none{hint}")
    if keyword.iskeyword(name):
        raise UserError(f"{name!r} is a keyword of Python: choose another name")
    if name.startswith("_"):
        raise UserError(f"files that begin with an underscore are helpers, not methods: {name!r}{hint}")
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"a method's name has lower-case ASCII letters, digits and underscores, not {name!r}{hint}")
    if len(name) > 60:
        raise UserError(f"a method's name has at most 60 characters, {name!r} has {len(name)}")
    if parse_yaml(name) != name:
        raise UserError(f"YAML reads {name!r} as {parse_yaml(name)}: choose another name")
    if name in FOLDERS:
        raise UserError(f"{name!r} is the name of a folder of the suite: choose another name")


def render(name: str, title: str, paper: str) -> str:
    """The text of a method's starting file."""
    template = TEMPLATE.read_text(encoding="utf-8")
    class_name = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    # The class must not shadow what the template imports.
    if keyword.iskeyword(class_name) or hasattr(builtins, class_name) or re.search(rf"\b{class_name}\b", template):
        class_name += "Method"
    plain = title.isascii() and not set(title) & set("\"'\\") and len(title) <= 70
    return Template(template).substitute(
        heading=title if plain else name,
        class_name=class_name,
        name=name,
        title=_write_literal("title", title),
        paper=_write_literal("paper", paper),
    )


def _write_literal(attribute: str, text: str) -> str:
    """``text`` as the formatter writes it: in parentheses and pieces if it is longer than a line."""
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in text)
    if len(f"    {attribute} = {_quote(text)}") * (1 + wide) <= 120:
        return _quote(text)
    parts = textwrap.wrap(text, 50 if wide else 100, drop_whitespace=False, break_on_hyphens=False)
    return "\n".join(["(", *(f"        {_quote(part)}" for part in parts), "    )"])


def _quote(text: str) -> str:
    mark = "'" if text.count('"') > text.count("'") else '"'
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The file's name, e.g. my_method.")],
    title: Annotated[str, typer.Option(help="What the tables call it.")] = "",
    paper: Annotated[str, typer.Option(help="Authors, title, venue.")] = "",
    benchmark: Annotated[str, typer.Option(help="The benchmark to try it on.")] = DEFAULT,
) -> None:
    """Write methods/NAME.py, a method that trains like the baseline until you edit it."""
    written = write_method(name, title, paper, benchmark, METHODS, BENCHMARKS)
    print(describe_next_steps(written, load_benchmark(benchmark, BENCHMARKS)))
