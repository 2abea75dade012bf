"""What README and docs say is true: links, commands, files, functions, and the numbers of the default benchmark."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flexseg.analysis.stats.claims import standing
from flexseg.analysis.stats.formats import mean_text, to_markdown
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.reference import read_reference
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import t_interval
from flexseg.analysis.tables.claims import claims_table_of
from flexseg.benchmark import benchmark_names, load_benchmark
from flexseg.benchmark.claims import Claims
from flexseg.method import Setup, parse_options
from flexseg.method_files import load_method, method_names
from flexseg.shows import mistake_in

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / folder / "README.md" for folder in ("methods", "results", "reports")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
INVENTED = {"my_idea", "random_grey", "label_smoothing"}
"""Methods that readers write while they follow the docs."""
OWN = {"NAME", "name", "my_photos"}
"""Benchmarks, likewise."""


def prose(text: str) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def commands(program: str) -> list[tuple[str, str, bool]]:
    """(page, command, whether it stands in a block, complete) of every command of ``program`` in README and docs."""
    found = []
    for page, text in TEXTS.items():
        for _, kind, block in FENCE.findall(text):
            for line in block.splitlines() if kind == "sh" else ():
                for part in line.split(" #")[0].split(" && "):
                    if part.strip().split()[:1] == [program]:
                        found.append((page, part.strip(), True))
        inline = re.findall(rf"(?<!`)`({program} [^`]+)`", prose(text))
        found += [(page, command, False) for command in inline if "…" not in command]
    return found


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 9_000


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if target.parent == ROOT / "docs" / "api":  # made when the site is built, which checks them
            continue
        assert target.is_file(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


def test_the_index_leads_to_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([^)#]+)", TEXTS["docs/index.md"]))


@pytest.mark.parametrize(("page", "command", "complete"), commands("flexseg"))
def test_flexseg_commands_parse(page: str, command: str, complete: bool) -> None:
    import typer.main

    from flexseg.cli import app

    level: Any = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    while hasattr(level, "commands") and words and not words[0].startswith("-"):
        assert words[0] in level.commands, f"{page}: there is no `flexseg {words[0]}`"
        level = level.commands[words.pop(0)]
    mistake, name = "", None
    try:
        name = level.make_context("flexseg", words).params.get("name")
    except Exception as error:  # typer has its own copies of click's exceptions
        if type(error).__name__ not in {"Exit", "NoArgsIsHelpError"} | (set() if complete else {"MissingParameter"}):
            mistake = str(error)
    assert not mistake, f"{page}: `{command}`: {mistake}"
    if [parameter.metavar for parameter in level.params[:1]] == ["BENCHMARK"]:
        assert name in {None, "", *OWN, *benchmark_names(ROOT / "benchmarks")}, f"{page}: `{command}`"


@cache
def known_rows(name: str) -> set[str]:
    """What ``rows=`` may name."""
    content = yaml.safe_load((ROOT / "benchmarks" / f"{name}.yaml").read_text())
    parent = known_rows(content["extends"]) if "extends" in content else set()
    return parent | set(content.get("rows", {})) | set(method_names(ROOT / "methods")) | INVENTED


@pytest.mark.parametrize(("page", "command", "_complete"), commands("snakemake"))
def test_snakemake_commands_parse(page: str, command: str, _complete: bool) -> None:
    from snakemake.cli import get_argument_parser

    arguments = get_argument_parser().parse_args(shlex.split(command)[1:])  # exits where an option is unknown
    config = dict(pair.split("=", 1) for pair in arguments.config or ())
    assert config.keys() <= {"benchmark", "study", "rows", "seeds", "logger"}, f"{page}: {command}"
    name = config.get("benchmark", "streetworld")
    if name not in OWN:
        assert name in benchmark_names(ROOT / "benchmarks"), f"{page}: {command}"
        if config.get("study", "NAME") != "NAME":
            claims = Claims(**yaml.safe_load((ROOT / "benchmarks" / "claims.yaml").read_text()))
            known = load_benchmark(name, ROOT / "benchmarks").studies.keys() | claims.studies.keys()
            assert config["study"] in known, f"{page}: {command}"
        assert set(config.get("rows", "dginstyle").split(",")) <= known_rows(name), f"{page}: {command}"
    for profile in arguments.profile or ():
        assert (ROOT / profile / "config.yaml").is_file(), f"{page}: {command}"


def test_make_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command.split()[1] for _, command, _ in commands("make")}
    assert {"benchmark", "test", "docs", "lint", "env", "lock"} <= named
    assert named <= targets


@cache
def defined(path: Path) -> set[str]:
    """The names that a Python file defines at any depth of its classes."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_way_of_an_image_is_that_of_the_code() -> None:
    steps = re.findall(r"^\|[^|]+\| `(\w+)` \| `([\w/]+\.py)` \|$", TEXTS["docs/architecture.md"], re.MULTILINE)
    assert len(steps) > 25
    assert [f"{name} in {path}" for name, path in steps if name not in defined(ROOT / path)] == []


