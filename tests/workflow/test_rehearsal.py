"""The real file of a paper's benchmark through the real workflow, on rendered stand-ins in their official layouts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flexseg.files import read_json

Command = Callable[..., subprocess.CompletedProcess[str]]
TARGETS = {
    "acdc": "train_ids",
    "dark_zurich": "train_ids",
    "cityscapes": "train_ids",
    "bdd100k": "train_ids",
    "mapillary": "mapillary_daformer",
}


@pytest.mark.slow
def test_gta5_hrda_is_rehearsed_from_its_data_to_its_reports(
    tmp_path: Path, make_copy: Callable[[Path], Path], run_in: Command
) -> None:
    copy = make_copy(tmp_path / "copy")
    small = ["--trunk", "b0", "--shrink", "8", "--iterations", "2", "--frames", "2", "--rows", "dginstyle,flexseg"]
    done = run_in(copy, "flexseg", "rehearse", "gta5_hrda", *small, "--folder", "small", "--cores", "2")
    assert done.returncode == 0, done.stdout[-4000:]
    for change in ("training.iterations", "model.hrda.detail", "protocol.window", "model.weights.sha256"):
        assert change in done.stdout
    home = copy / "small"
    for row in ("dginstyle", "flexseg"):
        run = home / "results" / "gta5_hrda" / row / "seed-0"
        record = read_json(run / "run.json")
        assert record["status"] == "finished"
        assert record["trunk_weights"] == record["definition"]["model"]["weights"]["sha256"]
        assert set(record["data"]) == {"gta5", "generated"}
        log = (run / "train.jsonl").read_text()
        assert '"loss/auxiliary"' in log, "HRDA's detail crop"
        assert '"loss/fd"' in log
        assert ('"loss/gap"' in log) == (row == "flexseg")
        for target, label_map in TARGETS.items():
            metadata = pq.read_schema(run / "evaluation" / f"{target}.parquet").metadata
            assert metadata[b"protocol"] == b"gta5-hrda-v1"
            assert metadata[b"target_label_map"].decode() == label_map
    reports = home / "reports" / "gta5_hrda" / "rows-dginstyle+flexseg"
    for product in ("comparison.pdf", "ablation.pdf", "index.html", "summary.md"):
        assert (reports / product).stat().st_size > 1000
    assert "numbers mean nothing" in (reports / "summary.md").read_text()
