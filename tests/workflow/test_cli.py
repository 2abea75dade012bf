"""The command line, called in this process: what it shows, and that every mistake is one message."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from flexseg.analysis.stats.reference import Reference
from flexseg.analysis.stats.verify import Cell, Verdict, Verification
from flexseg.cli import app, main


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's benchmarks and methods, in which the commands are called."""
    for folder in ("benchmarks", "methods"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_help_names_every_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert name in shown
        assert command.help, f"{name} says nothing"


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "dataset",
        "train",
        "evaluate",
        "tables",
        "report",
        "status",
        "compare",
        "verify",
        "reference",
        "tune",
        "validate",
        "new-method",
        "install-detectron2",
    ],
)
def test_every_command_has_help(here: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["trian"], ["show", "method"], ["train", "smoke"], ["train", "smoke", "x", "one"]]
)
def test_unknown_command_or_argument(here: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    shown = capsys.readouterr()
    assert "Usage" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "smok"], "no benchmark is named 'smok' (did you mean 'smoke'?)"),
        (["check", "smoke", "--study", "defualt"], "no study is named 'defualt' (did you mean 'default'?)"),
        (["check", "smoke", "--rows", "flexsge"], "no row is named 'flexsge' (did you mean 'flexseg'?)"),
        (["check", "smoke", "--seeds", "0,x"], "seeds are different whole numbers"),
        (["dataset", "smoke", "nigth"], "has no domain 'nigth'"),
        (["train", "smoke", "flexsge", "0"], "no row is named 'flexsge'"),
        (["train", "smoke", "dginstyle", "0"], "index.parquet does not exist: write the domain first"),
        (["evaluate", "smoke", "dginstyle"], "holds no finished run of these settings: train it first"),
        (["report", "smoke", "sumary", "x.md"], "did you mean 'summary'?): choose comparison, ablation"),
        (["tune", "smoke"], "has no tuning block"),
        (["compare", "smoke", "dginstyle", "flexsge"], "no row is named 'flexsge' (did you mean 'flexseg'?)"),
        (["compare", "smoke", "dginstyle"], "compare 'dginstyle' with what? Name a second row"),
        (["compare", "smoke", "flexseg", "flexseg"], "'flexseg' cannot be compared with itself"),
        (["compare", "smoke", "flexseg", "--other", "old"], "--other old: there is no folder old/smoke"),
        (["compare", "smoke", "dginstyle", "flexseg", "--per", "clas"], "per 'clas' (did you mean 'class'?)"),
        (["compare", "smoke", "dginstyle", "flexseg", "--quantity", "mIuO"], "there is no quantity 'mIuO'"),
        (["verify", "smok"], "no benchmark is named 'smok' (did you mean 'smoke'?)"),
        (["reference", "add", "smok"], "no benchmark is named 'smok' (did you mean 'smoke'?)"),
        (["reference", "add", "smoke", "--study", "x"], "no study is named 'x'"),
        (["report", "smoke", "claims", "x.pdf"], "benchmark smoke makes no claims: name a file of them"),
        (["report", "smoke", "claim", "x.pdf"], "there is no report 'claim' (did you mean 'claims'?)"),
    ],
)
def test_mistake_is_one_message_and_exit_code_2(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("seed", ["-1", "1.5"])
def test_seed_that_is_not_a_number(here: Path, seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "smoke", "dginstyle", "--", seed) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (here / "results").exists()


def test_outside_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("check", "smoke") == 2
    assert "is this the top folder of the repository?" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--devices", "many"), ("--devices", "0"), ("--precision", "7-bit")])
def test_unavailable_devices_or_precision(
    here: Path, smoke_data: Path, wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "results" / "smoke").mkdir(parents=True)
    (here / "results" / "smoke" / "data").symlink_to(smoke_data / "smoke" / "data")
    assert call("train", "smoke", "dginstyle", "0", *wrong) == 2
    assert f"{wrong[1]!r}" in capsys.readouterr().err
    assert not (here / "results" / "smoke" / "dginstyle" / "seed-0" / "failure.json").exists()


def test_show_benchmarks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", "benchmarks") == 0
    shown = capsys.readouterr().out
    assert "smoke: Smoke test; 1 seeds" in shown
    assert "default: dginstyle, flexseg" in shown


def test_show_methods_goes_on_past_a_broken_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "methods" / "aaa.py").write_text("class Broken(:\n")
    (here / "methods" / "_helper.py").write_text("class Broken(:\n")
    assert call("show", "methods") == 0
    shown = capsys.readouterr().out
    assert "aaa: broken" in shown
    assert "aaa.py, line 1 cannot be imported: SyntaxError" in shown
    assert "_helper" not in shown
    for name in ("boundary_policy", "dginstyle", "flexseg", "source_only"):
        assert f"{name}: " in shown
    assert "lambda_gap" in shown
    assert "assumed" in shown


