"""Two processes never train the same run; nothing else is kept out."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from flexseg.benchmark.identity import RunDirectory
from flexseg.errors import UserError


def test_second_training_is_refused_and_told_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path / "row" / "seed-0")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    with run.hold():
        expected = rf"seed-0 is being trained by process {os.getpid()} on .+ \(Slurm job 41\): wait"
        with pytest.raises(UserError, match=expected), run.hold():
            raise AssertionError
        with RunDirectory(tmp_path / "row" / "seed-1").hold():
            pass
        run.open({"method": "a"})
        run.open({"method": "b"}, supersede=True)  # the lock stays, whatever becomes of the directory
        with pytest.raises(UserError, match="is being trained"), run.hold():
            raise AssertionError
        monkeypatch.setenv("LOCAL_RANK", "1")
        with run.hold():
            pass
        monkeypatch.delenv("LOCAL_RANK")
    with run.hold():
        pass


def test_file_system_without_locks_is_said_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    entered = False
    with RunDirectory(tmp_path / "row" / "seed-0").hold():
        entered = True
    assert entered
    assert "has no file locks" in capsys.readouterr().out
