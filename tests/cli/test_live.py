"""What a running workflow shows: lines where there is no terminal, a table that fits where there is one."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from flexseg.analysis.stats.progress import Standing
from flexseg.benchmark import Benchmark
from flexseg.cli import live
from flexseg.cli.live import View, describe_job, draw

SETTINGS = SimpleNamespace(dryrun=False, verbose=False, printshellcmds=False, quiet=None, nocolor=True)


def record(event: str = "", message: str = "", level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    """A record as Snakemake makes them."""
    made = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    vars(made).update(extra | ({"event": event} if event else {}))
    return made


def job(number: int, rule: str, **extra: Any) -> logging.LogRecord:
    return record("job_info", jobid=number, rule_name=rule, output=extra.pop("output", ()), wildcards=extra)


@pytest.fixture(autouse=True)
def _nothing_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(live, "_watched", None)
    monkeypatch.setattr(live, "RESULTS", tmp_path / "results")


def take_all(view: View, log: Path) -> None:
    """A short workflow: two jobs that finish, one that fails, and a warning."""
    view.take(record(message="Building DAG of jobs..."))
    view.take(job(1, "train", row="flexseg", seed="0"))
    view.take(job(2, "train", row="my[bold]idea", seed="1"))
    view.take(record("job_started", jobs=[1, 2]))
    view.take(record("shellcmd", message="Shell command: flexseg train …"))
    view.take(record("job_finished", message="Finished jobid: 1", job_id=1))
    view.take(record("progress", done=1, total=3))
    view.take(record("job_error", level=logging.ERROR, jobid=2, rule_name="train", log=[str(log)]))
    view.take(job(3, "product", product="index.html", output=["reports/smoke/index.html"]))
    view.take(record("job_finished", job_id=3))
    view.take(record("progress", done=2, total=3))
    view.take(record(message="Something is odd", level=logging.WARNING))
    view.close()
    view.close()


def test_without_a_terminal_there_is_a_line_per_job(tmp_path: Path) -> None:
    log, stream = tmp_path / "train.log", io.StringIO()
    log.write_text("".join(f"line {number}\n" for number in range(40)))
    take_all(View(SETTINGS, stream), log)
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d train flexseg, seed 0", lines[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d failed: train my\[bold\]idea, seed 1", lines[1])
    assert lines[2] == f"  the whole log is {log}; it ends with"
    assert lines[3:18] == [f"    line {number}" for number in range(25, 40)]
    assert lines[18:] == [
        lines[18],
        "Something is odd",
        "In reports/smoke/: index.html",
        lines[21],
        f"  train my[bold]idea, seed 1: {log}",
    ]
    assert lines[18].endswith("2 of 3 steps: index.html")
    assert re.fullmatch(r"2 of 3 steps in \d+ s; 1 failed:", lines[21])
    assert "\x1b" not in stream.getvalue()
    assert "Building DAG" not in stream.getvalue(), "that is in Snakemake's own log"


def test_a_workflow_with_nothing_to_do_says_so() -> None:
    stream = io.StringIO()
    view = View(SETTINGS, stream=stream)
    view.take(record(message="Building DAG of jobs..."))
    view.take(record(message="Nothing to be done (all requested files are present and up to date)."))
    view.close()
    view.close()
    assert stream.getvalue().count("Nothing to be done (all requested files") == 1


def test_errors_of_the_workflow_are_shown_whole() -> None:
    stream = io.StringIO()
    view = View(SETTINGS, stream)
    text = "WorkflowError:\n--config has no key 'row' (did you mean 'rows'?)\n" + "x" * 300
    view.take(record(message=text, level=logging.ERROR))
    view.close()
    assert stream.getvalue() == text + "\n", "and no summary, as nothing was started"


@pytest.mark.parametrize("asked", ["dryrun", "verbose", "printshellcmds"])
def test_snakemakes_own_words_where_they_are_asked_for(asked: str) -> None:
    stream = io.StringIO()
    view = View(SimpleNamespace(**vars(SETTINGS) | {asked: True}), stream)
    view.take(record(message="Building DAG of jobs..."))
    view.close()
    assert "Building DAG of jobs..." in stream.getvalue()


def test_a_mistake_of_the_view_costs_the_view_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    view = View(SETTINGS, stream)
    monkeypatch.setattr(live, "describe_job", lambda *_: 1 / 0)
    view.take(job(1, "train", row="flexseg", seed="0"))
    view.take(record(message="Snakemake says this", level=logging.WARNING))
    view.close()
    assert "The live view has failed (ZeroDivisionError" in stream.getvalue()
    assert "Snakemake says this" in stream.getvalue()


def standings_of(rows: int, seeds: int) -> list[Standing]:
    states = ("finished", "missing", "running", "failed", "trained", "interrupted")
    return [
        Standing(f"a_row_with_a_long_name_{row}", seed, Path("."), states[(row * seeds + seed) % 6], done=3, total=9)  # type: ignore[arg-type]
        for row in range(rows)
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("height", [12, 24, 50])
@pytest.mark.parametrize(("rows", "seeds"), [(2, 1), (16, 3), (50, 3), (20, 12), (3, 40)])
def test_the_table_fits_the_terminal(width: int, height: int, rows: int, seeds: int, smoke: Benchmark) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    found = standings_of(rows, seeds)
    jobs = [f"train a_row_with_a_long_name_{row}, seed 0" for row in range(8)]
    failed = [("evaluate flexseg", "results/smoke/logs/evaluate-flexseg.log")] * 5
    console.print(draw(smoke, found, (12, 60), jobs, failed, 3725.0, width, height))
    lines = stream.getvalue().splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("smoke: 12 of 60 steps, 1 h 02 min")
    shown = [line for line in lines if line.startswith("a_row")]
    assert shown
    urgent = {each.row for each in found if each.state == "running"}
    if len(shown) < rows and len(urgent) >= len(shown):
        assert all(any(row.startswith(line.split()[0].rstrip("…")) for row in urgent) for line in shown)


def test_jobs_are_called_by_what_they_do() -> None:
    assert describe_job("train", {"row": "flexseg", "seed": "2"}) == "train flexseg, seed 2"
    assert describe_job("flexseg_dataset", {"domain": "night"}) == "data of night"
    assert describe_job("product", {"product": "comparison.pdf"}) == "comparison.pdf"
    assert describe_job("tables", {}) == "tables"


def test_snakemake_finds_the_plugin() -> None:
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

    plugin = LoggerPluginRegistry().get_plugin("flexseg")
    stream = io.StringIO()
    handler = plugin.log_handler(SETTINGS, None)
    handler.view = View(SETTINGS, stream)
    handler.emit(record(message="careful", level=logging.WARNING))
    handler.close()
    assert stream.getvalue() == "careful\n"
    assert handler.writes_to_stream


def test_a_method_that_fails_is_named_with_its_reason(
    smoke: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job ends well, as the workflow goes on; what went wrong is in the run's own files."""
    from flexseg.benchmark import Run
    from flexseg.files import write_json

    monkeypatch.setattr(live, "_watched", smoke)
    run = Run(smoke, "flexseg", 0, tmp_path / "results")
    run.directory.root.mkdir(parents=True)
    write_json(run.directory.failure, {"status": "failed", "reason": "this idea does not work", "fingerprint": "x"})
    stream = io.StringIO()
    view = View(SETTINGS, stream)
    view.take(job(1, "train", row="flexseg", seed="0"))
    view.take(record("job_finished", job_id=1))
    view.take(record("progress", done=1, total=3))
    view.close()
    log = tmp_path / "results" / "smoke" / "logs" / "train-flexseg-0.log"
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(f" flexseg, seed 0: failed: this idea does not work; log: {log}")
    assert lines[1].endswith("; 1 failed:")
    assert lines[2] == f"  flexseg, seed 0: failed: this idea does not work: {log}"


def test_the_status_that_names_failed_runs_is_no_failure_of_its_own() -> None:
    stream = io.StringIO()
    view = View(SETTINGS, stream)
    view.failed.append(("flexseg, seed 0: failed: why", "log"))
    view.take(job(9, "status"))
    text = "RuleException:\nCommand 'set -euo pipefail; flexseg status smoke' returned non-zero exit status 1."
    view.take(record(message=text, level=logging.ERROR))
    view.take(record("job_error", level=logging.ERROR, jobid=9, rule_name="status", log=[]))
    view.close()
    assert stream.getvalue().splitlines()[1:] == ["  flexseg, seed 0: failed: why: log"]
