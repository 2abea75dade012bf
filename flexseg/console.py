"""Progress of long work on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(task: str, total: int) -> Iterator[Any]:
    """A progress bar on standard error; yields ``advance(count, note="")``. Silent without a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    note = TextColumn("{task.fields[note]}")
    with Progress(*columns, note, console=console, transient=True, disable=not console.is_terminal) as bar:
        handle = bar.add_task(task, total=total, note="")

        def advance(count: int, note: str = "") -> None:
            bar.update(handle, advance=count, note=note)

        yield advance
