"""The terminal: one way to print, which shows paths and people's own words literally, and progress of long work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def terminal(*, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console that takes nothing in a text for markup (``[red]``) or for an emoji (``:key:``)."""
    return Console(stderr=stderr, file=file, width=width, markup=False, emoji=False, highlight=False)


def printable(text: str) -> str:
    """A text on one line of any terminal and in any file: what cannot be printed, or is no text, as ``\\x1b``."""
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte of a file's name that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


@contextmanager
def progress_bar(task: str, total: int) -> Iterator[Any]:
    """A progress bar on standard error; yields ``advance(count, note="")``. Silent without a terminal."""
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = terminal(stderr=True)
    note = TextColumn("{task.fields[note]}", markup=False)
    with Progress(*columns, note, console=console, transient=True, disable=not console.is_terminal) as bar:
        handle = bar.add_task(task, total=total, note="")

        def advance(count: int, note: str = "") -> None:
            bar.update(handle, advance=count, note=printable(note))

        yield advance
