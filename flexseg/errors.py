"""The errors that a user can fix, shown as one message without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that a user can fix. The message says what is wrong, where, and what to do."""


class RunError(UserError):
    """A run cannot go on because of what it computed or was given (a non-finite loss, a broken method).

    The workflow records it as the reason in the row's cell; every other row goes on.
    """


class MissingExtra(RunError):
    """An optional package is not installed. The message is the recipe; the row is shown as not run, not as failed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` with the known name closest to ``name``, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
