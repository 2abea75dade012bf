"""The real Snakefile on a copy of the repository, with the smoke benchmark: one workflow, then what edits do to it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flexseg.cli import main
from flexseg.files import read_json

pytestmark = pytest.mark.slow

Result = subprocess.CompletedProcess[str]
Command = Callable[..., Result]
KINDS = (
    "comparison", "ablation", "per_class", "per_condition", "metrics", "boundary", "power", "cost", "origins",
)  # fmt: skip
TABLES = [f"{table}.{kind}" for table in KINDS for kind in ("csv", "md", "tex")]
PRODUCTS = {
    "comparison.pdf": b"%PDF-",
    "ablation.pdf": b"%PDF-",
    "index.html": b"<!doctype html>",
    "summary.md": b"# ",
    "figures/captions.md": b"# ",
}

MY_IDEA = '''"""A new method: plain training that forgets every second label pixel."""

from flexseg.method import Method


class MyIdea(Method):
    name = "my_idea"
    title = "My idea"

    def transform(self, image, label, rng):
        label = label.copy()
        label[:, ::2] = 255
        return image, label
'''
RAISES = """from flexseg.method import Method


class Raises(Method):
    name = "raises"
    title = "Raises"

    def after_step(self, batch):
        if batch.iteration == 3:
            raise RuntimeError("this idea does not work")
"""
WAITS = RAISES.replace("raises", "waits").replace(
    "import Method", "import Method\nfrom flexseg.errors import MissingExtra"
)
WAITS = WAITS.replace(
    'RuntimeError("this idea does not work")', 'MissingExtra("waits needs nothing: pip install nothing")'
)


CHOSEN = "dginstyle,raises,my_idea,waits"
AS = "rows-dginstyle+raises+my_idea+waits"
"""The folder of what is made of a selection of rows."""


def snakemake(*config: str) -> list[str]:
    """The command for the smoke benchmark; ``config`` are further ``key=value`` pairs, and options."""
    options = [part for part in config if "=" not in part]
    pairs = [part for part in config if "=" in part]
    return ["snakemake", *options, "--config", "benchmark=smoke", *pairs]


def jobs(result: Result) -> dict[str, set[str]]:
    """The jobs that a dry run lists: for each rule, the outputs (train, evaluate, dataset) or just its name."""
    assert result.returncode == 0, result.stdout
    listed: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=(?:local)?rule )", result.stdout)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        assert rule is not None
        output = re.search(r"output: ([^\n]+)", block)
        first = output[1].split(", ")[0] if output else ""
        listed.setdefault(rule[1], set()).add(first.removeprefix("results/smoke/"))
    return listed


@contextmanager
def edited(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """Change a file, and put it back with its old time."""
    text, stat = path.read_text(), path.stat()
    path.write_text(change(text))
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(scope="module")
def finished(make_copy: Callable[[Path], Path], run_in: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the smoke benchmark ran from end to end."""
    copy = make_copy(tmp_path_factory.mktemp("workflow") / "copy")
    done = run_in(copy, *snakemake())
    assert done.returncode == 0, done.stdout
    return copy


def test_everything_appears(finished: Path) -> None:
    home = finished / "results" / "smoke"
    for name in [*TABLES, "scores_long.csv"]:
        assert (home / "tables" / name).stat().st_size > 0
    for product, start in PRODUCTS.items():
        assert (finished / "reports" / "smoke" / product).read_bytes()[: len(start)].lower() == start.lower()
    figures = {path.stem for path in (finished / "reports" / "smoke" / "figures").glob("*.pdf")}
    assert figures
    for form in ("svg", "png"):
        assert {path.stem for path in (finished / "reports" / "smoke" / "figures").glob(f"*.{form}")} == figures
    assert not (finished / "reports" / "comparison.pdf").exists(), "the default benchmark's reports stay its own"
    said = (home / "status.txt").read_text()
    assert "2 finished" in said
    assert "no reference results" in said, "the smoke benchmark's numbers mean nothing, so it ships none"
    for row in ("dginstyle", "flexseg"):
        run = home / row / "seed-0"
        assert read_json(run / "run.json")["status"] == "finished"
        assert read_json(run / "trained.json")["status"] == "finished"
        assert (run / "model.safetensors").is_file()
        assert len(list((run / "evaluation").glob("*.parquet"))) == 5
        assert len(list((run / "predictions").glob("*/*.png"))) == 5
        assert not (run / "checkpoint.safetensors").exists()
        assert read_json(run / "run.json")["threads"] == 1
    table = (home / "tables" / "comparison.md").read_text()
    assert "FLEX-Seg" in table
    assert "Avg5" in table
    assert len(list((home / "data").glob("*/index.parquet"))) == 7
    assert not list(finished.glob("results/**/*.part")), "no half file is left"


