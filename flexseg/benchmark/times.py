"""How long the steps after training took here, so that the time left can be told (``logs/times.json``)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexseg.errors import UserError
from flexseg.files import read_json, write_json

EVALUATE = "evaluate"
"""The evaluation of one run; other names are those of the tables and reports."""


def times_file(results: Path, benchmark: str) -> Path:
    """Where they are kept."""
    return results / benchmark / "logs" / "times.json"


def read_times(results: Path, benchmark: str) -> dict[str, float]:
    """Seconds of each step that was measured; empty where nothing was, or the file is damaged."""
    path = times_file(results, benchmark)
    try:
        found = read_json(path) if path.is_file() else {}
    except (OSError, UserError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    }


@contextmanager
def measured(results: Path, benchmark: str, name: str, runs: int = 1) -> Iterator[None]:
    """Keep how long the block takes for each of its ``runs``; a step that fails keeps nothing, nor does a full disk.

    Another process may write at the same moment; of two measurements then one is kept, which does no harm.
    """
    started = time.monotonic()
    yield
    seconds = (time.monotonic() - started) / max(runs, 1)
    with contextlib.suppress(OSError, UserError):
        write_json(times_file(results, benchmark), read_times(results, benchmark) | {name: round(seconds, 3)})