def test_the_map_shows_every_room() -> None:
    rooms = {f"`{path.name}/`" for path in (ROOT / "flexseg").iterdir() if (path / "__init__.py").is_file()}
    modules = {f"`{path.name}`" for path in (ROOT / "flexseg").glob("*.py") if path.name != "__init__.py"}
    shown = set(re.findall(r"`[\w.]+/?`", TEXTS["docs/architecture.md"]))
    assert rooms | modules <= shown


def test_the_floors_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"].get("importlinter", {}).get("contracts")
    if contracts is None:
        pytest.skip("pyproject.toml has no contracts of import-linter")
    (floors,) = [contract["layers"] for contract in contracts if contract["id"] == "floors"]
    (shown,) = re.findall(
        r"never what is above or beside it\.\n\n```text\n(.*?)\n```", TEXTS["docs/architecture.md"], re.DOTALL
    )
    assert shown.splitlines() == floors


@pytest.mark.parametrize("page", TEXTS)
def test_named_files_and_modules_exist(page: str) -> None:
    for path in re.findall(r"`((?:flexseg|methods|benchmarks|tests|profiles|docs)/[\w./]+\.\w+)`", TEXTS[page]):
        if not (INVENTED | OWN) & set(re.split(r"\W|test_", path)) and "NAME" not in path and page != "CHANGELOG.md":
            assert (ROOT / path).is_file(), f"{page}: {path}"
    for dotted in re.findall(r"\b(flexseg(?:\.[a-z]\w+)+)\b", TEXTS[page]):
        if page == "CHANGELOG.md" or dotted.endswith((".py", ".yaml")):
            continue
        parts = dotted.split(".")
        place = ROOT
        while parts and (place / parts[0]).is_dir():
            place /= parts.pop(0)
        file = place / f"{parts[0]}.py" if parts else place / "__init__.py"
        parts = parts[1:] if parts and file.is_file() else parts
        file = file if file.is_file() else place / "__init__.py"
        assert file.is_file(), f"{page}: {dotted}"
        assert not parts or parts[0] in defined(file) | {"__version__"}, f"{page}: {dotted}"