def test_check_of_a_ready_benchmark(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", "smoke") == 0
    assert "smoke: 2 rows, trunk of 0.11 M parameters, ready" in capsys.readouterr().out


def test_check_lists_every_wrong_option(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "benchmarks" / "smoke.yaml"
    content = yaml.safe_load(path.read_text())
    content["rows"]["flexseg"] |= {"alhpa": 1.0}
    content["rows"]["dginstyle"] |= {"alpha": 1.0}
    path.write_text(yaml.safe_dump(content))
    assert call("check", "smoke") == 2
    shown = capsys.readouterr().err
    assert "'alhpa' (did you mean 'alpha'?)" in shown
    assert "rows.dginstyle" in shown


def test_status_of_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("status", "smoke") == 0
    assert "2 missing" in capsys.readouterr().out


def test_compare_without_any_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", "smoke", "dginstyle", "flexseg") == 0
    shown = capsys.readouterr().out
    assert "not comparable, as no seed has finished both" in shown
    assert "A, seed 0 missing: not run." in shown


def test_verify_without_a_reference_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", "smoke") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("smoke: no reference results to compare with (benchmarks/smoke.reference.csv")
    assert shown.count("\n") == 1


def test_adding_nothing_to_a_reference_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reference", "add", "smoke") == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 runs are not finished, or not evaluated on every target: `flexseg status smoke`",
        "benchmarks/smoke.reference.csv: 0 runs added, 0 were there already, 0 in all",
    ]
    assert not (here / "benchmarks" / "smoke.reference.csv").exists()


def test_verify_with_a_damaged_reference(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "benchmarks" / "smoke.reference.csv").write_text("row,column\n")
    assert call("verify", "smoke") == 2
    assert "benchmarks/smoke.reference.csv is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("verdict", "code"), [("differs", 1), ("outside", 0), ("within noise", 0), ("missing", 0)])
def test_verify_fails_only_if_results_differ(
    here: Path, verdict: Verdict, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = Reference(Path(), (), {})
    cell = Cell("flexseg", "night", verdict, here=30.0, there=20.0, n_here=1, n_there=3, half=2.0, p=0.0)
    found = Verification("smoke", ("night",), {("flexseg", "night"): cell})
    (here / "benchmarks" / "smoke.reference.csv").touch()
    monkeypatch.setattr("flexseg.analysis.stats.reference.read_reference", lambda *_: reference)
    monkeypatch.setattr("flexseg.analysis.stats.verify.verify", lambda *_: found)
    assert call("verify", "smoke", "--cells") == code
    assert ("These results differ" in capsys.readouterr().out) == bool(code)


@pytest.mark.parametrize(
    "arguments", [["status", "smoke"], ["compare", "smoke", "dginstyle", "flexseg"], ["verify", "smoke"]]
)
def test_interactive_commands_start_without_torch(here: Path, root: Path, arguments: list[str]) -> None:
    program = (
        "import sys\nfrom flexseg.cli import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {'torch', 'matplotlib', 'seaborn'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_interruption_is_one_line_and_exit_code_130(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flexseg.tasks.jobs.train_run", interrupted)
    assert call("train", "smoke", "dginstyle", "0") == 130
    assert "interrupted; start the same command again to go on" in capsys.readouterr().err