def test_second_run_does_nothing(finished: Path, run_in: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("re*/**/*") if path.is_file()}
    done = run_in(finished, *snakemake())
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in finished.glob("re*/**/*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["flexseg/engine/train.py", "methods/flexseg.py"])
def test_a_comment_repeats_nothing(finished: Path, run_in: Command, place: str) -> None:
    with edited(finished / place, lambda text: text + "\n# A comment.\n"):
        listed = jobs(run_in(finished, *snakemake("-n")))
    assert listed.keys() <= {"all"}


def test_other_code_in_the_library_retrains_nothing(finished: Path, run_in: Command) -> None:
    with edited(finished / "flexseg" / "engine" / "train.py", lambda text: text + "\nODD = 1\n"):
        listed = jobs(run_in(finished, *snakemake("-n")))
    assert listed.keys().isdisjoint({"train", "evaluate", "dataset"})
    assert {"tables", "product"} <= listed.keys(), "other code than the runs' must be marked in the reports"


def test_editing_a_method_retrains_its_rows_alone(finished: Path, run_in: Command) -> None:
    with edited(finished / "methods" / "flexseg.py", lambda text: text + "\nODD = 1\n"):
        listed = jobs(run_in(finished, *snakemake("-n")))
    assert listed["train"] == {"flexseg/seed-0/trained.json"}
    assert listed["evaluate"] == {"flexseg/evaluated.json"}
    assert "dataset" not in listed


def test_editing_a_row_retrains_it_alone(finished: Path, run_in: Command) -> None:
    path = finished / "benchmarks" / "smoke.yaml"
    with edited(path, lambda text: text.replace("title: FLEX-Seg}", "title: FLEX-Seg, alpha: 2.0}")):
        assert "alpha" in path.read_text()
        listed = jobs(run_in(finished, *snakemake("-n")))
    assert listed["train"] == {"flexseg/seed-0/trained.json"}
    assert "dataset" not in listed


def test_editing_the_protocol_evaluates_and_trains_nothing(finished: Path, run_in: Command) -> None:
    with edited(
        finished / "benchmarks" / "smoke.yaml", lambda text: text.replace("boundary_band: 2", "boundary_band: 3")
    ):
        listed = jobs(run_in(finished, *snakemake("-n")))
    assert listed["evaluate"] == {"dginstyle/evaluated.json", "flexseg/evaluated.json"}
    assert listed.keys().isdisjoint({"train", "dataset"})


def test_another_seed_adds_its_runs(finished: Path, run_in: Command) -> None:
    listed = jobs(run_in(finished, *snakemake("-n", "seeds=0,1")))
    assert listed["train"] == {"dginstyle/seed-1/trained.json", "flexseg/seed-1/trained.json"}


@pytest.fixture(scope="module")
def extended(finished: Path, run_in: Command) -> tuple[Path, Result, dict[Path, int]]:
    """The copy after three methods were dropped into it and run: one raises, one lacks an optional package."""
    (finished / "methods" / "my_idea.py").write_text(MY_IDEA)
    (finished / "methods" / "raises.py").write_text(RAISES)
    (finished / "methods" / "waits.py").write_text(WAITS)
    baseline = finished / "results" / "smoke" / "dginstyle"
    before = {path: path.stat().st_mtime_ns for path in baseline.rglob("*") if path.is_file()}
    return finished, run_in(finished, *snakemake(f"rows={CHOSEN}")), before


def test_new_method_is_trained_evaluated_and_tabulated(extended: tuple[Path, Result, dict[Path, int]]) -> None:
    copy, done, _ = extended
    home = copy / "results" / "smoke"
    assert read_json(home / "my_idea" / "seed-0" / "run.json")["status"] == "finished", done.stdout
    assert len(list((home / "my_idea" / "seed-0" / "evaluation").glob("*.parquet"))) == 5
    table = (home / "tables" / AS / "comparison.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| my_idea")]
    assert len(re.findall(r"\d+\.\d", line)) >= 8, line


def test_method_that_raises_fails_only_its_row(extended: tuple[Path, Result, dict[Path, int]]) -> None:
    copy, done, before = extended
    home = copy / "results" / "smoke"
    assert done.returncode != 0, "a failure must be seen by whoever called"
    failure = read_json(home / "raises" / "seed-0" / "failure.json")
    assert failure["reason"].startswith("RuntimeError: this idea does not work (methods/raises.py, line ")
    for name in ("comparison.md", "comparison.tex"):
        table = (home / "tables" / AS / name).read_text()
        assert "this idea does not work" in table, name
    assert (copy / "reports" / "smoke" / AS / "comparison.pdf").is_file()
    assert "this idea does not work" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before, "the baseline was touched"


