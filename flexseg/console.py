"""The terminal: one way to print, which shows paths and people's own words literally, and progress of long work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def terminal(*, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console that takes nothing in a text for markup (``[red]``) or for an emoji (``:key:``)."""
    return Console(stderr=stderr, file=file, width=width, markup=False, emoji=False, highlight=False)


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def printable(text: str, *, breaks: bool = False) -> str:
    """A text on one line, with escapes (``\\x1b``) for what no terminal, encoding or file format takes as text.

    These are control characters, halves of surrogate pairs (as which Python keeps the bytes of a file's name that is no
    UTF-8), and the characters that turn the direction of all text behind them.

    Args:
        breaks: keep line breaks and tabs.
    """
    kept = "\n\r\t\u2028\u2029" if breaks else ""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in kept else _escape(found[0]), text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
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
