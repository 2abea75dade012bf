"""``flexseg new-method``: a starting file for a method, and its row in a benchmark file.

The file trains as it is, like the plain baseline, so that every edit can be tried at once. The row is inserted as a
line of text: a YAML file that is read and written again would lose its comments and its layout.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import textwrap
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flexseg.benchmark import Benchmark, load_benchmark
from flexseg.benchmark.schema import FOLDERS
from flexseg.errors import UserError
from flexseg.files import replacing

TEMPLATE = '''\
"""HEADING: say in one sentence what it changes.

TODO: what a reader must know without opening another source. `flexseg show methods` and the reports show the rest.

Paper: authors, title, venue, arXiv number. Say whether this was written from the formula alone.

Formula, with every symbol that the options name:

    L = w · L_CE,   w = 1

Published: the defaults, and on what they were chosen (trunk, size of the crops, iterations).

Here: what is scaled down or substituted, and why; what the paper leaves open and how it was decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from flexseg.method import Batch, Method, cross_entropy, option
from flexseg.models import Output


class CLASS(Method):
    name = "NAME"
    title = TITLE
    paper = PAPER
    data = ("source", "generated")  # or one of them
    # needs = ("batch_norm",)  # what the backbone must have; where it has not, the row is shown as refused

    @dataclass(frozen=True)
    class Options:
        # Every knob: its default, what it does, and where the default comes from: "published" (if nothing is said),
        # "assumed" (the paper leaves it open), "scaled" (to this suite's small images and trunk) or "own".
        weight: float = option(1.0, "w, the weight of the cross entropy (an example)", origin="own")

        def __post_init__(self) -> None:
            if self.weight <= 0:
                raise ValueError(f"weight must be positive, not {self.weight}")

    # What follows does what plain training does. Keep the hooks that differ and delete the others.

    def transform(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment one crop: (H, W, 3) uint8 and (H, W) uint8 trainIds. Draw from `rng` and from nothing else."""
        return image, label

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The terms whose sum is minimised. `output.features` are the decoder's, `batch.labels` are 255 where void."""
        return {"ce": self.options.weight * cross_entropy(output.logits, batch.labels)}

    # The other hooks, of which `methods/README.md` says when to use them and `flexseg/method.py` what they are given:
    #
    # def build_model(self, config): exchange parts of the model
    # def build_training_modules(self, model): what is trained with the model but not evaluated (a projection head)
    # def choose(self, iteration, slots): which training images a batch holds
    # def forward(self, model, batch): all loss terms, where one pass of the model is not enough
    # def after_step(self, batch), def state(self), def load_state(self, state): what is kept between steps
    # def finish(self, model, modules, batches): the model that is evaluated
    # def log(self), def observe(self, model, images, labels): numbers and pictures for the reports
'''


@dataclass(frozen=True)
class Scaffold:
    """What was written: the method's file, the benchmark's file and the line that was inserted into it."""

    method: Path
    benchmark: Path
    row: str


def new_method(name: str, title: str, paper: str, benchmark: str, methods: Path, benchmarks: Path) -> Scaffold:
    """Write ``methods/<name>.py``, which trains as it is, and a row for it at the end of the benchmark's rows.

    Args:
        title: what the tables call the method; empty takes the name. paper: authors, title, venue; may be empty.
        benchmark: a file in ``benchmarks``, without its ending.

    Raises:
        UserError: the name cannot be a method's or is taken, the title or the paper is not one line of text, or the
            benchmark cannot be read or its rows are not written one below the other. Nothing is written then.
    """
    _check_name(name)
    title, paper = title.strip() or name.replace("_", " ").capitalize(), paper.strip()
    for what, text in (("title", title), ("paper", paper)):
        if not text.isprintable():
            raise UserError(f"the {what} is one line of printable text, not {text!r}")
    method, file = methods / f"{name}.py", benchmarks / f"{benchmark}.yaml"
    if method.exists() or method.is_symlink():
        raise UserError(f"{method} exists: choose another name, or edit that file")
    if not methods.is_dir():
        raise UserError(f"{methods} is no folder: call this in the top folder of the repository")
    if name in load_benchmark(benchmark, benchmarks).rows:
        raise UserError(f"benchmark {benchmark} has a row {name!r} already: choose another name")
    row = _row(name, title)
    text = _with_row(file, name, row)
    with replacing(method) as temporary:
        temporary.write_text(render(name, title, paper), encoding="utf-8")
    try:
        with replacing(file.resolve()) as temporary:
            temporary.write_bytes(text.encode())
    except BaseException:
        method.unlink()
        raise
    return Scaffold(method, file, row)


def next_steps(written: Scaffold, reference: str) -> str:
    """What to do with what was written, to be printed. ``reference`` is the row that the method is compared with."""
    name = written.method.stem
    config = "" if written.benchmark.stem == "streetworld" else f"benchmark={written.benchmark.stem} "
    steps = (
        ("flexseg show methods", "is it read without complaint?"),
        (f"python -m pytest tests/methods/test_every_method.py -k {name} -q", "does it keep the contract?"),
        (f"snakemake --cores all --config benchmark=smoke rows={name},{reference}", "does it run? (a minute)"),
        (f"snakemake --cores all --config {config}rows={name},{reference}", "train, evaluate and tabulate it"),
    )
    width = max(len(command) for command, _ in steps)
    return "\n".join(
        [
            f"{written.method}: the method; it trains like the baseline until you edit it",
            f"{written.benchmark}: its row, {written.row}",
            "",
            "Fill in the docstring and change what differs, then",
            *(f"  {command:{width}}  # {why}" for command, why in steps),
            f"To have it in the tables of a study, name it in a list under `studies` in {written.benchmark}.",
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
        raise UserError(f"a method's name is of lower-case ASCII letters, digits and underscores, not {name!r}{hint}")
    if len(name) > 60:
        raise UserError(f"a method's name has at most 60 characters, {name!r} has {len(name)}")
    if yaml.safe_load(name) != name:
        raise UserError(f"YAML reads {name!r} as {yaml.safe_load(name)}: choose another name")
    if name in FOLDERS:
        raise UserError(f"{name!r} is a word of the suite's own: choose another name")


def render(name: str, title: str, paper: str) -> str:
    """The text of a starting file: plain training, with an example option and the most used hooks."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(TEMPLATE))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    class_name = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    if keyword.iskeyword(class_name) or class_name in imported or hasattr(builtins, class_name):
        class_name += "Method"
    plain = title.isascii() and not set(title) & set("\"'\\") and len(title) <= 70
    values = {
        "HEADING": title if plain else name,
        "CLASS": class_name,
        "NAME": name,
        "TITLE": _literal("title", title),
        "PAPER": _literal("paper", paper),
    }
    return re.sub(rf"\b({'|'.join(values)})\b", lambda found: values[found.group()], TEMPLATE)


def _literal(attribute: str, text: str) -> str:
    """``text`` as the formatter writes it; longer than a line, in parentheses and pieces."""
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in text)
    if len(f"    {attribute} = {_quoted(text)}") * (1 + wide) <= 120:
        return _quoted(text)
    parts = textwrap.wrap(text, 50 if wide else 100, drop_whitespace=False, break_on_hyphens=False)
    return "\n".join(["(", *(f"        {_quoted(part)}" for part in parts), "    )"])


def _quoted(text: str) -> str:
    mark = "'" if text.count('"') > text.count("'") else '"'
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


def _row(name: str, title: str) -> str:
    """The row as one line of YAML, without indentation."""
    row = {name: {"method": name, "title": title}}
    text = yaml.safe_dump(row, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.strip()[1:-1]


def _with_row(file: Path, name: str, row: str) -> str:
    """The text of the benchmark file with ``row`` behind its last row, everything else as it is.

    Raises:
        UserError: the rows are not written one below the other, or a new line would not be read as one.
    """
    text = file.read_bytes().decode()
    refusal = f"{file}: no line for the row {name!r} can be added there; write the rows one below the other"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # as it was read as a benchmark
    rows = next(value for key, value in root.value if key.value == "rows")
    if rows.flow_style or not rows.value:
        raise UserError(refusal)
    last = rows.value[-1][0]
    place = text.find("\n", max(last.end_mark.index, _end(rows, text)))  # an alias ends where its anchor does
    head, tail = (text + "\n", "") if place < 0 else (text[: place + 1], text[place + 1 :])
    line_end = "\r\n" if head.endswith("\r\n") else "\n"
    changed = head + " " * last.start_mark.column + row + line_end + tail
    before, expected = yaml.safe_load(text), yaml.safe_load("{" + row + "}")
    try:
        after: Any = yaml.safe_load(changed)
        Benchmark(name=file.stem, **{key: value for key, value in after.items() if key != "name"})
    except (yaml.YAMLError, ValidationError):
        after = None
    if after != before | {"rows": before["rows"] | expected} or list(after["rows"])[-1] != name:
        raise UserError(refusal)
    return changed


def _end(node: yaml.Node, text: str) -> int:
    """Where the last thing that is written of a node ends, before comments and blank lines behind it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1], text)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1], text)
    return len(text[: node.end_mark.index].rstrip())