def test_method_without_its_package_is_shown_as_not_run(extended: tuple[Path, Result, dict[Path, int]]) -> None:
    home = extended[0] / "results" / "smoke"
    assert read_json(home / "waits" / "seed-0" / "trained.json")["status"] == "not run"
    assert read_json(home / "waits" / "evaluated.json")["seeds"] == {"0": "not run"}
    for name in ("comparison.md", "cost.md"):
        assert "not run: waits needs nothing: pip install nothing" in (home / "tables" / AS / name).read_text()


def test_status_reports_failures_and_retry_forgets_them(
    extended: tuple[Path, Result, dict[Path, int]],
    run_in: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = extended[0]
    rows = f"--rows={CHOSEN}"
    monkeypatch.chdir(copy)
    with pytest.raises(SystemExit) as stop:
        main(["status", "smoke", rows])
    assert stop.value.code == 1
    shown = capsys.readouterr().out
    assert "2 finished, 1 failed, 1 not run" in shown
    assert "waits, seed 0: not run: waits needs nothing: pip install nothing" in shown
    assert "raises, seed 0: failed: RuntimeError: this idea does not work" in shown
    assert "--retry" in shown
    assert "train" not in jobs(run_in(copy, *snakemake("-n", f"rows={CHOSEN}")))
    with pytest.raises(SystemExit) as stop:
        main(["status", "smoke", rows, "--retry"])
    assert stop.value.code == 0
    listed = jobs(run_in(copy, *snakemake("-n", f"rows={CHOSEN}")))
    assert listed["train"] == {"raises/seed-0/trained.json", "waits/seed-0/trained.json"}
    assert listed["evaluate"] == {"raises/evaluated.json", "waits/evaluated.json"}


def test_report_of_snakemake(finished: Path, run_in: Command) -> None:
    done = run_in(finished, *snakemake("--report", "report.html"))
    assert done.returncode == 0, done.stdout
    assert b"<html" in (finished / "report.html").read_bytes()[:2000].lower()


def test_reports_do_not_need_torch(finished: Path, run_in: Command) -> None:
    code = (
        "import sys; from flexseg.cli import main\n"
        "try: main(['tables', 'smoke'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert not {'torch', 'mmseg'} & set(sys.modules)"
    )
    done = run_in(finished, "python", "-c", code)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("benchmark=smok", "no benchmark is named 'smok' .did you mean 'smoke'"),
        ("rows=flexsge", "no row is named 'flexsge' .did you mean 'flexseg'"),
        ("study=defualt", "no study is named 'defualt' .did you mean 'default'"),
        ("seeds=one", "seeds are different whole numbers"),
    ],
)
def test_mistake_on_the_command_line_is_one_message(finished: Path, run_in: Command, config: str, message: str) -> None:
    named = [] if config.startswith("benchmark") else ["benchmark=smoke"]
    done = run_in(finished, "snakemake", "-n", "--config", *named, config)
    assert done.returncode != 0
    assert re.search(message, done.stdout), done.stdout
    assert "Traceback" not in done.stdout


def test_wrong_option_stops_before_any_work(finished: Path, run_in: Command) -> None:
    with edited(
        finished / "benchmarks" / "smoke.yaml", lambda text: text.replace("title: FLEX-Seg}", "title: F, alhpa: 2}")
    ):
        before = sorted(finished.glob("re*/**/*"))
        done = run_in(finished, *snakemake())
    assert sorted(finished.glob("re*/**/*")) == before
    assert done.returncode != 0
    assert "has no option 'alhpa' (did you mean 'alpha'?)" in done.stdout
    assert "Nothing was started" in done.stdout
    assert "Traceback" not in done.stdout
    assert not re.search(r"^rule ", done.stdout, re.MULTILINE)


def test_dry_run_of_the_default_benchmark_imports_nothing_heavy(finished: Path, run_in: Command) -> None:
    """It is what people wait for: seconds, as long as no process of it loads what trains and what draws."""
    done = run_in(finished, "env", "PYTHONPROFILEIMPORTTIME=1", "snakemake", "-n")
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", done.stdout, re.MULTILINE))
    assert "flexseg.benchmark" in imported
    assert not imported & {"torch", "mmseg", "scipy", "matplotlib"}
    listed = jobs(done)
    assert len(listed["dataset"]) == 8
    assert "train" in listed
    assert "reports/comparison.pdf" in done.stdout


@pytest.mark.parametrize("target", ["reports/ablation.pdf", "reports/comparison.pdf", "reports/index.html"])
def test_one_product_can_be_asked_for(finished: Path, run_in: Command, target: str) -> None:
    done = run_in(finished, "snakemake", "-n", target)
    assert done.returncode == 0, done.stdout
    assert target in done.stdout
    assert not re.search(r"rule (tables|status):", done.stdout)