def test_the_readmes_method_trains(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ten lines, and runs as it stands."""
    from flexseg.cli import main

    (code,) = [block for _, kind, block in FENCE.findall(TEXTS["README.md"]) if kind == "python"]
    (name,) = re.findall(r"Save it as `methods/(\w+)\.py`", TEXTS["README.md"])
    assert len(code.strip().splitlines()) == 10
    home = results.parent
    shutil.copytree(ROOT / "benchmarks", home / "benchmarks")
    (home / "methods").mkdir()
    (home / "methods" / f"{name}.py").write_text(code)
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit) as stop:
        main(["train", "smoke", name, "0"])
    assert not stop.value.code
    assert (results / "smoke" / name / "seed-0" / "model.safetensors").is_file()

    method = load_method(name, home / "methods")
    image, label = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8), np.zeros((4, 6), np.uint8)
    made = method(parse_options(method, {}), Setup(0, 1, np.zeros(0, dtype=np.int8)))
    changed = [made.transform(image, label, np.random.default_rng(seed))[0] for seed in range(20)]
    assert all(each.shape == image.shape and each.dtype == image.dtype for each in changed)
    grey = [(each == each[..., :1]).all() for each in changed]
    assert 0 < sum(grey) < 20
    assert all(np.array_equal(each, image) for each, is_grey in zip(changed, grey, strict=True) if not is_grey)


def test_code_in_the_docs_is_python() -> None:
    blocks = [block for text in TEXTS.values() for _, kind, block in FENCE.findall(text) if kind == "python"]
    assert len(blocks) > 4
    for block in blocks:
        ast.parse(block)
    (shows,) = [block for block in blocks if "import Curves" in block]
    names: dict[str, Any] = {}
    exec(shows, names)
    assert [mistake_in(show) for show in names["shows"]] == ["", ""]


def test_the_notebooks_functions_are_all_there_are() -> None:
    from flexseg import analysis

    named = set(re.findall(r"\b(?:frame|plot)_\w+", TEXTS["docs/notebook.md"]))
    assert named == {name for name in analysis.__all__ if name.startswith(("frame_", "plot_"))}


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the Markdown table whose header begins with ``first``: the header, then its rows."""
    lines = text[text.index(f"\n{first}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| :")]


def reference_cells(name: str, seeds: list[int]) -> dict[tuple[str, str], str]:
    """(row, target or average) → the cell of a results table, from the reference runs with ``seeds``."""
    benchmark = load_benchmark(name, ROOT / "benchmarks")
    reference = read_reference(ROOT / "benchmarks" / f"{name}.reference.csv", benchmark)
    members = {target: [target] for target in benchmark.targets} | benchmark.averages
    cells = {}
    for row in {entry.row: None for entry in reference.entries}:
        entries = [entry for entry in reference.chosen(benchmark, row)[0] if entry.seed in seeds]
        for column, targets in members.items():
            values = np.array([entry.value(targets, "mIoU") for entry in entries])
            cells[row, column] = mean_text(t_interval(values))
    return cells


@pytest.mark.parametrize(("name", "page"), [("streetworld", "results"), ("streetworld_small", "results_small")])
def test_a_benchmarks_table_is_its_reference(name: str, page: str) -> None:
    benchmark = load_benchmark(name, ROOT / "benchmarks")
    cells = reference_cells(name, benchmark.seeds)
    header, *rows = table(TEXTS[f"docs/{page}.md"], "| Row | Adverse | Night |")
    columns = [name if name.startswith("Avg") else name.lower().replace(" ", "_") for name in header[1:-1]]
    titles = {benchmark.row(row).title: row for row in benchmark.studies["default"]}
    shown = {
        (titles[title], column): cell for title, *line in rows for column, cell in zip(columns, line, strict=False)
    }
    run = {row for row in benchmark.studies["default"] if (row, columns[0]) in cells}
    assert {row for row, _ in shown} == run
    assert shown == {key: cells[key] for key in shown}


def test_the_tables_of_claims_are_those_of_the_reference(tmp_path: Path) -> None:
    """`flexseg tables streetworld --study evidence` writes them, also where nothing was run."""
    benchmark = load_benchmark("streetworld", ROOT / "benchmarks")
    scores = Scores(load_records(benchmark, tmp_path))
    text = to_markdown(claims_table_of(scores, standing(scores.records)))
    _, *judged = table(text, "| Claim | Where |")
    _, *shown = table(TEXTS["docs/results.md"], "| Claim | Where |")
    assert shown == judged
    short = [
        [claim.split(" (Of ")[0], published, measured, verdict.split(" (")[0].replace("*", "")]
        for claim, _, published, measured, _, verdict in judged
    ]
    _, *shown = table(TEXTS["README.md"], "| Claim | Published |")
    assert [[cell.replace("*", "") for cell in row] for row in shown if row[1]] == [row for row in short if row[1]]


def test_the_power_of_the_claims_is_that_of_the_reference(tmp_path: Path) -> None:
    benchmark = load_benchmark("streetworld", ROOT / "benchmarks")
    wanted = []
    for judged in standing(load_records(benchmark, tmp_path)).reference:
        for part in judged.parts:
            name = f"`{judged.name}`" + (f", against `{part.against}`" if len(judged.parts) > 1 else "")
            paired, seeds = part.paired, judged.claim.seeds
            power = [f"{100 * paired.power(effect, seeds):.0f}" for effect in (1.0, part.smallest)]
            size = f"{paired.sd:.2f}", f"{paired.detectable():.2f}"
            wanted.append([name, str(paired.n), *size, power[0], f"{part.smallest:g}", power[1]])
    _, *shown = table(TEXTS["docs/results.md"], "| claim | seeds |")
    assert shown == wanted


def test_the_guide_says_of_every_method_what_it_is() -> None:
    """Where it comes from, and what is published, scaled, assumed and left out."""
    text = (ROOT / "docs" / "methods.md").read_text()
    table = text[text.index("## What each method is") :]
    described = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    plain = {"dginstyle", "source_only"}
    assert described == set(method_names(ROOT / "methods")) - plain
