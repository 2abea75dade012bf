"""``flexseg init`` and ``flexseg run``: a working folder anywhere, and the workflow in it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from flexseg import __version__
from flexseg.benchmark import benchmark_names, load_benchmark
from flexseg.benchmark.claims import is_claims_file
from flexseg.benchmark.reading import read_content
from flexseg.cli.folders import DEFAULT
from flexseg.console import printable
from flexseg.errors import UserError, did_you_mean
from flexseg.files import disk_errors
from flexseg.shipped import home, snakefile

IGNORED = ".snakemake/\nresults/\nreports/\nweights/\n__pycache__/\n"
WORKFLOW = """# The workflow of the installed FLEX-Seg Bench, on the benchmarks and methods of this folder.
from flexseg.shipped import snakefile


include: snakefile()


rule everything:
    default_target: True
    input:
        rules.all.input,
"""
README = """# A working folder of FLEX-Seg Bench {version}

    flexseg run {name}                          train, evaluate and report the default study of a benchmark
    flexseg run {name} --study factorial        another study of it (flexseg show benchmarks)
    flexseg status {name}                       what is done, what is running, how long it will take
    flexseg new-method my_idea                  a method of your own, in methods/

`benchmarks/` and `methods/` are copies of those of the package: edit them, and add your own. Data sets of your own are
described in `datasets/` (`flexseg new-dataset`). Reports appear in `reports/`, everything measured in `results/`.
"""


def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")] = Path("."),
    benchmarks: Annotated[
        str, typer.Option(help="Only these benchmarks, and those that they extend: a,b. By default all.")
    ] = "",
) -> None:
    """Write a working folder: benchmarks, methods, profiles and the workflow. Nothing that is there is touched.

    flexseg init my_study

    cd my_study && flexseg run smoke
    """
    source = home()
    names = _chosen(source / "benchmarks", benchmarks)
    _require_empty(folder)
    with disk_errors(folder):
        for name in names:
            for path in sorted((source / "benchmarks").glob(f"{name}.*")):
                _copy(path, folder / "benchmarks" / path.name)
        for path in sorted((source / "benchmarks").glob("*")):  # what benchmarks name: schemas, claims
            if path.suffix == ".json" or is_claims_file(path):
                _copy(path, folder / "benchmarks" / path.name)
        for path in sorted((source / "methods").glob("*")):
            if path.is_file():
                _copy(path, folder / "methods" / path.name)
        for path in sorted((source / "profiles").glob("*/config.yaml")):
            _copy(path, folder / "profiles" / path.parent.name / path.name)
        first = DEFAULT if DEFAULT in names else names[0]
        (folder / "README.md").write_text(README.format(version=__version__, name=first), encoding="utf-8")
        (folder / ".gitignore").write_text(IGNORED)
        (folder / "Snakefile").write_text(WORKFLOW)  # last, as it shows that the folder is complete
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(printable(str(folder)))}\n  "
    smallest = "smoke" if "smoke" in names else first
    print(f"{len(names)} benchmarks and all methods are in {printable(str(folder))}. Next:\n")
    print(f"  {there}flexseg run {smallest}        # the whole workflow{' in small' if smallest == 'smoke' else ''}")
    print(f"  flexseg run {first}" if first != smallest else "", end="\n" if first != smallest else "")


def _chosen(folder: Path, wanted: str) -> list[str]:
    """The names that are wanted, with those that they extend or whose runs they evaluate."""
    known = benchmark_names(folder)
    if not wanted:
        return known
    chosen: list[str] = []
    waiting = [name.strip() for name in wanted.split(",") if name.strip()]
    while waiting:
        name = waiting.pop(0)
        if name not in known:
            raise UserError(f"no benchmark is named {name!r}{did_you_mean(name, known)}: there are {', '.join(known)}")
        if name not in chosen:
            chosen.append(name)
            path = folder / f"{name}.yaml"
            from flexseg.yaml_files import read_yaml

            content = read_yaml(path)
            waiting += [str(content[key]) for key in ("extends", "runs") if content.get(key)]
            read_content(name, folder)
    return chosen


def _require_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a new or empty folder")
    there = (
        sorted(path.name for path in folder.iterdir() if path.name not in (".git", ".venv")) if folder.is_dir() else []
    )
    if there:
        shown = ", ".join(map(printable, there[:5])) + (", …" if len(there) > 5 else "")
        raise UserError(f"{folder} is not empty ({shown}), and nothing in it is overwritten: name a new folder")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="BENCHMARK", help="A benchmark, without its ending.")] = DEFAULT,
    study: Annotated[str, typer.Option(help="A study of the benchmark.")] = "",
    rows: Annotated[str, typer.Option(help="Only these rows or methods: a,b,c.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these seeds: 0,1,2.")] = "",
    cores: Annotated[str, typer.Option(help="How many cores to use, or all.")] = "all",
    profile: Annotated[str, typer.Option(help="default, gpu, slurm, or the folder of a profile.")] = "default",
) -> None:
    """Start the workflow with Snakemake, in this folder; what follows `--` is handed on to it.

    flexseg run streetworld --study baselines --profile gpu

    flexseg run smoke -- --dry-run
    """
    from flexseg.shipped import benchmarks_folder

    load_benchmark(name, benchmarks_folder())  # a wrong name at once, in one line
    own = Path("Snakefile").is_file() and Path("benchmarks").is_dir()
    config = {"benchmark": name, "study": study, "rows": rows, "seeds": seeds}
    command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", "Snakefile" if own else snakefile()]
    command += ["--cores", cores, *_profile(profile)]
    command += [*context.args, "--config", *(f"{key}={value}" for key, value in config.items() if value)]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # so that Ctrl-C and the exit code are Snakemake's


def _profile(profile: str) -> list[str]:
    """The options for a profile: that of this folder or of the suite, over the suite's default one."""
    found = next((place for place in (Path("profiles"), home() / "profiles") if (place / profile).is_dir()), None)
    place = found / profile if found else Path(profile)
    if not (place / "config.yaml").is_file():
        known = sorted(path.parent.name for path in (home() / "profiles").glob("*/config.yaml"))
        raise UserError(
            f"there is no profile {profile!r}{did_you_mean(profile, known)}: choose {', '.join(known)}, or give the "
            "folder of a config.yaml"
        )
    default = next(each for each in (Path("profiles"), home() / "profiles") if (each / "default").is_dir()) / "default"
    options = ["--workflow-profile", str(default)]
    return options if place == default else [*options, "--profile", str(place)]
