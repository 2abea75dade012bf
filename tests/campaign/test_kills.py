"""Kills at random moments: after the same command again everything is as if nothing had happened.

``FLEXSEG_KILLS`` is their number (100), ``FLEXSEG_SEED`` that of the random moments. A summary is printed at the end.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from work import Work

KILLS = int(os.environ.get("FLEXSEG_KILLS", "100"))
SEED = int(os.environ.get("FLEXSEG_SEED", "0"))
ROWS = ("dginstyle", "flexseg")


def _remove(*names: str) -> Callable[[Work, str], None]:
    def remove(work: Work, row: str) -> None:
        for name in names:
            path = work.results / name.format(row=row)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    return remove


TRAINED = [
    f"{{row}}/seed-0/{name}"
    for name in (
        "run.json",
        "model.safetensors",
        "train.jsonl",
        "config.json",
        "observations",
        "checkpoint.safetensors",
    )
]
"""What a training writes; the records beside it stay."""
JOBS: dict[str, tuple[int, tuple[str, ...], Callable[[Work, str], None]]] = {
    # weight, command, what is removed before so that there is something to do
    "train": (40, ("flexseg", "train", "smoke", "{row}", "0"), _remove(*TRAINED)),
    "evaluate": (25, ("flexseg", "evaluate", "smoke", "{row}"), _remove("{row}/seed-0/evaluation")),
    "dataset": (10, ("flexseg", "dataset", "smoke", "night"), _remove("data/night")),
    "tables": (9, ("flexseg", "tables", "smoke"), _remove("tables")),
    "report": (8, ("flexseg", "report", "smoke", "comparison", "reports/smoke/comparison.pdf"), _remove()),
    "workflow": (8, ("snakemake", "--cores", "2", "--config", "benchmark=smoke"), _remove("")),
}  # fmt: skip


def test_kills(undisturbed: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, expected = undisturbed.copy(tmp_path / "work"), undisturbed.digests()
    draw = random.Random(SEED)
    total = sum(weight for weight, *_ in JOBS.values())
    counts: dict[str, Counter[str]] = {name: Counter() for name in JOBS}
    for name, (weight, command, prepare) in JOBS.items():
        lasted = None
        for number in range(max(1, round(KILLS * weight / total))):
            row = ROWS[number % 2]
            words = [word.format(row=row) for word in command]
            if lasted is None:  # how long it takes, to kill it within that time
                prepare(work, row)
                start = time.monotonic()
                assert work.run(*words)[0] == 0
                lasted = time.monotonic() - start
            prepare(work, row)
            counts[name]["killed" if work.kill(draw.uniform(0.2, 1.0) * lasted, *words) else "done before"] += 1
            code, output = work.run(*words)
            if code and "--unlock" in output:
                counts[name]["to be unlocked"] += 1
                assert work.run(*words, "--unlock")[0] == 0
                code, output = work.run(*words)
            assert code == 0, output
            after = work.digests()
            counts[name]["lost"] += len(expected.keys() - after.keys())
            counts[name]["differing"] += sum(after[key] != value for key, value in expected.items() if key in after)
            counts[name]["half files"] += len(work.leftovers()) if name in ("train", "evaluate") else 0
    columns = ("killed", "done before", "lost", "differing", "half files", "to be unlocked")
    with capsys.disabled():
        print("\n| | " + " | ".join(columns) + " |\n|:--|" + "--:|" * len(columns))
        for name, count in counts.items():
            print(f"| {name} | " + " | ".join(str(count[column]) for column in columns) + " |")
    assert not sum(count["lost"] + count["differing"] for count in counts.values())
